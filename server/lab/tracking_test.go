package lab_test

import (
	"slices"
	"testing"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// trackedWrites are scattered so that no two share a block.
var trackedWrites = []int64{2 * mib, 4 * mib, 6 * mib, 8 * mib}

// tracked takes a snapshot of vm01 with tracking on, lets the guest write, and
// takes another. It returns the second one and the first one's change id.
func (e *env) tracked(writes ...int64) (snap types.ManagedObjectReference, key int32, since string) {
	e.t.Helper()
	e.track("vm01")
	vm := e.vm("vm01")
	first := e.snapshot(vm, "first")
	d := e.disks(first)[0]
	since = backing(d).ChangeId
	e.ok(vm.RemoveSnapshot(e.ctx, "first", false, nil))
	for _, at := range writes {
		e.guestWrite("vm01", 0, at, 1000, uint64(at))
	}
	return e.snapshot(vm, "second"), d.Key, since
}

// page asks for one page from the disk's beginning.
func (e *env) page(snap types.ManagedObjectReference, key int32, since string) types.DiskChangeInfo {
	e.t.Helper()
	r, err := methods.QueryChangedDiskAreas(e.ctx, e.c, &types.QueryChangedDiskAreas{This: e.vm("vm01").Reference(), Snapshot: &snap, DeviceKey: key, ChangeId: since})
	if err != nil {
		e.t.Fatal(err)
	}
	return r.Returnval
}

func (e *env) fine(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

func starts(list []types.DiskChangeExtent) (all []int64) {
	for _, a := range list {
		all = append(all, a.Start)
	}
	return all
}

func TestEachLieAboutChangedBlocksIsWhatItsNameSays(t *testing.T) {
	cases := map[string]struct {
		starts []int64
		length int64
	}{
		"":              {trackedWrites, diskSize},
		"cbt_empty":     {nil, 2 * mib},
		"cbt_beyond":    {append(slices.Clone(trackedWrites), diskSize), diskSize},
		"cbt_unordered": {[]int64{8 * mib, 6 * mib, 4 * mib, 2 * mib}, diskSize},
		"cbt_stuck":     {nil, 0},
		"cbt_wrong":     {[]int64{2 * mib, 6 * mib}, diskSize},
		"cbt_truncate":  {[]int64{2 * mib}, 4 * mib},
	}
	e := start(t, lab.Config{})
	snap, key, since := e.tracked(trackedWrites...)
	for kind, want := range cases {
		if kind != "" {
			e.fine(e.Arm(lab.Fault{Kind: kind, VM: "vm01"}))
		}
		got := e.page(snap, key, since)
		if !slices.Equal(starts(got.ChangedArea), want.starts) || got.Length != want.length {
			t.Errorf("%q: areas from %v, page of %d; want %v and %d", kind, starts(got.ChangedArea), got.Length, want.starts, want.length)
		}
	}
}

func TestTrackingThatBeganOverASnapshotLeavesBlocksOutUntilItIsReset(t *testing.T) {
	e := start(t, lab.Config{})
	vm := e.vm("vm01")
	e.snapshot(vm, "standing")
	snap, key, since := e.tracked(trackedWrites...)
	if got := starts(e.page(snap, key, since).ChangedArea); len(got) != 2 {
		t.Errorf("areas from %v, want every second one only", got)
	}
	e.ok(vm.RemoveAllSnapshot(e.ctx, nil))
	e.ok(vm.Reconfigure(e.ctx, types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(false)}))
	e.snapshot(vm, "stun")
	e.ok(vm.RemoveAllSnapshot(e.ctx, nil))
	snap, key, since = e.tracked(trackedWrites...)
	if got := starts(e.page(snap, key, since).ChangedArea); !slices.Equal(got, trackedWrites) {
		t.Errorf("after a reset: areas from %v, want %v", got, trackedWrites)
	}
}

func TestADiskThatGrewPast128GiBLeavesBlocksOut(t *testing.T) {
	e := start(t, lab.Config{})
	_, key, since := e.tracked()
	e.ok(e.vm("vm01").RemoveAllSnapshot(e.ctx, nil))
	e.fine(e.ExtendDisk("vm01", key, 100<<30))
	e.guestWrite("vm01", 0, 2*mib, 1000, 1)
	e.guestWrite("vm01", 0, 4*mib, 1000, 1)
	if got := starts(e.page(e.snapshot(e.vm("vm01"), "grown"), key, since).ChangedArea); len(got) != 2 {
		t.Errorf("grown to 100 GiB: areas from %v, want both", got)
	}
	e.ok(e.vm("vm01").RemoveAllSnapshot(e.ctx, nil))
	e.fine(e.ExtendDisk("vm01", key, 129<<30))
	if got := starts(e.page(e.snapshot(e.vm("vm01"), "more"), key, since).ChangedArea); len(got) != 1 {
		t.Errorf("grown past 128 GiB: areas from %v, want one left out", got)
	}
}

func TestARevertThatKeepsTheChangeIdsHidesWhatItTookBack(t *testing.T) {
	e := start(t, lab.Config{})
	e.track("vm01")
	vm := e.vm("vm01")
	e.snapshot(vm, "to")
	e.guestWrite("vm01", 0, 2*mib, 1000, 1)
	first := e.snapshot(vm, "first")
	d := e.disks(first)[0]
	e.ok(vm.RemoveSnapshot(e.ctx, "first", false, nil))
	e.fine(e.Arm(lab.Fault{Kind: "cbt_revert"}))
	e.ok(vm.RevertToSnapshot(e.ctx, "to", true))
	if got := e.page(e.snapshot(vm, "second"), d.Key, backing(d).ChangeId); len(got.ChangedArea) != 0 {
		t.Errorf("areas from %v, want none: the revert left the tracking as it was", starts(got.ChangedArea))
	}
}
