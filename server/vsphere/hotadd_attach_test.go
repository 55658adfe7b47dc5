package vsphere_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

func TestADiskThatCannotBeAttachedLeavesNothingBehind(t *testing.T) {
	r := withProxy(t, small())
	own, _ := r.proxyState()
	snap := r.snapshot("vm01", "j1")
	r.ok(r.lab.Arm(lab.Fault{Kind: "hotadd_fail", Count: -1}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := r.session.ReadDisks(ctx, snap, backup.ReadDraft{Keys: []int32{snap.Disks[0].Key}, Transport: backup.TransportHotAdd, Areas: true})
	if err == nil {
		t.Fatal("a disk that could not be attached was opened")
	}
	r.lab.ClearFaults()
	r.wantBare(own)
}

func TestADeviceThatComesLateIsWaitedForAndOneThatNeverComesIsNot(t *testing.T) {
	r := withProxy(t, small())
	own, _ := r.proxyState()
	snap := r.snapshot("vm01", "j1")
	r.ok(r.lab.Arm(lab.Fault{Kind: "device_slow", Count: 3}))
	src, err := r.open(snap, backup.TransportHotAdd)
	r.ok(err)
	r.ok(src.Close(t.Context()))
	r.ok(r.lab.Arm(lab.Fault{Kind: "device_missing", Count: -1}))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = r.session.ReadDisks(ctx, snap, backup.ReadDraft{Keys: []int32{snap.Disks[0].Key}, Transport: backup.TransportHotAdd})
	if e := wantCode(t, err, backup.Unavailable); !strings.Contains(e.Message, snap.Disks[0].Label) {
		t.Errorf("%s does not name the disk", e.Message)
	}
	r.wantBare(own)
}

func TestAReadThatFailsNamesDiskAndOffset(t *testing.T) {
	r := withProxy(t, small())
	snap := r.snapshot("vm01", "j1")
	src, err := r.open(snap, backup.TransportHotAdd)
	r.ok(err)
	defer func() { r.ok(src.Close(t.Context())) }()
	r.ok(r.lab.Arm(lab.Fault{Kind: "device_fail"}))
	d := snap.Disks[0]
	_, err = src.ReadAreas(t.Context(), d.Key, areas(backup.Extent{Off: 2 << 20, N: 4096}), &canvas{b: make([]byte, d.Capacity)})
	e := wantCode(t, err, backup.Unavailable)
	if !strings.Contains(e.Message, d.Label) || !strings.Contains(e.Message, "2097152") {
		t.Errorf("message = %s", e.Message)
	}
}

func TestWhatAKilledServerHadAttachedIsDetachedBeforeItsSnapshotGoes(t *testing.T) {
	r := withProxy(t, small())
	own, _ := r.proxyState()
	dead, alive := r.snapshot("vm02", "dead"), r.snapshot("vm01", "live")
	want := r.guestSum("vm02", dead.Disks[0].Key)
	for _, s := range []backup.Snapshot{dead, alive} {
		_, err := r.open(s, backup.TransportHotAdd) // never closed: the server is killed here
		r.ok(err)
	}
	s, err := connector(t, quick()).Connect(t.Context(), vcenter(r.lab)) // another server, in no VM
	r.ok(err)
	lines, err := s.Sweep(t.Context(), "inst", func(job string, _ int) bool { return job == "live" })
	r.ok(err)
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "disks of the VM "+dead.MOID) || !strings.HasPrefix(lines[1], "snapshot") {
		t.Errorf("swept %q", lines)
	}
	if disks, record := r.proxyState(); disks != own+len(alive.Disks) || strings.Contains(record, "dead") || !strings.Contains(record, "live") {
		t.Errorf("the proxy has %d disks, want %d, and remembers %q", disks, own+len(alive.Disks), record)
	}
	if got := r.vm("vm02").Snapshots; len(got) != 0 || r.guestSum("vm02", dead.Disks[0].Key) != want {
		t.Errorf("snapshots %v are left, or the disk has changed", got)
	}
	if vm, err := s.Machine(t.Context(), dead.MOID); err != nil || vm.ConsolidationNeeded {
		t.Errorf("consolidation needed: %v, %v", vm.ConsolidationNeeded, err)
	}
}

func TestRemovingASnapshotDetachesItsDisksFirst(t *testing.T) {
	r := withProxy(t, small())
	own, _ := r.proxyState()
	snap := r.snapshot("vm01", "j1")
	_, err := r.open(snap, backup.TransportHotAdd) // never closed
	r.ok(err)
	r.ok(r.session.RemoveSnapshot(t.Context(), snap.MOID, snap.Name))
	r.wantBare(own)
	if vm, err := r.session.Machine(t.Context(), snap.MOID); err != nil || vm.ConsolidationNeeded {
		t.Errorf("consolidation needed: %v, %v", vm.ConsolidationNeeded, err)
	}
}

func TestAServerElsewhereRemovesTheSnapshotOfOneThatDiedWhileItRead(t *testing.T) {
	r := withProxy(t, small())
	own, _ := r.proxyState()
	for _, where := range []string{"in another VM", "in the same VM, started anew"} {
		snap := r.snapshot("vm02", "j1")
		_, err := r.open(snap, backup.TransportHotAdd) // never closed
		r.ok(err)
		c := quick()
		if where != "in another VM" {
			r.tune(&c)
		}
		s, err := connector(t, c).Connect(t.Context(), vcenter(r.lab)) // it has not swept yet
		r.ok(err)
		r.ok(s.RemoveSnapshot(t.Context(), snap.MOID, snap.Name))
		r.wantBare(own)
		if vm, err := s.Machine(t.Context(), snap.MOID); err != nil || vm.ConsolidationNeeded || len(vm.SnapshotNames) > 0 {
			t.Errorf("%s: consolidation needed: %v, snapshots %v, %v", where, vm.ConsolidationNeeded, vm.SnapshotNames, err)
		}
	}
}

func TestADiskThatIsAttachedForAnotherJobIsWorthAnotherTry(t *testing.T) {
	r := withProxy(t, small())
	first, second := r.snapshot("vm01", "j1"), r.snapshot("vm01", "j2")
	src, err := r.open(first, backup.TransportHotAdd)
	r.ok(err)
	_, err = r.open(second, backup.TransportHotAdd)
	wantCode(t, err, backup.VMBusy)
	r.ok(src.Close(t.Context()))
	src, err = r.open(second, backup.TransportHotAdd)
	r.ok(err)
	r.ok(src.Close(t.Context()))
}

func TestASweepLeavesWhatOthersAttachedToTheProxy(t *testing.T) {
	r := withProxy(t, small())
	own, _ := r.proxyState()
	snap := r.snapshot("vm02", "dead")
	src, err := r.session.ReadDisks(t.Context(), snap, backup.ReadDraft{Keys: []int32{snap.Disks[0].Key}, Transport: backup.TransportHotAdd})
	r.ok(err)
	_ = src // never closed
	other := r.snapshot("vm04", "byhand")
	r.attach(proxyVM, r.snapshotFile(other))
	_, err = r.session.Sweep(t.Context(), "inst", func(job string, _ int) bool { return job == "byhand" })
	r.ok(err)
	if disks, record := r.proxyState(); disks != own+1 || record != "" {
		t.Errorf("the proxy has %d disks, want its own %d and the one of somebody else; record %q", disks, own, record)
	}
}

// snapshotFile is the file of a snapshot's first disk.
func (r *rig) snapshotFile(snap backup.Snapshot) string {
	r.Helper()
	c, err := govmomi.NewClient(r.Context(), r.lab.URL(), true)
	r.ok(err)
	defer func() { _ = c.Logout(context.WithoutCancel(r.Context())) }()
	var held mo.VirtualMachineSnapshot
	ref := types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: snap.Ref}
	r.ok(property.DefaultCollector(c.Client).RetrieveOne(r.Context(), ref, []string{"config.hardware.device"}, &held))
	for _, d := range held.Config.Hardware.Device {
		if disk, ok := d.(*types.VirtualDisk); ok {
			return disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo).FileName
		}
	}
	r.Fatal("the snapshot has no disk")
	return ""
}

// attach is somebody who attaches a file to a VM.
func (r *rig) attach(vm, file string) {
	r.Helper()
	r.change(vm, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{
		Operation: types.VirtualDeviceConfigSpecOperationAdd,
		Device: &types.VirtualDisk{VirtualDevice: types.VirtualDevice{
			Key: -1, ControllerKey: 1000, UnitNumber: types.NewInt32(12),
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: file}, DiskMode: "independent_nonpersistent",
			},
		}},
	}}})
}

func TestMoreDisksThanAControllerHoldsGetAnotherOne(t *testing.T) {
	c := small()
	c.VMs = 3
	r := withProxy(t, c)
	own, _ := r.proxyState()
	sizes := slices.Repeat([]int64{1 << 20}, 15)
	vm, err := r.lab.AddVM(t.Context(), lab.VMSpec{Name: "many", Disks: sizes})
	r.ok(err)
	snap := r.snapshot(vm.Name, "j1")
	src, err := r.open(snap, backup.TransportHotAdd)
	r.ok(err)
	for _, d := range snap.Disks {
		b := &canvas{b: make([]byte, d.Capacity)}
		_, err := src.ReadDisk(t.Context(), d.Key, b)
		r.ok(err)
		if sum(b.b) != r.guestSum(vm.Name, d.Key) {
			t.Errorf("%s differs", d.Label)
		}
	}
	r.ok(src.Close(t.Context()))
	r.wantBare(own)
}

func TestTwoJobsAttachTheirDisksAtTheSameTime(t *testing.T) {
	r := withProxy(t, small())
	own, _ := r.proxyState()
	errs := make(chan error, 3)
	for _, vm := range []string{"vm01", "vm02", "vm04"} {
		snap := r.snapshot(vm, "j-"+vm)
		go func() {
			src, err := r.open(snap, backup.TransportHotAdd)
			if err == nil {
				d := snap.Disks[0]
				b := &canvas{b: make([]byte, d.Capacity)}
				_, err = src.ReadDisk(t.Context(), d.Key, b)
				err = errors.Join(err, src.Close(t.Context()))
				if want, _ := r.lab.DiskSHA256(t.Context(), vm, d.Key); err == nil && sum(b.b) != want {
					err = errors.New(vm + " differs")
				}
			}
			errs <- err
		}()
	}
	for range 3 {
		r.ok(<-errs)
	}
	r.wantBare(own)
}

func TestTheDoctorSeesDisksOfOthersOnAVM(t *testing.T) {
	r := withProxy(t, small())
	src, err := r.open(r.snapshot("vm02", "j1"), backup.TransportHotAdd)
	r.ok(err)
	for _, want := range []int{len(r.vm("vm02").Disks), 0} {
		for _, vm := range r.connector.Survey(t.Context(), vcenter(r.lab)).VMs {
			if own := vm.Name == proxyVM; vm.Attached != want && own || vm.Attached != 0 && !own {
				t.Errorf("%s has %d disks of others", vm.Name, vm.Attached)
			}
		}
		r.ok(src.Close(t.Context()))
	}
}
