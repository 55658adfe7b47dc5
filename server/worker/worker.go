// Package worker claims jobs and runs them: it joins vSphere, which gives and
// takes bytes, with the repositories, which keep them. It also makes due
// occurrences into runs and clears away what dead jobs left in a vcenter.
//
// It holds no rules about what is wanted (package backup), no SQL (store) and
// no knowledge of how bytes travel (vsphere) or are kept (repository).
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Store is what the worker needs of the store.
type Store interface {
	backup.Store
	backup.Queue
}

// Planner makes occurrences into runs, asks for inventories, books what groups
// grow by, ends images and asks for collections.
type Planner interface {
	RenewDue(ctx context.Context) error
	Dispatch(ctx context.Context) (int, error)
	SyncVCenter(ctx context.Context, id string) (backup.Job, error)
	FollowGroups(ctx context.Context, vcenterID string, changed bool) ([]backup.Schedule, error)
	Expire(ctx context.Context) (backup.Expiry, error)
	PlanUpkeep(ctx context.Context) (int, error)
	FinishPassword(ctx context.Context, repositoryID string) error
}

// Config says what a worker works with. Zero durations mean the defaults.
type Config struct {
	Store        Store
	Planner      Planner
	VSphere      backup.VSphere
	Repositories backup.Repositories
	Log          *slog.Logger

	Installation string
	Owner        string           // names this process; no two that live may share it
	Reach        []string         // labels of what this server reaches; nil = everything
	Now          func() time.Time // nil = time.Now

	Slots    int           // jobs at the same time; default 8
	Lease    time.Duration // how long a dead server keeps its jobs; default 60 s
	Poll     time.Duration // how often the queue is asked when nothing wakes the worker; default 2 s
	Dispatch time.Duration // how often occurrences are looked for; default 5 s
	Sync     time.Duration // age at which an inventory is read again; default 10 min
	Sweep    time.Duration // how often left-overs are looked for; default 60 s
	// ShutdownTime is how long a guest may take to shut down for an offline backup
	// before its power is cut; default 10 min. SnapshotTime is how long vSphere may
	// take to make a snapshot before the job gives up; default 15 min.
	ShutdownTime time.Duration
	SnapshotTime time.Duration
	// HandTime is how long a server that is told to stop goes on with a guest that
	// is off. What is left of the time to clear up then powers the VM on; default 3 s.
	HandTime time.Duration
	Measure  time.Duration // how often the repositories are measured; default 5 min
	Upkeep   time.Duration // how often images are ended and collections planned; default 10 min
	// VerifyRate is how many bytes per second a reading of an image takes at most;
	// default 64 MiB, negative = no limit.
	VerifyRate int64
	// CopyRate is how many bytes per second one copy of an image reads at most; 0 = no limit.
	CopyRate int64
	// Load says when a backup leaves a datastore alone, LookEvery how often that
	// is looked at; default 30 s.
	Load      backup.LoadLimits
	LookEvery time.Duration
	// CopyCheckpoint is how much of a copy an attempt that is killed may have
	// sent in vain; default 4 GiB.
	CopyCheckpoint int64
	// CompareBudget is how many bytes a day disks are read in full that need not
	// be yet; 0 = no limit. At 35 days they are read whatever it says.
	CompareBudget int64
	// OnDistrust is told why a disk's changes were not taken from vSphere; nil = nobody counts.
	OnDistrust func(backup.DoubtReason)
	Backoff    time.Duration // before the second try of a failed job, doubled for each further one; default 15 s
	// Lineage says whether the database is the newest of the installation. While it
	// is not, nothing is begun, ended or removed. nil = it always is.
	Lineage Lineage
	// KeepDatabase copies the database into the repositories whose copy is a day
	// old; nil = nobody does.
	KeepDatabase func(context.Context) error
}

func (c Config) defaulted() Config {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	or(&c.Lease, time.Minute)
	or(&c.Poll, 2*time.Second)
	or(&c.Dispatch, 5*time.Second)
	or(&c.Sync, 10*time.Minute)
	or(&c.Sweep, time.Minute)
	or(&c.Measure, 5*time.Minute)
	or(&c.ShutdownTime, 10*time.Minute)
	or(&c.SnapshotTime, 15*time.Minute)
	or(&c.HandTime, 3*time.Second)
	or(&c.Upkeep, 10*time.Minute)
	or(&c.Backoff, 15*time.Second)
	or(&c.LookEvery, 30*time.Second)
	if c.VerifyRate == 0 {
		c.VerifyRate = 64 << 20
	}
	if c.CopyCheckpoint == 0 {
		c.CopyCheckpoint = 4 << 30
	}
	if c.Slots == 0 {
		c.Slots = 8
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Worker runs jobs. Make it with [New].
type Worker struct {
	Config
	wake    chan struct{}
	began   time.Time
	renewed bool // when schedules are due is known to this process; only dispatch looks at it

	mu       sync.Mutex
	versions map[string]string // guarded by mu: vcenter id -> version of its inventory that is stored
}

// New returns a worker that does nothing until Run.
func New(c Config) *Worker {
	c = c.defaulted()
	return &Worker{Config: c, began: c.Now(), wake: make(chan struct{}, 1), versions: map[string]string{}}
}

// Wake makes the worker look for jobs at once.
func (w *Worker) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// The causes for which a running job is stopped.
var (
	errCancelled = errors.New("job cancelled")
	errShutdown  = errors.New("server is shutting down")
)

// Run works until ctx ends. It then hands its jobs over and waits for them.
func (w *Worker) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.every(ctx, w.Config.Dispatch, w.trusted(w.dispatch)) })
	wg.Go(func() { w.every(ctx, w.Config.Sweep, w.trusted(w.sweep)) })
	wg.Go(func() { w.every(ctx, min(w.Config.Sync, time.Minute), w.trusted(w.syncStale)) })
	wg.Go(func() { w.every(ctx, w.Config.Measure, w.trusted(w.measure)) })
	wg.Go(func() { w.every(ctx, w.Config.Upkeep, w.trusted(w.upkeep)) })
	wg.Go(func() { w.every(ctx, w.Config.Upkeep, w.checkLineage) })
	if w.KeepDatabase != nil {
		wg.Go(func() { w.every(ctx, w.Config.Upkeep, w.trusted(w.KeepDatabase)) })
	}
	w.serve(ctx, &wg)
}

// every calls f at once and then at each interval, until ctx ends.
func (w *Worker) every(ctx context.Context, d time.Duration, f func(context.Context) error) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			w.Log.ErrorContext(ctx, "periodic work failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (w *Worker) dispatch(ctx context.Context) error {
	if !w.renewed {
		if err := w.Planner.RenewDue(ctx); err != nil {
			return fmt.Errorf("renew when schedules are due: %w", err)
		}
		w.renewed = true
	}
	_, derr := w.Planner.Dispatch(ctx)
	if derr != nil { // what could be dispatched was: the queue goes on
		derr = fmt.Errorf("dispatch: %w", derr)
	}
	n, err := w.Store.Expire(ctx)
	if err != nil {
		err = fmt.Errorf("expire jobs: %w", err)
	}
	if n > 0 {
		w.Log.WarnContext(ctx, "jobs missed", "count", n)
	}
	return errors.Join(derr, err)
}

// serve claims jobs while there are free slots.
func (w *Worker) serve(ctx context.Context, wg *sync.WaitGroup) {
	free := make(chan struct{}, w.Slots)
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return
		}
		asked := w.Now()
		var j *backup.Job
		old, err := w.old(ctx)
		if err == nil && !old {
			j, err = w.Store.Claim(ctx, backup.Claim{Owner: w.Owner, Lease: w.Lease, Reach: w.Reach})
		}
		if err != nil && ctx.Err() == nil {
			w.Log.ErrorContext(ctx, "claim failed", "error", err)
		}
		if j == nil || err != nil {
			<-free
			if !w.idle(ctx) {
				return
			}
			continue
		}
		wg.Go(func() {
			defer func() { <-free; w.Wake() }()
			w.run(ctx, j, asked)
		})
	}
}

// idle waits for a wake-up or the next poll; false = ctx ended.
func (w *Worker) idle(ctx context.Context) bool {
	t := time.NewTimer(w.Poll)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-w.wake:
	case <-t.C:
	}
	return true
}
