package vsphere

import (
	"fmt"
	"slices"

	"github.com/vmware/govmomi/vim25/types"
)

// scsiSelf is the unit of a SCSI bus that the controller itself has.
const scsiSelf = 7

// newController is the key of a controller that is made along with the disk.
const newController = -101

// units is how many disks hang on a controller; 0 = none may come to it.
func units(d types.BaseVirtualDevice, running bool) int32 {
	switch d.(type) {
	case types.BaseVirtualSCSIController:
		return 16
	case *types.VirtualNVMEController:
		return 15
	case *types.VirtualAHCIController:
		return 30
	case *types.VirtualIDEController:
		if !running { // a running guest takes no disk there
			return 2
		}
	}
	return 0
}

// kindOf is the type of controller that a disk hung on; "" = not known.
func kindOf(devices []types.BaseVirtualDevice, disk *types.VirtualDisk) string {
	if disk == nil {
		return ""
	}
	if c, ok := findDevice(devices, disk.ControllerKey); ok {
		return fmt.Sprintf("%T", c)
	}
	return ""
}

// freePlace finds a free unit for one more disk: on a controller of the kind
// that it had, else on another but IDE, else on a new SCSI controller, else on IDE.
func freePlace(devices []types.BaseVirtualDevice, kind string, running bool) (controller types.BaseVirtualDevice, unit int32, ok bool) {
	rank := func(d types.BaseVirtualDevice) int {
		_, ide := d.(*types.VirtualIDEController)
		switch {
		case d.GetVirtualDevice().Key == newController:
			return 2
		case fmt.Sprintf("%T", d) == kind:
			return 0
		case ide:
			return 3
		}
		return 1
	}
	list := slices.DeleteFunc(slices.Clone(devices), func(d types.BaseVirtualDevice) bool { return units(d, running) == 0 })
	if c := anotherController(devices); c != nil {
		list = append(list, c)
	}
	slices.SortStableFunc(list, func(a, b types.BaseVirtualDevice) int { return rank(a) - rank(b) })
	for _, c := range list {
		for unit := range units(c, running) {
			if freeUnit(devices, c, unit) {
				return c, unit, true
			}
		}
	}
	return nil, 0, false
}

func freeUnit(devices []types.BaseVirtualDevice, c types.BaseVirtualDevice, unit int32) bool {
	if _, scsi := c.(types.BaseVirtualSCSIController); scsi && unit == scsiSelf {
		return false
	}
	return !slices.ContainsFunc(devices, func(d types.BaseVirtualDevice) bool {
		v := d.GetVirtualDevice()
		return v.ControllerKey == c.GetVirtualDevice().Key && v.UnitNumber != nil && *v.UnitNumber == unit
	})
}

// anotherController is a SCSI controller on a free bus, of the kind that the
// VM has already; nil when all four are taken.
func anotherController(devices []types.BaseVirtualDevice) types.BaseVirtualDevice {
	var like types.BaseVirtualDevice = &types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{
		SharedBus: types.VirtualSCSISharingNoSharing,
	}}
	taken := map[int32]bool{}
	for _, d := range devices {
		if c, ok := d.(types.BaseVirtualSCSIController); ok {
			v := c.GetVirtualSCSIController()
			taken[v.BusNumber] = true
			like = copyController(d)
		}
	}
	for bus := range int32(4) {
		if taken[bus] {
			continue
		}
		c := like.(types.BaseVirtualSCSIController).GetVirtualSCSIController()
		c.Key, c.BusNumber, c.SharedBus = newController, bus, types.VirtualSCSISharingNoSharing
		c.UnitNumber, c.SlotInfo, c.DeviceInfo = nil, nil, nil
		return like
	}
	return nil
}
