package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// attempt is one try of a job by this server.
type attempt struct {
	*Worker
	job   *backup.Job
	lease backup.Lease
	since time.Time // the lease is ours from here at least
	log   *slog.Logger
	note  checkpoint

	writing sync.Mutex // held while progress or the end is being stored

	mu       sync.Mutex // guards what follows
	over     bool       // the end is stored or given up
	stopped  time.Time  // when the job was told to stop; zero = it was not
	step     string
	done     int64
	total    int64
	rate     int64
	messages []string // not saved yet
}

// checkpoint is what the next attempt must know. It is saved before what it
// tells of is done.
type checkpoint struct {
	ImageID string   `json:"image_id,omitempty"`
	MOID    string   `json:"moid,omitempty"`
	NoBase  bool     `json:"no_base,omitempty"`  // the image before could not be built upon
	Markers []string `json:"markers,omitempty"`  // names of snapshots or staging VMs that this job may have made
	Frozen  *frozen  `json:"frozen,omitempty"`   // the snapshot that every attempt reads
	PowerOn []debt   `json:"power_on,omitempty"` // what must be powered on, whatever happens

	// What is done for good but perhaps not stored yet, so that no attempt does it twice.
	Image    *backup.Image      `json:"image,omitempty"`    // committed
	Restored *backup.RestoredVM `json:"restored,omitempty"` // whole
}

// ending is how a job ended that did not fail.
type ending struct {
	state   backup.JobState
	code    backup.Code
	message string
	imageID string
	started time.Time // zero = when the job did
	also    func(backup.Tx) error
}

// A job that was stopped may take cleanupTime to clear up, and finishTime to
// write down its end: together less than a server has to shut down in.
const (
	cleanupTime = 5 * time.Second
	finishTime  = 3 * time.Second
)

// run runs one attempt of j, which was claimed no earlier than since, to its end.
func (w *Worker) run(ctx context.Context, j *backup.Job, since time.Time) {
	a := &attempt{Worker: w, job: j, lease: backup.Lease{JobID: j.ID, Owner: w.Owner, Attempt: j.Attempt}, since: since}
	a.log = w.Log.With("job", j.ID, "kind", string(j.Kind), "vm", j.VMName, "attempt", j.Attempt)
	a.done, a.total = j.Done, j.Total
	a.log.InfoContext(ctx, "job started")
	failpoint.Hit(string(j.Kind) + ".claimed")
	// The job outlives ctx: it is stopped with a cause that says why.
	jctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := func(cause error) {
		a.mu.Lock()
		if a.stopped.IsZero() {
			a.stopped = time.Now()
		}
		a.mu.Unlock()
		cancel(cause)
	}
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
	if !a.job.Owes {
		a.note.PowerOn = nil // a sweep has seen to it
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
	case backup.KindCollect:
		return a.collect(ctx)
	case backup.KindVerify:
		return a.verify(ctx)
	case backup.KindCatalogue:
		return a.catalogue(ctx)
	case backup.KindLock:
		return a.lock(ctx)
	case backup.KindCopy:
		return a.copy(ctx)
	case backup.KindFreeze:
		return a.freeze(ctx)
	}
	return e, backup.Errorf(backup.Invalid, "", "This server does not know jobs of the kind %q.", a.job.Kind)
}

// outlive returns a context for clearing up: it goes on for cleanupTime after
// the job was told to stop, all clearing up together.
func (a *attempt) outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() {
		a.mu.Lock()
		left := cleanupTime - time.Since(a.stopped)
		a.mu.Unlock()
		t := time.NewTimer(left)
		defer t.Stop()
		select {
		case <-out.Done():
		case <-t.C:
			cancel()
		}
	})
	return out, func() { unhook(); cancel() }
}

// lost says whether the job is another server's by now.
func lost(ctx context.Context, err error) bool {
	return errors.Is(err, backup.ErrLeaseLost) || errors.Is(context.Cause(ctx), backup.ErrLeaseLost)
}

// heartbeat renews the lease and saves progress until ctx ends. It stops the
// job when the lease is lost, cannot be renewed in time, or a cancel is asked for.
func (a *attempt) heartbeat(ctx context.Context, stop context.CancelCauseFunc) {
	// Progress is for people to watch: it is saved more often than the lease asks for.
	t := time.NewTicker(min(a.Lease()/3, time.Second))
	defer t.Stop()
	last := a.since
	r := rate{at: last, done: a.job.Done}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		asked := a.Now()
		cancel, err := a.beat(ctx, &r)
		if err == nil {
			last = asked
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

// beat renews the lease once. A store that hangs counts as one that fails, so
// that the job is stopped before its lease has run out.
func (a *attempt) beat(ctx context.Context, r *rate) (cancelled bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.Lease()/4)
	defer cancel()
	if cancelled, err = a.Store.Renew(ctx, a.lease, a.Lease()); err != nil {
		return cancelled, err
	}
	return cancelled, a.save(ctx, r)
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
	a.writing.Lock()
	defer a.writing.Unlock()
	a.mu.Lock()
	if a.over {
		a.mu.Unlock()
		return nil
	}
	a.rate = r.next(a.Now(), a.done)
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

// say adds a message for the user. What an earlier attempt has said already is
// not said again.
func (a *attempt) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Contains(a.job.Messages, text) && !slices.Contains(a.messages, text) {
		a.messages = append(a.messages, text)
	}
}

// because says why, for a user: without the insides of what has no code.
func because(err error) string {
	switch e := backup.AsError(err); {
	case e != nil:
		return strings.TrimSuffix(e.Message, ".")
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return "there was no time for it"
	}
	return "see the server's log"
}

func (a *attempt) progress(done int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = done
}

// more adds to what the job has to do.
func (a *attempt) more(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total += n
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
	p := backup.Progress{Step: a.step, Checkpoint: b, Owes: len(a.note.PowerOn) > 0, Done: a.done, Total: a.total, Rate: a.rate}
	a.mu.Unlock()
	if f := a.note.Frozen; f != nil && f.Own && f.Name == a.marker() {
		p.KeptAttempt = a.job.Attempt
	}
	return a.Store.Save(ctx, a.lease, p)
}

// noteImage writes down that the image is there, so that an attempt that comes
// after this one lists it rather than make another. Without that note, too,
// only one would stay: the repository keeps one image of an id.
func (a *attempt) noteImage(ctx context.Context, i *backup.Image) error {
	ctx, cancel := a.outlive(ctx)
	defer cancel()
	a.note.Image = i
	err := a.remember(ctx)
	if err != nil && !errors.Is(err, backup.ErrLeaseLost) {
		a.log.WarnContext(ctx, "commit not noted", "error", err)
		return nil
	}
	return err
}

// marker names what this attempt makes in the vcenter.
func (a *attempt) marker() string {
	return fmt.Sprintf("kura:%s:%s:%d", a.Installation, a.job.ID, a.job.Attempt)
}

// finish writes down how the attempt ended.
func (a *attempt) finish(ctx context.Context, e ending, err error) {
	ctx, cancel := context.WithTimeout(ctx, finishTime)
	defer cancel()
	if errors.Is(err, backup.ErrLeaseLost) {
		a.log.WarnContext(ctx, "job lost to another server")
		return
	}
	out := a.outcome(ctx, e, err)
	a.writing.Lock() // progress that is being saved has the messages before these
	defer a.writing.Unlock()
	a.mu.Lock()
	out.Messages, a.messages, a.over = a.messages, nil, true
	a.mu.Unlock()
	var also func(backup.Tx) error
	if err == nil {
		also = e.also
	}
	failpoint.Hit(string(a.job.Kind) + ".ending")
	if ferr := a.Store.Finish(ctx, a.lease, out, also); ferr != nil {
		// Nothing was written: the lease runs out and the next attempt begins with the checkpoint.
		a.log.ErrorContext(ctx, "job end not stored", "error", ferr)
		return
	}
	failpoint.Hit(string(a.job.Kind) + ".ended")
	a.log.InfoContext(ctx, "job ended", "state", string(out.State), "code", string(out.Code))
}

// outcome decides whether a failed attempt is tried again.
func (a *attempt) outcome(ctx context.Context, e ending, err error) backup.Ending {
	switch {
	case err == nil:
		return backup.Ending{State: e.state, Code: e.code, Error: e.message, ImageID: e.imageID, Started: e.started}
	case errors.Is(err, errCancelled):
		return backup.Ending{State: backup.JobCancelled, Error: "Cancelled."}
	case errors.Is(err, errShutdown):
		return backup.Ending{State: backup.JobQueued}
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
	if code.Transient() && failures < a.job.MaxAttempts {
		message += fmt.Sprintf(" It was not tried again: the time for it ends at %s UTC.", a.job.Deadline.UTC().Format(time.DateTime))
	}
	return backup.Ending{State: backup.JobFailed, Code: code, Error: message}
}
