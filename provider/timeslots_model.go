package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type timeslotsModel struct {
	VCenterID       types.String      `tfsdk:"vcenter_id"`
	From            timetypes.RFC3339 `tfsdk:"from"`
	To              timetypes.RFC3339 `tfsdk:"to"`
	Days            types.Int64       `tfsdk:"days"`
	TimeZone        types.String      `tfsdk:"time_zone"`
	Who             types.Bool        `tfsdk:"who"`
	Slots           types.List        `tfsdk:"slots"`
	Recommended     types.Map         `tfsdk:"recommended"`
	FreeAt          types.Map         `tfsdk:"free_at"`
	BestStartTime   types.String      `tfsdk:"best_start_time"`
	FullHours       types.Int64       `tfsdk:"full_hours"`
	OverBookedHours types.Int64       `tfsdk:"over_booked_hours"`
}

// The objects of slots and of who holds them are built as they are: a list of
// 400 days has 9,600, which reflection makes slow.
var (
	timeslotTypes = map[string]attr.Type{
		"starts_at": types.StringType, "date": types.StringType, "start_time": types.StringType,
		"capacity": types.Int64Type, "used": types.Int64Type, "free": types.Int64Type, "recommended": types.BoolType, "over_booked": types.BoolType,
		"schedules": types.ListType{ElemType: types.ObjectType{AttrTypes: holderTypes}},
	}
	holderTypes = map[string]attr.Type{"id": types.StringType, "name": types.StringType, "seats": types.Int64Type}
)

// take brings the slots into the model, with what can be told of all of them.
func (m *timeslotsModel) take(ctx context.Context, slots []api.Timeslot, diags *diag.Diagnostics) {
	objects := make([]attr.Value, len(slots))
	full, over := 0, 0
	for i, s := range slots {
		objects[i] = timeslotOf(s, m.Who.ValueBool())
		if s.Free == 0 {
			full++
		}
		if s.OverBooked {
			over++
		}
	}
	m.Slots = types.ListValueMust(types.ObjectType{AttrTypes: timeslotTypes}, objects)
	m.FullHours, m.OverBookedHours = types.Int64Value(int64(full)), types.Int64Value(int64(over))
	free := freeAt(slots)
	var more diag.Diagnostics
	m.FreeAt, more = types.MapValueFrom(ctx, types.Int64Type, free)
	diags.Append(more...)
	m.Recommended, more = types.MapValueFrom(ctx, types.StringType, emptiest(slots))
	diags.Append(more...)
	m.BestStartTime = text(best(free))
}

func timeslotOf(s api.Timeslot, who bool) attr.Value {
	holders := types.ListNull(types.ObjectType{AttrTypes: holderTypes})
	if who {
		objects := make([]attr.Value, len(s.Schedules))
		for i, h := range s.Schedules {
			objects[i] = types.ObjectValueMust(holderTypes, map[string]attr.Value{
				"id": types.StringValue(h.ID), "name": types.StringValue(h.Name), "seats": types.Int64Value(int64(h.Seats)),
			})
		}
		holders = types.ListValueMust(types.ObjectType{AttrTypes: holderTypes}, objects)
	}
	return types.ObjectValueMust(timeslotTypes, map[string]attr.Value{
		"starts_at": instant(s.StartsAt), "date": types.StringValue(dateOf(s)), "start_time": types.StringValue(hourOf(s)),
		"capacity": types.Int64Value(int64(s.Capacity)), "used": types.Int64Value(int64(s.Used)), "free": types.Int64Value(int64(s.Free)),
		"recommended": types.BoolValue(s.Recommended), "over_booked": types.BoolValue(s.OverBooked), "schedules": holders,
	})
}

func dateOf(s api.Timeslot) string { return s.StartsAt.Format(time.DateOnly) }

func hourOf(s api.Timeslot) string { return s.StartsAt.Format("15:04") }

// freeAt is, by hour of the day, how many seats every day has there.
func freeAt(slots []api.Timeslot) map[string]int64 {
	out := map[string]int64{}
	for _, s := range slots {
		if least, there := out[hourOf(s)]; !there || int64(s.Free) < least {
			out[hourOf(s)] = int64(s.Free)
		}
	}
	return out
}

// best is the earliest of the hours with the most free seats, "" when no hour
// has one.
func best(free map[string]int64) string {
	hour := ""
	for _, h := range sorted(free) {
		if free[h] > free[hour] { // no hour has no seats
			hour = h
		}
	}
	return hour
}

// emptiest is the recommended hour of each day. A day that two pages share may
// have one of each page.
func emptiest(slots []api.Timeslot) map[string]string {
	chosen := map[string]api.Timeslot{}
	for _, s := range slots {
		if had, there := chosen[dateOf(s)]; s.Recommended && (!there || s.Free > had.Free) {
			chosen[dateOf(s)] = s
		}
	}
	out := map[string]string{}
	for date, s := range chosen {
		out[date] = hourOf(s)
	}
	return out
}
