package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// manySchedules stores n schedules, every tenth of them at 13:00, and returns
// a planner on them with the clock at which the database stands.
func manySchedules(b *testing.B, db *store.DB, n int) *backup.Planner {
	b.Helper()
	_, vm := covered(b, db)
	repository := backup.RepositoryRecord{Name: "default", Kind: "filesystem", Password: "secret", Default: true}
	update(b, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertRepository(ctx, &repository) })
	const part = 5000
	for from := 0; from < n; from += part {
		var all []*backup.Schedule
		for i := range min(part, n-from) {
			s := daily(fmt.Sprint("s", from+i), vm, 14+i%9)
			if s.RepositoryID = repository.ID; i%10 == 0 {
				s.Recurrence.Hour = 13
			}
			s.WindowHours, s.DurationHours, s.MaxDelayHours, s.Seats = 1, 1, 6, 1
			all = append(all, s)
		}
		insertDue(b, db, all...)
	}
	return &backup.Planner{Store: db}
}

// benchDispatch runs the benchmark on both databases, whose clock is at 12:00.
func benchDispatch(b *testing.B, bench func(b *testing.B, p *backup.Planner, c *clock)) {
	for name, p := range map[string]place{
		"sqlite":   {dsn: "sqlite:" + filepath.Join(b.TempDir(), "kura.db")},
		"postgres": {dsn: pgtest.Database(b), postgres: true},
	} {
		b.Run(name, func(b *testing.B) {
			c := newClock()
			bench(b, manySchedules(b, p.open(b, c.now), 100_000), c)
		})
	}
}

// BenchmarkDispatchIdle is what each server does every few seconds: none of
// 100,000 schedules is due.
func BenchmarkDispatchIdle(b *testing.B) {
	benchDispatch(b, func(b *testing.B, p *backup.Planner, _ *clock) {
		for b.Loop() {
			if n, err := p.Dispatch(b.Context()); n != 0 || err != nil {
				b.Fatalf("Dispatch = %d, %v, want nothing due", n, err)
			}
		}
	})
}

// BenchmarkDispatchHour is an hour at which 10,000 of them are due, as are at
// each from 13:00 to 22:00.
func BenchmarkDispatchHour(b *testing.B) {
	benchDispatch(b, func(b *testing.B, p *backup.Planner, c *clock) {
		made := 0
		for b.Loop() {
			c.pass(time.Hour)
			n, err := p.Dispatch(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			made += n
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(made), "µs/run")
	})
}

// BenchmarkRenewDue is what a process does once when it starts.
func BenchmarkRenewDue(b *testing.B) {
	benchDispatch(b, func(b *testing.B, p *backup.Planner, _ *clock) {
		for b.Loop() {
			if err := p.RenewDue(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
