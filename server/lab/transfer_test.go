package lab_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/vmdk"
)

func TestAnImportedVMHasTheBytesThatWereUploaded(t *testing.T) {
	e := start(t, lab.Config{})
	a, b := e.read("vm01", 0), e.read("vm02", 0)
	e.importVM("restored", "LocalDS_0", a, b)
	v, err := e.VM("restored")
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Disks) != 2 || v.Disks[0].Key != 2000 || v.Disks[1].Key != 2001 {
		t.Fatalf("disks %+v, want keys 2000 and 2001", v.Disks)
	}
	if e.sum("restored", 2000) != sha(a) || e.sum("restored", 2001) != sha(b) {
		t.Error("the imported disks are not what was uploaded")
	}
	if v.PowerState != "poweredOff" {
		t.Errorf("the imported VM is %s", v.PowerState)
	}
	e.ok(e.vm("restored").PowerOn(e.ctx))
}

func TestAnAbortedImportLeavesNoVM(t *testing.T) {
	e := start(t, lab.Config{})
	le, info := e.importLease(importSpec("half", "LocalDS_0", diskSize))
	if err := e.upload(info, e.read("vm01", 0)); err != nil {
		t.Fatal(err)
	}
	if err := le.Abort(e.ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := e.VM("half"); !errors.Is(err, lab.ErrNoVM) {
		t.Errorf("after the abort: %v, want no VM", err)
	}
	e.importVM("half", "LocalDS_0", e.read("vm01", 0)) // its name and its files are free again
}

func TestALeaseWithoutProgressTimesOut(t *testing.T) {
	e := start(t, lab.Config{LeaseTimeout: 300 * time.Millisecond})
	le, info := e.importLease(importSpec("slow", "LocalDS_0", diskSize))
	ctx, cancel := context.WithTimeout(e.ctx, 20*time.Second)
	defer cancel()
	err := property.Wait(ctx, property.DefaultCollector(e.c.Client), le.Reference(), []string{"state"}, func(list []types.PropertyChange) bool {
		return list[0].Val == types.HttpNfcLeaseStateError
	})
	if err != nil {
		t.Fatalf("wait for the lease to die: %v", err)
	}
	if err := le.Progress(e.ctx, 1); !fault.Is(err, &types.Timedout{}) {
		t.Errorf("progress on a dead lease: %v, want Timedout", err)
	}
	if err := e.upload(info, make([]byte, diskSize)); err == nil {
		t.Error("a dead lease took an upload")
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, err := e.VM("slow"); errors.Is(err, lab.ErrNoVM) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the half VM of a dead lease stays")
		}
	}
}

func TestALeasedSnapshotCannotBeRemoved(t *testing.T) {
	e := start(t, lab.Config{})
	vm := e.vm("vm01")
	s := e.snapshot(vm, "s")
	le, err := vm.ExportSnapshot(e.ctx, &s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := le.Wait(e.ctx, nil); err != nil {
		t.Fatal(err)
	}
	task, err := vm.RemoveSnapshot(e.ctx, "s", false, nil)
	if _, err := wait(e.ctx, task, err); !fault.Is(err, &types.TaskInProgress{}) {
		t.Errorf("removal of a leased snapshot: %v, want TaskInProgress", err)
	}
	if err := le.Complete(e.ctx); err != nil {
		t.Fatal(err)
	}
	e.ok(vm.RemoveSnapshot(e.ctx, "s", false, nil))
}

func TestFaultsOfStreams(t *testing.T) {
	const diskSize = 2 * mib
	e := start(t, lab.Config{DiskSize: diskSize, Fill: 1})
	vm := e.vm("vm01")
	s := e.snapshot(vm, "s")
	want := e.sum("vm01", 0)
	for kind, check := range map[string]func(error) bool{
		"export_cut":     func(err error) bool { return errors.Is(err, vmdk.ErrTruncated) },
		"export_short":   func(err error) bool { return errors.Is(err, vmdk.ErrTruncated) },
		"export_corrupt": func(err error) bool { return err != nil },
		"lease_expire":   func(err error) bool { return err != nil },
	} {
		if err := e.Arm(lab.Fault{Kind: kind, VM: "vm01", After: 100_000}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.export(vm, s); !check(err) {
			t.Errorf("%s: the export ended with %v", kind, err)
		}
		if got, err := e.export(vm, s); err != nil || sha(got[0]) != want {
			t.Errorf("the export after %s: %v", kind, err)
		}
	}
	begin := time.Now()
	if err := e.Arm(lab.Fault{Kind: "stream_stall", After: 100_000, Delay: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if got, err := e.export(vm, s); err != nil || sha(got[0]) != want || time.Since(begin) < 100*time.Millisecond {
		t.Errorf("an export that stalls: %v after %v", err, time.Since(begin))
	}
	if err := e.Arm(lab.Fault{Kind: "upload_cut", VM: "cut", After: 100_000}); err != nil {
		t.Fatal(err)
	}
	le, info := e.importLease(importSpec("cut", "LocalDS_0", diskSize))
	if err := e.upload(info, e.read("vm01", 0)); err == nil {
		t.Error("a cut upload succeeded")
	}
	if err := le.Abort(e.ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.Arm(lab.Fault{Kind: "datastore_full", Method: "upload"}); err != nil {
		t.Fatal(err)
	}
	le, info = e.importLease(importSpec("full", "LocalDS_0", diskSize))
	if err := e.upload(info, e.read("vm01", 0)); err == nil {
		t.Error("an upload to a full datastore succeeded")
	}
	var l mo.HttpNfcLease
	if err := property.DefaultCollector(e.c.Client).RetrieveOne(e.ctx, le.Reference(), []string{"error"}, &l); err != nil || l.Error == nil {
		t.Fatalf("the lease has no error: %v", err)
	}
	if _, ok := l.Error.Fault.(*types.NoDiskSpace); !ok {
		t.Errorf("the lease ended in %T, want NoDiskSpace", l.Error.Fault)
	}
	if err := le.Abort(e.ctx, nil); err != nil {
		t.Fatal(err)
	}
}

func TestAFullDatastoreRefusesWhatDoesNotFit(t *testing.T) {
	e := start(t, lab.Config{VMs: 1, Datastores: 1, DatastoreSize: 20 * mib})
	noise := make([]byte, diskSize)
	lab.Noise(1, noise)
	le, info := e.importLease(importSpec("big", "LocalDS_0", diskSize))
	if err := e.upload(info, noise); err == nil {
		t.Error("16 MiB fitted where 20 MiB were half full")
	}
	if err := le.Abort(e.ctx, nil); err != nil {
		t.Fatal(err)
	}
}

func TestFaultsOfTasksAndCalls(t *testing.T) {
	e := start(t, lab.Config{})
	vm := e.vm("vm01")
	arm := func(f lab.Fault) {
		t.Helper()
		if err := e.Arm(f); err != nil {
			t.Fatal(err)
		}
	}
	create := func(quiesce bool) error {
		task, err := vm.CreateSnapshot(e.ctx, "s", "", false, quiesce)
		_, err = wait(e.ctx, task, err)
		return err
	}
	arm(lab.Fault{Kind: "quiesce_fail"})
	if err := create(false); err != nil {
		t.Errorf("a snapshot without quiescing: %v", err)
	}
	if err := create(true); !fault.Is(err, &types.ApplicationQuiesceFault{}) {
		t.Errorf("a quiesced snapshot: %v, want ApplicationQuiesceFault", err)
	}
	arm(lab.Fault{Kind: "snapshot_fail", VM: "vm02"})
	if err := create(false); err != nil {
		t.Errorf("a fault of vm02 struck vm01: %v", err)
	}
	e.ClearFaults()
	arm(lab.Fault{Kind: "snapshot_fail", After: 1})
	if err := create(false); err != nil {
		t.Errorf("the first snapshot, which is to pass: %v", err)
	}
	if err := create(false); !fault.Is(err, &types.GenericVmConfigFault{}) {
		t.Errorf("the second snapshot: %v, want GenericVmConfigFault", err)
	}
	arm(lab.Fault{Kind: "remove_fail", Count: 2})
	for range 2 {
		task, err := vm.RemoveAllSnapshot(e.ctx, nil)
		if _, err := wait(e.ctx, task, err); !fault.Is(err, &types.GenericVmConfigFault{}) {
			t.Errorf("removal: %v, want GenericVmConfigFault", err)
		}
	}
	arm(lab.Fault{Kind: "task_fail", Method: "RemoveAllSnapshots_Task"})
	arm(lab.Fault{Kind: "task_slow", Delay: 50 * time.Millisecond})
	begin := time.Now()
	task, err := vm.RemoveAllSnapshot(e.ctx, nil)
	if _, err := wait(e.ctx, task, err); !fault.Is(err, &types.SystemError{}) || time.Since(begin) < 50*time.Millisecond {
		t.Errorf("a slow task that fails: %v after %v", err, time.Since(begin))
	}
	e.ok(vm.RemoveAllSnapshot(e.ctx, nil))
	arm(lab.Fault{Kind: "permission_denied", Method: "PowerOffVM_Task"})
	if _, err := vm.PowerOff(e.ctx); !fault.Is(err, &types.NoPermission{}) {
		t.Errorf("a call without privilege: %v, want NoPermission", err)
	}
	arm(lab.Fault{Kind: "http_503"})
	var status interface{ Error() string }
	if _, err := vm.PowerOff(e.ctx); !errors.As(err, &status) || soap.IsSoapFault(err) {
		t.Errorf("a call answered by 503: %v", err)
	}
	if list := e.Armed(); len(list) != 0 {
		t.Errorf("faults %v are left", list)
	}
	if err := e.Arm(lab.Fault{Kind: "no_such_kind"}); err == nil {
		t.Error("an unknown kind of fault was armed")
	}
}

func TestATaskThatIsSlowDoesNotLockItsVM(t *testing.T) {
	e := start(t, lab.Config{VMs: 1})
	vm := e.vm("vm01")
	if err := e.Arm(lab.Fault{Kind: "task_slow", Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	task, err := vm.CreateSnapshot(e.ctx, "s", "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	var v mo.VirtualMachine
	if err := vm.Properties(e.ctx, vm.Reference(), []string{"name", "recentTask"}, &v); err != nil {
		t.Fatal(err)
	}
	if n := len(v.RecentTask); n == 0 || v.RecentTask[n-1] != task.Reference() {
		t.Errorf("recent tasks %v do not end in %v", v.RecentTask, task.Reference())
	}
	if list := e.Tasks(); list[len(list)-1].State != "running" || list[len(list)-1].Name != "CreateSnapshot_Task" {
		t.Errorf("the lab's last task is %+v", list[len(list)-1])
	}
}

func TestAnImportToWhereNothingIsFails(t *testing.T) {
	e := start(t, lab.Config{VMs: 1})
	pool, err := e.f.ResourcePool(e.ctx, "DC0_C0/Resources")
	if err != nil {
		t.Fatal(err)
	}
	card := func(b types.BaseVirtualDeviceBackingInfo) *types.VirtualMachineImportSpec {
		s := importSpec("x", "LocalDS_0", diskSize)
		s.ConfigSpec.DeviceChange = append(s.ConfigSpec.DeviceChange, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd,
			Device: &types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: types.VirtualEthernetCard{
				VirtualDevice: types.VirtualDevice{Key: -9, Backing: b},
			}}},
		})
		return s
	}
	var network types.VirtualEthernetCardNetworkBackingInfo
	network.DeviceName = "VM Network"
	for name, s := range map[string]*types.VirtualMachineImportSpec{
		"no such datastore": importSpec("x", "nowhere", diskSize),
		"no such network":   card(&types.VirtualEthernetCardNetworkBackingInfo{VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "nowhere"}}),
		"no such portgroup": card(&types.VirtualEthernetCardDistributedVirtualPortBackingInfo{Port: types.DistributedVirtualSwitchPortConnection{PortgroupKey: "nowhere"}}),
	} {
		le, err := pool.ImportVApp(e.ctx, s, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := le.Wait(e.ctx, nil); err == nil {
			t.Errorf("%s: the import began", name)
		}
	}
	le, err := pool.ImportVApp(e.ctx, card(&network), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := le.Wait(e.ctx, nil); err != nil {
		t.Errorf("an import with a card on VM Network: %v", err)
	}
	if err := le.Abort(e.ctx, nil); err != nil {
		t.Fatal(err)
	}
}

func TestDatastoreFilesOfRunningVMsAreLocked(t *testing.T) {
	e := start(t, lab.Config{VMs: 1})
	get := func() (int, []byte) {
		res, err := e.folder(http.MethodGet, "LocalDS_1", "vm01/vm01-flat.vmdk", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, b
	}
	if code, _ := get(); code == http.StatusOK {
		t.Error("the disk of a running VM could be read")
	}
	e.ok(e.vm("vm01").PowerOff(e.ctx))
	if code, b := get(); code != http.StatusOK || sha(b) != e.sum("vm01", 0) {
		t.Errorf("the disk of a VM that is off: status %d, %d bytes", code, len(b))
	}
}
