package handler_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
)

// timeslots lists the slots of the rig's vcenter page by page.
func (r *rig) timeslots(p api.ListTimeslotsParams) []api.Timeslot {
	r.t.Helper()
	p.VCenterID = r.vcenter.ID
	var got []api.Timeslot
	for slot, err := range api.All(func(cursor string) ([]api.Timeslot, string, error) {
		p.Cursor = cursor
		a, err := r.client(auth.Viewer).ListTimeslotsWithResponse(context.Background(), &p)
		if err := api.Err(a, err); err != nil {
			return nil, "", err
		}
		if n := len(a.JSON200.Items); n > 1000 || p.Limit > 0 && n > p.Limit {
			r.t.Errorf("a page of %d, want at most %d", n, p.Limit)
		}
		return a.JSON200.Items, a.JSON200.NextCursor, nil
	}) {
		r.must(err)
		got = append(got, slot)
	}
	return got
}

// Three VMs and a group of two share 02:00 and 03:00 of a vcenter of three
// seats, a disabled schedule takes none; then the capacity is made smaller. seed:N20
func TestTimeslotsTellWhoHoldsTheSeatsAndWhatIsTooMuch(t *testing.T) {
	r := newRig(t)
	group := into[api.BackupGroup](r, r.do(call{method: "POST", path: "/v1/backup-groups", role: auth.Backup, body: api.BackupGroup{Name: "g", VirtualMachineIDs: []string{r.vms[1].ID, r.vms[2].ID}}}), 201)
	one := r.schedule(nightly("one", r.vms[0].ID))
	two := nightly("two", "")
	two.GroupID, two.DurationHours = group.ID, 2
	two = r.schedule(two)
	off := nightly("off", r.vms[3].ID)
	off.Enabled = new(false)
	r.schedule(off)

	tokyo := time.FixedZone("", 9*3600)
	from := time.Date(2026, 12, 2, 1, 0, 0, 0, tokyo)
	p := api.ListTimeslotsParams{From: from, To: from.Add(4 * time.Hour), Who: true}
	slot := func(h, capacity, used int, best bool, who ...api.TimeslotHolder) api.Timeslot {
		return api.Timeslot{StartsAt: from.Add(time.Duration(h) * time.Hour), Capacity: capacity, Used: used, Free: max(0, capacity-used), OverBooked: used > capacity, Recommended: best, Schedules: who}
	}
	first, second := api.TimeslotHolder{ID: one.ID, Name: "one", Seats: 1}, api.TimeslotHolder{ID: two.ID, Name: "two", Seats: 2}
	want := []api.Timeslot{slot(0, 3, 0, false), slot(1, 3, 3, false, first, second), slot(2, 3, 2, false, second), slot(3, 3, 0, false)}
	got := r.timeslots(p)
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("timeslots (-want +got):\n%s", diff)
	}
	if text := got[0].StartsAt.Format(time.RFC3339); text != "2026-12-02T01:00:00+09:00" {
		t.Errorf("starts_at = %s, want it with the zone's offset", text)
	}
	p.Who = false
	for _, s := range r.timeslots(p) {
		if s.Schedules != nil {
			t.Errorf("%s tells %v, which nobody asked for", s.StartsAt, s.Schedules)
		}
	}

	path := "/v1/vcenters/" + r.vcenter.ID
	v := into[api.VCenter](r, r.do(call{method: "GET", path: path, role: auth.Viewer}), 200)
	if v.Warnings != nil {
		t.Errorf("a vcenter that is read warns: %q", v.Warnings)
	}
	v.SlotCapacity = 2
	v = into[api.VCenter](r, r.do(call{method: "PUT", path: path, role: auth.Operator, body: v}), 200)
	// 2026-12-02 to 2028-01-04 at 02:00, which was 17:00 UTC of the day before.
	if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], "400 hours hold more seats than slot_capacity = 2, the first at 2026-12-02T02:00:00+09:00, the fullest with 3 seats") {
		t.Errorf("warnings = %q, want the over-booked hours told", v.Warnings)
	}
	over := r.timeslots(p)
	want = []api.Timeslot{slot(0, 2, 0, false), slot(1, 2, 3, false), slot(2, 2, 2, false), slot(3, 2, 0, false)}
	if diff := cmp.Diff(want, over, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("timeslots of the smaller capacity (-want +got):\n%s", diff)
	}
	v.SlotCapacity = 3
	if v = into[api.VCenter](r, r.do(call{method: "PUT", path: path, role: auth.Operator, body: v}), 200); v.Warnings != nil {
		t.Errorf("warnings = %q after there is room again", v.Warnings)
	}
}

// Whatever the pages are, each hour comes once, and each day has one that is
// recommended. The range begins in the middle of a day and holds both changes
// of the clock. seed:N30
func TestTimeslotsAreListedWholeHoweverSmallThePages(t *testing.T) {
	r := newRig(t)
	for i, start := range []string{"00:00", "00:00", "05:00"} {
		s := nightly(fmt.Sprint("s", i), r.vms[i].ID)
		s.StartTime, s.TimeZone = start, "America/New_York"
		r.schedule(s)
	}
	from := time.Date(2026, 12, 9, 13, 30, 0, 0, time.UTC)
	days := func(n int) api.ListTimeslotsParams {
		return api.ListTimeslotsParams{From: from, To: from.AddDate(0, 0, n), TimeZone: "America/New_York", Limit: 1000}
	}
	whole := r.timeslots(days(380))
	if len(whole) != 380*24 {
		t.Errorf("%d hours in 380 days, want %d", len(whole), 380*24)
	}
	recommended := map[string]int{}
	for i, s := range whole {
		if want := from.Add(30*time.Minute + time.Duration(i)*time.Hour); !s.StartsAt.Equal(want) {
			t.Fatalf("slot %d begins %s, want %s", i, s.StartsAt, want)
		}
		if s.Recommended {
			recommended[s.StartsAt.Format(time.DateOnly)]++
			if s.StartsAt.Hour() != 1 {
				t.Errorf("%s is recommended, want 01:00, the first empty one", s.StartsAt)
			}
		}
	}
	if len(recommended) != 380 {
		t.Errorf("%d days have a recommended hour, want 380: from the day after the first on", len(recommended))
	}
	for _, c := range []struct{ days, limit int }{{2, 1}, {5, 7}, {30, 24}, {200, 0}, {380, 999}} {
		p := days(c.days)
		p.Limit = c.limit
		if diff := cmp.Diff(whole[:24*c.days], r.timeslots(p)); diff != "" {
			t.Errorf("%d days in pages of %d (-whole +got):\n%s", c.days, c.limit, diff)
		}
	}
}

// The clock of the test stands at 09:30 in Tokyo.
func TestTimeslotsHaveARangeOfTheirOwn(t *testing.T) {
	r := newRig(t)
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339, text)
		r.must(err)
		return v
	}
	for name, c := range map[string]struct {
		params      api.ListTimeslotsParams
		n           int
		first, last string
	}{
		"nothing said":          {api.ListTimeslotsParams{}, 168, "2026-12-01T10:00:00+09:00", "2026-12-08T09:00:00+09:00"},
		"the running hour":      {api.ListTimeslotsParams{From: at("2026-12-01T00:00:00Z"), To: at("2026-12-01T02:00:00Z")}, 2, "2026-12-01T09:00:00+09:00", "2026-12-01T10:00:00+09:00"},
		"from long ago":         {api.ListTimeslotsParams{From: at("2020-01-01T00:00:00Z"), To: at("2026-12-01T02:00:00Z")}, 2, "2026-12-01T09:00:00+09:00", "2026-12-01T10:00:00+09:00"},
		"400 days":              {api.ListTimeslotsParams{To: at("2028-01-05T00:30:00Z"), Limit: 1000}, 9600, "2026-12-01T10:00:00+09:00", "2028-01-05T09:00:00+09:00"},
		"a zone of half hours":  {api.ListTimeslotsParams{To: at("2026-12-01T03:00:00Z"), TimeZone: "Asia/Kolkata"}, 3, "2026-12-01T06:00:00+05:30", "2026-12-01T08:00:00+05:30"},
		"the clock put forward": {api.ListTimeslotsParams{From: at("2027-03-28T00:00:00+01:00"), To: at("2027-03-28T04:00:00+02:00"), TimeZone: "Europe/Berlin"}, 3, "2027-03-28T00:00:00+01:00", "2027-03-28T03:00:00+02:00"},
		"the clock put back":    {api.ListTimeslotsParams{From: at("2027-10-31T00:00:00+02:00"), To: at("2027-10-31T03:00:00+01:00"), TimeZone: "Europe/Berlin"}, 4, "2027-10-31T00:00:00+02:00", "2027-10-31T02:00:00+01:00"},
	} {
		got := r.timeslots(c.params)
		if len(got) != c.n {
			t.Errorf("%s: %d slots, want %d", name, len(got), c.n)
			continue
		}
		first, last := got[0].StartsAt.Format(time.RFC3339), got[c.n-1].StartsAt.Format(time.RFC3339)
		if first != c.first || last != c.last {
			t.Errorf("%s: %s to %s, want %s to %s", name, first, last, c.first, c.last)
		}
	}
	if got := r.timeslots(api.ListTimeslotsParams{From: at("2020-01-01T00:00:00Z")}); len(got) != 0 {
		t.Errorf("a week of 2020 has %d slots, want none: they are over", len(got))
	}
	for zone, want := range map[string]string{"": "Asia/Tokyo", "Pacific/Chatham": "Pacific/Chatham"} {
		a, err := r.client(auth.Viewer).ListTimeslotsWithResponse(context.Background(), &api.ListTimeslotsParams{VCenterID: r.vcenter.ID, TimeZone: zone, Limit: 1})
		r.must(api.Err(a, err))
		if a.JSON200.TimeZone != want || a.JSON200.VCenterID != r.vcenter.ID || a.JSON200.NextCursor == "" {
			t.Errorf("zone %q: the answer tells %q, vcenter %q, cursor %q", zone, a.JSON200.TimeZone, a.JSON200.VCenterID, a.JSON200.NextCursor)
		}
	}
}

// The end of the range is that of the first page, however late the others are
// asked for.
func TestTheRangeOfTimeslotsStaysWhileOnePagesThroughIt(t *testing.T) {
	r := newRig(t)
	c := r.client(auth.Viewer)
	first, err := c.ListTimeslotsWithResponse(context.Background(), &api.ListTimeslotsParams{VCenterID: r.vcenter.ID, Limit: 160})
	r.must(api.Err(first, err))
	r.clock.pass(3 * time.Hour)
	second, err := c.ListTimeslotsWithResponse(context.Background(), &api.ListTimeslotsParams{VCenterID: r.vcenter.ID, Limit: 160, Cursor: first.JSON200.NextCursor})
	r.must(api.Err(second, err))
	if n := len(second.JSON200.Items); n != 8 || second.JSON200.NextCursor != "" {
		t.Errorf("the second page has %d slots and cursor %q, want the 8 that were left", n, second.JSON200.NextCursor)
	}
}

func TestAWrongQuestionForTimeslotsIsToldWhatIsWrong(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		query  string
		status int
		code   api.ErrorCode
		field  string
		detail string // a part of it
	}{
		"no vcenter":                {"", 400, "invalid", "vcenter_id", "needed"},
		"an unknown vcenter":        {"vcenter_id=" + nobody, 422, "not_found", "vcenter_id", ""},
		"from that is no time":      {"vcenter_id=V&from=tomorrow", 400, "invalid", "from", "a time as in"},
		"to that is no time":        {"vcenter_id=V&to=2026-12-01", 400, "invalid", "to", `got "2026-12-01"`},
		"to before from":            {"vcenter_id=V&from=2026-12-05T00:00:00Z&to=2026-12-04T00:00:00Z", 400, "invalid", "to", "2026-12-04T00:00:00Z"},
		"to as from":                {"vcenter_id=V&from=2026-12-05T00:00:00Z&to=2026-12-05T00:00:00Z", 400, "invalid", "to", "after from"},
		"more than 400 days":        {"vcenter_id=V&to=2028-01-05T00:30:01Z", 400, "invalid", "to", "400 days ahead: to must not come after 2028-01-05T09:30:00+09:00"},
		"all the future":            {"vcenter_id=V&from=9990-01-01T00:00:00Z", 400, "invalid", "to", "400 days"},
		"a zone that is none":       {"vcenter_id=V&time_zone=Asia/Tokio", 400, "invalid", "time_zone", "Asia/Tokio"},
		"the server's own zone":     {"vcenter_id=V&time_zone=Local", 400, "invalid", "time_zone", "Asia/Tokyo"},
		"a zone outside its folder": {"vcenter_id=V&time_zone=../../etc/passwd", 400, "invalid", "time_zone", "passwd"},
		"who that is no switch":     {"vcenter_id=V&who=maybe", 400, "invalid", "who", `got "maybe"`},
		"a page of 1001":            {"vcenter_id=V&limit=1001", 400, "invalid", "limit", "at most 1000, got 1001"},
		"a page of nothing":         {"vcenter_id=V&limit=0", 400, "invalid", "limit", "at least 1, got 0"},
		"a cursor that is none":     {"vcenter_id=V&cursor=abc", 400, "invalid", "cursor", `got "abc"`},
		"half a cursor":             {"vcenter_id=V&cursor=2026-12-05T00:00:00Z/", 400, "invalid", "cursor", "next_cursor of the page before"},
		"a cursor turned round":     {"vcenter_id=V&cursor=2026-12-05T00:00:00Z/2026-12-04T00:00:00Z", 400, "invalid", "to", "after from"},
		"an unknown parameter":      {"vcenter_id=V&vcenter=tokyo", 400, "invalid", "vcenter", "vcenter_id"},
	} {
		query := strings.ReplaceAll(c.query, "=V", "="+url.QueryEscape(r.vcenter.ID))
		a := r.do(call{method: "GET", path: "/v1/timeslots?" + query, role: auth.Viewer})
		if p := a.problem; a.status != c.status || p.Code != c.code || p.Field != c.field || !strings.Contains(p.Detail, c.detail) {
			t.Errorf("%s: %d %s %q %q, want %d %s %q and %q", name, a.status, p.Code, p.Field, p.Detail, c.status, c.code, c.field, c.detail)
		}
	}
}
