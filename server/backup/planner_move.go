package backup

import (
	"context"
	"errors"
	"fmt"
)

// UpdateSchedules changes several schedules as one: the seats of all of them
// are given back before those that they want are booked, so that they can
// change places in full hours. All are changed or none. Errors: as of
// UpdateSchedule, with the schedule's place in all before the field
// ("schedules.1.start_time"); Invalid when a schedule is named twice.
func (p *Planner) UpdateSchedules(ctx context.Context, all []Schedule) ([]Schedule, error) {
	others := make([]Planned, len(all))
	named := map[string]bool{}
	for i, s := range all {
		if s.ID == "" || named[s.ID] {
			return nil, Errorf(Invalid, fmt.Sprintf("schedules.%d.id", i), "Each schedule is named once by its id, got %q.", s.ID)
		}
		others[i], named[s.ID] = Planned{ID: s.ID, Schedule: &s}, true
	}
	done := make([]Schedule, len(all))
	err := p.update(ctx, func(tx *planTx) error {
		order, err := p.stayersFirst(ctx, tx, all, others)
		if err != nil {
			return err
		}
		if err := release(ctx, tx, others); err != nil {
			return err
		}
		for _, i := range order {
			done[i] = all[i]
			if err := p.updateSchedule(ctx, tx, &done[i]); err != nil {
				return Among(i, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("change %d schedules: %w", len(all), err)
	}
	return done, nil
}

// stayersFirst orders the schedules so that those that stay where they are, and
// may have grown, come before those that move. It also reads the seats that
// they are about while none is given back.
func (p *Planner) stayersFirst(ctx context.Context, tx *planTx, all []Schedule, others []Planned) ([]int, error) {
	var stay, move []int
	for i, s := range all {
		old, err := tx.Schedule(ctx, s.ID)
		if err == nil {
			err = p.lookAhead(ctx, tx, s, others)
		}
		switch {
		case err != nil:
			return nil, Among(i, err)
		case s.stays(old, tx.Now()):
			stay = append(stay, i)
		default:
			move = append(move, i)
		}
	}
	return append(stay, move...), nil
}

// Among says which one of several schedules an error is about.
func Among(i int, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	c := *e
	if c.Field = fmt.Sprintf("schedules.%d.%s", i, e.Field); e.Field == "" {
		c.Field = fmt.Sprintf("schedules.%d", i)
	}
	return &c
}
