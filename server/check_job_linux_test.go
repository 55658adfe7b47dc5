package server_test

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

// openJob is a job that is not over, with what the API does not tell of it.
type openJob struct {
	id, kind, vm, state, owner string
	attempt, kept              int
	leaseUntil                 time.Time
}

func (j openJob) live(now time.Time) bool {
	return j.state == "running" && !j.leaseUntil.Before(now)
}

// openSQL opens the servers' database beside them.
func (c *checker) openSQL() (*sql.DB, error) {
	if file, ok := strings.CutPrefix(c.Database, "sqlite:"); ok {
		return sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)")
	}
	return sql.Open("pgx", c.Database)
}

func (c *checker) openJobs(ctx context.Context) (all []openJob, err error) {
	db, err := c.openSQL()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, `SELECT id, kind, vm_name, state, owner, attempt, kept_attempt, lease_until FROM job WHERE state IN ('queued', 'running')`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var j openJob
		var ms int64
		if err := rows.Scan(&j.id, &j.kind, &j.vm, &j.state, &j.owner, &j.attempt, &j.kept, &ms); err != nil {
			return nil, err
		}
		j.leaseUntil = time.UnixMilli(ms)
		all = append(all, j)
	}
	return all, rows.Err()
}

// lookAtJobs sees that each job that was accepted is in the history, and that
// those that are over say how they ended and why.
func (c *checker) lookAtJobs(ctx context.Context, say sayer) {
	all := map[string]api.Job{}
	for cursor := ""; ; {
		r, err := c.any().ListJobsWithResponse(ctx, &api.ListJobsParams{Limit: 1000, Cursor: cursor})
		if err := api.Err(r, err); err != nil {
			say(5, "The history of jobs cannot be read: %v.", err)
			return
		}
		for _, j := range r.JSON200.Items {
			all[j.ID] = j
		}
		if cursor = r.JSON200.NextCursor; cursor == "" {
			break
		}
	}
	for _, j := range all {
		switch {
		case j.State == api.JobStateQueued || j.State == api.JobStateRunning:
		case j.EndedAt.IsZero():
			say(5, "The job %s (%s) is %s and has no end.", j.ID, j.Kind, j.State)
		case j.Kind == api.JobKindBackup && j.State == api.JobStateSucceeded && j.ImageID == "":
			say(5, "The backup %s succeeded and names no image.", j.ID)
		case j.State != api.JobStateSucceeded && j.State != api.JobStateCancelled && (j.Error == nil || j.Error.Message == ""):
			say(5, "The job %s (%s) is %s and does not say why.", j.ID, j.Kind, j.State)
		}
	}
	c.lookAtRuns(ctx, all, say)
}

// lookAtRuns looks for the jobs of what was accepted. That the runs and
// restores themselves are there is seen with all else that was acknowledged.
func (c *checker) lookAtRuns(ctx context.Context, jobs map[string]api.Job, say sayer) {
	c.mu.Lock()
	var runs []string
	for at, w := range c.written {
		job, isJob := strings.CutPrefix(at, "/v1/jobs/")
		if _, known := jobs[job]; isJob && !w.gone && !known {
			say(5, "The job %s was accepted and is not in the history.", job)
		}
		if strings.HasPrefix(at, "/v1/runs/") {
			runs = append(runs, strings.TrimPrefix(at, "/v1/runs/"))
		}
	}
	c.mu.Unlock()
	slices.Sort(runs)
	for _, id := range runs {
		r, err := c.any().GetRunWithResponse(ctx, id)
		if err := api.Err(r, err); err != nil || r.StatusCode() != http.StatusOK {
			say(5, "The run %s was accepted and is not in the history: %v.", id, err)
			continue
		}
		if len(r.JSON200.Jobs) == 0 {
			say(5, "The run %s was accepted and has no job.", id)
		}
		if open := slices.ContainsFunc(r.JSON200.Jobs, func(j api.Job) bool { return !j.State.Final() }); r.JSON200.State.Final() == open {
			say(5, "The run %s is %s, and its jobs are not so.", id, r.JSON200.State)
		}
	}
}

// openStore opens the servers' database as a server does: that of PostgreSQL
// itself, of SQLite, which has one server only, a copy.
func (c *checker) openStore(ctx context.Context) (*store.DB, error) {
	text, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, err
	}
	dsn := c.Database
	if strings.HasPrefix(dsn, "sqlite:") {
		copied := filepath.Join(c.t.TempDir(), fmt.Sprintf("copy%d.db", c.checks))
		db, err := c.openSQL()
		if err != nil {
			return nil, err
		}
		_, err = db.ExecContext(ctx, `VACUUM INTO ?`, copied)
		if err := errors.Join(err, db.Close()); err != nil {
			return nil, err
		}
		dsn = "sqlite:" + copied
	}
	return store.Open(ctx, store.Config{DSN: dsn, Key: key, Now: c.Now})
}

// recountSeats counts the seats of the coming fortnight from the stored
// schedules and compares them with what the servers say.
func (c *checker) recountSeats(ctx context.Context, say sayer) {
	db, err := c.openStore(ctx)
	if err != nil {
		say(4, "The seats cannot be recounted: %v.", err)
		return
	}
	defer func() {
		if err := db.Close(); err != nil {
			say(4, "The database did not close: %v.", err)
		}
	}()
	from := c.clock().Truncate(time.Hour).Add(time.Hour)
	var l *ledger
	err = db.View(ctx, func(tx backup.Tx) error {
		schedules, _, err := tx.Schedules(ctx, backup.ScheduleFilter{})
		if err != nil {
			return err
		}
		zones := []string{"UTC"}
		for _, s := range schedules {
			zones = append(zones, s.Recurrence.TimeZone)
		}
		slices.Sort(zones)
		a := newAuditor(c.t, from.AddDate(0, 0, -5), from.AddDate(0, 0, 16), slices.Compact(zones)...)
		for page := (backup.Page{Limit: 1000}); ; {
			vms, next, err := tx.Machines(ctx, backup.MachineFilter{Page: page, IncludeGone: true})
			if err != nil {
				return err
			}
			for _, vm := range vms {
				a.vcenter[vm.ID] = vm.VCenterID
			}
			if page.Cursor = next; next == "" {
				break
			}
		}
		l, err = a.recount(ctx, tx)
		return err
	})
	if err != nil {
		say(4, "The seats cannot be recounted: %v.", err)
		return
	}
	for name, a := range c.live() {
		c.compareSeats(ctx, name, a, l, from, say)
	}
}

// compareSeats compares what one server says of the hours with the recount.
func (c *checker) compareSeats(ctx context.Context, server string, a *api.ClientWithResponses, l *ledger, from time.Time, say sayer) {
	for id, v := range l.vcenter {
		p := &api.ListTimeslotsParams{VCenterID: id, From: from, To: from.AddDate(0, 0, 14), TimeZone: "UTC", Limit: 1000}
		r, err := a.ListTimeslotsWithResponse(ctx, p)
		if err := api.Err(r, err); err != nil {
			say(4, "The server %s does not tell the hours of %s: %v.", server, v.Name, err)
			continue
		}
		for _, h := range r.JSON200.Items {
			if want := l.used[id][h.StartsAt.Unix()/3600]; h.Used != want {
				say(4, "The server %s counts %d seats of %s at %s, a recount %d.", server, h.Used, v.Name, h.StartsAt, want)
			}
			if h.Used > h.Capacity {
				say(4, "%d seats of %d are booked of %s at %s.", h.Used, h.Capacity, v.Name, h.StartsAt)
			}
		}
	}
}
