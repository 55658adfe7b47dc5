package backup

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// ErrLeaseLost tells a worker that its job is no longer its own: another
// server may have taken it, so it must stop at once and touch nothing.
var ErrLeaseLost = errors.New("lease lost")

// Queue hands jobs to workers. The job rows are the queue; store.DB implements
// it. Every write is fenced by the lease: with a lease that is not the row's
// present one it changes nothing and returns [ErrLeaseLost].
type Queue interface {
	// Claim takes one job: one whose lease has run out first, then of those with
	// a seat and then of those without the oldest that is due, whose needs lie within reach and whose keys all have room,
	// and counts its attempt up when the job was queued (a job taken over
	// because its lease ran out also gets a new attempt number, but that is no
	// failed try). nil, nil = there is none.
	Claim(ctx context.Context, c Claim) (*Job, error)
	// Renew extends the lease and tells whether the job is asked to stop.
	Renew(ctx context.Context, l Lease, d time.Duration) (cancel bool, err error)
	// Save records progress. Messages are appended.
	Save(ctx context.Context, l Lease, p Progress) error
	// Finish ends the attempt, in one transaction with also (nil = nothing):
	// what also does is kept only if the lease still held. The run's state
	// follows from its jobs'.
	Finish(ctx context.Context, l Lease, e Ending, also func(Tx) error) error
	// Live lists the leases that have not run out: job id -> attempt.
	Live(ctx context.Context) (map[string]int, error)
	// Kept lists the snapshots that the next attempts of jobs are going to read:
	// job id -> Job.KeptAttempt.
	Kept(ctx context.Context) (map[string]int, error)
	// Owing lists jobs in any state that owe something, see Job.Owes, and that no
	// live lease belongs to.
	Owing(ctx context.Context) ([]Job, error)
	// Repaid notes that the job owes nothing any more, with a message unless that
	// is "". It does nothing when the job was claimed since it was listed.
	Repaid(ctx context.Context, j Job, message string) error
	// Expire ends queued jobs whose deadline has passed as missed, and returns
	// how many. While a backup runs that a job may share the image of, that job
	// waits for its end.
	Expire(ctx context.Context) (int, error)
}

// Claim says who asks for a job.
type Claim struct {
	Owner string
	Lease time.Duration
	Kinds []JobKind // empty = all
	Reach []string  // labels, such as "vcenter:01J..."; nil = everything
}

// Lease names a running job's present attempt.
type Lease struct {
	JobID   string
	Owner   string
	Attempt int
}

// Progress is how far a job is.
type Progress struct {
	Step       string
	Checkpoint json.RawMessage // nil = as it was
	Owes       bool            // goes with Checkpoint, see Job.Owes
	// KeptAttempt names the snapshot that the job's next attempts read, see
	// Job.KeptAttempt; 0 = as it was.
	KeptAttempt int
	Done        int64
	Total       int64
	Rate        int64
	Messages    []string
	Keys        []JobKey // nil = as they were
}

// Ending is how an attempt ended.
type Ending struct {
	State    JobState  // final, or JobQueued for another attempt
	Due      time.Time // with JobQueued: not before; zero = at once
	Failed   bool      // with JobQueued: the attempt counts as a failed try
	Code     Code
	Error    string
	Messages []string
	ImageID  string    // of the image that was made, or is shared
	Started  time.Time // when the job counts as started; zero = when it did
}
