package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

func usageBetween(t *testing.T, db *store.DB, from, to time.Time) []backup.UsageEntry {
	t.Helper()
	all := read(t, db, func(ctx context.Context, tx backup.Tx) (all []backup.UsageEntry, err error) {
		return all, tx.EachUsage(ctx, from, to, func(e backup.UsageEntry) error {
			all = append(all, e)
			return nil
		})
	})
	slices.SortFunc(all, func(a, b backup.UsageEntry) int { return a.Since.Compare(b.Since) })
	return all
}

func TestTheAccountOfUsageFollowsAnImageAndOutlivesIt(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		noon := c.now()
		i := backup.Image{ID: "i", VMID: "m", VMName: "n", ScheduleID: "s", GroupID: "g", RepositoryID: "r", Status: backup.ImageGood, StartedAt: noon.Add(-time.Minute),
			ExpiresAt: noon.Add(24 * time.Hour), Sizes: backup.Sizes{Provisioned: 1 << 50, Read: 2, Stored: 1}}
		want := backup.UsageEntry{ImageID: "i", VMID: "m", VMName: "n", ScheduleID: "s", GroupID: "g", RepositoryID: "r", Sizes: i.Sizes, Since: noon.Add(-time.Hour), Until: noon.Add(24 * time.Hour)}
		check := func(what string) {
			t.Helper()
			same(t, what, usageBetween(t, db, time.Time{}, noon.AddDate(9, 0, 0)), []backup.UsageEntry{want})
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertImage(ctx, i) })
		check("a new image")
		i.ExpiresAt = time.Time{}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.UpdateImage(ctx, i) })
		want.Until = time.Date(9999, 12, 31, 23, 0, 0, 0, time.UTC)
		check("one that never ends")
		i.ExpiresAt = noon.Add(2 * time.Hour)
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.UpdateImage(ctx, i) })
		c.pass(5 * time.Hour)
		i.ExpiresAt = noon.Add(9 * time.Hour)
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.UpdateImage(ctx, i) })
		want.Gaps, want.Until = []backup.HourSpan{{From: noon.Add(2 * time.Hour), To: noon.Add(5 * time.Hour)}}, noon.Add(9*time.Hour)
		check("one that was given more time after its date")
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.ForgetUsage(ctx, noon.AddDate(9, 0, 0)) })
		check("one that is still there when the account of its time is forgotten")
		c.pass(time.Minute)
		wantError(t, tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.DeleteImage(ctx, "i"), tx.DeleteImage(ctx, "nothing"))
		}), backup.NotFound, `"nothing"`)
		check("one whose deletion was rolled back")
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteImage(ctx, "i") })
		want.Until = noon.Add(6 * time.Hour)
		check("one that is deleted")
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return tx.ForgetUsage(ctx, want.Until.Add(-time.Millisecond))
		})
		check("before the account is forgotten")
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.ForgetUsage(ctx, want.Until) })
		same(t, "forgotten", usageBetween(t, db, time.Time{}, noon.AddDate(9, 0, 0)), []backup.UsageEntry{})
	})
}

func TestUsageIsReadForTheHoursThatAreAskedFor(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		day := c.now().Truncate(24 * time.Hour)
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			for n := range 10 {
				start := day.AddDate(0, 0, n)
				if err := tx.InsertImage(ctx, backup.Image{ID: fmt.Sprint(n), Status: backup.ImageGood, StartedAt: start, ExpiresAt: start.AddDate(0, 0, 2)}); err != nil {
					return err
				}
			}
			return tx.InsertImage(ctx, backup.Image{ID: "no start", Status: backup.ImageGood})
		})
		for name, c := range map[string]struct {
			from, to time.Time
			want     []string
		}{
			"one hour":          {day.AddDate(0, 0, 5), day.AddDate(0, 0, 5).Add(time.Hour), []string{"4", "5"}},
			"the hour before":   {day.AddDate(0, 0, 5).Add(-time.Hour), day.AddDate(0, 0, 5), []string{"3", "4"}},
			"before everything": {day.AddDate(0, 0, -5), day, nil},
			"the last one":      {day.AddDate(0, 0, 10), day.AddDate(1, 0, 0), []string{"9"}},
		} {
			got := ids(usageBetween(t, db, c.from, c.to), func(e backup.UsageEntry) string { return e.ImageID })
			same(t, name, got, c.want)
		}
		got := []int{}
		err := db.View(t.Context(), func(tx backup.Tx) error {
			return tx.EachUsage(t.Context(), day, day.AddDate(1, 0, 0), func(backup.UsageEntry) error {
				got = append(got, 1)
				return errors.New("enough")
			})
		})
		if err == nil || len(got) != 1 {
			t.Errorf("EachUsage() went on to %d entries, error %v; want it to end with the error of the first", len(got), err)
		}
	})
}
