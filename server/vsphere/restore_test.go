package vsphere_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// restore makes a new VM of the image.
func (r *rig) restore(img *image, job string, n backup.RestoreNewVM) (backup.RestoredVM, error) {
	r.Helper()
	var most int64
	done, _, err := r.session.ImportVM(r.Context(), backup.ImportDraft{Marker: marker(job), NewVM: n}, img, func(n int64) {
		if n < most {
			r.Errorf("progress went back from %d to %d", most, n)
		}
		most = n
	})
	if err == nil && most == 0 {
		r.Error("no progress was told")
	}
	return done, err
}

func (r *rig) sameDisks(img *image, vm string) {
	r.Helper()
	v := r.vm(vm)
	if len(v.Disks) != len(img.disks) {
		r.Fatalf("%s has %d disks, want %d", vm, len(v.Disks), len(img.disks))
	}
	for _, d := range v.Disks {
		if sum(img.disks[d.Key]) != r.guestSum(v.Moid, d.Key) {
			r.Errorf("%s of %s differs from the image", d.Label, vm)
		}
	}
}

// noTrace makes sure that nothing of a restore is left.
func (r *rig) noTrace(names ...string) {
	r.Helper()
	for _, v := range r.lab.VMs() {
		if strings.HasPrefix(v.Name, "kura") || slices.Contains(names, v.Name) {
			r.Errorf("the VM %q is left behind", v.Name)
		}
	}
}

// bootsFrom names the devices of the VM's boot order by what cannot be mistaken.
func (r *rig) bootsFrom(vm string) (order []string) {
	r.Helper()
	devices := r.devices(vm)
	for _, b := range r.config(vm).BootOptions.BootOrder {
		switch b := b.(type) {
		case *types.VirtualMachineBootOptionsBootableDiskDevice:
			order = append(order, label(r, devices.FindByKey(b.DeviceKey)))
		case *types.VirtualMachineBootOptionsBootableEthernetDevice:
			order = append(order, label(r, devices.FindByKey(b.DeviceKey)))
		default:
			order = append(order, fmt.Sprintf("%T", b))
		}
	}
	return order
}

func label(r *rig, d types.BaseVirtualDevice) string {
	r.Helper()
	if d == nil {
		return "nothing"
	}
	return d.GetVirtualDevice().DeviceInfo.GetDescription().Label
}

func TestANewVMBootsFromWhatItsImageDidAndIsTheApplianceThatWas(t *testing.T) {
	r := setup(t, small())
	r.ok(r.lab.SetPower(t.Context(), "vm02", false))
	card := r.devices("vm02").SelectByType((*types.VirtualEthernetCard)(nil))[0].GetVirtualDevice().Key
	add := types.ArrayUpdateSpec{Operation: types.ArrayUpdateOperationAdd}
	r.change("vm02", types.VirtualMachineConfigSpec{
		BootOptions: &types.VirtualMachineBootOptions{EnterBIOSSetup: types.NewBool(true), BootOrder: []types.BaseVirtualMachineBootOptionsBootableDevice{
			&types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: 2001}, &types.VirtualMachineBootOptionsBootableEthernetDevice{DeviceKey: card},
			&types.VirtualMachineBootOptionsBootableCdromDevice{}, &types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: 2000},
		}},
		VAppConfig: &types.VmConfigSpec{
			Product:  []types.VAppProductSpec{{ArrayUpdateSpec: add, Info: &types.VAppProductInfo{Key: 1, Name: "appliance"}}},
			Property: []types.VAppPropertySpec{{ArrayUpdateSpec: add, Info: &types.VAppPropertyInfo{Key: 7, Id: "ip0", Value: "10.1.2.3"}}},
		},
	})
	img, want := r.take("vm02", "b1"), r.bootsFrom("vm02")
	if len(want) != 4 || want[0] != "Hard disk 2" {
		t.Fatalf("the VM boots from %q", want)
	}
	done, messages, err := r.session.ImportVM(t.Context(), backup.ImportDraft{Marker: marker("r1"), NewVM: backup.RestoreNewVM{Name: "copy"}}, img, func(int64) {})
	r.ok(err)
	if got := r.bootsFrom(done.MOID); !slices.Equal(got, want) {
		t.Errorf("the new VM boots from %q, want %q (%q)", got, want, messages)
	}
	c := r.config(done.MOID)
	if c.BootOptions.EnterBIOSSetup == nil || !*c.BootOptions.EnterBIOSSetup || c.VAppConfig == nil {
		t.Fatalf("the new VM has the boot options %+v and the vApp configuration %v", c.BootOptions, c.VAppConfig)
	}
	if v := c.VAppConfig.GetVmConfigInfo(); len(v.Property) != 1 || v.Property[0].Value != "10.1.2.3" || len(v.Product) != 1 || v.Product[0].Name != "appliance" {
		t.Errorf("the new VM is the appliance %+v", v)
	}
}

// seed:N10 seed:N11 seed:N12 seed:N13 seed:A47
func TestAnImageBecomesANewVMByteForByte(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	r.scribble("vm02", 0, 5)
	done, err := r.restore(img, "r1", backup.RestoreNewVM{Name: "copy/of 100%"})
	r.ok(err)
	r.sameDisks(img, done.MOID)
	was, is := r.vm("vm02"), r.vm(done.MOID)
	if is.PowerState == "poweredOn" {
		t.Error("the new VM runs")
	}
	if done.InstanceUUID != is.InstanceUUID || done.InstanceUUID == was.InstanceUUID || done.Name != "copy/of 100%" {
		t.Errorf("restored %+v of %s", done, was.InstanceUUID)
	}
	old, err := r.session.Machine(t.Context(), was.Moid)
	r.ok(err)
	made, err := r.session.Machine(t.Context(), done.MOID)
	r.ok(err)
	switch {
	case made.CPUs != old.CPUs, made.MemoryMiB != old.MemoryMiB, made.GuestID != old.GuestID:
		t.Errorf("size = %d CPUs, %d MiB, %s, want %d, %d, %s", made.CPUs, made.MemoryMiB, made.GuestID, old.CPUs, old.MemoryMiB, old.GuestID)
	case made.Folder != old.Folder, made.ResourcePool != old.ResourcePool:
		t.Errorf("place = %s, %s, want %s, %s", made.Folder, made.ResourcePool, old.Folder, old.ResourcePool)
	case len(made.NICs) != len(old.NICs) || made.NICs[0].Network != old.NICs[0].Network:
		t.Errorf("network cards = %+v, want %+v", made.NICs, old.NICs)
	case made.NICs[0].MAC == old.NICs[0].MAC || made.NICs[0].MAC == "":
		t.Errorf("MAC = %q, want another than %q", made.NICs[0].MAC, old.NICs[0].MAC)
	case string(made.NVRAM) != string(old.NVRAM) || len(old.NVRAM) == 0:
		t.Errorf("NVRAM has %d bytes, want the same %d", len(made.NVRAM), len(old.NVRAM))
	case fmt.Sprint(made.Tags) != fmt.Sprint(old.Tags):
		t.Errorf("tags = %v, want %v", made.Tags, old.Tags)
	}
	if strings.Contains(string(made.Config), "kura:") {
		t.Error("the marker is still on the VM")
	}
	r.scribble(done.MOID, 0, 7) // its disk is its own
	r.sameDisks(r.take("vm02", "b2"), "vm02")
}

func TestANewVMMayKeepItsIdentityAndStart(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm03", "b1")
	was := r.vm("vm03")
	old, err := r.session.Machine(t.Context(), was.Moid)
	r.ok(err)
	r.ok(r.lab.RemoveVM(t.Context(), "vm03"))
	done, err := r.restore(img, "r1", backup.RestoreNewVM{Name: "vm03", PreserveIdentity: true, PowerOn: true})
	r.ok(err)
	is := r.vm(done.MOID)
	if is.InstanceUUID != was.InstanceUUID || done.BIOSUUID != old.BIOSUUID || is.PowerState != "poweredOn" {
		t.Errorf("restored %+v %s, want %s running", done, is.PowerState, was.InstanceUUID)
	}
	made, err := r.session.Machine(t.Context(), done.MOID)
	r.ok(err)
	if made.NICs[0].MAC != old.NICs[0].MAC || fmt.Sprint(made.Tags) != fmt.Sprint(old.Tags) {
		t.Errorf("MAC %s, tags %v, want %s, %v", made.NICs[0].MAC, made.Tags, old.NICs[0].MAC, old.Tags)
	}
}

func TestANewVMMayBeATemplate(t *testing.T) {
	r := setup(t, small())
	done, err := r.restore(r.take("vm01", "b1"), "r1", backup.RestoreNewVM{Name: "golden", AsTemplate: true})
	r.ok(err)
	m, err := r.session.Machine(t.Context(), done.MOID)
	r.ok(err)
	if !m.Template || len(m.Warnings) == 0 || m.Disks[0].Unprotectable == "" {
		t.Errorf("template %v with warnings %v", m.Template, m.Warnings)
	}
}

// seed:A49
func TestAPlaceThatDoesNotExistIsRefusedWithTheChoices(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm01", "b1")
	for name, c := range map[string]struct {
		vm    backup.RestoreNewVM
		code  backup.Code
		field string
		says  string
	}{
		"datacenter": {backup.RestoreNewVM{Datacenter: "X"}, backup.Invalid, "new_vm.datacenter", "/DC0"},
		"datastore":  {backup.RestoreNewVM{Datastore: "X"}, backup.Invalid, "new_vm.datastore", "LocalDS_0"},
		"folder":     {backup.RestoreNewVM{Folder: "X"}, backup.Invalid, "new_vm.folder", "/DC0/vm/prod"},
		"pool":       {backup.RestoreNewVM{ResourcePool: "X"}, backup.Invalid, "new_vm.resource_pool", "/DC0/host/"},
		"cluster":    {backup.RestoreNewVM{Cluster: "X"}, backup.Invalid, "new_vm.cluster", "DC0_C0"},
		"host":       {backup.RestoreNewVM{Host: "X"}, backup.Invalid, "new_vm.host", "DC0_C0_H0"},
		"network":    {backup.RestoreNewVM{NetworkMappings: map[string]string{"DC0_DVPG0": "X"}}, backup.Invalid, "new_vm.network_mappings", "VM Network"},
		"name taken": {backup.RestoreNewVM{Name: "vm01"}, backup.Conflict, "new_vm.name", "vm01"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.vm.Name == "" {
				c.vm.Name = "new"
			}
			_, looked := r.look(img, "", backup.RestoreCheck{NewVM: &c.vm})
			_, done := r.restore(img, "r1", c.vm)
			for _, err := range []error{looked, done} {
				e := wantCode(t, err, c.code)
				if e.Field != c.field || !strings.Contains(e.Message, c.says) {
					t.Errorf("field %q, message %q, want %q and %q in it", e.Field, e.Message, c.field, c.says)
				}
			}
			r.noTrace("new")
		})
	}
}

func TestANewVMGoesWhereItIsTold(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm01", "b1")
	done, err := r.restore(img, "r1", backup.RestoreNewVM{
		Name: "moved", Folder: "test", Datastore: "LocalDS_1", Cluster: "DC0_C0", NetworkMappings: map[string]string{"DC0_DVPG0": "VM Network"},
	})
	r.ok(err)
	m, err := r.session.Machine(t.Context(), done.MOID)
	r.ok(err)
	if m.Folder != "/DC0/vm/test" || !slices.Equal(m.Datastores, []string{"LocalDS_1"}) || m.NICs[0].Network != "VM Network" {
		t.Errorf("the VM lies in %s on %v with %v", m.Folder, m.Datastores, m.NICs)
	}
	r.sameDisks(img, done.MOID)
}

func TestAFailedImportLeavesNothing(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	for name, f := range map[string]lab.Fault{
		"upload cut":         {Kind: "upload_cut", After: 500_000},
		"lease expires":      {Kind: "lease_expire", After: 500_000},
		"datastore full":     {Kind: "datastore_full", Method: "upload"},
		"import refused":     {Kind: "datastore_full", Method: "ImportVApp"},
		"end of work failed": {Kind: "task_fail", Method: "ReconfigVM_Task"},
	} {
		t.Run(name, func(t *testing.T) {
			r.ok(r.lab.Arm(f))
			_, err := r.restore(img, "r1", backup.RestoreNewVM{Name: "half"})
			if err == nil || !backup.CodeOf(err).Transient() {
				t.Errorf("err = %v, want one that is worth another try", err)
			}
			if armed := r.lab.Armed(); len(armed) != 0 {
				t.Errorf("the fault did not strike: %v", armed)
				r.lab.ClearFaults()
			}
			r.noTrace("half")
		})
	}
	done, err := r.restore(img, "r2", backup.RestoreNewVM{Name: "half"})
	r.ok(err)
	r.sameDisks(img, done.MOID)
}

func TestACancelledImportLeavesNothing(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, _, err := r.session.ImportVM(ctx, backup.ImportDraft{Marker: marker("r1"), NewVM: backup.RestoreNewVM{Name: "half"}}, img, func(int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want context.Canceled", err)
	}
	r.noTrace("half")
	before, files := r.guestSum("vm02", 0), r.files("vm02")
	again, cancelAgain := context.WithCancel(t.Context())
	defer cancelAgain()
	_, _, err = r.session.OverwriteVM(again, backup.OverwriteDraft{
		Marker: marker("r2"), MOID: r.lab.Moid("vm02"), InPlace: backup.RestoreInPlace{PowerOff: true, Safety: backup.SafetyQuick},
	}, img, func(int64) { cancelAgain() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want context.Canceled", err)
	}
	r.noTrace()
	if r.guestSum("vm02", 0) != before || !slices.Equal(r.files("vm02"), files) || r.vm("vm02").PowerState != "poweredOn" {
		t.Error("a cancelled restore changed the VM")
	}
}

func TestTooLittleSpaceIsSaidBeforeAnythingIsMade(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm01", "b1")
	full := newLab(t, lab.Config{VMs: -1, DatastoreSize: 1 << 20})
	s, err := connector(t, quick()).Connect(t.Context(), vcenter(full))
	r.ok(err)
	_, _, err = s.ImportVM(t.Context(), backup.ImportDraft{Marker: marker("r1"), NewVM: backup.RestoreNewVM{Name: "new"}}, img, func(int64) {})
	wantCode(t, err, backup.NoSpace)
	if vms := full.VMs(); len(vms) != 0 {
		t.Errorf("VMs = %v, want none", vms)
	}
}

// seed:A47
func TestAnImageIsRestoredInAnotherVCenter(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	there := setup(t, lab.Config{VMs: -1})
	done, err := there.restore(img, "r1", backup.RestoreNewVM{Name: "vm02"})
	r.ok(err)
	there.sameDisks(img, done.MOID)
}
