package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var _ datasource.DataSourceWithConfigure = (*timeslotsDataSource)(nil)

type timeslotsDataSource struct{ dataSourceConnection }

// standardDays is how far ahead slots are listed when nothing is said.
const standardDays = 7

func (d *timeslotsDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "kura_timeslots"
}

func (d *timeslotsDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "The coming hours of a vcenter with their seats, soonest first: to choose the hour of a schedule, and for `check` blocks that warn before the nights are full.\n\n" +
			"An hour is a whole hour of the time zone. Where it lies half an hour beside UTC, the fuller one of the two UTC hours that it touches counts.",
		Attributes: map[string]schema.Attribute{
			"vcenter_id": schema.StringAttribute{
				Required: true, MarkdownDescription: "Id of the vcenter.", Validators: []validator.String{stringvalidator.LengthBetween(1, 128)},
			},
			"from": schema.StringAttribute{
				Optional: true, CustomType: timetypes.RFC3339Type{},
				MarkdownDescription: "Hours that begin at this time or later, RFC 3339. Left out, the running hour is the first.",
			},
			"to": schema.StringAttribute{
				Optional: true, CustomType: timetypes.RFC3339Type{},
				MarkdownDescription: "Hours that begin before this time, RFC 3339, at most 400 days from now.",
				Validators:          []validator.String{stringvalidator.ConflictsWith(path.MatchRoot("days"))},
			},
			"days": schema.Int64Attribute{
				Optional:            true,
				MarkdownDescription: fmt.Sprintf("In place of `to`: so many times 24 hours from `from`, or from now. Default `%d`.", standardDays),
				Validators:          []validator.Int64{int64validator.Between(1, 400)},
			},
			"time_zone": schema.StringAttribute{
				Optional: true, Computed: true, Validators: []validator.String{timeZone{}},
				MarkdownDescription: "IANA time zone of hours and days. Left out, it is the vcenter's.",
			},
			"who": schema.BoolAttribute{Optional: true, MarkdownDescription: "Also list the schedules that hold the seats. Default `false`."},
			"slots": schema.ListNestedAttribute{
				Computed: true, MarkdownDescription: "The hours, soonest first.",
				NestedObject: schema.NestedAttributeObject{Attributes: timeslotAttributes()},
			},
			"recommended": schema.MapAttribute{
				Computed: true, ElementType: types.StringType,
				MarkdownDescription: "The emptiest hour of each day that has one with a free seat: date to `start_time`.",
			},
			"free_at": schema.MapAttribute{
				Computed: true, ElementType: types.Int64Type,
				MarkdownDescription: "`start_time` to the seats that are free at that hour on every listed day: how many a daily schedule finds.",
			},
			"best_start_time": schema.StringAttribute{
				Computed: true, MarkdownDescription: "The hour that has the most in `free_at`, the earliest of equal ones; null when no hour has a free seat on every day.",
			},
			"full_hours":        schema.Int64Attribute{Computed: true, MarkdownDescription: "How many of the hours have no free seat."},
			"over_booked_hours": schema.Int64Attribute{Computed: true, MarkdownDescription: "How many of the hours hold more seats than there are, since `slot_capacity` was made smaller."},
		},
	}
}

func timeslotAttributes() map[string]schema.Attribute {
	text := func(description string) schema.StringAttribute {
		return schema.StringAttribute{Computed: true, MarkdownDescription: description}
	}
	number := func(description string) schema.Int64Attribute {
		return schema.Int64Attribute{Computed: true, MarkdownDescription: description}
	}
	return map[string]schema.Attribute{
		"starts_at":   text("When it begins, RFC 3339 with the offset of the time zone."),
		"date":        text("Its day, `YYYY-MM-DD`: what `one_time` of a schedule takes."),
		"start_time":  text("Its hour, `HH:00`: what `start_time` of a schedule takes."),
		"capacity":    number("Seats of the hour."),
		"used":        number("Seats that are booked."),
		"free":        number("Seats that can be booked."),
		"recommended": schema.BoolAttribute{Computed: true, MarkdownDescription: "It is the emptiest hour of its day that has a free seat; of equal ones the earliest."},
		"over_booked": schema.BoolAttribute{Computed: true, MarkdownDescription: "It holds more seats than there are, since `slot_capacity` was made smaller. Nothing is dropped: what is too much queues."},
		"schedules": schema.ListNestedAttribute{
			Computed: true, MarkdownDescription: "With `who`: who holds seats, by name.",
			NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
				"id": text("Id of the schedule."), "name": text("Its name."), "seats": number("Its seats in the hour."),
			}},
		},
	}
}

func (d *timeslotsDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var m timeslotsModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() || !d.ready(&resp.Diagnostics) {
		return
	}
	p := m.params(time.Now(), &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	var slots []api.Timeslot
	for slot, err := range api.All(func(cursor string) ([]api.Timeslot, string, error) {
		p.Cursor = cursor
		page, err := found(d.conn.client.ListTimeslotsWithResponse(ctx, &p))
		m.TimeZone = types.StringValue(page.TimeZone)
		return page.Items, page.NextCursor, err
	}) {
		if err != nil {
			refusal{conn: d.conn, fallback: m.fault(err)}.add(&resp.Diagnostics, err)
			return
		}
		slots = append(slots, slot)
	}
	m.take(ctx, slots, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// params asks from an hour ago on where no time is given: of the hours that have
// begun, the server lists the running one, whatever minute it began at.
func (m timeslotsModel) params(now time.Time, diags *diag.Diagnostics) api.ListTimeslotsParams {
	p := api.ListTimeslotsParams{VCenterID: m.VCenterID.ValueString(), TimeZone: m.TimeZone.ValueString(), Who: m.Who.ValueBool(), Limit: 1000, From: now.Add(-time.Hour)}
	if !m.From.IsNull() {
		p.From = instantOf(m.From, diags)
	}
	if !m.To.IsNull() {
		p.To = instantOf(m.To, diags)
		return p
	}
	days := standardDays
	if !m.Days.IsNull() {
		days = int(m.Days.ValueInt64())
	}
	p.To = p.From.Add(time.Duration(days) * 24 * time.Hour)
	return p
}

// fault is the attribute that the server refused; days stand for to.
func (m timeslotsModel) fault(err error) path.Path {
	p, ok := errors.AsType[*api.Problem](err)
	switch {
	case ok && p.Field == "to" && m.To.IsNull():
		return path.Root("days")
	case ok && slices.Contains([]string{"from", "to", "time_zone"}, p.Field):
		return path.Root(p.Field)
	}
	return path.Root("vcenter_id")
}
