package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

func insertRepository(t *testing.T, db *store.DB, r backup.RepositoryRecord) backup.RepositoryRecord {
	t.Helper()
	update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertRepository(ctx, &r) })
	return r
}

func TestWhatAServerNotesOfARepositoryMakesNoNewVersion(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		r := insertRepository(t, db, backup.RepositoryRecord{Name: "r", Kind: "filesystem", Password: "secret", NextPassword: "next"})
		noted := r
		noted.Name, noted.Password = "not this", "nor this"
		noted.CheckedAt, noted.CheckError, noted.AwaySince, noted.StoredBytes, noted.ImageCount, noted.FreeBytes = c.now(), "away", c.now(), 1, 2, 3
		noted.SheetAt, noted.SheetLapsedAt = c.now(), c.now().Add(time.Second)
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.SaveRepositoryNotes(ctx, noted) })
		got := read(t, db, func(ctx context.Context, tx backup.Tx) (backup.RepositoryRecord, error) {
			return tx.Repository(ctx, r.ID)
		})
		noted.Name, noted.Password = r.Name, r.Password
		same(t, "repository", got, noted)

		got.NextPassword = "" // a change that is over
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.UpdateRepository(ctx, &got) })
		over := read(t, db, func(ctx context.Context, tx backup.Tx) (backup.RepositoryRecord, error) {
			return tx.Repository(ctx, r.ID)
		})
		same(t, "repository", over, got)
	})
}

func TestARepositoryIsForgottenWhenNothingNeedsIt(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		r, other := insertRepository(t, db, backup.RepositoryRecord{Name: "r", Kind: "filesystem"}), insertRepository(t, db, backup.RepositoryRecord{Name: "other", Kind: "filesystem"})
		insertImages(t, db, c.now(), backup.Image{ID: "1", RepositoryID: r.ID}, backup.Image{ID: "2", RepositoryID: other.ID})
		var s backup.Schedule
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			s = backup.Schedule{Name: "nightly", RepositoryID: r.ID}
			if err := tx.InsertSchedule(ctx, &s, nil); err != nil {
				return err
			}
			for _, j := range []backup.Job{
				{ID: "j1", Kind: backup.KindCollect, Needs: []string{"repository:r"}}, {ID: "j2", Kind: backup.KindRestore, ImageID: "1"},
				{ID: "j3", Kind: backup.KindCollect, Needs: []string{"repository:other"}}, {ID: "j4", Kind: backup.KindDelete, ImageID: "1", State: backup.JobFailed, Needs: []string{"repository:r"}},
			} {
				if err := tx.InsertJob(ctx, j); err != nil {
					return err
				}
			}
			return tx.SaveUpkeep(ctx, backup.Upkeep{RepositoryID: r.ID, PlannedAt: c.now()})
		})
		forget := func() error {
			return tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteRepository(ctx, r.ID) })
		}
		wantError(t, forget(), backup.InUse, `schedule "nightly" and by jobs "collect j1", "restore j2" and by image "1"`)
		if n := read(t, db, func(ctx context.Context, tx backup.Tx) (int, error) { return tx.CountJobsNeeding(ctx, "repository:r") }); n != 1 {
			t.Errorf("CountJobsNeeding() = %d, want the one that is not over", n)
		}
		r.Name = "renamed" // the jobs that wait go with it
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.UpdateRepository(ctx, &r) })
		if n := read(t, db, func(ctx context.Context, tx backup.Tx) (int, error) {
			return tx.CountJobsNeeding(ctx, "repository:renamed")
		}); n != 1 {
			t.Errorf("after a change of name CountJobsNeeding() = %d, want the same job", n)
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			for _, j := range []string{"j1", "j2"} {
				if _, err := tx.CancelJob(ctx, j); err != nil {
					return err
				}
			}
			if err := tx.UpdateImage(ctx, backup.Image{ID: "1", RepositoryID: r.ID, Status: backup.ImageExpired}); err != nil {
				return err
			}
			return tx.DeleteSchedule(ctx, s.ID)
		})
		if err := forget(); err != nil {
			t.Fatal(err)
		}
		wantError(t, forget(), backup.NotFound)
		left := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Image, error) {
			all, _, err := tx.Images(ctx, backup.ImageFilter{})
			return all, err
		})
		if len(left) != 1 || left[0].ID != "2" {
			t.Errorf("images left are %v, want those of the other repository", left)
		}
		if u := read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Upkeep, error) { return tx.Upkeep(ctx, r.ID) }); !u.PlannedAt.IsZero() {
			t.Errorf("upkeep left is %+v", u)
		}
	})
}
