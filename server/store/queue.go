package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Claim takes one job. One Claim at a time takes one in the whole
// installation, so that the limits of the keys are exact. Most find nothing to
// take, so it looks first, in nobody's way.
func (db *DB) Claim(ctx context.Context, c backup.Claim) (*backup.Job, error) {
	var candidate string
	err := db.view(ctx, func(t *tx) (err error) {
		candidate, err = t.next(ctx, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for a job: %w", err)
	}
	if candidate == "" {
		return nil, nil
	}
	var got *backup.Job
	err = db.retryLocked(ctx, lockClaim, func(t *tx) error {
		got = nil
		for { // again only when a job was cancelled or expired under our hands
			id, err := t.next(ctx, c)
			if err != nil || id == "" {
				return err
			}
			if got, err = t.take(ctx, id, c); err != nil || got != nil {
				return err
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("claim a job: %w", err)
	}
	return got, nil
}

// next finds the job to take: one whose lease has run out, else the oldest
// that is due and fits, those with a seat before those without.
func (t *tx) next(ctx context.Context, c backup.Claim) (string, error) {
	lost := newCandidates(c)
	lost.where("j.state = 'running'")
	lost.where("j.lease_until < ?", t.now)
	text, args := lost.text("", "j.lease_until, j.id")
	var id string
	if found, err := t.row(ctx, text, args, &id); err != nil || found {
		return id, err
	}
	for _, seat := range []string{"j.unbooked = FALSE", "j.unbooked = TRUE"} { // literals, so that the index answers
		due := newCandidates(c)
		due.where("j.state = 'queued'")
		due.where(seat)
		due.where("j.due <= ?", t.now)
		due.where("(j.deadline = 0 OR j.deadline >= ? OR j.handed_over)", t.now)
		due.where(notWaitingSQL)
		due.where("NOT EXISTS (SELECT 1 FROM job_key k LEFT JOIN used u ON u.name = k.name WHERE k.job_id = j.id AND NOT k.held AND COALESCE(u.weight, 0) + k.weight > k.allowed)")
		text, args = due.text(usedSQL, "j.due, j.id")
		if found, err := t.row(ctx, text, args, &id); err != nil || found {
			return id, err
		}
	}
	return "", nil
}

// usedSQL counts once what the running jobs weigh.
const usedSQL = "WITH used AS MATERIALIZED (SELECT name, SUM(weight) AS weight FROM job_key WHERE held GROUP BY name) "

// candidates are the jobs that a claim may take.
type candidates struct{ query }

func newCandidates(c backup.Claim) *candidates {
	q := &candidates{}
	if len(c.Kinds) > 0 {
		kinds := make([]string, len(c.Kinds))
		for i, k := range c.Kinds {
			kinds[i] = string(k)
		}
		q.in("j.kind", kinds)
	}
	switch {
	case c.Reach == nil:
	case len(c.Reach) == 0:
		q.where("NOT EXISTS (SELECT 1 FROM job_need n WHERE n.job_id = j.id)")
	default:
		args := make([]any, len(c.Reach))
		for i, label := range c.Reach {
			args[i] = label
		}
		marks := strings.TrimSuffix(strings.Repeat("?, ", len(c.Reach)), ", ")
		q.where("NOT EXISTS (SELECT 1 FROM job_need n WHERE n.job_id = j.id AND n.label NOT IN ("+marks+"))", args...)
	}
	return q
}

func (c *candidates) text(with, order string) (string, []any) {
	return with + "SELECT j.id FROM job j WHERE " + strings.Join(c.conds, " AND ") + " ORDER BY " + order + " LIMIT 1", c.args
}

// take makes the job the claimer's own. nil = it is not to be had any more.
func (t *tx) take(ctx context.Context, id string, c backup.Claim) (*backup.Job, error) {
	var j backup.Job
	cols := jobColumns(&j)
	found, err := t.row(ctx, `UPDATE job SET state = 'running', owner = $1, lease_until = $2, attempt = attempt + 1, handed_over = FALSE, rate = 0,
		started_at = CASE WHEN started_at = 0 THEN CAST($3 AS BIGINT) ELSE started_at END
		WHERE id = $4 AND (state = 'queued' OR state = 'running' AND lease_until < $5) RETURNING `+cols.names(""),
		[]any{c.Owner, t.now.Add(c.Lease), t.now, id, t.now}, cols.dest()...)
	if err != nil || !found {
		return nil, err
	}
	if _, err := t.exec(ctx, "UPDATE job_key SET held = TRUE WHERE job_id = $1", id); err != nil {
		return nil, err
	}
	if j.RunID != "" {
		if _, err := t.exec(ctx, "UPDATE run SET state = 'running' WHERE id = $1 AND state = 'queued'", j.RunID); err != nil {
			return nil, err
		}
	}
	return &j, nil
}

// Live lists the leases that have not run out.
func (db *DB) Live(ctx context.Context) (map[string]int, error) {
	live := map[string]int{}
	err := db.view(ctx, func(t *tx) error {
		return t.rows(ctx, "SELECT id, attempt FROM job WHERE state = 'running' AND lease_until >= $1", []any{t.now}, func(scan func(...any) error) error {
			var id string
			var attempt int
			if err := scan(&id, &attempt); err != nil {
				return err
			}
			live[id] = attempt
			return nil
		})
	})
	return live, db.failed("live leases", err)
}

// Movers counts the servers that have jobs which move disks of a vcenter.
func (db *DB) Movers(ctx context.Context, vcenterID string) (n int, err error) {
	err = db.view(ctx, func(t *tx) error {
		_, err := t.row(ctx, `SELECT COUNT(DISTINCT owner) FROM job WHERE state = 'running' AND lease_until >= $1 AND vcenter_id = $2 AND kind IN ('backup', 'restore')`,
			[]any{t.now, vcenterID}, &n)
		return err
	})
	return n, db.failed("servers that move disks", err)
}

// expireBatch is how many jobs one transaction of Expire ends.
const expireBatch = 200

// Expire ends queued jobs whose deadline has passed. One that was never begun
// is missed; one whose tries all failed has failed, with the last error. One
// that was begun in time and handed over goes on after its deadline.
func (db *DB) Expire(ctx context.Context) (int, error) {
	for total := 0; ; {
		n := 0
		err := db.retry(ctx, func(t *tx) error {
			n = 0
			late, err := t.late(ctx)
			if err != nil {
				return err
			}
			for _, j := range late {
				e, err := t.missed(ctx, j)
				if err != nil {
					return err
				}
				if err := t.end(ctx, j, e); err != nil {
					return err
				}
			}
			n = len(late)
			return nil
		})
		total += n
		if err != nil || n < expireBatch {
			return total, db.failed("expire jobs", err)
		}
	}
}

// mayShareSQL is true of a scheduled backup while another one of its VM runs
// that began in its time: when that succeeds, they share its image.
const mayShareSQL = `(kind = 'backup' AND window_end > 0 AND EXISTS (SELECT 1 FROM job k
	WHERE k.state = 'running' AND k.kind = 'backup' AND k.window_end > 0 AND k.vm_id = job.vm_id AND k.started_at <= job.deadline))`

// leaderRunsSQL is true of a job that waits for one which began in time.
const leaderRunsSQL = "EXISTS (SELECT 1 FROM job f WHERE f.id = job.waits_for AND f.state = 'running')"

func (t *tx) late(ctx context.Context) ([]backup.Job, error) {
	var late []backup.Job
	var sample backup.Job
	text := "SELECT " + jobColumns(&sample).names("") + " FROM job WHERE state = 'queued' AND deadline > 0 AND deadline < $1 AND NOT handed_over AND NOT " + mayShareSQL + " AND NOT " + leaderRunsSQL +
		" ORDER BY deadline LIMIT " + strconv.Itoa(expireBatch) + t.db.dialect.forUpdate()
	err := t.rows(ctx, text, []any{t.now}, func(scan func(...any) error) error {
		var j backup.Job
		if err := scan(jobColumns(&j).dest()...); err != nil {
			return err
		}
		late = append(late, j)
		return nil
	})
	return late, err
}

// missed says how and why a job ends that is out of time.
func (t *tx) missed(ctx context.Context, j backup.Job) (ending, error) {
	by := j.Deadline.UTC().Format(time.DateTime) + " UTC"
	if j.Failures > 0 {
		text := strings.TrimSpace(j.Error + " It was not tried again: the time for it ended at " + by + ".")
		return ending{backup.JobFailed, j.ErrorCode, text}, nil
	}
	full, err := t.strings(ctx, usedSQL+`SELECT k.name FROM job_key k LEFT JOIN used u ON u.name = k.name
		WHERE k.job_id = $1 AND COALESCE(u.weight, 0) + k.weight > k.allowed ORDER BY k.name`, j.ID)
	if err != nil {
		return ending{}, err
	}
	other, err := t.ranMeanwhile(ctx, j)
	if err != nil {
		return ending{}, err
	}
	why := "No server that could run it was there and free"
	switch {
	case other != "":
		why = "Another backup of the VM ran then: job " + other
	case len(full) > 0:
		for i, name := range full {
			full[i] = backup.LimitText(name)
		}
		why = "These limits were reached: " + strings.Join(full, ", ")
	case len(j.Needs) > 0:
		why += "; it needs one that reaches " + strings.Join(j.Needs, " and ")
	}
	return ending{backup.JobMissed, backup.Unavailable, "The job could not start by " + by + ". " + why + "."}, nil
}

// ranMeanwhile is the job that held the VM of j when the time for j ended; ""
// when none did that is over by now.
func (t *tx) ranMeanwhile(ctx context.Context, j backup.Job) (id string, err error) {
	if j.VMID == "" || j.Kind != backup.KindBackup {
		return "", nil
	}
	_, err = t.row(ctx, `SELECT id FROM job WHERE project = $1 AND vm_id = $2 AND created_at >= $3 AND created_at <= $4 AND kind = 'backup'
		AND started_at > 0 AND started_at <= $5 AND ended_at > $6 ORDER BY created_at DESC LIMIT 1`,
		[]any{j.Project, j.VMID, j.Deadline.AddDate(0, 0, -8), j.Deadline, j.Deadline, j.Deadline}, &id)
	return id, err
}
