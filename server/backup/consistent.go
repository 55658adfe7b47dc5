package backup

import (
	"context"
	"encoding/json"
	"time"
)

// A run of a consistent group is led by one more job, of the kind freeze: it
// makes the snapshots of all members at once. Each member's backup waits for it
// and then reads its own snapshot when its turn comes.

// MemberFailure says what becomes of a consistent group's run when a member's
// snapshot cannot be made.
type MemberFailure string

// The policies.
const (
	MemberLeaveOut MemberFailure = "leave_out" // default: that member fails, the others go on
	MemberFail     MemberFailure = "fail"      // no member is backed up
)

// MaxConsistent is how many members a consistent group may have: vSphere makes
// so many snapshots within seconds, and whoever needs more at one instant needs
// the storage's snapshots.
const MaxConsistent = 99

// FreezeSpec is what a freeze job was asked to do, fixed when it is made.
type FreezeSpec struct {
	OnMemberFailure MemberFailure `json:"on_member_failure"`
}

// WaitingNote is what a job that leads others tells one of them.
type WaitingNote struct {
	Leader      string // the job that JobID waits for
	JobID       string
	Checkpoint  json.RawMessage
	KeptAttempt int // names the snapshot that was made for it, or is about to be
	// Begun says that the job's work has begun with that: it goes on after its
	// deadline, and its VM is its own until it is over.
	Begun    bool
	Messages []string
}

func (g Group) validConsistent() error {
	switch g.OnMemberFailure {
	case "", MemberLeaveOut, MemberFail:
	default:
		return Errorf(Invalid, "on_member_failure", "on_member_failure must be leave_out or fail, got %q.", g.OnMemberFailure)
	}
	if !g.Consistent && g.OnMemberFailure == MemberFail {
		return Errorf(Invalid, "on_member_failure", "on_member_failure = \"fail\" goes with consistent = true: the members of other groups are backed up each for itself.")
	}
	return nil
}

// checkConsistent looks whether the members' snapshots can be made together.
func checkConsistent(ctx context.Context, tx Tx, g Group) error {
	if !g.Consistent {
		return nil
	}
	live, err := inventories{}.live(ctx, tx, g)
	if err != nil {
		return err
	}
	n := 0
	for _, of := range live {
		n += of
	}
	if n > MaxConsistent {
		return tooMany(n)
	}
	if g.ID == "" {
		return nil
	}
	on, _, err := tx.Schedules(ctx, ScheduleFilter{GroupID: g.ID})
	for _, s := range on {
		if s.Consistency == ConsistencyOffline {
			return offlineTogether("consistent", g)
		}
	}
	return err
}

func tooMany(n int) *Error {
	return Errorf(Invalid, "consistent", "A consistent group has at most %d members, and this one has %d. Split it, or leave consistent out.", MaxConsistent, n)
}

func offlineTogether(field string, g Group) *Error {
	return Errorf(Invalid, field, "Group %q is consistent, and offline backups shut guests down one by one. Use app or crash, or a group that is not consistent.", g.Name)
}

// checkOffline refuses an offline backup of a consistent group.
func checkOffline(ctx context.Context, tx Tx, s Schedule) error {
	if s.Consistency != ConsistencyOffline || s.GroupID == "" {
		return nil
	}
	g, err := tx.Group(ctx, s.GroupID)
	if err == nil && g.Consistent {
		err = offlineTogether("consistency", g)
	}
	return err
}

// freeze puts a job before those of a consistent group's run that makes their
// snapshots. They fall due together with it, so that none waits for its minute
// with a snapshot that grows.
func (b *jobBuilder) freeze(r *runPlan, now time.Time) {
	if !b.group.Consistent {
		return
	}
	var members []*Job
	for i := range r.jobs {
		if r.jobs[i].State == JobQueued {
			members = append(members, &r.jobs[i])
		}
	}
	if len(members) == 0 {
		return
	}
	if len(members) > MaxConsistent {
		e := tooMany(len(members))
		for _, j := range members {
			j.State, j.EndedAt, j.ErrorCode, j.Error = JobFailed, now, e.Code, e.Message
		}
		return
	}
	first := *members[0]
	lead := newJob(now, KindFreeze)
	lead.RunID, lead.VCenterID, lead.Due, lead.WindowEnd, lead.Deadline = r.run.ID, first.VCenterID, first.Due, first.WindowEnd, first.Deadline
	lead.Spec, _ = json.Marshal(FreezeSpec{OnMemberFailure: b.group.OnMemberFailure}) // plain values: cannot fail
	needs := map[string]bool{}
	lead.Unbooked = true
	for _, j := range members {
		lead.Unbooked = lead.Unbooked && j.Unbooked
		if j.Due.Before(lead.Due) {
			lead.Due = j.Due
		}
		if need := reachVCenter(b.vcenters[j.VCenterID]); !needs[need] {
			needs[need] = true
			lead.Needs = append(lead.Needs, need)
		}
		// One job per VM: none of them may be at work on a member meanwhile.
		lead.Keys = append(lead.Keys, JobKey{Name: "vm:" + j.VMID, Weight: 1, Max: 1})
	}
	for _, j := range members {
		j.WaitsFor, j.Due = lead.ID, lead.Due
	}
	r.jobs = append(r.jobs, lead)
}
