package lab

import (
	"fmt"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

// numberDevices gives new controllers and disks the keys that vSphere would:
// by bus and unit, so that a disk put back in its place has its key again.
func (l *Lab) numberDevices(have object.VirtualDeviceList, changes []types.BaseVirtualDeviceConfigSpec) {
	all := append(object.VirtualDeviceList{}, have...)
	for _, dc := range changes {
		s := dc.GetVirtualDeviceConfigSpec()
		d := s.Device.GetVirtualDevice()
		if s.Operation != types.VirtualDeviceConfigSpecOperationAdd {
			continue
		}
		if c, ok := s.Device.(types.BaseVirtualController); ok && d.Key <= 0 {
			old := d.Key
			if k := controllerKey(s.Device, c.GetVirtualController().BusNumber); k != 0 {
				d.Key = k
				for _, other := range changes {
					if o := other.GetVirtualDeviceConfigSpec().Device.GetVirtualDevice(); o.ControllerKey == old && old != 0 {
						o.ControllerKey = k
					}
				}
			}
		}
		all = append(all, s.Device)
		if _, ok := s.Device.(*types.VirtualDisk); ok && d.DeviceInfo == nil {
			n := len(all.SelectByType((*types.VirtualDisk)(nil)))
			d.DeviceInfo = &types.Description{Label: fmt.Sprintf("Hard disk %d", n)}
		}
		if _, ok := s.Device.(*types.VirtualDisk); ok && d.UnitNumber != nil {
			if k := diskKey(all.FindByKey(d.ControllerKey), *d.UnitNumber); k != 0 {
				d.Key = k
			}
		}
		if card, ok := s.Device.(types.BaseVirtualEthernetCard); ok {
			l.numberCard(all, card.GetVirtualEthernetCard())
		}
	}
}

// pciKey is the key of every VM's PCI controller, on which its cards begin at unit 7.
const (
	pciKey    = 100
	firstCard = 7
)

// numberCard puts a card on the PCI controller. vcsim would do so too, but note
// it in a controller that all VMs of all labs share.
func (l *Lab) numberCard(all object.VirtualDeviceList, card *types.VirtualEthernetCard) {
	if card.MacAddress == "" {
		card.MacAddress = l.newMAC()
	}
	if card.UnitNumber != nil {
		return
	}
	unit := int32(firstCard)
	for _, d := range all {
		if v := d.GetVirtualDevice(); v.ControllerKey == pciKey && v.UnitNumber != nil {
			unit = max(unit, *v.UnitNumber+1)
		}
	}
	card.ControllerKey, card.UnitNumber = pciKey, &unit
}

func controllerKey(d types.BaseVirtualDevice, bus int32) int32 {
	switch d.(type) {
	case types.BaseVirtualSCSIController:
		return 1000 + bus
	case *types.VirtualAHCIController:
		return 15000 + bus
	case *types.VirtualNVMEController:
		return 31000 + bus
	}
	return 0
}

func diskKey(controller types.BaseVirtualDevice, unit int32) int32 {
	c, ok := controller.(types.BaseVirtualController)
	if !ok {
		return 0
	}
	bus := c.GetVirtualController().BusNumber
	switch controller.(type) {
	case types.BaseVirtualSCSIController:
		return 2000 + 16*bus + unit
	case *types.VirtualIDEController:
		return 3000 + 2*bus + unit
	case *types.VirtualAHCIController:
		return 16000 + 30*bus + unit
	case *types.VirtualNVMEController:
		return 32000 + 15*bus + unit
	}
	return 0
}

func (l *Lab) newMAC() string {
	n := l.macs.Add(1)
	return fmt.Sprintf("00:50:56:%02x:%02x:%02x", 0x80|(n>>16)&0x3f, n>>8&0xff, n&0xff)
}
