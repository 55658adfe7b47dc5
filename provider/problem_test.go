package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

func scheduleRefusal(t *testing.T) refusal {
	t.Helper()
	r := &scheduleResource{resourceConnection{&connection{endpoint: "https://kura.example.com"}}}
	var resp resource.SchemaResponse
	r.Schema(t.Context(), resource.SchemaRequest{}, &resp)
	return r.refusal(resp.Schema, api.BackupSchedule{})
}

// seed:N60
func TestRecommendationsAreGivenInOrderAsConfigurationToPaste(t *testing.T) {
	got := bookings([]api.Recommendation{
		{Kind: api.RecommendationKindSameDay, StartTime: "03:00", FreeSeats: 1},
		{Kind: api.RecommendationKindSameSlot, StartTime: "02:00", Date: "2026-12-02", FreeSeats: 2},
		{Kind: api.RecommendationKindSameSlot, StartTime: "02:00", StartDate: "2027-01-15", FreeSeats: 3},
		{Kind: api.RecommendationKindSameSlot, StartTime: "02:00", DaysOfWeek: []api.DayOfWeek{"monday", "friday"}, FreeSeats: 4},
		{Kind: api.RecommendationKindSameSlot, StartTime: "02:00", DaysOfMonth: []int{2, 16}, FreeSeats: 5},
		{Kind: api.RecommendationKindSameSlot, StartTime: "02:00", WeekDayOfMonth: &api.WeekDayOfMonth{WeekOfMonth: "last", DayOfWeek: "friday"}, FreeSeats: 0},
	}, "")
	want := `Book one of these instead:
  start_time = "03:00" # same days, 1 seat free after it
  one_time = { date = "2026-12-02" } # same hour, 2 seats free after it
  daily = { start_date = "2027-01-15" } # same hour, 3 seats free after it
  weekly = { days_of_week = ["monday", "friday"] } # same hour, 4 seats free after it
  monthly = { days_of_month = [2, 16] } # same hour, 5 seats free after it
  monthly = { week_day_of_month = { week_of_month = "last", day_of_week = "friday" } } # same hour, 0 seats free after it`
	if got != want {
		t.Errorf("bookings = \n%s\nwant\n%s", got, want)
	}
}

func TestRecommendedDaysKeepWhatShorterMonthsDo(t *testing.T) {
	days := []api.Recommendation{{Kind: api.RecommendationKindSameSlot, StartTime: "02:00", DaysOfMonth: []int{30}, FreeSeats: 1}}
	for short, want := range map[api.ShortMonths]string{
		api.ShortMonthsLastDay: `monthly = { days_of_month = [30], short_months = "last_day" } # same hour, 1 seat free after it`,
		api.ShortMonthsSkip:    `monthly = { days_of_month = [30] } # same hour, 1 seat free after it`,
	} {
		if got := bookings(days, short); got != "Book one of these instead:\n  "+want {
			t.Errorf("with short_months %q bookings = %q, want %q", short, got, want)
		}
	}
}

func TestWhatIsFreeIsSaidOnce(t *testing.T) {
	for name, c := range map[string]struct{ detail, want string }{
		"alone":                 {"02:00 is full. Free: 03:00 (same days).", "02:00 is full."},
		"with more after it":    {"02:00 is full (a Free: b). Free: 03:00.\nCounted in: 2.", "02:00 is full (a Free: b).\nCounted in: 2."},
		"nothing is said of it": {"02:00 is full.", "02:00 is full."},
	} {
		if got := withoutFree(c.detail); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestAProblemPointsAtTheAttributeAtFault(t *testing.T) {
	r := scheduleRefusal(t)
	for field, want := range map[string]path.Path{
		"weekly.days_of_week":               path.Root("weekly").AtName("days_of_week"),
		"monthly.week_day_of_month":         path.Root("monthly").AtName("week_day_of_month"),
		"short_months":                      path.Root("monthly").AtName("short_months"),
		"extended_retention.retention_days": path.Root("extended_retention"),
		"retention_days":                    path.Root("retention_days"),
		"":                                  path.Root("start_time"),
		"nothing.of.the.kind":               path.Root("start_time"),
	} {
		var diags diag.Diagnostics
		r.add(&diags, fmt.Errorf("make it: %w", &api.Problem{Title: "Invalid request", Detail: "It is wrong.", Code: api.ErrorCodeInvalid, Field: field, RequestID: "01J"}))
		got, ok := diags[0].(diag.DiagnosticWithPath)
		if !ok || !got.Path().Equal(want) {
			t.Errorf("field %q points at %s, want %s", field, got.Path(), want)
		}
		if d := diags[0]; d.Summary() != "Invalid request" || d.Detail() != "It is wrong.\nCode invalid, request 01J" {
			t.Errorf("field %q says %q %q", field, d.Summary(), d.Detail())
		}
	}
}

func TestEveryFailureSaysWhatToDo(t *testing.T) {
	r := scheduleRefusal(t)
	for name, c := range map[string]struct {
		err           error
		summary, want string
	}{
		"no valid token":   {&api.Problem{Title: "No valid token", Code: api.ErrorCodeUnauthenticated}, "No valid token", "kura token create"},
		"the wrong role":   {&api.Problem{Title: "Not allowed", Code: api.ErrorCodeForbidden}, "Not allowed", "--role operator"},
		"a name is taken":  {&api.Problem{Title: "Conflict", Code: api.ErrorCodeConflict}, "Conflict", "terraform import kura_backup_schedule.NAME name/<name>"},
		"changed since":    {&api.Problem{Title: "Changed", Code: api.ErrorCodeStale}, "Changed", "Plan again"},
		"the server rests": {&api.Problem{Title: "Not available now", Code: api.ErrorCodeUnavailable}, "Not available now", "max_retries"},
		"a fault inside":   {&api.Problem{Title: "Internal error", Code: api.ErrorCodeInternal}, "Internal error", "log"},
		"no answer":        {errors.New("dial tcp: refused"), "Kura server not reachable", "https://kura.example.com gave no usable answer: Dial tcp: refused."},
		"too late":         {context.DeadlineExceeded, "Kura server took too long", "request_timeout"},
		"interrupted":      {context.Canceled, "Interrupted", "Run it again"},
	} {
		var diags diag.Diagnostics
		r.add(&diags, c.err)
		if d := diags[0]; d.Summary() != c.summary || !strings.Contains(d.Detail(), c.want) {
			t.Errorf("%s: says %q %q, want %q and %q", name, d.Summary(), d.Detail(), c.summary, c.want)
		}
		if n := len(strings.Fields(diags[0].Summary())); n > 6 || strings.HasSuffix(diags[0].Summary(), ".") {
			t.Errorf("%s: the summary %q has %d words or a full stop", name, diags[0].Summary(), n)
		}
	}
	var diags diag.Diagnostics
	r.add(&diags, nil)
	if len(diags) != 0 {
		t.Errorf("no error gives %v", diags)
	}
}
