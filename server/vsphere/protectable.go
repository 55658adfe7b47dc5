package vsphere

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// What vSphere cannot snapshot is told in the inventory, so that a plan can
// name it before a night is lost (seed N7, N68, A8, H10, H12). Each reason
// follows "it cannot be backed up: ".

// wholly says why no snapshot of the VM can be made; "" = one can.
func wholly(m mo.VirtualMachine) string {
	c := m.Config
	switch {
	case c.Template:
		return "it is a template, and templates cannot have snapshots; convert it to a VM to protect it"
	case faultTolerant(m.Runtime.FaultToleranceState):
		return "it is protected by Fault Tolerance, which forbids snapshots"
	case c.ManagedBy != nil && c.ManagedBy.ExtensionKey == "com.vmware.vim.eam":
		return "vSphere runs this VM for itself and replaces it when it is lost"
	}
	for _, d := range c.Hardware.Device {
		if s, ok := d.(types.BaseVirtualSCSIController); ok && shared(s.GetVirtualSCSIController().SharedBus) {
			return fmt.Sprintf("its %s shares the bus with other VMs, and vSphere takes no snapshots of such a VM; back it up from inside the guest", label(d))
		}
		if m.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn && passedThrough(d) {
			return fmt.Sprintf("its %s is passed through from the host, and vSphere takes no snapshots of such a VM while it runs", label(d))
		}
	}
	return ""
}

func shared(bus types.VirtualSCSISharing) bool {
	return bus != "" && bus != types.VirtualSCSISharingNoSharing
}

// passedThrough says whether the guest has a host's device for itself. A
// virtual GPU is none: its host keeps it.
func passedThrough(d types.BaseVirtualDevice) bool {
	p, ok := d.(*types.VirtualPCIPassthrough)
	if !ok {
		return false
	}
	_, gpu := p.Backing.(*types.VirtualPCIPassthroughVmiopBackingInfo)
	return !gpu
}

func faultTolerant(s types.VirtualMachineFaultToleranceState) bool {
	return s != "" && s != types.VirtualMachineFaultToleranceStateNotConfigured
}

// disksOf lists the virtual disks, and the keys of those that are encrypted.
func disksOf(devices []types.BaseVirtualDevice) (out []backup.VMDisk, sealed map[int32]bool) {
	for _, d := range devices {
		disk, ok := d.(*types.VirtualDisk)
		if !ok {
			continue
		}
		b := footingOf(disk)
		if b.key != nil {
			if sealed == nil {
				sealed = map[int32]bool{}
			}
			sealed[disk.Key] = true
		}
		out = append(out, backup.VMDisk{Key: disk.Key, Label: label(disk), Capacity: capacity(disk), File: fileOf(disk), Unprotectable: b.unprotectable()})
	}
	return out, sealed
}

// footing is what a disk lies on, as far as snapshots care.
type footing struct {
	mode, sharing     string
	physical, unknown bool
	key               *types.CryptoKeyId
}

func footingOf(disk *types.VirtualDisk) footing {
	switch b := disk.Backing.(type) {
	case *types.VirtualDiskFlatVer2BackingInfo:
		return footing{mode: b.DiskMode, sharing: b.Sharing, key: b.KeyId}
	case *types.VirtualDiskSeSparseBackingInfo:
		return footing{mode: b.DiskMode, key: b.KeyId}
	case *types.VirtualDiskSparseVer2BackingInfo:
		return footing{mode: b.DiskMode, key: b.KeyId}
	case *types.VirtualDiskFlatVer1BackingInfo:
		return footing{mode: b.DiskMode}
	case *types.VirtualDiskSparseVer1BackingInfo:
		return footing{mode: b.DiskMode}
	case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
		return footing{mode: b.DiskMode, sharing: b.Sharing, physical: b.CompatibilityMode == string(types.VirtualDiskCompatibilityModePhysicalMode)}
	}
	return footing{unknown: true}
}

// unprotectable says why vSphere leaves the disk out of snapshots, or refuses to make one; "" = it does not.
func (b footing) unprotectable() string {
	switch {
	case b.unknown:
		return "it has a kind of storage that snapshots leave out"
	case b.physical:
		return "it is a raw device mapping in physical mode"
	case strings.HasPrefix(b.mode, "independent"):
		return "it is independent (" + b.mode + "), so snapshots leave it out"
	case b.sharing != "" && b.sharing != string(types.VirtualDiskSharingSharingNone):
		return "other VMs may write to it (" + b.sharing + ")"
	}
	return ""
}

// judge says what of the VM cannot be protected over the transport, and what
// else to know. An export hands out no encrypted disk.
func (f *found) judge(t backup.Transport) {
	exported := t == backup.TransportNFC || t == backup.TransportAuto || t == ""
	v := &f.vm
	v.Unprotectable, v.Disks, v.Warnings = f.whole, slices.Clone(f.disks), nil
	if f.encrypted && exported && v.Unprotectable == "" {
		v.Unprotectable = "it is encrypted, and vSphere exports no encrypted VMs; set the vcenter's transport to hotadd or nbd"
	}
	for i := range v.Disks {
		d := &v.Disks[i]
		switch {
		case v.Unprotectable != "":
			d.Unprotectable = v.Unprotectable
		case d.Unprotectable != "":
		case f.sealed[d.Key] && exported:
			d.Unprotectable = "it is encrypted, and vSphere exports no encrypted disks; set the vcenter's transport to hotadd or nbd"
		}
		if d.Unprotectable != "" && v.Unprotectable == "" {
			v.Warnings = append(v.Warnings, fmt.Sprintf("%s cannot be backed up: %s.", d.Label, d.Unprotectable))
		}
	}
	if v.Unprotectable != "" {
		v.Warnings = append(v.Warnings, "The VM cannot be backed up: "+v.Unprotectable+".")
	} else if f.encrypted {
		v.Warnings = append(v.Warnings, "The VM is encrypted. Its images hold what the guest sees, encrypted by the repository and not by vSphere.")
	}
	v.Warnings = append(v.Warnings, f.notes...)
}

// notes tell of what hangs on the VM from outside: no image holds it.
func notes(devices []types.BaseVirtualDevice) []string {
	var out []string
	for _, d := range devices {
		v := d.GetVirtualDevice()
		switch b := v.Backing.(type) {
		case *types.VirtualCdromIsoBackingInfo:
			if v.Connectable != nil && v.Connectable.Connected && b.FileName != "" {
				out = append(out, fmt.Sprintf("%s holds %s, which is not part of an image; a restore needs it again only if the guest does.", label(d), b.FileName))
			}
		case *types.VirtualDiskFlatVer2BackingInfo:
			if id := b.BackingObjectId; id != nil && strings.HasPrefix(*id, "rfc4122.") {
				out = append(out, fmt.Sprintf("%s lies on a virtual volume: its storage policy is not part of an image.", label(d)))
			}
		}
	}
	return out
}
