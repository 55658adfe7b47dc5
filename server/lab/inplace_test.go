package lab_test

import (
	"fmt"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// folderOf is the datastore folder of a file.
func folderOf(file string) string { return file[:strings.LastIndexByte(file, '/')] }

// swap replaces the VM's disks by files, each at the same controller and unit.
func (e *env) swap(vm *object.VirtualMachine, files []string) {
	e.t.Helper()
	var changes []types.BaseVirtualDeviceConfigSpec
	for i, d := range e.disks(vm) {
		in := &types.VirtualDisk{VirtualDevice: types.VirtualDevice{
			Key: -int32(i + 1), ControllerKey: d.ControllerKey, UnitNumber: d.UnitNumber,
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				DiskMode: "persistent", VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: files[i]},
			},
		}}
		changes = append(changes,
			&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationRemove, Device: d},
			&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: in})
	}
	e.ok(vm.Reconfigure(e.ctx, types.VirtualMachineConfigSpec{DeviceChange: changes}))
}

// seed:N4 the image is written over the VM, by the order of calls that an
// in-place restore over nfc makes.
func TestAnInPlaceRestoreSwapsDisksByTheirFiles(t *testing.T) {
	e := start(t, lab.Config{})
	e.track("vm02")
	vm := e.vm("vm02")
	saved := e.snapshot(vm, "backup")
	image, err := e.export(vm, saved)
	if err != nil {
		t.Fatal(err)
	}
	id := backing(e.disks(saved)[0]).ChangeId
	e.ok(vm.RemoveSnapshot(e.ctx, "backup", false, types.NewBool(true)))
	for _, d := range e.disks(vm) {
		e.guestWrite("vm02", d.Key, 0, 6*mib, uint64(d.Key))
	}
	e.ok(vm.PowerOff(e.ctx))
	old := e.disks(vm)
	damaged := []string{e.sum("vm02", old[0].Key), e.sum("vm02", old[1].Key)}

	staging := e.importVM("kura-staging", "LocalDS_0", image...)
	dc, err := e.f.DefaultDatacenter(e.ctx)
	if err != nil {
		t.Fatal(err)
	}
	manager := object.NewVirtualDiskManager(e.c.Client)
	var files []string
	for i, d := range e.disks(staging) {
		from := backing(d).FileName
		if err := manager.SetVirtualDiskUuid(e.ctx, from, dc, backing(old[i]).Uuid); err != nil {
			t.Fatalf("SetVirtualDiskUuid: %v", err)
		}
		to := folderOf(backing(old[i]).FileName) + "/restored-" + path.Base(from)
		if err := staging.RemoveDevice(e.ctx, true, d); err != nil {
			t.Fatalf("detach from the staging VM: %v", err)
		}
		e.ok(manager.MoveVirtualDisk(e.ctx, from, dc, to, dc, false))
		files = append(files, to)
	}
	e.swap(vm, files)
	e.ok(staging.Destroy(e.ctx))
	if err := e.ResetChanges("vm02"); err != nil {
		t.Fatal(err)
	}

	for i, d := range e.disks(vm) {
		if d.Key != old[i].Key || backing(d).FileName != files[i] || backing(d).Uuid != backing(old[i]).Uuid {
			t.Errorf("disk %d: key %d, %s, UUID %s; want key %d, %s, UUID %s",
				i, d.Key, backing(d).FileName, backing(d).Uuid, old[i].Key, files[i], backing(old[i]).Uuid)
		}
		if got := e.sum("vm02", d.Key); got != sha(image[i]) {
			t.Errorf("disk %d does not hold the image", d.Key)
		}
	}
	e.oldDisksStayUntilDeleted(manager, dc, old, damaged)
	e.ok(vm.PowerOn(e.ctx))
	s := e.snapshot(vm, "after")
	if _, _, err := e.areas(vm.Reference(), s, old[0].Key, id); !fault.Is(err, &types.FileFault{}) {
		t.Errorf("a change id from before the restore: %v, want FileFault", err)
	}
}

// oldDisksStayUntilDeleted attaches the replaced files to another VM, compares them and deletes them.
func (e *env) oldDisksStayUntilDeleted(manager *object.VirtualDiskManager, dc *object.Datacenter, old []*types.VirtualDisk, sums []string) {
	e.t.Helper()
	e.ok(e.vm("vm01").PowerOff(e.ctx))
	e.swap(e.vm("vm01"), []string{backing(old[0]).FileName})
	if got := e.sum("vm01", 0); got != sums[0] {
		e.t.Error("the replaced disk does not hold what it held")
	}
	task, err := manager.DeleteVirtualDisk(e.ctx, backing(old[0]).FileName, dc)
	if _, err := wait(e.ctx, task, err); !fault.Is(err, &types.FileLocked{}) {
		e.t.Errorf("deleting an attached disk: %v, want FileLocked", err)
	}
	e.ok(manager.DeleteVirtualDisk(e.ctx, backing(old[1]).FileName, dc))
	if _, err := manager.QueryVirtualDiskUuid(e.ctx, backing(old[1]).FileName, dc); !fault.Is(err, &types.FileNotFound{}) {
		e.t.Errorf("the UUID of a deleted disk: %v, want FileNotFound", err)
	}
}

func TestDisksOfOthersInAVMsFolderSurviveIt(t *testing.T) {
	e := start(t, lab.Config{})
	dc, err := e.f.DefaultDatacenter(e.ctx)
	if err != nil {
		t.Fatal(err)
	}
	manager := object.NewVirtualDiskManager(e.c.Client)
	want := e.sum("vm01", 0)
	file := backing(e.disks(e.vm("vm01"))[0]).FileName
	e.ok(manager.CopyVirtualDisk(e.ctx, file, dc, "[LocalDS_1] vm03/copy.vmdk", dc, nil, false))
	if err := e.RemoveVM(e.ctx, "vm03"); err != nil {
		t.Fatal(err)
	}
	e.ok(manager.MoveVirtualDisk(e.ctx, "[LocalDS_1] vm03/copy.vmdk", dc, "[LocalDS_0] vm02/copy.vmdk", dc, false))
	e.ok(e.vm("vm01").PowerOff(e.ctx))
	e.swap(e.vm("vm01"), []string{"[LocalDS_0] vm02/copy.vmdk"})
	if e.sum("vm01", 0) != want {
		t.Error("the copy does not hold what was copied")
	}
	task, err := manager.MoveVirtualDisk(e.ctx, file, dc, "[LocalDS_0] vm02/copy.vmdk", dc, false)
	if _, err := wait(e.ctx, task, err); !fault.Is(err, &types.FileAlreadyExists{}) {
		t.Errorf("moving a disk onto another: %v, want FileAlreadyExists", err)
	}
}

func TestACloneHasDisksOfItsOwn(t *testing.T) {
	e := start(t, lab.Config{})
	vm := e.vm("vm02")
	want := []string{e.sum("vm02", 2000), e.sum("vm02", 2001)}
	folder, err := e.f.DefaultFolder(e.ctx)
	if err != nil {
		t.Fatal(err)
	}
	e.ok(vm.Clone(e.ctx, folder, "twin", types.VirtualMachineCloneSpec{}))
	e.guestWrite("vm02", 2000, 0, mib, 1)
	v, err := e.VM("twin")
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range v.Disks {
		if got := e.sum("twin", d.Key); got != want[i] {
			t.Errorf("disk %d of the clone differs", d.Key)
		}
	}
	original, _ := e.VM("vm02")
	if v.InstanceUUID == original.InstanceUUID {
		t.Error("the clone has the instance UUID of its original")
	}
}

func TestManyBackupsAtOnceKeepTheirBytesApart(t *testing.T) {
	e := start(t, lab.Config{VMs: 24, DiskSize: mib / 2})
	var wg sync.WaitGroup
	for i := range 24 {
		name := fmt.Sprintf("vm%02d", i+1)
		stop, err := e.KeepWriting(name, 20*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer stop()
			vm := e.vm(name)
			for range 2 {
				task, err := vm.CreateSnapshot(e.ctx, "s", "", false, false)
				info, err := wait(e.ctx, task, err)
				if err != nil {
					t.Errorf("%s: snapshot: %v", name, err)
					return
				}
				s := info.Result.(types.ManagedObjectReference)
				a, err := e.export(vm, s)
				if err != nil {
					t.Errorf("%s: export: %v", name, err)
					return
				}
				b, err := e.export(vm, s)
				if err != nil || sha(a[0]) != sha(b[0]) {
					t.Errorf("%s: two exports differ (%v)", name, err)
				}
				task, err = vm.RemoveSnapshot(e.ctx, "s", false, types.NewBool(true))
				if _, err := wait(e.ctx, task, err); err != nil {
					t.Errorf("%s: remove: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestUnregisteredVMsLeaveTheirFiles(t *testing.T) {
	e := start(t, lab.Config{})
	vm := e.vm("vm01")
	if _, err := methods.UnregisterVM(e.ctx, e.c, &types.UnregisterVM{This: vm.Reference()}); !fault.Is(err, &types.InvalidPowerState{}) {
		t.Errorf("unregister a running VM: %v, want InvalidPowerState", err)
	}
	e.ok(vm.PowerOff(e.ctx))
	want, file := e.sum("vm01", 0), backing(e.disks(vm)[0]).FileName
	if err := vm.Unregister(e.ctx); err != nil {
		t.Fatal(err)
	}
	e.ok(e.vm("vm03").PowerOff(e.ctx))
	e.swap(e.vm("vm03"), []string{file})
	if e.sum("vm03", 0) != want {
		t.Error("the disk of an unregistered VM changed")
	}
}
