package store

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// book makes seats what the schedule holds.
func (t *tx) book(ctx context.Context, schedule string, seats []backup.SeatsBooked) error {
	touched, err := t.strings(ctx, "DELETE FROM schedule_seat WHERE schedule_id = $1 RETURNING vcenter_id", schedule)
	if err != nil {
		return fmt.Errorf("seats of schedule %s: %w", schedule, err)
	}
	for _, s := range seats {
		if _, err := t.exec(ctx, "INSERT INTO schedule_seat (schedule_id, vcenter_id, seats) VALUES ($1, $2, $3)", schedule, s.VCenterID, s.Seats); err != nil {
			return fmt.Errorf("seats of schedule %s: %w", schedule, err)
		}
		touched = append(touched, s.VCenterID)
	}
	return t.logSeats(ctx, schedule, touched)
}

// logSeats notes that what the schedule holds of the vcenters' seats has
// changed. The vcenter's counter is its row's lock as well, so that marks
// become visible in their order whichever transaction writes them.
func (t *tx) logSeats(ctx context.Context, schedule string, vcenters []string) error {
	for _, v := range vcenters {
		var mark int64
		if _, err := t.row(ctx, "UPDATE vcenter SET seat_mark = seat_mark + 1 WHERE id = $1 RETURNING seat_mark", []any{v}, &mark); err != nil {
			return fmt.Errorf("mark of vcenter %s: %w", v, err)
		}
		if _, err := t.exec(ctx, `INSERT INTO seat_change (vcenter_id, schedule_id, mark) VALUES ($1, $2, $3)
			ON CONFLICT (vcenter_id, schedule_id) DO UPDATE SET mark = excluded.mark`, v, schedule, mark); err != nil {
			return fmt.Errorf("seat change of schedule %s: %w", schedule, err)
		}
		if t.booked == nil {
			t.booked = map[string]bool{}
		}
		t.booked[v] = true
	}
	return nil
}

// SeatChanges lists what has changed of the vcenter's seats since that mark.
func (t *tx) SeatChanges(ctx context.Context, vcenterID string, since int64) (changed []backup.Booking, mark int64, own bool, err error) {
	if since == 0 {
		changed, mark, err = t.allSeats(ctx, vcenterID)
		return changed, mark, t.booked[vcenterID], err
	}
	mark = since
	known := calendars{}
	err = t.rows(ctx, `SELECT c.schedule_id, c.mark, COALESCE(s.name, ''), COALESCE(s.recurrence, ''), COALESCE(s.window_hours, 0), COALESCE(s.duration_hours, 0), COALESCE(b.seats, 0)
		FROM seat_change c LEFT JOIN schedule s ON s.id = c.schedule_id LEFT JOIN schedule_seat b ON b.schedule_id = c.schedule_id AND b.vcenter_id = c.vcenter_id
		WHERE c.vcenter_id = $1 AND c.mark > $2 ORDER BY c.mark`,
		[]any{vcenterID, since}, func(scan func(...any) error) error {
			var b backup.Booking
			var text string
			if err := scan(&b.ScheduleID, &mark, &b.Name, &text, &b.WindowHours, &b.DurationHours, &b.Seats); err != nil {
				return err
			}
			if b.Seats == 0 {
				b = backup.Booking{ScheduleID: b.ScheduleID}
			} else if b.Recurrence, err = known.parse(text); err != nil {
				return err
			}
			changed = append(changed, b)
			return nil
		})
	if err != nil {
		return nil, 0, false, fmt.Errorf("seat changes of vcenter %s: %w", vcenterID, err)
	}
	return changed, mark, t.booked[vcenterID], nil
}

// allSeats lists all bookings. Its mark is read first: a change that comes in
// between is listed and comes again.
func (t *tx) allSeats(ctx context.Context, vcenterID string) (all []backup.Booking, mark int64, err error) {
	if _, err := t.row(ctx, "SELECT seat_mark FROM vcenter WHERE id = $1", []any{vcenterID}, &mark); err != nil {
		return nil, 0, fmt.Errorf("mark of vcenter %s: %w", vcenterID, err)
	}
	all, err = t.Booked(ctx, vcenterID)
	return all, mark, err
}

// Booked lists every enabled schedule that books seats of the vcenter.
func (t *tx) Booked(ctx context.Context, vcenterID string) ([]backup.Booking, error) {
	var all []backup.Booking
	known := calendars{}
	err := t.rows(ctx, `SELECT s.id, s.name, s.recurrence, s.window_hours, s.duration_hours, b.seats
		FROM schedule_seat b JOIN schedule s ON s.id = b.schedule_id
		WHERE b.vcenter_id = $1 AND s.project = $2 AND s.enabled AND b.seats > 0 ORDER BY s.id`,
		[]any{vcenterID, t.project}, func(scan func(...any) error) error {
			var b backup.Booking
			var text string
			if err := scan(&b.ScheduleID, &b.Name, &text, &b.WindowHours, &b.DurationHours, &b.Seats); err != nil {
				return err
			}
			var err error
			b.Recurrence, err = known.parse(text)
			all = append(all, b)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("bookings of vcenter %s: %w", vcenterID, err)
	}
	return all, nil
}

// calendars keeps the recurrences that were read, by their text: a hundred
// thousand schedules share a few hundred.
type calendars map[string]backup.Recurrence

func (c calendars) parse(text string) (backup.Recurrence, error) {
	r, ok := c[text]
	if ok {
		return r, nil
	}
	err := recurrence{&r}.Scan(text)
	c[text] = r
	return r, err
}
