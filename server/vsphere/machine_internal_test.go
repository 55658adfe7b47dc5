package vsphere

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:H1
func TestAConfigurationComesBackFromTheImageAsItWas(t *testing.T) {
	unit := func(n int32) *int32 { return &n }
	want := &types.VirtualMachineConfigInfo{
		ChangeVersion: "x", Modified: time.Date(2026, 3, 1, 2, 3, 4, 0, time.UTC), Name: "a/b ü", Uuid: "u", InstanceUuid: "i",
		Firmware: "efi", Annotation: "line\nline", Template: false, ChangeTrackingEnabled: types.NewBool(true),
		Files: types.VirtualMachineFileInfo{VmPathName: "[ds] a/a.vmx"},
		Hardware: types.VirtualHardware{NumCPU: 2, NumCoresPerSocket: unit(2), MemoryMB: 4096, Device: []types.BaseVirtualDevice{
			&types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{
				VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: 1000}, BusNumber: 0, Device: []int32{2000}},
				SharedBus:         types.VirtualSCSISharingNoSharing,
			}},
			&types.VirtualDisk{
				VirtualDevice: types.VirtualDevice{Key: 2000, ControllerKey: 1000, UnitNumber: unit(0), Backing: &types.VirtualDiskFlatVer2BackingInfo{
					VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: "[ds] a/a-000001.vmdk"},
					DiskMode:                     "persistent", Uuid: "6000C29f", ThinProvisioned: types.NewBool(false),
					Parent: &types.VirtualDiskFlatVer2BackingInfo{DiskMode: "persistent"},
				}},
				CapacityInBytes: 1 << 40, CapacityInKB: 1 << 30,
			},
			&types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: types.VirtualEthernetCard{
				VirtualDevice: types.VirtualDevice{Key: 4000, UnitNumber: unit(7), Backing: &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
					Port: types.DistributedVirtualSwitchPortConnection{SwitchUuid: "s", PortgroupKey: "dvportgroup-1", ConnectionCookie: 7},
				}},
				AddressType: "assigned", MacAddress: "00:50:56:01:02:03", WakeOnLanEnabled: types.NewBool(true),
			}}},
			&types.VirtualCdrom{VirtualDevice: types.VirtualDevice{Key: 3000, Backing: &types.VirtualCdromIsoBackingInfo{}}},
		}},
		ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: "a.b", Value: "c"}, &types.OptionValue{Key: "n", Value: int32(3)}},
	}
	raw, err := encodeVim(want)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(MachineConfig{Version: machineVersion, Name: "a/b ü", Networks: map[int32]string{4000: "prod"}, Config: raw})
	if err != nil {
		t.Fatal(err)
	}
	m, got, err := decodeMachine(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration differs (-want +got):\n%s", diff)
	}
	if m.Networks[4000] != "prod" {
		t.Errorf("networks = %v", m.Networks)
	}
}

func TestAConfigurationOfAnotherTimeOrOfNoSenseIsRefused(t *testing.T) {
	for raw, want := range map[string]backup.Code{
		`{"version": 2, "config": {}}`:                    backup.Invalid,
		`{"version": 1, "config": {"_typeName": "Nothing`: backup.RepositoryDamaged,
		`{"version": 1, "config": 7}`:                     backup.RepositoryDamaged,
	} {
		if _, _, err := decodeMachine(json.RawMessage(raw)); backup.CodeOf(err) != want {
			t.Errorf("decodeMachine(%s) = %v, want code %s", raw, err, want)
		}
	}
}

func TestALeaseNamesItsDisksInEitherWay(t *testing.T) {
	unit := func(n int32) *int32 { return &n }
	disk := func(key, controller, n int32, file string) *types.VirtualDisk {
		return &types.VirtualDisk{VirtualDevice: types.VirtualDevice{Key: key, ControllerKey: controller, UnitNumber: unit(n), Backing: &types.VirtualDiskFlatVer2BackingInfo{
			VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: file}}}}
	}
	devices := []types.BaseVirtualDevice{
		&types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: 1000}}}},
		&types.VirtualLsiLogicController{VirtualSCSIController: types.VirtualSCSIController{VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: 1001}, BusNumber: 1}}},
		disk(2000, 1000, 0, "[ds] a/a.vmdk"), disk(2001, 1000, 1, "[ds] a/b.vmdk"), disk(2016, 1001, 0, "[ds] a/c.vmdk"),
	}
	for name, urls := range map[string][]types.HttpNfcLeaseDeviceUrl{
		"by controller and unit": {
			{Key: "/vm-1/ParaVirtualSCSIController0:1", Url: "2001"}, {Key: "/vm-1/VirtualLsiLogicController1:0", Url: "2016"},
			{Key: "/vm-1/ParaVirtualSCSIController0:0", Url: "2000"}, {Key: "/vm-1/nvram", Url: "x", Disk: types.NewBool(false)},
		},
		"by file": {{TargetId: "c.vmdk", Url: "2016"}, {TargetId: "a.vmdk", Url: "2000"}, {TargetId: "b.vmdk", Url: "2001"}},
	} {
		got := urlsByDisk(urls, devices)
		if len(got) != 3 || got[2000].Url != "2000" || got[2001].Url != "2001" || got[2016].Url != "2016" {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := urlsByDisk([]types.HttpNfcLeaseDeviceUrl{{Url: "a"}, {Url: "b"}, {Url: "c"}}, devices); len(got) != 0 {
		t.Errorf("disks were guessed: %v", got)
	}
}

func TestADiskUUIDIsWrittenAsVSphereReadsIt(t *testing.T) {
	if got, want := spacedUUID("6000C29f-fd9a-1234-5678-0a1b2c3d4e5f"), "60 00 c2 9f fd 9a 12 34-56 78 0a 1b 2c 3d 4e 5f"; got != want {
		t.Errorf("spacedUUID = %q, want %q", got, want)
	}
}
