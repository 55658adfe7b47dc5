package provider

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// slotsFrom are hours one after the other with so many free seats.
func slotsFrom(start time.Time, free ...int) (out []api.Timeslot) {
	for i, n := range free {
		out = append(out, api.Timeslot{StartsAt: start.Add(time.Duration(i) * time.Hour), Capacity: 4, Used: 4 - n, Free: n})
	}
	return out
}

func TestTheHourWithMostSeatsOnEveryDayIsTheBest(t *testing.T) {
	first := time.Date(2026, 12, 1, 21, 0, 0, 0, time.FixedZone("", 9*3600))
	second := first.AddDate(0, 0, 1)
	for name, c := range map[string]struct {
		slots []api.Timeslot
		want  string
	}{
		"one day":                       {slotsFrom(first, 1, 4, 2), "22:00"},
		"the least of two days counts":  {append(slotsFrom(first, 2, 4, 3), slotsFrom(second, 2, 1, 3)...), "23:00"},
		"of equal ones the earliest":    {slotsFrom(first, 3, 3, 3), "21:00"},
		"no hour is free on every day":  {append(slotsFrom(first, 0, 4), slotsFrom(second, 4, 0)...), ""},
		"an hour that one day lacks":    {append(slotsFrom(first, 1, 4), slotsFrom(second, 2)...), "22:00"},
		"no hours":                      {nil, ""},
		"past midnight is another hour": {slotsFrom(first, 0, 0, 0, 1), "00:00"},
	} {
		if got := best(freeAt(c.slots)); got != c.want {
			t.Errorf("%s: best is %q, want %q", name, got, c.want)
		}
	}
}

func TestADayOfTwoPagesHasOneEmptiestHour(t *testing.T) {
	slots := slotsFrom(time.Date(2026, 12, 1, 20, 0, 0, 0, time.UTC), 1, 2, 3, 3, 0, 4)
	for _, i := range []int{1, 2, 3, 5} {
		slots[i].Recommended = true
	}
	want := map[string]string{"2026-12-01": "22:00", "2026-12-02": "01:00"}
	if diff := cmp.Diff(want, emptiest(slots)); diff != "" {
		t.Errorf("the emptiest hours (-want +got):\n%s", diff)
	}
}

func TestTimeslotsAreAskedForInWholeDays(t *testing.T) {
	now := time.Date(2026, 12, 1, 16, 46, 7, 0, time.UTC)
	from := timetypes.NewRFC3339TimeValue(now.AddDate(0, 0, 2))
	for name, c := range map[string]struct {
		m        timeslotsModel
		from, to time.Time
	}{
		"a week from the running hour on": {timeslotsModel{}, now.Add(-time.Hour), now.AddDate(0, 0, 7).Add(-time.Hour)},
		"all that seats are counted for":  {timeslotsModel{Days: types.Int64Value(400)}, now.Add(-time.Hour), now.AddDate(0, 0, 400).Add(-time.Hour)},
		"days from a time":                {timeslotsModel{From: from, Days: types.Int64Value(1)}, now.AddDate(0, 0, 2), now.AddDate(0, 0, 3)},
		"a time to a time":                {timeslotsModel{From: from, To: timetypes.NewRFC3339TimeValue(now.AddDate(0, 0, 9))}, now.AddDate(0, 0, 2), now.AddDate(0, 0, 9)},
	} {
		var diags diag.Diagnostics
		p := c.m.params(now, &diags)
		if diags.HasError() || !p.From.Equal(c.from) || !p.To.Equal(c.to) {
			t.Errorf("%s: asks from %s to %s, want %s to %s; %v", name, p.From, p.To, c.from, c.to, diags)
		}
	}
}
