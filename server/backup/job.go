package backup

import (
	"encoding/json"
	"time"
)

// JobKind is what a job does.
type JobKind string

// The kinds of jobs.
const (
	KindBackup    JobKind = "backup"
	KindRestore   JobKind = "restore"
	KindSync      JobKind = "sync"      // reads the inventory of a vcenter
	KindDelete    JobKind = "delete"    // takes an image out of its repository
	KindCollect   JobKind = "collect"   // frees what no image of a repository needs
	KindVerify    JobKind = "verify"    // reads an image whole
	KindCatalogue JobKind = "catalogue" // lists the images of a repository
	KindLock      JobKind = "lock"      // extends the storage's locks of what images need
	KindCopy      JobKind = "copy"      // makes a copy of an image in another repository
	KindFreeze    JobKind = "freeze"    // makes the snapshots of all members of a consistent group's run
)

// JobState is where a job stands.
type JobState string

// The states of jobs. The last five are final.
const (
	JobQueued    JobState = "queued"
	JobRunning   JobState = "running"
	JobSucceeded JobState = "succeeded"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
	JobSkipped   JobState = "skipped" // there was nothing to do: the VM is gone (seed N61), the schedule disabled
	JobMissed    JobState = "missed"  // it could not start in its window and delay
)

// Final says whether a job in this state is over.
func (s JobState) Final() bool { return s != JobQueued && s != JobRunning }

// Job is one run for one VM: the row that asks for it is also its place in the queue.
type Job struct {
	ID      string
	Project string
	Kind    JobKind
	RunID   string // "" for restores and syncs

	VCenterID string
	VMID      string // "" when the job is about no VM
	VMName    string // as it was when the job was made
	ImageID   string // backup: made by it; restore, verify, copy and delete: the one it is about
	RestoreID string

	Spec json.RawMessage // BackupSpec, RestoreSpec or null, by Kind

	// Needs are the labels that a server must reach to claim the job, such as
	// "vcenter:01J..."; Keys are what it counts against while it runs.
	Needs []string
	Keys  []JobKey

	// WaitsFor is the job that must have ended well before this one begins; ""
	// = none. When it ends otherwise, so does this one, for the same reason.
	WaitsFor string
	// KeptAttempt names the snapshot that another job or an earlier attempt made
	// for this one: no sweep removes it while this job is not over. 0 = there is none.
	KeptAttempt int
	// Owes says that the checkpoint names VMs which must be powered on, whatever
	// becomes of the job.
	Owes bool

	State       JobState
	Unbooked    bool      // has no seat: claimed after those that have one
	Due         time.Time // not claimed before; its slot's instant for a scheduled backup
	Deadline    time.Time // not started after; zero = no limit
	WindowEnd   time.Time // started after this it is late; zero = never late
	Attempt     int       // claims so far, the running one included: part of the lease's name
	Failures    int       // attempts that ended as failed tries; takeovers and handovers are none
	MaxAttempts int       // the job fails for good when Failures reaches it
	Owner       string    // the server that runs it
	LeaseUntil  time.Time
	Cancel      bool // asked for

	Step       string          // what it is doing now, such as "reading disks"
	Checkpoint json.RawMessage // what a next attempt needs to know; the intent is in it
	Done       int64           // bytes
	Total      int64           // bytes; 0 = unknown
	Rate       int64           // bytes per second, of the last seconds

	CreatedAt time.Time
	StartedAt time.Time // of the first attempt
	EndedAt   time.Time
	ErrorCode Code
	Error     string
	Messages  []string // for the user, in order; a job that succeeds may have some (seed W8)
}

// LateBy is by how much the job started after its window; 0 when it did not.
func (j Job) LateBy() time.Duration {
	if j.WindowEnd.IsZero() || j.StartedAt.IsZero() || j.StartedAt.Before(j.WindowEnd) {
		return 0
	}
	return j.StartedAt.Sub(j.WindowEnd)
}

// JobKey says that a running job counts Weight against the limit Max of Name,
// such as one disk each of "host:<vcenter>/esx1" of 20. A job is claimed only
// when all its keys have room.
type JobKey struct {
	Name   string `json:"name"`
	Weight int    `json:"weight"`
	Max    int    `json:"max"`
}

// RunState is where a run stands.
type RunState string

// The states of runs. The last four are final.
const (
	RunQueued    RunState = "queued"
	RunRunning   RunState = "running"
	RunSucceeded RunState = "succeeded"
	RunPartial   RunState = "partial" // some members failed, others did not (seed H9)
	RunFailed    RunState = "failed"
	RunMissed    RunState = "missed"
)

// Run is one occurrence of a schedule, or one run-now: it holds one job per VM.
type Run struct {
	ID         string
	Project    string
	ScheduleID string    // "" for run-now of a VM or a group
	GroupID    string    // "" for a single VM
	Slot       time.Time // the occurrence's instant; with ScheduleID it is unique; zero for run-now
	Trigger    Trigger
	State      RunState
	CreatedAt  time.Time
	EndedAt    time.Time
	Message    string
	Spread     time.Duration // of a consistent group: between the first snapshot and the last; 0 = there is none
	Jobs       []Job         // filled where a single run is asked for
}

// Trigger is what made a run.
type Trigger string

// The triggers (seed A18).
const (
	TriggerSchedule Trigger = "schedule"
	TriggerManual   Trigger = "manual"
)

// Outcome is the state of a run whose jobs stand as given.
func Outcome(jobs []JobState) RunState {
	var queued, running, good, skipped, missed, bad int
	for _, s := range jobs {
		switch s {
		case JobQueued:
			queued++
		case JobRunning:
			running++
		case JobSucceeded:
			good++
		case JobSkipped:
			skipped++
		case JobMissed:
			missed++
		default:
			bad++
		}
	}
	switch n := len(jobs); {
	case running > 0 || queued > 0 && queued < n:
		return RunRunning
	case queued > 0:
		return RunQueued
	case n > 0 && missed == n:
		return RunMissed
	case good+skipped == n:
		return RunSucceeded
	case good > 0:
		return RunPartial
	}
	return RunFailed
}

// BackupSpec is what a backup job was asked to do, fixed when it is made.
type BackupSpec struct {
	ScheduleID   string            `json:"schedule_id,omitempty"`
	GroupID      string            `json:"group_id,omitempty"`
	Consistency  Consistency       `json:"consistency"`
	Disks        DiskChoice        `json:"disks"`
	Unprotect    UnprotectedPolicy `json:"unprotectable_disks"`
	RepositoryID string            `json:"repository_id"`
	Retention    int               `json:"retention_days"` // 0 = never expires
	Lock         bool              `json:"lock,omitempty"`
	Full         bool              `json:"full,omitempty"` // read everything (seed W4)
	Slot         time.Time         `json:"slot,omitzero"`  // the occurrence's instant; zero for run-now
	Labels       map[string]string `json:"labels,omitempty"`
	CopyTo       []CopyTarget      `json:"copy_to,omitempty"`
}
