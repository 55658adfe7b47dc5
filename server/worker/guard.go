package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// gate lets the reading of a job pass, or holds it up. Its zero value is open.
type gate struct {
	mu   sync.Mutex    // guards shut
	shut chan struct{} // closed when the gate opens; nil = it is open
}

func (g *gate) wait() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil {
		g.shut = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

// progress waits at the gate: who reads a disk tells of each piece before it
// takes the next, so that a pause holds the source up and keeps nothing in memory.
func (b *backupJob) progress(done int64) {
	b.gate.wait()
	b.attempt.progress(done)
}

// guarded reads while somebody looks after the VM's datastores: it pauses
// while one answers slowly, and ends with NoSpace when one fills up.
func (b *backupJob) guarded(ctx context.Context, read func(context.Context) error) error {
	limits := b.Load.Defaulted()
	if limits.MinFree < 0 && limits.MaxLatency == 0 {
		return read(ctx)
	}
	rctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	wg.Go(func() { b.watch(rctx, limits, stop) })
	err := read(rctx)
	full, isFull := errors.AsType[*backup.Error](context.Cause(rctx))
	stop(nil)
	wg.Wait()
	if err != nil && isFull && ctx.Err() == nil {
		return full.Because(errFull)
	}
	return err
}

// errFull says that a datastore is nearly full: no snapshot may stand on it any longer.
var errFull = errors.New("datastore is nearly full")

// watch looks at the datastores until ctx ends. What it cannot see keeps no
// backup from going on.
func (b *backupJob) watch(ctx context.Context, limits backup.LoadLimits, stop context.CancelCauseFunc) {
	defer b.gate.open()
	t := time.NewTicker(b.LookEvery)
	defer t.Stop()
	left := limits.MaxPause - b.waited
	var since time.Time // of the pause; zero = there is none
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		slow, full := b.look(ctx, limits)
		switch {
		case full != nil:
			stop(full)
			return
		case slow != "" && since.IsZero() && left > 0:
			since = time.Now()
			b.gate.close()
			b.begin(ctx, "waiting for a slow datastore")
		case !since.IsZero() && (slow == "" || time.Since(since) >= left):
			b.resumed(ctx, time.Since(since), slow)
			left -= time.Since(since)
			since = time.Time{}
		}
	}
}

// resumed opens the gate and says how long it was shut.
func (b *backupJob) resumed(ctx context.Context, paused time.Duration, slow string) {
	b.begin(ctx, "reading disks")
	if slow == "" {
		b.say("The reading paused for %s, until the datastores answered fast enough.", paused.Round(time.Second))
	} else {
		b.say("The reading paused for %s and then went on, although %s.", paused.Round(time.Second), slow)
	}
	b.gate.open()
}

// look says which of the VM's datastores is slow, "" for none, and which is full.
func (b *backupJob) look(ctx context.Context, limits backup.LoadLimits) (slow string, full *backup.Error) {
	host := ""
	if limits.MaxLatency > 0 {
		host = b.machine.Host
	}
	loads, err := b.session.DatastoreLoad(ctx, host, b.machine.Datastores)
	if err != nil {
		if ctx.Err() == nil {
			b.log.WarnContext(ctx, "load of datastores not read", "error", err)
		}
		return "", nil
	}
	for _, name := range slices.Sorted(maps.Keys(loads)) {
		if full = limits.Full(name, loads[name]); full != nil {
			return "", full
		}
		if slow == "" && limits.Slow(loads[name]) {
			slow = limits.SlowText(name, loads[name])
		}
	}
	return slow, nil
}

// quiet waits, before there is a snapshot, until the VM's datastores answer
// fast enough, and refuses to begin where they do not (seed N82).
func (b *backupJob) quiet(ctx context.Context) error {
	limits := b.Load.Defaulted()
	if limits.MaxLatency == 0 || b.note.Frozen != nil { // with a snapshot there already it is better to get on
		return nil
	}
	for since := time.Now(); ; {
		slow, full := b.look(ctx, limits)
		switch {
		case full != nil:
			return full
		case slow == "":
			return nil
		case b.waited >= limits.MaxPause:
			return backup.Errorf(backup.Unavailable, "", "The backup of VM %q did not begin: %s. It was waited for %s.", b.machine.Name, slow, b.waited.Round(time.Second))
		}
		b.begin(ctx, "waiting for a slow datastore")
		t := time.NewTimer(b.LookEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("wait for a datastore: %w", ctx.Err())
		case <-t.C:
		}
		b.waited = time.Since(since) // a look that is slow itself is no pause
	}
}
