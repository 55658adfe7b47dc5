package worker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

func offline(s *backup.Schedule) { s.Consistency = backup.ConsistencyOffline }

// powered lists the power operations so far.
func (h *house) powered() []string { return h.vsphere.called("ShutDownGuest", "SetPower") }

func (h *house) powerState() (state backup.PowerState) {
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { state = vm.PowerState })
	return state
}

func (h *house) setPowerState(s backup.PowerState) {
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { vm.PowerState = s })
}

// image returns the only image there is.
func (h *house) image() backup.Image {
	h.Helper()
	all := h.images()
	if len(all) != 1 {
		h.Fatalf("there are %d images, want one", len(all))
	}
	return all[0]
}

// seed:N63 seed:N64 seed:K5 seed:K6 seed:K10 seed:A5
func TestAnOfflineBackupShutsTheGuestDownForTheSnapshotOnly(t *testing.T) {
	h := newHouse(t)
	h.start()
	read := h.vsphere.hold(t, "ReadDisk", 1)
	id := h.ask(h.vm, offline)
	h.wait("ReadDisk", read.reached)
	var during backup.PowerState
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { during = vm.takenWhile })
	if now := h.powerState(); now != backup.PoweredOn || during != backup.PoweredOff {
		t.Errorf("the VM is %s while it is read and was %s for the snapshot, want on and off", now, during)
	}
	read.release()
	if j := h.ended(id); j.State != backup.JobSucceeded || j.Owes || len(j.Messages) != 0 {
		t.Errorf("job is %s: %s %q, owes = %t", j.State, j.Error, j.Messages, j.Owes)
	}
	if got := h.powered(); !slices.Equal(got, []string{"ShutDownGuest " + h.vm.MOID, "SetPower " + h.vm.MOID + " on=true"}) {
		t.Errorf("power operations %q, want one shutdown and one start", got)
	}
	if i := h.image(); i.Consistency != backup.ConsistencyOffline {
		t.Errorf("the image is %s, want offline", i.Consistency)
	}
}

// seed:H7
func TestAVMThatIsOffStaysOffAndOneThatIsSuspendedIsRefused(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.setPowerState(backup.PoweredOff)
	if j := h.ended(h.ask(h.vm, offline)); j.State != backup.JobSucceeded {
		t.Errorf("job is %s: %s", j.State, j.Error)
	}
	if i := h.image(); i.Consistency != backup.ConsistencyOffline {
		t.Errorf("the image is %s, want offline", i.Consistency)
	}
	h.setPowerState(backup.Suspended)
	if j := h.ended(h.ask(h.vm, offline)); j.State != backup.JobFailed || j.ErrorCode != backup.PreflightFailed || !strings.Contains(j.Error, "suspended") {
		t.Errorf("job is %s: %s, want it refused", j.State, j.Error)
	}
	if got := h.powered(); len(got) != 0 {
		t.Errorf("power operations %q, want none", got)
	}
}

// seed:N64
func TestAGuestThatHangsHasItsPowerCutAndTheImageSaysSo(t *testing.T) {
	h := newHouse(t)
	hang := h.vsphere.hold(t, "ShutDownGuest", -1)
	h.start(func(c *worker.Config) { c.ShutdownTime = 20 * time.Millisecond })
	id := h.ask(h.vm, offline)
	h.wait("the end of patience", hang.stopped)
	j := h.ended(id)
	if j.State != backup.JobSucceeded || len(j.Messages) != 1 || !strings.Contains(j.Messages[0], "did not shut down within 20ms and was powered off") {
		t.Errorf("job is %s: %s with messages %q", j.State, j.Error, j.Messages)
	}
	if got := h.powered(); !slices.Equal(got[1:], []string{"SetPower " + h.vm.MOID + " on=false", "SetPower " + h.vm.MOID + " on=true"}) {
		t.Errorf("power operations %q, want the power cut and the VM started", got)
	}
	if i := h.image(); i.Consistency != backup.ConsistencyCrash || h.powerState() != backup.PoweredOn {
		t.Errorf("the image is %s and the VM %s, want crash-consistent and on", i.Consistency, h.powerState())
	}
}

// seed:H4
func TestAGuestWithoutToolsIsLeftAlone(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { vm.noTools = true })
	if j := h.ended(h.ask(h.vm, offline)); j.State != backup.JobFailed || j.ErrorCode != backup.PreflightFailed || !strings.Contains(j.Error, "VMware Tools do not run") || j.Owes {
		t.Errorf("job is %s: %s, want it refused for want of Tools", j.State, j.Error)
	}
	if got := h.powered(); len(got) != 0 || h.powerState() != backup.PoweredOn {
		t.Errorf("power operations %q, want none", got)
	}
	app := func(s *backup.Schedule) { s.Consistency = backup.ConsistencyApp }
	j := h.ended(h.ask(h.vm, app))
	if i := h.image(); j.State != backup.JobSucceeded || i.Consistency != backup.ConsistencyCrash || len(j.Messages) != 1 || !strings.Contains(j.Messages[0], "VMware Tools do not run in it), so the image is crash-consistent") {
		t.Errorf("job is %s with messages %q and the image is %s, want it crash-consistent with a message", j.State, j.Messages, i.Consistency)
	}
	required := func(s *backup.Schedule) { s.Consistency = backup.ConsistencyAppRequired }
	if j := h.ended(h.ask(h.vm, required)); j.State != backup.JobFailed || j.ErrorCode != backup.PreflightFailed {
		t.Errorf("job with app_required is %s: %s, want it failed", j.State, j.Error)
	}
}

// TestAVMThatWasOnIsOnAgainWhateverFails goes through all that an offline
// backup asks of others, cancelled, failed and by a server that dies there.
func TestAVMThatWasOnIsOnAgainWhateverFails(t *testing.T) {
	for _, point := range []string{"ShutDownGuest", "CreateSnapshot", "Begin", "ReadDisks", "ReadDisk", "Commit", "RemoveSnapshot"} {
		t.Run(point+" fails", func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.vsphere.fail(point, 1, denied)
			h.repository.fail(point, 1, denied)
			h.start()
			if point == "RemoveSnapshot" { // that is no failure of the job
				denied := h.ended(h.ask(h.vm, offline))
				h.mustBeOn(denied)
				return
			}
			h.mustBeOn(h.ended(h.ask(h.vm, offline)))
		})
		t.Run("server dies at "+point, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			at := h.holdAt(t, point)
			h.start()
			id := h.ask(h.vm, offline)
			h.wait(point, at.reached)
			// From here on it can do nothing any more, as after kill -9.
			h.store.fail("Renew", 1000, errDown)
			h.store.fail("Note", 1000, errDown)
			h.clock.pass(time.Minute)
			h.wait("its end", at.stopped)
			h.store.fail("Renew", 0, nil)
			h.store.fail("Note", 0, nil)
			h.start(often, func(c *worker.Config) { c.Owner = "server-2" })
			h.mustBeOn(h.retried(id))
		})
		if point == "RemoveSnapshot" {
			continue // there it waits until its time is over
		}
		t.Run("cancelled at "+point, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			at := h.holdAt(t, point)
			h.start()
			id := h.ask(h.vm, offline)
			h.wait(point, at.reached)
			h.update(func(tx backup.Tx) error {
				_, err := tx.CancelJob(h.ctx, id)
				return err
			})
			h.mustBeOn(h.ended(id))
		})
	}
}

// holdAt holds a point of either peer.
func (h *house) holdAt(t *testing.T, point string) *hold {
	if point == "Begin" || point == "Commit" {
		return h.repository.hold(t, point, 1)
	}
	return h.vsphere.hold(t, point, 1)
}

// mustBeOn checks that the VM is on and nothing is owed, now or after a sweep.
func (h *house) mustBeOn(j backup.Job) {
	h.Helper()
	if h.powerState() != backup.PoweredOn {
		h.Errorf("the job ended %s (%s) and the VM is %s, want it on", j.State, j.Error, h.powerState())
	}
	if owing, err := h.db.Owing(h.ctx); err != nil || len(owing) != 0 && h.powerState() != backup.PoweredOn {
		h.Errorf("%d jobs still owe (%v)", len(owing), err)
	}
}

// handedOver stops the worker at a point of an offline backup, does what is to
// happen meanwhile, and returns the job as the next server has ended it.
func (h *house) handedOver(at *hold, stop func(), id string, meanwhile func()) backup.Job {
	h.Helper()
	h.wait("the place", at.reached)
	h.clock.pass(time.Minute) // a server that has only just begun leaves the VM to the job
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	meanwhile()
	h.wait("the worker's end", stopped)
	if j := h.job(id); j.State != backup.JobQueued {
		h.Fatalf("after the stop the job is %s: %s", j.State, j.Error)
	}
	h.start(often, func(c *worker.Config) { c.Owner = "server-2" })
	return h.ended(id)
}

// wantOneShutdown looks at the guest's troubles: it was asked once and started once.
func (h *house) wantOneShutdown(j backup.Job) {
	h.Helper()
	want := []string{"ShutDownGuest " + h.vm.MOID, "SetPower " + h.vm.MOID + " on=true"}
	if got := h.powered(); !slices.Equal(got, want) || j.State != backup.JobSucceeded || h.powerState() != backup.PoweredOn || j.Owes {
		h.Errorf("job is %s (%s) with %q, owes = %t, VM is %s after %q; want one shutdown and one start", j.State, j.Error, j.Messages, j.Owes, h.powerState(), got)
	}
	if i := h.image(); i.Consistency != backup.ConsistencyOffline || len(h.vsphere.snapshotsOf(h.vm.MOID)) != 0 {
		h.Errorf("the image is %s, snapshots %q; want offline and none", i.Consistency, h.vsphere.snapshotsOf(h.vm.MOID))
	}
}

// Whenever a server is stopped, the guest is shut down once for the whole job.
func TestAServerThatIsStoppedDoesNotCostASecondShutdown(t *testing.T) {
	t.Run("while the snapshot is made", func(t *testing.T) {
		h := newHouse(t)
		at := h.vsphere.hold(t, "CreateSnapshot", 1)
		stop := h.start(func(c *worker.Config) { c.HandTime = time.Minute })
		id := h.ask(h.vm, offline)
		h.wantOneShutdown(h.handedOver(at, stop, id, at.release))
	})
	t.Run("while the disks are read", func(t *testing.T) {
		h := newHouse(t)
		at := h.vsphere.hold(t, "ReadDisk", 1)
		stop := h.start()
		id := h.ask(h.vm, offline)
		j := h.handedOver(at, stop, id, func() {})
		h.wantOneShutdown(j)
		if got := h.vsphere.called("CreateSnapshot"); len(got) != 2 || got[0] != got[1] {
			t.Errorf("snapshots were asked for as %q, want the first again", got)
		}
	})
	t.Run("while the guest goes down", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { vm.lingers = true })
		at := h.vsphere.hold(t, "ShutDownGuest", 1)
		stop := h.start(func(c *worker.Config) { c.HandTime = 20 * time.Millisecond })
		id := h.ask(h.vm, offline)
		h.wait("ShutDownGuest", at.reached)
		stop()
		h.start(often, func(c *worker.Config) { c.Owner = "server-2" })
		looks := len(h.vsphere.called("Power"))
		h.until("the next attempt's patience", func() bool { return len(h.vsphere.called("Power")) > looks+3 })
		h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { vm.PowerState, vm.noTools = backup.PoweredOff, false })
		h.wantOneShutdown(h.ended(id))
	})
}

func TestATryThatFailsDoesNotCostASecondShutdown(t *testing.T) {
	h := newHouse(t)
	h.vsphere.fail("ReadDisk", 1, unreachable)
	h.start()
	id := h.ask(h.vm, offline)
	h.waiting(id, 1)
	if got := h.vsphere.snapshotsOf(h.vm.MOID); !slices.Equal(got, []string{marker(id, 1)}) {
		t.Errorf("between the tries there are the snapshots %q, want the job's", got)
	}
	h.clock.pass(15 * time.Second)
	h.wantOneShutdown(h.ended(id))
}

func TestASnapshotOfAVMThatWasOffIsMadeAnewWhenSomebodyRemovesIt(t *testing.T) {
	h := newHouse(t)
	h.vsphere.fail("ReadDisk", 1, unreachable)
	h.start()
	id := h.ask(h.vm, offline)
	h.waiting(id, 1)
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { clear(vm.snapshots) })
	h.clock.pass(15 * time.Second)
	j := h.ended(id)
	if i := h.image(); j.State != backup.JobSucceeded || i.Consistency != backup.ConsistencyOffline || len(h.vsphere.called("ShutDownGuest")) != 2 {
		t.Errorf("job is %s (%s), image %s, %q", j.State, j.Error, i.Consistency, h.powered())
	}
	if h.powerState() != backup.PoweredOn || !slices.ContainsFunc(j.Messages, func(m string) bool { return strings.Contains(m, "is gone, so the guest is shut down for another") }) {
		t.Errorf("the VM is %s, messages %q", h.powerState(), j.Messages)
	}
}

func TestAVMThatCannotBePoweredOnIsTheSweepsWorkAfterTheJob(t *testing.T) {
	h := newHouse(t)
	power := h.vsphere.hold(t, "SetPower", -1)
	stop := h.start()
	h.swept()
	id := h.ask(h.vm, offline)
	h.wait("SetPower", power.reached)
	h.update(func(tx backup.Tx) error {
		_, err := tx.CancelJob(h.ctx, id)
		return err
	})
	h.wait("the end of the job's time", power.stopped)
	j := h.ended(id)
	if j.State != backup.JobCancelled || !j.Owes || h.powerState() != backup.PoweredOff {
		t.Errorf("job is %s, owes = %t, VM is %s, want it cancelled and owing", j.State, j.Owes, h.powerState())
	}
	stop()
	power.release()
	h.start(often)
	h.until("the sweep", func() bool { return !h.job(id).Owes })
	if j := h.job(id); h.powerState() != backup.PoweredOn || !slices.ContainsFunc(j.Messages, func(m string) bool { return strings.Contains(m, "was powered on at") }) {
		t.Errorf("the VM is %s with messages %q, want it on and said", h.powerState(), j.Messages)
	}
	// What its owner turns off from now on stays off.
	h.setPowerState(backup.PoweredOff)
	before := len(h.vsphere.called("Sweep"))
	h.until("two more sweeps", func() bool { return len(h.vsphere.called("Sweep")) >= before+2 })
	if h.powerState() != backup.PoweredOff {
		t.Error("a VM that its owner turned off was powered on again")
	}
}

func TestAVMThatSomebodyPowersOnDuringTheSnapshotIsBackedUpAnew(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.swept()
	h.vsphere.on("CreateSnapshot", func() {
		if err := h.vsphere.turn(h.vm.MOID, true); err != nil {
			t.Error(err)
		}
	})
	id := h.ask(h.vm, offline)
	if j := h.waiting(id, 1); j.ErrorCode != backup.VMBusy {
		t.Errorf("the first try failed with %s (%s), want vm_busy", j.ErrorCode, j.Error)
	}
	h.vsphere.on("CreateSnapshot", nil)
	h.clock.pass(15 * time.Second)
	j := h.ended(id)
	if i := h.image(); j.State != backup.JobSucceeded || i.Consistency != backup.ConsistencyOffline || h.powerState() != backup.PoweredOn {
		t.Errorf("job is %s, image %s, VM %s", j.State, i.Consistency, h.powerState())
	}
}

func TestASnapshotThatVSphereNeverFinishesIsGivenUp(t *testing.T) {
	h := newHouse(t)
	hang := h.vsphere.hold(t, "CreateSnapshot", 1)
	h.start(func(c *worker.Config) { c.SnapshotTime = 20 * time.Millisecond })
	id := h.ask(h.vm)
	h.wait("the end of patience", hang.stopped)
	if j := h.waiting(id, 1); j.ErrorCode != backup.VMBusy || !strings.Contains(j.Error, `did not make a snapshot of VM "web" within 20ms`) {
		t.Errorf("the try failed with %s: %s", j.ErrorCode, j.Error)
	}
	h.clock.pass(15 * time.Second)
	if j := h.ended(id); j.State != backup.JobSucceeded {
		t.Errorf("job is %s: %s", j.State, j.Error)
	}
}
