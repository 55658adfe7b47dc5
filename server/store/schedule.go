package store

import (
	"context"

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
		{"copy_to", asJSON{&s.CopyTo}},
		{"labels", asJSON{&s.Labels}},
		{"deletion_protection", &s.DeletionProtect},
		{"seats", &s.Seats},
		{"unbooked_seats", &s.UnbookedSeats},
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
	if f.Unbooked {
		q.where("unbooked_seats > 0")
	}
	return list(ctx, t, q, f.Page, scheduleColumns)
}

func (t *tx) InsertSchedule(ctx context.Context, s *backup.Schedule, seats []backup.SeatsBooked) error {
	t.begin(&s.Meta)
	if err := t.insert(ctx, schedules, scheduleColumns(s), schedules.exists(s.Name)); err != nil {
		return t.covered(err, s)
	}
	return t.holdAll(ctx, s.ID, seats)
}

func (t *tx) UpdateSchedule(ctx context.Context, s *backup.Schedule, seats []backup.SeatsBooked) error {
	if err := t.update(ctx, schedules, scheduleColumns(s), &s.Meta, s.Name); err != nil {
		return t.covered(err, s)
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

func (t *tx) DeleteSchedule(ctx context.Context, id string) error {
	if err := t.remove(ctx, schedules, id); err != nil {
		return err
	}
	return t.book(ctx, id, nil)
}
