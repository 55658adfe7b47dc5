package server_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestKillInARestoreOfADiskOrBehindABackup: after kill -9 and a new start the
// restore succeeds, has done everything once, and leaves nothing behind.
func TestKillInARestoreOfADiskOrBehindABackup(t *testing.T) {
	w, p := killWorld(t, lab.Config{VMs: 1, DiskSize: 16 << 20})
	vm := w.vm(w.vcenter("lab").ID, "vm01")
	want := w.sums("vm01")
	image := w.backup(vm.ID)
	if err := w.lab.SetPower(t.Context(), "vm01", false); err != nil {
		t.Fatal(err)
	}
	disk := func(mode api.DiskRestoreMode) *api.RestoreDisk {
		return &api.RestoreDisk{SourceDiskKey: 2000, VirtualMachineID: vm.ID, Mode: mode}
	}
	for _, c := range []struct {
		name, step string
		restore    api.Restore
	}{
		{"backed up first", "reading disks", api.Restore{ImageID: image.ID, InPlace: &api.RestoreInPlace{Safety: api.SafetyImage}}},
		{"replaced", "writing disks", api.Restore{ImageID: image.ID, Disk: disk(api.DiskRestoreModeReplace)}},
		{"attached", "writing disks", api.Restore{ImageID: image.ID, Disk: disk(api.DiskRestoreModeAttach)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &world{T: t, ctx: t.Context(), lab: w.lab, api: client(t, p.url, p.tokenFile())}
			attached := c.name == "attached"
			if !attached {
				if err := w.lab.GuestWriteRandom("vm01", 2000, 0, 1<<20, 5); err != nil {
					t.Fatal(err)
				}
			}
			before := w.sums("vm01")
			w.slow("stream", 3*time.Second)
			r, err := w.api.CreateRestoreWithResponse(w.ctx, nil, c.restore)
			w.ok(r, err)
			w.atStep(r.JSON201.JobID, c.step)
			p.kill()
			w.lab.ClearFaults()
			w.same("the VM of a killed server", w.sums("vm01"), before)
			w.restart(p)
			done := w.restored(r.JSON201.ID)
			if done.Status != api.JobStateSucceeded {
				t.Fatalf("the restore ended %s: %+v", done.Status, done.Error)
			}
			now := w.sums("vm01")
			if attached {
				if len(now) != 2 || now[2001] != want[2000] {
					t.Errorf("the VM's disks are %v, want one more of %v", now, want)
				}
				delete(now, 2001)
			}
			w.same("vm01", now, want)
			w.noLeftovers()
			if c.restore.InPlace != nil {
				w.oneMore(vm.ID, done)
			}
		})
	}
}

// oneMore makes sure that the restore made one image of the VM, and tells of it.
func (w *world) oneMore(vmID string, r api.Restore) {
	w.Helper()
	list, err := w.api.ListBackupImagesWithResponse(w.ctx, &api.ListBackupImagesParams{VirtualMachineID: vmID})
	w.ok(list, err)
	told := func(i api.BackupImage) bool { return strings.Contains(strings.Join(r.Messages, " "), i.ID) }
	if n := len(list.JSON200.Items); n != 2 || !slices.ContainsFunc(list.JSON200.Items, told) {
		w.Errorf("the VM has %d images and the restore tells %q, want one more, named", n, r.Messages)
	}
}
