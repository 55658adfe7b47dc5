package provider

import (
	"cmp"
	"context"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// take brings what the server answered into the model.
func (m *scheduleModel) take(ctx context.Context, s api.BackupSchedule, diags *diag.Diagnostics) {
	m.ID = types.StringValue(s.ID)
	m.Name = types.StringValue(s.Name)
	m.Description = keepText(m.Description, s.Description)
	m.Enabled = types.BoolValue(s.Enabled == nil || *s.Enabled)
	m.GroupID, m.VirtualMachineID = text(s.GroupID), text(s.VirtualMachineID)
	m.BackupType = types.StringValue("image")
	m.StartTime, m.TimeZone = types.StringValue(s.StartTime), types.StringValue(s.TimeZone)
	m.takeDays(ctx, s, diags)
	m.WindowHours = types.Int64Value(int64(max(s.WindowHours, 1)))
	m.DurationHours = types.Int64Value(int64(max(s.DurationHours, 1)))
	if s.MaxDelayHours != nil {
		m.MaxDelayHours = types.Int64Value(int64(*s.MaxDelayHours))
	}
	m.RetentionDays = types.Int64Value(int64(s.RetentionDays))
	m.ApplyToExisting = types.BoolValue(s.ApplyRetentionToExistingImages)
	m.Lock = types.BoolValue(s.Lock)
	m.Consistency = types.StringValue(string(cmp.Or(s.Consistency, api.ConsistencyCrash)))
	m.UnprotectableDisks = types.StringValue(string(cmp.Or(s.UnprotectableDisks, api.UnprotectableDisksFail)))
	m.Repository = types.StringValue(s.Repository)
	m.takeCopies(ctx, s.CopyTo, diags)
	m.Labels = keepStrings(ctx, m.Labels, s.Labels, diags)
	m.DeletionProtection = types.BoolValue(s.DeletionProtection)
	m.Seats, m.UnbookedSeats = types.Int64Value(int64(s.Seats)), types.Int64Value(int64(s.UnbookedSeats))
	m.CreatedAt = instant(s.CreatedAt)
	m.takeStartWindow(ctx, s.StartWindow, diags)
	m.takeDisks(ctx, s.Disks, diags)

	var extended []extendedModel
	for _, e := range s.ExtendedRetention {
		extended = append(extended, extendedModel{
			DaysOfWeek:     keepSet(ctx, types.SetNull(types.StringType), types.StringType, e.DaysOfWeek, diags),
			DaysOfMonth:    keepSet(ctx, types.SetNull(types.Int64Type), types.Int64Type, e.DaysOfMonth, diags),
			LastDay:        keepBool(types.BoolNull(), e.LastDay),
			WeekDayOfMonth: weekDayObject(ctx, e.WeekDayOfMonth, diags),
			RetentionDays:  types.Int64Value(int64(e.RetentionDays)),
		})
	}
	m.ExtendedRetention = keepObjects(ctx, m.ExtendedRetention, extended, diags)
}

// takeDays brings the recurrence into the model, which has one form of four.
func (m *scheduleModel) takeDays(ctx context.Context, s api.BackupSchedule, diags *diag.Diagnostics) {
	m.OneTime, m.Daily = types.ObjectNull(oneTimeModel{}.types()), types.ObjectNull(dailyModel{}.types())
	m.Weekly = types.ObjectNull(weeklyModel{}.types())
	m.Monthly = types.ObjectNull(monthlyModel{}.types())
	switch {
	case s.OneTime != nil:
		m.OneTime = object(ctx, &oneTimeModel{Date: types.StringValue(s.OneTime.Date)}, diags)
	case s.Daily != nil:
		m.Daily = object(ctx, &dailyModel{StartDate: text(s.Daily.StartDate)}, diags)
	case s.Weekly != nil:
		m.Weekly = object(ctx, &weeklyModel{DaysOfWeek: keepSet(ctx, types.SetNull(types.StringType), types.StringType, s.Weekly.DaysOfWeek, diags)}, diags)
	case s.Monthly != nil:
		m.Monthly = object(ctx, &monthlyModel{
			DaysOfMonth:    keepSet(ctx, types.SetNull(types.Int64Type), types.Int64Type, s.Monthly.DaysOfMonth, diags),
			LastDay:        keepBool(types.BoolNull(), s.Monthly.LastDay),
			WeekDayOfMonth: weekDayObject(ctx, s.Monthly.WeekDayOfMonth, diags),
			ShortMonths:    text(string(s.Monthly.ShortMonths)),
		}, diags)
	}
}

// takeStartWindow keeps a window of the whole day, which the server answers as
// none, where the configuration has one.
func (m *scheduleModel) takeStartWindow(ctx context.Context, w *api.StartWindow, diags *diag.Diagnostics) {
	if w == nil {
		w = &api.StartWindow{}
	}
	earliest, latest := cmp.Or(w.Earliest, firstHour), cmp.Or(w.Latest, lastHour)
	if (m.StartWindow.IsNull() || m.StartWindow.IsUnknown()) && earliest == firstHour && latest == lastHour {
		m.StartWindow = types.ObjectNull(startWindowModel{}.types())
		return
	}
	m.StartWindow = object(ctx, &startWindowModel{Earliest: types.StringValue(earliest), Latest: types.StringValue(latest)}, diags)
}

func (m *scheduleModel) takeDisks(ctx context.Context, d *api.DiskChoice, diags *diag.Diagnostics) {
	prior := read[disksModel](ctx, m.Disks, diags)
	if d == nil {
		d = &api.DiskChoice{}
	}
	if prior == nil {
		if len(d.IncludeLabels)+len(d.ExcludeLabels) == 0 {
			m.Disks = types.ObjectNull(disksModel{}.types())
			return
		}
		prior = &disksModel{}
	}
	m.Disks = object(ctx, &disksModel{
		IncludeLabels: keepSet(ctx, prior.IncludeLabels, types.StringType, d.IncludeLabels, diags),
		ExcludeLabels: keepSet(ctx, prior.ExcludeLabels, types.StringType, d.ExcludeLabels, diags),
	}, diags)
}
