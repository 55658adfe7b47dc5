package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// attempt is one try of a job by this server.
type attempt struct {
	*Worker
	job   *backup.Job
	lease backup.Lease
	log   *slog.Logger
	note  checkpoint

	mu       sync.Mutex // guards what follows
	step     string
	done     int64
	total    int64
	rate     int64
	messages []string // not saved yet
}

// checkpoint is what the next attempt must know. It is saved before what it
// tells of is done.
type checkpoint struct {
	ImageID  string   `json:"image_id,omitempty"`
	MOID     string   `json:"moid,omitempty"`
	Markers  []string `json:"markers,omitempty"` // names of snapshots or staging VMs that this job may have made
}

// ending is how a job ended that did not fail.
type ending struct {
	state   backup.JobState
	code    backup.Code
	message string
	imageID string
	also    func(backup.Tx) error
}

// cleanupTime is how long a job that was stopped may take to clear up.
const cleanupTime = 5 * time.Second

// run runs one attempt of j to its end.
func (w *Worker) run(ctx context.Context, j *backup.Job) {
	a := &attempt{Worker: w, job: j, lease: backup.Lease{JobID: j.ID, Owner: w.Owner, Attempt: j.Attempt}}
	a.log = w.Log.With("job", j.ID, "kind", string(j.Kind), "vm", j.VMName, "attempt", j.Attempt)
	a.done, a.total = j.Done, j.Total
	a.log.InfoContext(ctx, "job started")
	// The job outlives ctx: it is stopped with a cause that says why.
	jctx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	unhook := context.AfterFunc(ctx, func() { stop(errShutdown) })
	defer unhook()
	var wg sync.WaitGroup
	beat, endBeat := context.WithCancel(context.WithoutCancel(ctx))
	wg.Go(func() { a.heartbeat(beat, stop) })
	e, err := a.work(jctx)
	if cause := context.Cause(jctx); err != nil && cause != nil {
		err = cause
	}
	a.finish(context.WithoutCancel(ctx), e, err)
	endBeat()
	wg.Wait()
}

// work does the job; a panic in it is its failure, not the server's.
func (a *attempt) work(ctx context.Context) (e ending, err error) {
	defer func() {
		if p := recover(); p != nil {
			a.log.ErrorContext(ctx, "job panicked", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if len(a.job.Checkpoint) > 0 {
		if err := json.Unmarshal(a.job.Checkpoint, &a.note); err != nil {
			return e, fmt.Errorf("checkpoint: %w", err)
		}
	}
	switch a.job.Kind {
	case backup.KindBackup:
		return a.backup(ctx)
	case backup.KindRestore:
		return a.restore(ctx)
	case backup.KindSync:
		return a.sync(ctx)
	case backup.KindDelete:
		return a.delete(ctx)
	}
	return e, backup.Errorf(backup.Invalid, "", "This server does not know jobs of the kind %q.", a.job.Kind)
}

// heartbeat renews the lease and saves progress until ctx ends. It stops the
// job when the lease is lost, cannot be renewed in time, or a cancel is asked for.
func (a *attempt) heartbeat(ctx context.Context, stop context.CancelCauseFunc) {
	// Progress is for people to watch: it is saved more often than the lease asks for.
	t := time.NewTicker(min(a.Lease()/3, time.Second))
	defer t.Stop()
	last := a.Now()
	r := rate{at: last, done: a.job.Done}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		cancel, err := a.Store.Renew(ctx, a.lease, a.Lease())
		if err == nil {
			last = a.Now()
			err = a.save(ctx, &r)
		}
		switch {
		case errors.Is(err, backup.ErrLeaseLost):
			stop(backup.ErrLeaseLost)
		case cancel:
			stop(errCancelled)
		case err != nil && a.Now().Sub(last) > a.Lease()*2/3:
			stop(backup.ErrLeaseLost) // another server may take the job any moment now
		}
	}
}

// Lease is how long the job is ours without a renewal.
func (a *attempt) Lease() time.Duration { return a.Config.Lease }

// rate is a moving average of the bytes per second.
type rate struct {
	at   time.Time
	done int64
	avg  float64
}

func (r *rate) next(now time.Time, done int64) int64 {
	if d := now.Sub(r.at).Seconds(); d > 0 {
		v := float64(max(0, done-r.done)) / d
		if r.avg == 0 {
			r.avg = v
		}
		r.avg += (v - r.avg) * min(1, d/5)
		r.at, r.done = now, done
	}
	return int64(r.avg)
}

// save writes the progress down. What it could not save it keeps for the next time.
func (a *attempt) save(ctx context.Context, r *rate) error {
	a.mu.Lock()
	if r != nil {
		a.rate = r.next(a.Now(), a.done)
	}
	p := backup.Progress{Step: a.step, Done: a.done, Total: a.total, Rate: a.rate, Messages: a.messages}
	a.messages = nil
	a.mu.Unlock()
	err := a.Store.Save(ctx, a.lease, p)
	if err != nil {
		a.mu.Lock()
		a.messages = append(p.Messages, a.messages...)
		a.mu.Unlock()
	}
	return err
}

// begin names the step that the job takes now.
func (a *attempt) begin(ctx context.Context, step string) {
	a.mu.Lock()
	a.step = step
	a.mu.Unlock()
	a.log.DebugContext(ctx, "job step", "step", step)
}

// say adds a message for the user.
func (a *attempt) say(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.messages = append(a.messages, fmt.Sprintf(format, args...))
}

func (a *attempt) progress(done int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = done
}

func (a *attempt) expect(total int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done, a.total = 0, total
}

// remember saves the checkpoint; what it tells of may be done only after it.
func (a *attempt) remember(ctx context.Context) error {
	b, err := json.Marshal(a.note)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	a.mu.Lock()
	p := backup.Progress{Step: a.step, Checkpoint: b, Done: a.done, Total: a.total, Rate: a.rate}
	a.mu.Unlock()
	return a.Store.Save(ctx, a.lease, p)
}

// marker names what this attempt makes in the vcenter.
func (a *attempt) marker() string {
	return fmt.Sprintf("kura:%s:%s:%d", a.Installation, a.job.ID, a.job.Attempt)
}

// finish writes down how the attempt ended.
func (a *attempt) finish(ctx context.Context, e ending, err error) {
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	if errors.Is(err, backup.ErrLeaseLost) {
		a.log.WarnContext(ctx, "job lost to another server")
		return
	}
	out := a.outcome(ctx, e, err)
	a.mu.Lock()
	out.Messages, a.messages = a.messages, nil
	a.mu.Unlock()
	var also func(backup.Tx) error
	if err == nil {
		also = e.also
	}
	if ferr := a.Store.Finish(ctx, a.lease, out, also); ferr != nil {
		// Nothing was written: the lease runs out and the next attempt begins with the checkpoint.
		a.log.ErrorContext(ctx, "job end not stored", "error", ferr)
		return
	}
	a.log.InfoContext(ctx, "job ended", "state", string(out.State), "code", string(out.Code))
}

// outcome decides whether a failed attempt is tried again.
func (a *attempt) outcome(ctx context.Context, e ending, err error) backup.Ending {
	switch {
	case err == nil:
		return backup.Ending{State: e.state, Code: e.code, Error: e.message, ImageID: e.imageID}
	case errors.Is(err, errCancelled):
		return backup.Ending{State: backup.JobCancelled, Error: "Cancelled."}
	case errors.Is(err, errShutdown):
		return backup.Ending{State: backup.JobQueued, Due: a.Now()}
	}
	code := backup.CodeOf(err)
	message := "Internal error: see the server's log for this job."
	if e := backup.AsError(err); e != nil {
		message = e.Message
	}
	a.log.ErrorContext(ctx, "job attempt failed", "error", err)
	failures := a.job.Failures + 1
	next := a.Now().Add(a.Backoff << min(failures-1, 10))
	late := !a.job.Deadline.IsZero() && next.After(a.job.Deadline)
	if code.Transient() && failures < a.job.MaxAttempts && !late {
		a.say("Try %d failed: %s Next try at %s.", failures, message, next.UTC().Format("15:04:05 UTC"))
		return backup.Ending{State: backup.JobQueued, Due: next, Failed: true, Code: code, Error: message}
	}
	return backup.Ending{State: backup.JobFailed, Code: code, Error: message}
}
