package vsphere

import (
	"testing"

	"github.com/vmware/govmomi/vim25/types"
)

func scsi(key, bus int32, sharing types.VirtualSCSISharing) types.BaseVirtualDevice {
	c := &types.VirtualLsiLogicController{}
	c.Key, c.BusNumber, c.SharedBus, c.ScsiCtlrUnitNumber = key, bus, sharing, 7
	return c
}

func diskAt(controller, unit int32) *types.VirtualDisk {
	return &types.VirtualDisk{VirtualDevice: types.VirtualDevice{ControllerKey: controller, UnitNumber: &unit}}
}

func TestDisksAreAttachedWhereThereIsAFreePlaceThatIsNotShared(t *testing.T) {
	devices := []types.BaseVirtualDevice{
		scsi(1000, 0, types.VirtualSCSISharingNoSharing), scsi(1001, 1, types.VirtualSCSISharingVirtualSharing), diskAt(1000, 0), diskAt(1000, 2),
	}
	places, added, err := freePlaces(devices, 13)
	if err != nil || len(added) != 0 {
		t.Fatalf("freePlaces() adds %d controllers, %v", len(added), err)
	}
	for _, p := range places {
		if p.controller != 1000 || p.unit == 0 || p.unit == 2 || p.unit == 7 {
			t.Errorf("a disk would go to unit %d of %d, which is taken, shared or the controller's own", p.unit, p.controller)
		}
	}
	places, added, err = freePlaces(devices, 13+2*15)
	if err != nil || len(added) != 2 || places[len(places)-1].controller != added[1].GetVirtualDevice().Key {
		t.Errorf("freePlaces() adds %d controllers, %v, want two more", len(added), err)
	}
	if _, _, err := freePlaces(devices, 13+2*15+1); err == nil {
		t.Error("a VM with four controllers got a fifth")
	}
}

func TestADiskOnAnIDEControllerIsNotHotAdded(t *testing.T) {
	ide := &types.VirtualIDEController{}
	ide.Key = 200
	devices := []types.BaseVirtualDevice{ide, scsi(1000, 0, "")}
	if !onIDE(diskAt(200, 0), devices) || onIDE(diskAt(1000, 0), devices) || onIDE(diskAt(15000, 0), devices) {
		t.Error("onIDE() is wrong")
	}
}

func TestOnlyWhatKuraAttachedIsTakenForIts(t *testing.T) {
	a := attachment{Files: []string{"[ds] vm/vm.vmdk"}, UUIDs: []string{"6000C290-AA"}}
	disk := func(file, uuid, mode string) *types.VirtualDisk {
		return &types.VirtualDisk{VirtualDevice: types.VirtualDevice{Backing: &types.VirtualDiskFlatVer2BackingInfo{
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: file}, Uuid: uuid, DiskMode: mode,
		}}}
	}
	for name, c := range map[string]struct {
		disk types.BaseVirtualDevice
		want bool
	}{
		"its file":               {disk("[ds] vm/vm.vmdk", "x", "independent_nonpersistent"), true},
		"its redo log":           {disk("[ds] proxy/redo.vmdk", "6000c290-aa", "independent_nonpersistent"), true},
		"a disk of the proxy":    {disk("[ds] proxy/proxy.vmdk", "6000c290-bb", "persistent"), false},
		"a dependent disk":       {disk("[ds] vm/vm.vmdk", "6000c290-aa", "persistent"), false},
		"another independent":    {disk("[ds] other/other.vmdk", "", "independent_persistent"), false},
		"a disk without a uuid":  {disk("[ds] other/other.vmdk", "", "independent_nonpersistent"), false},
		"what is no disk at all": {&types.VirtualCdrom{}, false},
	} {
		if got := a.ours(c.disk); got != c.want {
			t.Errorf("%s: ours() = %v", name, got)
		}
	}
}
