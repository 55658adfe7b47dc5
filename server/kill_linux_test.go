package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// killWorld is a lab in this process and a server in another.
func killWorld(t *testing.T, lc lab.Config) (*world, *process) {
	t.Helper()
	lc.LeaseTimeout = 10 * time.Second // of the streams that a killed server leaves open
	l := newLab(t, lc)
	p := spawn(t, child{})
	return &world{T: t, ctx: t.Context(), lab: l, api: client(t, p.url, p.tokenFile())}, p
}

// restart starts the killed server again, on another port.
func (w *world) restart(p *process) {
	w.Helper()
	p.start()
	w.api = client(w.T, p.url, p.tokenFile())
}

func (w *world) job(id string) api.Job {
	w.Helper()
	r, err := w.api.GetJobWithResponse(w.ctx, id)
	w.ok(r, err)
	return *r.JSON200
}

// atStep waits until the job is doing that.
func (w *world) atStep(id, step string) {
	w.Helper()
	w.until("the step "+step, func() bool {
		j := w.job(id)
		if j.State.Final() {
			w.Fatalf("the job ended %s before it came to %q: %+v", j.State, step, j.Error)
		}
		return j.State == api.JobStateRunning && j.Step == step
	})
}

// slow makes a task take longer, or each stream stand still after its first
// bytes, so that a kill hits its middle.
func (w *world) slow(method string, d time.Duration) {
	w.Helper()
	f := lab.Fault{Kind: "task_slow", Method: method, Delay: d, Count: -1}
	if method == "stream" {
		f = lab.Fault{Kind: "stream_stall", After: 1 << 20, Delay: d, Count: -1}
	}
	if err := w.lab.Arm(f); err != nil {
		w.Fatal(err)
	}
}

// TestKillInEachStepOfABackup: after kill -9 and a new start the job succeeds,
// no snapshot is left, and exactly one image is listed, which restores.
//
// seed:N44 seed:A32
func TestKillInEachStepOfABackup(t *testing.T) {
	steps := []struct{ step, method string }{
		{"making the snapshot", "CreateSnapshot_Task"},
		{"reading disks", "stream"},
		{"removing the snapshot", "RemoveSnapshot_Task"},
	}
	w, p := killWorld(t, lab.Config{VMs: len(steps), DiskSize: 32 << 20})
	v := w.vcenter("lab")
	for i, s := range steps {
		t.Run(strings.ReplaceAll(s.step, " ", "_"), func(t *testing.T) {
			w := &world{T: t, ctx: t.Context(), lab: w.lab, api: client(t, p.url, p.tokenFile())}
			name := fmt.Sprintf("vm%02d", i+1)
			want := w.sums(name)
			w.slow(s.method, 3*time.Second)
			run := w.startBackup(w.vm(v.ID, name).ID)
			r, err := w.api.GetRunWithResponse(w.ctx, run)
			w.ok(r, err)
			w.atStep(r.JSON200.Jobs[0].ID, s.step)
			p.kill()
			w.lab.ClearFaults()
			w.restart(p)
			done := w.finish(run)
			if done.State != api.RunStateSucceeded {
				t.Fatalf("the run ended %s: %+v", done.State, done.Jobs[0].Error)
			}
			w.until("no left-overs", func() bool { return len(w.machine(name).Snapshots) == 0 })
			images := w.images(name)
			if len(images) != 1 || images[0].Status != api.ImageStatusGood {
				t.Fatalf("%d images of %s, want one: %+v", len(images), name, images)
			}
			restored := w.restore(api.Restore{ImageID: images[0].ID, NewVM: &api.RestoreNewVM{Name: name + "-copy"}})
			if restored.Status != api.JobStateSucceeded {
				t.Fatalf("restore: %+v", restored.Error)
			}
			w.same(name, w.sums(name+"-copy"), want)
		})
	}
}

func (w *world) images(vmName string) []api.BackupImage {
	w.Helper()
	var out []api.BackupImage
	r, err := w.api.ListBackupImagesWithResponse(w.ctx, &api.ListBackupImagesParams{Limit: 1000})
	w.ok(r, err)
	for _, i := range r.JSON200.Items {
		if i.VirtualMachine.Name == vmName {
			out = append(out, i)
		}
	}
	return out
}

// TestKillInARestore: after kill -9 and a new start there is one new VM, byte
// for byte, or the VM in place is as the image; no staging VM is left.
func TestKillInARestore(t *testing.T) {
	w, p := killWorld(t, lab.Config{VMs: 1, DiskSize: 32 << 20})
	v := w.vcenter("lab")
	want := w.sums("vm01")
	image := w.backup(w.vm(v.ID, "vm01").ID)
	for name, r := range map[string]api.Restore{
		"new VM":   {ImageID: image.ID, NewVM: &api.RestoreNewVM{Name: "copy"}},
		"in place": {ImageID: image.ID, InPlace: &api.RestoreInPlace{PowerOff: true}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{T: t, ctx: t.Context(), lab: w.lab, api: client(t, p.url, p.tokenFile())}
			if r.InPlace != nil {
				if err := w.lab.GuestWriteRandom("vm01", 2000, 0, 1<<20, 5); err != nil {
					t.Fatal(err)
				}
			}
			w.slow("stream", 3*time.Second)
			c, err := w.api.CreateRestoreWithResponse(w.ctx, nil, r)
			w.ok(c, err)
			w.atStep(c.JSON201.JobID, "writing disks")
			w.until("an upload", func() bool { return len(w.lab.VMs()) > w.settled() })
			p.kill()
			w.lab.ClearFaults()
			w.restart(p)
			done := w.restored(c.JSON201.ID)
			if done.Status != api.JobStateSucceeded {
				t.Fatalf("the restore ended %s: %+v", done.Status, done.Error)
			}
			target := "vm01"
			if r.NewVM != nil {
				target = r.NewVM.Name
			}
			w.same(target, w.sums(target), want)
			w.noLeftovers()
		})
	}
}

// settled counts the lab's VMs that are neither half made nor staged.
func (w *world) settled() int {
	n := 0
	for _, vm := range w.lab.VMs() {
		if vm.Name == "vm01" {
			n++
		}
	}
	return n
}

// TestTermHandsOver: SIGTERM in the middle of a backup ends the server within
// ten seconds, and its next start finishes the job.
func TestTermHandsOver(t *testing.T) {
	w, p := killWorld(t, lab.Config{VMs: 1, DiskSize: 32 << 20})
	v := w.vcenter("lab")
	w.slow("CreateSnapshot_Task", 2*time.Second)
	run := w.startBackup(w.vm(v.ID, "vm01").ID)
	r, err := w.api.GetRunWithResponse(w.ctx, run)
	w.ok(r, err)
	w.atStep(r.JSON200.Jobs[0].ID, "making the snapshot")
	if took := p.term(); took > 10*time.Second {
		t.Errorf("the server took %s to end, want at most 10 s", took)
	}
	w.lab.ClearFaults()
	w.restart(p)
	if done := w.finish(run); done.State != api.RunStateSucceeded {
		t.Errorf("the run ended %s: %+v", done.State, done.Jobs[0].Error)
	}
	w.until("no left-overs", func() bool { return len(w.machine("vm01").Snapshots) == 0 })
}

// TestTwoServersShareJobs: 40 jobs, two servers on one PostgreSQL, each job
// runs once, and both servers run some.
func TestTwoServersShareJobs(t *testing.T) {
	const n = 40
	l := newLab(t, lab.Config{VMs: n, DiskSize: 4 << 20})
	db := pgtest.Database(t)
	first := spawn(t, child{Database: db, Slots: 4})
	second := spawn(t, child{Database: db, Slots: 4, KeyFile: first.conf.Data + "/kura.key"})
	w := &world{T: t, ctx: context.Background(), lab: l, api: client(t, first.url, first.tokenFile())}
	v := w.vcenter("lab")
	g, err := w.api.CreateBackupGroupWithResponse(w.ctx, nil, api.BackupGroup{Name: "all", Selector: &api.Selector{VCenterID: v.ID, NameRegex: "^vm"}})
	w.ok(g, err)
	started, err := w.api.BackupGroupWithResponse(w.ctx, g.JSON201.ID, nil, api.BackupOptions{RetentionDays: 1})
	w.ok(started, err)
	run := w.finish(started.JSON202.ID)
	if run.State != api.RunStateSucceeded || len(run.Jobs) != n {
		t.Fatalf("the run ended %s with %d jobs, want succeeded with %d", run.State, len(run.Jobs), n)
	}
	for _, j := range run.Jobs {
		if j.Attempt != 1 {
			t.Errorf("job %s of %s ran %d times, want once", j.ID, j.VirtualMachine.Name, j.Attempt)
		}
		if got := len(w.images(j.VirtualMachine.Name)); got != 1 {
			t.Errorf("%d images of %s, want one", got, j.VirtualMachine.Name)
		}
	}
	for name, p := range map[string]*process{"first": first, "second": second} {
		if got := p.logged(`msg="job started".*kind=backup`); got == 0 {
			t.Errorf("the %s server ran none of the jobs", name)
		} else {
			t.Logf("the %s server ran %d jobs", name, got)
		}
	}
	w.noLeftovers()
}
