package store

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	lite "modernc.org/sqlite"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// recorder is a driver that notes each question before it asks it.
type recorder struct {
	driver.Connector
	asked *[]question
}

type question struct {
	text string
	args []any
}

func (r recorder) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := r.Connector.Connect(ctx)
	return recording{c, r.asked}, err
}

type recording struct {
	driver.Conn
	asked *[]question
}

func (c recording) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, o)
}

func (c recording) ExecContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, q, args)
}

func (c recording) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Rows, error) {
	asked := question{text: q}
	for _, a := range args {
		asked.args = append(asked.args, a.Value)
	}
	*c.asked = append(*c.asked, asked)
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, q, args)
}

// lists are what is asked of years of history, and the index that answers.
func lists(now time.Time) map[string]struct {
	ask   func(ctx context.Context, t backup.Tx) error
	index string
} {
	jobs := func(f backup.JobFilter) func(context.Context, backup.Tx) error {
		return func(ctx context.Context, t backup.Tx) error { _, _, err := t.Jobs(ctx, f); return err }
	}
	images := func(f backup.ImageFilter) func(context.Context, backup.Tx) error {
		return func(ctx context.Context, t backup.Tx) error { _, _, err := t.Images(ctx, f); return err }
	}
	runs := func(f backup.RunFilter) func(context.Context, backup.Tx) error {
		return func(ctx context.Context, t backup.Tx) error { _, _, err := t.Runs(ctx, f); return err }
	}
	later := query{since: "created_at"}
	id, at := "x", now
	page := backup.Page{Cursor: later.cursor(columns{{"id", &id}, {"created_at", millis{&at}}})}
	return map[string]struct {
		ask   func(ctx context.Context, t backup.Tx) error
		index string
	}{
		"jobs":                     {jobs(backup.JobFilter{}), "job_list"},
		"jobs, a later page":       {jobs(backup.JobFilter{Page: page}), "job_list"},
		"jobs of seven days":       {jobs(backup.JobFilter{After: now}), "job_list"},
		"jobs by kind":             {jobs(backup.JobFilter{Kind: backup.KindSync}), "job_kind"},
		"jobs by state":            {jobs(backup.JobFilter{State: backup.JobFailed}), "job_state"},
		"jobs by VM":               {jobs(backup.JobFilter{VMID: "m"}), "job_vm"},
		"jobs by VM, a later page": {jobs(backup.JobFilter{VMID: "m", Page: page}), "job_vm"},
		"jobs by run":              {jobs(backup.JobFilter{RunID: "r"}), "job_run"},
		"jobs by vcenter":          {jobs(backup.JobFilter{VCenterID: "v"}), "job_vcenter"},
		"active jobs":              {jobs(backup.JobFilter{Active: true}), "job_active"},
		"active jobs of a VM":      {jobs(backup.JobFilter{Active: true, Kind: backup.KindBackup, VMID: "m"}), "job_active_vm"},
		"due schedules": {func(ctx context.Context, t backup.Tx) error {
			_, err := t.DueSchedules(ctx, now)
			return err
		}, "schedule_due"},
		"schedules without all their seats": {func(ctx context.Context, t backup.Tx) error {
			_, _, err := t.Schedules(ctx, backup.ScheduleFilter{Unbooked: true})
			return err
		}, "schedule_unbooked"},
		"active syncs of a vcenter":      {jobs(backup.JobFilter{Active: true, Kind: backup.KindSync, VCenterID: "v"}), "job_active"},
		"images":                         {images(backup.ImageFilter{}), "image_list"},
		"images of some days":            {images(backup.ImageFilter{CreatedAfter: now, CreatedBefore: now}), "image_list"},
		"images by VM":                   {images(backup.ImageFilter{VMID: "m"}), "image_vm_time"},
		"images by VM and repository":    {images(backup.ImageFilter{VMID: "m", RepositoryID: "r"}), "image_vm"},
		"images by name of VM":           {images(backup.ImageFilter{VMName: "n"}), "image_vm_name"},
		"images by group":                {images(backup.ImageFilter{GroupID: "g"}), "image_group"},
		"images by schedule":             {images(backup.ImageFilter{ScheduleID: "s"}), "image_schedule"},
		"images by run":                  {images(backup.ImageFilter{RunID: "r"}), "image_run"},
		"images by vcenter":              {images(backup.ImageFilter{VCenterID: "v"}), "image_vcenter"},
		"images by repository":           {images(backup.ImageFilter{RepositoryID: "r"}), "image_repository"},
		"images by status":               {images(backup.ImageFilter{Status: backup.ImageDamaged}), "image_status"},
		"images without needless copies": {images(backup.ImageFilter{Copies: backup.CopiesAlone}), "image_list"},
		"a newer copy": {func(ctx context.Context, t backup.Tx) error {
			_, err := t.HasNewerImage(ctx, backup.Image{ID: "i", VMID: "m", CopyOf: "o", RepositoryID: "r", PointInTime: now}, true)
			return err
		}, "image_vm"},
		"images that have ended": {func(ctx context.Context, t backup.Tx) error {
			_, err := t.EndedImages(ctx, now, backup.ImageEnd{At: now, ID: "i"}, 100)
			return err
		}, "image_end"},
		"images by their last reading": {func(ctx context.Context, t backup.Tx) error {
			_, _, err := t.LongestUnread(ctx, "r", 10)
			return err
		}, "image_verify"},
		"usage of a month": {func(ctx context.Context, t backup.Tx) error {
			return t.EachUsage(ctx, now, now.AddDate(0, 1, 0), func(backup.UsageEntry) error { return nil })
		}, "usage_end"},
		"a newer image of a VM": {func(ctx context.Context, t backup.Tx) error {
			_, err := t.HasNewerImage(ctx, backup.Image{ID: "i", VMID: "m", PointInTime: now}, true)
			return err
		}, "image_vm_time"},
		"the last image of a VM": {func(ctx context.Context, t backup.Tx) error {
			_, err := t.LastImage(ctx, "m", "r")
			return notMissing(err)
		}, "image_vm"},
		"runs":             {runs(backup.RunFilter{}), "run_list"},
		"runs by schedule": {runs(backup.RunFilter{ScheduleID: "s"}), "run_schedule"},
		"runs by group":    {runs(backup.RunFilter{GroupID: "g"}), "run_group"},
		"runs by state":    {runs(backup.RunFilter{State: backup.RunFailed}), "run_state"},
		"a restore by its token": {func(ctx context.Context, t backup.Tx) error {
			_, err := t.RestoreByToken(ctx, "x")
			return notMissing(err)
		}, "restore_token"},
	}
}

func notMissing(err error) error {
	if backup.CodeOf(err) == backup.NotFound {
		return nil
	}
	return err
}

func planned(t *testing.T, db *DB, connector driver.Connector, explain string, check func(t *testing.T, plan, index string)) {
	t.Helper()
	var asked []question
	db.read = sql.OpenDB(recorder{connector, &asked})
	defer db.read.Close()
	plain := sql.OpenDB(connector)
	defer plain.Close()
	for name, l := range lists(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Run(name, func(t *testing.T) {
			asked = nil
			if err := db.View(t.Context(), func(tx backup.Tx) error { return l.ask(t.Context(), tx) }); err != nil {
				t.Fatal(err)
			}
			q := asked[len(asked)-1]
			rows, err := plain.QueryContext(t.Context(), explain+q.text, q.args...)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			names, err := rows.Columns()
			if err != nil {
				t.Fatal(err)
			}
			var plan strings.Builder
			for rows.Next() {
				line := make([]any, len(names))
				for i := range line {
					line[i] = new(any)
				}
				if err := rows.Scan(line...); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(&plan, *line[len(line)-1].(*any))
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			check(t, plan.String(), l.index)
		})
	}
}

func TestSQLiteAnswersListsFromAnIndexInItsOrder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kura.db")
	db, err := Open(t.Context(), Config{DSN: "sqlite:" + path, Key: bytes.Repeat([]byte{1}, 32), Migrate: true, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.read.Close(); err != nil {
		t.Fatal(err)
	}
	connector, err := lite.NewConnector(sqliteDSN(path, "deferred"))
	if err != nil {
		t.Fatal(err)
	}
	planned(t, db, connector, "EXPLAIN QUERY PLAN ", func(t *testing.T, plan, index string) {
		want := "SEARCH " + strings.Split(index, "_")[0] + " USING INDEX " + index + " ("
		if index == "job_active" { // it holds nothing else
			want = "SCAN job USING INDEX job_active"
		}
		if !strings.HasPrefix(plan, want) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("plan:\n%s\nwant %s and no sorting", plan, want)
		}
	})
}

// history fills the tables as after a year, so that PostgreSQL's planner has
// something to weigh.
var history = []string{
	`INSERT INTO run SELECT 'r' || i, 'default', 's' || i % 50, 'g' || i % 20, i, 'schedule', 'succeeded', i, i, '' FROM generate_series(1, 5000) i`,
	`INSERT INTO job (id, project, kind, run_id, vcenter_id, vm_id, vm_name, image_id, restore_id, spec, needs, keys, state, due, deadline, window_end, attempt, failures, max_attempts,
		owner, lease_until, cancel_asked, step, checkpoint, done, total, rate, created_at, started_at, ended_at, error_code, error, messages)
		SELECT 'j' || i, 'default', CASE WHEN i % 100 = 0 THEN 'sync' ELSE 'backup' END, 'r' || i / 10, 'v' || i % 20, 'm' || i % 500, 'n', '', '', '', '[]', '[]', CASE WHEN i % 1000 = 0 THEN 'failed' ELSE 'succeeded' END,
		i, 0, 0, 1, 0, 3, '', 0, FALSE, '', '', 0, 0, 0, i, i, i, '', '', '' FROM generate_series(1, 50000) i`,
	`INSERT INTO image SELECT 'i' || i, 'default', 'v' || i % 20, 'm' || i % 500, 'n' || i % 500, '', '', 's' || i % 50, 'g' || i % 20, 'r' || i / 10, 'j' || i, 'p' || i % 3, i, i, i, i, 0,
		CASE WHEN i % 1000 = 0 THEN 'damaged' ELSE 'good' END, 'crash', 'cbt', '', '[]', 0, 0, 0, 0, 0, 'null', '' FROM generate_series(1, 50000) i`,
	`INSERT INTO usage SELECT 'i' || i, 'default', 'm' || i % 500, 'n', 's', 'g', 'p', 0, 0, 0, i, i + 5, 'null' FROM generate_series(1, 50000) i`,
	`INSERT INTO restore SELECT 're' || i, 'default', 'i', '', '', '', '', 't' || i, FALSE, '', i, '{}', 0 FROM generate_series(1, 5000) i`,
	`INSERT INTO schedule (id, project, version, created_at, updated_at, name, description, enabled, recurrence, window_hours, duration_hours, max_delay_hours, retention_days, extended, apply_to_existing,
		locked, consistency, disks, unprotectable, repository_id, labels, deletion_protection, seats, start_time_chosen, earliest_hour, latest_hour, next_due)
		SELECT 's' || i, 'default', 1, i, i, 's' || i, '', TRUE, '{}', 1, 1, 6, 7, 'null', FALSE, FALSE, 'crash', '{}', 'fail', 'p', 'null', FALSE, 1, FALSE, 0, 23, 1900000000000 + i FROM generate_series(1, 5000) i`,
	`ANALYZE`,
}

func TestPostgreSQLAnswersListsFromAnIndex(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	db, err := Open(t.Context(), Config{DSN: dsn, Key: bytes.Repeat([]byte{1}, 32), Migrate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, h := range history {
		if _, err := db.write.ExecContext(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	planned(t, db, stdlib.GetConnector(*c), "EXPLAIN ", func(t *testing.T, plan, _ string) {
		if strings.Contains(plan, "Seq Scan on") || !strings.Contains(plan, "Index") && !strings.Contains(plan, "Bitmap") {
			t.Errorf("plan:\n%s\nwant no scan of a whole table", plan)
		}
	})
}
