package store

import (
	"context"
	"fmt"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// notWaitingSQL is true of a job that waits for no other.
const notWaitingSQL = "(j.waits_for = '' OR NOT EXISTS (SELECT 1 FROM job f WHERE f.id = j.waits_for AND f.state IN ('queued', 'running')))"

// endWaiting ends what waits for a job that has not ended well, as that has.
func (t *tx) endWaiting(ctx context.Context, leader string, e ending) error {
	if e.state == backup.JobSucceeded || !e.state.Final() {
		return nil
	}
	ids, err := t.strings(ctx, "UPDATE job SET state = $1, ended_at = $2, error_code = $3, error = $4, rate = 0 WHERE waits_for = $5 AND state = 'queued' RETURNING id",
		e.state, t.now, e.code, e.text, leader)
	if err != nil {
		return fmt.Errorf("end what waits for job %s: %w", leader, err)
	}
	for _, id := range ids {
		if err := t.leaveQueue(ctx, id); err != nil {
			return fmt.Errorf("job %s: %w", id, err)
		}
	}
	return nil
}

// NoteWaiting stores what a job that still waits needs to know.
func (t *tx) NoteWaiting(ctx context.Context, n backup.WaitingNote) (bool, error) {
	found, err := t.row(ctx, `UPDATE job SET checkpoint = $1, kept_attempt = $2, messages = messages || $3, handed_over = (handed_over OR $4)
		WHERE id = $5 AND waits_for = $6 AND state = 'queued' RETURNING id`,
		[]any{rawJSON{&n.Checkpoint}, n.KeptAttempt, toLines(n.Messages), n.Begun, n.JobID, n.Leader}, new(string))
	if err == nil && found && n.Begun {
		_, err = t.exec(ctx, "UPDATE job_key SET held = TRUE WHERE job_id = $1 AND name LIKE 'vm:%'", n.JobID)
	}
	if err != nil {
		return false, fmt.Errorf("note of the waiting job %s: %w", n.JobID, err)
	}
	return found, nil
}

// SetSpread stores how far apart the snapshots of a run are.
func (t *tx) SetSpread(ctx context.Context, runID string, d time.Duration) error {
	if _, err := t.exec(ctx, "UPDATE run SET spread_ms = $1 WHERE id = $2", spell{&d}, runID); err != nil {
		return fmt.Errorf("spread of run %s: %w", runID, err)
	}
	return nil
}

// Kept lists the snapshots that were made for jobs which are not over.
func (db *DB) Kept(ctx context.Context) (map[string]int, error) {
	kept := map[string]int{}
	err := db.view(ctx, func(t *tx) error {
		return t.rows(ctx, "SELECT id, kept_attempt FROM job WHERE kept_attempt > 0 AND state IN ('queued', 'running')", nil, func(scan func(...any) error) error {
			var id string
			var attempt int
			if err := scan(&id, &attempt); err != nil {
				return err
			}
			kept[id] = attempt
			return nil
		})
	})
	return kept, db.failed("kept snapshots", err)
}

// owingBatch is how many jobs one look for debts returns.
const owingBatch = 200

// idleSQL is true of a job that no server works on.
const idleSQL = "NOT (state = 'running' AND lease_until >= $1)"

// Owing lists jobs that owe something and that no server works on.
func (db *DB) Owing(ctx context.Context) ([]backup.Job, error) {
	var owing []backup.Job
	err := db.view(ctx, func(t *tx) error {
		owing = nil
		var sample backup.Job
		text := fmt.Sprintf("SELECT %s FROM job WHERE owes AND %s ORDER BY id LIMIT %d", jobColumns(&sample).names(""), idleSQL, owingBatch)
		return t.rows(ctx, text, []any{t.now}, func(scan func(...any) error) error {
			var j backup.Job
			if err := scan(jobColumns(&j).dest()...); err != nil {
				return err
			}
			owing = append(owing, j)
			return nil
		})
	})
	return owing, db.failed("jobs that owe", err)
}

// Repaid notes that a job owes nothing any more, unless a server has begun to
// work on it since it was listed.
func (db *DB) Repaid(ctx context.Context, j backup.Job, message string) error {
	var said []string
	if message != "" {
		said = []string{message}
	}
	return db.retry(ctx, func(t *tx) error {
		_, err := t.exec(ctx, "UPDATE job SET owes = FALSE, messages = messages || $2 WHERE id = $3 AND attempt = $4 AND "+idleSQL,
			t.now, toLines(said), j.ID, j.Attempt)
		if err != nil {
			return fmt.Errorf("debt of job %s: %w", j.ID, err)
		}
		return nil
	})
}
