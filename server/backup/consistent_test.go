package backup_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func (h *house) addConsistent(vms []backup.VirtualMachine) backup.Group {
	h.Helper()
	return must(h.CreateGroup(h.ctx, backup.Group{Name: "together", VirtualMachineIDs: ids(vms), Consistent: true}))(h.T)
}

// leader is the job that makes the snapshots of the run.
func leader(t *testing.T, r backup.Run) backup.Job {
	t.Helper()
	i := slices.IndexFunc(r.Jobs, func(j backup.Job) bool { return j.Kind == backup.KindFreeze })
	if i < 0 {
		t.Fatalf("run %s has no job that makes the snapshots", r.ID)
	}
	return r.Jobs[i]
}

// seed:A56
func TestARunOfAConsistentGroupIsLedByOneJobMore(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 4)
	g := h.addConsistent(vms)
	h.leave(vms[3])
	s := nightly("n", 3)
	s.GroupID, s.WindowHours = g.ID, 3
	s = h.add(s)
	h.clock.set(tonight(3).Add(time.Minute))
	if n := must(h.Dispatch(h.ctx))(t); n != 1 {
		t.Fatalf("%d runs were made, want one", n)
	}
	run := must(h.runOf(h.runs(s.ID)[0].ID))(t)
	lead := leader(t, run)
	if len(run.Jobs) != 5 || len(lead.Keys) != 3 || !slices.Equal(lead.Needs, []string{"vcenter:a"}) || lead.VMID != "" || lead.Deadline.IsZero() {
		t.Errorf("run has %d jobs, led by %+v, want five, of which one holds the three VMs that are there", len(run.Jobs), lead)
	}
	for _, j := range run.Jobs {
		switch {
		case j.Kind == backup.KindFreeze:
		case j.VMID == vms[3].ID:
			if j.State != backup.JobSkipped || j.WaitsFor != "" {
				t.Errorf("the VM that left has a job %s that waits for %q", j.State, j.WaitsFor)
			}
		case j.WaitsFor != lead.ID || !j.Due.Equal(lead.Due) || !j.Deadline.Equal(lead.Deadline):
			t.Errorf("a member waits for %q, due %s, want for %s at %s", j.WaitsFor, j.Due, lead.ID, lead.Due)
		}
	}
	h.clock.set(lead.Due)
	if j := h.claim(); j == nil || j.ID != lead.ID {
		t.Fatalf("%+v was claimed first, want the job that leads", j)
	} else if other := h.claim(); other != nil {
		t.Errorf("a member (%s) began before its snapshot was made", other.VMName)
	} else {
		h.finish(j, backup.Ending{State: backup.JobFailed, Code: backup.VCenterDenied, Error: "No."})
	}
	run = must(h.runOf(run.ID))(t)
	for _, j := range run.Jobs {
		if j.State != backup.JobSkipped && (j.State != backup.JobFailed || j.ErrorCode != backup.VCenterDenied || j.Error != "No.") {
			t.Errorf("a job is %s (%s) after the one that leads failed, want it failed for the same reason", j.State, j.Error)
		}
	}
	if run.State != backup.RunFailed {
		t.Errorf("run is %s, want failed", run.State)
	}
}

func (h *house) runOf(id string) (r backup.Run, err error) {
	err = h.db.View(h.ctx, func(tx backup.Tx) error {
		r, err = tx.Run(h.ctx, id)
		return err
	})
	return r, err
}

func TestAFullRunOfAConsistentGroupKeepsWhatItsLeaderIsAsked(t *testing.T) {
	h := newHouse(t, 10)
	g := must(h.CreateGroup(h.ctx, backup.Group{Name: "g", VirtualMachineIDs: ids(h.addVMs(h.vcenter.ID, 2)), Consistent: true, OnMemberFailure: backup.MemberFail}))(t)
	run := must(h.BackupGroup(h.ctx, g.ID, backup.RunOptions{RetentionDays: 1, Full: true}))(t)
	var spec backup.FreezeSpec
	if err := json.Unmarshal(leader(t, run).Spec, &spec); err != nil || spec.OnMemberFailure != backup.MemberFail {
		t.Errorf("spec %s (%v), want the group's policy", leader(t, run).Spec, err)
	}
}

// seed:A16
func TestWhatCannotBeBackedUpTogetherIsRefused(t *testing.T) {
	h := newHouse(t, 200)
	vms := h.addVMs(h.vcenter.ID, 100)
	_, err := h.CreateGroup(h.ctx, backup.Group{Name: "big", VirtualMachineIDs: ids(vms), Consistent: true})
	if e := refused(t, err, backup.Invalid, "consistent"); !strings.Contains(e.Message, "at most 99 members, and this one has 100") {
		t.Errorf("refusal %q", e.Message)
	}
	_, err = h.CreateGroup(h.ctx, backup.Group{Name: "odd", VirtualMachineIDs: ids(vms[:2]), OnMemberFailure: backup.MemberFail})
	refused(t, err, backup.Invalid, "on_member_failure")
	_, err = h.CreateGroup(h.ctx, backup.Group{Name: "odd", VirtualMachineIDs: ids(vms[:2]), Consistent: true, OnMemberFailure: "maybe"})
	refused(t, err, backup.Invalid, "on_member_failure")

	g := h.addConsistent(vms[:2])
	s := nightly("n", 3)
	s.GroupID, s.Consistency = g.ID, backup.ConsistencyOffline
	_, err = h.CreateSchedule(h.ctx, s)
	refused(t, err, backup.Invalid, "consistency")
	_, err = h.BackupGroup(h.ctx, g.ID, backup.RunOptions{RetentionDays: 1, Consistency: backup.ConsistencyOffline})
	refused(t, err, backup.Invalid, "consistency")
	plain := h.addGroup("plain", vms[2:4])
	s.GroupID = plain.ID
	h.add(s)
	plain.Consistent = true
	_, err = h.UpdateGroup(h.ctx, plain)
	refused(t, err, backup.Invalid, "consistent")

	// A selector may find more members by the time of a run.
	grown := must(h.CreateGroup(h.ctx, backup.Group{Name: "grown", Consistent: true, Selector: &backup.Selector{VCenterID: h.vcenter.ID, NameRegex: "later"}}))(t)
	h.update(func(tx backup.Tx) error {
		grown.Selector.NameRegex, grown.Version = ".", 0
		g, err := tx.Group(h.ctx, grown.ID)
		if err != nil {
			return err
		}
		g.Selector = grown.Selector
		return tx.UpdateGroup(h.ctx, &g)
	})
	run := must(h.BackupGroup(h.ctx, grown.ID, backup.RunOptions{RetentionDays: 1}))(t)
	if run.State != backup.RunFailed || len(run.Jobs) != 100 || !strings.Contains(run.Jobs[0].Error, "at most 99 members") {
		t.Errorf("run is %s with %d jobs: %s, want it failed with the number", run.State, len(run.Jobs), run.Jobs[0].Error)
	}
}
