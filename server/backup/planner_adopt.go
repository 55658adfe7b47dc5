package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Adoption tells what became of an old database that goes on.
type Adoption struct {
	Old      OldDatabase
	Ended    int      // jobs that it took for queued or running
	Skipped  int      // occurrences that were due since, and are not made up for
	Jobs     []string // that list what the repositories hold
	Messages []string
}

// AdoptDatabase lets an old database go on: another server of the installation
// does not run any more. What the database took for work in progress is ended,
// the images that it does not know are listed, those that are gone are marked,
// and none ends within a month. Errors: Conflict (the database is not old).
func (p *Planner) AdoptDatabase(ctx context.Context) (Adoption, error) {
	var records []RepositoryRecord
	err := p.Store.View(ctx, func(tx Tx) (err error) {
		old, err := FindOldDatabase(ctx, tx)
		if err == nil && old == nil {
			err = Errorf(Conflict, "", "This database is the newest of its installation: there is nothing to adopt.")
		}
		if err != nil {
			return err
		}
		records, err = p.ownRepositories(ctx, tx)
		return err
	})
	if err != nil {
		return Adoption{}, err
	}
	for _, r := range records { // before anything can end: holds and extensions may be missing
		if err := p.stayAWhile(ctx, r.ID); err != nil {
			return Adoption{}, fmt.Errorf("keep the images of repository %s: %w", r.Name, err)
		}
	}
	var a Adoption
	err = p.Store.Update(ctx, func(tx Tx) (err error) {
		a, err = adopt(ctx, tx, records)
		return err
	})
	if err == nil {
		p.wake()
	}
	return a, err
}

// ownRepositories lists those that this installation writes to.
func (p *Planner) ownRepositories(ctx context.Context, tx Tx) (own []RepositoryRecord, err error) {
	all, _, err := tx.Repositories(ctx, Page{Limit: 1000})
	for _, r := range all {
		if !r.ReadOnly && !r.Foreign(p.Installation) {
			own = append(own, r)
		}
	}
	return own, err
}

func adopt(ctx context.Context, tx Tx, records []RepositoryRecord) (a Adoption, err error) {
	old, err := FindOldDatabase(ctx, tx)
	if err != nil || old == nil { // another request was first
		return a, err
	}
	a.Old = *old
	if err := a.endJobs(ctx, tx); err != nil {
		return a, err
	}
	if a.Skipped, err = passOver(ctx, tx); err != nil {
		return a, err
	}
	for _, r := range records {
		spec := CatalogueSpec{RepositoryID: r.ID, Prune: true}
		j := newRebuild(tx.Now(), r, spec)
		if err := tx.InsertJob(ctx, j); err != nil {
			return a, err
		}
		a.Jobs = append(a.Jobs, j.ID)
	}
	for name, v := range map[string]any{settingOldDatabase: nil, SettingCopiedAt: time.Time{}, settingAdoptedAt: tx.Now()} {
		if err := setSetting(ctx, tx, name, v); err != nil {
			return a, err
		}
	}
	a.tell()
	return a, nil
}

// endJobs ends what the database took for work in progress: it was done, or
// ended otherwise, where the newer one knew of it. Run now, a restore would
// overwrite a VM that has been used since.
func (a *Adoption) endJobs(ctx context.Context, tx Tx) error {
	text := fmt.Sprintf("The database was put back as it was before %s, when this job was not over. What became of it is not known; it is not begun again.", instantText(a.Old.FoundAt))
	all, err := tx.EndAllJobs(ctx, Ending{State: JobFailed, Code: Unavailable, Error: text})
	if err != nil {
		return err
	}
	a.Ended = len(all)
	for _, j := range all {
		if j.Owes {
			a.Messages = append(a.Messages, fmt.Sprintf("Job %s had shut VM %q down for a backup and was to power it on again: look whether it runs.", j.ID, j.VMName))
		}
		if j.Kind == KindRestore {
			a.Messages = append(a.Messages, fmt.Sprintf("Restore job %s of %q was not over. Look at the VM before you restore it again.", j.ID, j.VMName))
		}
	}
	return nil
}

// passOver lets occurrences be that can be started no more: they had their runs
// in the database that is lost, and would only be told as missed.
func passOver(ctx context.Context, tx Tx) (passed int, err error) {
	ids, err := tx.DueSchedules(ctx, tx.Now())
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		s, err := tx.Schedule(ctx, id)
		if err != nil {
			return 0, err
		}
		mark, err := tx.DueMark(ctx, id)
		if err != nil {
			return 0, err
		}
		late := time.Duration(s.WindowHours+s.MaxDelayHours) * time.Hour
		for o := range s.Recurrence.Between(mark, tx.Now()) {
			if !o.Start.Add(late).Before(tx.Now()) {
				break
			}
			mark = o.Start
			passed++
		}
		if err := tx.SetDueMark(ctx, id, mark); err != nil {
			return 0, err
		}
	}
	return passed, nil
}

func (a *Adoption) tell() {
	a.Messages = append(a.Messages,
		"No image ends within 30 days from now: holds and extensions that were made since are not known.",
		"Tokens that were revoked since open the server again: look through kura token list.",
		"Groups, schedules and vcenters are as they were then: apply your Terraform configuration again.")
	if a.Skipped > 0 {
		a.Messages = append(a.Messages, fmt.Sprintf("%d occurrences of schedules that were due since are not made up for: their images, if they were made, are listed.", a.Skipped))
	}
}

func newRebuild(now time.Time, r RepositoryRecord, spec CatalogueSpec) Job {
	j := newJob(now, KindCatalogue)
	j.Spec, _ = json.Marshal(spec) // plain values: cannot fail
	j.Needs = []string{reachRepository(r)}
	j.Keys = []JobKey{{Name: "catalogue:" + r.ID, Weight: 1, Max: 1}}
	return j
}
