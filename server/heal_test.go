package server_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestImagesHealOfALostPack: a pack is lost; a verification says which images
// that hurts, the next backup stores its blocks again, and without being asked
// the server reads the damaged images and finds them whole.
func TestImagesHealOfALostPack(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	l := newLab(t, lab.Config{VMs: 2, DiskSize: 4 << 20})
	s := start(t, server.Config{Data: data})
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.URL(), s.OperatorTokenFile())}
	v := w.vcenter("lab")
	vm := w.vm(v.ID, "vm01")
	other := w.backup(w.vm(v.ID, "vm02").ID)
	was := storedFiles(t, filepath.Join(data, "repository"))
	want := w.sums("vm01")
	first := w.backup(vm.ID)
	second := w.backup(vm.ID)
	lose(t, filepath.Join(data, "repository"), was)

	asked, err := w.api.VerifyBackupImageWithResponse(w.ctx, first.ID, nil)
	w.ok(asked, err)
	read := w.jobDone(asked.JSON202.ID)
	if read.State != api.JobStateFailed || read.Error.Code != api.ErrorCodeRepositoryDamaged || !strings.Contains(strings.Join(read.Messages, " "), second.ID) {
		t.Fatalf("the verification ended %s, %+v, %q; want it failed, and the other image named", read.State, read.Error, read.Messages)
	}
	for id, status := range map[string]api.ImageStatus{first.ID: api.ImageStatusDamaged, second.ID: api.ImageStatusDamaged, other.ID: api.ImageStatusGood} {
		if i := w.image(id); i.Status != status {
			t.Errorf("image %s of %s is %s, want %s", id, i.VirtualMachine.Name, i.Status, status)
		} else if i.Disks[0].Damaged != (status == api.ImageStatusDamaged) {
			t.Errorf("image %s is %s, and its disk is told as damaged: %t", id, status, i.Disks[0].Damaged)
		}
	}
	if m := scrape(t, s, "kura_repository_damaged_images"); !strings.Contains(m, "} 2") {
		t.Errorf("metrics tell of other damaged images than two:\n%s", m)
	}

	run := w.finish(w.startBackup(vm.ID))
	if said := strings.Join(run.Jobs[0].Messages, " "); run.State != api.RunStateSucceeded || !strings.Contains(said, "are stored again") {
		t.Fatalf("the backup ended %s, %q; want it to store what is lost", run.State, said)
	}
	for _, id := range []string{first.ID, second.ID} {
		w.until("image "+id+" to heal", func() bool { return w.image(id).Status == api.ImageStatusGood })
		if i := w.image(id); i.Message != "" || i.VerifiedAt.IsZero() {
			t.Errorf("the healed image says %q, verified at %s", i.Message, i.VerifiedAt)
		}
		r := w.restore(api.Restore{ImageID: id, NewVM: &api.RestoreNewVM{Name: "copy-" + id}})
		if r.Status != api.JobStateSucceeded {
			t.Fatalf("restore of a healed image: %+v", r.Error)
		}
		w.same("restored from "+id, w.sums("copy-"+id), want)
	}
	w.noLeftovers()
}

// storedFiles are the files below a folder with their sizes.
func storedFiles(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		i, err := d.Info()
		if err == nil {
			all[path] = i.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// lose removes the largest pack that was not there before.
func lose(t *testing.T, dir string, before map[string]int64) {
	t.Helper()
	largest := ""
	now := storedFiles(t, dir)
	for path, size := range now {
		if _, old := before[path]; !old && size > now[largest] {
			largest = path
		}
	}
	if err := os.Remove(largest); err != nil {
		t.Fatal(err)
	}
}
