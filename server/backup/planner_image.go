package backup

import (
	"context"
	"time"
)

// DeleteImage takes an image out of the catalogue at once and asks for a job
// that takes it out of its repository (seed N43). Errors: NotFound, Locked,
// InUse (a restore or a copy reads it), Conflict (its repository can only be read).
func (p *Planner) DeleteImage(ctx context.Context, id string) (Job, error) {
	var j Job
	err := p.Store.Update(ctx, func(tx Tx) error {
		i, err := tx.Image(ctx, id)
		if err != nil {
			return err
		}
		if err := notLocked(ctx, tx, i); err != nil {
			return err
		}
		if err := notRead(ctx, tx, id); err != nil {
			return err
		}
		if err := notCopied(ctx, tx, i); err != nil {
			return err
		}
		if err := p.notFrozen(ctx, tx, i); err != nil {
			return err
		}
		if i.Status == ImageExpired { // asked for before: again only where that has failed
			if j, err = deletion(ctx, tx, i); err != nil || j.ID != "" {
				return err
			}
		}
		j, err = deleteImage(ctx, tx, i)
		return err
	})
	if err == nil {
		p.wake()
	}
	return j, err
}

// notFrozen gives [Conflict] where the image's repository can only be read.
func (p *Planner) notFrozen(ctx context.Context, tx Tx, i Image) error {
	r, err := tx.Repository(ctx, i.RepositoryID)
	if err == nil && (r.ReadOnly || r.Foreign(p.Installation)) {
		err = Errorf(Conflict, "", "The repository %q can only be read from here, so image %s cannot be deleted. Lift read_only or take the repository over first.", r.Name, i.ID)
	}
	return err
}

// deletion finds the job that waits to delete the image or does so; its ID is
// "" when there is none.
func deletion(ctx context.Context, tx Tx, i Image) (Job, error) {
	return activeJob(ctx, tx, JobFilter{Kind: KindDelete, VMID: i.VMID}, i.ID)
}

// notLocked gives [Locked] while the image is locked or held, and while the
// clock is not trusted: it may not open a lock before its time.
func notLocked(ctx context.Context, tx Tx, i Image) error {
	if i.Held(tx.Now()) && !i.HeldUntil.Before(i.LockedUntil) {
		text, err := holdText(ctx, tx, i)
		if err != nil {
			return err
		}
		return Errorf(Locked, "", "%s", text)
	}
	until := maxTime(i.LockedUntil, i.HeldUntil)
	if !until.IsZero() && !tx.Now().Before(until) {
		look, err := tx.ClockLook(ctx)
		if err != nil {
			return err
		}
		if clock := look.at(tx.Now()).state(tx.Now()); !clock.Trusted {
			return Errorf(Locked, "", "Image %s was locked until %s, and the clock has leapt since: nobody can delete it %s.", i.ID, instantText(until), clock.Until())
		}
	}
	if tx.Now().Before(until) {
		return Errorf(Locked, "", "Image %s is locked until %s: nobody can delete it before.", i.ID, instantText(until))
	}
	return nil
}

// notRead gives [InUse] while a restore of the image waits or runs.
func notRead(ctx context.Context, tx Tx, id string) error {
	j, err := activeJob(ctx, tx, JobFilter{Kind: KindRestore}, id)
	if err == nil && j.ID != "" {
		return Errorf(InUse, "", "Image %s is being restored (job %s). Wait for it or cancel it.", id, j.ID)
	}
	return err
}

// activeJob finds a job of the filter that is about the image and not over;
// its ID is "" when there is none.
func activeJob(ctx context.Context, tx Tx, f JobFilter, imageID string) (Job, error) {
	f.Active, f.Page = true, Page{Limit: 1000}
	for {
		jobs, next, err := tx.Jobs(ctx, f)
		if err != nil {
			return Job{}, err
		}
		for _, j := range jobs {
			if j.ImageID == imageID {
				return j, nil
			}
		}
		if f.Cursor = next; next == "" {
			return Job{}, nil
		}
	}
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

// retain gives the images that a schedule has made or shares the retention
// that it has now. An image of several schedules is kept for the longest. No
// lock is shortened (seed A33).
func retain(ctx context.Context, tx Tx, s Schedule) error {
	loc, err := s.Recurrence.Location()
	if err != nil {
		return err
	}
	for f := (ImageFilter{ScheduleID: s.ID, Page: Page{Limit: 1000}}); ; {
		images, next, err := tx.Images(ctx, f)
		if err != nil {
			return err
		}
		for _, i := range images {
			if i.Status == ImageExpired || i.CopyOf != "" { // a copy has a retention of its own
				continue
			}
			ends, err := longest(ctx, tx, i, s.ID, ExpiresAt(i.StartedAt, s.RetentionOn(DateOf(i.StartedAt.In(loc)))))
			if err != nil {
				return err
			}
			if !i.ExtendedUntil.IsZero() {
				ends = laterEnd(ends, neverAsZero(i.ExtendedUntil))
			}
			if !ends.IsZero() && ends.Before(i.LockedUntil) {
				ends = i.LockedUntil
			}
			if ends.Equal(i.ExpiresAt) {
				continue
			}
			i.ExpiresAt = ends
			if err := tx.UpdateImage(ctx, i); err != nil {
				return err
			}
		}
		if f.Cursor = next; next == "" {
			return nil
		}
	}
}

// longest notes when the image ends for that schedule, and returns when it
// ends for all that share it.
func longest(ctx context.Context, tx Tx, i Image, scheduleID string, ends time.Time) (time.Time, error) {
	shares, err := tx.ImageShares(ctx, i.ID)
	if err != nil {
		return ends, err
	}
	all := ends
	for _, share := range shares {
		if share.ScheduleID == scheduleID {
			share.ExpiresAt = ends
			if err := tx.SaveImageShare(ctx, share); err != nil {
				return ends, err
			}
		}
		all = laterEnd(all, share.ExpiresAt)
	}
	return all, nil
}
