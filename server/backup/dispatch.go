package backup

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"time"
)

// One transaction of the dispatcher looks at dispatchSchedules schedules at
// most, and ends once it has made dispatchJobs jobs: bookings and workers get
// their turn in between, however many occurrences are due.
const (
	dispatchSchedules = 50
	dispatchJobs      = 500
)

// maxMissed is how far back occurrences are told as missed that nobody was up
// for. A clock that is ten years ahead for a minute must not write the history
// of ten years.
const maxMissed = 100 * 24 * time.Hour

// backStep is by how much a clock goes back before Dispatch minds.
const backStep = time.Minute

// RenewDue works out anew when each enabled schedule is next due: the rules of
// the time zones come with the program, so they may be others than those that
// the last one knew. What was noted by a clock that was ahead is set right. A
// process calls it before its first Dispatch.
func (p *Planner) RenewDue(ctx context.Context) error {
	if err := p.Store.Update(ctx, func(tx Tx) error { return freeSlots(ctx, tx) }); err != nil {
		return err
	}
	for after := ""; ; {
		err := p.Store.Update(ctx, func(tx Tx) (err error) {
			after, err = tx.RenewDue(ctx, after)
			return err
		})
		if err != nil || after == "" {
			return err
		}
	}
}

// Dispatch makes the runs of all occurrences that are due and have none yet,
// and returns how many. Any number of servers may call it at the same time: a
// slot of a schedule gets one run. After a downtime every occurrence still
// gets its run, so that what could not be made up for is told as missed.
func (p *Planner) Dispatch(ctx context.Context) (int, error) {
	if err := p.followClock(ctx); err != nil {
		return 0, err
	}
	var due []string
	err := p.Store.View(ctx, func(tx Tx) (err error) {
		due, err = tx.DueSchedules(ctx, tx.Now())
		return err
	})
	if err != nil {
		return 0, err
	}
	made := 0
	var errs []error // one schedule's failure does not keep the others waiting
	for len(due) > 0 && ctx.Err() == nil {
		n, left, err := p.dispatchSome(ctx, due)
		if CodeOf(err) == Unavailable { // the database is away: for the others, too
			return made, errors.Join(append(errs, err)...)
		}
		if err != nil {
			part := due[:min(len(due), dispatchSchedules)]
			n, err = p.dispatchEach(ctx, part)
			left = due[len(part):]
			errs = append(errs, err)
		}
		if made += n; n > 0 {
			p.wake()
		}
		due = left
	}
	return made, errors.Join(append(errs, ctx.Err())...)
}

// followClock has the schedules follow a clock that has gone back since the last
// Dispatch: else none would run before it is again where it was.
func (p *Planner) followClock(ctx context.Context) error {
	var now time.Time
	err := p.Store.View(ctx, func(tx Tx) error {
		now = tx.Now()
		return nil
	})
	if err != nil {
		return err
	}
	if last := p.dispatched.Swap(now.UnixMilli()); now.UnixMilli() >= last-backStep.Milliseconds() {
		return nil
	}
	if err := p.RenewDue(ctx); err != nil {
		p.dispatched.Store(math.MaxInt64) // the next one tries again
		return err
	}
	return nil
}

// dispatchSome makes runs in one transaction, as many as it may hold, and
// returns the schedules that still have some to make.
func (p *Planner) dispatchSome(ctx context.Context, due []string) (made int, left []string, err error) {
	err = p.Store.Update(ctx, func(tx Tx) error {
		d := dispatcher{tx: tx, inventories: inventories{}}
		left = due
		for len(left) > 0 && d.jobs < dispatchJobs && len(due)-len(left) < dispatchSchedules {
			whole, err := d.schedule(ctx, left[0])
			if err != nil {
				return err
			}
			if !whole {
				break
			}
			left = left[1:]
		}
		made = d.made
		return nil
	})
	return made, left, err
}

// dispatchEach makes the runs of each schedule in transactions of its own.
func (p *Planner) dispatchEach(ctx context.Context, due []string) (made int, err error) {
	var errs []error
	for _, id := range due {
		for left := []string{id}; len(left) > 0 && ctx.Err() == nil; {
			var n int
			if n, left, err = p.dispatchSome(ctx, left); err != nil {
				errs = append(errs, fmt.Errorf("dispatch schedule %s: %w", id, err))
				break
			}
			made += n
		}
	}
	return made, errors.Join(errs...)
}

// freeSlots lets occurrences have their runs for which a clock that was ahead
// has made some too early. What was made by less than a day too early stays, so
// that a clock that goes back a little doubles nothing.
func freeSlots(ctx context.Context, tx Tx) error {
	last, err := tx.ClockLook(ctx)
	if err != nil {
		return err
	}
	at := maxTime(tx.Now(), last.at(tx.Now()).TrustedAt)
	return tx.FreeSlots(ctx, at, at.Add(clockLeap))
}

// dispatcher makes the runs of one transaction.
type dispatcher struct {
	tx          Tx
	inventories inventories
	made, jobs  int
}

// schedule makes the runs of one schedule; whole says that none is left.
func (d *dispatcher) schedule(ctx context.Context, id string) (whole bool, err error) {
	s, err := d.tx.Schedule(ctx, id)
	if CodeOf(err) == NotFound || err == nil && !s.Enabled { // deleted or disabled in between
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if err := d.occurrences(ctx, s, &whole); err != nil {
		return false, fmt.Errorf("schedule %q: %w", s.Name, err)
	}
	return whole, nil
}

func (d *dispatcher) occurrences(ctx context.Context, s Schedule, whole *bool) error {
	mark, err := d.tx.DueMark(ctx, s.ID)
	if err != nil {
		return err
	}
	mark = maxTime(mark, d.tx.Now().Add(-maxMissed))
	if begun := s.CreatedAt.Add(-bookable); begun.Before(d.tx.Now()) { // else it was made by a clock that was ahead
		mark = maxTime(mark, begun)
	}
	var b *jobBuilder
	for o := range s.Recurrence.Between(mark, d.tx.Now()) {
		if d.jobs >= dispatchJobs { // the others in a next transaction
			return d.tx.SetDueMark(ctx, s.ID, mark)
		}
		if b == nil {
			if b, err = jobsOf(ctx, d.tx, s, d.inventories); err != nil {
				return err
			}
		}
		r := b.run(d.tx.Now(), o)
		stored, err := d.tx.InsertRun(ctx, r.run, r.jobs)
		if err != nil {
			return err
		}
		if stored {
			d.made++
			d.jobs += len(r.jobs)
		}
		mark = o.Start
	}
	*whole = true
	return d.tx.SetDueMark(ctx, s.ID, d.tx.Now())
}

// startBy is up to when in a slot its jobs fall due: they are spread over
// these minutes rather than all begun at once (seed N58).
const startBy = 50 * time.Minute

// schedule gives the jobs their instants: spread over the window, late after
// it, missed after the delay. Those without a seat are spread for themselves,
// so that those with one start in the hours in which they have it.
func (r *runPlan) schedule(s Schedule, start, now time.Time) {
	r.run.Slot, r.run.Trigger = start, TriggerSchedule
	end := start.Add(time.Duration(s.WindowHours) * time.Hour)
	parts := map[string][]*Job{}
	for i := range r.jobs {
		j := &r.jobs[i]
		j.Due, j.WindowEnd, j.Deadline = start, end, end.Add(time.Duration(s.MaxDelayHours)*time.Hour)
		if j.State == JobQueued {
			part := j.VCenterID
			if j.Unbooked {
				part += "/unbooked"
			}
			parts[part] = append(parts[part], j)
		}
	}
	for _, part := range parts {
		spread(part, s.WindowHours, s.phase())
	}
	for i := range r.jobs {
		r.jobs[i].missIfOver(now)
	}
}

// spread gives the jobs of a slot that many hours to fall due in. The phase, 0
// to 1, is where in its share of the minutes each one falls.
func spread(jobs []*Job, hours int, phase float64) {
	all := len(jobs)
	for w := range hours {
		n := share(all, hours, w)
		for i, j := range jobs[:n] {
			j.Due = j.Due.Add(time.Duration(w)*time.Hour + time.Duration((float64(i)+phase)/float64(n)*float64(startBy)).Truncate(time.Second))
		}
		jobs = jobs[n:]
	}
}

// phase is that of what the schedule backs up, the same at each run: the many
// schedules of single VMs that share an hour do not all begin at its minute 0,
// and those of one VM come together to share an image.
func (s Schedule) phase() float64 {
	h := fnv.New32a()
	h.Write([]byte(s.VMID + s.GroupID)) // never fails
	return float64(h.Sum32()) / (1 << 32)
}

// missIfOver ends a job whose time was over before any server looked after it.
func (j *Job) missIfOver(now time.Time) {
	if j.State != JobQueued || !now.After(j.Deadline) {
		return
	}
	j.State, j.EndedAt, j.ErrorCode = JobMissed, now, Unavailable
	j.Error = fmt.Sprintf("The job could not start by %s UTC. No server was up to start it: its run was made only at %s UTC.",
		j.Deadline.UTC().Format(time.DateTime), now.UTC().Format(time.DateTime))
}

// settle makes the run's state follow from its jobs'.
func (r *runPlan) settle(now time.Time) {
	states := make([]JobState, len(r.jobs))
	for i, j := range r.jobs {
		states[i] = j.State
	}
	switch {
	case len(states) == 0:
		r.run.State, r.run.Message = RunSucceeded, "The group had no members."
	default:
		r.run.State = Outcome(states)
	}
	r.run.EndedAt = time.Time{}
	if !slices.Contains([]RunState{RunQueued, RunRunning}, r.run.State) {
		r.run.EndedAt = now
	}
}
