package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"
)

// Schedules of one VM that are due in the same window share one image, which
// keeps the longest of their retentions. Two moments see to that: a backup that
// ends gives its image to those that wait, and one that begins looks for an
// image that was made meanwhile.

// claimant is a scheduled backup job as sharing sees it.
type claimant struct {
	job  Job
	spec BackupSpec
}

// claim reads what the job was asked to do; ok = it may share an image. What
// is run by hand wants an image of its own, and so does a consistent group.
func claim(j Job) (c claimant, ok bool) {
	c.job = j
	if j.Kind != KindBackup || j.WaitsFor != "" || j.WindowEnd.IsZero() || json.Unmarshal(j.Spec, &c.spec) != nil {
		return c, false
	}
	return c, !c.spec.Slot.IsZero() && !c.spec.Full
}

// takes says whether an image that m made is one that c would make itself: of
// the same choices, and begun in c's own slot or after it while the windows of
// both overlap.
func (c claimant) takes(m claimant, i Image) bool {
	return c.spec.ScheduleID != m.spec.ScheduleID && c.job.VMID == m.job.VMID && i.VMID == c.job.VMID &&
		i.RepositoryID == c.spec.RepositoryID && c.spec.RepositoryID == m.spec.RepositoryID &&
		(i.Status == ImageGood || i.Status == ImagePartial) &&
		c.spec.Consistency == m.spec.Consistency && c.spec.Unprotect == m.spec.Unprotect && sameChoice(c.spec.Disks, m.spec.Disks) &&
		!i.StartedAt.Before(c.spec.Slot) && c.spec.Slot.Before(m.job.WindowEnd) && m.spec.Slot.Before(c.job.WindowEnd)
}

// sameChoice compares the sets of labels, whatever their order.
func sameChoice(a, b DiskChoice) bool {
	return reflect.DeepEqual(ordered(a.IncludeLabels), ordered(b.IncludeLabels)) && reflect.DeepEqual(ordered(a.ExcludeLabels), ordered(b.ExcludeLabels))
}

// sharedLooks is how many of a VM's newest images are looked at: those since
// the slot began are few.
const sharedLooks = 20

// SharedImage finds the image that the backup job can take for its own. Its ID
// is "" when there is none, so that the job makes one.
func SharedImage(ctx context.Context, tx Tx, j Job) (Image, error) {
	c, ok := claim(j)
	if !ok {
		return Image{}, nil
	}
	newest, _, err := tx.Images(ctx, ImageFilter{VMID: j.VMID, RepositoryID: c.spec.RepositoryID, Page: Page{Limit: sharedLooks}})
	if err != nil {
		return Image{}, err
	}
	for _, i := range newest {
		if i.StartedAt.Before(c.spec.Slot) || i.JobID == j.ID {
			continue
		}
		maker, err := tx.Job(ctx, i.JobID)
		if CodeOf(err) == NotFound { // nobody knows any more what it was asked to do
			continue
		}
		if err != nil {
			return Image{}, err
		}
		if m, ok := claim(maker); ok && c.takes(m, i) {
			return i, nil
		}
	}
	return Image{}, nil
}

// ShareImage makes the image the job's as well: kept and locked for as long as
// the longer of both asks, and carrying the labels of both. Errors: NotFound
// (it was deleted meanwhile).
func ShareImage(ctx context.Context, tx Tx, j Job, imageID string) error {
	c, ok := claim(j)
	if !ok {
		return fmt.Errorf("job %s shares no image", j.ID)
	}
	i, err := tx.Image(ctx, imageID)
	if err != nil {
		return err
	}
	if i.Status != ImageGood && i.Status != ImagePartial {
		return Errorf(NotFound, "", "Image %s is %s by now, so it cannot be shared.", i.ID, i.Status)
	}
	shares, err := tx.ImageShares(ctx, i.ID)
	if err != nil {
		return err
	}
	if len(shares) == 0 {
		own := ImageShare{ImageID: i.ID, JobID: i.JobID, ScheduleID: i.ScheduleID, GroupID: i.GroupID, RunID: i.RunID, ExpiresAt: i.ExpiresAt, LockedUntil: i.LockedUntil}
		if err := tx.SaveImageShare(ctx, own); err != nil {
			return err
		}
	}
	s := ImageShare{ImageID: i.ID, JobID: j.ID, ScheduleID: c.spec.ScheduleID, GroupID: c.spec.GroupID, RunID: j.RunID, ExpiresAt: ExpiresAt(i.StartedAt, c.spec.Retention)}
	if c.spec.Lock {
		s.LockedUntil = LockedUntil(s.ExpiresAt)
	}
	if err := tx.SaveImageShare(ctx, s); err != nil {
		return err
	}
	i.keepFor(s)
	for name, value := range c.spec.Labels {
		if _, own := i.Labels[name]; !own {
			if i.Labels == nil {
				i.Labels = map[string]string{}
			}
			i.Labels[name] = value
		}
	}
	if err := tx.UpdateImage(ctx, i); err != nil {
		return err
	}
	return PlanCopies(ctx, tx, j, i)
}

// keepFor makes i end no sooner than the share asks for.
func (i *Image) keepFor(s ImageShare) {
	i.ExpiresAt = laterEnd(i.ExpiresAt, s.ExpiresAt)
	if s.LockedUntil.After(i.LockedUntil) {
		i.LockedUntil = s.LockedUntil
	}
}

// laterEnd is the later of two ends of images, of which zero is never.
func laterEnd(a, b time.Time) time.Time {
	if a.IsZero() || b.IsZero() {
		return time.Time{}
	}
	if a.After(b) {
		return a
	}
	return b
}

// forGood is when the lock of an image ends that never expires.
var forGood = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// LockedUntil is when the lock of an image ends that expires then.
func LockedUntil(expires time.Time) time.Time {
	if expires.IsZero() { // it never expires, so it is never deleted
		return forGood
	}
	return expires
}

// neverAsZero turns the end of what never ends into the zero time.
func neverAsZero(t time.Time) time.Time {
	if t.Equal(forGood) {
		return time.Time{}
	}
	return t
}

// ShareWithWaiting gives the image that the job has just made to the jobs that
// wait to make the same one, and ends them.
func ShareWithWaiting(ctx context.Context, tx Tx, made Job, i Image) error {
	m, ok := claim(made)
	if !ok {
		return nil
	}
	waiting, _, err := tx.Jobs(ctx, JobFilter{Active: true, Kind: KindBackup, VMID: made.VMID, Page: Page{Limit: 1000}})
	if err != nil || len(waiting) == 0 {
		return err
	}
	repo, err := tx.Repository(ctx, i.RepositoryID)
	if err != nil {
		return err
	}
	for _, j := range waiting {
		c, ok := claim(j)
		// Also one whose tries have failed: what they left is swept up.
		if !ok || j.State != JobQueued || !c.takes(m, i) {
			continue
		}
		if c.spec.Lock && i.LacksStorageLock(repo) {
			continue // it tries to lock the image itself
		}
		if err := ShareImage(ctx, tx, j, i.ID); err != nil {
			return err
		}
		text, err := SharingText(ctx, tx, i)
		if err == nil {
			err = tx.EndJob(ctx, j.ID, Ending{State: JobSucceeded, ImageID: i.ID, Started: earlier(j.StartedAt, i.StartedAt), Messages: []string{text}})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// earlier is when a job counts as started that has the image: then, or before.
func earlier(job, image time.Time) time.Time {
	if job.IsZero() || image.Before(job) {
		return image
	}
	return job
}

// SharingText tells a user whose image the job has.
func SharingText(ctx context.Context, tx Tx, i Image) (string, error) {
	name := i.ScheduleID
	s, err := tx.Schedule(ctx, i.ScheduleID)
	switch {
	case err == nil:
		name = s.Name
	case CodeOf(err) != NotFound:
		return "", err
	}
	return fmt.Sprintf("Shares the image of schedule %q, taken at %s, and keeps it for the longer retention.", name, i.PointInTime.UTC().Format("2006-01-02 15:04:05 UTC")), nil
}
