package store_test

import (
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

func TestWhatWasComparedIsCountedByTheDay(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, _ *clock) {
		for _, c := range []struct {
			day         string
			bytes, want int64
		}{{"2026-11-23", 1 << 40, 1 << 40}, {"2026-11-23", 5, 1<<40 + 5}, {"2026-11-23", -1 << 40, 5}, {"2026-11-24", 7, 7}, {"2026-11-23", 1, 1}} {
			err := db.Update(t.Context(), func(tx backup.Tx) error {
				got, err := tx.AddCompared(t.Context(), c.day, c.bytes)
				if got != c.want {
					t.Errorf("AddCompared(%s, %d) = %d, want %d", c.day, c.bytes, got, c.want)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestABudgetOfComparesIsNotOverdrawn(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		for n, want := range []bool{true, true, false, false} {
			if ok, err := backup.ReserveCompare(t.Context(), db, c.now(), 40, 100); err != nil || ok != want {
				t.Errorf("reservation %d of 40 out of 100: %t, %v; want %t", n, ok, err, want)
			}
		}
		if ok, err := backup.ReserveCompare(t.Context(), db, c.now(), 1000, 0); err != nil || !ok {
			t.Errorf("without a budget: %t, %v", ok, err)
		}
	})
}
