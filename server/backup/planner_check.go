package backup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errRollback ends a transaction whose changes are not wanted.
var errRollback = errors.New("roll back")

// Planned is a change of another schedule in the same plan: with Schedule only
// it will be made, with both changed, with ID only deleted.
type Planned struct {
	ID       string
	Schedule *Schedule
}

// CheckSchedule tells whether s could be stored now, when the others, which the
// same plan wants, are there too: the seats that they give up are free, those
// that they take are taken. It returns s as it would be, and warnings. Errors:
// as of CreateSchedule, or UpdateSchedule when s.ID is set.
func (p *Planner) CheckSchedule(ctx context.Context, s Schedule, others []Planned) (Schedule, []string, error) {
	var warnings []string
	err := p.update(ctx, func(tx *planTx) error {
		if err := p.lookAhead(ctx, tx, s, others); err != nil {
			return err
		}
		if err := release(ctx, tx, others); err != nil {
			return err
		}
		for _, o := range others {
			if o.Schedule == nil {
				continue
			}
			c := *o.Schedule
			c.ID, c.Version = o.ID, 0
			if err := p.put(ctx, tx, &c); err != nil && CodeOf(err) == Internal {
				return err // the other's own refusal is told where it is checked itself
			}
		}
		c := s
		if err := p.put(ctx, tx, &c); err != nil {
			return err
		}
		all, err := allWarnings(ctx, tx, c)
		if err != nil {
			return err
		}
		s, warnings = c, all
		return errRollback
	})
	if !errors.Is(err, errRollback) {
		return Schedule{}, nil, err
	}
	return s, warnings, nil
}

// lookAhead reads the seats that s is about before the transaction changes any,
// so that what it reads lasts.
func (p *Planner) lookAhead(ctx context.Context, tx *planTx, s Schedule, others []Planned) error {
	if len(others) == 0 {
		return nil
	}
	counts, err := p.target(ctx, tx, &s)
	if err != nil {
		return err
	}
	for _, c := range counts {
		if _, err := tx.seats(ctx, c.VCenterID); err != nil {
			return err
		}
	}
	return nil
}

// release gives back the seats of the schedules that a plan moves or deletes.
// One that stays where it is keeps its own: nobody else may take them.
func release(ctx context.Context, tx Tx, others []Planned) error {
	for _, o := range others {
		if o.ID == "" {
			continue
		}
		old, err := tx.Schedule(ctx, o.ID)
		if CodeOf(err) == NotFound || err == nil && o.Schedule != nil && o.Schedule.stays(old, tx.Now()) {
			continue
		}
		if err == nil {
			err = tx.SaveSeats(ctx, old, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stays says whether s, which old is changed to, is for the same and in the
// same hours.
func (s Schedule) stays(old Schedule, now time.Time) bool {
	s = s.Defaulted()
	if s.Recurrence.TimeZone == "" {
		s.Recurrence.TimeZone = old.Recurrence.TimeZone
	}
	s.keepHour(old, now)
	return s.Enabled && old.Enabled && s.GroupID == old.GroupID && s.VMID == old.VMID && old.booking(SeatsBooked{}).covers(s.booking(SeatsBooked{}))
}

func (p *Planner) put(ctx context.Context, tx *planTx, s *Schedule) error {
	if s.ID != "" {
		s.Version = 0
		return p.updateSchedule(ctx, tx, s)
	}
	return p.insertSchedule(ctx, tx, s)
}

// ScheduleWarnings tells what of a stored schedule may surprise.
func (p *Planner) ScheduleWarnings(ctx context.Context, s Schedule) (all []string, err error) {
	err = p.Store.View(ctx, func(tx Tx) (err error) {
		all, err = allWarnings(ctx, tx, s)
		return err
	})
	return all, err
}

func allWarnings(ctx context.Context, tx Tx, s Schedule) ([]string, error) {
	all := s.warnings(tx.Now())
	m, err := measured(ctx, tx, s) // nothing, of a new one
	if err != nil {
		return nil, err
	}
	repo, err := FindRepository(ctx, tx, s.RepositoryID)
	if err != nil {
		return nil, err
	}
	for _, w := range []string{m.warning(s), s.lockWarning(repo)} {
		if w != "" {
			all = append(all, w)
		}
	}
	unable, err := protectionWarnings(ctx, tx, s)
	return append(all, unable...), err
}

// warnings says what of s may surprise (seed N36).
func (s Schedule) warnings(now time.Time) []string {
	loc, err := s.Recurrence.Location()
	if err != nil {
		return nil
	}
	months := s.Recurrence.SkippedMonths(DateOf(now.In(loc)))
	if len(months) == 0 {
		return nil
	}
	names := make([]string, len(months))
	for i, m := range months {
		names[i] = fmt.Sprintf("%s %d", m.Month, m.Year)
	}
	return []string{fmt.Sprintf("No run in %s: the month lacks the day (%s).", list(names), s.Recurrence.Describe())}
}
