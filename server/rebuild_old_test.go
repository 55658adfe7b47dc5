package server_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// serve starts a server on the folder, as the world's server from then on.
func (w *world) serve(c server.Config) (stop func()) {
	w.Helper()
	s, stop := passing(w.T, c)
	w.api = client(w.T, s.URL(), s.OperatorTokenFile())
	return stop
}

// oldDatabase is what the server says of its database.
func (w *world) oldDatabase() *api.OldDatabase {
	w.Helper()
	r, err := w.api.GetServerWithResponse(w.ctx)
	w.ok(r, err)
	return r.JSON200.OldDatabase
}

func (w *world) copyFile(from, to string) {
	w.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// adopt lets the database go on and waits for what lists its images, of as many
// repositories as are still there.
func (w *world) adopt(lost int) api.Adoption {
	w.Helper()
	a, err := w.api.AdoptDatabaseWithResponse(w.ctx, nil)
	w.ok(a, err)
	for _, id := range a.JSON200.Jobs {
		j := w.jobDone(id)
		if j.State == api.JobStateFailed && j.Error.Code == api.ErrorCodeRepositoryUnreachable {
			lost--
		} else if j.State != api.JobStateSucceeded {
			w.Errorf("the job that lists images ended %s: %+v", j.State, j.Error)
		}
	}
	if lost != 0 {
		w.Errorf("%d more repositories are lost than were told so", lost)
	}
	return *a.JSON200
}

// TestAnOldCopyOfTheDatabaseIsReconciled: kura.db of before comes back, in which
// a restore waits that has long been done. Since then the VM has gone on, another
// image was made and the first one deleted.
func TestAnOldCopyOfTheDatabaseIsReconciled(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	file, kept := filepath.Join(data, "kura.db"), filepath.Join(t.TempDir(), "kura.db")
	w := &world{T: t, ctx: t.Context(), lab: newLab(t, lab.Config{VMs: 1, DiskSize: 8 << 20})}
	stop := w.serve(server.Config{Data: data})
	vm := w.vm(w.vcenter("tokyo").ID, "vm01")
	first := w.backup(vm.ID)
	stop()
	stop = w.serve(server.Config{Data: data, Role: server.RoleAPI}) // which runs no jobs
	r, err := w.api.CreateRestoreWithResponse(w.ctx, nil, api.Restore{ImageID: first.ID, InPlace: &api.RestoreInPlace{PowerOff: true}})
	w.ok(r, err)
	stop()
	w.copyFile(file, kept)

	stop = w.serve(server.Config{Data: data})
	w.restored(r.JSON201.ID)
	if err := w.lab.GuestWriteRandom("vm01", w.machine("vm01").Disks[0].Key, 1<<20, 1<<20, 77); err != nil {
		t.Fatal(err)
	}
	second, now := w.backup(vm.ID), w.sums("vm01")
	d, err := w.api.DeleteBackupImageWithResponse(w.ctx, first.ID)
	w.ok(d, err)
	w.until("the first image to go", func() bool {
		g, err := w.api.GetBackupImageWithResponse(w.ctx, first.ID)
		return api.CodeOf(api.Err(g, err)) == api.ErrorCodeNotFound
	})
	stop()
	w.copyFile(kept, file)
	installation := w.leaveSnapshot(data, "vm01")

	stop = w.serve(server.Config{Data: data})
	defer func() { stop() }()
	old := w.oldDatabase()
	if old == nil || old.Repository != "default" || !strings.Contains(old.Message, "kura catalog adopt --yes") {
		t.Fatalf("the server says of its database %+v, want that it is old", old)
	}
	stop() // a start changes nothing of that
	stop = w.serve(server.Config{Data: data})
	if len(w.machine("vm01").Snapshots) != 1 || w.oldDatabase() == nil {
		t.Errorf("snapshots %v, old %+v, want both as they were", w.machine("vm01").Snapshots, w.oldDatabase())
	}
	a := w.adopt(0)
	if said := strings.Join(a.Messages, "\n"); a.EndedJobs < 1 || !strings.Contains(said, `Restore job`) {
		t.Errorf("adoption = %+v, want the restore named", a)
	}
	g, err := w.api.GetRestoreWithResponse(w.ctx, r.JSON201.ID, nil)
	w.ok(g, err)
	if g.JSON200.Status != api.JobStateFailed || !strings.Contains(g.JSON200.Error.Message, "it is not begun again") {
		t.Errorf("the restore is %s: %+v", g.JSON200.Status, g.JSON200.Error)
	}
	w.same("the VM that a copy's restore would have overwritten", w.sums("vm01"), now)
	if i := w.image(first.ID); i.Status != api.ImageStatusDamaged || !strings.Contains(i.Message, "is not in the repository default any more") {
		t.Errorf("the image that is gone is %s: %s", i.Status, i.Message)
	}
	found := w.image(second.ID)
	if found.Sizes != second.Sizes || found.VirtualMachine != second.VirtualMachine || found.RunID != second.RunID || w.oldDatabase() != nil {
		t.Errorf("the image that the copy did not know is\n%+v, want\n%+v", found, second)
	}
	if r := w.restore(api.Restore{ImageID: second.ID, NewVM: &api.RestoreNewVM{Name: "again"}}); r.Status != api.JobStateSucceeded {
		t.Fatalf("restore ended %s: %+v", r.Status, r.Error)
	}
	w.same("the VM restored of it", w.sums("again"), now)
	w.until("the left-over of installation "+installation+" to go", func() bool { return len(w.machine("vm01").Snapshots) == 0 })
}

// leaveSnapshot makes a snapshot of a job that the copy does not know.
func (w *world) leaveSnapshot(data, vm string) (installation string) {
	w.Helper()
	stop := w.serve(server.Config{Data: data, Role: server.RoleAPI})
	defer stop()
	r, err := w.api.GetServerWithResponse(w.ctx)
	w.ok(r, err)
	installation = r.JSON200.InstallationID
	if err := w.lab.Snapshot(vm, "kura:"+installation+":"+backup.NewID(r.JSON200.Time)+":1"); err != nil {
		w.Fatal(err)
	}
	return installation
}

// TestOfTwoServersOnCopiesOfADatabaseOneWorks: a clone of the server starts
// beside it, as a restore test of the backup server itself would have it.
func TestOfTwoServersOnCopiesOfADatabaseOneWorks(t *testing.T) {
	t.Parallel()
	data, clone := t.TempDir(), t.TempDir()
	w := &world{T: t, ctx: t.Context(), lab: newLab(t, lab.Config{VMs: 1, DiskSize: 1 << 20})}
	stop := w.serve(server.Config{Data: data})
	vm := w.vm(w.vcenter("tokyo").ID, "vm01")
	stop()
	for _, name := range []string{"kura.db", "kura.key", "operator.token"} {
		w.copyFile(filepath.Join(data, name), filepath.Join(clone, name))
	}
	defer w.serve(server.Config{Data: data})()
	original := w.api
	image := w.backup(vm.ID)
	defer w.serve(server.Config{Data: clone})()
	if w.oldDatabase() == nil {
		t.Error("the clone does not know that it is one")
	}
	w.startBackup(vm.ID) // waits
	w.api = original
	if w.oldDatabase() != nil {
		t.Error("the server beside it takes itself for the clone")
	}
	next := w.backup(vm.ID)
	ids := []string{image.ID, next.ID}
	l, err := w.api.ListBackupImagesWithResponse(w.ctx, &api.ListBackupImagesParams{})
	w.ok(l, err)
	for _, i := range l.JSON200.Items {
		if !slices.Contains(ids, i.ID) {
			t.Errorf("image %s is listed, which the clone must have made", i.ID)
		}
	}
	w.noLeftovers()
}
