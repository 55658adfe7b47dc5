package server_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

func (c *checker) listImages(ctx context.Context) ([]api.BackupImage, error) {
	var all []api.BackupImage
	for cursor := ""; ; {
		r, err := c.any().ListBackupImagesWithResponse(ctx, &api.ListBackupImagesParams{Limit: 1000, Cursor: cursor})
		if err := api.Err(r, err); err != nil {
			return nil, err
		}
		all = append(all, r.JSON200.Items...)
		if cursor = r.JSON200.NextCursor; cursor == "" {
			return all, nil
		}
	}
}

// restores says whether an image claims that it can be restored.
func restores(i api.BackupImage) bool {
	return i.Status == api.ImageStatusGood || i.Status == api.ImageStatusPartial
}

// lookAtImages sees that no image that was good has gone but by its time or by
// a user, that each VM that had a good one has one, and that each says of its
// bytes what the lab says.
func (c *checker) lookAtImages(images []api.BackupImage, say sayer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := map[string]api.BackupImage{}
	for _, i := range images {
		now[i.ID] = i
		if restores(i) {
			c.compareSums(i, say)
		}
	}
	for id, was := range c.images {
		is, listed := now[id]
		switch w := c.written["/v1/backup-images/"+id]; {
		case listed && restores(is), w != nil && w.gone, !was.ExpiresAt.IsZero() && !was.Held && c.clock().After(was.ExpiresAt):
		case listed:
			say(3, "The image %s of %q at %s was good and is %s: %s", id, was.VirtualMachine.Name, was.PointInTime, is.Status, is.Message)
		default:
			say(3, "The image %s of %q at %s was good and is gone.", id, was.VirtualMachine.Name, was.PointInTime)
		}
	}
	c.lastOfEach(now, say)
	c.images = maps.Clone(now)
	maps.DeleteFunc(c.images, func(_ string, i api.BackupImage) bool { return !restores(i) })
}

// lastOfEach sees that a VM which schedules back up has a good image for as
// long as nobody has taken its images or schedules away.
func (c *checker) lastOfEach(now map[string]api.BackupImage, say sayer) {
	has := map[string]bool{}
	for _, i := range now {
		has[i.VirtualMachine.ID] = has[i.VirtualMachine.ID] || restores(i)
	}
	for id, was := range c.images {
		schedule, image := c.written["/v1/backup-schedules/"+was.ScheduleID], c.written["/v1/backup-images/"+id]
		if !has[was.VirtualMachine.ID] && schedule != nil && !schedule.gone && image == nil {
			say(3, "The last good image of %q, %s, is gone, though a schedule backs it up.", was.VirtualMachine.Name, id)
			has[was.VirtualMachine.ID] = true // said
		}
	}
}

// compareSums compares what an image says of its disks with what was there.
func (c *checker) compareSums(i api.BackupImage, say sayer) {
	want := c.lab.FrozenSHA256(i.VirtualMachine.MOID, i.PointInTime)
	if want == nil {
		say(2, "The image %s of %q is of %s, when no snapshot was made.", i.ID, i.VirtualMachine.Name, i.PointInTime)
	}
	for _, d := range i.Disks {
		if want != nil && d.SkippedReason == "" && d.SHA256 != "" && d.SHA256 != want[d.Key] {
			say(2, "The image %s of %q at %s says that %q is %s, and it was %s.", i.ID, i.VirtualMachine.Name, i.PointInTime, d.Label, d.SHA256, want[d.Key])
		}
	}
}

// checkers is how many images are restored at the same time.
const checkers = 4

// restoreSome restores images as new VMs and compares each byte with what the
// snapshot froze.
func (c *checker) restoreSome(ctx context.Context, images []api.BackupImage, sample int, say sayer) {
	var mu sync.Mutex // guards say and what is counted
	var g errgroup.Group
	g.SetLimit(checkers)
	for _, i := range c.choose(images, sample) {
		g.Go(func() error {
			why := c.restoreOne(ctx, i)
			mu.Lock()
			defer mu.Unlock()
			c.restores++
			if why != "" {
				say(2, "The image %s of %q at %s does not restore: %s", i.ID, i.VirtualMachine.Name, i.PointInTime, why)
				return nil
			}
			c.restored[i.ID] = true
			return nil
		})
	}
	_ = g.Wait() // none of them fails
}

// choose takes the newest image of all, then the newest of VMs and others by chance.
func (c *checker) choose(images []api.BackupImage, sample int) []api.BackupImage {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(images), func(i api.BackupImage) bool { return !restores(i) })
	slices.SortFunc(all, func(a, b api.BackupImage) int { return b.PointInTime.Compare(a.PointInTime) })
	if sample == allImages || len(all) == 0 {
		newest := map[string]bool{}
		return slices.DeleteFunc(all, func(i api.BackupImage) bool {
			first := !newest[i.VirtualMachine.ID]
			newest[i.VirtualMachine.ID] = true
			return !first && c.restored[i.ID]
		})
	}
	rest := all[1:]
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	return all[:min(sample, len(all))]
}

// restoreOne restores an image, compares, and takes the new VM away. It says
// what was wrong.
func (c *checker) restoreOne(ctx context.Context, i api.BackupImage) string {
	want := c.lab.FrozenSHA256(i.VirtualMachine.MOID, i.PointInTime)
	name := fmt.Sprintf("checked-%s-%d", i.ID, c.checks)
	r, err := c.any().CreateRestoreWithResponse(ctx, nil, api.Restore{ImageID: i.ID, NewVM: &api.RestoreNewVM{Name: name}})
	if err := api.Err(r, err); err != nil {
		return err.Error()
	}
	done, err := c.restoreEnd(ctx, r.JSON201.ID)
	switch {
	case err != nil:
		return err.Error()
	case done.Status != api.JobStateSucceeded:
		return fmt.Sprintf("it ended %s: %+v", done.Status, done.Error)
	}
	defer func() {
		if err := c.lab.RemoveVM(context.WithoutCancel(ctx), done.RestoredVM.MOID); err != nil {
			c.t.Errorf("take the VM %s away: %v", name, err)
		}
	}()
	got, err := c.sumsOf(ctx, done.RestoredVM.MOID)
	if err != nil {
		return err.Error()
	}
	for _, d := range i.Disks {
		if d.SkippedReason == "" && (got[d.Key] == "" || got[d.Key] != want[d.Key]) {
			return fmt.Sprintf("%q is %q, and it was %q", d.Label, got[d.Key], want[d.Key])
		}
	}
	return ""
}

// restoreEnd waits for the end of a restore.
func (c *checker) restoreEnd(ctx context.Context, id string) (api.Restore, error) {
	for end := time.Now().Add(4 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		g, err := c.any().GetRestoreWithResponse(ctx, id, nil)
		if err := api.Err(g, err); err != nil {
			return api.Restore{}, err
		}
		if g.JSON200.Status.Final() {
			return *g.JSON200, nil
		}
		if time.Now().After(end) {
			return api.Restore{}, fmt.Errorf("the restore %s is not over after four minutes: %s", id, g.JSON200.Status)
		}
	}
}
