package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

// insert puts images into the catalogue that were made one hour after the other.
func insertImages(t *testing.T, db *store.DB, from time.Time, all ...backup.Image) {
	t.Helper()
	update(t, db, func(ctx context.Context, tx backup.Tx) error {
		for _, i := range all {
			if i.PointInTime.IsZero() {
				i.PointInTime = from
			}
			i.StartedAt, i.EndedAt = i.PointInTime, i.PointInTime
			if i.Status == "" {
				i.Status = backup.ImageGood
			}
			if err := tx.InsertImage(ctx, i); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestACopyIsListedWhereItsOriginalIsNot(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		insertImages(t, db, c.now(), backup.Image{ID: "1", RepositoryID: "a"}, backup.Image{ID: "1-copy", CopyOf: "1", RepositoryID: "b"},
			backup.Image{ID: "2", RepositoryID: "a", Status: backup.ImageExpired}, backup.Image{ID: "2-copy", CopyOf: "2", RepositoryID: "b"},
			backup.Image{ID: "3-copy", CopyOf: "3", RepositoryID: "b"})
		for choice, want := range map[backup.CopyChoice]string{
			backup.CopiesAll: "[3-copy 2-copy 2 1-copy 1]", backup.CopiesNone: "[2 1]", backup.CopiesAlone: "[3-copy 2-copy 2 1]",
		} {
			var got []string
			f := backup.ImageFilter{Copies: choice, Page: backup.Page{Limit: 2}}
			for more := true; more; more = f.Cursor != "" {
				view(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
					var page []backup.Image
					page, f.Cursor, err = tx.Images(ctx, f)
					got = append(got, ids(page, func(i backup.Image) string { return i.ID })...)
					return err
				})
			}
			same(t, fmt.Sprint("images, choice ", choice), fmt.Sprint(got), want)
		}
		if i := read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Image, error) { return tx.Image(ctx, "3-copy") }); i.CopyOf != "3" {
			t.Errorf("copy of %q, want of 3", i.CopyOf)
		}
	})
}

func TestCopiesAndTheJobsThatMakeThemAreFoundByTheirImage(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		at := c.now().UTC()
		insertImages(t, db, at, backup.Image{ID: "1", RepositoryID: "a"}, backup.Image{ID: "2", RepositoryID: "a"},
			backup.Image{ID: "good", CopyOf: "1", RepositoryID: "b", ExpiresAt: at.Add(time.Hour), LockedUntil: at, JobID: "made", Message: "m"},
			backup.Image{ID: "ended", CopyOf: "1", RepositoryID: "c", Status: backup.ImageExpired})
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			for n, j := range []backup.Job{
				{ID: "made", Kind: backup.KindCopy, ImageID: "1", State: backup.JobSucceeded},
				{ID: "broken", Kind: backup.KindCopy, ImageID: "1", State: backup.JobFailed, Error: "It broke."},
				{ID: "next", Kind: backup.KindCopy, ImageID: "1", State: backup.JobQueued},
				{ID: "now", Kind: backup.KindCopy, ImageID: "2", State: backup.JobRunning},
				{ID: "else", Kind: backup.KindVerify, ImageID: "1", State: backup.JobQueued},
			} {
				j.Spec, _ = json.Marshal(backup.CopySpec{RepositoryID: "d", ExpiresAt: at.Add(2 * time.Hour), Lock: true})
				j.CreatedAt = at.Add(time.Duration(n) * time.Minute)
				if err := tx.InsertJob(ctx, j); err != nil {
					return err
				}
			}
			return nil
		})
		asked := backup.CopySpec{RepositoryID: "d", ExpiresAt: at.Add(2 * time.Hour), Lock: true}
		want := []backup.Copy{
			{OriginalID: "1", ID: "good", RepositoryID: "b", Status: backup.CopyGood, ExpiresAt: at.Add(time.Hour), LockedUntil: at, CopiedAt: at, JobID: "made", Message: "m"},
			{OriginalID: "1", RepositoryID: "d", Status: backup.CopyFailed, ExpiresAt: asked.ExpiresAt, JobID: "broken", Message: "It broke.", Asked: asked},
			{OriginalID: "1", RepositoryID: "d", Status: backup.CopyWaiting, ExpiresAt: asked.ExpiresAt, JobID: "next", Asked: asked},
			{OriginalID: "2", RepositoryID: "d", Status: backup.CopyCopying, ExpiresAt: asked.ExpiresAt, JobID: "now", Asked: asked},
		}
		same(t, "copies", read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Copy, error) {
			return tx.Copies(ctx, []string{"2", "1", "none"})
		}), want)
	})
}

func TestANewerCopyIsOneOfTheSameRepository(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		at := c.now()
		image := func(id, of, repository string, hours int) backup.Image {
			return backup.Image{ID: id, VMID: "m", CopyOf: of, RepositoryID: repository, PointInTime: at.Add(time.Duration(hours) * time.Hour)}
		}
		insertImages(t, db, at, image("1", "", "a", 1), image("1b", "1", "b", 1), image("1c", "1", "c", 1), image("2", "", "a", 2), image("2b", "2", "b", 2), image("0d", "0", "a", 0))
		for id, want := range map[string]bool{"1": true, "2": false, "1b": true, "2b": false, "1c": false, "0d": true} {
			got := read(t, db, func(ctx context.Context, tx backup.Tx) (bool, error) {
				i, err := tx.Image(ctx, id)
				if err != nil {
					return false, err
				}
				return tx.HasNewerImage(ctx, i, false)
			})
			if got != want {
				t.Errorf("HasNewerImage(%s) = %t, want %t", id, got, want)
			}
		}
	})
}
