package vsphere_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/vsphere"
)

// edit changes the configuration that an image keeps of its VM.
func (r *rig) edit(img *image, change func(*vsphere.MachineConfig, *types.VirtualMachineConfigInfo)) {
	r.Helper()
	var m vsphere.MachineConfig
	var c types.VirtualMachineConfigInfo
	r.ok(json.Unmarshal(img.manifest.Machine, &m))
	r.ok(types.NewJSONDecoder(bytes.NewReader(m.Config)).Decode(&c))
	change(&m, &c)
	var b bytes.Buffer
	r.ok(types.NewJSONEncoder(&b).Encode(&c))
	m.Config = bytes.TrimSpace(b.Bytes())
	raw, err := json.Marshal(m)
	r.ok(err)
	img.manifest.Machine = raw
}

func (r *rig) look(img *image, vm string, c backup.RestoreCheck) (backup.RestoreFindings, error) {
	r.Helper()
	if vm != "" {
		c.MOID = r.lab.Moid(vm)
	}
	return r.session.CheckRestore(r.Context(), c, img)
}

// told makes sure that the look warns of each of these, and of nothing else.
func (r *rig) told(f backup.RestoreFindings, err error, says ...string) {
	r.Helper()
	r.ok(err)
	if len(f.Warnings) != len(says) {
		r.Errorf("warnings are %q, want %d", f.Warnings, len(says))
	}
	text := strings.Join(f.Warnings, "\n")
	for _, s := range says {
		if !strings.Contains(text, s) {
			r.Errorf("warnings are %q, want %q in them", f.Warnings, s)
		}
	}
}

func TestALookAtARestoreTellsWhatItWouldDoAndDoesNothing(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	files := r.files("vm02")
	asNew := backup.RestoreCheck{NewVM: &backup.RestoreNewVM{Name: "copy"}}
	f, err := r.look(img, "", asNew)
	r.told(f, err)
	if len(f.MACs) != 0 {
		t.Errorf("MACs %v of a VM that gets new ones", f.MACs)
	}
	inPlace := backup.RestoreCheck{InPlace: &backup.RestoreInPlace{PowerOff: true, Safety: backup.SafetyQuick}}
	f, err = r.look(img, "vm02", inPlace)
	r.told(f, err)
	if f.PowerState != backup.PoweredOn || len(f.MACs) != 1 || f.MACs[0] != r.machine("vm02").NICs[0].MAC {
		t.Errorf("found %+v, want a running VM with its MAC", f)
	}
	f, err = r.look(img, "vm01", backup.RestoreCheck{Disk: &backup.RestoreDisk{SourceKey: 2000, Mode: backup.DiskAttach}})
	r.told(f, err)
	r.noTrace("copy")
	if now := r.files("vm02"); strings.Join(now, " ") != strings.Join(files, " ") || r.vm("vm02").PowerState != "poweredOn" {
		t.Errorf("a look changed the VM: %v, were %v", now, files)
	}
	_, err = r.look(img, "vm02", backup.RestoreCheck{InPlace: &backup.RestoreInPlace{Safety: backup.SafetyQuick}})
	wantCode(t, err, backup.VMRunning)
	r.snap("vm02", "before the update")
	_, err = r.look(img, "vm02", inPlace)
	if e := wantCode(t, err, backup.PreflightFailed); !strings.Contains(e.Message, "before the update") {
		t.Errorf("message = %q, want the snapshot's name in it", e.Message)
	}
}

func TestALookNamesWhatTheImageCannotBringBack(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	r.edit(img, func(m *vsphere.MachineConfig, c *types.VirtualMachineConfigInfo) {
		c.Hardware.Device = append(c.Hardware.Device, &types.VirtualTPM{VirtualDevice: types.VirtualDevice{Key: 11000}})
		c.KeyId = &types.CryptoKeyId{KeyId: "key-1"}
		m.Guest.IPs = []string{"10.0.0.5", "fe80::1", "127.0.0.1", "2001:db8::5"}
	})
	f, err := r.look(img, "", backup.RestoreCheck{NewVM: &backup.RestoreNewVM{Name: "copy", PreserveIdentity: true}})
	r.told(f, err, "virtual TPM was left out", "was encrypted")
	if strings.Join(f.IPs, " ") != "10.0.0.5 2001:db8::5" || len(f.MACs) != 1 {
		t.Errorf("addresses %v and %v, want those that could be another's too", f.IPs, f.MACs)
	}
}

// seed:A49
func TestALookComparesMemoryWithHostAndPool(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	r.edit(img, func(_ *vsphere.MachineConfig, c *types.VirtualMachineConfigInfo) { c.Hardware.MemoryMB = 1 << 20 })
	n := &backup.RestoreNewVM{Name: "copy", PowerOn: true}
	f, err := r.look(img, "", backup.RestoreCheck{NewVM: &backup.RestoreNewVM{Name: "copy"}})
	r.told(f, err, "cannot be powered on")
	r.edit(img, func(_ *vsphere.MachineConfig, c *types.VirtualMachineConfigInfo) { c.Hardware.MemoryMB = 3 << 10 })
	f, err = r.look(img, "", backup.RestoreCheck{NewVM: n})
	r.told(f, err, "MiB free")
	r.edit(img, func(_ *vsphere.MachineConfig, c *types.VirtualMachineConfigInfo) {
		c.Hardware.MemoryMB = 32
		reserved := int64(1 << 20)
		c.MemoryAllocation = &types.ResourceAllocationInfo{Reservation: &reserved}
	})
	_, err = r.look(img, "", backup.RestoreCheck{NewVM: n})
	if e := wantCode(t, err, backup.PreflightFailed); e.Field != "new_vm.power_on" || !strings.Contains(e.Message, "resource pool") {
		t.Errorf("field %q, message %q, want the pool's memory refused", e.Field, e.Message)
	}
}

func TestALookTellsOfDisksThatCameWentOrGrewSinceTheImage(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	r.ok(r.lab.SetPower(t.Context(), "vm02", false))
	disks, unit := r.vm("vm02").Disks, int32(5)
	list := r.devices("vm02")
	grown := list.FindByKey(disks[0].Key).(*types.VirtualDisk)
	grown.CapacityInBytes, grown.CapacityInKB = 2*grown.CapacityInBytes, 2*grown.CapacityInKB
	r.change("vm02", types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{Operation: "edit", Device: grown},
		&types.VirtualDeviceConfigSpec{Operation: "remove", Device: &types.VirtualDisk{VirtualDevice: types.VirtualDevice{Key: disks[1].Key}}},
		&types.VirtualDeviceConfigSpec{Operation: "add", FileOperation: "create", Device: &types.VirtualDisk{
			VirtualDevice: types.VirtualDevice{Key: -1, ControllerKey: 1000, UnitNumber: &unit, Backing: &types.VirtualDiskFlatVer2BackingInfo{
				VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: "[LocalDS_0] vm02/late.vmdk"}, DiskMode: "persistent",
			}},
			CapacityInKB: 1024,
		}},
	}})
	f, err := r.look(img, "vm02", backup.RestoreCheck{InPlace: &backup.RestoreInPlace{Safety: backup.SafetyQuick}})
	r.told(f, err, "has grown", "comes back", "late.vmdk")
	f, err = r.look(img, "vm02", backup.RestoreCheck{Disk: &backup.RestoreDisk{SourceKey: disks[0].Key, Mode: backup.DiskReplace}})
	r.told(f, err, "has grown")
}

func TestADatastoreClusterTakesAVMOnItsFreestDatastore(t *testing.T) {
	r := setup(t, lab.Config{VMs: 2, DiskSize: 8 << 20})
	img := r.take("vm01", "b1")
	c, err := govmomi.NewClient(t.Context(), r.lab.URL(), true)
	r.ok(err)
	defer func() { _ = c.Logout(t.Context()) }()
	finder := find.NewFinder(c.Client)
	folder, err := finder.Folder(t.Context(), "/DC0/datastore")
	r.ok(err)
	pod, err := folder.CreateStoragePod(t.Context(), "gold")
	r.ok(err)
	store, err := finder.Datastore(t.Context(), "/DC0/datastore/LocalDS_1")
	r.ok(err)
	task, err := object.NewFolder(c.Client, pod.Reference()).MoveInto(t.Context(), []types.ManagedObjectReference{store.Reference()})
	r.ok(err)
	r.ok(task.Wait(t.Context()))
	n := backup.RestoreNewVM{Name: "copy", Datastore: "gold"}
	f, err := r.look(img, "", backup.RestoreCheck{NewVM: &n})
	r.told(f, err, `datastore cluster "gold"`)
	done, err := r.restore(img, "r1", n)
	r.ok(err)
	r.sameDisks(img, done.MOID)
	if got := r.machine("copy").Datastores; len(got) != 1 || got[0] != "LocalDS_1" {
		t.Errorf("the VM lies on %v, want on LocalDS_1 of the cluster", got)
	}
}
