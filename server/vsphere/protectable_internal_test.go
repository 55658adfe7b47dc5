package vsphere

import (
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// machineOf is a running VM with a controller and a disk on that backing.
func machineOf(b types.BaseVirtualDeviceBackingInfo) mo.VirtualMachine {
	var vm mo.VirtualMachine
	vm.Runtime.PowerState = types.VirtualMachinePowerStatePoweredOn
	vm.Config = &types.VirtualMachineConfigInfo{InstanceUuid: "u", Hardware: types.VirtualHardware{Device: []types.BaseVirtualDevice{
		&types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: 1000}}}},
		&types.VirtualDisk{VirtualDevice: types.VirtualDevice{Key: 2000, ControllerKey: 1000, Backing: b}, CapacityInKB: 8},
	}}}
	return vm
}

func plain() mo.VirtualMachine {
	return machineOf(&types.VirtualDiskFlatVer2BackingInfo{DiskMode: "persistent"})
}

func judged(t *testing.T, vm mo.VirtualMachine, by backup.Transport) backup.VirtualMachine {
	t.Helper()
	f, ok := newFound(vm)
	if !ok {
		t.Fatal("the VM is not shown at all")
	}
	f.judge(by)
	return f.vm
}

// seed:N68 seed:A8 seed:H10
func TestEveryDiskThatSnapshotsLeaveOutHasItsReason(t *testing.T) {
	for name, c := range map[string]struct {
		backing types.BaseVirtualDeviceBackingInfo
		reason  string // "" = it is protected
	}{
		"plain":           {&types.VirtualDiskFlatVer2BackingInfo{DiskMode: "persistent"}, ""},
		"space efficient": {&types.VirtualDiskSeSparseBackingInfo{DiskMode: "persistent"}, ""},
		"virtual RDM":     {&types.VirtualDiskRawDiskMappingVer1BackingInfo{CompatibilityMode: "virtualMode", DiskMode: "persistent"}, ""},
		"physical RDM":    {&types.VirtualDiskRawDiskMappingVer1BackingInfo{CompatibilityMode: "physicalMode"}, "physical mode"},
		"independent":     {&types.VirtualDiskFlatVer2BackingInfo{DiskMode: "independent_persistent"}, "independent_persistent"},
		"nonpersistent":   {&types.VirtualDiskFlatVer2BackingInfo{DiskMode: "independent_nonpersistent"}, "independent_nonpersistent"},
		"multi-writer":    {&types.VirtualDiskFlatVer2BackingInfo{DiskMode: "persistent", Sharing: "sharingMultiWriter"}, "other VMs may write"},
		"encrypted":       {&types.VirtualDiskFlatVer2BackingInfo{DiskMode: "persistent", KeyId: &types.CryptoKeyId{KeyId: "k"}}, "encrypted"},
		"memory":          {&types.VirtualDiskLocalPMemBackingInfo{}, "kind of storage"},
	} {
		got := judged(t, machineOf(c.backing), backup.TransportNFC)
		d := got.Disks[0]
		if (d.Unprotectable == "") != (c.reason == "") || !strings.Contains(d.Unprotectable, c.reason) || d.Capacity != 8192 {
			t.Errorf("%s: the disk is %+v, want the reason %q", name, d, c.reason)
		}
		if got.Unprotectable != "" || (len(got.Warnings) == 0) != (c.reason == "") {
			t.Errorf("%s: the VM is %q with warnings %q, want it to say what its disk does", name, got.Unprotectable, got.Warnings)
		}
	}
}

// seed:N68 seed:H12
func TestAVMOfWhichNoSnapshotCanBeMadeSaysSoAsAWhole(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*mo.VirtualMachine)
		by     backup.Transport
		reason string
	}{
		"plain":    {func(*mo.VirtualMachine) {}, backup.TransportAuto, ""},
		"template": {func(vm *mo.VirtualMachine) { vm.Config.Template = true }, backup.TransportAuto, "template"},
		"fault tolerant": {func(vm *mo.VirtualMachine) {
			vm.Runtime.FaultToleranceState = types.VirtualMachineFaultToleranceStateRunning
		}, backup.TransportAuto, "Fault Tolerance"},
		"shared bus": {func(vm *mo.VirtualMachine) {
			vm.Config.Hardware.Device[0].(*types.ParaVirtualSCSIController).SharedBus = types.VirtualSCSISharingVirtualSharing
		}, backup.TransportAuto, "shares the bus"},
		"passed through": {func(vm *mo.VirtualMachine) {
			vm.Config.Hardware.Device = append(vm.Config.Hardware.Device, &types.VirtualPCIPassthrough{})
		}, backup.TransportAuto, "passed through"},
		"passed through, but off": {func(vm *mo.VirtualMachine) {
			vm.Config.Hardware.Device = append(vm.Config.Hardware.Device, &types.VirtualPCIPassthrough{})
			vm.Runtime.PowerState = types.VirtualMachinePowerStatePoweredOff
		}, backup.TransportAuto, ""},
		"virtual GPU": {func(vm *mo.VirtualMachine) {
			vm.Config.Hardware.Device = append(vm.Config.Hardware.Device, &types.VirtualPCIPassthrough{VirtualDevice: types.VirtualDevice{Backing: &types.VirtualPCIPassthroughVmiopBackingInfo{}}})
		}, backup.TransportAuto, ""},
		"agent VM": {func(vm *mo.VirtualMachine) {
			vm.Config.ManagedBy = &types.ManagedByInfo{ExtensionKey: "com.vmware.vim.eam"}
		}, backup.TransportAuto, "for itself"},
		"encrypted, exported":       {func(vm *mo.VirtualMachine) { vm.Config.KeyId = &types.CryptoKeyId{} }, backup.TransportNFC, "encrypted"},
		"encrypted, choice is ours": {func(vm *mo.VirtualMachine) { vm.Config.KeyId = &types.CryptoKeyId{} }, backup.TransportAuto, "encrypted"},
		"encrypted, attached":       {func(vm *mo.VirtualMachine) { vm.Config.KeyId = &types.CryptoKeyId{} }, backup.TransportHotAdd, ""},
	} {
		vm := plain()
		c.change(&vm)
		got := judged(t, vm, c.by)
		if (got.Unprotectable == "") != (c.reason == "") || !strings.Contains(got.Unprotectable, c.reason) {
			t.Errorf("%s: the reason is %q, want %q", name, got.Unprotectable, c.reason)
		}
		if got.Disks[0].Unprotectable != got.Unprotectable {
			t.Errorf("%s: the disk says %q, want what the VM says", name, got.Disks[0].Unprotectable)
		}
	}
}

func TestAReasonGoesWhenTheTransportIsAnother(t *testing.T) {
	vm := plain()
	vm.Config.KeyId = &types.CryptoKeyId{}
	f, _ := newFound(vm)
	f.judge(backup.TransportNFC)
	f.judge(backup.TransportNBD)
	if f.vm.Unprotectable != "" || f.vm.Disks[0].Unprotectable != "" || len(f.vm.Warnings) != 1 {
		t.Errorf("over nbd the encrypted VM is %+v, want a warning alone", f.vm)
	}
}

// seed:N68
func TestWhatHangsOnAVMFromOutsideIsNoted(t *testing.T) {
	volume := "rfc4122.1"
	vm := machineOf(&types.VirtualDiskFlatVer2BackingInfo{DiskMode: "persistent", VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{BackingObjectId: &volume}})
	for _, connected := range []bool{true, false} {
		cd := &types.VirtualCdrom{VirtualDevice: types.VirtualDevice{Key: 3000, Connectable: &types.VirtualDeviceConnectInfo{Connected: connected},
			Backing: &types.VirtualCdromIsoBackingInfo{VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: "[nfs] tools.iso"}}}}
		vm.Config.Hardware.Device = append(vm.Config.Hardware.Device, cd)
	}
	got := judged(t, vm, backup.TransportNFC)
	if len(got.Warnings) != 2 || !strings.Contains(got.Warnings[0], "virtual volume") || !strings.Contains(got.Warnings[1], "[nfs] tools.iso") || got.Unprotectable != "" {
		t.Errorf("warnings = %q, want the volume and the ISO that is connected", got.Warnings)
	}
}
