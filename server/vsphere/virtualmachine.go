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
}

// newFound converts what vSphere says. ok is false where it says too little:
// a VM that is being made, or whose configuration cannot be read.
func newFound(m mo.VirtualMachine) (f found, ok bool) {
	if m.Config == nil || m.Config.InstanceUuid == "" {
		return found{}, false
	}
	c := m.Config
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
	whole := ""
	switch {
	case c.Template:
		whole = "templates cannot have snapshots; convert it to a VM to protect it"
	case faultTolerant(m.Runtime.FaultToleranceState):
		whole = "the VM is protected by Fault Tolerance, which forbids snapshots"
	case c.ManagedBy != nil && c.ManagedBy.ExtensionKey == "com.vmware.vim.eam":
		whole = "vSphere runs this VM for itself and replaces it when it is lost"
	case c.KeyId != nil:
		whole = "the VM is encrypted, and vSphere does not export encrypted VMs"
	}
	f.vm.Disks = disksOf(c.Hardware.Device, whole)
	f.vm.NICs, f.portgroups = nicsOf(c.Hardware.Device, m.Guest)
	if whole != "" {
		f.vm.Warnings = append(f.vm.Warnings, "The VM cannot be backed up: "+whole+".")
	} else {
		for _, d := range f.vm.Disks {
			if d.Unprotectable != "" {
				f.vm.Warnings = append(f.vm.Warnings, fmt.Sprintf("%s cannot be backed up: %s.", d.Label, d.Unprotectable))
			}
		}
	}
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

// disksOf lists the virtual disks. whole says why none of them can be protected; "" = look at each.
func disksOf(devices []types.BaseVirtualDevice, whole string) []backup.VMDisk {
	var out []backup.VMDisk
	for _, d := range devices {
		disk, ok := d.(*types.VirtualDisk)
		if !ok {
			continue
		}
		why := whole
		if why == "" {
			why = unprotectable(disk, devices)
		}
		out = append(out, backup.VMDisk{
			Key: disk.Key, Label: label(disk), Capacity: capacity(disk), File: fileOf(disk), Unprotectable: why,
		})
	}
	return out
}

// unprotectable says why vSphere leaves the disk out of snapshots, or refuses to make one; "" = it does not.
func unprotectable(disk *types.VirtualDisk, devices []types.BaseVirtualDevice) string {
	for _, d := range devices {
		c, ok := d.(types.BaseVirtualSCSIController)
		if ok && d.GetVirtualDevice().Key == disk.ControllerKey {
			if bus := c.GetVirtualSCSIController().SharedBus; bus != "" && bus != types.VirtualSCSISharingNoSharing {
				return "its SCSI controller shares its bus with other VMs"
			}
		}
	}
	var mode, sharing string
	var key *types.CryptoKeyId
	switch b := disk.Backing.(type) {
	case *types.VirtualDiskFlatVer2BackingInfo:
		mode, sharing, key = b.DiskMode, b.Sharing, b.KeyId
	case *types.VirtualDiskSeSparseBackingInfo:
		mode, key = b.DiskMode, b.KeyId
	case *types.VirtualDiskSparseVer2BackingInfo:
		mode, key = b.DiskMode, b.KeyId
	case *types.VirtualDiskFlatVer1BackingInfo:
		mode = b.DiskMode
	case *types.VirtualDiskSparseVer1BackingInfo:
		mode = b.DiskMode
	case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
		if b.CompatibilityMode == string(types.VirtualDiskCompatibilityModePhysicalMode) {
			return "it is a raw device mapping in physical mode"
		}
		mode, sharing = b.DiskMode, b.Sharing
	default:
		return "it has a kind of storage that snapshots leave out"
	}
	switch {
	case strings.HasPrefix(mode, "independent"):
		return "it is independent (" + mode + "), so snapshots leave it out"
	case sharing != "" && sharing != string(types.VirtualDiskSharingSharingNone):
		return "other VMs may write to it (" + sharing + ")"
	case key != nil:
		return "it is encrypted, and vSphere does not export encrypted disks"
	}
	return ""
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

func faultTolerant(s types.VirtualMachineFaultToleranceState) bool {
	return s != "" && s != types.VirtualMachineFaultToleranceStateNotConfigured
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
