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

// together makes a consistent group of n VMs besides "web".
func (h *house) together(n int, change ...func(*backup.Group)) (backup.Group, []backup.VirtualMachine) {
	h.Helper()
	g := backup.Group{Name: "together", Consistent: true}
	vms := []backup.VirtualMachine{h.vm}
	for i := range n {
		vms = append(vms, h.addVM(fmt.Sprint("vm", i), 4<<10))
	}
	for _, vm := range vms {
		g.VirtualMachineIDs = append(g.VirtualMachineIDs, vm.ID)
	}
	for _, f := range change {
		f(&g)
	}
	g, err := h.planner.CreateGroup(h.ctx, g)
	if err != nil {
		h.Fatal(err)
	}
	return g, vms
}

func orFail(g *backup.Group) { g.OnMemberFailure = backup.MemberFail }

func (h *house) backUp(g backup.Group) backup.Run {
	h.Helper()
	run, err := h.planner.BackupGroup(h.ctx, g.ID, backup.RunOptions{RetentionDays: 31})
	if err != nil {
		h.Fatal(err)
	}
	return run
}

func (h *house) run(id string) backup.Run {
	h.Helper()
	return read(h, func(tx backup.Tx) (backup.Run, error) { return tx.Run(h.ctx, id) })
}

// over waits for a run's end. Time passes while its jobs wait for their next try.
func (h *house) over(id string) backup.Run {
	h.Helper()
	h.until("the run's end", func() bool {
		r := h.run(id)
		if slices.ContainsFunc(r.Jobs, func(j backup.Job) bool { return j.State == backup.JobQueued && j.Due.After(h.clock.Now()) }) {
			h.clock.pass(15 * time.Second)
		}
		return r.State != backup.RunQueued && r.State != backup.RunRunning
	})
	return h.run(id)
}

// of finds the job of a VM, or the one that leads.
func of(r backup.Run, vmID string) backup.Job {
	i := slices.IndexFunc(r.Jobs, func(j backup.Job) bool { return j.VMID == vmID })
	return r.Jobs[i]
}

// clean waits until no VM has a snapshot.
func (h *house) clean(vms []backup.VirtualMachine) {
	h.Helper()
	h.until("the last snapshot's end", func() bool {
		return !slices.ContainsFunc(vms, func(vm backup.VirtualMachine) bool { return len(h.vsphere.snapshotsOf(vm.MOID)) > 0 })
	})
}

// seed:A56
func TestAllMembersSnapshotsAreMadeBeforeAnyIsRead(t *testing.T) {
	h := newHouse(t)
	g, vms := h.together(5)
	read := h.vsphere.hold(t, "ReadDisks", -1)
	h.vsphere.on("CreateSnapshot", func() { h.clock.pass(100 * time.Millisecond) })
	h.start(often, func(c *worker.Config) { c.Slots, c.Lease = 2, time.Minute })
	run := h.backUp(g)
	h.wait("ReadDisks", read.reached)
	h.vsphere.on("CreateSnapshot", nil)
	// Two are read, four wait: no sweep takes their snapshots away.
	before := len(h.vsphere.called("Sweep"))
	h.until("three sweeps", func() bool { return len(h.vsphere.called("Sweep")) >= before+3 })
	for _, vm := range vms {
		if got := h.vsphere.snapshotsOf(vm.MOID); !slices.Equal(got, []string{marker(of(run, vm.ID).ID, 1)}) {
			t.Errorf("VM %s has the snapshots %v while the first are read, want its own", vm.Name, got)
		}
	}
	// Its VM is the run's own until it has been read.
	other := h.ask(vms[5])
	read.release()
	run = h.over(run.ID)
	lead := of(run, "")
	if run.State != backup.RunSucceeded || len(run.Jobs) != 7 || lead.Kind != backup.KindFreeze || run.Spread <= 0 || run.Spread > time.Second {
		t.Errorf("run is %s with %d jobs, spread %s, want it succeeded with a spread of less than a second", run.State, len(run.Jobs), run.Spread)
	}
	if len(lead.Messages) != 1 || !strings.HasPrefix(lead.Messages[0], "Snapshots of 6 of 6 VMs were made within 0.") {
		t.Errorf("messages %q", lead.Messages)
	}
	if j := h.ended(other); j.State != backup.JobSucceeded || j.StartedAt.Before(of(run, vms[5].ID).EndedAt) {
		t.Errorf("the other backup of a member is %s, started %s", j.State, j.StartedAt)
	}
	if got := h.images(); len(got) != 7 {
		t.Errorf("%d images, want six and that of the other job", len(got))
	}
	h.clean(vms)
}

// seed:H9
func TestAMemberWithoutASnapshotIsLeftOutOrFailsTheRunAsAsked(t *testing.T) {
	for name, c := range map[string]struct {
		policy func(*backup.Group)
		state  backup.RunState
		images int
		text   string
	}{
		"left out": {func(*backup.Group) {}, backup.RunPartial, 3, denied.Message},
		"failed":   {orFail, backup.RunFailed, 0, "No member was backed up, as on_member_failure"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			g, vms := h.together(3, c.policy)
			h.vsphere.fail("CreateSnapshot", 1, denied)
			h.start(often)
			run := h.over(h.backUp(g).ID)
			bad := 0
			for _, j := range run.Jobs {
				if j.Kind == backup.KindBackup && j.State == backup.JobFailed {
					bad++
					if j.ErrorCode != backup.VCenterDenied || !strings.HasPrefix(j.Error, c.text) {
						t.Errorf("a member failed with %s: %s", j.ErrorCode, j.Error)
					}
				}
			}
			if run.State != c.state || len(h.images()) != c.images || bad != 4-c.images {
				t.Errorf("run is %s with %d images and %d failed members, want %s with %d", run.State, len(h.images()), bad, c.state, c.images)
			}
			h.clean(vms)
		})
	}
}

func TestAConsistentRunWhoseVCenterIsAwayIsTriedAgain(t *testing.T) {
	h := newHouse(t)
	g, vms := h.together(3)
	h.vsphere.fail("Machine", 4, unreachable)
	h.start()
	run := h.over(h.backUp(g).ID)
	if lead := of(run, ""); run.State != backup.RunSucceeded || lead.Failures != 1 || len(h.images()) != 4 {
		t.Errorf("run is %s with %d images after %d failures, want it succeeded at the second try", run.State, len(h.images()), lead.Failures)
	}
	h.clean(vms)
}

// TestAConsistentRunOutlivesItsServer kills the leading server at each step.
func TestAConsistentRunOutlivesItsServer(t *testing.T) {
	for _, point := range []string{"Connect", "Machine", "TrackChanges", "CreateSnapshot", "ReadDisk", "Commit", "RemoveSnapshot"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			g, vms := h.together(2)
			stop := h.start()
			h.swept()
			at := h.holdAt(t, point)
			run := h.backUp(g)
			h.wait(point, at.reached)
			h.store.fail("Renew", 1000, errDown)
			h.clock.pass(time.Minute)
			h.wait("its end", at.stopped)
			stop()
			h.store.fail("Renew", 0, nil)
			h.start(often, func(c *worker.Config) { c.Owner, c.Lease = "server-2", time.Hour })
			h.until("the run's end", func() bool {
				r := h.run(run.ID)
				if r.State == backup.RunRunning || r.State == backup.RunQueued {
					h.clock.pass(100 * time.Millisecond)
				}
				return r.State != backup.RunRunning && r.State != backup.RunQueued
			})
			if r := h.run(run.ID); r.State != backup.RunSucceeded || len(h.images()) != 3 || r.Spread <= 0 {
				t.Errorf("run is %s with %d images, spread %s, want it succeeded with three", r.State, len(h.images()), r.Spread)
			}
			h.clean(vms)
		})
	}
}

func TestACancelledMemberLeavesNoSnapshotAndTheOthersGoOn(t *testing.T) {
	h := newHouse(t)
	g, vms := h.together(2)
	read := h.vsphere.hold(t, "ReadDisks", -1)
	h.start(often, func(c *worker.Config) { c.Slots = 1 })
	run := h.backUp(g)
	h.wait("ReadDisks", read.reached)
	run = h.run(run.ID)
	i := slices.IndexFunc(run.Jobs, func(j backup.Job) bool { return j.State == backup.JobQueued })
	waiting := run.Jobs[i]
	h.update(func(tx backup.Tx) error {
		_, err := tx.CancelJob(h.ctx, waiting.ID)
		return err
	})
	gone := vms[slices.IndexFunc(vms, func(vm backup.VirtualMachine) bool { return vm.ID == waiting.VMID })]
	h.until("the cancelled member's snapshot's end", func() bool { return len(h.vsphere.snapshotsOf(gone.MOID)) == 0 })
	read.release()
	if run = h.over(run.ID); run.State != backup.RunPartial || len(h.images()) != 2 {
		t.Errorf("run is %s with %d images, want it partial with two", run.State, len(h.images()))
	}
	h.clean(vms)
}

func TestAConsistentRunThatIsCancelledTakesItsMembersAlong(t *testing.T) {
	h := newHouse(t)
	g, vms := h.together(2)
	making := h.vsphere.hold(t, "CreateSnapshot", 1)
	h.start(often)
	run := h.backUp(g)
	h.wait("CreateSnapshot", making.reached)
	h.update(func(tx backup.Tx) error {
		_, err := tx.CancelJob(h.ctx, of(run, "").ID)
		return err
	})
	if run = h.over(run.ID); run.State != backup.RunFailed || slices.ContainsFunc(run.Jobs, func(j backup.Job) bool { return j.State != backup.JobCancelled }) {
		t.Errorf("run is %s, want all its jobs cancelled", run.State)
	}
	h.clean(vms)
}

func TestAMembersNextTryReadsTheSameSnapshotUnlessThatIsGone(t *testing.T) {
	for name, removed := range map[string]bool{"the same": false, "another": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			g, vms := h.together(0)
			h.vsphere.fail("ReadDisk", 1, unreachable)
			h.start()
			run := h.backUp(g)
			id := of(run, h.vm.ID).ID
			h.waiting(id, 1)
			if removed {
				h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { clear(vm.snapshots) })
			}
			h.clock.pass(15 * time.Second)
			run = h.over(run.ID)
			made := h.vsphere.called("CreateSnapshot")
			apart := strings.Contains(h.image().Message, "apart from the others")
			if run.State != backup.RunSucceeded || apart != removed || h.image().PointInTime.After(start.Add(time.Second)) != removed {
				t.Errorf("run is %s and the image of %s says %q after the calls %q", run.State, h.image().PointInTime, h.image().Message, made)
			}
			h.clean(vms)
		})
	}
}
