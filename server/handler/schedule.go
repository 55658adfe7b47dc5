package handler

import (
	"context"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// scheduleIn makes the domain's schedule of the contract's. What only the
// server writes is left out.
func scheduleIn(s api.BackupSchedule) (backup.Schedule, error) {
	r, err := recurrenceIn(s)
	if err != nil {
		return backup.Schedule{}, err
	}
	out := backup.Schedule{
		Name: s.Name, Description: s.Description, Enabled: s.Enabled == nil || *s.Enabled,
		GroupID: s.GroupID, VMID: s.VirtualMachineID, Recurrence: r,
		WindowHours: s.WindowHours, DurationHours: s.DurationHours, MaxDelayHours: backup.DefaultMaxDelayHours,
		RetentionDays: s.RetentionDays, ApplyToExisting: s.ApplyRetentionToExistingImages, Lock: s.Lock,
		Consistency: backup.Consistency(s.Consistency), Unprotectable: backup.UnprotectedPolicy(s.UnprotectableDisks),
		RepositoryID: s.Repository, Labels: s.Labels, DeletionProtect: s.DeletionProtection,
		LatestHour: 23,
	}
	out.Project = backup.DefaultProject
	if s.MaxDelayHours != nil {
		out.MaxDelayHours = *s.MaxDelayHours
	}
	if len(s.ExtendedRetention) > 0 {
		out.Extended = each(s.ExtendedRetention, extendedIn)
	}
	if len(s.CopyTo) > 0 {
		out.CopyTo = each(s.CopyTo, copyTargetIn)
	}
	if d := s.Disks; d != nil {
		out.Disks = backup.DiskChoice{IncludeLabels: d.IncludeLabels, ExcludeLabels: d.ExcludeLabels}
	}
	if w := s.StartWindow; w != nil {
		out.EarliestHour, out.LatestHour = hourIn(w.Earliest, 0), hourIn(w.Latest, 23)
	}
	return out, nil
}

// scheduleOut makes the contract's schedule of the domain's.
func (h *handler) scheduleOut(s backup.Schedule, repositories names) api.BackupSchedule {
	out := api.BackupSchedule{
		ID: s.ID, Name: s.Name, Description: s.Description, Enabled: &s.Enabled,
		GroupID: s.GroupID, VirtualMachineID: s.VMID,
		WindowHours: s.WindowHours, DurationHours: s.DurationHours, MaxDelayHours: &s.MaxDelayHours,
		RetentionDays: s.RetentionDays, ApplyRetentionToExistingImages: s.ApplyToExisting, Lock: s.Lock,
		Consistency: api.Consistency(s.Consistency), UnprotectableDisks: api.UnprotectableDisks(s.Unprotectable),
		Repository: repositories.of(s.RepositoryID), Labels: s.Labels, DeletionProtection: s.DeletionProtect,
		Seats: s.Seats, UnbookedSeats: s.UnbookedSeats, Summary: s.Recurrence.Describe(), CreatedAt: utc(s.CreatedAt), UpdatedAt: utc(s.UpdatedAt),
	}
	recurrenceOut(s.Recurrence, &out)
	if len(s.Extended) > 0 {
		out.ExtendedRetention = each(s.Extended, extendedOut)
	}
	if len(s.CopyTo) > 0 {
		out.CopyTo = each(s.CopyTo, func(t backup.CopyTarget) api.CopyTarget {
			return api.CopyTarget{Repository: repositories.of(t.RepositoryID), RetentionDays: t.RetentionDays}
		})
	}
	if d := s.Disks; len(d.IncludeLabels)+len(d.ExcludeLabels) > 0 {
		out.Disks = &api.DiskChoice{IncludeLabels: d.IncludeLabels, ExcludeLabels: d.ExcludeLabels}
	}
	if s.EarliestHour != 0 || s.LatestHour != 23 {
		out.StartWindow = &api.StartWindow{Earliest: hourOut(s.EarliestHour), Latest: hourOut(s.LatestHour)}
	}
	if next := s.Recurrence.Next(h.Now(), 1); s.Enabled && len(next) > 0 {
		out.NextRunAt = next[0].Start
	}
	return out
}

// schedule reads what else the answer needs and makes it.
func (h *handler) schedule(ctx context.Context, s backup.Schedule) (out api.BackupSchedule, err error) {
	err = h.Store.View(ctx, func(tx backup.Tx) error {
		repositories, err := repositoryNames(ctx, tx)
		out = h.scheduleOut(s, repositories)
		return err
	})
	return out, err
}

// stored tells a schedule with what may surprise.
func (h *handler) stored(ctx context.Context, s backup.Schedule) (api.BackupSchedule, error) {
	out, err := h.schedule(ctx, s)
	if err != nil {
		return out, err
	}
	out.Warnings, err = h.Planner.ScheduleWarnings(ctx, s)
	return out, err
}

// ListBackupSchedules implements the operation.
func (h *handler) ListBackupSchedules(ctx context.Context, q api.ListBackupSchedulesRequestObject) (api.ListBackupSchedulesResponseObject, error) {
	var list api.BackupScheduleList
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		var found []backup.Schedule
		if q.Params.Name != "" {
			found, err = one(tx.ScheduleByName(ctx, q.Params.Name))
		} else {
			f := backup.ScheduleFilter{GroupID: q.Params.GroupID, VMID: q.Params.VirtualMachineID, EnabledOnly: q.Params.Enabled, Page: pageOf(q.Params.Limit, q.Params.Cursor)}
			found, list.NextCursor, err = tx.Schedules(ctx, f)
		}
		if err != nil {
			return err
		}
		repositories, err := repositoryNames(ctx, tx)
		list.Items = each(found, func(s backup.Schedule) api.BackupSchedule { return h.scheduleOut(s, repositories) })
		return err
	})
	return api.ListBackupSchedules200JSONResponse(list), err
}

// CreateBackupSchedule implements the operation.
func (h *handler) CreateBackupSchedule(ctx context.Context, q api.CreateBackupScheduleRequestObject) (api.CreateBackupScheduleResponseObject, error) {
	s, err := scheduleIn(*q.Body)
	if err != nil {
		return nil, err
	}
	if s, err = h.Planner.CreateSchedule(ctx, s); err != nil {
		return nil, err
	}
	body, err := h.stored(ctx, s)
	return api.CreateBackupSchedule201JSONResponse{BackupScheduleCreatedJSONResponse: api.BackupScheduleCreatedJSONResponse{
		Body: body, Headers: api.BackupScheduleCreatedResponseHeaders{ETag: etag(s.Version), Location: "/v1/backup-schedules/" + s.ID},
	}}, err
}

// GetBackupSchedule implements the operation.
func (h *handler) GetBackupSchedule(ctx context.Context, q api.GetBackupScheduleRequestObject) (api.GetBackupScheduleResponseObject, error) {
	var out api.BackupScheduleOKJSONResponse
	var s backup.Schedule
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		if s, err = tx.Schedule(ctx, q.ID); err != nil {
			return err
		}
		repositories, err := repositoryNames(ctx, tx)
		out.Body, out.Headers.ETag = h.scheduleOut(s, repositories), etag(s.Version)
		return err
	})
	if err != nil {
		return nil, err
	}
	m, err := h.Planner.Measured(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	out.Body.Measured = measuredOut(m)
	out.Body.Warnings, err = h.Planner.ScheduleWarnings(ctx, s)
	return api.GetBackupSchedule200JSONResponse{BackupScheduleOKJSONResponse: out}, err
}

func measuredOut(m backup.Measured) *api.MeasuredDuration {
	if m.Backups == 0 {
		return nil
	}
	return &api.MeasuredDuration{
		Backups: m.Backups, MedianSeconds: int64(m.Median / time.Second), LongestSeconds: int64(m.Longest / time.Second), SuggestedDurationHours: m.SuggestedHours,
	}
}

// UpdateBackupSchedule implements the operation.
func (h *handler) UpdateBackupSchedule(ctx context.Context, q api.UpdateBackupScheduleRequestObject) (api.UpdateBackupScheduleResponseObject, error) {
	s, err := scheduleIn(*q.Body)
	if err != nil {
		return nil, err
	}
	s.ID, s.Version = q.ID, versionOf(q.Params.IfMatch)
	if s, err = h.Planner.UpdateSchedule(ctx, s); err != nil {
		return nil, err
	}
	body, err := h.stored(ctx, s)
	return api.UpdateBackupSchedule200JSONResponse{BackupScheduleOKJSONResponse: api.BackupScheduleOKJSONResponse{
		Body: body, Headers: api.BackupScheduleOKResponseHeaders{ETag: etag(s.Version)},
	}}, err
}

// DeleteBackupSchedule implements the operation.
func (h *handler) DeleteBackupSchedule(ctx context.Context, q api.DeleteBackupScheduleRequestObject) (api.DeleteBackupScheduleResponseObject, error) {
	return api.DeleteBackupSchedule204Response{}, h.Planner.DeleteSchedule(ctx, q.ID)
}

// CheckBackupSchedule implements the operation.
func (h *handler) CheckBackupSchedule(ctx context.Context, q api.CheckBackupScheduleRequestObject) (api.CheckBackupScheduleResponseObject, error) {
	s, err := scheduleIn(q.Body.Schedule)
	if err != nil {
		return nil, err
	}
	s.ID = q.Body.ID
	var others []backup.Planned
	for _, o := range q.Body.Others {
		if p, ok := plannedIn(o); ok {
			others = append(others, p)
		}
	}
	s, warnings, err := h.Planner.CheckSchedule(ctx, s, others)
	if err != nil {
		return nil, err
	}
	body, err := h.schedule(ctx, s)
	if q.Body.ID == "" { // the id and the times of a booking that was not made mean nothing
		body.ID, body.CreatedAt, body.UpdatedAt = "", q.Body.Schedule.CreatedAt, q.Body.Schedule.UpdatedAt
	}
	return api.CheckBackupSchedule200JSONResponse{Schedule: body, Warnings: append([]string{}, warnings...)}, err
}

// plannedIn reads another schedule of the same go. One that is wrong in itself
// takes no seats; its fault is told where it is checked itself.
func plannedIn(o api.PlannedSchedule) (backup.Planned, bool) {
	p := backup.Planned{ID: o.ID}
	if o.Schedule != nil {
		s, err := scheduleIn(*o.Schedule)
		if err != nil {
			return p, false
		}
		p.Schedule = &s
	}
	return p, true
}

// RunBackupSchedule implements the operation.
func (h *handler) RunBackupSchedule(ctx context.Context, q api.RunBackupScheduleRequestObject) (api.RunBackupScheduleResponseObject, error) {
	r, err := h.Planner.RunSchedule(ctx, q.ID)
	return api.RunBackupSchedule202JSONResponse{RunAcceptedJSONResponse: runAccepted(r)}, err
}
