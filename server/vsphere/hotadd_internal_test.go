package vsphere

import (
	"context"
	"io"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
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

// spotted is an image of disks of which the first bytes hold something.
type spotted struct {
	backup.ImageReader
	held int64
}

func (s spotted) Disk(context.Context, int32) (backup.DiskReader, error) { return spottedDisk(s), nil }

type spottedDisk spotted

func (spottedDisk) Capacity() int64                   { return 0 }
func (spottedDisk) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (spottedDisk) Close() error                      { return nil }

func (s spottedDisk) Next(off int64) (start, n int64) { return off, max(s.held-off, 0) }

func TestADiskThatIsMostlyHolesIsNotReadToBeCompared(t *testing.T) {
	for name, c := range map[string]struct {
		capacity, held int64
		want           bool
	}{
		"62 TiB with 1.5 GiB": {62 << 40, 3 << 29, true},
		"2 TiB, half full":    {2 << 40, 1 << 40, false},
		"small and empty":     {64 << 30, 0, false},
	} {
		o := &overwrite{from: spotted{held: c.held}, swaps: []swap{{image: backup.ImageDisk{Capacity: c.capacity}}}}
		if got, err := o.mostlyHoles(t.Context()); got != c.want || err != nil {
			t.Errorf("%s: mostlyHoles() = %v, %v", name, got, err)
		}
	}
}
