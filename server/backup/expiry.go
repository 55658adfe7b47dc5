package backup

import (
	"context"
	"fmt"
	"time"
)

// ImageEnd is a place in the order in which images end.
type ImageEnd struct {
	At time.Time
	ID string
}

// Ending images go in transactions of endedBatch, at most endedPass at a time.
const (
	endedBatch = 100
	endedPass  = 1000
)

// Expiry is what a pass over the images whose time is over has done.
type Expiry struct {
	Jobs  int        // that delete images
	Kept  int        // images that stay for now
	Clock ClockState // nothing goes where it is not trusted
}

// Expired is an image whose time is over.
type Expired struct {
	Image Image
	Stays string // why it does not go yet; "" = it goes
}

// Expire asks for the deletion of images whose time is over (seed N67, A38).
// It may be called by any number of servers, as often as they like.
func (p *Planner) Expire(ctx context.Context) (Expiry, error) {
	var out Expiry
	err := p.Store.Update(ctx, func(tx Tx) (err error) {
		if out.Clock, err = lookAtClock(ctx, tx); err != nil || !out.Clock.Trusted {
			return err
		}
		if err := tx.ForgetUsage(ctx, UsageKept(tx.Now())); err != nil {
			return err
		}
		out.Jobs, err = deleteAgain(ctx, tx)
		return err
	})
	if err != nil || !out.Clock.Trusted {
		return out, err
	}
	for after := new(ImageEnd); after != nil && out.Jobs < endedPass; {
		var batch Expiry
		var next *ImageEnd
		err := p.Store.Update(ctx, func(tx Tx) (err error) {
			batch, next, err = p.expireBatch(ctx, tx, *after)
			return err
		})
		if err != nil {
			return out, fmt.Errorf("expire images: %w", err)
		}
		out.Jobs += batch.Jobs
		out.Kept += batch.Kept
		after = next
	}
	if out.Jobs > 0 {
		p.wake()
	}
	return out, nil
}

// expireBatch deletes some images; next is where to go on, nil = nowhere.
func (p *Planner) expireBatch(ctx context.Context, tx Tx, after ImageEnd) (out Expiry, next *ImageEnd, err error) {
	all, err := p.ended(ctx, tx, after, endedBatch)
	if err != nil {
		return out, nil, err
	}
	for _, e := range all {
		if e.Stays != "" {
			out.Kept++
			continue
		}
		if _, err := deleteImage(ctx, tx, e.Image); err != nil {
			return out, nil, err
		}
		out.Jobs++
	}
	if n := len(all); n == endedBatch {
		next = &ImageEnd{At: all[n-1].Image.ExpiresAt, ID: all[n-1].Image.ID}
	}
	return out, next, nil
}

// ExpiryPlan lists the images whose time is over, at most 1,000, and says of
// each whether it goes. It changes nothing.
func (p *Planner) ExpiryPlan(ctx context.Context) (all []Expired, err error) {
	err = p.Store.View(ctx, func(tx Tx) (err error) {
		if all, err = p.ended(ctx, tx, ImageEnd{}, endedPass); err != nil {
			return err
		}
		look, err := tx.ClockLook(ctx)
		if err != nil {
			return err
		}
		if clock := look.at(tx.Now()).state(tx.Now()); !clock.Trusted {
			for i := range all {
				all[i].Stays = "The clock has leapt: nothing ends " + clock.Until() + "."
			}
		}
		return nil
	})
	return all, err
}

// ended lists images whose time is over, with the reasons of those that stay.
func (p *Planner) ended(ctx context.Context, tx Tx, after ImageEnd, limit int) ([]Expired, error) {
	images, err := tx.EndedImages(ctx, tx.Now(), after, limit)
	if err != nil {
		return nil, err
	}
	k := keeper{tx: tx, installation: p.Installation}
	all := make([]Expired, len(images))
	for n, i := range images {
		all[n].Image = i
		if all[n].Stays, err = k.keeps(ctx, i); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// keeper knows why images stay.
type keeper struct {
	tx      Tx
	covered *coverage         // nil = not looked yet
	read    map[string]bool   // images that are being restored
	copied  map[string]string // images that are being copied
	frozen  map[string]string // repositories that can only be read from here, by id

	installation string
}

func (k *keeper) keeps(ctx context.Context, i Image) (string, error) {
	if err := k.look(ctx); err != nil {
		return "", err
	}
	if name := k.frozen[i.RepositoryID]; name != "" {
		return fmt.Sprintf("The repository %q can only be read from here.", name), nil
	}
	if k.read[i.ID] {
		return "It is being restored.", nil
	}
	if k.copied[i.ID] != "" {
		return "It is being copied.", nil
	}
	if i.Status == ImageDamaged || !k.covered.vms[i.VMID] {
		return "", nil
	}
	if i.CopyOf != "" && k.covered.copied[[2]string{i.VMID, i.RepositoryID}] {
		if newer, err := k.tx.HasNewerImage(ctx, i, i.Status == ImagePartial); err != nil || !newer {
			return "It is the last good copy of a VM whose images are still copied there: it goes when there is a newer one.", err
		}
	}
	if i.CopyOf != "" { // else its original counts, and what is newer than that
		i.CopyOf, i.ID = "", ""
	}
	newer, err := k.tx.HasNewerImage(ctx, i, i.Status == ImagePartial)
	if err != nil || newer {
		return "", err
	}
	return "It is the last good image of a VM that is still backed up: it goes when there is a newer one.", nil
}

// look reads, once, what keeps images.
func (k *keeper) look(ctx context.Context) (err error) {
	if k.covered != nil {
		return nil
	}
	if k.frozen, err = frozenRepositories(ctx, k.tx, k.installation); err != nil {
		return err
	}
	restores, err := activeImages(ctx, k.tx, KindRestore)
	if err != nil {
		return err
	}
	k.read = restores
	if k.copied, err = copySources(ctx, k.tx, ""); err != nil {
		return err
	}
	k.covered, err = covered(ctx, k.tx)
	return err
}

// frozenRepositories are the names of those that can only be read from here.
func frozenRepositories(ctx context.Context, tx Tx, installation string) (map[string]string, error) {
	all, _, err := tx.Repositories(ctx, Page{Limit: 1000})
	if err != nil {
		return nil, err
	}
	frozen := map[string]string{}
	for _, r := range all {
		if r.ReadOnly || r.Foreign(installation) {
			frozen[r.ID] = r.Name
		}
	}
	return frozen, nil
}

// coverage is what enabled schedules do, so far as the VMs are there.
type coverage struct {
	vms    map[string]bool    // are backed up
	copied map[[2]string]bool // VMs whose images are copied, with the id of the repository
}

func (c *coverage) add(vmID string, s Schedule) {
	if vmID == "" {
		return
	}
	c.vms[vmID] = true
	for _, t := range s.CopyTo {
		c.copied[[2]string{vmID, t.RepositoryID}] = true
	}
}

func covered(ctx context.Context, tx Tx) (*coverage, error) {
	schedules, _, err := tx.Schedules(ctx, ScheduleFilter{EnabledOnly: true})
	if err != nil {
		return nil, err
	}
	c, groups, inventory := &coverage{vms: map[string]bool{}, copied: map[[2]string]bool{}}, map[string][]VirtualMachine{}, inventories{}
	for _, s := range schedules {
		if s.GroupID == "" {
			c.add(s.VMID, s)
			continue
		}
		vms, known := groups[s.GroupID]
		if !known {
			g, err := tx.Group(ctx, s.GroupID)
			if err == nil {
				vms, err = inventory.members(ctx, tx, g)
			}
			if err != nil {
				return nil, err
			}
			groups[s.GroupID] = vms
		}
		if known && len(s.CopyTo) == 0 {
			continue
		}
		for _, vm := range vms {
			c.add(vm.ID, s)
		}
	}
	return c, nil
}

// activeImages lists the images that jobs of a kind are about that are not over.
func activeImages(ctx context.Context, tx Tx, kind JobKind) (map[string]bool, error) {
	images := map[string]bool{}
	for f := (JobFilter{Kind: kind, Active: true, Page: Page{Limit: 1000}}); ; {
		jobs, next, err := tx.Jobs(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, j := range jobs {
			images[j.ImageID] = true
		}
		if f.Cursor = next; next == "" {
			return images, nil
		}
	}
}

// deleteAgain asks once more for the deletion of images whose job has failed.
func deleteAgain(ctx context.Context, tx Tx) (jobs int, err error) {
	asked, err := activeImages(ctx, tx, KindDelete)
	if err != nil {
		return 0, err
	}
	for f := (ImageFilter{Status: ImageExpired, Page: Page{Limit: 1000}}); jobs < endedBatch; {
		images, next, err := tx.Images(ctx, f)
		if err != nil {
			return 0, err
		}
		for _, i := range images {
			if asked[i.ID] || jobs == endedBatch {
				continue
			}
			if _, err := deleteImage(ctx, tx, i); err != nil {
				return 0, err
			}
			jobs++
		}
		if f.Cursor = next; next == "" {
			break
		}
	}
	return jobs, nil
}

// deleteImage takes the image out of the catalogue and asks for the job that
// takes it out of its repository.
func deleteImage(ctx context.Context, tx Tx, i Image) (Job, error) {
	repo, err := tx.Repository(ctx, i.RepositoryID)
	if err != nil {
		return Job{}, err
	}
	if i.Status != ImageExpired {
		i.Status = ImageExpired
		if err := tx.UpdateImage(ctx, i); err != nil {
			return Job{}, err
		}
	}
	j := newJob(tx.Now(), KindDelete)
	j.ImageID, j.VMID, j.VMName, j.VCenterID = i.ID, i.VMID, i.VMName, i.VCenterID
	j.Needs = []string{reachRepository(repo)}
	j.MaxAttempts = 10
	return j, tx.InsertJob(ctx, j)
}
