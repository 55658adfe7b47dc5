package backup_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// rebuild lists what a repository holds, as the job does.
func (h *house) rebuild(r backup.RepositoryRecord, prune bool, found ...backup.Manifest) (*backup.Rebuild, []backup.Image) {
	h.Helper()
	b := read(h, func(tx backup.Tx) (*backup.Rebuild, error) {
		return backup.BeginRebuild(h.ctx, tx, h.record(r.ID), ours)
	})
	return b, h.list(b, prune, found...)
}

func (h *house) list(b *backup.Rebuild, prune bool, found ...backup.Manifest) (missing []backup.Image) {
	h.Helper()
	var commit func()
	h.update(func(tx backup.Tx) (err error) {
		commit, err = b.List(h.ctx, tx, found)
		return err
	})
	commit()
	h.update(func(tx backup.Tx) (err error) {
		missing, err = b.Missing(h.ctx, tx, found, prune)
		return err
	})
	return missing
}

// manifest is what an image of another installation says of itself.
func manifest(id, vcenter, vm string) backup.Manifest {
	return backup.Manifest{Installation: "installation-2", VCenterUUID: vcenter, Image: backup.Image{
		ID: id, VCenterID: "theirs", VMID: "theirs", VMName: "erp", VMMOID: "vm-9", VMInstanceUUID: vm, ScheduleID: "theirs", GroupID: "theirs", RunID: "theirs", JobID: "theirs",
		RepositoryID: "theirs", Ref: "ref-" + id, StartedAt: noon.AddDate(0, 0, -3), EndedAt: noon.AddDate(0, 0, -3), PointInTime: noon.AddDate(0, 0, -3), ExpiresAt: noon.AddDate(0, 0, 4),
		Status: backup.ImageGood, Disks: []backup.ImageDisk{{Key: 2000, Capacity: 1 << 30}}, Sizes: backup.Sizes{Provisioned: 1 << 30, Read: 9, Stored: 7}, Labels: map[string]string{"a": "b"},
	}}
}

func (h *house) storedImage(id string) backup.Image {
	h.Helper()
	return read(h, func(tx backup.Tx) (backup.Image, error) { return tx.Image(h.ctx, id) })
}

func TestARebuildListsWhatTheCatalogueDoesNotKnow(t *testing.T) {
	h, _ := storehouse(t)
	h.vcenter.InstanceUUID = "vcenter-uuid"
	h.update(func(tx backup.Tx) error { return tx.UpdateVCenter(h.ctx, &h.vcenter) })
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	known, strange := manifest("1", "vcenter-uuid", vm.InstanceUUID), manifest("2", "another", vm.InstanceUUID)
	forever, damaged := manifest("3", "vcenter-uuid", "gone"), manifest("4", "vcenter-uuid", "gone")
	forever.Image.ExpiresAt = time.Time{}
	damaged.Image = backup.Image{ID: "4", Ref: "ref-4", VMName: "erp", PointInTime: noon, Status: backup.ImageDamaged, Message: "Unreadable."}
	b, missing := h.rebuild(h.repository, false, known, strange, forever, damaged)
	if b.Added != 4 || b.Known != 0 || b.Damaged != 1 || len(missing) != 0 {
		t.Errorf("rebuild = %+v with %d missing, want four added, one of them damaged", b, len(missing))
	}
	want := known.Image
	want.Project, want.RepositoryID, want.VCenterID, want.VMID = backup.DefaultProject, h.repository.ID, h.vcenter.ID, vm.ID
	want.ScheduleID, want.GroupID, want.RunID, want.JobID = "", "", "", ""
	want.ExpiresAt = noon.AddDate(0, 0, 30)
	if got := h.storedImage("1"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("image of a known VM is listed as\n%+v, want\n%+v", got, want)
	}
	if got := h.storedImage("2"); got.VCenterID != "" || got.VMID != "" || got.VMName != "erp" || got.VMInstanceUUID != vm.InstanceUUID {
		t.Errorf("image of another vcenter is listed as %+v, want what its manifest says", got)
	}
	if got := h.storedImage("3"); !got.ExpiresAt.IsZero() || got.VCenterID != h.vcenter.ID || got.VMID != "" {
		t.Errorf("image that never ends is listed as %+v", got)
	}
	if got := h.storedImage("4"); got.Status != backup.ImageDamaged || !got.StartedAt.Equal(noon) {
		t.Errorf("image that cannot be read is listed as %+v", got)
	}

	// Once more: nothing is listed twice; a VM that has come is found.
	h.save([]backup.VirtualMachine{{VCenterID: h.vcenter.ID, InstanceUUID: "gone", MOID: "vm-77", Name: "erp"}})
	b, _ = h.rebuild(h.repository, false, known, strange, forever, damaged)
	if b.Added != 0 || b.Known != 4 || b.Bound != 1 || h.storedImage("3").VMID == "" {
		t.Errorf("rebuild again = %+v, want one of four bound to its VM", b)
	}
}

func TestARebuildDoesNotTakeWhatJobsAreAt(t *testing.T) {
	h, _ := storehouse(t)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	image := h.addImage(vm, "")
	run := must(h.BackupVM(h.ctx, vm.ID, backup.RunOptions{RetentionDays: 1}))(t)
	j := h.claim()
	must(0, h.db.Save(h.ctx, backup.Lease{JobID: j.ID, Owner: j.Owner, Attempt: j.Attempt}, backup.Progress{Checkpoint: []byte(`{"image_id":"written"}`)}))(t)

	b := read(h, func(tx backup.Tx) (*backup.Rebuild, error) { return backup.BeginRebuild(h.ctx, tx, h.repository, ours) })
	h.update(func(tx backup.Tx) error { return tx.DeleteImage(h.ctx, image.ID) }) // while the repository is read
	missing := h.list(b, true, manifest("written", "", ""), manifest(image.ID, "", ""))
	if left := h.images(); len(left) != 0 || len(missing) != 0 || b.Added != 0 {
		t.Errorf("listed are %v, missing %v; want neither the image that run %s writes nor the one that was deleted", left, missing, run.ID)
	}
}

func TestARebuildTellsWhatIsMissing(t *testing.T) {
	h, _ := storehouse(t)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	image, there := h.addImage(vm, ""), h.addImage(vm, "")
	for _, prune := range []bool{false, true} {
		_, missing := h.rebuild(h.repository, prune, manifest(there.ID, "", ""))
		if len(missing) != 1 || missing[0].ID != image.ID {
			t.Errorf("missing = %v, want the one image", missing)
		}
		if got := h.storedImage(image.ID).Status; (got == backup.ImageDamaged) != prune {
			t.Errorf("with prune = %t the image is %s", prune, got)
		}
	}
	if got := h.storedImage(there.ID).Status; got != backup.ImageGood {
		t.Errorf("the image that is there is %s", got)
	}
}

func TestOneRebuildAtATime(t *testing.T) {
	h, _ := storehouse(t)
	j := must(h.RebuildCatalogue(h.ctx, h.repository.ID, false))(t)
	if again := must(h.RebuildCatalogue(h.ctx, h.repository.ID, false))(t); again.ID != j.ID {
		t.Error("a second rebuild was asked for, want the one that waits")
	}
	other := must(h.RebuildCatalogue(h.ctx, h.repository.ID, true))(t)
	if other.ID == j.ID || !slices.Equal(other.Keys, j.Keys) || other.Keys[0].Max != 1 {
		t.Errorf("keys %v and %v, want that they wait for each other", j.Keys, other.Keys)
	}
	_, err := h.RebuildCatalogue(h.ctx, "none", false)
	wantCode(t, "RebuildCatalogue() of none", err, backup.NotFound, "")
}

// What another installation's repository holds ends neither by itself nor by
// hand, and not soon after it was taken over.
func TestImagesOfAFrozenRepositoryStay(t *testing.T) {
	h, _ := storehouse(t)
	theirs := h.second()
	theirs.OwnedBy = "installation-2"
	h.update(func(tx backup.Tx) error { return tx.UpdateRepository(h.ctx, &theirs) })
	h.rebuild(theirs, false, manifest("1", "", ""))
	h.days(40)
	if e := must(h.Expire(h.ctx))(t); e.Jobs != 0 || h.storedImage("1").Status != backup.ImageGood {
		t.Errorf("Expire() = %+v, want the image to stay", e)
	}
	plan := must(h.ExpiryPlan(h.ctx))(t)
	if len(plan) != 1 || !strings.Contains(plan[0].Stays, `"second" can only be read`) {
		t.Errorf("ExpiryPlan() = %+v, want why it stays", plan)
	}
	_, err := h.DeleteImage(h.ctx, "1")
	wantCode(t, "DeleteImage()", err, backup.Conflict, "")
	must(h.TakeOverRepository(h.ctx, theirs.ID))(t)
	if e := must(h.Expire(h.ctx))(t); e.Jobs != 0 {
		t.Errorf("Expire() after the takeover = %+v, want time to look", e)
	}
	if got, want := h.storedImage("1").ExpiresAt, h.clock.Now().AddDate(0, 0, 30); !got.Equal(want) {
		t.Errorf("it ends at %v, want %v", got, want)
	}
	h.days(31)
	if got := h.storedImage("1").Status; got != backup.ImageExpired {
		t.Errorf("a month later it is %s, want it to go", got)
	}
}

func TestAnImageOfNowhereIsRestoredWhereItIsSaid(t *testing.T) {
	h, _ := storehouse(t)
	h.rebuild(h.repository, false, manifest("1", "another", "vm"))
	_, err := h.CheckRestore(h.ctx, backup.Restore{ImageID: "1", NewVM: &backup.RestoreNewVM{Name: "erp"}})
	wantCode(t, "CheckRestore() without a vcenter", err, backup.Invalid, "new_vm.vcenter_id")
	_, err = h.CheckRestore(h.ctx, backup.Restore{ImageID: "1", InPlace: &backup.RestoreInPlace{Safety: backup.SafetyQuick}})
	wantCode(t, "CheckRestore() in place", err, backup.VMGone, "in_place")
	r := must(h.CreateRestore(h.ctx, backup.Restore{ImageID: "1", NewVM: &backup.RestoreNewVM{Name: "erp", VCenterID: h.vcenter.ID}}))(t)
	if r.JobID == "" {
		t.Error("no restore was started")
	}
}

func TestAnImageOfOneOfTwoVMsOfOneUUIDIsListedWithThatOneOrWithNone(t *testing.T) {
	h, _ := storehouse(t)
	h.vcenter.InstanceUUID = "vcenter-uuid"
	h.update(func(tx backup.Tx) error { return tx.UpdateVCenter(h.ctx, &h.vcenter) })
	twins := []backup.VirtualMachine{{VCenterID: h.vcenter.ID, InstanceUUID: "u", MOID: "vm-9", Name: "first"}, {VCenterID: h.vcenter.ID, InstanceUUID: "u", MOID: "vm-10", Name: "second"}}
	h.save(twins)
	byMOID, byName, byNone := manifest("1", "vcenter-uuid", "u"), manifest("2", "vcenter-uuid", "u"), manifest("3", "vcenter-uuid", "u")
	byName.Image.VMMOID, byName.Image.VMName = "vm-old", "second"
	byNone.Image.VMMOID = "vm-old"
	h.rebuild(h.repository, false, byMOID, byName, byNone)
	for id, want := range map[string]string{"1": twins[0].ID, "2": twins[1].ID, "3": ""} {
		if got := h.storedImage(id); got.VMID != want || got.VCenterID != h.vcenter.ID {
			t.Errorf("image %s is listed as of VM %q, want %q", id, got.VMID, want)
		}
	}
}
