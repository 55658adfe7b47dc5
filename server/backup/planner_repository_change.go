package backup

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// RepositoryChange is what is to be changed of a repository; nil = it stays.
type RepositoryChange struct {
	Name        *string
	Kind        *string // cannot change: given, it must be what it is
	Compression *string
	VerifyDays  *int
	Default     *bool // true only: one repository always is it
	ReadOnly    *bool
	Settings    map[string]string // all of them; a secret given as "***" is what it was
}

// RepositoryWarnings tells what an operator should see to.
func (p *Planner) RepositoryWarnings(r RepositoryRecord, u Upkeep) []string {
	return r.Warnings(p.Installation, u)
}

// maxVerifyDays is the longest time between two readings of an image.
const maxVerifyDays = 365

// UpdateRepository changes a repository's registration. New settings are tried
// first: the same repository must lie there and open. version 0 means whatever
// is stored. Errors: NotFound, Invalid, Stale, Conflict, RepositoryUnreachable.
func (p *Planner) UpdateRepository(ctx context.Context, id string, version int64, c RepositoryChange) (RepositoryRecord, error) {
	old, err := p.repositoryRecord(ctx, id)
	if err != nil {
		return RepositoryRecord{}, err
	}
	if version != 0 && version != old.Version {
		return RepositoryRecord{}, Errorf(Stale, "", "The repository %q was changed meanwhile: read it again and repeat the change.", old.Name)
	}
	r, err := p.changedRepository(old, c)
	if err == nil && !maps.Equal(r.Settings, old.Settings) {
		r, err = p.moveRepository(ctx, old, r)
	}
	if err != nil {
		return RepositoryRecord{}, fmt.Errorf("update repository %q: %w", old.Name, err)
	}
	var done RepositoryRecord
	err = p.Store.Update(ctx, func(tx Tx) error {
		now, err := tx.Repository(ctx, id)
		if err != nil {
			return err
		}
		done = r
		done.noted(now)
		if r.Default && !old.Default {
			if err := dethrone(ctx, tx); err != nil {
				return err
			}
		}
		if !maps.Equal(r.Settings, old.Settings) {
			done.lapse(tx.Now())
		}
		return tx.UpdateRepository(ctx, &done)
	})
	if err != nil {
		return RepositoryRecord{}, fmt.Errorf("update repository %q: %w", old.Name, err)
	}
	return done, nil
}

// changedRepository applies the change and checks what can be checked here.
func (p *Planner) changedRepository(old RepositoryRecord, c RepositoryChange) (r RepositoryRecord, err error) {
	r = old
	set(&r.Name, c.Name)
	set(&r.Compression, c.Compression)
	set(&r.VerifyDays, c.VerifyDays)
	set(&r.Default, c.Default)
	set(&r.ReadOnly, c.ReadOnly)
	if c.Settings != nil {
		if r.Settings, err = old.settingsWith(c.Settings); err != nil {
			return r, err
		}
	}
	if err := ValidName(r.Name); err != nil {
		return r, err
	}
	switch {
	case c.Kind != nil && *c.Kind != old.Kind:
		return r, Errorf(Invalid, "kind", "The kind of a repository cannot change from %s to %s. Make another repository.", old.Kind, *c.Kind)
	case r.VerifyDays < 1 || r.VerifyDays > maxVerifyDays:
		return r, Errorf(Invalid, "verify_days", "verify_days must be 1 to %d, got %d.", maxVerifyDays, r.VerifyDays)
	case old.Default && !r.Default:
		return r, Errorf(Invalid, "default", "One repository always is the default: make another one the default instead.")
	case r.Default && r.ReadOnly:
		return r, Errorf(Conflict, "read_only", "The default repository cannot be read-only: schedules that name none write to it. Make another one the default first.")
	case r.Default && !old.Default && r.Foreign(p.Installation):
		return r, Errorf(Conflict, "default", "The repository %q belongs to installation %s and can only be read from here. Take it over first.", r.Name, r.OwnedBy)
	}
	return r, p.Repositories.Check(r)
}

func set[T any](to, v *T) {
	if v != nil {
		*to = *v
	}
}

// moveRepository tries new settings and brings the storage's lock in line with them.
func (p *Planner) moveRepository(ctx context.Context, old, r RepositoryRecord) (RepositoryRecord, error) {
	unique, owner, err := p.Repositories.Probe(ctx, r)
	if err != nil {
		return r, err
	}
	if old.UniqueID != "" && unique != old.UniqueID {
		return r, Errorf(Conflict, "settings",
			"Another repository lies there: its id is %s, that of %q is %s. Move the files there first, or attach that one under a name of its own.", unique, old.Name, old.UniqueID)
	}
	r.OwnedBy = p.Installation
	if owner != "" {
		r.OwnedBy = owner
	}
	if r.sameLock(old) || r.ReadOnly || r.Foreign(p.Installation) {
		return r, nil
	}
	return r, p.Repositories.SetLock(ctx, r)
}

// sameLock says whether both are locked by their storage in the same way.
func (r RepositoryRecord) sameLock(other RepositoryRecord) bool {
	return r.Settings["lock_mode"] == other.Settings["lock_mode"] && r.Settings["lock_days"] == other.Settings["lock_days"]
}

// dethrone takes the default from whichever has it.
func dethrone(ctx context.Context, tx Tx) error {
	all, _, err := tx.Repositories(ctx, Page{Limit: 1000})
	if err != nil {
		return err
	}
	for _, o := range all {
		if !o.Default {
			continue
		}
		o.Default = false
		if err := tx.UpdateRepository(ctx, &o); err != nil {
			return err
		}
	}
	return nil
}

// forgottenAtOnce is how many images are forgotten in one transaction.
const forgottenAtOnce = 500

// DeleteRepository takes the registration out and touches nothing in the
// storage. With forget its images leave the catalogue as well; a later attach
// and a rebuild of the catalogue find them again. Errors: NotFound, InUse, Locked.
func (p *Planner) DeleteRepository(ctx context.Context, id string, forget bool) error {
	if forget {
		if err := p.forgetImages(ctx, id); err != nil {
			return err
		}
	}
	return p.Store.Update(ctx, func(tx Tx) error {
		if err := dispensable(ctx, tx, id); err != nil {
			return err
		}
		return tx.DeleteRepository(ctx, id)
	})
}

// dispensable refuses the default repository while there are others.
func dispensable(ctx context.Context, tx Tx, id string) error {
	r, err := tx.Repository(ctx, id)
	if err != nil || !r.Default {
		return err
	}
	all, _, err := tx.Repositories(ctx, Page{Limit: 2})
	if err == nil && len(all) > 1 {
		err = Errorf(InUse, "", "The repository %q is the default one. Make another one the default first.", r.Name)
	}
	return err
}

// forgetImages takes the images of a repository out of the catalogue, after
// looking whether all may go. What a kill leaves of them goes with the next try.
func (p *Planner) forgetImages(ctx context.Context, id string) error {
	err := p.Store.View(ctx, func(tx Tx) error {
		if err := dispensable(ctx, tx, id); err != nil {
			return err
		}
		schedules, _, err := tx.Schedules(ctx, ScheduleFilter{})
		if err != nil {
			return err
		}
		for _, s := range schedules {
			if s.RepositoryID == id {
				return Errorf(InUse, "", "The schedule %q backs up to this repository. Give it another one first.", s.Name)
			}
			if slices.ContainsFunc(s.CopyTo, func(t CopyTarget) bool { return t.RepositoryID == id }) {
				return Errorf(InUse, "", "The schedule %q copies its images to this repository (copy_to). Take that out of it first.", s.Name)
			}
		}
		return eachImage(ctx, tx, id, func(i Image) error { return notLocked(ctx, tx, i) })
	})
	for err == nil {
		var gone int
		if gone, err = p.forgetSome(ctx, id); gone == 0 {
			break
		}
	}
	return err
}

func (p *Planner) forgetSome(ctx context.Context, id string) (gone int, err error) {
	err = p.Store.Update(ctx, func(tx Tx) error {
		gone = 0
		if err := notWorkedOn(ctx, tx, id); err != nil {
			return err
		}
		images, _, err := tx.Images(ctx, ImageFilter{RepositoryID: id, Page: Page{Limit: forgottenAtOnce}})
		if err != nil {
			return err
		}
		for _, i := range images {
			if err := notLocked(ctx, tx, i); err != nil {
				return err
			}
			if err := tx.DeleteImage(ctx, i.ID); err != nil {
				return err
			}
		}
		gone = len(images)
		return nil
	})
	return gone, err
}

// notWorkedOn refuses while jobs that are not over need the repository: they
// would lose what they work on.
func notWorkedOn(ctx context.Context, tx Tx, id string) error {
	r, err := tx.Repository(ctx, id)
	if err != nil {
		return err
	}
	n, err := tx.CountJobsNeeding(ctx, reachRepository(r))
	if err == nil && n > 0 {
		err = Errorf(InUse, "", "The repository %q is needed by jobs that are not over (%d). Wait for them or cancel them.", r.Name, n)
	}
	return err
}

// eachImage calls f for all images of a repository that the catalogue has.
func eachImage(ctx context.Context, tx Tx, repositoryID string, f func(Image) error) error {
	for filter := (ImageFilter{RepositoryID: repositoryID, Page: Page{Limit: 1000}}); ; {
		images, next, err := tx.Images(ctx, filter)
		if err != nil {
			return err
		}
		for _, i := range images {
			if err := f(i); err != nil {
				return err
			}
		}
		if filter.Cursor = next; next == "" {
			return nil
		}
	}
}
