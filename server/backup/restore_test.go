package backup_test

import (
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// disked is an image of vm that holds two disks and has left one out.
func (h *house) disked(vm backup.VirtualMachine) backup.Image {
	h.Helper()
	i := h.addImage(vm, "")
	i.Disks = []backup.ImageDisk{
		{Key: 2000, Label: "Hard disk 1", Capacity: 1 << 30}, {Key: 2001, Label: "Hard disk 2", Capacity: 2 << 30},
		{Key: 2002, Label: "Hard disk 3", SkippedReason: "it is independent"},
	}
	h.update(func(tx backup.Tx) error { return tx.UpdateImage(h.ctx, i) })
	return i
}

func oneDisk(i backup.Image, vm backup.VirtualMachine, mode backup.DiskMode, label string) backup.Restore {
	return backup.Restore{ImageID: i.ID, Disk: &backup.RestoreDisk{SourceLabel: label, VMID: vm.ID, Mode: mode}}
}

func TestTheRestoreOfADiskIsCheckedAgainstTheInventory(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 3)
	far := h.addVMs(h.addVCenter("far", "UTC", 10).ID, 1)[0]
	vm, running, lost := vms[0], vms[1], vms[2]
	running.PowerState = backup.PoweredOn
	h.save([]backup.VirtualMachine{running})
	image := h.disked(vm)
	h.leave(lost)
	onStore := oneDisk(image, vm, backup.DiskReplace, "Hard disk 1")
	onStore.Disk.Datastore = "ds2"
	for name, c := range map[string]struct {
		restore backup.Restore
		code    backup.Code
		field   string
		says    string
	}{
		"a disk that is not in it":       {oneDisk(image, vm, backup.DiskReplace, "Hard disk 9"), backup.Invalid, "disk.source_disk_label", `"Hard disk 2" (key 2001)`},
		"a disk that was left out":       {oneDisk(image, vm, backup.DiskAttach, "Hard disk 3"), backup.Invalid, "disk.source_disk_label", "independent"},
		"replacing elsewhere":            {onStore, backup.Invalid, "disk.datastore", "attach"},
		"replacing in a running VM":      {oneDisk(image, running, backup.DiskReplace, "Hard disk 1"), backup.VMRunning, "disk.mode", "attach"},
		"replacing in another vcenter":   {oneDisk(image, far, backup.DiskReplace, "Hard disk 1"), backup.Invalid, "disk.virtual_machine_id", "attach"},
		"a VM that is gone":              {oneDisk(image, lost, backup.DiskAttach, "Hard disk 1"), backup.VMGone, "disk.virtual_machine_id", "new_vm"},
		"a VM that there never has been": {oneDisk(image, backup.VirtualMachine{ID: "none"}, backup.DiskAttach, "Hard disk 1"), backup.NotFound, "disk.virtual_machine_id", ""},
	} {
		_, err := h.CheckRestore(h.ctx, c.restore)
		if e := backup.AsError(err); e == nil || e.Code != c.code || e.Field != c.field || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: check gives %v, want %s for %s with %q", name, err, c.code, c.field, c.says)
		}
	}
	for name, c := range map[string]struct {
		restore  backup.Restore
		says     string
		vcenter  string
		warnings int
	}{
		"replacing":                  {oneDisk(image, vm, backup.DiskReplace, "Hard disk 1"), "passwords", h.vcenter.ID, 1}, // seed:N66
		"attaching to a running VM":  {oneDisk(image, running, backup.DiskAttach, "Hard disk 1"), "one more disk", h.vcenter.ID, 1},
		"attaching elsewhere":        {oneDisk(image, far, backup.DiskAttach, "Hard disk 2"), "one more disk", far.VCenterID, 1},
		"replacing in another's VM ": {oneDisk(h.disked(running), vm, backup.DiskReplace, "Hard disk 2"), "another VM", h.vcenter.ID, 2},
	} {
		warnings := must(h.CheckRestore(h.ctx, c.restore))(t)
		if text := strings.Join(warnings, " "); len(warnings) != c.warnings || !strings.Contains(text, c.says) {
			t.Errorf("%s: warnings %q, want %d with %q", name, warnings, c.warnings, c.says)
		}
		r := must(h.CreateRestore(h.ctx, c.restore))(t)
		j := h.claim()
		if j == nil || j.ID != r.JobID || j.VCenterID != c.vcenter || j.VMID != c.restore.Disk.VMID {
			t.Fatalf("%s: claimed %+v, want a job of the VM that gets the disk", name, j)
		}
		second := must(h.CreateRestore(h.ctx, c.restore))(t) // it waits for the first
		if other := h.claim(); other != nil {
			t.Errorf("%s: job %s runs beside the first one of its VM", name, other.ID)
		}
		_, err := h.CheckRestore(h.ctx, inPlace(image))
		if c.restore.Disk.VMID == vm.ID {
			refused(t, err, backup.VMBusy, "in_place")
		}
		h.finish(j, backup.Ending{State: backup.JobSucceeded})
		if j = h.claim(); j == nil || j.ID != second.JobID {
			t.Fatalf("%s: claimed %+v, want the second", name, j)
		}
		h.finish(j, backup.Ending{State: backup.JobSucceeded})
	}
}

func TestABackupThatComesFirstGoesWhereItCanBeWritten(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	image := h.addImage(vm, "")
	ask := inPlace(image)
	ask.InPlace.Safety = backup.SafetyImage
	if w := strings.Join(must(h.CheckRestore(h.ctx, ask))(t), " "); !strings.Contains(w, "backed up in full") || !strings.Contains(w, "31 days") {
		t.Errorf("warnings %q do not tell of the backup that comes first", w)
	}
	foreign := h.repository
	h.update(func(tx backup.Tx) error {
		other := backup.RepositoryRecord{Name: "site", Kind: "filesystem", Password: "secret", ReadOnly: true}
		if err := tx.InsertRepository(h.ctx, &other); err != nil {
			return err
		}
		image.RepositoryID = other.ID
		return tx.UpdateImage(h.ctx, image)
	})
	if w := strings.Join(must(h.CheckRestore(h.ctx, ask))(t), " "); !strings.Contains(w, foreign.Name) {
		t.Errorf("warnings %q do not name the default repository %q", w, foreign.Name)
	}
	r := must(h.CreateRestore(h.ctx, ask))(t)
	if j := h.claim(); j == nil || j.ID != r.JobID || len(j.Needs) != 3 {
		t.Errorf("claimed %+v, want a job that needs both repositories", j)
	}
}
