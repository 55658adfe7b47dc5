//go:build failpoints

package server_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// TestTheRepositoryIsFullTimeAndAgain fills the repository's disk at a random
// byte of what two backups write, and gives it space again: ten times with
// KURA_TORTURE=full, else twice. What is listed restores, and nothing is left.
func TestTheRepositoryIsFullTimeAndAgain(t *testing.T) {
	t.Parallel()
	passes := 2
	if os.Getenv("KURA_TORTURE") == "full" {
		passes = 10
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	data := t.TempDir()
	faults := repository.FaultsAt(filepath.Join(data, "repository"))
	l := newLab(t, lab.Config{VMs: 2, DiskSize: 8 << 20})
	s := start(t, server.Config{Data: data})
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.URL(), s.OperatorTokenFile())}
	v := w.vcenter("lab")
	names := []string{"vm01", "vm02"}
	want := map[string]map[int32]string{} // by image
	refused := 0
	for pass := range passes {
		for n, name := range names {
			if err := l.GuestWriteRandom(name, w.machine(name).Disks[0].Key, int64(r.IntN(4<<20)), 3<<20, seed+uint64(10*pass+n)); err != nil {
				t.Fatal(err)
			}
		}
		room := int64(r.IntN(5 << 20))
		faults.Arm(repository.Fault{Kind: repository.FaultFull, Room: room})
		refused += w.tryBackups(v.ID, names, want)
		if met, _ := faults.Clear(); met == 0 {
			t.Logf("pass %d: %d bytes were room enough", pass, room)
		}
		w.noLeftovers()
		for _, name := range names { // there is space again
			image := w.backup(w.vm(v.ID, name).ID)
			want[image.ID] = w.sums(name)
			w.restoresAs(image, want[image.ID])
		}
	}
	if refused == 0 {
		t.Error("no backup found the disk full: the test shows nothing")
	}
	listed := 0
	for _, name := range names {
		for _, image := range w.images(name) {
			listed++
			w.restoresAs(image, want[image.ID])
		}
	}
	if listed != len(want) {
		t.Errorf("%d images are listed, want the %d that backups have made", listed, len(want))
	}
	t.Logf("%d passes, %d backups refused, %d images restored", passes, refused, listed)
}

// tryBackups backs VMs up and returns how many found no space.
func (w *world) tryBackups(vcenter string, names []string, want map[string]map[int32]string) (refused int) {
	w.Helper()
	var runs []string
	for _, name := range names {
		runs = append(runs, w.startBackup(w.vm(vcenter, name).ID))
	}
	for n, id := range runs {
		switch run := w.finish(id); {
		case run.State == api.RunStateSucceeded:
			want[run.Jobs[0].ImageID] = w.sums(names[n])
		case run.Jobs[0].Error == nil || run.Jobs[0].Error.Code != api.ErrorCodeNoSpace:
			w.Errorf("a backup on a full disk ended %s: %+v", run.State, run.Jobs[0].Error)
		default:
			refused++
		}
	}
	return refused
}

func (w *world) restoresAs(image api.BackupImage, want map[int32]string) {
	w.Helper()
	name := fmt.Sprintf("copy-%s-%d", image.ID, time.Now().UnixNano())
	r := w.restore(api.Restore{ImageID: image.ID, NewVM: &api.RestoreNewVM{Name: name}})
	if r.Status != api.JobStateSucceeded {
		w.Fatalf("restore of image %s: %+v", image.ID, r.Error)
	}
	w.same("image "+image.ID, w.sums(name), want)
}
