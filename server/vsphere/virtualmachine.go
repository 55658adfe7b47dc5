package vsphere

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// vmProperties are what the inventory shows of a VM.
var vmProperties = []string{
	"name", "parent", "parentVApp", "resourcePool", "datastore", "guest.net",
	"runtime.host", "runtime.powerState", "runtime.faultToleranceState",
	"config.instanceUuid", "config.uuid", "config.template", "config.guestId", "config.annotation", "config.keyId", "config.managedBy",
	"config.hardware.numCPU", "config.hardware.memoryMB", "config.hardware.device",
}

// found is a VM as the inventory remembers it: what it shows, and the places
// it names, whose own names may change.
type found struct {
	vm         backup.VirtualMachine
	folder     ref
	pool       ref
	host       ref
	datastores []ref
	portgroups map[int32]string // by card: on a distributed switch a card names its port group by id
	staging    bool             // a VM that a restore is making
	whole      string           // why no snapshot of it can be made, whatever the transport
	disks      []backup.VMDisk  // with the reasons that hold whatever the transport
	encrypted  bool
	sealed     map[int32]bool // keys of the disks that are encrypted
	notes      []string       // of what hangs on it from outside
}

// newFound converts what vSphere says. ok is false where it says too little:
// a VM that is being made, or whose configuration cannot be read.
func newFound(m mo.VirtualMachine) (f found, ok bool) {
	if m.Config == nil || m.Config.InstanceUuid == "" {
		return found{}, false
	}
	c := m.Config
	c.Hardware.Device = ownDevices(c)
	f = found{
		host: deref(m.Runtime.Host), pool: deref(m.ResourcePool), folder: deref(m.Parent), datastores: m.Datastore,
		staging: isMarker(firstLine(c.Annotation)),
	}
	if m.ParentVApp != nil && f.folder == (ref{}) {
		f.folder = *m.ParentVApp
	}
	f.vm = backup.VirtualMachine{
		InstanceUUID: c.InstanceUuid, BIOSUUID: c.Uuid, MOID: m.Self.Value, Name: unescapeName(m.Name),
		PowerState: powerState(m.Runtime.PowerState), Template: c.Template, GuestID: c.GuestId,
		CPUs: c.Hardware.NumCPU, MemoryMiB: int64(c.Hardware.MemoryMB),
	}
	f.whole, f.encrypted = wholly(m), c.KeyId != nil
	f.disks, f.sealed = disksOf(c.Hardware.Device)
	f.vm.NICs, f.portgroups = nicsOf(c.Hardware.Device, m.Guest)
	f.notes = notes(c.Hardware.Device)
	return f, true
}

// settle fills in what other entities are called.
func (f *found) settle(p places, paths map[ref]string) {
	path := func(r ref) string {
		s, ok := paths[r]
		if !ok {
			s = p.path(r)
			paths[r] = s
		}
		return s
	}
	f.vm.Folder, f.vm.ResourcePool, f.vm.Host = path(f.folder), path(f.pool), p[f.host].name
	f.vm.Datastores = nil
	for _, d := range f.datastores {
		f.vm.Datastores = append(f.vm.Datastores, p[d].name)
	}
	slices.Sort(f.vm.Datastores)
	f.vm.NICs = slices.Clone(f.vm.NICs)
	p.nameNetworks(f.vm.NICs, f.portgroups)
}

// nameNetworks puts names where cards name their port groups by id.
func (p places) nameNetworks(nics []backup.VMNIC, portgroups map[int32]string) {
	for i, n := range nics {
		if e, ok := p[portgroup(portgroups[n.Key])]; ok {
			nics[i].Network = unescapeName(e.name)
		}
	}
}

func portgroup(key string) ref {
	return ref{Type: "DistributedVirtualPortgroup", Value: key}
}

func capacity(d *types.VirtualDisk) int64 {
	if d.CapacityInBytes > 0 {
		return d.CapacityInBytes
	}
	return d.CapacityInKB * 1024
}

func label(d types.BaseVirtualDevice) string {
	v := d.GetVirtualDevice()
	if v.DeviceInfo != nil {
		return v.DeviceInfo.GetDescription().Label
	}
	return fmt.Sprintf("device %d", v.Key)
}

func fileOf(d *types.VirtualDisk) string {
	if b, ok := d.Backing.(types.BaseVirtualDeviceFileBackingInfo); ok {
		return b.GetVirtualDeviceFileBackingInfo().FileName
	}
	return ""
}

// nicsOf lists the network cards, and the ids of the port groups that some of them hang on.
func nicsOf(devices []types.BaseVirtualDevice, guest *types.GuestInfo) (out []backup.VMNIC, portgroups map[int32]string) {
	for _, d := range devices {
		e, ok := d.(types.BaseVirtualEthernetCard)
		if !ok {
			continue
		}
		card := e.GetVirtualEthernetCard()
		n := backup.VMNIC{Key: card.Key, MAC: card.MacAddress}
		switch b := card.Backing.(type) {
		case *types.VirtualEthernetCardNetworkBackingInfo:
			n.Network = b.DeviceName
		case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
			n.Network = b.Port.PortgroupKey
			if portgroups == nil {
				portgroups = map[int32]string{}
			}
			portgroups[card.Key] = b.Port.PortgroupKey
		case *types.VirtualEthernetCardOpaqueNetworkBackingInfo:
			n.Network = b.OpaqueNetworkId
		}
		if guest != nil {
			for _, g := range guest.Net {
				if g.DeviceConfigId == card.Key {
					n.IPs = append(n.IPs, g.IpAddress...)
				}
			}
		}
		out = append(out, n)
	}
	return out, portgroups
}

func powerState(s types.VirtualMachinePowerState) backup.PowerState {
	switch s {
	case types.VirtualMachinePowerStatePoweredOn:
		return backup.PoweredOn
	case types.VirtualMachinePowerStateSuspended:
		return backup.Suspended
	}
	return backup.PoweredOff
}

func sortTags(t []backup.Tag) {
	slices.SortFunc(t, func(a, b backup.Tag) int {
		return cmp.Or(cmp.Compare(a.Category, b.Category), cmp.Compare(a.Name, b.Name))
	})
}

func deref(r *ref) ref {
	if r == nil {
		return ref{}
	}
	return *r
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.TrimSpace(line)
}
