package worker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

var (
	unreachable = backup.Errorf(backup.VCenterUnreachable, "", "The vcenter does not answer.")
	denied      = backup.Errorf(backup.VCenterDenied, "password", "The vcenter refuses the password.")
)

// seed:N44 seed:A53
func TestATransientFailureIsTriedAgainWithBackOffUntilTheTriesAreUsedUp(t *testing.T) {
	h := newHouse(t)
	h.vsphere.fail("CreateSnapshot", 9, unreachable)
	id := h.ask(h.vm)
	h.start()
	for try, wait := range []time.Duration{15 * time.Second, 30 * time.Second} {
		j := h.waiting(id, try+1)
		if want := h.clock.Now().Add(wait); !j.Due.Equal(want) || j.ErrorCode != backup.VCenterUnreachable || j.Attempt != try+1 {
			t.Errorf("after try %d it is due %s (%s), want %s", try+1, j.Due, j.ErrorCode, want)
		}
		h.clock.pass(wait)
	}
	j := h.ended(id)
	if j.State != backup.JobFailed || j.ErrorCode != backup.VCenterUnreachable || j.Error != unreachable.Message || j.Attempt != 3 {
		t.Errorf("job %+v, want it failed at the third try with the code and the message", j)
	}
	if len(j.Messages) != 2 || !strings.Contains(j.Messages[0], "Try 1 failed") || !strings.Contains(j.Messages[1], "12:00:45 UTC") {
		t.Errorf("messages %q, want one for each try that was followed by another", j.Messages)
	}
	run := read(h, func(tx backup.Tx) (backup.Run, error) { return tx.Run(h.ctx, j.RunID) })
	if run.State != backup.RunFailed || len(h.images()) != 0 || len(h.kept()) != 0 {
		t.Errorf("run is %s with %d images, want it failed with none", run.State, len(h.images()))
	}
}

// TestAFailureAtAnyStepLeavesNothingAndTheNextTrySucceeds goes through all that
// a backup asks of others.
//
// seed:N44 seed:A32
func TestAFailureAtAnyStepLeavesNothingAndTheNextTrySucceeds(t *testing.T) {
	for _, point := range []string{"Repository", "Connect", "Machine", "CreateSnapshot", "Begin", "ReadDisks", "Disk", "ReadDisk", "CloseDisk", "CloseDisks", "File", "Commit", "Note"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.start()
			h.swept()
			for _, p := range []*points{&h.vsphere.points, &h.repository.points, &h.store.points} {
				p.fail(point, 1, unreachable)
			}
			id := h.ask(h.vm)
			h.waiting(id, 1)
			if left := h.vsphere.snapshotsOf(h.vm.MOID); len(left) != 0 || len(h.kept()) != 0 || len(h.images()) != 0 {
				t.Errorf("after the failure snapshots %v and %d images are left", left, len(h.kept()))
			}
			if begun, ended := len(h.repository.called("Begin")), len(h.repository.called("Abort")); ended > begun {
				t.Errorf("%d images were begun and %d given up", begun, ended)
			}
			h.clock.pass(15 * time.Second)
			j := h.ended(id)
			images, kept := h.images(), h.kept()
			if j.State != backup.JobSucceeded || j.Error != "" || len(images) != 1 || len(kept) != 1 || kept[0].Image.Ref != images[0].Ref {
				t.Errorf("job is %s (%s) with images %+v, want it succeeded with one", j.State, j.Error, images)
			}
			if left := h.vsphere.snapshotsOf(h.vm.MOID); len(left) != 0 {
				t.Errorf("snapshots %v are left", left)
			}
		})
	}
}

func TestWhatTryingAgainCannotHelpFailsAtOnce(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.swept()
	h.vsphere.fail("Connect", 1, denied)
	id := h.ask(h.vm)
	if j := h.ended(id); j.State != backup.JobFailed || j.ErrorCode != backup.VCenterDenied || j.Attempt != 1 {
		t.Errorf("job is %s (%s) after %d tries, want it failed after one", j.State, j.ErrorCode, j.Attempt)
	}
}

func TestATryThatWouldComeAfterTheDeadlineIsNotMade(t *testing.T) {
	h := newHouse(t)
	h.vsphere.fail("CreateSnapshot", 9, unreachable)
	id := backup.NewID(start)
	spec := h.job(h.ask(h.vm)).Spec
	h.update(func(tx backup.Tx) error {
		return tx.InsertJob(h.ctx, backup.Job{ID: id, Kind: backup.KindBackup, VCenterID: h.vcenter.ID, VMID: h.vm.ID, VMName: h.vm.Name, Spec: spec,
			Due: start.Add(-time.Hour), Deadline: start.Add(10 * time.Second), MaxAttempts: 3})
	})
	h.start()
	if j := h.ended(id); j.State != backup.JobFailed || j.Attempt != 1 {
		t.Errorf("job is %s after %d tries, want it failed: the next would be 15 s on", j.State, j.Attempt)
	}
}

func TestAMessageIsNotRepeatedByEachTry(t *testing.T) {
	h := newHouse(t)
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { vm.SnapshotNames = []string{"by hand"} })
	h.vsphere.fail("ReadDisks", 1, unreachable)
	id := h.ask(h.vm)
	h.start()
	h.waiting(id, 1)
	h.clock.pass(15 * time.Second)
	if j := h.ended(id); len(j.Messages) != 2 {
		t.Errorf("messages %q, want the other's snapshot and the failed try, once each", j.Messages)
	}
}

func TestAPanicIsTheFailureOfItsJobOnly(t *testing.T) {
	h := newHouse(t)
	other := h.addVM("db", 4<<10)
	panics := 1
	h.vsphere.on("ReadDisks", func() {
		if panics--; panics == 0 {
			panic("at the disco")
		}
	})
	id := h.ask(h.vm)
	h.start()
	j := h.waiting(id, 1)
	if j.ErrorCode != backup.Internal || strings.Contains(j.Error, "disco") {
		t.Errorf("job has code %s and %q, want internal without the insides", j.ErrorCode, j.Error)
	}
	if j := h.ended(h.ask(other)); j.State != backup.JobSucceeded {
		t.Errorf("the other job is %s: %s", j.State, j.Error)
	}
	h.clock.pass(15 * time.Second)
	if j := h.ended(id); j.State != backup.JobSucceeded {
		t.Errorf("the next try is %s: %s", j.State, j.Error)
	}
	if left := h.vsphere.snapshotsOf(h.vm.MOID); len(left) != 0 {
		t.Errorf("snapshots %v are left", left)
	}
}

// seed:A65
func TestACancelledJobStopsWithinFiveSecondsAndLeavesNothing(t *testing.T) {
	for _, point := range []string{"CreateSnapshot", "ReadDisk", "Commit"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			id := h.ask(h.vm)
			held := h.vsphere.hold(t, point, 1)
			if point == "Commit" {
				held = h.repository.hold(t, point, 1)
			}
			h.start()
			h.wait(point, held.reached)
			asked := time.Now()
			if _, err := h.planner.CancelJob(h.ctx, id); err != nil {
				t.Fatal(err)
			}
			j := h.ended(id)
			if took := time.Since(asked); j.State != backup.JobCancelled || took > 5*time.Second {
				t.Errorf("job is %s after %s, want it cancelled within 5 s", j.State, took)
			}
			if left := h.vsphere.snapshotsOf(h.vm.MOID); len(left) != 0 || len(h.images()) != 0 || len(h.kept()) != 0 {
				t.Errorf("snapshots %v and %d images are left", left, len(h.kept()))
			}
		})
	}
}

func TestACancelThatComesAfterTheCommitIsTooLate(t *testing.T) {
	h := newHouse(t)
	id := h.ask(h.vm)
	held := h.vsphere.hold(t, "RemoveSnapshot", 1)
	h.start()
	h.wait("RemoveSnapshot", held.reached)
	if _, err := h.planner.CancelJob(h.ctx, id); err != nil {
		t.Fatal(err)
	}
	held.release()
	if j := h.ended(id); j.State != backup.JobSucceeded || len(h.images()) != 1 || len(h.vsphere.snapshotsOf(h.vm.MOID)) != 0 {
		t.Errorf("job is %s with %d images, want it succeeded with its image", j.State, len(h.images()))
	}
}

func TestAServerThatEndsHandsItsJobOverWithoutCountingAFailure(t *testing.T) {
	h := newHouse(t)
	id := h.ask(h.vm)
	held := h.vsphere.hold(t, "ReadDisk", 1)
	stop := h.start()
	h.wait("ReadDisk", held.reached)
	stop()
	h.wait("the end of the reading", held.stopped)
	j := h.job(id)
	if j.State != backup.JobQueued || j.Failures != 0 || j.Attempt != 1 || j.Owner != "" || j.Due.After(start) || j.ErrorCode != "" {
		t.Errorf("job %+v, want it back in the queue, due at once, without a failed try", j)
	}
	if left := h.vsphere.snapshotsOf(h.vm.MOID); len(left) != 0 || len(h.kept()) != 0 {
		t.Errorf("snapshots %v and %d images are left", left, len(h.kept()))
	}
	h.start(func(c *worker.Config) { c.Owner = "server-2" })
	if j := h.ended(id); j.State != backup.JobSucceeded || j.Attempt != 2 || len(h.images()) != 1 {
		t.Errorf("job is %s after %d attempts, want it finished by the next server", j.State, j.Attempt)
	}
}

// TestAServerThatEndsDoesNotWaitForASlowRemoval: the image is listed, and the
// snapshot goes with the next server's sweep.
func TestAServerThatEndsDoesNotWaitForASlowRemoval(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	id := h.ask(h.vm)
	held := h.vsphere.hold(t, "RemoveSnapshot", 1)
	stop := h.start()
	h.wait("RemoveSnapshot", held.reached)
	began := time.Now()
	stop()
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("the server took %s to end, want 8 s at most", took)
	}
	j := h.job(id)
	if j.State != backup.JobSucceeded || len(h.images()) != 1 || len(j.Messages) != 1 || !strings.Contains(j.Messages[0], "keeps trying") {
		t.Errorf("job is %s with messages %q, want it succeeded with the snapshot named", j.State, j.Messages)
	}
	h.start(func(c *worker.Config) { c.Owner = "server-2" })
	h.until("the sweep", func() bool { return len(h.vsphere.snapshotsOf(h.vm.MOID)) == 0 })
}

// TestAServerThatLostItsLeaseTouchesNothing: its beats hang, another server
// takes the job over, and then it wakes.
func TestAServerThatLostItsLeaseTouchesNothing(t *testing.T) {
	h := newHouse(t)
	id := h.ask(h.vm)
	reading, beats := h.vsphere.hold(t, "ReadDisk", 1), h.store.hold(t, "Renew", -1)
	// Of one slot only, so that it does not take the job over from itself.
	stop := h.start(func(c *worker.Config) { c.Lease, c.Slots = 4*time.Second, 1 })
	h.wait("ReadDisk", reading.reached)
	h.wait("Renew", beats.reached)
	h.clock.pass(5 * time.Second)
	second := &faultyStore{DB: h.db}
	h.start(func(c *worker.Config) { c.Owner, c.Store = "server-2", second })
	j := h.ended(id)
	beats.release()
	h.wait("the end of the first server's reading", reading.stopped)
	stop()
	if j.State != backup.JobSucceeded || j.Attempt != 2 || j.Failures != 0 || j.Owner != "server-2" {
		t.Errorf("job %+v, want it done by the second server", j)
	}
	if got, want := h.vsphere.called("CreateSnapshot", "RemoveSnapshot"), []string{"CreateSnapshot " + marker(id, 1) + " quiesce=false", "RemoveSnapshot " + marker(id, 1),
		"CreateSnapshot " + marker(id, 2) + " quiesce=false", "RemoveSnapshot " + marker(id, 2)}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want the second server to clear up after the first and nobody after it: %q", got, want)
	}
	if got := h.store.called("Finish/" + id); len(got) != 0 {
		t.Errorf("the first server wrote down the end: %q", got)
	}
	if images, kept := h.images(), h.kept(); len(images) != 1 || len(kept) != 1 || len(h.repository.called("Abort")) != 1 {
		t.Errorf("%d images listed, %d kept, want one of each and the first server's given up", len(images), len(kept))
	}
}

func TestAServerThatCannotRenewStopsBeforeItsLeaseEnds(t *testing.T) {
	h := newHouse(t)
	id := h.ask(h.vm)
	reading := h.vsphere.hold(t, "ReadDisk", 1)
	h.start()
	h.wait("ReadDisk", reading.reached)
	h.store.hold(t, "Renew", -1)
	h.clock.pass(900 * time.Millisecond) // of a lease of 1 s; nobody else has taken the job
	h.wait("the end of the reading", reading.stopped)
	if got := h.vsphere.called("RemoveSnapshot"); len(got) != 0 {
		t.Errorf("it removes %q, which may be another's by now", got)
	}
	if j := h.job(id); j.State != backup.JobRunning {
		t.Errorf("job is %s, want it left to who takes it over", j.State)
	}
}

// TestAnEndThatCannotBeStoredLeavesOneImage: the image is committed and the
// database is away. The next attempt lists the image that is there.
func TestAnEndThatCannotBeStoredLeavesOneImage(t *testing.T) {
	for name, c := range map[string]struct {
		noted   bool // the commit got into the checkpoint
		gone    bool // the VM has left meanwhile
		commits int
	}{
		"the commit was noted":          {true, false, 1},
		"noted, and the VM has left":    {true, true, 1},
		"the commit was not noted, too": {false, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			id := h.ask(h.vm)
			h.store.fail("Finish/"+id, 1, errDown)
			if !c.noted {
				h.repository.on("Commit", func() { h.store.fail("Note", 1, errDown) })
			}
			h.start()
			h.until("the end that is not stored", func() bool { return len(h.store.called("Finish/"+id)) == 1 })
			h.repository.on("Commit", nil)
			if c.gone {
				h.update(func(tx backup.Tx) error { return tx.MarkGone(h.ctx, h.vcenter.ID, []string{h.vm.MOID}, false) })
			}
			if n := len(h.images()); n != 0 || h.job(id).State != backup.JobRunning {
				t.Fatalf("%d images are listed and the job is %s, want none and it running", n, h.job(id).State)
			}
			h.clock.pass(2 * time.Second) // the lease runs out
			j := h.ended(id)
			images, kept := h.images(), h.kept()
			if j.State != backup.JobSucceeded || j.Attempt != 2 || j.Failures != 0 || len(images) != 1 || len(kept) != 1 {
				t.Fatalf("job is %s (%s) after %d attempts with %d images listed and %d kept, want one", j.State, j.Error, j.Attempt, len(images), len(kept))
			}
			if images[0].Ref != kept[0].Image.Ref || images[0].ID != kept[0].Image.ID || j.ImageID != images[0].ID {
				t.Errorf("listed %+v, kept %+v: want the same", images[0], kept[0].Image)
			}
			if n := len(h.repository.called("Commit")); n != c.commits {
				t.Errorf("%d commits, want %d", n, c.commits)
			}
			if left := h.vsphere.snapshotsOf(h.vm.MOID); len(left) != 0 {
				t.Errorf("snapshots %v are left", left)
			}
		})
	}
}

func TestProgressTellsBytesAndRate(t *testing.T) {
	h := newHouse(t)
	id := h.ask(h.vm)
	h.vsphere.on("ReadDisk", func() { h.clock.pass(100 * time.Millisecond) }) // each quarter of a disk takes that long
	held := h.vsphere.hold(t, "CloseDisks", 1)
	h.start(func(c *worker.Config) { c.Lease = time.Hour })
	h.wait("CloseDisks", held.reached)
	h.until("the progress", func() bool { return h.job(id).Done == 128<<10 })
	j := h.job(id)
	// 128 KiB in 0.8 s at once, then none.
	if j.Total != 128<<10 || j.Rate <= 0 || j.Rate > 163840 || j.Step != "reading disks" {
		t.Errorf("progress %d of %d at %d bytes per second, step %q", j.Done, j.Total, j.Rate, j.Step)
	}
	held.release()
	if j := h.ended(id); j.State != backup.JobSucceeded || j.Rate != 0 {
		t.Errorf("job is %s with rate %d, want it succeeded and no rate left", j.State, j.Rate)
	}
}

// seed:H9 seed:N28 seed:A26
func TestOneMembersFailureFailsNoOther(t *testing.T) {
	h := newHouse(t)
	bad := h.addVM("bad", 4<<10)
	h.vsphere.with(bad.MOID, func(vm *fakeVM) { vm.ConsolidationNeeded = true })
	g, err := h.planner.CreateGroup(h.ctx, backup.Group{Name: "g", VirtualMachineIDs: []string{h.vm.ID, bad.ID, h.addVM("third", 4<<10).ID}})
	if err != nil {
		t.Fatal(err)
	}
	run, err := h.planner.BackupGroup(h.ctx, g.ID, backup.RunOptions{RetentionDays: 1, Consistency: backup.ConsistencyApp})
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	h.until("the run's end", func() bool {
		run = read(h, func(tx backup.Tx) (backup.Run, error) { return tx.Run(h.ctx, run.ID) })
		return !run.EndedAt.IsZero()
	})
	for _, j := range run.Jobs {
		if (j.State == backup.JobFailed) != (j.VMID == bad.ID) || (j.State == backup.JobSucceeded) == (j.VMID == bad.ID) {
			t.Errorf("job of %s is %s: %s", j.VMName, j.State, j.Error)
		}
	}
	if run.State != backup.RunPartial || len(h.images()) != 2 {
		t.Errorf("run is %s with %d images, want partial with 2", run.State, len(h.images()))
	}
}

func TestJobsRunBesideEachOtherWithinTheSlots(t *testing.T) {
	h := newHouse(t)
	held := h.vsphere.hold(t, "ReadDisks", -1)
	var jobs []string
	for i := range 5 {
		jobs = append(jobs, h.ask(h.addVM(fmt.Sprint("vm", i), 4<<10)))
	}
	h.start(func(c *worker.Config) { c.Slots = 3 })
	h.until("three jobs at once", func() bool { return len(h.vsphere.called("ReadDisks")) == 3 })
	live, err := h.db.Live(h.ctx)
	if err != nil || len(live) != 3 {
		t.Errorf("%d jobs run (%v), want 3", len(live), err)
	}
	held.release()
	for _, id := range jobs {
		if j := h.ended(id); j.State != backup.JobSucceeded {
			t.Errorf("job is %s: %s", j.State, j.Error)
		}
	}
}
