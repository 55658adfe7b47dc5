package worker_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func imageFirst(i backup.Image) backup.Restore {
	return backup.Restore{ImageID: i.ID, InPlace: &backup.RestoreInPlace{Safety: backup.SafetyImage}}
}

// changed writes to the VM after its image was made, and returns what it holds now.
func (h *house) changed() map[int32][]byte {
	h.Helper()
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) {
		for _, b := range vm.disks {
			copy(b[4096:], "written since")
		}
	})
	return h.content(h.vm.MOID)
}

// before is the image that a restore made of the VM first.
func (h *house) before(r backup.Restore) (i backup.Image) {
	h.Helper()
	for _, other := range h.images() {
		if other.JobID == r.JobID {
			i = other
		}
	}
	return i
}

func TestAVMIsBackedUpBeforeItIsOverwritten(t *testing.T) {
	h := newHouse(t)
	image, want := h.backedUp()
	since := h.changed()
	r := h.restore(imageFirst(image))
	h.start()
	j := h.ended(r.JobID)
	i := h.before(r)
	if j.State != backup.JobSucceeded || i.Status != backup.ImageGood || i.ChangeDetection != backup.DetectFull || !i.ExpiresAt.Equal(i.StartedAt.AddDate(0, 0, backup.SafetyDays)) {
		t.Fatalf("job is %s (%s), image %+v, want a full one that is kept for %d days", j.State, j.Error, i, backup.SafetyDays)
	}
	if text := strings.Join(j.Messages, " "); !strings.Contains(text, i.ID) {
		t.Errorf("messages = %q, want the image %s in them", text, i.ID)
	}
	h.holds(h.vm.MOID, want)
	if names := h.vsphere.snapshotsOf(h.vm.MOID); len(names) > 0 {
		t.Errorf("snapshots %q are left", names)
	}
	back := h.restore(inPlace(i)) // what was overwritten can be had again
	if j := h.ended(back.JobID); j.State != backup.JobSucceeded {
		t.Fatalf("restore of that image is %s: %s", j.State, j.Error)
	}
	h.holds(h.vm.MOID, since)
}

// TestABackupThatComesFirstIsMadeOnce stops the job after each step that is
// done once and for all; what was there before stays restorable.
func TestABackupThatComesFirstIsMadeOnce(t *testing.T) {
	for name, c := range map[string]struct {
		point   string
		backups int
	}{
		"the overwriting fails":          {"OverwriteVM", 1},
		"half of it is written":          {"WriteEnd", 1},
		"the image cannot be committed":  {"Commit", 2},
		"its snapshot cannot be removed": {"RemoveSnapshot", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			image, want := h.backedUp()
			since := h.changed()
			done := len(h.vsphere.called("CreateSnapshot"))
			h.vsphere.fail(c.point, 1, unreachable)
			h.repository.fail(c.point, 1, unreachable)
			r := h.restore(imageFirst(image))
			h.start()
			h.waiting(r.JobID, 1)
			h.clock.pass(15 * time.Second)
			if j := h.ended(r.JobID); j.State != backup.JobSucceeded || j.Attempt != 2 {
				t.Fatalf("job is %s (%s) after %d attempts, want it succeeded at the second", j.State, j.Error, j.Attempt)
			}
			if n := len(h.vsphere.called("CreateSnapshot")) - done; n != c.backups {
				t.Errorf("%d snapshots were made, want %d", n, c.backups)
			}
			h.holds(h.vm.MOID, want)
			back := h.restore(inPlace(h.before(r)))
			if j := h.ended(back.JobID); j.State != backup.JobSucceeded {
				t.Fatalf("restore of the image that came first is %s: %s", j.State, j.Error)
			}
			h.holds(h.vm.MOID, since)
		})
	}
}

func TestAVMThatCannotBeBackedUpFirstIsNotOverwritten(t *testing.T) {
	for name, c := range map[string]struct {
		vm    func(*fakeVM)
		point string
		err   error
		code  backup.Code
	}{
		"it runs":                     {func(vm *fakeVM) { vm.PowerState = backup.PoweredOn }, "", nil, backup.VMRunning},
		"it has snapshots":            {func(vm *fakeVM) { vm.SnapshotNames = []string{"by hand"} }, "", nil, backup.PreflightFailed},
		"a disk cannot be backed up":  {func(vm *fakeVM) { vm.VirtualMachine.Disks[1].Unprotectable = "it is independent" }, "", nil, backup.Unprotectable},
		"the repository has no room":  {nil, "Commit", backup.Errorf(backup.NoSpace, "", "Full."), backup.NoSpace},
		"the export breaks for good":  {nil, "ReadDisk", backup.Errorf(backup.VCenterDenied, "", "Denied."), backup.VCenterDenied},
		"something unforeseen occurs": {nil, "CreateSnapshot", errors.New("no code"), backup.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.config.Backoff = time.Millisecond
			image, _ := h.backedUp()
			since := h.changed()
			if c.vm != nil {
				h.vsphere.with(h.vm.MOID, c.vm)
			}
			if c.point != "" {
				h.vsphere.fail(c.point, 9, c.err)
				h.repository.fail(c.point, 9, c.err)
			}
			r := h.restore(imageFirst(image))
			h.start()
			h.retried(r.JobID)
			if done := h.restoreNow(r.ID); done.State != backup.JobFailed || done.ErrorCode != c.code {
				t.Errorf("restore is %s (%s: %s), want it failed with %s", done.State, done.ErrorCode, done.Error, c.code)
			}
			if asked := h.vsphere.called("OverwriteVM"); len(asked) > 0 {
				t.Errorf("asked %q all the same", asked)
			}
			h.holds(h.vm.MOID, since)
		})
	}
}
