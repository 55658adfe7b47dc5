package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/function"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// The functions of schedules ask nobody: their calendar is the domain's own,
// which is the server's.

var (
	_ function.Function = expandSchedule{}
	_ function.Function = describeSchedule{}
)

func scheduleParameter() function.Parameter {
	return function.DynamicParameter{
		Name: "schedule", AllowUnknownValues: true,
		MarkdownDescription: "An object with attributes of `kura_backup_schedule`, or such a resource itself. Those that say when it runs are used: " +
			"`start_time`, `time_zone` and one of `one_time`, `daily`, `weekly`, `monthly`; the others are ignored. What is no attribute of the resource is refused. " +
			"`time_zone` is needed here, for a function does not know the vcenter's.",
	}
}

// expandSchedule lists when a schedule runs.
type expandSchedule struct{}

// mostStarts is how many starts a call may ask for, as of the API.
const mostStarts = 1000

func (expandSchedule) Metadata(_ context.Context, _ function.MetadataRequest, resp *function.MetadataResponse) {
	resp.Name = "expand_schedule"
}

func (expandSchedule) Definition(_ context.Context, _ function.DefinitionRequest, resp *function.DefinitionResponse) {
	resp.Definition = function.Definition{
		Summary: "When a schedule runs next",
		MarkdownDescription: "Lists the starts of a schedule's slots as the server counts them, RFC 3339 with the offset of the schedule's zone. " +
			"An hour that daylight saving skips gives the first instant after it, one that occurs twice its first. " +
			"Months that lack the day give none. The list is shorter than `count` where the schedule has no more within nine years.",
		Parameters: []function.Parameter{
			scheduleParameter(),
			function.StringParameter{Name: "from", MarkdownDescription: "Starts at this time or later: RFC 3339, or `YYYY-MM-DD` for the start of that day in the schedule's zone."},
			function.Int64Parameter{Name: "count", MarkdownDescription: fmt.Sprintf("How many at most, 1 to %d.", mostStarts)},
		},
		Return: function.ListReturn{ElementType: types.StringType},
	}
}

func (expandSchedule) Run(ctx context.Context, req function.RunRequest, resp *function.RunResponse) {
	var schedule types.Dynamic
	var from string
	var count int64
	if resp.Error = req.Arguments.Get(ctx, &schedule, &from, &count); resp.Error != nil {
		return
	}
	r, known, err := recurrence(schedule)
	if err != nil {
		resp.Error = function.NewArgumentFuncError(0, domainText(err))
		return
	}
	if !known {
		resp.Error = resp.Result.Set(ctx, types.ListUnknown(types.StringType))
		return
	}
	if r.Hour < 0 {
		resp.Error = function.NewArgumentFuncError(0, `The server picks the hour of a schedule without start_time, so its starts are not known here. Add start_time = "02:00".`)
		return
	}
	loc, err := r.Location()
	if err != nil {
		resp.Error = function.NewArgumentFuncError(0, domainText(err))
		return
	}
	after, err := instantOrDay(from, loc)
	if err != nil {
		resp.Error = function.NewArgumentFuncError(1, domainText(err))
		return
	}
	if count < 1 || count > mostStarts {
		resp.Error = function.NewArgumentFuncError(2, fmt.Sprintf("count must be 1 to %d, got %d.", mostStarts, count))
		return
	}
	starts := []string{}
	for _, o := range r.Next(after.Add(-1), int(count)) { // the domain lists what comes after
		starts = append(starts, o.Start.Format(time.RFC3339))
	}
	resp.Error = resp.Result.Set(ctx, starts)
}

// instantOrDay reads an instant, or the first one of a day.
func instantOrDay(s string, loc *time.Location) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, loc); err == nil {
		return t, nil
	}
	return time.Time{}, wrong("from", "from is written as 2026-12-01T00:00:00+09:00 or as 2026-12-01, got %q.", s)
}

// describeSchedule says when a schedule runs in words.
type describeSchedule struct{}

func (describeSchedule) Metadata(_ context.Context, _ function.MetadataRequest, resp *function.MetadataResponse) {
	resp.Name = "describe_schedule"
}

func (describeSchedule) Definition(_ context.Context, _ function.DefinitionRequest, resp *function.DefinitionResponse) {
	resp.Definition = function.Definition{
		Summary:             "When a schedule runs, in words",
		MarkdownDescription: "Says when a schedule runs as the server does, such as `second Wednesday of each month, 02:00-03:00 Asia/Tokyo`.",
		Parameters:          []function.Parameter{scheduleParameter()},
		Return:              function.StringReturn{},
	}
}

func (describeSchedule) Run(ctx context.Context, req function.RunRequest, resp *function.RunResponse) {
	var schedule types.Dynamic
	if resp.Error = req.Arguments.Get(ctx, &schedule); resp.Error != nil {
		return
	}
	r, known, err := recurrence(schedule)
	switch {
	case err != nil:
		resp.Error = function.NewArgumentFuncError(0, domainText(err))
	case !known:
		resp.Error = resp.Result.Set(ctx, types.StringUnknown())
	default:
		resp.Error = resp.Result.Set(ctx, r.Describe())
	}
}
