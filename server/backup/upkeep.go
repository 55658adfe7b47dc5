package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Upkeep is how a repository is looked after.
type Upkeep struct {
	RepositoryID string
	PlannedAt    time.Time // when the last collection was asked for; zero = never
	CollectedAt  time.Time // when the last one ended well; zero = never
	Collected    Collected // what it did
	VerifiedUpTo time.Time // readings of images are asked for up to then; zero = of none yet

	LockPlannedAt time.Time     // when the last extension of the storage's locks was asked for; zero = never
	Locked        StorageLocked // what the last one did that ended well
}

// CollectSpec is what a job of [KindCollect] was asked to do.
type CollectSpec struct {
	RepositoryID string `json:"repository_id"`
	DryRun       bool   `json:"dry_run,omitempty"`
	IndexOnly    bool   `json:"index_only,omitempty"` // gather the index, free nothing
}

// collectEvery is how often a repository is collected.
const collectEvery = 12 * time.Hour

// Collect asks for a collection of the repository now, or finds the one that
// waits or runs. Errors: NotFound, Conflict (attached read-only).
func (p *Planner) Collect(ctx context.Context, repositoryID string, dryRun bool) (Job, error) {
	var j Job
	err := p.Store.Update(ctx, func(tx Tx) error {
		r, err := tx.Repository(ctx, repositoryID)
		if err != nil {
			return err
		}
		if r.ReadOnly {
			return Errorf(Conflict, "", "Repository %s is attached read-only: its owner frees its space.", r.Name)
		}
		j, err = planCollection(ctx, tx, r, dryRun)
		return err
	})
	if err == nil {
		p.wake()
	}
	return j, err
}

// PlanUpkeep asks for the collections, the extensions of locks and the readings
// of images that are due, and returns how many. A repository that was never collected is due half a day
// after it was seen. While the clock is not trusted none is collected.
func (p *Planner) PlanUpkeep(ctx context.Context) (jobs int, err error) {
	err = p.Store.Update(ctx, func(tx Tx) error {
		jobs = 0
		all, _, err := tx.Repositories(ctx, Page{Limit: 1000})
		if err != nil {
			return err
		}
		held, err := clockHeld(ctx, tx)
		if err != nil {
			return err
		}
		for _, r := range all {
			if r.ReadOnly || r.Foreign(p.Installation) {
				continue
			}
			collections := 0
			if !held {
				if collections, err = planDueCollection(ctx, tx, r); err != nil {
					return err
				}
			}
			gatherings, err := planDueGathering(ctx, tx, r)
			if err != nil {
				return err
			}
			readings, err := planReadings(ctx, tx, r)
			if err != nil {
				return err
			}
			locks, err := planDueLocking(ctx, tx, r)
			if err != nil {
				return err
			}
			jobs += collections + gatherings + readings + locks
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("plan upkeep: %w", err)
	}
	if jobs > 0 {
		p.wake()
	}
	return jobs, nil
}

func planDueCollection(ctx context.Context, tx Tx, r RepositoryRecord) (jobs int, err error) {
	u, err := tx.Upkeep(ctx, r.ID)
	if err != nil {
		return 0, err
	}
	if u.PlannedAt.IsZero() {
		u.PlannedAt = tx.Now()
		return 0, tx.SaveUpkeep(ctx, u)
	}
	if since := tx.Now().Sub(u.PlannedAt); since >= 0 && since < collectEvery {
		return 0, nil
	}
	_, err = planCollection(ctx, tx, r, false)
	return 1, err
}

// planCollection finds the collection of the repository that is not over, or
// asks for one. Its key lets no two run at once, in the whole fleet.
func planCollection(ctx context.Context, tx Tx, r RepositoryRecord, dryRun bool) (Job, error) {
	spec := CollectSpec{RepositoryID: r.ID, DryRun: dryRun}
	jobs, _, err := tx.Jobs(ctx, JobFilter{Kind: KindCollect, Active: true, Page: Page{Limit: 1000}})
	if err != nil {
		return Job{}, err
	}
	for _, j := range jobs {
		var s CollectSpec
		if json.Unmarshal(j.Spec, &s) == nil && s == spec {
			return j, nil
		}
	}
	if !dryRun {
		u, err := tx.Upkeep(ctx, r.ID)
		if err != nil {
			return Job{}, err
		}
		u.PlannedAt = tx.Now()
		if err := tx.SaveUpkeep(ctx, u); err != nil {
			return Job{}, err
		}
	}
	j := newCollection(tx.Now(), r, spec)
	return j, tx.InsertJob(ctx, j)
}

func newCollection(now time.Time, r RepositoryRecord, spec CollectSpec) Job {
	j := newJob(now, KindCollect)
	j.Spec, _ = json.Marshal(spec) // plain values: cannot fail
	j.Needs = []string{reachRepository(r)}
	j.Keys = []JobKey{{Name: "collect:" + r.ID, Weight: 1, Max: 1}}
	return j
}

// ImagesBeingWritten lists the ids of the images that jobs which are not over
// have said that they write.
func ImagesBeingWritten(ctx context.Context, tx Tx) (map[string]bool, error) {
	images := map[string]bool{}
	for _, kind := range []JobKind{KindBackup, KindCopy} {
		if err := beingWritten(ctx, tx, kind, images); err != nil {
			return nil, err
		}
	}
	return images, nil
}

func beingWritten(ctx context.Context, tx Tx, kind JobKind, images map[string]bool) error {
	for f := (JobFilter{Kind: kind, Active: true, Page: Page{Limit: 1000}}); ; {
		jobs, next, err := tx.Jobs(ctx, f)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			var note struct {
				ImageID string `json:"image_id"`
			}
			if len(j.Checkpoint) == 0 {
				continue
			}
			if err := json.Unmarshal(j.Checkpoint, &note); err != nil {
				return fmt.Errorf("checkpoint of job %s: %w", j.ID, err)
			}
			images[note.ImageID] = true
		}
		if f.Cursor = next; next == "" {
			return nil
		}
	}
}
