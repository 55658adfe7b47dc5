package handler_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
)

// onlyServer are the fields that the server writes.
var onlyServer = cmpopts.IgnoreFields(api.BackupSchedule{}, "ID", "Warnings", "Seats", "UnbookedSeats", "Measured", "Summary", "NextRunAt", "CreatedAt", "UpdatedAt")

func (r *rig) schedule(s api.BackupSchedule) api.BackupSchedule {
	r.t.Helper()
	return into[api.BackupSchedule](r, r.do(call{method: "POST", path: "/v1/backup-schedules", role: auth.Backup, body: s}), 201)
}

// nightly is a schedule of the VM with everything said.
func nightly(name, vm string) api.BackupSchedule {
	return api.BackupSchedule{
		Name: name, Enabled: new(true), VirtualMachineID: vm, StartTime: "02:00", TimeZone: "Asia/Tokyo", Daily: &api.Daily{},
		WindowHours: 1, DurationHours: 1, MaxDelayHours: new(6), RetentionDays: 8,
		Consistency: api.ConsistencyCrash, UnprotectableDisks: api.UnprotectableDisksFail, Repository: "default",
	}
}

// What was written is read back in the same words, for each type and each
// option. seed:N22 seed:N24 seed:A12
func TestAScheduleIsReadAsItWasWritten(t *testing.T) {
	r := newRig(t)
	with := func(change func(*api.BackupSchedule)) api.BackupSchedule {
		s := nightly("", r.vms[0].ID)
		s.Daily = nil
		change(&s)
		return s
	}
	for name, s := range map[string]api.BackupSchedule{
		"one time":            with(func(s *api.BackupSchedule) { s.OneTime, s.RetentionDays = &api.OneTime{Date: "2027-02-28"}, 366 }),
		"daily at once":       with(func(s *api.BackupSchedule) { s.Daily = &api.Daily{} }),
		"daily from a day on": with(func(s *api.BackupSchedule) { s.Daily = &api.Daily{StartDate: "2027-01-01"} }),
		"weekly": with(func(s *api.BackupSchedule) {
			s.Weekly, s.RetentionDays = &api.Weekly{DaysOfWeek: []api.DayOfWeek{"sunday", "wednesday", "saturday"}}, 14
		}),
		"days of the month": with(func(s *api.BackupSchedule) {
			s.Monthly, s.RetentionDays = &api.Monthly{DaysOfMonth: []int{1, 15, 31}, ShortMonths: api.ShortMonthsSkip}, 62
		}),
		"days of the month, short months": with(func(s *api.BackupSchedule) {
			s.Monthly, s.RetentionDays = &api.Monthly{DaysOfMonth: []int{31}, ShortMonths: api.ShortMonthsLastDay}, 31
		}),
		"last day": with(func(s *api.BackupSchedule) { s.Monthly, s.RetentionDays = &api.Monthly{LastDay: true}, 31 }),
		"fifth Wednesday": with(func(s *api.BackupSchedule) {
			s.Monthly, s.RetentionDays = &api.Monthly{WeekDayOfMonth: &api.WeekDayOfMonth{WeekOfMonth: "fifth", DayOfWeek: "wednesday"}}, 31
		}),
		"last Sunday": with(func(s *api.BackupSchedule) {
			s.Monthly, s.RetentionDays = &api.Monthly{WeekDayOfMonth: &api.WeekDayOfMonth{WeekOfMonth: "last", DayOfWeek: "sunday"}}, 31
		}),
		"never late and everything else": with(func(s *api.BackupSchedule) {
			s.Daily, s.MaxDelayHours, s.Enabled = &api.Daily{}, new(0), new(false)
			s.Description, s.WindowHours, s.DurationHours, s.RetentionDays = "蔵", 3, 2, 7
			s.ExtendedRetention = []api.ExtendedRetention{
				{DaysOfWeek: []api.DayOfWeek{"sunday"}, RetentionDays: 56}, {LastDay: true, RetentionDays: 248}, {DaysOfMonth: []int{1}, RetentionDays: 100},
				{WeekDayOfMonth: &api.WeekDayOfMonth{WeekOfMonth: "first", DayOfWeek: "monday"}, RetentionDays: 90},
			}
			s.ApplyRetentionToExistingImages, s.Lock, s.DeletionProtection = true, true, true
			s.Consistency, s.UnprotectableDisks = api.ConsistencyAppRequired, api.UnprotectableDisksSkip
			s.Disks = &api.DiskChoice{ExcludeLabels: []string{"Hard disk 2"}}
			s.Labels = map[string]string{"tier": "gold", "": "", "日本": "語"}
			s.StartWindow = &api.StartWindow{Earliest: "01:00", Latest: "05:00"}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			s.Name = name
			made := r.schedule(s)
			read := into[api.BackupSchedule](r, r.do(call{method: "GET", path: "/v1/backup-schedules/" + made.ID, role: auth.Viewer}), 200)
			if diff := cmp.Diff(s, read, onlyServer, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("read differs from written (-written +read):\n%s", diff)
			}
			if diff := cmp.Diff(made, read); diff != "" {
				t.Errorf("GET differs from POST's answer:\n%s", diff)
			}
			if read.Summary == "" || read.CreatedAt.IsZero() || *s.Enabled == read.NextRunAt.IsZero() {
				t.Errorf("summary %q, created %s, next run %s: want what the server knows", read.Summary, read.CreatedAt, read.NextRunAt)
			}
			// What was read may be sent back as it is.
			if a := r.do(call{method: "PUT", path: "/v1/backup-schedules/" + made.ID, role: auth.Backup, body: read}); a.status != 200 {
				t.Errorf("PUT of what was read: %d: %s", a.status, a.body)
			}
			want := 204
			if s.DeletionProtection {
				want = 409
			}
			if a := r.do(call{method: "DELETE", path: "/v1/backup-schedules/" + made.ID, role: auth.Operator}); a.status != want {
				t.Errorf("DELETE: %d, want %d: %s", a.status, want, a.body)
			}
		})
	}
}

func TestWhatIsLeftOutOfAScheduleHasItsDefault(t *testing.T) {
	r := newRig(t)
	made := r.schedule(api.BackupSchedule{Name: "short", VirtualMachineID: r.vms[0].ID, Daily: &api.Daily{}, RetentionDays: 1})
	want := nightly("short", r.vms[0].ID)
	want.StartTime, want.RetentionDays = "00:00", 1 // the least loaded hour, ties to the earlier
	if diff := cmp.Diff(want, made, onlyServer); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	if _, offset := made.NextRunAt.Zone(); offset != 9*3600 {
		t.Errorf("next_run_at = %s, want it in the schedule's time zone", made.NextRunAt)
	}
}

func TestAChangeKnowsWhetherAnyoneElseMadeOne(t *testing.T) {
	r := newRig(t)
	a := r.do(call{method: "POST", path: "/v1/backup-schedules", role: auth.Backup, body: nightly("s", r.vms[0].ID)})
	made := into[api.BackupSchedule](r, a, 201)
	first := a.header.Get("ETag")
	if first != `"1"` || a.header.Get("Location") != "/v1/backup-schedules/"+made.ID {
		t.Fatalf("ETag %s, Location %s, want \"1\" and its path", first, a.header.Get("Location"))
	}
	put := func(etag string) answer {
		c := call{method: "PUT", path: "/v1/backup-schedules/" + made.ID, role: auth.Backup, body: made, header: map[string]string{}}
		if etag != "" {
			c.header["If-Match"] = etag
		}
		return r.do(c)
	}
	b := put(first)
	if b.status != 200 || b.header.Get("ETag") != `"2"` {
		t.Fatalf("with the present ETag: %d %s, want 200 \"2\"", b.status, b.header.Get("ETag"))
	}
	if c := put(first); c.status != 412 || c.problem.Code != api.ErrorCodeStale {
		t.Errorf("with the former ETag: %d %s, want 412 stale", c.status, c.problem.Code)
	}
	for _, etag := range []string{"", "*"} {
		if c := put(etag); c.status != 200 {
			t.Errorf("with If-Match %q: %d, want 200", etag, c.status)
		}
	}
	if g := r.do(call{method: "GET", path: "/v1/backup-schedules/" + made.ID, role: auth.Viewer}); g.header.Get("ETag") != `"4"` {
		t.Errorf("ETag after four versions = %s", g.header.Get("ETag"))
	}
}

// The vcenter has three seats. seed:N60
func TestAFullSlotIsRefusedWithWhatCanBeBooked(t *testing.T) {
	r := newRig(t)
	for i := range 3 {
		r.schedule(nightly(r.vms[i].Name, r.vms[i].ID))
	}
	fourth := nightly("fourth", r.vms[3].ID)
	for _, path := range []string{"/v1/backup-schedules", "/v1/backup-schedules:check"} {
		var body any = fourth
		if strings.HasSuffix(path, ":check") {
			body = api.BackupScheduleCheck{Schedule: fourth}
		}
		a := r.do(call{method: "POST", path: path, role: auth.Backup, body: body})
		if a.status != 409 || a.problem.Code != api.ErrorCodeSlotFull || a.problem.Field != "start_time" {
			t.Fatalf("%s: %d %s %q, want 409 slot_full start_time: %s", path, a.status, a.problem.Code, a.problem.Field, a.body)
		}
		want := api.Recommendation{Kind: api.RecommendationKindSameDay, StartTime: "01:00", FreeSeats: 2}
		if recs := a.problem.Recommendations; len(recs) == 0 || !cmp.Equal(recs[0], want) {
			t.Errorf("%s: recommendations = %+v, want first %+v", path, recs, want)
		}
	}
	fourth.StartTime = "01:00"
	r.schedule(fourth)
}

// seed:N36
func TestACheckCountsTheOthersOfThePlanAndBooksNothing(t *testing.T) {
	r := newRig(t)
	var made []api.BackupSchedule
	for i := range 3 {
		made = append(made, r.schedule(nightly(r.vms[i].Name, r.vms[i].ID)))
	}
	fourth, fifth := nightly("fourth", r.vms[3].ID), nightly("fifth", r.vms[4].ID)
	moved := made[1]
	moved.StartTime = "05:00"
	for name, c := range map[string]struct {
		check api.BackupScheduleCheck
		want  int
	}{
		"another leaves":              {api.BackupScheduleCheck{Schedule: fourth, Others: []api.PlannedSchedule{{ID: made[0].ID}}}, 200},
		"another moves away":          {api.BackupScheduleCheck{Schedule: fourth, Others: []api.PlannedSchedule{{ID: moved.ID, Schedule: &moved}}}, 200},
		"another leaves, one comes":   {api.BackupScheduleCheck{Schedule: fourth, Others: []api.PlannedSchedule{{ID: made[0].ID}, {Schedule: &fifth}}}, 409},
		"one that is there is itself": {api.BackupScheduleCheck{ID: made[2].ID, Schedule: made[2]}, 200},
		"another is wrong in itself":  {api.BackupScheduleCheck{ID: made[2].ID, Schedule: made[2], Others: []api.PlannedSchedule{{Schedule: &api.BackupSchedule{Name: "x", RetentionDays: 1}}}}, 200},
	} {
		if a := r.do(call{method: "POST", path: "/v1/backup-schedules:check", role: auth.Viewer, body: c.check}); a.status != c.want {
			t.Errorf("%s: %d, want %d: %s", name, a.status, c.want, a.body)
		}
	}
	monthly := nightly("monthly", r.vms[3].ID)
	monthly.Daily, monthly.Monthly, monthly.StartTime, monthly.RetentionDays = nil, &api.Monthly{DaysOfMonth: []int{31}}, "", 31
	checked := into[api.BackupScheduleCheckResult](r, r.do(call{method: "POST", path: "/v1/backup-schedules:check", role: auth.Viewer, body: api.BackupScheduleCheck{Schedule: monthly}}), 200)
	if len(checked.Warnings) != 1 || !strings.Contains(checked.Warnings[0], "February") {
		t.Errorf("warnings = %q, want the months without a run", checked.Warnings)
	}
	if checked.Schedule.StartTime == "" || checked.Schedule.ID != "" || checked.Schedule.Seats != 1 {
		t.Errorf("checked = %+v, want its hour and seats, and no id", checked.Schedule)
	}
	list := into[api.BackupScheduleList](r, r.do(call{method: "GET", path: "/v1/backup-schedules", role: auth.Viewer}), 200)
	if len(list.Items) != 3 {
		t.Errorf("%d schedules after the checks, want the 3 that were made", len(list.Items))
	}
}

func TestOccurrencesAreInTheZoneOfTheSchedule(t *testing.T) {
	r := newRig(t)
	s := nightly("ny", r.vms[0].ID)
	s.TimeZone = "America/New_York"
	made := r.schedule(s)
	a, err := r.client(auth.Viewer).ListOccurrencesWithResponse(context.Background(), made.ID, &api.ListOccurrencesParams{From: time.Date(2027, 3, 13, 0, 0, 0, 0, time.UTC), Count: 3})
	r.must(api.Err(a, err))
	var got []string
	for _, o := range a.JSON200.Items {
		got = append(got, o.StartsAt.Format(time.RFC3339))
	}
	// 02:00 of 14 March is skipped by daylight saving: it runs at the instant after the gap.
	want := []string{"2027-03-13T02:00:00-05:00", "2027-03-14T03:00:00-04:00", "2027-03-15T02:00:00-04:00"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("occurrences (-want +got):\n%s", diff)
	}
}

func TestAnObjectIsFoundByItsNameWhateverItIs(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"0", "false", "a/b?c&d", "夜間", "x:run"} {
		r.schedule(func() api.BackupSchedule {
			s := nightly(name, r.vms[0].ID)
			s.Enabled = new(false)
			return s
		}())
	}
	c := r.client(auth.Viewer)
	for _, name := range []string{"0", "false", "a/b?c&d", "夜間", "x:run"} {
		a, err := c.ListBackupSchedulesWithResponse(context.Background(), &api.ListBackupSchedulesParams{Name: name})
		r.must(api.Err(a, err))
		if len(a.JSON200.Items) != 1 || a.JSON200.Items[0].Name != name {
			t.Errorf("?name=%s found %d, want the one", name, len(a.JSON200.Items))
		}
	}
	a, err := c.ListBackupSchedulesWithResponse(context.Background(), &api.ListBackupSchedulesParams{Name: "nobody"})
	r.must(api.Err(a, err))
	if a.JSON200.Items == nil || len(a.JSON200.Items) != 0 {
		t.Errorf("an unknown name found %v, want an empty list", a.JSON200.Items)
	}
}
