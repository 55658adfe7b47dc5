package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var runs = noun{"run", "run"}

func runColumns(r *backup.Run) columns {
	return columns{
		{"id", &r.ID},
		{"project", &r.Project},
		{"schedule_id", &r.ScheduleID},
		{"group_id", &r.GroupID},
		{"slot", millis{&r.Slot}},
		{"triggered_by", &r.Trigger},
		{"state", &r.State},
		{"created_at", millis{&r.CreatedAt}},
		{"ended_at", millis{&r.EndedAt}},
		{"message", &r.Message},
		{"spread_ms", spell{&r.Spread}},
	}
}

func (t *tx) Run(ctx context.Context, id string) (backup.Run, error) {
	r, err := get(ctx, t, runs, id, runColumns)
	if err != nil {
		return r, err
	}
	q := query{from: "job", all: true}
	q.where("project = ?", t.project)
	q.where("run_id = ?", id)
	r.Jobs, _, err = list(ctx, t, q, backup.Page{}, jobColumns)
	return r, err
}

func (t *tx) Runs(ctx context.Context, f backup.RunFilter) ([]backup.Run, string, error) {
	q := query{from: "run", since: "created_at"}
	q.where("project = ?", t.project)
	q.equal("schedule_id", f.ScheduleID)
	q.equal("group_id", f.GroupID)
	q.equal("state", string(f.State))
	if !f.Before.IsZero() {
		q.where("created_at < ?", f.Before)
	}
	return list(ctx, t, q, f.Page, runColumns)
}

func (t *tx) InsertRun(ctx context.Context, r backup.Run, jobs []backup.Job) (bool, error) {
	if r.ID == "" {
		return false, errors.New("insert run: it has no id")
	}
	r.Project = t.project
	if r.CreatedAt.IsZero() {
		r.CreatedAt = t.now
	}
	c := runColumns(&r)
	done, err := t.exec(ctx, "INSERT INTO run ("+c.names("")+") VALUES ("+c.marks(1)+
		") ON CONFLICT (schedule_id, slot) WHERE schedule_id <> '' AND slot <> 0 DO NOTHING", c.dest()...)
	if err != nil {
		return false, fmt.Errorf("insert run: %w", err)
	}
	if done == 0 {
		return false, nil
	}
	if err := t.madeFor(ctx, "run", r.ID); err != nil {
		return false, err
	}
	return true, t.insertJobs(ctx, jobs)
}

// FreeSlots sees to runs whose slots are still to come: a clock that was ahead
// has made them.
func (t *tx) FreeSlots(ctx context.Context, missed, others time.Time) error {
	const early = "project = $1 AND created_at > $2 AND slot > $2 AND slot <> 0 AND schedule_id <> '' AND state "
	for _, s := range []struct {
		text  string
		after time.Time
	}{
		{"DELETE FROM job WHERE run_id IN (SELECT id FROM run WHERE " + early + "= 'missed')", missed},
		{"DELETE FROM run WHERE " + early + "= 'missed'", missed},
		{"UPDATE run SET slot = 0 WHERE " + early + "<> 'missed'", others},
	} {
		if _, err := t.exec(ctx, s.text, t.project, s.after); err != nil {
			return fmt.Errorf("runs of slots that are still to come: %w", err)
		}
	}
	return nil
}

// settle makes the run's state follow from its jobs' and returns it. Only one
// transaction at a time settles a run, so that two that end its last two jobs
// cannot each take the other's for running.
func (t *tx) settle(ctx context.Context, runID string) error {
	if runID == "" {
		return nil
	}
	var old backup.RunState
	found, err := t.row(ctx, "SELECT state FROM run WHERE id = $1"+t.db.dialect.forUpdate(), []any{runID}, &old)
	if err != nil {
		return fmt.Errorf("run %s: %w", runID, err)
	}
	if !found {
		return nil
	}
	// Outcome of each state once is the outcome of all jobs. One that made the
	// others' snapshots is no outcome of its own.
	names, err := t.strings(ctx, "SELECT DISTINCT state FROM job WHERE run_id = $1 AND (kind <> 'freeze' OR state IN ('queued', 'running'))", runID)
	if err != nil {
		return fmt.Errorf("jobs of run %s: %w", runID, err)
	}
	states := make([]backup.JobState, len(names))
	for i, n := range names {
		states[i] = backup.JobState(n)
	}
	state, ended := backup.Outcome(states), t.now
	if state == old {
		return nil
	}
	if state == backup.RunQueued || state == backup.RunRunning {
		ended = fromEpoch(0)
	}
	if _, err := t.exec(ctx, "UPDATE run SET state = $1, ended_at = $2 WHERE id = $3", state, ended, runID); err != nil {
		return fmt.Errorf("state of run %s: %w", runID, err)
	}
	return nil
}
