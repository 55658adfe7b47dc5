package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

func TestEndedImagesComeInTheOrderOfTheirEnd(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		ctx, now := t.Context(), c.now()
		var got []string
		err := db.Update(ctx, func(tx backup.Tx) error {
			got = nil
			for id, i := range map[string]backup.Image{
				"b": {ExpiresAt: now}, "a": {ExpiresAt: now}, "first": {ExpiresAt: now.Add(-time.Hour), Status: backup.ImageDamaged},
				"later": {ExpiresAt: now.Add(time.Millisecond)}, "never": {}, "expired": {ExpiresAt: now, Status: backup.ImageExpired},
				"locked": {ExpiresAt: now, LockedUntil: now.Add(time.Millisecond)}, "unlocked": {ExpiresAt: now, LockedUntil: now},
			} {
				i.ID = id
				if i.Status == "" {
					i.Status = backup.ImageGood
				}
				if err := tx.InsertImage(ctx, i); err != nil {
					return err
				}
			}
			for after := (backup.ImageEnd{}); ; {
				page, err := tx.EndedImages(ctx, now, after, 2)
				if err != nil || len(page) == 0 {
					return err
				}
				for _, i := range page {
					got, after = append(got, i.ID), backup.ImageEnd{At: i.ExpiresAt, ID: i.ID}
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"first", "a", "b", "unlocked"}; !slices.Equal(got, want) {
			t.Errorf("EndedImages() = %v, want %v", got, want)
		}
	})
}

func TestANewerImageCountsWhenItIsGoodEnough(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		ctx, at := t.Context(), c.now()
		image := func(id, vm string, after time.Duration, s backup.ImageStatus) backup.Image {
			return backup.Image{ID: id, VMID: vm, PointInTime: at.Add(after), Status: s}
		}
		all := []backup.Image{image("old", "m", 0, backup.ImageGood), image("partial", "m", time.Hour, backup.ImagePartial),
			image("broken", "m", 2*time.Hour, backup.ImageDamaged), image("gone", "m", 3*time.Hour, backup.ImageExpired), image("other", "n", 4*time.Hour, backup.ImageGood)}
		for name, want := range map[string]struct{ good, partial bool }{"old": {false, true}, "partial": {}, "broken": {}, "other": {}} {
			err := db.Update(ctx, func(tx backup.Tx) error {
				for _, i := range all {
					if _, err := tx.Image(ctx, i.ID); err == nil {
						break
					}
					if err := tx.InsertImage(ctx, i); err != nil {
						return err
					}
				}
				i, err := tx.Image(ctx, name)
				if err != nil {
					return err
				}
				good, err := tx.HasNewerImage(ctx, i, false)
				if err != nil {
					return err
				}
				partial, err := tx.HasNewerImage(ctx, i, true)
				if good != want.good || partial != want.partial {
					t.Errorf("%s: HasNewerImage() = %v, or partial %v; want %v, %v", name, good, partial, want.good, want.partial)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestUpkeepAndTheClockAreKept(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		ctx, now := t.Context(), c.now()
		r := backup.RepositoryRecord{Name: "default", Kind: "filesystem", Password: "p"}
		want := backup.Upkeep{PlannedAt: now, CollectedAt: now.Add(time.Hour), VerifiedUpTo: now.Add(time.Minute), Collected: backup.Collected{Images: 3, Freed: 5, RestFrom: now.UTC()}}
		look := backup.ClockLook{SeenAt: now, TrustedAt: now.Add(-time.Hour), HeldUntil: now.Add(time.Hour)}
		err := db.Update(ctx, func(tx backup.Tx) error {
			if err := tx.InsertRepository(ctx, &r); err != nil {
				return err
			}
			want.RepositoryID = r.ID
			if u, err := tx.Upkeep(ctx, r.ID); err != nil || u.RepositoryID != r.ID || !u.PlannedAt.IsZero() {
				t.Errorf("Upkeep() before any = %+v, %v", u, err)
			}
			if l, err := tx.ClockLook(ctx); err != nil || !l.SeenAt.IsZero() {
				t.Errorf("ClockLook() before any = %+v, %v", l, err)
			}
			for range 2 { // inserted, then replaced
				if err := tx.SaveUpkeep(ctx, want); err != nil {
					return err
				}
				if err := tx.SaveClockLook(ctx, look); err != nil {
					return err
				}
				want.Collected.Images++
				look.HeldUntil = look.HeldUntil.Add(time.Hour)
			}
			want.Collected.Images--
			look.HeldUntil = look.HeldUntil.Add(-time.Hour)
			u, err := tx.Upkeep(ctx, r.ID)
			if err != nil {
				return err
			}
			l, err := tx.ClockLook(ctx)
			if diff := cmp.Diff([]any{want, look}, []any{u, l}); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestImagesUnreadForLongestComeFirst(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		ctx, now := t.Context(), c.now()
		err := db.Update(ctx, func(tx backup.Tx) error {
			for id, i := range map[string]backup.Image{
				"read": {EndedAt: now, VerifiedAt: now.Add(5 * time.Hour)}, "new": {EndedAt: now.Add(3 * time.Hour)}, "old": {EndedAt: now, Status: backup.ImagePartial},
				"elsewhere": {RepositoryID: "q"}, "damaged": {Status: backup.ImageDamaged}, "expired": {Status: backup.ImageExpired},
			} {
				i.ID = id
				if i.Status == "" {
					i.Status = backup.ImageGood
				}
				if i.RepositoryID == "" {
					i.RepositoryID = "r"
				}
				if err := tx.InsertImage(ctx, i); err != nil {
					return err
				}
			}
			ids, all, err := tx.LongestUnread(ctx, "r", 2)
			if want := []string{"old", "new"}; !slices.Equal(ids, want) || all != 3 {
				t.Errorf("LongestUnread() = %v of %d, want %v of 3", ids, all, want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
