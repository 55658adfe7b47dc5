package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// fenced changes the job of a lease, and no other than the lease's holder can.
// A lease that has run out still holds while nobody took the job. It returns
// ErrLeaseLost when there is nothing to change. set numbers its own arguments
// from $1; returning may be "".
func (t *tx) fenced(ctx context.Context, l backup.Lease, set string, args []any, returning string, dest ...any) error {
	k := len(args)
	text := "UPDATE job SET " + set + " WHERE id = $" + strconv.Itoa(k+1)
	fence := " AND owner = $" + strconv.Itoa(k+2) + " AND attempt = $" + strconv.Itoa(k+3) + " AND state = 'running'"
	if failpoint.Without("fence") {
		fence = " AND $" + strconv.Itoa(k+2) + " <> '' AND $" + strconv.Itoa(k+3) + " > 0"
	}
	text += fence
	args = append(args, l.JobID, l.Owner, l.Attempt)
	if returning == "" {
		returning, dest = "id", []any{new(string)}
	}
	found, err := t.row(ctx, text+" RETURNING "+returning, args, dest...)
	if err != nil {
		return fmt.Errorf("job %s: %w", l.JobID, err)
	}
	if !found {
		return backup.ErrLeaseLost
	}
	return nil
}

// Renew extends the lease by d from now.
func (db *DB) Renew(ctx context.Context, l backup.Lease, d time.Duration) (cancel bool, err error) {
	err = db.retry(ctx, func(t *tx) error {
		return t.fenced(ctx, l, "lease_until = $1", []any{t.now.Add(d)}, "cancel_asked", &cancel)
	})
	return cancel, err
}

// Save records progress.
func (db *DB) Save(ctx context.Context, l backup.Lease, p backup.Progress) error {
	var lock int64 = noLock
	if p.Keys != nil { // a claim that counts them must not run at the same time
		lock = lockClaim
	}
	return db.retryLocked(ctx, lock, func(t *tx) error {
		set := "step = $1, done = $2, total = $3, rate = $4, messages = messages || $5"
		args := []any{p.Step, p.Done, p.Total, p.Rate, toLines(p.Messages)}
		if p.Checkpoint != nil {
			args = append(args, rawJSON{&p.Checkpoint})
			set += ", checkpoint = $" + strconv.Itoa(len(args))
			args = append(args, p.Owes)
			set += ", owes = $" + strconv.Itoa(len(args))
		}
		if p.KeptAttempt > 0 {
			args = append(args, p.KeptAttempt)
			set += ", kept_attempt = $" + strconv.Itoa(len(args))
		}
		if p.Keys != nil {
			args = append(args, asJSON{&p.Keys})
			set += ", keys = $" + strconv.Itoa(len(args))
		}
		if err := t.fenced(ctx, l, set, args, ""); err != nil {
			return err
		}
		if p.Keys == nil {
			return nil
		}
		if _, err := t.exec(ctx, "DELETE FROM job_key WHERE job_id = $1", l.JobID); err != nil {
			return fmt.Errorf("keys of job %s: %w", l.JobID, err)
		}
		return t.insertMany(ctx, noun{table: "job_key"}, keyRows(&backup.Job{ID: l.JobID, State: backup.JobRunning, Keys: p.Keys}))
	})
}

// Finish ends the attempt. also runs alone, as in Update.
func (db *DB) Finish(ctx context.Context, l backup.Lease, e backup.Ending, also func(backup.Tx) error) error {
	var lock int64 = noLock
	if also != nil {
		lock = lockUpdate
	}
	return db.retryLocked(ctx, lock, func(t *tx) error {
		set, args := t.ending(e)
		var run string
		if err := t.fenced(ctx, l, set, args, "run_id", &run); err != nil {
			return err
		}
		if e.State.Final() {
			if err := t.leaveQueue(ctx, l.JobID); err != nil {
				return fmt.Errorf("job %s: %w", l.JobID, err)
			}
		} else if _, err := t.exec(ctx, "UPDATE job_key SET held = FALSE WHERE job_id = $1 AND NOT (name LIKE 'vm:%' AND EXISTS (SELECT 1 FROM job WHERE id = $1 AND kept_attempt > 0))", l.JobID); err != nil {
			return fmt.Errorf("keys of job %s: %w", l.JobID, err)
		}
		if also != nil {
			if err := also(t); err != nil {
				return err
			}
		}
		if err := t.endWaiting(ctx, l.JobID, ending{e.State, e.Code, e.Error}); err != nil {
			return err
		}
		return t.settle(ctx, run)
	})
}

// ending is what an Ending writes. What was begun, left a checkpoint and is
// given back without having failed was handed over: it goes on even after its
// deadline.
func (t *tx) ending(e backup.Ending) (string, []any) {
	set := []string{"state = $1", "lease_until = 0", "rate = 0", "messages = messages || $2"}
	args := []any{e.State, toLines(e.Messages)}
	add := func(expr string, arg any) {
		args = append(args, arg)
		set = append(set, strings.Replace(expr, "?", "$"+strconv.Itoa(len(args)), 1))
	}
	switch {
	case e.State.Final():
		add("ended_at = ?", t.now)
	default:
		due := e.Due
		if due.IsZero() || due.After(t.now.Add(dueAhead)) { // the server's own clock is wrong
			due = t.now
		}
		add("due = ?", due)
		set = append(set, "owner = ''")
		if e.Failed {
			set = append(set, "failures = failures + 1", "handed_over = FALSE")
		} else {
			set = append(set, "handed_over = (checkpoint <> '')")
		}
	}
	if e.State.Final() || e.Failed {
		add("error_code = ?", e.Code)
		add("error = ?", e.Error)
	}
	if e.ImageID != "" {
		add("image_id = ?", e.ImageID)
	}
	if !e.Started.IsZero() {
		add("started_at = ?", e.Started)
	}
	return strings.Join(set, ", "), args
}
