package store_test

import (
	"context"
	"errors"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

func TestAVMThatIsReboundKeepsItsIDAndTakesOverWhatTheOtherHad(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		a, b, g := backup.VCenter{Name: "a"}, backup.VCenter{Name: "b"}, backup.Group{Name: "g"}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.InsertVCenter(ctx, &a), tx.InsertVCenter(ctx, &b), tx.InsertGroup(ctx, &g))
		})
		vms := []backup.VirtualMachine{{VCenterID: a.ID, InstanceUUID: "1", MOID: "vm-1", Name: "old"}, {VCenterID: b.ID, InstanceUUID: "1", MOID: "vm-9", Name: "new", Host: "esx"}}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.SaveMachines(ctx, vms) })
		old, other := vms[0].ID, vms[1].ID
		s := backup.Schedule{Name: "s", VMID: other}
		image := func(id, vm, vcenter string, status backup.ImageStatus) backup.Image {
			return backup.Image{ID: id, VCenterID: vcenter, VMID: vm, Status: status, StartedAt: c.now(), PointInTime: c.now()}
		}
		member := func(vm string) backup.MemberChange {
			return backup.MemberChange{ID: backup.NewID(c.now()), GroupID: g.ID, VMID: vm, VMName: vm, Change: backup.MemberJoined, At: c.now()}
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.InsertSchedule(ctx, &s, nil), tx.InsertImage(ctx, image("i1", old, a.ID, backup.ImageGood)), tx.InsertImage(ctx, image("i2", old, a.ID, backup.ImageExpired)),
				tx.InsertImage(ctx, image("i3", other, b.ID, backup.ImageGood)), tx.InsertJob(ctx, backup.Job{ID: "j", Kind: backup.KindBackup, State: backup.JobSucceeded, VCenterID: b.ID, VMID: other}),
				tx.SaveMembers(ctx, backup.MembersLook{GroupID: g.ID, Version: 1, Joined: []backup.MemberChange{member(old), member(other)}}))
		})
		counts := func(vcenter string) map[string]int {
			return read(t, db, func(ctx context.Context, tx backup.Tx) (map[string]int, error) { return tx.ImagesByVM(ctx, vcenter) })
		}
		same(t, "images before", counts(a.ID), map[string]int{old: 1})
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.RebindMachine(ctx, old, vms[1]) })
		same(t, "images after, of the old and the new", []map[string]int{counts(a.ID), counts(b.ID)}, []map[string]int{{}, {old: 2}})
		want := vms[1]
		want.ID = old
		same(t, "the VM", read(t, db, func(ctx context.Context, tx backup.Tx) (backup.VirtualMachine, error) { return tx.Machine(ctx, old) }), want)
		if err := db.View(t.Context(), func(tx backup.Tx) error { _, err := tx.Machine(t.Context(), other); return err }); backup.CodeOf(err) != backup.NotFound {
			t.Errorf("the other row: %v, want it gone", err)
		}
		if got := read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Schedule, error) { return tx.Schedule(ctx, s.ID) }); got.VMID != old {
			t.Errorf("the schedule is of %s, want %s", got.VMID, old)
		}
		if got := read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Job, error) { return tx.Job(ctx, "j") }); got.VMID != old {
			t.Errorf("the job is of %s, want %s", got.VMID, old)
		}
		if got := read(t, db, func(ctx context.Context, tx backup.Tx) (backup.MembersSeen, error) { return tx.MembersSeen(ctx, g.ID) }); len(got.Names) != 1 {
			t.Errorf("members = %v, want the VM once", got.Names)
		}
		wantError(t, tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error {
			return tx.RebindMachine(ctx, "nobody", backup.VirtualMachine{ID: "x", VCenterID: b.ID})
		}), backup.NotFound)
	})
}
