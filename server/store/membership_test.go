package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

func TestTheMembersOfAGroupAndTheirChangesAreKeptAsLongAsItIs(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		g := backup.Group{Name: "g"}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertGroup(ctx, &g) })
		changes := func(n int, change backup.Membership) []backup.MemberChange {
			out := make([]backup.MemberChange, n)
			for i := range out {
				out[i] = backup.MemberChange{ID: backup.NewID(c.now()), GroupID: g.ID, VMID: fmt.Sprint("id-", i), VMName: fmt.Sprint("蔵", i), Change: change, Cause: "tag a:b", At: c.now()}
			}
			return out
		}
		save := func(l backup.MembersLook) {
			t.Helper()
			l.GroupID = g.ID
			update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.SaveMembers(ctx, l) })
		}
		seen := func() backup.MembersSeen {
			return read(t, db, func(ctx context.Context, tx backup.Tx) (backup.MembersSeen, error) { return tx.MembersSeen(ctx, g.ID) })
		}
		listed := func(f backup.MemberFilter) []backup.MemberChange {
			f.GroupID = g.ID
			return read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.MemberChange, error) {
				all, _, err := tx.MemberChanges(ctx, f)
				return all, err
			})
		}
		if s := seen(); s.Version != 0 || len(s.Names) != 0 {
			t.Errorf("before the first look the group has %+v", s)
		}
		first := c.now()
		save(backup.MembersLook{Version: 1, Silent: true, Joined: changes(1000, backup.MemberJoined)})
		if s := seen(); s.Version != 1 || len(s.Names) != 1000 || s.Names["id-7"] != "蔵7" || len(listed(backup.MemberFilter{})) != 0 {
			t.Errorf("after a silent look: version %d, %d members, %d changes", s.Version, len(s.Names), len(listed(backup.MemberFilter{})))
		}
		c.pass(time.Hour)
		left := changes(999, backup.MemberLeft)
		save(backup.MembersLook{Version: 2, Left: left})
		same(t, "those that stayed", seen(), backup.MembersSeen{Version: 2, Names: map[string]string{"id-999": "蔵999"}})
		if got := listed(backup.MemberFilter{Page: backup.Page{Limit: 1000}}); len(got) != 999 || got[0].Change != backup.MemberLeft || got[0].Cause != "tag a:b" || !got[0].At.Equal(c.now()) {
			t.Errorf("%d changes, want the 999 that left", len(got))
		}
		second := c.now()
		c.pass(time.Hour)
		save(backup.MembersLook{Version: 2, Joined: changes(1, backup.MemberJoined)})
		same(t, "changes after the first and up to the second, after the second, up to the first", []int{
			len(listed(backup.MemberFilter{After: first, UpTo: second, Page: backup.Page{Limit: 1000}})), len(listed(backup.MemberFilter{After: second})), len(listed(backup.MemberFilter{UpTo: first}))},
			[]int{999, 1, 0})
		save(backup.MembersLook{Version: 2, Forget: c.now()})
		if got := listed(backup.MemberFilter{}); len(got) != 1 {
			t.Errorf("%d changes are left, want the last", len(got))
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteGroup(ctx, g.ID) })
		if got := listed(backup.MemberFilter{}); len(got) != 0 {
			t.Errorf("the group is gone, its changes are not: %+v", got)
		}
		err := db.View(t.Context(), func(tx backup.Tx) error {
			_, err := tx.MembersSeen(t.Context(), g.ID)
			return err
		})
		wantError(t, err, backup.NotFound)
	})
}
