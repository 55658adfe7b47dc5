package store_test

import (
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

func TestWhatWasComparedIsCountedByTheDay(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, _ *clock) {
		read := func(day, job string, bytes int64) backup.Compared {
			return backup.Compared{Day: day, JobID: job, Disk: 2000, Bytes: bytes, Settled: true}
		}
		for _, c := range []struct {
			backup.Compared
			want int64
		}{
			{read("2026-11-23", "a", 1<<40), 1 << 40},
			{read("2026-11-23", "b", 5), 1<<40 + 5},
			{read("2026-11-23", "a", 1), 6}, // it read less than it had taken
			{read("2026-11-24", "c", 7), 7},
			{read("2026-11-23", "d", 1), 1}, // that day was over
		} {
			err := db.Update(t.Context(), func(tx backup.Tx) error {
				got, err := tx.SaveCompared(t.Context(), c.Compared)
				if got != c.want {
					t.Errorf("SaveCompared(%+v) = %d, want %d", c.Compared, got, c.want)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A job that is killed gives back what it had taken, and takes it once when it
// goes on.
func TestABudgetOfComparesIsNeitherOverdrawnNorLost(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		insertJobs(t, db, job("j1", c.now()), job("j2", c.now()), job("j3", c.now()))
		for range 3 {
			claim(t, db, backup.Claim{Lease: time.Minute})
		}
		reserve := func(job string, disk int32, budget int64) bool {
			t.Helper()
			ok, err := backup.ReserveCompare(t.Context(), db, backup.Compared{Day: backup.CompareDay(c.now()), JobID: job, Disk: disk, Bytes: 40}, budget)
			if err != nil {
				t.Fatal(err)
			}
			return ok
		}
		for n, want := range []bool{true, true, false} {
			if got := reserve("j1", int32(2000+n), 100); got != want {
				t.Errorf("reservation %d of 40 out of 100: %t, want %t", n, got, want)
			}
		}
		if !reserve("j1", 2000, 100) {
			t.Error("a disk that is read again takes its share a second time")
		}
		if reserve("j2", 2000, 100) || !reserve("j3", 2000, 0) {
			t.Error("another job goes over the budget, or one without a budget is refused")
		}
		c.pass(2 * time.Minute) // their server is dead
		claim(t, db, backup.Claim{Lease: time.Minute})
		for n, want := range []bool{true, true, false} {
			if got := reserve("j1", int32(2000+n), 100); got != want {
				t.Errorf("after the death, reservation %d of 40 out of 100: %t, want %t", n, got, want)
			}
		}
	})
}
