package lab_test

import (
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// areas pages through QueryChangedDiskAreas as a backup does.
func (e *env) areas(vm, snap types.ManagedObjectReference, key int32, changeID string) (list []types.DiskChangeExtent, calls int, err error) {
	for off := int64(0); off < diskSize; calls++ {
		r, err := methods.QueryChangedDiskAreas(e.ctx, e.c, &types.QueryChangedDiskAreas{This: vm, Snapshot: &snap, DeviceKey: key, StartOffset: off, ChangeId: changeID})
		if err != nil {
			return nil, calls, err
		}
		list = append(list, r.Returnval.ChangedArea...)
		off = r.Returnval.StartOffset + r.Returnval.Length
	}
	return list, calls, nil
}

func (e *env) track(vm string) {
	e.t.Helper()
	e.ok(e.vm(vm).Reconfigure(e.ctx, types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(true)}))
}

// seed:N6 the image is that of the disks at the job's start.
func TestASnapshotKeepsItsInstantWhileTheGuestWrites(t *testing.T) {
	e := start(t, lab.Config{})
	stop, err := e.KeepWriting("vm02", time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	vm := e.vm("vm02")
	s := e.snapshot(vm, "instant")
	first, err := e.export(vm, s)
	if err != nil {
		t.Fatal(err)
	}
	second, err := e.export(vm, s)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if len(first) != 2 || sha(first[0]) != sha(second[0]) || sha(first[1]) != sha(second[1]) {
		t.Error("two exports of one snapshot differ")
	}
	e.guestWrite("vm02", 0, 0, mib, 3)
	if sha(first[0]) == e.sum("vm02", 0) {
		t.Error("the guest's writes went nowhere")
	}
	e.ok(vm.RemoveSnapshot(e.ctx, "instant", false, types.NewBool(true)))
	if got := e.disks(vm)[0]; backing(got).Parent != nil {
		t.Errorf("after the removal the VM runs on %s", backing(got).FileName)
	}
}

func TestExportEqualsTheGuestsDiskAtTheSnapshot(t *testing.T) {
	e := start(t, lab.Config{})
	vm := e.vm("vm02")
	keys := e.disks(vm)
	want := []string{e.sum("vm02", keys[0].Key), e.sum("vm02", keys[1].Key)}
	s := e.snapshot(vm, "s")
	e.guestWrite("vm02", keys[0].Key, 5*mib, 3*mib, 1)
	got, err := e.export(vm, s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if sha(got[i]) != want[i] {
			t.Errorf("disk %d: the export differs from what the guest had", keys[i].Key)
		}
	}
}

func TestDeltasChainMergeAndKeepTheBytes(t *testing.T) {
	e := start(t, lab.Config{})
	vm := e.vm("vm01")
	names := []string{"a", "b", "c"}
	var states []string
	for i, n := range names {
		states = append(states, e.sum("vm01", 0))
		e.snapshot(vm, n)
		e.guestWrite("vm01", 0, int64(i)*2*mib+777, mib, uint64(i))
	}
	now := e.sum("vm01", 0)
	var depth int
	for b := backing(e.disks(vm)[0]); b != nil; b = b.Parent {
		depth++
	}
	if depth != 4 || !strings.Contains(backing(e.disks(vm)[0]).FileName, "-000003.vmdk") {
		t.Errorf("the chain is %d deep and ends in %s", depth, backing(e.disks(vm)[0]).FileName)
	}
	e.ok(vm.RemoveSnapshot(e.ctx, "b", false, nil))
	if got := e.sum("vm01", 0); got != now {
		t.Error("the removal of a snapshot changed the disk")
	}
	s, err := vm.FindSnapshot(e.ctx, "c")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.export(vm, *s); err != nil || sha(got[0]) != states[2] {
		t.Errorf("snapshot c changed with the removal of b (%v)", err)
	}
	e.ok(vm.RemoveAllSnapshot(e.ctx, nil))
	if got := e.sum("vm01", 0); got != now || backing(e.disks(vm)[0]).Parent != nil {
		t.Error("the removal of all snapshots changed the disk or left a delta")
	}
	if list, _ := e.Snapshots("vm01"); len(list) != 0 {
		t.Errorf("snapshots %v are left", list)
	}
}

func TestRevertBringsBackTheDiskAndResetsTracking(t *testing.T) {
	e := start(t, lab.Config{})
	e.track("vm01")
	vm := e.vm("vm01")
	want := e.sum("vm01", 0)
	s := e.snapshot(vm, "r")
	id := backing(e.disks(s)[0]).ChangeId
	e.guestWrite("vm01", 0, 0, 4*mib, 9)
	e.ok(vm.RevertToSnapshot(e.ctx, "r", true))
	if got := e.sum("vm01", 0); got != want {
		t.Error("after the revert the disk is not what it was")
	}
	s2 := e.snapshot(vm, "r2")
	if _, _, err := e.areas(vm.Reference(), s2, e.disks(s2)[0].Key, id); !fault.Is(err, &types.FileFault{}) {
		t.Errorf("a change id from before the revert: %v, want FileFault", err)
	}
}

// seed:W6 seed:W7 changed block tracking, and its loss.
func TestChangedAreasAreWhatTheGuestWrote(t *testing.T) {
	e := start(t, lab.Config{MaxAreas: 2})
	vm := e.vm("vm01")
	before := e.snapshot(vm, "untracked")
	if id := backing(e.disks(before)[0]).ChangeId; id != "" {
		t.Errorf("change id %q without tracking", id)
	}
	e.ok(vm.RemoveSnapshot(e.ctx, "untracked", false, nil))
	e.track("vm01")
	s1 := e.snapshot(vm, "one")
	d := e.disks(s1)[0]
	id := backing(d).ChangeId
	if id == "" {
		t.Fatal("no change id: tracking did not begin at the snapshot's stun")
	}
	img := e.read("vm01", 0)
	all, calls, err := e.areas(vm.Reference(), s1, d.Key, "*")
	if err != nil || len(all) < 3 || calls < 2 {
		t.Fatalf("allocated areas: %d in %d calls, %v", len(all), calls, err)
	}
	for _, at := range []int64{0, 3*mib + 100, 6 * mib, 9 * mib, 15 * mib} {
		e.guestWrite("vm01", 0, at, 70_000, uint64(at))
	}
	e.ok(vm.RemoveSnapshot(e.ctx, "one", false, nil))
	want := e.read("vm01", 0)
	s2 := e.snapshot(vm, "two")
	e.guestWrite("vm01", 0, 12*mib, mib, 5) // after the snapshot: none of its business
	changed, _, err := e.areas(vm.Reference(), s2, d.Key, id)
	if err != nil {
		t.Fatal(err)
	}
	exported, err := e.export(vm, s2)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, a := range changed {
		copy(img[a.Start:a.Start+a.Length], exported[0][a.Start:])
		sum += a.Length
	}
	if sha(img) != sha(want) || sum > mib {
		t.Errorf("the old image plus %d changed bytes is not the new disk", sum)
	}
	if err := e.ResetChanges("vm01"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.areas(vm.Reference(), s2, d.Key, id); !fault.Is(err, &types.FileFault{}) {
		t.Errorf("a change id after a reset: %v, want FileFault", err)
	}
	if _, err := methods.QueryChangedDiskAreas(e.ctx, e.c, &types.QueryChangedDiskAreas{This: vm.Reference(), Snapshot: &s2, DeviceKey: d.Key, StartOffset: diskSize, ChangeId: "*"}); !fault.Is(err, &types.InvalidArgument{}) {
		t.Errorf("areas from the disk's end: %v, want InvalidArgument", err)
	}
}

func TestLeftOverDeltasAreConsolidated(t *testing.T) {
	e := start(t, lab.Config{})
	vm := e.vm("vm01")
	e.snapshot(vm, "s")
	e.guestWrite("vm01", 0, mib, mib, 4)
	want := e.sum("vm01", 0)
	if err := e.Arm(lab.Fault{Kind: "consolidation_needed", VM: "vm01"}); err != nil {
		t.Fatal(err)
	}
	e.ok(vm.RemoveSnapshot(e.ctx, "s", false, types.NewBool(true)))
	needed := func() bool {
		var v mo.VirtualMachine
		if err := vm.Properties(e.ctx, vm.Reference(), []string{"runtime.consolidationNeeded"}, &v); err != nil {
			t.Fatal(err)
		}
		return v.Runtime.ConsolidationNeeded
	}
	if !needed() || backing(e.disks(vm)[0]).Parent == nil {
		t.Error("nothing was left behind")
	}
	if err := e.Arm(lab.Fault{Kind: "consolidate_fail"}); err != nil {
		t.Fatal(err)
	}
	if err := e.consolidate(vm); !fault.Is(err, &types.FileLocked{}) {
		t.Errorf("consolidation with a locked file: %v, want FileLocked", err)
	}
	if err := e.consolidate(vm); err != nil {
		t.Fatal(err)
	}
	if needed() || backing(e.disks(vm)[0]).Parent != nil || e.sum("vm01", 0) != want {
		t.Error("consolidation left a delta or changed the disk")
	}
}

func TestAProxysRedoLogHoldsTheSnapshotsFile(t *testing.T) {
	e := start(t, lab.Config{})
	vm, proxy := e.vm("vm01"), e.vm("vm03")
	want := e.sum("vm01", 0)
	s := e.snapshot(vm, "h")
	e.guestWrite("vm01", 0, 0, mib, 1)
	devices, err := proxy.Device(e.ctx)
	if err != nil {
		t.Fatal(err)
	}
	controller, err := devices.FindDiskController("")
	if err != nil {
		t.Fatal(err)
	}
	ds, err := e.f.Datastore(e.ctx, "LocalDS_1")
	if err != nil {
		t.Fatal(err)
	}
	d := devices.ChildDisk(devices.CreateDisk(controller, ds.Reference(), backing(e.disks(s)[0]).FileName))
	backing(d).DiskMode = string(types.VirtualDiskModeIndependent_nonpersistent)
	if err := proxy.AddDevice(e.ctx, d); err != nil {
		t.Fatal(err)
	}
	list := e.disks(proxy)
	hot := list[len(list)-1]
	if got := e.sum("vm03", hot.Key); got != want {
		t.Error("the proxy does not see the snapshot's disk")
	}
	e.ok(vm.RemoveSnapshot(e.ctx, "h", false, nil))
	var v mo.VirtualMachine
	if err := vm.Properties(e.ctx, vm.Reference(), []string{"runtime.consolidationNeeded"}, &v); err != nil {
		t.Fatal(err)
	}
	if !v.Runtime.ConsolidationNeeded {
		t.Error("the snapshot went from under a proxy without a trace")
	}
	now := e.sum("vm01", 0)
	if err := e.consolidate(vm); !fault.Is(err, &types.FileLocked{}) {
		t.Errorf("consolidation while the proxy holds the file: %v, want FileLocked", err)
	}
	if err := proxy.RemoveDevice(e.ctx, false, hot); err != nil {
		t.Fatal(err)
	}
	if err := e.consolidate(vm); err != nil {
		t.Fatal(err)
	}
	if e.sum("vm01", 0) != now || backing(e.disks(vm)[0]).Parent != nil {
		t.Error("consolidation changed the disk or left a delta")
	}
}
