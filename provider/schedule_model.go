package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type scheduleModel struct {
	ID                 types.String   `tfsdk:"id"`
	Name               types.String   `tfsdk:"name"`
	Description        types.String   `tfsdk:"description"`
	Enabled            types.Bool     `tfsdk:"enabled"`
	GroupID            types.String   `tfsdk:"group_id"`
	VirtualMachineID   types.String   `tfsdk:"virtual_machine_id"`
	BackupType         types.String   `tfsdk:"backup_type"`
	StartTime          types.String   `tfsdk:"start_time"`
	StartWindow        types.Object   `tfsdk:"start_window"`
	TimeZone           types.String   `tfsdk:"time_zone"`
	OneTime            types.Object   `tfsdk:"one_time"`
	Daily              types.Object   `tfsdk:"daily"`
	Weekly             types.Object   `tfsdk:"weekly"`
	Monthly            types.Object   `tfsdk:"monthly"`
	WindowHours        types.Int64    `tfsdk:"window_hours"`
	DurationHours      types.Int64    `tfsdk:"duration_hours"`
	MaxDelayHours      types.Int64    `tfsdk:"max_delay_hours"`
	RetentionDays      types.Int64    `tfsdk:"retention_days"`
	ExtendedRetention  types.Set      `tfsdk:"extended_retention"`
	ApplyToExisting    types.Bool     `tfsdk:"apply_retention_to_existing_images"`
	Lock               types.Bool     `tfsdk:"lock"`
	Consistency        types.String   `tfsdk:"consistency"`
	Disks              types.Object   `tfsdk:"disks"`
	UnprotectableDisks types.String   `tfsdk:"unprotectable_disks"`
	Repository         types.String   `tfsdk:"repository"`
	CopyTo             types.Set      `tfsdk:"copy_to"`
	Labels             types.Map      `tfsdk:"labels"`
	DeletionProtection types.Bool     `tfsdk:"deletion_protection"`
	Seats              types.Int64    `tfsdk:"seats"`
	UnbookedSeats      types.Int64    `tfsdk:"unbooked_seats"`
	CreatedAt          types.String   `tfsdk:"created_at"`
	Timeouts           timeouts.Value `tfsdk:"timeouts"`
}

type startWindowModel struct {
	Earliest types.String `tfsdk:"earliest"`
	Latest   types.String `tfsdk:"latest"`
}

func (startWindowModel) types() map[string]attr.Type {
	return map[string]attr.Type{"earliest": types.StringType, "latest": types.StringType}
}

// The ends of a day, which a start window has where it names none.
const (
	firstHour = "00:00"
	lastHour  = "23:00"
)

type oneTimeModel struct {
	Date types.String `tfsdk:"date"`
}

func (oneTimeModel) types() map[string]attr.Type {
	return map[string]attr.Type{"date": types.StringType}
}

type dailyModel struct {
	StartDate types.String `tfsdk:"start_date"`
}

func (dailyModel) types() map[string]attr.Type {
	return map[string]attr.Type{"start_date": types.StringType}
}

type weeklyModel struct {
	DaysOfWeek types.Set `tfsdk:"days_of_week"`
}

func (weeklyModel) types() map[string]attr.Type {
	return map[string]attr.Type{"days_of_week": types.SetType{ElemType: types.StringType}}
}

type monthlyModel struct {
	DaysOfMonth    types.Set    `tfsdk:"days_of_month"`
	LastDay        types.Bool   `tfsdk:"last_day"`
	WeekDayOfMonth types.Object `tfsdk:"week_day_of_month"`
	ShortMonths    types.String `tfsdk:"short_months"`
}

func (monthlyModel) types() map[string]attr.Type {
	return map[string]attr.Type{
		"days_of_month": types.SetType{ElemType: types.Int64Type}, "last_day": types.BoolType,
		"week_day_of_month": types.ObjectType{AttrTypes: weekDayModel{}.types()}, "short_months": types.StringType,
	}
}

type weekDayModel struct {
	WeekOfMonth types.String `tfsdk:"week_of_month"`
	DayOfWeek   types.String `tfsdk:"day_of_week"`
}

func (weekDayModel) types() map[string]attr.Type {
	return map[string]attr.Type{"week_of_month": types.StringType, "day_of_week": types.StringType}
}

type extendedModel struct {
	DaysOfWeek     types.Set    `tfsdk:"days_of_week"`
	DaysOfMonth    types.Set    `tfsdk:"days_of_month"`
	LastDay        types.Bool   `tfsdk:"last_day"`
	WeekDayOfMonth types.Object `tfsdk:"week_day_of_month"`
	RetentionDays  types.Int64  `tfsdk:"retention_days"`
}

func (extendedModel) types() map[string]attr.Type {
	return map[string]attr.Type{
		"days_of_week": types.SetType{ElemType: types.StringType}, "days_of_month": types.SetType{ElemType: types.Int64Type},
		"last_day": types.BoolType, "week_day_of_month": types.ObjectType{AttrTypes: weekDayModel{}.types()}, "retention_days": types.Int64Type,
	}
}

type disksModel struct {
	IncludeLabels types.Set `tfsdk:"include_labels"`
	ExcludeLabels types.Set `tfsdk:"exclude_labels"`
}

func (disksModel) types() map[string]attr.Type {
	return map[string]attr.Type{"include_labels": types.SetType{ElemType: types.StringType}, "exclude_labels": types.SetType{ElemType: types.StringType}}
}

// wire is the schedule as the API wants it. What is not known yet is left to
// the server.
func (m scheduleModel) wire(ctx context.Context, diags *diag.Diagnostics) api.BackupSchedule {
	delay := int(m.MaxDelayHours.ValueInt64())
	s := api.BackupSchedule{
		Name: m.Name.ValueString(), Description: m.Description.ValueString(), Enabled: m.Enabled.ValueBoolPointer(),
		GroupID: m.GroupID.ValueString(), VirtualMachineID: m.VirtualMachineID.ValueString(),
		StartTime: m.StartTime.ValueString(), TimeZone: m.TimeZone.ValueString(),
		WindowHours: int(m.WindowHours.ValueInt64()), DurationHours: int(m.DurationHours.ValueInt64()), MaxDelayHours: &delay,
		RetentionDays:                  int(m.RetentionDays.ValueInt64()),
		ApplyRetentionToExistingImages: m.ApplyToExisting.ValueBool(),
		Lock:                           m.Lock.ValueBool(),
		Consistency:                    textOf[api.Consistency](m.Consistency),
		UnprotectableDisks:             textOf[api.UnprotectableDisks](m.UnprotectableDisks),
		Repository:                     m.Repository.ValueString(),
		CopyTo:                         copiesOf(ctx, m.CopyTo, diags),
		Labels:                         texts(ctx, m.Labels, diags),
		DeletionProtection:             m.DeletionProtection.ValueBool(),
	}
	if w := read[startWindowModel](ctx, m.StartWindow, diags); w != nil {
		s.StartWindow = &api.StartWindow{Earliest: w.Earliest.ValueString(), Latest: w.Latest.ValueString()}
	}
	if o := read[oneTimeModel](ctx, m.OneTime, diags); o != nil {
		s.OneTime = &api.OneTime{Date: o.Date.ValueString()}
	}
	if d := read[dailyModel](ctx, m.Daily, diags); d != nil {
		s.Daily = &api.Daily{StartDate: d.StartDate.ValueString()}
	}
	if w := read[weeklyModel](ctx, m.Weekly, diags); w != nil {
		s.Weekly = &api.Weekly{DaysOfWeek: items[api.DayOfWeek](ctx, w.DaysOfWeek, diags)}
	}
	if o := read[monthlyModel](ctx, m.Monthly, diags); o != nil {
		s.Monthly = &api.Monthly{
			DaysOfMonth: items[int](ctx, o.DaysOfMonth, diags), LastDay: o.LastDay.ValueBool(),
			WeekDayOfMonth: weekDay(ctx, o.WeekDayOfMonth, diags), ShortMonths: textOf[api.ShortMonths](o.ShortMonths),
		}
	}
	for _, e := range items[extendedModel](ctx, m.ExtendedRetention, diags) {
		s.ExtendedRetention = append(s.ExtendedRetention, api.ExtendedRetention{
			DaysOfWeek: items[api.DayOfWeek](ctx, e.DaysOfWeek, diags), DaysOfMonth: items[int](ctx, e.DaysOfMonth, diags),
			LastDay: e.LastDay.ValueBool(), WeekDayOfMonth: weekDay(ctx, e.WeekDayOfMonth, diags), RetentionDays: int(e.RetentionDays.ValueInt64()),
		})
	}
	if d := read[disksModel](ctx, m.Disks, diags); d != nil {
		s.Disks = &api.DiskChoice{IncludeLabels: items[string](ctx, d.IncludeLabels, diags), ExcludeLabels: items[string](ctx, d.ExcludeLabels, diags)}
	}
	return s
}

func weekDay(ctx context.Context, o types.Object, diags *diag.Diagnostics) *api.WeekDayOfMonth {
	w := read[weekDayModel](ctx, o, diags)
	if w == nil {
		return nil
	}
	return &api.WeekDayOfMonth{WeekOfMonth: textOf[api.WeekOfMonth](w.WeekOfMonth), DayOfWeek: textOf[api.DayOfWeek](w.DayOfWeek)}
}

func weekDayObject(ctx context.Context, w *api.WeekDayOfMonth, diags *diag.Diagnostics) types.Object {
	if w == nil {
		return types.ObjectNull(weekDayModel{}.types())
	}
	return object(ctx, &weekDayModel{WeekOfMonth: types.StringValue(string(w.WeekOfMonth)), DayOfWeek: types.StringValue(string(w.DayOfWeek))}, diags)
}

func (m *scheduleModel) id() types.String         { return m.ID }
func (m *scheduleModel) timeouts() timeouts.Value { return m.Timeouts }
