package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// book makes seats what the schedule holds, and gives back what it held.
func (t *tx) book(ctx context.Context, schedule string, seats []backup.SeatsBooked) error {
	held, err := t.strings(ctx, "SELECT vcenter_id FROM seat WHERE schedule_id = $1 AND seats > 0 ORDER BY vcenter_id", schedule)
	if err != nil {
		return fmt.Errorf("seats of schedule %s: %w", schedule, err)
	}
	for _, v := range held {
		if slices.ContainsFunc(seats, func(s backup.SeatsBooked) bool { return s.VCenterID == v }) {
			continue
		}
		if err := t.hold(ctx, schedule, backup.SeatsBooked{VCenterID: v}); err != nil {
			return err
		}
	}
	return t.holdAll(ctx, schedule, seats)
}

func (t *tx) holdAll(ctx context.Context, schedule string, seats []backup.SeatsBooked) error {
	for _, s := range seats {
		if err := t.hold(ctx, schedule, s); err != nil {
			return err
		}
	}
	return nil
}

// hold notes what the schedule holds of one vcenter's seats. The vcenter's
// counter is its row's lock as well, so that marks become visible in their
// order whichever transaction writes them.
func (t *tx) hold(ctx context.Context, schedule string, s backup.SeatsBooked) error {
	var mark int64
	found, err := t.row(ctx, "UPDATE vcenter SET seat_mark = seat_mark + 1 WHERE id = $1 RETURNING seat_mark", []any{s.VCenterID}, &mark)
	if err != nil {
		return fmt.Errorf("seat mark of vcenter %s: %w", s.VCenterID, err)
	}
	if !found {
		return vcenters.missing(s.VCenterID)
	}
	if _, err := t.exec(ctx, `INSERT INTO seat (vcenter_id, schedule_id, seats, since, mark) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (vcenter_id, schedule_id) DO UPDATE SET seats = excluded.seats, since = excluded.since, mark = excluded.mark`,
		s.VCenterID, schedule, s.Seats, s.Since, mark); err != nil {
		return fmt.Errorf("seats of schedule %s: %w", schedule, err)
	}
	if t.booked == nil {
		t.booked = map[string]bool{}
	}
	t.booked[s.VCenterID] = true
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
	err = t.rows(ctx, `SELECT b.schedule_id, b.mark, b.seats, b.since, COALESCE(s.name, ''), COALESCE(s.recurrence, ''), COALESCE(s.window_hours, 0), COALESCE(s.duration_hours, 0)
		FROM seat b LEFT JOIN schedule s ON s.id = b.schedule_id
		WHERE b.vcenter_id = $1 AND b.mark > $2 ORDER BY b.mark`,
		[]any{vcenterID, since}, func(scan func(...any) error) error {
			var b backup.Booking
			var text string
			if err := scan(&b.ScheduleID, &mark, &b.Seats, millis{&b.Since}, &b.Name, &text, &b.WindowHours, &b.DurationHours); err != nil {
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

// Booked lists every enabled schedule that books seats of the vcenter. CROSS
// JOIN has SQLite go from the vcenter's seats to their schedules; by itself it
// would walk over all schedules of the project.
func (t *tx) Booked(ctx context.Context, vcenterID string) ([]backup.Booking, error) {
	var all []backup.Booking
	known := calendars{}
	err := t.rows(ctx, `SELECT s.id, s.name, s.recurrence, s.window_hours, s.duration_hours, b.seats, b.since
		FROM seat b CROSS JOIN schedule s WHERE s.id = b.schedule_id
		AND b.vcenter_id = $1 AND s.project = $2 AND s.enabled AND b.seats > 0`,
		[]any{vcenterID, t.project}, func(scan func(...any) error) error {
			var b backup.Booking
			var text string
			if err := scan(&b.ScheduleID, &b.Name, &text, &b.WindowHours, &b.DurationHours, &b.Seats, millis{&b.Since}); err != nil {
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
