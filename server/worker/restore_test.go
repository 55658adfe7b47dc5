package worker_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

// backedUp returns an image of the house's VM and its content; then its guest
// wipes the disks.
func (h *house) backedUp() (backup.Image, map[int32][]byte) {
	h.Helper()
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { vm.PowerState = backup.PoweredOff })
	stop := h.start()
	if j := h.ended(h.ask(h.vm)); j.State != backup.JobSucceeded {
		h.Fatalf("backup is %s: %s", j.State, j.Error)
	}
	stop()
	want := h.content(h.vm.MOID)
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) {
		for _, b := range vm.disks {
			clear(b)
		}
	})
	h.update(func(tx backup.Tx) error {
		vm := h.vm
		vm.PowerState = backup.PoweredOff
		return tx.SaveMachines(h.ctx, []backup.VirtualMachine{vm})
	})
	return h.images()[0], want
}

func (h *house) restore(r backup.Restore) backup.Restore {
	h.Helper()
	r, err := h.planner.CreateRestore(h.ctx, r)
	if err != nil {
		h.Fatal(err)
	}
	return r
}

func (h *house) restoreNow(id string) backup.Restore {
	h.Helper()
	return read(h, func(tx backup.Tx) (backup.Restore, error) { return tx.Restore(h.ctx, id) })
}

func (h *house) holds(moid string, want map[int32][]byte) {
	h.Helper()
	got := h.content(moid)
	for key, b := range want {
		if !bytes.Equal(got[key], b) {
			h.Errorf("disk %d of %s differs from the image", key, moid)
		}
	}
}

func inPlace(i backup.Image) backup.Restore {
	return backup.Restore{ImageID: i.ID, InPlace: &backup.RestoreInPlace{Safety: backup.SafetyQuick}}
}

func newVM(i backup.Image) backup.Restore {
	return backup.Restore{ImageID: i.ID, NewVM: &backup.RestoreNewVM{Name: "copy"}}
}

// seed:N1 seed:N4 seed:N42 seed:A2
func TestARestorePutsEveryByteBack(t *testing.T) {
	for name, ask := range map[string]func(backup.Image) backup.Restore{"in place": inPlace, "new VM": newVM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			image, want := h.backedUp()
			r := h.restore(ask(image))
			writing := h.vsphere.hold(t, "WriteEnd", 1)
			h.start()
			h.wait("WriteEnd", writing.reached)
			if note := string(h.job(r.JobID).Checkpoint); !strings.Contains(note, marker(r.JobID, 1)) {
				t.Errorf("while it writes the checkpoint is %s, want what it makes in it", note)
			}
			h.until("the progress", func() bool { return h.job(r.JobID).Done == 128<<10 })
			writing.release()
			j := h.ended(r.JobID)
			done := h.restoreNow(r.ID)
			if j.State != backup.JobSucceeded || done.State != backup.JobSucceeded || done.Bytes != 128<<10 || done.Result.MOID == "" || j.Total != 128<<10 {
				t.Fatalf("restore %+v of job %s (%s), want it succeeded with its VM and bytes", done, j.State, j.Error)
			}
			h.holds(done.Result.MOID, want)
			if (done.Result.MOID == h.vm.MOID) != (r.InPlace != nil) || r.InPlace != nil && len(j.Messages) != 1 {
				t.Errorf("restored %s with messages %q", done.Result.MOID, j.Messages)
			}
			h.until("a sync after it", func() bool { return len(h.vsphere.called("Inventory")) == 1 })
		})
	}
}

func TestARestoreThatFailsHalfWayIsTriedAgainAndLeavesNothing(t *testing.T) {
	for name, ask := range map[string]func(backup.Image) backup.Restore{"in place": inPlace, "new VM": newVM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			image, want := h.backedUp()
			h.vsphere.fail("WriteEnd", 1, unreachable)
			r := h.restore(ask(image))
			h.start()
			h.waiting(r.JobID, 1)
			if done := h.restoreNow(r.ID); done.State != backup.JobQueued || done.Result.MOID != "" {
				t.Errorf("restore %+v, want it waiting", done)
			}
			h.clock.pass(15 * time.Second)
			j := h.ended(r.JobID)
			done := h.restoreNow(r.ID)
			if j.State != backup.JobSucceeded || j.Attempt != 2 {
				t.Fatalf("job is %s (%s) after %d attempts, want it succeeded at the second", j.State, j.Error, j.Attempt)
			}
			h.holds(done.Result.MOID, want)
			h.vsphere.vmsMu.Lock()
			defer h.vsphere.vmsMu.Unlock()
			for moid, vm := range h.vsphere.vms {
				if vm.marker != "" {
					t.Errorf("half a VM %s is left: %s", moid, vm.marker)
				}
			}
		})
	}
}

// What others left may take long to remove, or never go: that is the sweep's.
func TestARestoreThatIsTriedAgainRemovesItsOwnLeftOversOnly(t *testing.T) {
	h := newHouse(t)
	image, want := h.backedUp()
	h.vsphere.fail("WriteEnd", 1, unreachable)
	other := marker("ANOTHERJOB", 1)
	h.vsphere.on("WriteEnd", func() {
		h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { vm.snapshots[other] = map[int32][]byte{} })
	})
	r := h.restore(newVM(image))
	h.start()
	h.waiting(r.JobID, 1)
	h.clock.pass(15 * time.Second)
	j := h.ended(r.JobID)
	h.holds(h.restoreNow(r.ID).Result.MOID, want)
	if left := h.vsphere.snapshotsOf(h.vm.MOID); j.State != backup.JobSucceeded || !slices.Equal(left, []string{other}) {
		t.Errorf("job is %s (%s), left are %q, want another job's", j.State, j.Error, left)
	}
	h.vsphere.vmsMu.Lock()
	defer h.vsphere.vmsMu.Unlock()
	if len(h.vsphere.vms) != 2 {
		t.Errorf("%d VMs are there, want the old one and the new", len(h.vsphere.vms))
	}
}

// TestARestoreWhoseEndWasNotStoredIsNotDoneTwice: a second VM of the name, or a
// VM that was powered on by then, would be refused.
func TestARestoreWhoseEndWasNotStoredIsNotDoneTwice(t *testing.T) {
	for name, ask := range map[string]func(backup.Image) backup.Restore{"in place": inPlace, "new VM": newVM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			image, want := h.backedUp()
			r := h.restore(ask(image))
			h.store.fail("Finish/"+r.JobID, 1, errDown)
			h.start()
			h.until("the end that is not stored", func() bool { return len(h.store.called("Finish/"+r.JobID)) == 1 })
			h.clock.pass(2 * time.Second)
			j := h.ended(r.JobID)
			done := h.restoreNow(r.ID)
			if j.State != backup.JobSucceeded || j.Attempt != 2 || done.Bytes != 128<<10 || len(h.vsphere.called("ImportVM", "OverwriteVM")) != 1 {
				t.Fatalf("job is %s (%s) after %q, want it done once", j.State, j.Error, h.vsphere.called("ImportVM", "OverwriteVM"))
			}
			h.holds(done.Result.MOID, want)
		})
	}
}

func TestARestoreThatCannotSucceedFailsWithTheReason(t *testing.T) {
	for name, c := range map[string]struct {
		point string
		err   error
		code  backup.Code
	}{
		"the VM is running":          {"OverwriteVM", backup.Errorf(backup.VMRunning, "in_place.power_off", "It runs."), backup.VMRunning},
		"the VM is gone":             {"OverwriteVM", backup.Errorf(backup.VMGone, "", "It is gone."), backup.VMGone}, // seed:N73
		"the repository has lost it": {"OpenImage", backup.Errorf(backup.RepositoryDamaged, "", "A pack is missing."), backup.RepositoryDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			image, _ := h.backedUp()
			h.vsphere.fail(c.point, 1, c.err)
			h.repository.fail(c.point, 1, c.err)
			r := h.restore(inPlace(image))
			h.start()
			j := h.ended(r.JobID)
			done := h.restoreNow(r.ID)
			if j.State != backup.JobFailed || j.Attempt != 1 || done.ErrorCode != c.code || done.Error != backup.AsError(c.err).Message {
				t.Errorf("restore is %s (%s: %s), want it failed with %s", done.State, done.ErrorCode, done.Error, c.code)
			}
		})
	}
}

func TestARestoreThatIsForgottenWhileItRunsIsCancelled(t *testing.T) {
	h := newHouse(t)
	image, _ := h.backedUp()
	held := h.vsphere.hold(t, "WriteDisk", 1)
	r := h.restore(newVM(image))
	h.start(often)
	h.wait("WriteDisk", held.reached)
	if err := h.planner.DeleteRestore(h.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	if j := h.ended(r.JobID); j.State != backup.JobCancelled {
		t.Errorf("job is %s, want cancelled", j.State)
	}
	h.until("the sweep of the half VM", func() bool {
		h.vsphere.vmsMu.Lock()
		defer h.vsphere.vmsMu.Unlock()
		return len(h.vsphere.vms) == 1
	})
}

// seed:N43
func TestADeletionTakesTheImageOutOfRepositoryAndCatalogue(t *testing.T) {
	h := newHouse(t)
	image, _ := h.backedUp()
	h.repository.fail("Delete", 1, backup.Errorf(backup.RepositoryUnreachable, "", "The repository does not answer."))
	j, err := h.planner.DeleteImage(h.ctx, image.ID)
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	h.waiting(j.ID, 1)
	if images := h.images(); len(images) != 1 || images[0].Status != backup.ImageExpired {
		t.Errorf("while the repository is away images are %+v, want it listed as expired", images)
	}
	h.clock.pass(15 * time.Second)
	if j := h.ended(j.ID); j.State != backup.JobSucceeded || len(h.images()) != 0 || len(h.kept()) != 0 {
		t.Errorf("deletion is %s (%s), %d images listed and %d kept, want none", j.State, j.Error, len(h.images()), len(h.kept()))
	}
}

func TestADeletionWhoseEndWasNotStoredSucceedsAtTheNextAttempt(t *testing.T) {
	h := newHouse(t)
	image, _ := h.backedUp()
	j, err := h.planner.DeleteImage(h.ctx, image.ID)
	if err != nil {
		t.Fatal(err)
	}
	h.store.fail("Finish/"+j.ID, 1, errDown)
	h.start()
	h.until("the end that is not stored", func() bool { return len(h.store.called("Finish/"+j.ID)) == 1 })
	h.clock.pass(2 * time.Second)
	if j := h.ended(j.ID); j.State != backup.JobSucceeded || len(h.images()) != 0 {
		t.Errorf("deletion is %s (%s) with %d images listed, want none", j.State, j.Error, len(h.images()))
	}
}

// scheduled stores a schedule of the VM for the hour that begins an hour after start.
func (h *house) scheduled(maxDelay int) backup.Schedule {
	h.Helper()
	s, err := h.planner.CreateSchedule(h.ctx, backup.Schedule{Name: "nightly", Enabled: true, VMID: h.vm.ID, RetentionDays: 7, LatestHour: 23, MaxDelayHours: maxDelay,
		Recurrence: backup.Recurrence{Kind: backup.Daily, TimeZone: "UTC", Hour: 13}})
	if err != nil {
		h.Fatal(err)
	}
	return s
}

// onlyJob waits for the one backup job there is to end.
func (h *house) onlyJob() backup.Job {
	h.Helper()
	var j backup.Job
	h.until("a backup that is over", func() bool {
		all := read(h, func(tx backup.Tx) ([]backup.Job, error) {
			all, _, err := tx.Jobs(h.ctx, backup.JobFilter{Kind: backup.KindBackup, Page: backup.Page{Limit: 10}})
			return all, err
		})
		if len(all) == 1 {
			j = all[0]
		}
		return len(all) == 1 && j.State.Final()
	})
	return j
}

// allDue is when whatever is scheduled an hour after start has fallen due.
const allDue = time.Hour + 50*time.Minute

func quick(c *worker.Config) { c.Dispatch = 5 * time.Millisecond }

// seed:A31
func TestADueScheduleRunsByItself(t *testing.T) {
	h := newHouse(t)
	s := h.scheduled(0)
	h.start(quick)
	h.clock.pass(allDue)
	j := h.onlyJob()
	if j.State != backup.JobSucceeded || j.LateBy() != 0 || h.images()[0].ScheduleID != s.ID {
		t.Errorf("job is %s (%s), %s late, want it succeeded in its slot", j.State, j.Error, j.LateBy())
	}
}

// seed:N27
func TestAJobThatStartsAfterItsWindowIsLateAndAfterItsDelayMissed(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		state backup.JobState
		late  time.Duration
	}{
		"late":   {3*time.Hour + 20*time.Minute, backup.JobSucceeded, 80 * time.Minute},
		"missed": {4*time.Hour + 20*time.Minute, backup.JobMissed, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.scheduled(2)
			h.clock.pass(c.after) // the server was away
			h.start(quick)
			j := h.onlyJob()
			if j.State != c.state || j.LateBy() != c.late || (j.Error == "") != (c.state == backup.JobSucceeded) {
				t.Errorf("job is %s, %s late (%q), want %s, %s late", j.State, j.LateBy(), j.Error, c.state, c.late)
			}
		})
	}
}

func TestAServerTakesWhatItReachesOnly(t *testing.T) {
	h := newHouse(t)
	far := h.addVCenter("b")
	near := h.ask(h.vm)
	h.vcenter = far
	other := h.ask(h.addVM("far", 4<<10))
	stop := h.start(func(c *worker.Config) { c.Reach = []string{"vcenter:a", "repository:default"} })
	h.ended(near)
	h.swept()
	if j := h.job(other); j.State != backup.JobQueued || j.Attempt != 0 {
		t.Errorf("the job of vcenter b is %s after %d attempts, want it waiting", j.State, j.Attempt)
	}
	stop()
	for _, c := range h.vsphere.called("Connect") {
		if c != "Connect a" {
			t.Errorf("the server connects to what it does not reach: %s", c)
		}
	}
	h.start(func(c *worker.Config) {
		c.Owner, c.Reach = "server-2", []string{"vcenter:b", "repository:default"}
	})
	if j := h.ended(other); j.State != backup.JobSucceeded || j.Owner != "server-2" {
		t.Errorf("the job of vcenter b is %s of %s, want the second server's", j.State, j.Owner)
	}
}
