package handler_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	ics "github.com/arran4/golang-ical"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
)

// fuzzed sends schedules of any kind and holds the answers to what must be true
// of all of them.
type fuzzed struct {
	*rig
	group string
	names *strings.Replacer // stands for the ids, which differ from run to run
}

func newFuzzed(f *testing.F) fuzzed {
	r := newRig(f)
	g := into[api.BackupGroup](r, r.do(call{method: "POST", path: "/v1/backup-groups", role: auth.Operator, body: api.BackupGroup{Name: "g", VirtualMachineIDs: []string{r.vms[3].ID, r.vms[4].ID}}}), 201)
	// Two seats of three are taken by day and one by night, so that what is
	// refused as full is within reach.
	there, early := nightly("there", r.vms[2].ID), nightly("early", r.vms[2].ID)
	there.DurationHours, early.DurationHours = 24, 10
	r.schedule(there)
	r.schedule(early)
	return fuzzed{r, g.ID, strings.NewReplacer("GROUP", g.ID, "VM2", r.vms[1].ID, "VM", r.vms[0].ID)}
}

// Whatever is sent as a schedule gets an answer that is no failure of the
// server's, and what is accepted is kept as it was sent.
func FuzzAScheduleOfAnyFormIsAnswered(f *testing.F) {
	z := newFuzzed(f)
	f.Fuzz(func(t *testing.T, body, other, change string) {
		z.t = t
		z.log.reset()
		z.live(z.names.Replace(body), z.names.Replace(other), z.names.Replace(change))
	})
}

// The same of schedules that are well formed, so that more of them get far.
func FuzzAScheduleOfAnyContentIsKept(f *testing.F) {
	z := newFuzzed(f)
	f.Fuzz(func(t *testing.T, choices []byte) {
		z.t = t
		z.log.reset()
		d := dice(choices)
		z.live(z.names.Replace(d.schedule()), z.names.Replace(d.schedule()), z.names.Replace(d.schedule()))
	})
}

const scheduleList = "/v1/backup-schedules"

// live is the life of a schedule: checked, made, read, changed and deleted.
func (z fuzzed) live(body, other, change string) {
	alone := z.send("POST", scheduleList+":check", `{"schedule":`+body+`}`)
	z.send("POST", scheduleList+":check", `{"schedule":`+body+`,"others":[{"schedule":`+other+`},{"schedule":`+change+`},{"id":"`+nobody+`"}]}`)
	before := z.used()
	a := z.send("POST", scheduleList, body)
	if isObject(body) && (alone.problem.Code != a.problem.Code || (alone.status == 200) != (a.status == 201)) {
		z.t.Errorf("check of %s: %d %s, create: %d %s; want the same", body, alone.status, alone.body, a.status, a.body)
	}
	if a.status == 201 {
		made := into[api.BackupSchedule](z.rig, a, 201)
		z.kept(body, made)
		if alone.status == 200 {
			z.foretold(alone, made)
		}
		z.calendarOf(made)
		z.changed(made, other, change)
		z.remove(made.ID)
	}
	if diff := cmp.Diff(before, z.used()); diff != "" {
		z.t.Errorf("seats differ after %s is gone:\n%s", body, diff)
	}
}

// send makes a call whose answer is good or a problem that can be acted on.
func (z fuzzed) send(method, path, body string) answer {
	z.t.Helper()
	a := z.do(call{method: method, path: path, role: auth.Operator, body: body})
	switch p := a.problem; {
	case a.status >= 500:
		z.t.Errorf("%s %s of %q: %d: %s\n%s", method, path, body, a.status, a.body, z.log)
	case a.status < 400:
	case p.Code == "" || p.Title == "" || p.Status != a.status || p.RequestID == "" || !strings.HasSuffix(p.Detail, "."):
		z.t.Errorf("%s %s of %q: %d: %s; want a problem with a code and a sentence", method, path, body, a.status, a.body)
	case p.Field == "" && isObject(body):
		z.t.Errorf("%s %s of %q: %d: %s; want the field at fault", method, path, body, a.status, a.body)
	}
	return a
}

func isObject(body string) bool {
	var m map[string]any
	return utf8.ValidString(body) && json.Unmarshal([]byte(body), &m) == nil && m != nil
}

func (z fuzzed) read(id string) api.BackupSchedule {
	return into[api.BackupSchedule](z.rig, z.do(call{method: "GET", path: scheduleList + "/" + id, role: auth.Viewer}), 200)
}

// used are the seats of the coming week.
func (z fuzzed) used() (seats []int) {
	list := into[api.TimeslotList](z.rig, z.do(call{method: "GET", path: "/v1/timeslots?vcenter_id=" + z.vcenter.ID, role: auth.Viewer}), 200)
	for _, s := range list.Items {
		seats = append(seats, s.Used)
		if s.Used > s.Capacity || s.Free != s.Capacity-s.Used {
			z.t.Errorf("slot %+v holds more than its capacity", s)
		}
	}
	return seats
}

// kept sees that a schedule is stored as it was sent, with the defaults for
// what was not.
func (z fuzzed) kept(body string, made api.BackupSchedule) {
	var sent api.BackupSchedule
	z.must(json.Unmarshal([]byte(body), &sent))
	read := z.read(made.ID)
	if diff := cmp.Diff(made, read); diff != "" {
		z.t.Errorf("GET of %s differs from what POST answered:\n%s", body, diff)
	}
	if diff := cmp.Diff(completed(sent, read), read, onlyServer, cmpopts.EquateEmpty()); diff != "" {
		z.t.Errorf("%s is kept otherwise (-sent +read):\n%s", body, diff)
	}
}

// completed is what was sent with the defaults of what was not. What the
// server may choose is taken from what was read.
func completed(s, read api.BackupSchedule) api.BackupSchedule {
	or := func(v *string, other string) {
		if *v == "" {
			*v = other
		}
	}
	if s.Enabled == nil {
		s.Enabled = new(true)
	}
	or(&s.StartTime, read.StartTime)
	or(&s.TimeZone, "Asia/Tokyo")
	or((*string)(&s.Consistency), "crash")
	or((*string)(&s.UnprotectableDisks), "fail")
	s.Repository = "default"
	s.WindowHours, s.DurationHours = max(1, s.WindowHours), max(1, s.DurationHours)
	if s.MaxDelayHours == nil {
		s.MaxDelayHours = new(6)
	}
	if w := s.StartWindow; w != nil {
		or(&w.Earliest, "00:00")
		or(&w.Latest, "23:00")
		if w.Earliest == "00:00" && w.Latest == "23:00" {
			s.StartWindow = nil
		}
	}
	if s.Weekly != nil {
		sortDays(s.Weekly.DaysOfWeek)
	}
	if m := s.Monthly; m != nil {
		slices.Sort(m.DaysOfMonth)
		if len(m.DaysOfMonth) > 0 {
			or((*string)(&m.ShortMonths), "skip")
		}
	}
	if d := s.Disks; d != nil && len(d.IncludeLabels)+len(d.ExcludeLabels) == 0 {
		s.Disks = nil
	}
	return s
}

func sortDays(days []api.DayOfWeek) {
	week := []api.DayOfWeek{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}
	slices.SortFunc(days, func(a, b api.DayOfWeek) int { return slices.Index(week, a) - slices.Index(week, b) })
}

// foretold sees that the check said what was made then.
func (z fuzzed) foretold(check answer, made api.BackupSchedule) {
	said := into[api.BackupScheduleCheckResult](z.rig, check, 200)
	if diff := cmp.Diff(said.Schedule, made, cmpopts.IgnoreFields(api.BackupSchedule{}, "Warnings", "ID", "CreatedAt", "UpdatedAt")); diff != "" {
		z.t.Errorf("the check said something else (-said +made):\n%s", diff)
	}
}

// calendarOf sees that the coming slots and the calendar are the same.
func (z fuzzed) calendarOf(s api.BackupSchedule) {
	const most = "?count=20"
	list := into[api.OccurrenceList](z.rig, z.do(call{method: "GET", path: scheduleList + "/" + s.ID + "/occurrences" + most, role: auth.Viewer}), 200)
	a := z.do(call{method: "GET", path: scheduleList + "/" + s.ID + "/occurrences.ics" + most, role: auth.Viewer})
	c, err := ics.ParseCalendar(bytes.NewReader(a.body))
	if a.status != 200 || err != nil {
		z.t.Fatalf("calendar of %+v: %d, %v: %s", s, a.status, err, a.body)
	}
	var want, got []string
	for _, o := range list.Items {
		if *s.Enabled && !o.StartsAt.After(z.clock.Now().AddDate(0, 0, 400)) {
			want = append(want, o.StartsAt.UTC().Format("20060102T150405Z"))
		}
	}
	for _, e := range c.Events() {
		got = append(got, e.GetProperty(ics.ComponentPropertyDtStart).Value)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		z.t.Errorf("calendar of %+v (-listed +in it):\n%s", s, diff)
	}
}

// changed sends what was read, which changes nothing, and then other bodies: a
// refusal leaves everything as it was.
func (z fuzzed) changed(now api.BackupSchedule, bodies ...string) {
	path := scheduleList + "/" + now.ID
	same, err := json.Marshal(now)
	z.must(err)
	for _, body := range append([]string{string(same)}, bodies...) {
		check := z.send("POST", scheduleList+":check", `{"id":"`+now.ID+`","schedule":`+body+`}`)
		a := z.send("PUT", path, body)
		if isObject(body) && check.problem.Code != a.problem.Code {
			z.t.Errorf("check of the change to %s: %d %s, PUT: %d %s; want the same", body, check.status, check.body, a.status, a.body)
		}
		read := z.read(now.ID)
		want := now
		if a.status == 200 {
			want = into[api.BackupSchedule](z.rig, a, 200)
		}
		if diff := cmp.Diff(want, read); diff != "" {
			z.t.Errorf("after PUT of %s, answered %d (-want +read):\n%s", body, a.status, diff)
		}
		if body == string(same) && (a.status != 200 || !cmp.Equal(now, read, cmpopts.IgnoreFields(api.BackupSchedule{}, "Warnings", "UpdatedAt"))) {
			z.t.Errorf("PUT of what was read: %d: %s\n%s", a.status, a.body, cmp.Diff(now, read))
		}
		now = read
	}
}

// remove deletes a schedule, protected or not.
func (z fuzzed) remove(id string) {
	s := z.read(id)
	if s.DeletionProtection {
		if a := z.do(call{method: "DELETE", path: scheduleList + "/" + id, role: auth.Operator}); a.problem.Code != api.ErrorCodeInUse {
			z.t.Errorf("DELETE of a protected schedule: %d: %s", a.status, a.body)
		}
		s.DeletionProtection = false
		text, err := json.Marshal(s)
		z.must(err)
		if a := z.send("PUT", scheduleList+"/"+id, string(text)); a.status != 200 {
			z.t.Errorf("PUT of no protection: %d: %s", a.status, a.body)
		}
	}
	if a := z.do(call{method: "DELETE", path: scheduleList + "/" + id, role: auth.Operator}); a.status != 204 {
		z.t.Fatalf("DELETE: %d: %s", a.status, a.body)
	}
}
