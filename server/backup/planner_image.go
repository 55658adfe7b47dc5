package backup

import (
	"context"
	"encoding/json"
	"fmt"
)

// DeleteImage takes an image out of the catalogue at once and asks for a job
// that takes it out of its repository (seed N43). Errors: NotFound, Locked,
// InUse (a restore reads it).
func (p *Planner) DeleteImage(ctx context.Context, id string) (Job, error) {
	var j Job
	err := p.Store.Update(ctx, func(tx Tx) error {
		i, err := tx.Image(ctx, id)
		if err != nil {
			return err
		}
		if tx.Now().Before(i.LockedUntil) {
			return Errorf(Locked, "", "Image %s is locked until %s: nobody can delete it before.", id, i.LockedUntil.UTC().Format("2006-01-02 15:04 UTC"))
		}
		if err := notRead(ctx, tx, id); err != nil {
			return err
		}
		if i.Status == ImageExpired { // asked for before
			return nil
		}
		repo, err := tx.Repository(ctx, i.RepositoryID)
		if err != nil {
			return err
		}
		i.Status = ImageExpired
		if err := tx.UpdateImage(ctx, i); err != nil {
			return err
		}
		j = newJob(tx.Now(), KindDelete)
		j.ImageID, j.VMID, j.VMName, j.VCenterID = i.ID, i.VMID, i.VMName, i.VCenterID
		j.Needs = []string{reachRepository(repo)}
		j.MaxAttempts = 10
		return tx.InsertJob(ctx, j)
	})
	if err == nil {
		p.wake()
	}
	return j, err
}

// notRead gives [InUse] while a restore of the image waits or runs.
func notRead(ctx context.Context, tx Tx, id string) error {
	active, _, err := tx.Jobs(ctx, JobFilter{Kind: KindRestore, Active: true, Page: Page{Limit: 1000}})
	if err != nil {
		return err
	}
	for _, j := range active {
		var s RestoreSpec
		if err := json.Unmarshal(j.Spec, &s); err != nil {
			return fmt.Errorf("spec of job %s: %w", j.ID, err)
		}
		if s.ImageID == id {
			return Errorf(InUse, "", "Image %s is being restored (job %s). Wait for it or cancel it.", id, j.ID)
		}
	}
	return nil
}

// CancelJob asks a job to stop. A queued one ends at once; one that runs
// cleans up after itself first. One that is over stays as it is (seed A65).
func (p *Planner) CancelJob(ctx context.Context, id string) (Job, error) {
	var j Job
	err := p.Store.Update(ctx, func(tx Tx) (err error) {
		j, err = tx.CancelJob(ctx, id)
		return err
	})
	return j, err
}
