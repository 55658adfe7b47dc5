package backup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Dispatch makes the runs of all occurrences that are due and have none yet,
// and returns how many. Any number of servers may call it at the same time: a
// slot of a schedule gets one run. After a downtime every occurrence still
// gets its run, so that what could not be made up for is told as missed.
func (p *Planner) Dispatch(ctx context.Context) (int, error) {
	var due []Schedule
	err := p.Store.View(ctx, func(tx Tx) error {
		all, _, err := tx.Schedules(ctx, ScheduleFilter{EnabledOnly: true})
		if err != nil {
			return err
		}
		for _, s := range all {
			mark, err := tx.DueMark(ctx, s.ID)
			if err != nil {
				return err
			}
			for range s.Recurrence.Between(mark, tx.Now()) {
				due = append(due, s)
				break
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	made := 0
	var errs []error // one schedule's failure does not keep the others waiting
	for _, s := range due {
		n, err := p.dispatch(ctx, s.ID)
		if err != nil {
			errs = append(errs, fmt.Errorf("dispatch schedule %q: %w", s.Name, err))
		}
		made += n
	}
	if made > 0 {
		p.wake()
	}
	return made, errors.Join(errs...)
}

func (p *Planner) dispatch(ctx context.Context, id string) (made int, err error) {
	err = p.Store.Update(ctx, func(tx Tx) error {
		made = 0
		s, err := tx.Schedule(ctx, id)
		if CodeOf(err) == NotFound || err == nil && !s.Enabled { // deleted or disabled in between
			return nil
		}
		if err != nil {
			return err
		}
		mark, err := tx.DueMark(ctx, id)
		if err != nil {
			return err
		}
		for o := range s.Recurrence.Between(mark, tx.Now()) {
			r, err := p.planRun(ctx, tx, s, o.Start)
			if err != nil {
				return err
			}
			r.schedule(s, o.Start)
			stored, err := tx.InsertRun(ctx, r.run, r.jobs)
			if err != nil {
				return err
			}
			if stored {
				made++
			}
		}
		return tx.SetDueMark(ctx, id, tx.Now())
	})
	return made, err
}

// startBy is up to when in a slot its jobs fall due: they are spread over
// these minutes rather than all begun at once (seed N58).
const startBy = 50 * time.Minute

// schedule gives the jobs their instants: spread over the window, late after
// it, missed after the delay.
func (r *runPlan) schedule(s Schedule, start time.Time) {
	r.run.Slot, r.run.Trigger = start, TriggerSchedule
	end := start.Add(time.Duration(s.WindowHours) * time.Hour)
	k := 0
	for w := range s.WindowHours {
		n := share(len(r.jobs), s.WindowHours, w)
		for i := range n {
			j := &r.jobs[k]
			j.Due = start.Add(time.Duration(w)*time.Hour + startBy*time.Duration(i)/time.Duration(n))
			j.WindowEnd = end
			j.Deadline = end.Add(time.Duration(s.MaxDelayHours) * time.Hour)
			k++
		}
	}
}
