package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

// TestHoldsAreKeptBesideTheirImage: the image says until when they keep it,
// whatever else of it is changed, and they go with it.
func TestHoldsAreKeptBesideTheirImage(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		ctx, now := t.Context(), c.now().UTC()
		image := backup.Image{ID: "i", Status: backup.ImageGood, StartedAt: now, ExpiresAt: now}
		short := backup.Hold{ID: "h1", ImageID: "i", Until: now.Add(time.Hour), Reason: "audit", CreatedBy: "anna", CreatedAt: now}
		forEver := backup.Hold{ID: "h2", ImageID: "i", CreatedBy: "bert", CreatedAt: now}
		check := func(tx backup.Tx, when string, want ...backup.Hold) {
			t.Helper()
			got, err := tx.ImageHolds(ctx, "i")
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s: ImageHolds() (-want +got): %s %v", when, diff, err)
			}
			i, err := tx.Image(ctx, "i")
			if until := backup.LatestHold(want); err != nil || !i.HeldUntil.Equal(until) {
				t.Errorf("%s: held until %s, want %s (%v)", when, i.HeldUntil, until, err)
			}
			ended, err := tx.EndedImages(ctx, now, backup.ImageEnd{}, 10)
			if err != nil || (len(ended) == 0) != (len(want) > 0) {
				t.Errorf("%s: EndedImages() = %d images, %v", when, len(ended), err)
			}
		}
		err := db.Update(ctx, func(tx backup.Tx) error {
			if err := tx.InsertImage(ctx, image); err != nil {
				return err
			}
			check(tx, "at first")
			for _, h := range []backup.Hold{short, forEver} {
				if err := tx.InsertHold(ctx, h); err != nil {
					return err
				}
			}
			check(tx, "held", short, forEver)
			if err := tx.InsertHold(ctx, short); backup.CodeOf(err) != backup.Conflict {
				t.Errorf("InsertHold() of a taken id = %v, want a conflict", err)
			}
			if got, err := tx.Hold(ctx, "h2"); err != nil || got != forEver {
				t.Errorf("Hold() = %+v, %v", got, err)
			}
			if err := tx.UpdateImage(ctx, image); err != nil { // it knows of no hold
				return err
			}
			check(tx, "changed", short, forEver)
			if err := tx.DeleteHold(ctx, forEver); err != nil {
				return err
			}
			check(tx, "one released", short)
			if ended, err := tx.EndedImages(ctx, short.Until, backup.ImageEnd{}, 10); err != nil || len(ended) != 1 {
				t.Errorf("EndedImages() when the hold is over = %d images, %v", len(ended), err)
			}
			if err := tx.DeleteImage(ctx, "i"); err != nil {
				return err
			}
			if _, err := tx.Hold(ctx, "h1"); backup.CodeOf(err) != backup.NotFound {
				t.Errorf("Hold() of an image that is gone = %v, want none", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
