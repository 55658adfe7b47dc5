package store

import (
	"context"
	"fmt"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var schedules = noun{"schedule", "schedule"}

func scheduleColumns(s *backup.Schedule) columns {
	return append(metaColumns(&s.Meta), columns{
		{"name", &s.Name},
		{"description", &s.Description},
		{"enabled", &s.Enabled},
		{"group_id", orNull{&s.GroupID}},
		{"vm_id", orNull{&s.VMID}},
		{"recurrence", recurrence{&s.Recurrence}},
		{"window_hours", &s.WindowHours},
		{"duration_hours", &s.DurationHours},
		{"max_delay_hours", &s.MaxDelayHours},
		{"retention_days", &s.RetentionDays},
		{"extended", asJSON{&s.Extended}},
		{"apply_to_existing", &s.ApplyToExisting},
		{"locked", &s.Lock},
		{"consistency", &s.Consistency},
		{"disks", asJSON{&s.Disks}},
		{"unprotectable", &s.Unprotectable},
		{"repository_id", &s.RepositoryID},
		{"labels", asJSON{&s.Labels}},
		{"deletion_protection", &s.DeletionProtect},
		{"seats", &s.Seats},
		{"start_time_chosen", &s.StartTimeChosen},
		{"earliest_hour", &s.EarliestHour},
		{"latest_hour", &s.LatestHour},
	}...)
}

func (t *tx) Schedule(ctx context.Context, id string) (backup.Schedule, error) {
	return get(ctx, t, schedules, id, scheduleColumns)
}

func (t *tx) ScheduleByName(ctx context.Context, name string) (backup.Schedule, error) {
	return getByName(ctx, t, schedules, name, scheduleColumns)
}

func (t *tx) Schedules(ctx context.Context, f backup.ScheduleFilter) ([]backup.Schedule, string, error) {
	q := query{from: "schedule", all: true}
	q.where("project = ?", t.project)
	q.equal("group_id", f.GroupID)
	q.equal("vm_id", f.VMID)
	if f.EnabledOnly {
		q.where("enabled")
	}
	return list(ctx, t, q, f.Page, scheduleColumns)
}

func (t *tx) InsertSchedule(ctx context.Context, s *backup.Schedule, seats []backup.SeatsBooked) error {
	t.begin(&s.Meta)
	if err := t.insert(ctx, schedules, scheduleColumns(s), schedules.exists(s.Name)); err != nil {
		return t.covered(err, s)
	}
	return t.book(ctx, s.ID, seats)
}

func (t *tx) UpdateSchedule(ctx context.Context, s *backup.Schedule, seats []backup.SeatsBooked) error {
	if err := t.update(ctx, schedules, scheduleColumns(s), &s.Meta, s.Name); err != nil {
		return t.covered(err, s)
	}
	if _, err := t.exec(ctx, "DELETE FROM schedule_seat WHERE schedule_id = $1", s.ID); err != nil {
		return fmt.Errorf("seats of schedule %s: %w", s.ID, err)
	}
	return t.book(ctx, s.ID, seats)
}

// covered says which group or VM is not there when that is why err came.
func (t *tx) covered(err error, s *backup.Schedule) error {
	if !t.db.dialect.dangling(err) {
		return err
	}
	n, id, field := groups, s.GroupID, "group_id"
	if id == "" {
		n, id, field = machines, s.VMID, "virtual_machine_id"
	}
	return backup.Errorf(backup.NotFound, field, "There is no %s with id %q.", n.word, id).Because(err)
}

func (t *tx) book(ctx context.Context, schedule string, seats []backup.SeatsBooked) error {
	for _, s := range seats {
		if _, err := t.exec(ctx, "INSERT INTO schedule_seat (schedule_id, vcenter_id, seats) VALUES ($1, $2, $3)", schedule, s.VCenterID, s.Seats); err != nil {
			return fmt.Errorf("seats of schedule %s: %w", schedule, err)
		}
	}
	return nil
}

func (t *tx) DeleteSchedule(ctx context.Context, id string) error {
	return t.remove(ctx, schedules, id)
}

func (t *tx) Booked(ctx context.Context, vcenterID string) ([]backup.Booking, error) {
	var all []backup.Booking
	err := t.rows(ctx, `SELECT s.id, s.name, s.recurrence, s.window_hours, s.duration_hours, b.seats
		FROM schedule_seat b JOIN schedule s ON s.id = b.schedule_id
		WHERE b.vcenter_id = $1 AND s.project = $2 AND s.enabled AND b.seats > 0 ORDER BY s.id`,
		[]any{vcenterID, t.project}, func(scan func(...any) error) error {
			var b backup.Booking
			if err := scan(&b.ScheduleID, &b.Name, recurrence{&b.Recurrence}, &b.WindowHours, &b.DurationHours, &b.Seats); err != nil {
				return err
			}
			all = append(all, b)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("bookings of vcenter %s: %w", vcenterID, err)
	}
	return all, nil
}

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

func (t *tx) SetDueMark(ctx context.Context, scheduleID string, upTo time.Time) error {
	return t.change(ctx, schedules, columns{{"due_mark", millis{&upTo}}}, scheduleID)
}
