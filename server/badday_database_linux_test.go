package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// PostgreSQL is restarted in the middle of backups and bookings, as an operator
// does it and as a crash does: all that was acknowledged is there, each job ends
// well, no group is there twice, nothing is left behind.
func TestPostgreSQLIsRestartedInTheMiddleOfJobs(t *testing.T) {
	t.Parallel()
	const vms = 4
	c, err := pgtest.Start("synchronous_commit=on")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	way := pgtest.NewProxy(t, "unix", c.Socket())
	p := newPairOn(t, lab.Config{VMs: vms, DiskSize: 16 << 20}, way.DSN("postgres"), way)
	p.slow("stream", time.Second)
	var runs []string
	for i := range vms {
		runs = append(runs, p.startBackup(p.vm(p.id, fmt.Sprintf("vm%02d", i+1)).ID))
	}
	stop := make(chan struct{})
	var booking sync.WaitGroup
	made := map[string]bool{}
	booking.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			name := fmt.Sprint("group-", n)
			r, err := p.api.CreateBackupGroupWithResponse(p.ctx, nil, api.BackupGroup{Name: name, Selector: &api.Selector{VCenterID: p.id}})
			if err := api.Err(r, err); err == nil {
				made[name] = true
			} else if r != nil && r.StatusCode() == 500 {
				t.Errorf("group %s was refused with an internal error: %v", name, err)
			}
			time.Sleep(20 * time.Millisecond) // as fast as people are
		}
	})
	for _, how := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		time.Sleep(time.Second) // of work
		c.Stop(how)
		if err := c.Again(); err != nil {
			t.Fatal(err)
		}
	}
	p.lab.ClearFaults()
	p.until("the servers to answer", func() bool {
		r, err := p.api.GetServerWithResponse(p.ctx)
		return api.Err(r, err) == nil
	})
	for _, run := range runs {
		if done := p.finish(run); done.State != api.RunStateSucceeded {
			t.Errorf("a backup ended %s with attempt %d: %+v", done.State, done.Jobs[0].Attempt, done.Jobs[0].Error)
		}
	}
	close(stop)
	booking.Wait()
	r, err := p.api.ListBackupGroupsWithResponse(p.ctx, &api.ListBackupGroupsParams{Limit: 1000})
	p.ok(r, err)
	seen := map[string]int{}
	for _, g := range r.JSON200.Items {
		seen[g.Name]++
	}
	for name := range made {
		if seen[name] != 1 {
			t.Errorf("group %s, which was acknowledged, is there %d times", name, seen[name])
		}
	}
	if len(made) == 0 {
		t.Error("no group was acknowledged")
	}
	t.Logf("%d groups acknowledged, %d there", len(made), len(seen))
	for _, v := range p.check.check(p.ctx, 2) {
		t.Error(v)
	}
}

// The disk of the SQLite database is full: changes are refused with the reason,
// reads go on, a running job waits or is tried again, and all is well when there
// is room.
func TestTheDiskOfTheDatabaseIsFull(t *testing.T) {
	t.Parallel()
	l := newLab(t, lab.Config{VMs: 2, DiskSize: 16 << 20, LeaseTimeout: 10 * time.Second})
	dir := t.TempDir()
	s := spawn(t, child{Database: "sqlite:" + filepath.Join(dir, "kura.db"), SmallMiB: 24, SmallDir: dir})
	inside := fmt.Sprintf("/proc/%d/root%s", s.cmd.Process.Pid, dir)
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.url, s.tokenFile())}
	v := w.vcenter("lab")
	w.slow("stream", 2*time.Second)
	run := w.startBackup(w.vm(v.ID, "vm01").ID)
	r, err := w.api.GetRunWithResponse(w.ctx, run)
	w.ok(r, err)
	w.atStep(r.JSON200.Jobs[0].ID, "reading disks")
	ballast := filepath.Join(inside, "ballast")
	fill(t, ballast)
	var code api.ErrorCode
	w.until("a change to be refused", func() bool { // the database may have some room of its own
		a, err := w.api.CreateBackupGroupWithResponse(w.ctx, nil, api.BackupGroup{Name: fmt.Sprint("group-", time.Now().UnixNano()), Selector: &api.Selector{VCenterID: v.ID}})
		code = api.CodeOf(api.Err(a, err))
		return code != ""
	})
	if code != api.ErrorCodeNoSpace {
		t.Errorf("the change was refused with %s, want %s", code, api.ErrorCodeNoSpace)
	}
	if a, err := w.api.ListVirtualMachinesWithResponse(w.ctx, &api.ListVirtualMachinesParams{}); api.Err(a, err) != nil {
		t.Errorf("a read on a full disk: %v", api.Err(a, err))
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.lab.ClearFaults()
	if done := w.finish(run); done.State != api.RunStateSucceeded {
		t.Errorf("the backup ended %s: %+v", done.State, done.Jobs[0].Error)
	}
	if done := w.finish(w.startBackup(w.vm(v.ID, "vm02").ID)); done.State != api.RunStateSucceeded {
		t.Errorf("the next backup ended %s: %+v", done.State, done.Jobs[0].Error)
	}
	w.noLeftovers()
	for _, vm := range []string{"vm01", "vm02"} {
		images := w.images(vm)
		if len(images) != 1 {
			t.Fatalf("%d images of %s, want one", len(images), vm)
		}
		if r := w.restore(api.Restore{ImageID: images[0].ID, NewVM: &api.RestoreNewVM{Name: vm + "-copy"}}); r.Status != api.JobStateSucceeded {
			t.Fatalf("restore: %+v", r.Error)
		}
		w.same(vm, w.sums(vm+"-copy"), w.sums(vm))
	}
}

// fill writes until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for piece := make([]byte, 64<<10); len(piece) > 0; {
		if _, err := f.Write(piece); err != nil {
			piece = piece[:len(piece)/2]
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// A server that dies between a change and the keeping of its answer does not make
// the change again when the request is repeated.
func TestARequestThatIsRepeatedAfterAKillDoesNothingTwice(t *testing.T) {
	t.Parallel()
	l := newLab(t, lab.Config{VMs: 1, DiskSize: 4 << 20, LeaseTimeout: 10 * time.Second})
	places := t.TempDir()
	s := spawn(t, child{Failpoints: places})
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.url, s.tokenFile())}
	vm := w.vm(w.vcenter("lab").ID, "vm01").ID
	key := &api.BackupVirtualMachineParams{IdempotencyKey: "the night of the fire"}
	if err := os.WriteFile(filepath.Join(places, "idempotency.done"), []byte("kill"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := w.api.BackupVirtualMachineWithResponse(w.ctx, vm, key, api.BackupOptions{RetentionDays: 31}); api.Err(r, err) == nil {
		t.Fatal("the request was answered, and the server should have died")
	}
	s.kill()
	w.restart(s)
	again, err := w.api.BackupVirtualMachineWithResponse(w.ctx, vm, key, api.BackupOptions{RetentionDays: 31})
	err = api.Err(again, err)
	runs, lerr := w.api.ListRunsWithResponse(w.ctx, &api.ListRunsParams{})
	w.ok(runs, lerr)
	if n := len(runs.JSON200.Items); n != 1 {
		t.Fatalf("%d runs, want one", n)
	}
	if run := runs.JSON200.Items[0].ID; api.CodeOf(err) != api.ErrorCodeConflict || !strings.Contains(err.Error(), run) {
		t.Errorf("the repetition is answered %v, want a conflict that names run %s", err, run)
	}
	if done := w.finish(runs.JSON200.Items[0].ID); done.State != api.RunStateSucceeded {
		t.Errorf("the run ended %s", done.State)
	}
}
