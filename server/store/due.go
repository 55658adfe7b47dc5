package store

import (
	"context"
	"fmt"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func (t *tx) DueMark(ctx context.Context, scheduleID string) (time.Time, error) {
	var mark time.Time
	found, err := t.row(ctx, "SELECT due_mark FROM schedule WHERE project = $1 AND id = $2", []any{t.project, scheduleID}, millis{&mark})
	if err != nil {
		return mark, fmt.Errorf("due mark of schedule %s: %w", scheduleID, err)
	}
	if !found {
		return mark, schedules.missing(scheduleID)
	}
	return mark, nil
}

// SetDueMark stores the mark and, as an index over it, the occurrence after it.
func (t *tx) SetDueMark(ctx context.Context, scheduleID string, upTo time.Time) error {
	var r backup.Recurrence
	found, err := t.row(ctx, "SELECT recurrence FROM schedule WHERE project = $1 AND id = $2", []any{t.project, scheduleID}, recurrence{&r})
	if err != nil {
		return fmt.Errorf("calendar of schedule %s: %w", scheduleID, err)
	}
	if !found {
		return schedules.missing(scheduleID)
	}
	next := nextDue(r, upTo)
	return t.change(ctx, schedules, columns{{"due_mark", millis{&upTo}}, {"next_due", millis{&next}}}, scheduleID)
}

// nextDue is the first occurrence after the mark; zero = there is none.
func nextDue(r backup.Recurrence, mark time.Time) time.Time {
	for _, o := range r.Next(mark, 1) {
		return o.Start
	}
	return fromEpoch(0)
}

func (t *tx) DueSchedules(ctx context.Context, upTo time.Time) ([]string, error) {
	ids, err := t.strings(ctx, "SELECT id FROM schedule WHERE project = $1 AND enabled AND next_due > 0 AND next_due <= $2 ORDER BY next_due, id", t.project, upTo)
	if err != nil {
		return nil, fmt.Errorf("due schedules: %w", err)
	}
	return ids, nil
}

// renewBatch is how many schedules one RenewDue looks at.
const renewBatch = 1000

// A lease may end so long from now, and a queued job be due so long from now;
// what lies further ahead was noted by a clock that was wrong.
const (
	leaseAhead = 2 * time.Hour
	dueAhead   = 48 * time.Hour
)

// backToNow takes leases and dues back that would otherwise hold up their jobs
// until the clock is again where it wrongly was.
func (t *tx) backToNow(ctx context.Context) error {
	if _, err := t.exec(ctx, "UPDATE job SET lease_until = $1 WHERE state = 'running' AND lease_until > $2", t.now, t.now.Add(leaseAhead)); err != nil {
		return fmt.Errorf("leases that end too late: %w", err)
	}
	if _, err := t.exec(ctx, "UPDATE job SET due = $1 WHERE state = 'queued' AND due > $2", t.now, t.now.Add(dueAhead)); err != nil {
		return fmt.Errorf("jobs that are due too late: %w", err)
	}
	return nil
}

// dueChange is what RenewDue has found wrong.
type dueChange struct{ mark, next time.Time }

func (t *tx) RenewDue(ctx context.Context, after string) (last string, err error) {
	if after == "" {
		if err := t.backToNow(ctx); err != nil {
			return "", err
		}
	}
	n := 0
	wrong := map[string]dueChange{}
	known := calendars{}
	err = t.rows(ctx, fmt.Sprintf("SELECT id, recurrence, due_mark, next_due FROM schedule WHERE project = $1 AND enabled AND id > $2 ORDER BY id LIMIT %d", renewBatch),
		[]any{t.project, after}, func(scan func(...any) error) error {
			var text string
			var mark, stored time.Time
			if err := scan(&last, &text, millis{&mark}, millis{&stored}); err != nil {
				return err
			}
			n++
			r, err := known.parse(text)
			to := dueChange{mark: mark}
			if mark.After(t.now) {
				to.mark = t.now
			}
			if to.next = nextDue(r, to.mark); !to.next.Equal(stored) || !to.mark.Equal(mark) {
				wrong[last] = to
			}
			return err
		})
	if err != nil {
		return "", fmt.Errorf("list of schedules: %w", err)
	}
	for id, to := range wrong {
		if err := t.change(ctx, schedules, columns{{"due_mark", millis{&to.mark}}, {"next_due", millis{&to.next}}}, id); err != nil {
			return "", err
		}
	}
	if n < renewBatch {
		last = ""
	}
	return last, nil
}

func (t *tx) SaveSeats(ctx context.Context, s backup.Schedule, seats []backup.SeatsBooked) error {
	if err := t.change(ctx, schedules, columns{{"seats", &s.Seats}, {"unbooked_seats", &s.UnbookedSeats}}, s.ID); err != nil {
		return err
	}
	return t.book(ctx, s.ID, seats)
}
