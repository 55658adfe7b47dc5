package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

const vcenterB = "01JDZK3Q8X4T9V2M6B7N5C1RVD"

func aTimeslot(start time.Time, used, capacity int, more string) string {
	return fmt.Sprintf(`{"starts_at":%q,"capacity":%d,"used":%d,"free":%d,"recommended":%t,"over_booked":%t%s}`,
		start.Format(time.RFC3339), capacity, used, max(0, capacity-used), strings.Contains(more, "recommended"), used > capacity, strings.TrimPrefix(more, "recommended"))
}

// hoursOf are the hours of some days as the server tells them: used seats by
// the hour's number in the list.
func hoursOf(t *testing.T, zone, from, to string, used func(i int) (n int, more string)) []string {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.ParseInLocation(time.DateOnly, from, loc)
	if err != nil {
		t.Fatal(err)
	}
	end, err := time.ParseInLocation(time.DateOnly, to, loc)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for i := 0; at.Before(end); i, at = i+1, at.Add(time.Hour) {
		n, more := used(i)
		all = append(all, aTimeslot(at, n, 4, more))
	}
	return all
}

func timeslotPage(next string, items ...string) reply {
	body := `{"vcenter_id":"` + vcenterA + `","time_zone":"x","items":[` + strings.Join(items, ",") + `]`
	if next != "" {
		body += `,"next_cursor":"` + next + `"`
	}
	return ok(body + "}")
}

// The clock of New York is put forward in the night to 14 March. Two pages.
func TestTheHeatMapShowsTheFreeSeatsOfEachHourAndTheSkippedOne(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/vcenters", items(aVCenter("ready")))
	all := hoursOf(t, "America/New_York", "2027-03-13", "2027-03-15", func(i int) (int, string) {
		switch i {
		case 0, 24:
			return 0, "recommended"
		case 3:
			return 6, `,"schedules":[{"id":"` + scheduleA + `","name":"erp\u001b[2J","seats":5},{"id":"` + scheduleA + `","name":"web","seats":1}]`
		}
		return i % 5, ""
	})
	const asked = "from=2027-03-13T05%3A00%3A00Z&time_zone=America%2FNew_York&to=2027-03-15T04%3A00%3A00Z&vcenter_id=" + vcenterA
	f.on("GET /v1/timeslots?"+asked, timeslotPage("p2", all[:30]...))
	f.on("GET /v1/timeslots?cursor=p2&"+asked, timeslotPage("", all[30:]...))
	args := []string{"timeslots", "--from", "2027-03-13", "--days", "2", "--time-zone", "America/New_York"}
	const drawn = `tokyo, America/New_York: free seats of 4 in each hour.

2027-03 00 01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 20 21 22 23
Sat 13  *4  3  2!-2  0  4  3  2  1  0  4  3  2  1  0  4  3  2  1  0  4  3  2  1
Sun 14  *4  4  -  3  2  1  0  4  3  2  1  0  4  3  2  1  0  4  3  2  1  0  4  3

* recommended, the emptiest of its day   ! over-booked, by as many   . not listed   - skipped by the clock
Over-booked: 1 hour, the first Sat 2027-03-13 03:00 -05:00 with 6 seats of 4. Nothing is dropped: what is too much queues.
`
	f.kura(args...).want(t, 0, drawn, "")

	who := strings.Replace(asked, "vcenter_id="+vcenterA, "vcenter_id="+vcenterA+"&who=true", 1)
	f.on("GET /v1/timeslots?"+who, timeslotPage("", all...))
	f.kura(append(args, "--who")...).want(t, 0, drawn+`
SLOT                         SEATS   HELD BY
Sat 2027-03-13 03:00 -05:00  6 of 4  erp\x1b[2J (5), web (1)
`, "")

	r := f.kura(append(args, "-o", "json")...)
	var got struct{ Items []json.RawMessage }
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got.Items) != 47 {
		t.Errorf("as JSON: %d items (%v), want the 47 of both pages", len(got.Items), err)
	}
}

// The clock of Berlin is put back in the night to 25 October.
func TestTheHeatMapShowsAnHourThatOccursTwiceOnALineOfItsOwn(t *testing.T) {
	f := newFake(t)
	v := strings.Replace(aVCenter("ready"), "Asia/Tokyo", "Europe/Berlin", 1)
	f.on("GET /v1/vcenters?name=tokyo", items(v))
	all := hoursOf(t, "Europe/Berlin", "2027-10-31", "2027-11-02", func(i int) (int, string) {
		if i == 3 {
			return 1, "recommended"
		}
		return 2 * (i % 2), ""
	})
	f.on("GET /v1/timeslots?from=2027-10-30T22%3A00%3A00Z&to=2027-11-01T23%3A00%3A00Z&vcenter_id="+vcenterA, timeslotPage("", all[1:]...))
	f.kura("timeslots", "--vcenter", "tokyo", "--from", "2027-10-31T12:00:00+01:00", "--days", "2").want(t, 0, `tokyo, Europe/Berlin: free seats of 4 in each hour.

2027-10 00 01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 20 21 22 23
Sun 31   .  2  4  4  2  4  2  4  2  4  2  4  2  4  2  4  2  4  2  4  2  4  2  4
 again        *3

2027-11 00 01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 20 21 22 23
Mon 01   2  4  2  4  2  4  2  4  2  4  2  4  2  4  2  4  2  4  2  4  2  4  2  4

* recommended, the emptiest of its day   ! over-booked, by as many   . not listed
`, "")
}

func TestTheHeatMapIsColouredByLoad(t *testing.T) {
	day := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	var slots []api.Timeslot
	for h, used := range []int{0, 5, 9, 10, 12} {
		slots = append(slots, api.Timeslot{StartsAt: day.Add(time.Duration(h) * time.Hour), Capacity: 10, Used: used, OverBooked: used > 10, Recommended: h == 0})
	}
	lines := strings.Split(newHeatMap(slots, true).draw(), "\n")
	const want = "Tue 01 " +
		"\x1b[1;4;38;5;16;48;5;40m*10\x1b[0m" + "\x1b[38;5;16;48;5;184m  5\x1b[0m" + "\x1b[38;5;16;48;5;202m  1\x1b[0m" +
		"\x1b[38;5;16;48;5;196m  0\x1b[0m" + "\x1b[1;38;5;231;48;5;53m!-2\x1b[0m"
	if !strings.HasPrefix(lines[2], want+"\x1b[2m  .\x1b[0m") {
		t.Errorf("line is %q, want it to begin with %q", lines[2], want)
	}
	if width := columns(lines[1]); width > 80 {
		t.Errorf("the head takes %d columns, want 80 at most", width)
	}
	bare := newHeatMap(slots, false).draw()
	if strings.Contains(bare, "\x1b") || !strings.Contains(bare, "Tue 01 *10  5  1  0!-2  .") {
		t.Errorf("without colours it is\n%s", bare)
	}
}

func TestColoursAreForTerminalsWhoseUserWantsThem(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want bool
	}{
		"nothing said":     {nil, true},
		"a terminal":       {map[string]string{"TERM": "xterm-256color"}, true},
		"a dumb terminal":  {map[string]string{"TERM": "dumb"}, false},
		"NO_COLOR":         {map[string]string{"NO_COLOR": "1"}, false},
		"NO_COLOR, unsaid": {map[string]string{"NO_COLOR": ""}, true},
	} {
		getenv := func(name string) string { return c.env[name] }
		if got := colourAllowed(getenv); got != c.want {
			t.Errorf("%s: colours %t, want %t", name, got, c.want)
		}
		if wantsColour(new(bytes.Buffer), getenv) {
			t.Errorf("%s: colours for a pipe", name)
		}
	}
}

func TestTheHeatMapIsOfOneVCenterAndOfDaysThatAreCounted(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/vcenters", items())
	f.kura("timeslots").want(t, 1, "", "kura: There is no vcenter yet.\nkura vcenter create adds one.\n")
	other := strings.NewReplacer(vcenterA, vcenterB, "tokyo", "osaka").Replace(aVCenter("ready"))
	f.on("GET /v1/vcenters", items(aVCenter("ready"), other))
	f.kura("timeslots").want(t, 2, "", "kura: There are 2 vcenters: choose one with --vcenter. Known are tokyo, osaka.\n")
	f.on("GET /v1/vcenters", items(aVCenter("ready")))
	for name, args := range map[string][]string{
		"no day":            {"--days", "0"},
		"too many days":     {"--days", "401"},
		"no date":           {"--from", "tomorrow"},
		"a zone that is no": {"--time-zone", "Asia/Atlantis"},
		"this computer's":   {"--time-zone", "Local"},
		"as a calendar":     {"-o", "ics"},
	} {
		if r := f.kura(append([]string{"timeslots"}, args...)...); r.status != 2 || !strings.Contains(r.errout, args[0]) {
			t.Errorf("%s: status %d, stderr %q, want 2 and the flag", name, r.status, r.errout)
		}
	}
	// At noon UTC of 1 December it is 21:00 in Tokyo: the map begins with that day.
	const asked = "GET /v1/timeslots?from=2026-11-30T15%3A00%3A00Z&to=2026-12-07T15%3A00%3A00Z&vcenter_id=" + vcenterA
	f.on(asked, timeslotPage(""))
	f.kura("timeslots").want(t, 0, "", "No timeslots: hours that are over are not listed.\n")
	f.on(asked, reply{status: http.StatusBadRequest, body: problem(400, "invalid", "Invalid request", "to must not come after 2028.").body})
	if r := f.kura("timeslots"); r.status != 1 || !strings.Contains(r.errout, "to must not come after 2028.") {
		t.Errorf("status %d, stderr %s, want the server's refusal", r.status, r.errout)
	}
}

func TestTheCalendarOfAScheduleIsPrintedAsItIs(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-schedules?name=nightly", items(aSchedule("nightly")))
	const calendar = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nEND:VCALENDAR\r\n"
	f.on("GET /v1/backup-schedules/"+scheduleA+"/occurrences.ics", ok(calendar))
	f.kura("schedule", "occurrences", "nightly", "-o", "ics").want(t, 0, calendar, "")
	f.on("GET /v1/backup-schedules/"+scheduleA+"/occurrences.ics?count=3&from=2026-12-01T00%3A00%3A00Z", ok(calendar))
	f.kura("schedule", "occurrences", "nightly", "--count", "3", "--from", "2026-12-01", "-o", "ics").want(t, 0, calendar, "")
	for _, args := range [][]string{{"schedule", "list"}, {"schedule", "show", "nightly"}, {"vm", "list"}} {
		if r := f.kura(append(args, "-o", "ics")...); r.status != 2 || !strings.Contains(r.errout, "kura schedule occurrences") {
			t.Errorf("%v: status %d, stderr %q, want 2 and where a calendar is", args, r.status, r.errout)
		}
	}
	for _, count := range []string{"0", "1001"} {
		if r := f.kura("schedule", "occurrences", "nightly", "--count", count); r.status != 2 {
			t.Errorf("--count %s: status %d, want 2", count, r.status)
		}
	}
}

func TestWhatTheClockDoesStandsBesideTheSlot(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-schedules?name=nightly", items(aSchedule("nightly")))
	f.on("GET /v1/backup-schedules/"+scheduleA+"/occurrences", items(`{"starts_at":"2027-03-13T02:00:00-05:00"}`,
		`{"starts_at":"2027-03-14T03:00:00-04:00","clock":"gap","note":"2027-03-14 02:00 does not exist."}`))
	f.kura("schedule", "occurrences", "nightly").want(t, 0, `STARTS AT                LOCAL TIME                   LOCAL SLOT  NOTE
2027-03-13 07:00:00 UTC  Sat 2027-03-13 02:00 -05:00  02-03       -
2027-03-14 07:00:00 UTC  Sun 2027-03-14 03:00 -04:00  03-04       2027-03-14 02:00 does not exist.
`, "")
}

func TestAScheduleTellsWhatHasNoSeatAndHowLongItsBackupsTook(t *testing.T) {
	f := newFake(t)
	with := func(more string) {
		f.on("GET /v1/backup-schedules?name=nightly", items(aSchedule("nightly")))
		f.on("GET /v1/backup-schedules/"+scheduleA, ok(strings.TrimSuffix(aSchedule("nightly"), "}")+more+"}"))
	}
	with(`,"duration_hours":1,"unbooked_seats":2,"measured":{"backups":12,"median_seconds":3000,"longest_seconds":5400,"suggested_duration_hours":2}`)
	r := f.kura("schedule", "show", "nightly")
	for _, want := range []string{
		"unbooked seats:       2 VMs of its group found no room in the hour and wait until it has some",
		"measured:             12 backups, median 50m0s, longest 1h30m0s; duration_hours = 2 would fit them",
	} {
		if !strings.Contains(r.out, want+"\n") {
			t.Errorf("stdout is\n%s\nwant the line %q", r.out, want)
		}
	}
	with(`,"duration_hours":1,"measured":{"backups":1,"median_seconds":60,"longest_seconds":60,"suggested_duration_hours":1}`)
	if r := f.kura("schedule", "show", "nightly"); !strings.Contains(r.out, "1 backup, median 1m0s, longest 1m0s\n") || strings.Contains(r.out, "unbooked") {
		t.Errorf("stdout is\n%s\nwant no suggestion where the booking fits", r.out)
	}
}
