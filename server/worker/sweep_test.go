package worker_test

import (
	"slices"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

// often makes the worker look for left-overs all the time.
func often(c *worker.Config) { c.Sweep = 5 * time.Millisecond }

func (h *house) addSnapshot(names ...string) {
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) {
		for _, n := range names {
			vm.snapshots[n] = map[int32][]byte{}
		}
	})
}

func TestASweepRemovesWhatIsOursAndDeadOnly(t *testing.T) {
	h := newHouse(t)
	other := h.addVM("other", 4<<10)
	// One job runs, one waits for its second try, one is over.
	reading := h.vsphere.hold(t, "ReadDisk", 1)
	live := h.ask(h.vm)
	stop := h.start(func(c *worker.Config) { c.Lease = time.Hour })
	h.wait("ReadDisk", reading.reached)
	h.vsphere.fail("CreateSnapshot", 1, unreachable)
	waiting := h.ask(other)
	h.waiting(waiting, 1)
	foreign := []string{"before the patch", "kura:OTHER:" + live + ":1", "kura:OTHER:" + live + ":7"}
	h.addSnapshot(foreign...)
	h.addSnapshot(marker("over", 1), marker(waiting, 1), marker(live, 0))
	h.vsphere.vmsMu.Lock()
	h.vsphere.vms["staging"] = &fakeVM{marker: marker("over", 2)}
	h.vsphere.vms["theirs"] = &fakeVM{marker: "kura:OTHER:job:1"}
	h.vsphere.vmsMu.Unlock()

	h.start(often, func(c *worker.Config) { c.Owner, c.Slots = "server-2", 1 })
	want := append(slices.Clone(foreign), marker(live, 1))
	slices.Sort(want)
	h.until("the sweep", func() bool { return slices.Equal(h.vsphere.snapshotsOf(h.vm.MOID), want) })
	before := len(h.vsphere.called("Sweep"))
	h.until("three more", func() bool { return len(h.vsphere.called("Sweep")) >= before+3 })
	if got := h.vsphere.snapshotsOf(h.vm.MOID); !slices.Equal(got, want) {
		t.Errorf("snapshots %v, want %v: the others' and that of the running job", got, want)
	}
	h.vsphere.vmsMu.Lock()
	staging, theirs := h.vsphere.vms["staging"], h.vsphere.vms["theirs"]
	h.vsphere.vmsMu.Unlock()
	if staging != nil || theirs == nil {
		t.Errorf("staging VM of ours is there: %t, of others: %t, want it gone and theirs left", staging != nil, theirs != nil)
	}
	reading.release()
	if j := h.ended(live); j.State != backup.JobSucceeded {
		t.Errorf("the running job is %s: %s", j.State, j.Error)
	}
	stop()
}

func TestASnapshotThatCannotBeRemovedIsAMessageAndTheSweepsWork(t *testing.T) {
	h := newHouse(t)
	h.vsphere.fail("RemoveSnapshot", 1, backup.Errorf(backup.VMBusy, "", "The VM is busy."))
	stop := h.start()
	h.swept() // the sweep of the start must not meet the job's snapshot
	id := h.ask(h.vm)
	j := h.ended(id)
	if want := "The snapshot could not be removed yet (The VM is busy); the server keeps trying."; j.State != backup.JobSucceeded || !slices.Equal(j.Messages, []string{want}) {
		t.Errorf("job is %s with messages %q, want it succeeded with %q", j.State, j.Messages, want)
	}
	if left := h.vsphere.snapshotsOf(h.vm.MOID); len(left) != 1 || len(h.images()) != 1 {
		t.Errorf("snapshots %v and %d images, want one of each", left, len(h.images()))
	}
	stop()
	h.start(often)
	h.until("the sweep", func() bool { return len(h.vsphere.snapshotsOf(h.vm.MOID)) == 0 })
}

// TestASnapshotOfAnEarlierTryThatStaysDoesNotStopTheNext: an export lease of a
// killed server may hold it for minutes.
func TestASnapshotOfAnEarlierTryThatStaysDoesNotStopTheNext(t *testing.T) {
	h := newHouse(t)
	h.vsphere.fail("ReadDisks", 1, unreachable)
	h.vsphere.fail("RemoveSnapshot", 2, backup.Errorf(backup.VMBusy, "", "The VM is busy."))
	stop := h.start()
	h.swept() // the sweep of the start must not meet the job's snapshot
	id := h.ask(h.vm)
	h.waiting(id, 1)
	h.clock.pass(15 * time.Second)
	if j := h.ended(id); j.State != backup.JobSucceeded || len(h.images()) != 1 {
		t.Errorf("job is %s: %s", j.State, j.Error)
	}
	if left := h.vsphere.snapshotsOf(h.vm.MOID); !slices.Equal(left, []string{marker(id, 1)}) {
		t.Errorf("snapshots %v, want the first try's only", left)
	}
	stop()
	h.start(often)
	h.until("the sweep", func() bool { return len(h.vsphere.snapshotsOf(h.vm.MOID)) == 0 })
}

func TestAVCenterThatCannotBeSweptKeepsNoOtherWaiting(t *testing.T) {
	h := newHouse(t)
	h.addVCenter("b")
	h.vsphere.fail("Connect", 1, unreachable)
	h.start()
	h.until("both", func() bool {
		got := slices.Sorted(slices.Values(h.vsphere.called("Connect")))
		return slices.Equal(got, []string{"Connect a", "Connect b"})
	})
	h.swept()
}

// seed:W22
func TestASyncStoresUpdatesAndMarksWhatIsGone(t *testing.T) {
	h := newHouse(t)
	gone := h.addVM("gone", 4<<10)
	h.start()
	h.vsphere.remove(gone.MOID)
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) {
		vm.VirtualMachine.Name, vm.Tags = "renamed", []backup.Tag{{Category: "backup", Name: "gold"}}
	})
	h.vsphere.vmsMu.Lock()
	h.vsphere.vms["moid-new"] = &fakeVM{Machine: backup.Machine{VirtualMachine: backup.VirtualMachine{MOID: "moid-new", InstanceUUID: "uuid-new", Name: "new"}}}
	h.vsphere.vmsMu.Unlock()
	h.clock.pass(time.Minute)
	j := h.sync()
	if j.State != backup.JobSucceeded {
		t.Fatalf("sync is %s: %s", j.State, j.Error)
	}
	vms := map[string]backup.VirtualMachine{}
	for _, vm := range read(h, func(tx backup.Tx) ([]backup.VirtualMachine, error) {
		all, _, err := tx.Machines(h.ctx, backup.MachineFilter{VCenterID: h.vcenter.ID, IncludeGone: true})
		return all, err
	}) {
		vms[vm.InstanceUUID] = vm
	}
	if vm := vms["uuid-web"]; vm.ID != h.vm.ID || vm.Name != "renamed" || len(vm.Tags) != 1 || vm.Gone() {
		t.Errorf("the VM that was renamed is %+v, want it with its id", vm)
	}
	if !vms["uuid-gone"].Gone() || vms["uuid-new"].Gone() || vms["uuid-new"].ID == "" || len(vms) != 3 {
		t.Errorf("inventory %+v, want one gone and one new", vms)
	}
	if v := h.vcenterNow(); v.SyncState != backup.SyncReady || v.APIVersion != "8.0.3" || !v.SyncedAt.Equal(h.clock.Now()) || v.SyncError != "" {
		t.Errorf("vcenter %+v, want it synced now", v)
	}
	h.sync()
	if got := h.vsphere.called("Inventory"); !slices.Equal(got, []string{"Inventory since=", "Inventory since=+"}) {
		t.Errorf("inventories were read as %q, want the changes only at the second time", got)
	}
	if vm := h.machine(gone.ID); !vm.Gone() {
		t.Error("the VM that had gone is there again")
	}
}

func (h *house) sync() backup.Job {
	h.Helper()
	j, err := h.planner.SyncVCenter(h.ctx, h.vcenter.ID)
	if err != nil {
		h.Fatal(err)
	}
	return h.ended(j.ID)
}

func (h *house) vcenterNow() backup.VCenter {
	h.Helper()
	return read(h, func(tx backup.Tx) (backup.VCenter, error) { return tx.VCenter(h.ctx, h.vcenter.ID) })
}

func (h *house) machine(id string) backup.VirtualMachine {
	h.Helper()
	return read(h, func(tx backup.Tx) (backup.VirtualMachine, error) { return tx.Machine(h.ctx, id) })
}

// seed:W22
func TestASyncThatFailsSaysSoAndTheInventoryStays(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.swept()
	h.vsphere.fail("Connect", 1, denied)
	if j := h.sync(); j.State != backup.JobFailed || j.ErrorCode != backup.VCenterDenied {
		t.Errorf("sync is %s (%s), want it failed", j.State, j.ErrorCode)
	}
	if v := h.vcenterNow(); v.SyncState != backup.SyncFailed || v.SyncError != denied.Message || !v.SyncedAt.Equal(start) {
		t.Errorf("vcenter %+v, want the failure and the time of the last good sync", v)
	}
	if h.machine(h.vm.ID).Gone() {
		t.Error("a sync that failed took the VM for gone")
	}
	h.vsphere.fail("Inventory", 1, errDown)
	j, err := h.planner.SyncVCenter(h.ctx, h.vcenter.ID)
	if err != nil {
		t.Fatal(err)
	}
	h.waiting(j.ID, 1)
	if v := h.vcenterNow(); v.SyncState != backup.SyncFailed || v.SyncError == "" || v.SyncError == errDown.Error() {
		t.Errorf("vcenter is %s with %q, want the failure without its insides", v.SyncState, v.SyncError)
	}
	h.clock.pass(15 * time.Second)
	h.ended(j.ID)
	if v := h.vcenterNow(); v.SyncState != backup.SyncReady || v.SyncError != "" {
		t.Errorf("after a good one it is %s with %q", v.SyncState, v.SyncError)
	}
}

func TestAnotherVCenterBehindTheSameAddressChangesNothing(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.vsphere.uuid = "another"
	h.vsphere.remove(h.vm.MOID)
	if j := h.sync(); j.State != backup.JobFailed || j.ErrorCode != backup.Conflict {
		t.Errorf("sync is %s (%s), want a conflict", j.State, j.ErrorCode)
	}
	if v := h.vcenterNow(); v.InstanceUUID != "vcenter-uuid" || v.SyncState != backup.SyncFailed || h.machine(h.vm.ID).Gone() {
		t.Errorf("vcenter %+v, want its identity and its VMs kept", v)
	}
}

func TestASyncThatIsStoppedIsNoFailure(t *testing.T) {
	h := newHouse(t)
	held := h.vsphere.hold(t, "Inventory", 1)
	stop := h.start()
	j, err := h.planner.SyncVCenter(h.ctx, h.vcenter.ID)
	if err != nil {
		t.Fatal(err)
	}
	h.wait("Inventory", held.reached)
	stop()
	if v := h.vcenterNow(); v.SyncState != backup.SyncReady || v.SyncError != "" || h.job(j.ID).State != backup.JobQueued {
		t.Errorf("vcenter is %s with %q, want it as it was and the job handed over", v.SyncState, v.SyncError)
	}
}

// TestASyncThatLostItsLeaseStoresNothing: what it has read is old by now.
func TestASyncThatLostItsLeaseStoresNothing(t *testing.T) {
	h := newHouse(t)
	j, err := h.planner.SyncVCenter(h.ctx, h.vcenter.ID)
	if err != nil {
		t.Fatal(err)
	}
	// While the inventory is read another server takes the job.
	h.vsphere.on("Inventory", func() {
		h.clock.pass(time.Hour)
		taken, err := h.db.Claim(h.ctx, backup.Claim{Owner: "server-2", Lease: time.Hour, Kinds: []backup.JobKind{backup.KindSync}})
		if err != nil || taken == nil {
			t.Errorf("claim: %v, %v", taken, err)
		}
		h.vsphere.on("Inventory", nil)
	})
	h.vsphere.remove(h.vm.MOID)
	stop := h.start(func(c *worker.Config) { c.Lease = 30 * time.Minute })
	h.until("the inventory", func() bool { return len(h.vsphere.called("Inventory")) == 1 })
	stop()
	if got := h.job(j.ID); got.Owner != "server-2" || got.State != backup.JobRunning || h.machine(h.vm.ID).Gone() {
		t.Errorf("job is %s of %s, want it and the inventory left alone", got.State, got.Owner)
	}
}

func TestAnInventoryThatHasGrownOldIsReadAgain(t *testing.T) {
	h := newHouse(t)
	h.clock.pass(time.Hour)
	h.start(func(c *worker.Config) { c.Sync = 50 * time.Millisecond })
	h.until("a sync", func() bool { return h.vcenterNow().SyncedAt.Equal(h.clock.Now()) })
	h.clock.pass(time.Second)
	h.until("another", func() bool { return h.vcenterNow().SyncedAt.Equal(h.clock.Now()) })
}

// TestAnAccountThatIsRefusedIsNotTriedAllTheTime, for that could get it locked.
func TestAnAccountThatIsRefusedIsNotTriedAllTheTime(t *testing.T) {
	h := newHouse(t)
	h.clock.pass(time.Hour)
	h.vsphere.fail("Connect", 1000, denied)
	h.start(often, func(c *worker.Config) { c.Sync = 30 * time.Millisecond })
	h.until("the refusal", func() bool { return h.vcenterNow().SyncState == backup.SyncFailed })
	h.addVCenter("b") // is swept all the while
	h.until("twenty sweeps without it", func() bool {
		calls := h.vsphere.called("Connect")
		return len(calls) > 20 && !slices.Contains(calls[len(calls)-20:], "Connect a")
	})
	h.vsphere.fail("Connect", 0, nil)
	h.clock.pass(time.Hour)
	h.until("a new try", func() bool { return h.vcenterNow().SyncState == backup.SyncReady })
}
