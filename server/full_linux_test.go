package server_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// ownMounts lets the process mount a small disk that nobody else sees.
func ownMounts(a *syscall.SysProcAttr) {
	a.Cloneflags |= syscall.CLONE_NEWNS
	if os.Getuid() != 0 {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
}

// mountSmall puts a disk of so many MiB at that place.
func mountSmall(dir string, mib int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib))
}

// TestFullRepositoryDisk: the job fails and says so, no image is listed, no
// snapshot is left, and what was stored before still restores.
func TestFullRepositoryDisk(t *testing.T) {
	l := newLab(t, lab.Config{VMs: 1, DiskSize: 8 << 20})
	p := spawn(t, child{SmallMiB: 24})
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, p.url, p.tokenFile())}
	none := 0.9
	if _, err := l.AddVM(w.ctx, lab.VMSpec{Name: "large", Disks: []int64{96 << 20}, Fill: &none}); err != nil {
		t.Fatal(err)
	}
	v := w.vcenter("lab")
	want := w.sums("vm01")
	good := w.backup(w.vm(v.ID, "vm01").ID)

	run := w.finish(w.startBackup(w.vm(v.ID, "large").ID))
	j := run.Jobs[0]
	if run.State != api.RunStateFailed || j.Error == nil || j.Error.Code != api.ErrorCodeNoSpace {
		t.Fatalf("the run ended %s with %+v, want failed with no_space", run.State, j.Error)
	}
	t.Logf("answer: %s", j.Error.Message)
	if got := w.images("large"); len(got) != 0 {
		t.Errorf("%d images of the VM that did not fit, want none", len(got))
	}
	w.noLeftovers()
	r := w.restore(api.Restore{ImageID: good.ID, NewVM: &api.RestoreNewVM{Name: "copy"}})
	if r.Status != api.JobStateSucceeded {
		t.Fatalf("restore from the full disk: %+v", r.Error)
	}
	w.same("vm01", w.sums("copy"), want)
}
