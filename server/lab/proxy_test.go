package lab_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// attach hangs a file of another VM on a VM.
func (e *env) attach(vm *object.VirtualMachine, file string, mode types.VirtualDiskMode) error {
	spec := types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{
		Operation: types.VirtualDeviceConfigSpecOperationAdd,
		Device: &types.VirtualDisk{VirtualDevice: types.VirtualDevice{
			Key: -1, ControllerKey: 1000, UnitNumber: types.NewInt32(9),
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				DiskMode: string(mode), VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: file},
			},
		}},
	}}}
	task, err := vm.Reconfigure(e.ctx, spec)
	_, err = wait(e.ctx, task, err)
	return err
}

func TestANonpersistentDiskThrowsAwayWhatIsWritten(t *testing.T) {
	e := start(t, lab.Config{})
	vm, proxy := e.vm("vm01"), e.vm("vm03")
	want := e.sum("vm01", 0)
	s := e.snapshot(vm, "s")
	e.guestWrite("vm01", 0, 0, mib, 1)
	now := e.sum("vm01", 0)
	file := backing(e.disks(s)[0]).FileName
	if err := e.attach(proxy, file, types.VirtualDiskModeIndependent_nonpersistent); err != nil {
		t.Fatal(err)
	}
	uuid := backing(e.disks(s)[0]).Uuid
	dev, err := e.OpenDevice(e.ctx, "vm03", uuid, true)
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, e.disks(s)[0].CapacityInBytes)
	if _, err := dev.ReadAt(whole, 0); err != nil || sha(whole) != want {
		t.Errorf("the device is not the snapshot's disk: %v", err)
	}
	if _, err := dev.WriteAt([]byte("gone with the redo log"), 0); err != nil {
		t.Fatal(err)
	}
	list := e.disks(proxy)
	if err := proxy.RemoveDevice(e.ctx, true, list[len(list)-1]); err != nil {
		t.Fatal(err)
	}
	if _, err := e.OpenDevice(e.ctx, "vm03", uuid, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the detaching: %v, want fs.ErrNotExist", err)
	}
	e.ok(vm.RemoveSnapshot(e.ctx, "s", false, nil))
	if e.sum("vm01", 0) != now {
		t.Error("what was written to a nonpersistent disk reached the VM")
	}
}

func TestADiskThatIsAttachedElsewhereKeepsItsVMOff(t *testing.T) {
	e := start(t, lab.Config{})
	vm, proxy := e.vm("vm01"), e.vm("vm03")
	file := backing(e.disks(vm)[0]).FileName
	if err := e.attach(proxy, file, types.VirtualDiskModeIndependent_persistent); !fault.Is(err, &types.FileLocked{}) {
		t.Errorf("attaching a running VM's disk: %v, want FileLocked", err)
	}
	e.ok(vm.PowerOff(e.ctx))
	if err := e.attach(proxy, file, types.VirtualDiskModeIndependent_persistent); err != nil {
		t.Fatal(err)
	}
	task, err := vm.PowerOn(e.ctx)
	if _, err := wait(e.ctx, task, err); !fault.Is(err, &types.FileLocked{}) {
		t.Errorf("power on: %v, want FileLocked", err)
	}
	list := e.disks(proxy)
	if err := proxy.RemoveDevice(e.ctx, true, list[len(list)-1]); err != nil {
		t.Fatal(err)
	}
	e.ok(vm.PowerOn(e.ctx))
}

// This is why no call of a backup program may ever delete such a VM.
func TestDeletingAVMDeletesTheDisksOfOthersOnIt(t *testing.T) {
	e := start(t, lab.Config{})
	vm, proxy := e.vm("vm01"), e.vm("vm03")
	e.ok(vm.PowerOff(e.ctx))
	if err := e.attach(proxy, backing(e.disks(vm)[0]).FileName, types.VirtualDiskModeIndependent_persistent); err != nil {
		t.Fatal(err)
	}
	if err := e.RemoveVM(e.ctx, "vm03"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.DiskSHA256(e.ctx, "vm01", 0); err == nil {
		t.Error("the disk outlived the VM that it was attached to, which it would not in vSphere")
	}
}
