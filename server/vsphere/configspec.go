package vsphere

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

// runtimeKeys are entries of a VM's extra configuration that belong to one
// life of it: a copy must not have them.
var runtimeKeys = []string{
	"checkpoint.", "cpuid.", "kura.", "migrate.", "monitor.phys_bits_used", "nvram", "numa.autosize.", "sched.swap.",
	"softPowerOff", "toolsInstallManager.", "uuid.", "vc.uuid", "viv.", "vmotion.", "vmware.tools.", "vmxstats.",
}

func isRuntimeKey(key string) bool {
	return strings.HasSuffix(key, "ctkEnabled") || slices.ContainsFunc(runtimeKeys, func(p string) bool { return strings.HasPrefix(key, p) })
}

// extraConfig is what of the image's extra configuration belongs to the VM itself.
func extraConfig(c *types.VirtualMachineConfigInfo) map[string]string {
	out := map[string]string{}
	for _, o := range c.ExtraConfig {
		v := o.GetOptionValue()
		if value, ok := v.Value.(string); ok && !isRuntimeKey(v.Key) {
			out[v.Key] = value
		}
	}
	return out
}

func optionValue(key, value string) types.BaseOptionValue {
	return &types.OptionValue{Key: key, Value: value}
}

// hardware is the part of a spec that a VM has whether it is new or overwritten.
func hardware(c *types.VirtualMachineConfigInfo) types.VirtualMachineConfigSpec {
	spec := types.VirtualMachineConfigSpec{
		GuestId: c.GuestId, AlternateGuestName: c.AlternateGuestName,
		NumCPUs: c.Hardware.NumCPU, NumCoresPerSocket: c.Hardware.NumCoresPerSocket, MemoryMB: int64(c.Hardware.MemoryMB),
		CpuHotAddEnabled: c.CpuHotAddEnabled, CpuHotRemoveEnabled: c.CpuHotRemoveEnabled, MemoryHotAddEnabled: c.MemoryHotAddEnabled,
		CpuAllocation: c.CpuAllocation, MemoryAllocation: c.MemoryAllocation, LatencySensitivity: c.LatencySensitivity,
		MemoryReservationLockedToMax: c.MemoryReservationLockedToMax, NestedHVEnabled: c.NestedHVEnabled, VPMCEnabled: c.VPMCEnabled,
		Firmware: c.Firmware, Flags: flags(c.Flags), PowerOpInfo: &c.DefaultPowerOps, Tools: tools(c.Tools), SwapPlacement: c.SwapPlacement,
		VirtualICH7MPresent: c.Hardware.VirtualICH7MPresent, VirtualSMCPresent: c.Hardware.VirtualSMCPresent,
		ConsolePreferences: c.ConsolePreferences, RebootPowerOff: c.RebootPowerOff, MaxMksConnections: c.MaxMksConnections,
		GuestAutoLockEnabled: c.GuestAutoLockEnabled, MessageBusTunnelEnabled: c.MessageBusTunnelEnabled,
	}
	if m := spec.MemoryAllocation; m != nil {
		alone := *m
		alone.OverheadLimit = nil // vSphere reckons it
		spec.MemoryAllocation = &alone
	}
	if b := c.BootOptions; b != nil {
		boot := *b
		boot.BootOrder = nil // it names devices by keys, which are known when they are made
		spec.BootOptions = &boot
	}
	return spec
}

// flags leaves out what vSphere alone sets.
func flags(f types.VirtualMachineFlagInfo) *types.VirtualMachineFlagInfo {
	f.RecordReplayEnabled, f.CbrcCacheEnabled, f.FaultToleranceType = nil, nil, ""
	return &f
}

func tools(t *types.ToolsConfigInfo) *types.ToolsConfigInfo {
	if t == nil {
		return nil
	}
	return &types.ToolsConfigInfo{
		AfterPowerOn: t.AfterPowerOn, AfterResume: t.AfterResume, BeforeGuestStandby: t.BeforeGuestStandby,
		BeforeGuestShutdown: t.BeforeGuestShutdown, BeforeGuestReboot: t.BeforeGuestReboot,
		ToolsUpgradePolicy: t.ToolsUpgradePolicy, SyncTimeWithHost: t.SyncTimeWithHost, SyncTimeWithHostAllowed: t.SyncTimeWithHostAllowed,
	}
}

// newDevices are the devices of a VM that is made of an image: controllers,
// the disks that the image has, network cards, drives without a medium.
// What cannot be made elsewhere is left out, with a message each.
func newDevices(c *types.VirtualMachineConfigInfo, disks map[int32]*types.VirtualDisk, nics map[int32]types.BaseVirtualDevice) (changes []types.BaseVirtualDeviceConfigSpec, messages []string) {
	used := map[int32]bool{}
	for _, d := range c.Hardware.Device {
		used[d.GetVirtualDevice().ControllerKey] = true
	}
	for _, d := range c.Hardware.Device {
		v := d.GetVirtualDevice()
		var device types.BaseVirtualDevice
		op := types.VirtualDeviceConfigSpecFileOperation("")
		switch d.(type) {
		case *types.VirtualDisk:
			if disk, ok := disks[v.Key]; ok {
				device, op = disk, types.VirtualDeviceConfigSpecFileOperationCreate
			} else {
				messages = append(messages, fmt.Sprintf("%s is not in the image and was left out.", label(d)))
			}
		case types.BaseVirtualEthernetCard:
			if card, ok := nics[v.Key]; ok {
				device = card
			}
		case types.BaseVirtualSCSIController, *types.VirtualAHCIController, *types.VirtualNVMEController, *types.VirtualUSBController, *types.VirtualUSBXHCIController:
			device = bareController(d)
		case *types.VirtualIDEController:
			if used[v.Key] { // vSphere makes the unused ones
				device = bareController(d)
			}
		case *types.VirtualPCIController, *types.VirtualPS2Controller, *types.VirtualSIOController, *types.VirtualKeyboard,
			*types.VirtualPointingDevice, *types.VirtualMachineVideoCard, *types.VirtualMachineVMCIDevice:
			// Every VM has these; vSphere makes them.
		case *types.VirtualCdrom, *types.VirtualFloppy:
			device = emptyDrive(d)
		case *types.VirtualSerialPort:
			if _, portable := v.Backing.(*types.VirtualSerialPortURIBackingInfo); portable {
				device = d
			} else {
				messages = append(messages, fmt.Sprintf("%s is bound to its host or datastore and was left out.", label(d)))
			}
		case *types.VirtualTPM:
			messages = append(messages, "The virtual TPM was left out: its secrets are not in the image.")
		default:
			messages = append(messages, fmt.Sprintf("%s is bound to its host, or not known to kura, and was left out.", label(d)))
		}
		if device != nil {
			changes = append(changes, &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: op, Device: device})
		}
	}
	return changes, messages
}

// bareController is the controller without the list of what hangs on it. The
// device is the caller's own copy, decoded from the image.
func bareController(d types.BaseVirtualDevice) types.BaseVirtualDevice {
	d.(types.BaseVirtualController).GetVirtualController().Device = nil
	return d
}

// emptyDrive is a drive without a medium: an ISO or a host's drive may not be there.
func emptyDrive(d types.BaseVirtualDevice) types.BaseVirtualDevice {
	v := d.GetVirtualDevice()
	remote := types.VirtualDeviceRemoteDeviceBackingInfo{UseAutoDetect: types.NewBool(false)}
	if _, floppy := d.(*types.VirtualFloppy); floppy {
		v.Backing = &types.VirtualFloppyRemoteDeviceBackingInfo{VirtualDeviceRemoteDeviceBackingInfo: remote}
	} else {
		v.Backing = &types.VirtualCdromRemotePassthroughBackingInfo{VirtualDeviceRemoteDeviceBackingInfo: remote}
	}
	v.Connectable = &types.VirtualDeviceConnectInfo{AllowGuestControl: true}
	return d
}

// newDisk is the disk as it is made anew: same place on the same controller, thin or thick as it was, on the given datastore.
func newDisk(d *types.VirtualDisk, capacity int64, datastore string) *types.VirtualDisk {
	mode := string(types.VirtualDiskModePersistent)
	thin, scrub := types.NewBool(true), (*bool)(nil)
	if thick(d) {
		thin, scrub = types.NewBool(false), d.Backing.(*types.VirtualDiskFlatVer2BackingInfo).EagerlyScrub
	}
	return &types.VirtualDisk{
		VirtualDevice: types.VirtualDevice{
			Key: d.Key, ControllerKey: d.ControllerKey, UnitNumber: d.UnitNumber,
			DeviceInfo: &types.Description{Label: label(d)},
			Backing: &types.VirtualDiskFlatVer2BackingInfo{
				VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: "[" + datastore + "]"},
				DiskMode:                     mode, ThinProvisioned: thin, EagerlyScrub: scrub,
			},
		},
		CapacityInKB: capacity / 1024, CapacityInBytes: capacity, Shares: d.Shares, StorageIOAllocation: d.StorageIOAllocation,
	}
}

// thick says whether all of the disk's space is taken from the start.
func thick(d *types.VirtualDisk) bool {
	b, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	return ok && b.ThinProvisioned != nil && !*b.ThinProvisioned
}

// newCard is the network card on its new network. Without keep it gets a MAC of its own.
func newCard(d types.BaseVirtualDevice, backing types.BaseVirtualDeviceBackingInfo, keep bool) types.BaseVirtualDevice {
	card := d.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard()
	card.Backing = backing
	card.DeviceInfo, card.SlotInfo, card.ExternalId, card.SubnetId = nil, nil, "", ""
	if !keep {
		card.MacAddress = ""
		card.AddressType = string(types.VirtualEthernetCardMacTypeGenerated)
	}
	if card.Connectable != nil { // its connect states stay as they were
		card.Connectable.Status = ""
	}
	return d
}
