package provider

import (
	"context"
	"sync"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// ledger knows what this run wants of schedules, so that the check of one
// counts the seats that the others take and give up. Terraform plans resources
// side by side and in any order: who is refused waits a moment for the rest.
type ledger struct {
	mu      sync.Mutex // guards all below
	entries map[string]entry
	changed chan struct{} // closed and made anew with every change
	count   int           // of entries so far
	changes int           // of all below, so far
	writing bool          // this run has come to its changes
}

// entry is one schedule, known by its id or, before it has one, by its name.
type entry struct {
	id      string
	order   int                 // in which it came
	planned bool                // false = read, and what becomes of it is not known yet
	change  *api.BackupSchedule // nil with drop = deleted; nil without = stays as it is
	drop    bool
	waiting bool // its change was refused for want of seats
}

// patience is how long a refused schedule waits for the others of its run.
type patience struct {
	quiet time.Duration // nothing happened for so long: nobody else will make room
	limit time.Duration
}

func newLedger() *ledger {
	return &ledger{entries: map[string]entry{}, changed: make(chan struct{})}
}

// read notes a schedule of this run that is not planned yet.
func (l *ledger) read(id string) { l.put(id, entry{id: id}, false) }

// stays notes that a schedule will not change.
func (l *ledger) stays(id string) { l.put(id, entry{id: id, planned: true}, true) }

// drops notes that a schedule will be deleted.
func (l *ledger) drops(id string) { l.put(id, entry{id: id, planned: true, drop: true}, true) }

// wants notes how a schedule will be, and returns what the ledger knows it by.
func (l *ledger) wants(id string, s api.BackupSchedule) (key string) {
	if key = id; key == "" {
		key = byName + s.Name
	}
	l.put(key, entry{id: id, planned: true, change: &s}, true)
	return key
}

func (l *ledger) put(key string, e entry, overwrite bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.entries[key]; there && !overwrite {
		return
	}
	if e.order = l.entries[key].order; e.order == 0 {
		l.count++
		e.order = l.count
	}
	l.entries[key] = e
	l.touch()
}

// forget takes out what was refused.
func (l *ledger) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entries, key)
	l.touch()
}

// begins notes that this run has come to its changes.
func (l *ledger) begins() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writing = true
	l.touch()
}

// touch wakes who waits. It is called with mu held.
func (l *ledger) touch() {
	close(l.changed)
	l.changed = make(chan struct{})
	l.changes++
}

// news counts what has been noted so far.
func (l *ledger) news() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changes
}

// waits notes that the change of a schedule was refused for want of seats, and
// lists it with all others of this run that wait likewise: each may hold what
// another one wants, so that only all together can change places.
func (l *ledger) waits(key string) []api.ScheduleMove {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine := l.entries[key]
	if mine.id == "" || mine.change == nil {
		return nil
	}
	if !mine.waiting {
		mine.waiting = true
		l.entries[key] = mine
		l.touch() // who waits already has somebody more to change places with
	}
	all := []api.ScheduleMove{{ID: mine.id, Schedule: *mine.change}}
	for _, k := range sorted(l.entries) {
		if e := l.entries[k]; k != key && e.waiting && len(all) < mostMoves {
			all = append(all, api.ScheduleMove{ID: e.id, Schedule: *e.change})
		}
	}
	return all
}

// mostMoves is how many schedules the API changes as one.
const mostMoves = 100

// others lists what the run wants of all schedules but the one of that key.
// All seats that are given up count; seats that are taken count for those who
// came first, so that of two who want the last seat one gets it. With released,
// schedules that are not planned yet count as deleted.
func (l *ledger) others(key string, released bool) []api.PlannedSchedule {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []api.PlannedSchedule
	mine := l.entries[key]
	for _, k := range sorted(l.entries) {
		e := l.entries[k]
		switch {
		case k == key:
		case e.change != nil && e.order < mine.order && !apart(mine.change, e.change):
			out = append(out, api.PlannedSchedule{ID: e.id, Schedule: e.change})
		case e.id != "" && (e.change != nil || e.drop || released && !e.planned):
			out = append(out, api.PlannedSchedule{ID: e.id})
		}
	}
	return out
}

// apart says whether two schedules can never want the same hour, so that a
// plan of hundreds need not send each of them with each. It says so only where
// both name hours of the same zone, or none and so their vcenters', and leaves
// an hour between them, for zones that are not whole hours from UTC.
func apart(a, b *api.BackupSchedule) bool {
	if a == nil || a.TimeZone != b.TimeZone {
		return false
	}
	from, hours, ok := span(*a)
	other, others, known := span(*b)
	if !ok || !known {
		return false
	}
	const day = 24
	after := (other - from + day) % day // from the first hour of a to that of b
	return after > hours && day-after > others
}

// span is the first hour in which a schedule takes seats, and how many follow
// one another.
func span(s api.BackupSchedule) (from, hours int, ok bool) {
	start, err := time.Parse("15:04", s.StartTime)
	return start.Hour(), max(s.WindowHours, 1) + max(s.DurationHours, 1) - 1, err == nil
}

// open says whether schedules have been read whose plan is not known yet.
func (l *ledger) open(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, e := range l.entries {
		if k != key && !e.planned {
			return true
		}
	}
	return false
}

// Waiting for others: a plan is there within moments, a change takes a request.
var (
	planning = patience{quiet: time.Second, limit: 10 * time.Second}
	applying = patience{quiet: 5 * time.Second, limit: 30 * time.Second}
)

// patience is how long to wait for others now.
func (l *ledger) patience() patience {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing {
		return applying
	}
	return planning
}

// retry calls try, and again after each change of the ledger, for as long as it
// is refused what another schedule of the run may still give up. How long that
// is grows when the run comes to its changes.
func (l *ledger) retry(ctx context.Context, try func() error) error {
	start := time.Now()
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		err := try()
		if code := api.CodeOf(err); code != api.ErrorCodeSlotFull && code != api.ErrorCodeConflict {
			return err
		}
		p := l.patience()
		left := min(p.quiet, p.limit-time.Since(start))
		select {
		case <-changed:
		case <-time.After(left):
			return err
		case <-ctx.Done():
			return err
		}
		if time.Since(start) >= p.limit {
			return err
		}
	}
}
