package vsphere_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

func byName(list []backup.VirtualMachine, name string) (backup.VirtualMachine, bool) {
	i := slices.IndexFunc(list, func(v backup.VirtualMachine) bool { return v.Name == name })
	if i < 0 {
		return backup.VirtualMachine{}, false
	}
	return list[i], true
}

// seed:W1
func TestTheInventoryShowsVMsWithAllThatGroupsAndPlansAskFor(t *testing.T) {
	r := setup(t, small())
	change, err := r.session.Inventory(t.Context(), "")
	r.ok(err)
	if !change.Full || len(change.VMs) != 4 || change.Version == "" {
		t.Fatalf("Inventory = full %v, %d VMs, version %q, want all 4", change.Full, len(change.VMs), change.Version)
	}
	got, _ := byName(change.VMs, "vm03")
	want := r.vm("vm03")
	if got.MOID != want.Moid || got.InstanceUUID != want.InstanceUUID || got.Folder != want.Folder {
		t.Errorf("vm03 = %s, %s in %s, want %s, %s in %s", got.MOID, got.InstanceUUID, got.Folder, want.Moid, want.InstanceUUID, want.Folder)
	}
	if len(got.Tags) != 1 || got.Tags[0] != (backup.Tag{Category: "backup", Name: "gold"}) {
		t.Errorf("tags of vm03 = %v, want backup:gold", got.Tags)
	}
	switch {
	case !strings.HasPrefix(got.ResourcePool, "/DC0/host/"), got.Host == "", len(got.Datastores) == 0, got.BIOSUUID == "":
		t.Errorf("vm03 lacks its place: %+v", got)
	case len(got.NICs) == 0 || got.NICs[0].MAC == "" || got.NICs[0].Network != "DC0_DVPG0":
		t.Errorf("network cards of vm03 = %+v, want one on DC0_DVPG0", got.NICs)
	case len(got.Disks) != len(want.Disks) || got.Disks[0].Capacity != want.Disks[0].Capacity || got.Disks[0].File == "" || got.Disks[0].Label == "":
		t.Errorf("disks of vm03 = %+v, want %+v", got.Disks, want.Disks)
	case got.CPUs == 0, got.MemoryMiB == 0, got.GuestID == "", got.SeenAt.IsZero():
		t.Errorf("vm03 lacks its size: %+v", got)
	}
	if other, _ := byName(change.VMs, "vm01"); len(other.Tags) != 0 {
		t.Errorf("tags of vm01 = %v, want none", other.Tags)
	}
}

// seed:W22
func TestAnUpdateOfTheInventoryTellsOnlyWhatChanged(t *testing.T) {
	r := setup(t, small())
	first, err := r.session.Inventory(t.Context(), "")
	r.ok(err)
	same, err := r.session.Inventory(t.Context(), first.Version)
	r.ok(err)
	if same.Full || len(same.VMs)+len(same.Gone) != 0 {
		t.Errorf("nothing changed, yet the inventory tells %+v", same)
	}
	r.ok(r.lab.SetPower(t.Context(), "vm02", false))
	_, err = r.lab.AddVM(t.Context(), lab.VMSpec{Name: "late"})
	r.ok(err)
	gone := r.lab.Moid("vm04")
	r.ok(r.lab.RemoveVM(t.Context(), "vm04"))
	change, err := r.session.Inventory(t.Context(), same.Version)
	r.ok(err)
	if change.Full {
		t.Fatal("a change gave the whole inventory")
	}
	if v, ok := byName(change.VMs, "vm02"); !ok || v.PowerState != backup.PoweredOff {
		t.Errorf("vm02 = %+v, want it powered off", v)
	}
	if _, ok := byName(change.VMs, "late"); !ok {
		t.Error("the new VM is missing")
	}
	if !slices.Equal(change.Gone, []string{gone}) {
		t.Errorf("gone = %v, want %s", change.Gone, gone)
	}
	if _, ok := byName(change.VMs, "vm01"); ok {
		t.Error("vm01 did not change, but is told")
	}
	old, err := r.session.Inventory(t.Context(), first.Version)
	r.ok(err)
	if !old.Full || len(old.VMs) != 4 {
		t.Errorf("asked with an old version: full %v, %d VMs, want all 4", old.Full, len(old.VMs))
	}
}

func TestAnotherSessionsVersionGetsTheWholeInventory(t *testing.T) {
	r := setup(t, small())
	change, err := r.session.Inventory(t.Context(), "someone/7")
	r.ok(err)
	if !change.Full || len(change.VMs) != 4 {
		t.Errorf("full %v, %d VMs, want all 4", change.Full, len(change.VMs))
	}
}
