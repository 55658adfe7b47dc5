package vsphere

import (
	"context"
	"fmt"
	"slices"

	"github.com/vmware/govmomi/vim25/types"
)

// bootOrder is the image's boot order in terms of a VM that was made of it,
// whose devices may have other keys. What the VM lacks is left out.
func bootOrder(p *newVM, made []types.BaseVirtualDevice) (order []types.BaseVirtualMachineBootOptionsBootableDevice) {
	if p.config.BootOptions == nil {
		return nil
	}
	for _, d := range p.config.BootOptions.BootOrder {
		switch d := d.(type) {
		case *types.VirtualMachineBootOptionsBootableDiskDevice:
			if key, ok := p.diskNow(d.DeviceKey, made); ok {
				order = append(order, &types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: key})
			}
		case *types.VirtualMachineBootOptionsBootableEthernetDevice:
			if key, ok := p.cardNow(d.DeviceKey, made); ok {
				order = append(order, &types.VirtualMachineBootOptionsBootableEthernetDevice{DeviceKey: key})
			}
		default: // of which the kind is all that is said
			order = append(order, d)
		}
	}
	return order
}

// diskNow is the key of the disk at the place that the image's has.
func (p *newVM) diskNow(key int32, made []types.BaseVirtualDevice) (int32, bool) {
	asked := specDevices(p.spec)
	want, ok := find(asked, key)
	for _, d := range made {
		if disk, is := d.(*types.VirtualDisk); ok && is && samePlace(want, asked, disk, made) {
			return disk.Key, true
		}
	}
	return 0, false
}

// cardNow is the key of the network card that was made in the place of the
// image's: cards keep their order.
func (p *newVM) cardNow(key int32, made []types.BaseVirtualDevice) (int32, bool) {
	asked, now := cardKeys(specDevices(p.spec)), cardKeys(made)
	slices.Sort(now)
	if i := slices.Index(asked, key); i >= 0 && i < len(now) {
		return now[i], true
	}
	return 0, false
}

func cardKeys(devices []types.BaseVirtualDevice) (keys []int32) {
	for _, d := range devices {
		if _, ok := d.(types.BaseVirtualEthernetCard); ok {
			keys = append(keys, d.GetVirtualDevice().Key)
		}
	}
	return keys
}

// dress gives a new VM what its guest may miss and what can be said only now:
// the boot order, and the properties of an appliance. It can live without them,
// so that a refusal is a message.
func (s *Session) dress(ctx context.Context, vm ref, p *newVM, made []types.BaseVirtualDevice) (messages []string) {
	if order := bootOrder(p, made); len(order) > 0 {
		boot := *p.config.BootOptions
		boot.BootOrder = order
		if err := s.reconfigure(ctx, vm, types.VirtualMachineConfigSpec{BootOptions: &boot}); err != nil {
			messages = append(messages, fmt.Sprintf("The boot order was not restored: %v.", err))
		}
	}
	if v := applianceSpec(p.config.VAppConfig); v != nil {
		if err := s.reconfigure(ctx, vm, types.VirtualMachineConfigSpec{VAppConfig: v}); err != nil {
			messages = append(messages, fmt.Sprintf("The vApp properties, by which an appliance is set up, were not restored: %v.", err))
		}
	}
	return messages
}

// applianceSpec makes a VM the appliance that the image's was: its products,
// properties and how its guest is told of them. nil = it was none.
func applianceSpec(c types.BaseVmConfigInfo) *types.VmConfigSpec {
	if c == nil || c.GetVmConfigInfo() == nil {
		return nil
	}
	then, add := c.GetVmConfigInfo(), types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationAdd}
	spec := &types.VmConfigSpec{Eula: then.Eula, OvfEnvironmentTransport: then.OvfEnvironmentTransport,
		InstallBootRequired: types.NewBool(then.InstallBootRequired), InstallBootStopDelay: then.InstallBootStopDelay}
	if a := then.IpAssignment; a.IpAllocationPolicy != "" || a.IpProtocol != "" || len(a.SupportedAllocationScheme)+len(a.SupportedIpProtocol) > 0 {
		spec.IpAssignment = &a
	}
	for _, p := range then.Product {
		spec.Product = append(spec.Product, types.VAppProductSpec{ArrayUpdateSpec: add, Info: &p})
	}
	for _, p := range then.Property {
		spec.Property = append(spec.Property, types.VAppPropertySpec{ArrayUpdateSpec: add, Info: &p})
	}
	for _, o := range then.OvfSection {
		spec.OvfSection = append(spec.OvfSection, types.VAppOvfSectionSpec{ArrayUpdateSpec: add, Info: &o})
	}
	return spec
}
