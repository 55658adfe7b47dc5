package server_test

import (
	"net/url"
	"testing"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// giveUUID gives a VM of the lab another instance UUID, as registering it from
// its files would leave it.
func giveUUID(t *testing.T, l *lab.Lab, name, uuid string) {
	t.Helper()
	u := *l.URL()
	u.User = url.UserPassword(l.User(), l.Password())
	c, err := govmomi.NewClient(t.Context(), &u, true)
	if err != nil {
		t.Fatal(err)
	}
	vm := object.NewVirtualMachine(c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: l.Moid(name)})
	task, err := vm.Reconfigure(t.Context(), types.VirtualMachineConfigSpec{InstanceUuid: uuid})
	if err == nil {
		err = task.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAVCenterThatWasRebuiltIsReboundToItsImages: the VMs are new objects in a
// new vCenter, and their disks are others by then. The next backup must take
// nothing of the old changes for granted, and the old images must come back.
func TestAVCenterThatWasRebuiltIsReboundToItsImages(t *testing.T) {
	w := newWorld(t, lab.Config{VMs: 2, DiskSize: 8 << 20}, server.Config{})
	old := w.vcenter("old")
	vm := w.vm(old.ID, "vm02")
	before := w.sums("vm02")
	first := w.backup(vm.ID)
	was := w.machine("vm02")

	w.lab = newLab(t, lab.Config{VMs: 2, DiskSize: 8 << 20, Seed: 7})
	giveUUID(t, w.lab, "vm02", was.InstanceUUID)
	rebuilt := w.vcenter("rebuilt")
	between := w.sums("vm02")
	ask := api.RebindRequest{To: rebuilt.ID, Map: []api.RebindPair{{VirtualMachineID: vm.ID, MOID: w.machine("vm02").Moid}}}
	r, err := w.api.RebindVCenterWithResponse(w.ctx, old.ID, nil, ask)
	w.ok(r, err)
	if done := r.JSON200; len(done.Moved) != 1 || done.Moved[0].VirtualMachine.ID != vm.ID || len(done.Left) != 1 {
		t.Fatalf("re-bound %+v and left %+v, want vm02 alone re-bound", done.Moved, done.Left)
	}
	if now := w.vm(rebuilt.ID, "vm02"); now.ID != vm.ID {
		t.Fatalf("vm02 is %s in its new place, want %s as before", now.ID, vm.ID)
	}

	second := w.backup(vm.ID)
	if second.VCenterID != rebuilt.ID || second.VirtualMachine.MOID != w.machine("vm02").Moid {
		t.Errorf("the next image is of %s in %s, want it made in the new place", second.VirtualMachine.MOID, second.VCenterID)
	}
	for _, i := range []struct {
		image api.BackupImage
		sums  map[int32]string
	}{{first, before}, {second, between}} {
		if got := w.restore(api.Restore{ImageID: i.image.ID, InPlace: &api.RestoreInPlace{PowerOff: true}}); got.Status != api.JobStateSucceeded {
			t.Fatalf("restore of image %s ended %s: %+v", i.image.ID, got.Status, got)
		}
		w.same("disks after a restore in the new place", w.sums("vm02"), i.sums)
	}
	w.noLeftovers()
}

// TestTwoVMsOfOneInstanceUUIDHaveImagesOfTheirOwn: a careless copy leaves two
// VMs with one UUID. Each is backed up and restored as itself.
func TestTwoVMsOfOneInstanceUUIDHaveImagesOfTheirOwn(t *testing.T) {
	w := newWorld(t, lab.Config{VMs: 2, DiskSize: 8 << 20}, server.Config{})
	giveUUID(t, w.lab, "vm02", w.machine("vm01").InstanceUUID)
	v := w.vcenter("lab")
	one, two := w.vm(v.ID, "vm01"), w.vm(v.ID, "vm02")
	if one.ID == two.ID || one.InstanceUUID != two.InstanceUUID || len(one.Warnings) != 1 || len(two.Warnings) != 1 {
		t.Fatalf("vm01 is %s with %q, vm02 is %s with %q, want two VMs that are warned of", one.ID, one.Warnings, two.ID, two.Warnings)
	}
	before := map[string]map[int32]string{"vm01": w.sums("vm01"), "vm02": w.sums("vm02")}
	first, second := w.backup(one.ID), w.backup(two.ID)
	for name, i := range map[string]api.BackupImage{"vm01": first, "vm02": second} {
		if i.VirtualMachine.Name != name || i.VirtualMachine.MOID != w.machine(name).Moid {
			t.Errorf("the image of %s is of %+v", name, i.VirtualMachine)
		}
		if got := w.restore(api.Restore{ImageID: i.ID, InPlace: &api.RestoreInPlace{PowerOff: true}}); got.Status != api.JobStateSucceeded {
			t.Fatalf("restore of %s ended %s", name, got.Status)
		}
	}
	for name, sums := range before {
		w.same("disks of "+name, w.sums(name), sums)
	}
}
