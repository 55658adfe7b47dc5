package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var jobs = noun{"job", "job"}

func jobColumns(j *backup.Job) columns {
	return columns{
		{"id", &j.ID},
		{"project", &j.Project},
		{"kind", &j.Kind},
		{"run_id", &j.RunID},
		{"vcenter_id", &j.VCenterID},
		{"vm_id", &j.VMID},
		{"vm_name", &j.VMName},
		{"image_id", &j.ImageID},
		{"restore_id", &j.RestoreID},
		{"spec", rawJSON{&j.Spec}},
		{"needs", asJSON{&j.Needs}},
		{"keys", asJSON{&j.Keys}},
		{"state", &j.State},
		{"unbooked", &j.Unbooked},
		{"due", millis{&j.Due}},
		{"deadline", millis{&j.Deadline}},
		{"window_end", millis{&j.WindowEnd}},
		{"attempt", &j.Attempt},
		{"failures", &j.Failures},
		{"max_attempts", &j.MaxAttempts},
		{"owner", &j.Owner},
		{"lease_until", millis{&j.LeaseUntil}},
		{"cancel_asked", &j.Cancel},
		{"step", &j.Step},
		{"checkpoint", rawJSON{&j.Checkpoint}},
		{"done", &j.Done},
		{"total", &j.Total},
		{"rate", &j.Rate},
		{"created_at", millis{&j.CreatedAt}},
		{"started_at", millis{&j.StartedAt}},
		{"ended_at", millis{&j.EndedAt}},
		{"error_code", &j.ErrorCode},
		{"error", &j.Error},
		{"owes", &j.Owes},
		{"waits_for", &j.WaitsFor},
		{"kept_attempt", &j.KeptAttempt},
		{"messages", lines{&j.Messages}},
	}
}

func (t *tx) Job(ctx context.Context, id string) (backup.Job, error) {
	return get(ctx, t, jobs, id, jobColumns)
}

func (t *tx) Jobs(ctx context.Context, f backup.JobFilter) ([]backup.Job, string, error) {
	q := query{from: "job", since: "created_at"}
	equal := q.equal
	if f.Active {
		// The few jobs that are not over have indexes of their own, by time and
		// by VM. As an expression the other columns offer none, of years of history.
		q.where("state IN ('queued', 'running')")
		equal = func(column, value string) {
			if column != "vm_id" {
				column = "(" + column + " || '')"
			}
			q.equal(column, value)
		}
	}
	equal("project", t.project)
	equal("kind", string(f.Kind))
	equal("state", string(f.State))
	equal("vm_id", f.VMID)
	equal("run_id", f.RunID)
	equal("vcenter_id", f.VCenterID)
	if !f.After.IsZero() {
		q.where("created_at >= ?", f.After)
	}
	return list(ctx, t, q, f.Page, jobColumns)
}

func (t *tx) InsertJob(ctx context.Context, j backup.Job) error {
	return t.insertJobs(ctx, []backup.Job{j})
}

// insertJobs stores jobs, and what the queue asks of those that are not over.
func (t *tx) insertJobs(ctx context.Context, all []backup.Job) error {
	var rows, needs, keys []columns
	for _, j := range all {
		if j.ID == "" {
			return errors.New("insert job: it has no id")
		}
		j.Project = t.project
		if j.State == "" {
			j.State = backup.JobQueued
		}
		if j.CreatedAt.IsZero() {
			j.CreatedAt = t.now
		}
		rows = append(rows, jobColumns(&j))
		if j.State.Final() {
			continue
		}
		for _, label := range j.Needs {
			needs = append(needs, columns{{"job_id", &j.ID}, {"label", &label}})
		}
		keys = append(keys, keyRows(&j)...)
	}
	if err := t.insertMany(ctx, jobs, rows); err != nil {
		return err
	}
	if err := t.insertMany(ctx, noun{table: "job_need"}, needs); err != nil {
		return err
	}
	return t.insertMany(ctx, noun{table: "job_key"}, keys)
}

// keyRows are the job's keys as the queue counts them. Two of one name count
// together; one that weighs more than its limit takes all of it, so that the
// job can run at all, alone.
func keyRows(j *backup.Job) []columns {
	held := j.State == backup.JobRunning
	at := map[string]*backup.JobKey{}
	var rows []columns
	for _, k := range j.Keys {
		if same := at[k.Name]; same != nil {
			same.Max = min(same.Max, k.Max)
			same.Weight = min(same.Weight+k.Weight, max(same.Max, 1))
			continue
		}
		k.Weight = min(k.Weight, max(k.Max, 1))
		at[k.Name] = &k
		rows = append(rows, columns{{"job_id", &j.ID}, {"name", &k.Name}, {"weight", &k.Weight}, {"allowed", &k.Max}, {"held", &held}})
	}
	return rows
}

// CancelJob asks a running job to stop and ends a queued one.
func (t *tx) CancelJob(ctx context.Context, id string) (backup.Job, error) {
	j, err := first(ctx, t, jobs, "project = $1 AND id = $2"+t.db.dialect.forUpdate(), []any{t.project, id}, jobs.missing(id), jobColumns)
	if err != nil {
		return j, err
	}
	switch j.State {
	case backup.JobRunning:
		if _, err := t.exec(ctx, "UPDATE job SET cancel_asked = TRUE WHERE id = $1", id); err != nil {
			return j, fmt.Errorf("cancel job %s: %w", id, err)
		}
	case backup.JobQueued:
		if err := t.end(ctx, j, ending{state: backup.JobCancelled}); err != nil {
			return j, fmt.Errorf("cancel job %s: %w", id, err)
		}
	default:
		return j, nil
	}
	return t.Job(ctx, id)
}

// ending is how a job that is not running ends.
type ending struct {
	state backup.JobState
	code  backup.Code
	text  string
}

// end ends a queued job whose row is locked.
func (t *tx) end(ctx context.Context, j backup.Job, e ending) error {
	if _, err := t.exec(ctx, `UPDATE job SET state = $1, cancel_asked = (cancel_asked OR $2), ended_at = $3, error_code = $4, error = $5, rate = 0 WHERE id = $6`,
		e.state, e.state == backup.JobCancelled, t.now, e.code, e.text, j.ID); err != nil {
		return err
	}
	if err := t.leaveQueue(ctx, j.ID); err != nil {
		return err
	}
	if err := t.endWaiting(ctx, j.ID, e); err != nil {
		return err
	}
	return t.settle(ctx, j.RunID)
}

// EndJob ends a queued job.
func (t *tx) EndJob(ctx context.Context, id string, e backup.Ending) error {
	set, args := t.ending(e)
	k := len(args)
	var run string
	found, err := t.row(ctx, fmt.Sprintf("UPDATE job SET %s WHERE project = $%d AND id = $%d AND state = 'queued' RETURNING run_id", set, k+1, k+2), append(args, t.project, id), &run)
	if err == nil && found {
		if err = t.leaveQueue(ctx, id); err == nil {
			err = t.endWaiting(ctx, id, ending{e.State, e.Code, e.Error})
		}
		if err == nil {
			err = t.settle(ctx, run)
		}
	}
	if err != nil {
		return fmt.Errorf("end job %s: %w", id, err)
	}
	return nil
}

// WithdrawJobs ends what a schedule's occurrences wait for.
func (t *tx) WithdrawJobs(ctx context.Context, scheduleID, why string) (int, error) {
	var ended []string
	runs := map[string]bool{}
	err := t.rows(ctx, `UPDATE job SET state = 'skipped', ended_at = $1, error_code = $2, error = $3 WHERE state = 'queued' AND attempt = 0 AND run_id IN (SELECT id FROM run
		WHERE project = $4 AND schedule_id = $5 AND triggered_by = 'schedule' AND state IN ('queued', 'running')) RETURNING id, run_id`,
		[]any{t.now, backup.Conflict, why, t.project, scheduleID}, func(scan func(...any) error) error {
			var id, run string
			if err := scan(&id, &run); err != nil {
				return err
			}
			ended, runs[run] = append(ended, id), true
			return nil
		})
	if err != nil {
		return 0, fmt.Errorf("withdraw jobs of schedule %s: %w", scheduleID, err)
	}
	for _, id := range ended {
		if err := t.leaveQueue(ctx, id); err != nil {
			return 0, fmt.Errorf("withdraw job %s: %w", id, err)
		}
	}
	for id := range runs {
		if err := t.settle(ctx, id); err != nil {
			return 0, err
		}
		if _, err := t.exec(ctx, "UPDATE run SET message = $1 WHERE id = $2", why, id); err != nil {
			return 0, fmt.Errorf("message of run %s: %w", id, err)
		}
	}
	return len(ended), nil
}

// leaveQueue forgets what the queue asked of a job that is over.
func (t *tx) leaveQueue(ctx context.Context, id string) error {
	for _, table := range []string{"job_key", "job_need"} {
		if _, err := t.exec(ctx, "DELETE FROM "+table+" WHERE job_id = $1", id); err != nil {
			return err
		}
	}
	return nil
}
