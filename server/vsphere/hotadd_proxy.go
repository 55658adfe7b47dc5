package vsphere

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// enableUUID is the setting of a VM without which its guest does not see the UUIDs of its disks.
const enableUUID = "disk.EnableUUID"

func noHotAdd(format string, args ...any) error {
	return backup.Errorf(backup.PreflightFailed, "transport", "The transport hotadd cannot be had: "+format, args...)
}

// proxies finds this server's own VM among those of the vcenter. More than one
// has the UUID where a VM was copied; none where the server runs elsewhere.
func (s *Session) proxies(ctx context.Context) ([]ref, error) {
	if s.config.ProxyUUID == "" || s.client.ServiceContent.SearchIndex == nil {
		return nil, nil
	}
	res, err := methods.FindAllByUuid(ctx, s.client, &types.FindAllByUuid{
		This: *s.client.ServiceContent.SearchIndex, Uuid: strings.ToLower(s.config.ProxyUUID), VmSearch: true, InstanceUuid: types.NewBool(false),
	})
	if err != nil {
		return nil, s.problem("look for the VM in which kura runs", err)
	}
	return res.Returnval, nil
}

// isProxy says whether this server runs in the VM.
func (s *Session) isProxy(ctx context.Context, moid string) (bool, error) {
	list, err := s.proxies(ctx)
	return slices.Contains(list, vmRef(moid)), err
}

// proxy is this server's own VM, if disks can be attached to it.
func (s *Session) proxy(ctx context.Context) (ref, error) {
	switch {
	case s.config.Devices == nil:
		return ref{}, noHotAdd("this server cannot open the disks of its VM. It can on Linux.")
	case s.config.ProxyUUID == "":
		return ref{}, noHotAdd("this server does not know in which VM it runs. If it runs in one, name that VM's BIOS UUID with proxy_uuid.")
	}
	list, err := s.proxies(ctx)
	if err != nil {
		return ref{}, err
	}
	switch len(list) {
	case 0:
		return ref{}, noHotAdd("no VM of %s has the BIOS UUID %s, in which this server runs.", s.host, s.config.ProxyUUID)
	case 1:
		return list[0], nil
	}
	return ref{}, noHotAdd("%d VMs of %s have the BIOS UUID %s, so kura cannot tell in which it runs. Give the others UUIDs of their own.", len(list), s.host, s.config.ProxyUUID)
}

// ownDevices are a VM's devices without the disks of other VMs that kura has
// attached to it for a moment: they are no part of the VM.
func ownDevices(c *types.VirtualMachineConfigInfo) []types.BaseVirtualDevice {
	list, err := decodeAttached(extra(c, attachedKey))
	if err != nil || len(list) == 0 {
		return c.Hardware.Device
	}
	return slices.DeleteFunc(slices.Clone(c.Hardware.Device), func(d types.BaseVirtualDevice) bool {
		return slices.ContainsFunc(list, func(a attachment) bool { return a.ours(d) })
	})
}

// showOwn adds to what the inventory reads of a proxy what it remembers of
// disks that are attached to it. If that cannot be read, they show for once.
func (s *Session) showOwn(ctx context.Context, m *mo.VirtualMachine) {
	if m.Config == nil || !slices.Contains(s.seen.list(), m.Self) {
		return
	}
	var vm mo.VirtualMachine
	if err := s.read(ctx, m.Self, []string{"config.extraConfig"}, &vm); err == nil && vm.Config != nil {
		m.Config.ExtraConfig = vm.Config.ExtraConfig
	}
}

// ownNotes says of the VM in which this server runs that it is that one.
func (s *Session) ownNotes(m mo.VirtualMachine) []string {
	if s.config.ProxyUUID == "" || m.Config == nil || !strings.EqualFold(m.Config.Uuid, s.config.ProxyUUID) {
		return nil
	}
	return []string{"This server runs in the VM. It is read by nfc whatever the transport, and is not restored in place."}
}

// missing implements [direct].
func (h hotAdd) missing(ctx context.Context, moid string) error {
	self, err := h.s.proxy(ctx)
	if err != nil {
		return err
	}
	if self.Value == moid {
		return noHotAdd("this server runs in the VM %s, which cannot be its own target.", moid)
	}
	vm, err := h.s.vm(ctx, self.Value, []string{"name", "config", "runtime"})
	if err != nil {
		return err
	}
	if on := extra(vm.Config, enableUUID); !strings.EqualFold(on, "TRUE") && on != "1" {
		return noHotAdd("the VM %q, in which this server runs, does not show the UUIDs of its disks. Power it off, set %s = TRUE in its advanced configuration, and power it on.", unescapeName(vm.Name), enableUUID)
	}
	return h.reaches(ctx, vm, moid)
}

// reaches makes sure that the host of the proxy sees the datastores of the VM's disks.
func (h hotAdd) reaches(ctx context.Context, proxy mo.VirtualMachine, moid string) error {
	of, err := h.s.vm(ctx, moid, []string{"config", "datastore"})
	if err != nil {
		return err
	}
	var host mo.HostSystem
	if err := h.s.read(ctx, deref(proxy.Runtime.Host), []string{"name", "datastore"}, &host); err != nil {
		return h.s.problem("read the host of kura's own VM", err)
	}
	for _, d := range of.Config.Hardware.Device {
		disk, ok := d.(*types.VirtualDisk)
		if !ok {
			continue
		}
		b, ok := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo)
		if !ok {
			continue
		}
		if onIDE(disk, of.Config.Hardware.Device) {
			return noHotAdd("%q hangs on an IDE controller, and vSphere hot-adds no such disks.", label(disk))
		}
		if at := b.GetVirtualDeviceFileBackingInfo(); at.Datastore != nil && !slices.Contains(host.Datastore, *at.Datastore) {
			return noHotAdd("the host %s of kura's VM %q does not see the datastore %s, on which %q lies.", host.Name, unescapeName(proxy.Name), storeOf(at.FileName), label(disk))
		}
	}
	return nil
}

// onIDE says whether a disk hangs on an IDE controller: its file has another
// geometry than a SCSI disk's.
func onIDE(disk *types.VirtualDisk, devices []types.BaseVirtualDevice) bool {
	c, _ := findDevice(devices, disk.ControllerKey)
	_, ide := c.(*types.VirtualIDEController)
	return ide
}

// bay is where on a VM a disk can be attached.
type bay struct {
	controller int32
	unit       int32
}

const (
	scsiControllers = 4  // of a VM
	scsiUnits       = 16 // of a controller, one of which is its own
)

// freePlaces finds n free units on the SCSI controllers of a VM, and the
// controllers that have to be added to have them.
func freePlaces(devices []types.BaseVirtualDevice, n int) (places []bay, added []types.BaseVirtualDevice, err error) {
	buses := map[int32]bool{}
	for _, d := range devices {
		c, ok := d.(types.BaseVirtualSCSIController)
		if !ok {
			continue
		}
		scsi := c.GetVirtualSCSIController()
		buses[scsi.BusNumber] = true
		if scsi.SharedBus == "" || scsi.SharedBus == types.VirtualSCSISharingNoSharing {
			places = append(places, unitsOf(scsi.Key, scsi.ScsiCtlrUnitNumber, devices)...)
		}
	}
	for bus := int32(0); bus < scsiControllers && len(places) < n; bus++ {
		if buses[bus] {
			continue
		}
		c := &types.ParaVirtualSCSIController{}
		c.Key, c.BusNumber, c.SharedBus = -100-bus, bus, types.VirtualSCSISharingNoSharing
		added = append(added, c)
		places = append(places, unitsOf(c.Key, 0, nil)...)
	}
	if len(places) < n {
		return nil, nil, fmt.Errorf("it has %d free places for disks, and %d are needed", len(places), n)
	}
	return places[:n], added, nil
}

// unitsOf are the free units of a controller.
func unitsOf(controller, own int32, devices []types.BaseVirtualDevice) (free []bay) {
	if own == 0 {
		own = 7
	}
	for unit := range int32(scsiUnits) {
		taken := slices.ContainsFunc(devices, func(d types.BaseVirtualDevice) bool {
			v := d.GetVirtualDevice()
			return v.ControllerKey == controller && v.UnitNumber != nil && *v.UnitNumber == unit
		})
		if unit != own && !taken {
			free = append(free, bay{controller: controller, unit: unit})
		}
	}
	return free
}
