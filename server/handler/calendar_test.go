package handler_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	ics "github.com/arran4/golang-ical"
	"github.com/google/go-cmp/cmp"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// event is what a reader of a calendar makes of one.
type event struct {
	uid, start, end, stamp, sequence, summary, description string
}

// calendar fetches the calendar of a schedule and reads it as others do.
func (r *rig) calendar(id, query string) (events []event, text string) {
	r.t.Helper()
	a := r.do(call{method: "GET", path: "/v1/backup-schedules/" + id + "/occurrences.ics" + query, role: auth.Viewer})
	if a.status != 200 || a.header.Get("Content-Type") != "text/calendar" {
		r.t.Fatalf("status %d, %s, want a calendar: %s", a.status, a.header.Get("Content-Type"), a.body)
	}
	c, err := ics.ParseCalendar(bytes.NewReader(a.body))
	r.must(err)
	for _, e := range c.Events() {
		get := func(p ics.ComponentProperty) string {
			if found := e.GetProperty(p); found != nil {
				return found.Value
			}
			return ""
		}
		events = append(events, event{get(ics.ComponentPropertyUniqueId), get(ics.ComponentPropertyDtStart), get(ics.ComponentPropertyDtEnd),
			get(ics.ComponentPropertyDtstamp), get(ics.ComponentPropertySequence), get(ics.ComponentPropertySummary), get(ics.ComponentPropertyDescription)})
	}
	return events, string(a.body)
}

// The clock of New York is put forward in the night to 14 March 2027.
func TestACalendarHoldsTheComingSlotsInUTC(t *testing.T) {
	r := newRig(t)
	s := nightly("ny", r.vms[0].ID)
	s.TimeZone, s.WindowHours, s.DurationHours = "America/New_York", 3, 2
	s.ExtendedRetention = []api.ExtendedRetention{{LastDay: true, RetentionDays: 62}}
	made := r.schedule(s)
	events, text := r.calendar(made.ID, "?count=3&from=2027-03-13T00:00:00Z")
	const describe = "Every day, 02:00-03:00 America/New_York.\n"
	const rest = "The backups start within 3 hours; each VM holds a seat for 2 hours.\nIts images are kept for 8 days, those of some days for up to 62 days."
	want := []event{
		{made.ID + "-20270313T070000Z@kura", "20270313T070000Z", "20270313T110000Z", "20261201T003000Z", "1", "ny: backup of VM vm01", describe + rest},
		{made.ID + "-20270314T070000Z@kura", "20270314T070000Z", "20270314T110000Z", "20261201T003000Z", "1", "ny: backup of VM vm01",
			describe + "2027-03-14 02:00 does not exist in this time zone, since the clock is put forward: it runs at 03:00 -04:00.\n" + rest},
		{made.ID + "-20270315T060000Z@kura", "20270315T060000Z", "20270315T100000Z", "20261201T003000Z", "1", "ny: backup of VM vm01", describe + rest},
	}
	if diff := cmp.Diff(want, events, cmp.AllowUnexported(event{})); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for _, line := range []string{"BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Kura//Kura//EN", "X-WR-CALNAME:ny", "TRANSP:TRANSPARENT"} {
		if !strings.Contains(text, line+"\r\n") {
			t.Errorf("the calendar lacks the line %s", line)
		}
	}

	// A change keeps the UIDs of the slots that stay, and counts on.
	made.Description = "changed"
	r.clock.pass(time.Hour)
	into[api.BackupSchedule](r, r.do(call{method: "PUT", path: "/v1/backup-schedules/" + made.ID, role: auth.Backup, body: made}), 200)
	again, _ := r.calendar(made.ID, "?count=1&from=2027-03-13T00:00:00Z")
	want[0].sequence, want[0].stamp, want[0].description = "2", "20261201T013000Z", describe+rest+"\nchanged"
	if diff := cmp.Diff(want[:1], again, cmp.AllowUnexported(event{})); diff != "" {
		t.Errorf("after a change (-want +got):\n%s", diff)
	}
}

// Names of vSphere may hold anything. What a reader gets back is what was
// written, and no line is longer than RFC 5545 allows.
func TestACalendarIsEscapedAndFolded(t *testing.T) {
	r := newRig(t)
	vm := r.vms[0]
	vm.Name = `a,b;c\nd\\,"e": <x> ` + strings.Repeat("蔵", 40) + "\r\nEND:VCALENDAR\tx"
	r.must(r.db.Update(context.Background(), func(tx backup.Tx) error {
		return tx.SaveMachines(context.Background(), []backup.VirtualMachine{vm})
	}))
	s := nightly(`n;i,g\ht:ly `+strings.Repeat("long words ", 8)+"end", vm.ID)
	s.Description = "first line\nsecond, of;two\\" + strings.Repeat("🚚", 50)
	made := r.schedule(s)
	events, text := r.calendar(made.ID, "?count=2")
	if len(events) != 2 {
		t.Fatalf("%d events, want 2: the name breaks the calendar\n%s", len(events), text)
	}
	if want := s.Name + ": backup of VM " + strings.NewReplacer("\r", " ", "\n", " ", "\t", " ").Replace(vm.Name); events[0].summary != want {
		t.Errorf("summary = %q, want %q", events[0].summary, want)
	}
	if want := strings.ReplaceAll(s.Description, "\n", " "); !strings.HasSuffix(events[0].description, "\n"+want) {
		t.Errorf("description = %q, want it to end with %q", events[0].description, want)
	}
	lines := strings.Split(text, "\r\n")
	for _, line := range lines {
		if len(line) > 75 || strings.ContainsAny(line, "\r\n") {
			t.Errorf("line %q has %d bytes, want at most 75 and no bare line end", line, len(line))
		}
	}
	if len(lines) < 30 || lines[len(lines)-1] != "" || lines[len(lines)-2] != "END:VCALENDAR" {
		t.Errorf("%d lines that end with %q", len(lines), lines[len(lines)-1])
	}
}

func TestACalendarReachesAsFarAsSeatsAreCounted(t *testing.T) {
	r := newRig(t)
	daily := r.schedule(nightly("daily", r.vms[0].ID))
	monthly := nightly("monthly", r.vms[1].ID)
	monthly.Daily, monthly.Monthly, monthly.RetentionDays = nil, &api.Monthly{LastDay: true}, 31
	monthly = r.schedule(monthly)
	once := nightly("once", r.vms[2].ID)
	once.Daily, once.OneTime, once.RetentionDays = nil, &api.OneTime{Date: "2027-05-01"}, 31
	once = r.schedule(once)
	off := nightly("off", r.vms[3].ID)
	off.Enabled = new(false)
	off = r.schedule(off)
	for name, c := range map[string]struct {
		id, query string
		want      int
	}{
		"a year":                   {daily.ID, "", 366},
		"all that is counted":      {daily.ID, "?count=1000", 400},
		"few":                      {daily.ID, "?count=3", 3},
		"a schedule of months":     {monthly.ID, "", 13},
		"one that runs once":       {once.ID, "", 1},
		"one that has run":         {once.ID, "?from=2027-05-02T00:00:00Z", 0},
		"one that is switched off": {off.ID, "", 0},
	} {
		events, text := r.calendar(c.id, c.query)
		uids := map[string]bool{}
		for _, e := range events {
			uids[e.uid] = true
		}
		if len(events) != c.want || len(uids) != c.want || !strings.HasSuffix(text, "END:VCALENDAR\r\n") {
			t.Errorf("%s: %d events of %d UIDs, want %d", name, len(events), len(uids), c.want)
		}
	}
	for query, field := range map[string]string{"?count=0": "count", "?count=1001": "count", "?from=now": "from", "?to=x": "to"} {
		a := r.do(call{method: "GET", path: "/v1/backup-schedules/" + daily.ID + "/occurrences.ics" + query, role: auth.Viewer})
		if a.status != 400 || a.problem.Code != api.ErrorCodeInvalid || a.problem.Field != field {
			t.Errorf("%s: %d %s %q, want 400 invalid %s", query, a.status, a.problem.Code, a.problem.Field, field)
		}
	}
	if a := r.do(call{method: "GET", path: "/v1/backup-schedules/" + nobody + "/occurrences.ics", role: auth.Viewer}); a.status != 404 || a.problem.Code != api.ErrorCodeNotFound {
		t.Errorf("of a schedule that is not there: %d %s, want 404", a.status, a.problem.Code)
	}
}

// seed:N30
func TestOccurrencesTellWhatTheClockDoes(t *testing.T) {
	r := newRig(t)
	for zone, c := range map[string]struct {
		start, from string
		want        []string
	}{
		"America/New_York": {"02:00", "2027-03-13T12:00:00Z", []string{
			"2027-03-14T03:00:00-04:00 gap 2027-03-14 02:00 does not exist in this time zone, since the clock is put forward: it runs at 03:00 -04:00.",
			"2027-03-15T02:00:00-04:00  "}},
		"Europe/Berlin": {"02:00", "2027-10-30T12:00:00Z", []string{
			"2027-10-31T02:00:00+02:00 twice 2027-10-31 02:00 occurs twice, since the clock is put back: it runs in the first, at 02:00 +02:00.",
			"2027-11-01T02:00:00+01:00  "}},
		"Australia/Lord_Howe": {"02:00", "2027-10-02T12:00:00Z", []string{
			"2027-10-03T02:30:00+11:00 gap 2027-10-03 02:00 does not exist in this time zone, since the clock is put forward: it runs at 02:30 +11:00.",
			"2027-10-04T02:00:00+11:00  "}},
	} {
		s := nightly(zone, r.vms[0].ID)
		s.StartTime, s.TimeZone = c.start, zone
		made := r.schedule(s)
		list := into[api.OccurrenceList](r, r.do(call{method: "GET", path: "/v1/backup-schedules/" + made.ID + "/occurrences?count=2&from=" + c.from, role: auth.Viewer}), 200)
		var got []string
		for _, o := range list.Items {
			got = append(got, fmt.Sprintf("%s %s %s", o.StartsAt.Format(time.RFC3339), o.Clock, o.Note))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", zone, diff)
		}
	}
}
