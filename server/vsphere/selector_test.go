package vsphere_test

import (
	"net/url"
	"slices"
	"testing"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// operator is someone who works in the vCenter, with calls of vSphere's own.
func (r *rig) operator() *govmomi.Client {
	r.Helper()
	u := *r.lab.URL()
	u.User = url.UserPassword(r.lab.User(), r.lab.Password())
	c, err := govmomi.NewClient(r.Context(), &u, true)
	r.ok(err)
	return c
}

// seed:N69 seed:W15 seed:W27 seed:W28
func TestWhatSelectorsAskForIsShownAsItIsNowWhateverItsNames(t *testing.T) {
	r := setup(t, small())
	before, err := r.session.Inventory(t.Context(), "")
	r.ok(err)
	c := r.operator()
	vm := object.NewVirtualMachine(c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: r.lab.Moid("vm02")})
	finder := find.NewFinder(c.Client)
	top, err := finder.Folder(t.Context(), "/DC0/vm")
	r.ok(err)
	odd, err := top.CreateFolder(t.Context(), "a/b 蔵🚚")
	r.ok(err)
	sub, err := odd.CreateFolder(t.Context(), "sub")
	r.ok(err)
	task, err := sub.MoveInto(t.Context(), []types.ManagedObjectReference{vm.Reference()})
	r.ok(err)
	r.ok(task.Wait(t.Context()))
	was, _ := byName(before.VMs, "vm02")
	pool, err := finder.ResourcePool(t.Context(), was.ResourcePool)
	r.ok(err)
	small, err := pool.Create(t.Context(), "small", types.DefaultResourceConfigSpec())
	r.ok(err)
	task, err = vm.Relocate(t.Context(), types.VirtualMachineRelocateSpec{Pool: types.NewReference(small.Reference())}, types.VirtualMachineMovePriorityDefaultPriority)
	r.ok(err)
	r.ok(task.Wait(t.Context()))
	m := tags.NewManager(rest.NewClient(c.Client))
	r.ok(m.Login(t.Context(), url.UserPassword(r.lab.User(), r.lab.Password())))
	category, err := m.CreateCategory(t.Context(), &tags.Category{Name: "line: a/b", Cardinality: "MULTIPLE", AssociableTypes: []string{"VirtualMachine"}})
	r.ok(err)
	for _, name := range []string{"one", "two 🚚"} {
		id, err := m.CreateTag(t.Context(), &tags.Tag{Name: name, CategoryID: category})
		r.ok(err)
		r.ok(m.AttachTag(t.Context(), id, vm.Reference()))
	}
	change, err := r.session.Inventory(t.Context(), before.Version)
	r.ok(err)
	got, told := byName(change.VMs, "vm02")
	if change.Full || !told || len(change.VMs) != 1 {
		t.Fatalf("full %v, %d VMs are told, want vm02 alone", change.Full, len(change.VMs))
	}
	if want := "/DC0/vm/a%2fb 蔵🚚/sub"; got.Folder != want {
		t.Errorf("folder = %q, want %q", got.Folder, want)
	}
	if want := pool.InventoryPath + "/small"; got.ResourcePool != want {
		t.Errorf("pool = %q, want %q", got.ResourcePool, want)
	}
	if want := []backup.Tag{{Category: "line: a/b", Name: "one"}, {Category: "line: a/b", Name: "two 🚚"}}; !slices.Equal(got.Tags, want) {
		t.Errorf("tags = %v, want %v", got.Tags, want)
	}
	s := backup.Selector{Tags: got.Tags, Folder: "/DC0/vm/a%2Fb 蔵🚚", Recursive: true, ResourcePool: pool.InventoryPath}
	if in, err := s.Matches(got); err != nil || !in {
		t.Errorf("a selector of its tags, folder and pool matches: %v, %v", in, err)
	}
}

// inventory is a VM as the inventory shows it.
func (r *rig) inventory(name string) backup.VirtualMachine {
	r.Helper()
	all, err := r.session.Inventory(r.Context(), "")
	r.ok(err)
	vm, ok := byName(all.VMs, name)
	if !ok {
		r.Fatalf("%s is not in the inventory", name)
	}
	return vm
}

// TestTwoVMsOfOneUUIDAreBothShownAndWarnedOf: vSphere leaves them so when
// files are copied and registered.
func TestTwoVMsOfOneUUIDAreBothShownAndWarnedOf(t *testing.T) {
	r := setup(t, small())
	c := r.operator()
	first, second := r.vm("vm01"), r.vm("vm02")
	vm := object.NewVirtualMachine(c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: second.Moid})
	set := func(uuid string) {
		t.Helper()
		task, err := vm.Reconfigure(t.Context(), types.VirtualMachineConfigSpec{InstanceUuid: uuid})
		r.ok(err)
		r.ok(task.Wait(t.Context()))
	}
	set(first.InstanceUUID)
	for _, name := range []string{"vm01", "vm02"} {
		if got := r.inventory(name); got.InstanceUUID != first.InstanceUUID || len(got.Warnings) != 1 || got.Unprotectable != "" {
			t.Errorf("%s = %s with warnings %q, want one of the UUID that they share", name, got.InstanceUUID, got.Warnings)
		}
	}
	set(second.InstanceUUID)
	if got := r.inventory("vm01"); len(got.Warnings) != 0 {
		t.Errorf("vm01 has the warnings %q still", got.Warnings)
	}
}
