package provider

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

func full() error { return &api.Problem{Code: api.ErrorCodeSlotFull, Status: 409} }

func named(name string) api.BackupSchedule { return api.BackupSchedule{Name: name} }

func TestSeatsGivenUpCountForAllAndSeatsTakenForThoseWhoCameLater(t *testing.T) {
	l := newLedger()
	l.read("moves")
	l.read("goes")
	l.read("stays")
	first := l.wants("", named("new"))
	second := l.wants("moves", named("moved"))
	l.drops("goes")
	l.stays("stays")
	moved := named("moved")
	created := named("new")
	for name, c := range map[string]struct {
		key  string
		want []api.PlannedSchedule
	}{
		// "moves" was read before "new" was planned, so it came first.
		"the one that came later":  {first, []api.PlannedSchedule{{ID: "goes"}, {ID: "moves", Schedule: &moved}}},
		"the one that came first":  {second, []api.PlannedSchedule{{ID: "goes"}}},
		"somebody not seen before": {"name/other", []api.PlannedSchedule{{ID: "goes"}, {ID: "moves"}}},
	} {
		if diff := cmp.Diff(c.want, l.others(c.key, false)); diff != "" {
			t.Errorf("%s counts (-want +got):\n%s", name, diff)
		}
	}
	third := l.wants("", named("last"))
	want := []api.PlannedSchedule{{ID: "goes"}, {ID: "moves", Schedule: &moved}, {Schedule: &created}}
	if diff := cmp.Diff(want, l.others(third, false)); diff != "" {
		t.Errorf("the last one counts (-want +got):\n%s", diff)
	}
}

func TestSchedulesThatAreReadAndNotPlannedMayGiveSeatsUp(t *testing.T) {
	l := newLedger()
	l.read("open")
	key := l.wants("", named("new"))
	if !l.open(key) {
		t.Error("a schedule that was read is not open")
	}
	if diff := cmp.Diff([]api.PlannedSchedule{{ID: "open"}}, l.others(key, true)); diff != "" {
		t.Errorf("with released seats (-want +got):\n%s", diff)
	}
	l.stays("open")
	if l.open(key) || len(l.others(key, true)) != 0 {
		t.Error("a schedule that stays is still open")
	}
}

func TestWhoIsRefusedWaitsForTheOthersAndNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		tries := 0
		go func() {
			time.Sleep(800 * time.Millisecond)
			l.drops("somebody")
		}()
		err := l.retry(t.Context(), func() error {
			if tries++; tries == 2 {
				return nil
			}
			return full()
		})
		if err != nil || tries != 2 {
			t.Errorf("after seats were given up: %v after %d tries, want success at the second", err, tries)
		}
		start := time.Now()
		if err := l.retry(t.Context(), full); api.CodeOf(err) != api.ErrorCodeSlotFull || time.Since(start) != planning.quiet {
			t.Errorf("with nobody else: %v after %s, want slot_full after %s", err, time.Since(start), planning.quiet)
		}
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(planning.quiet / 2):
					l.stays("somebody")
				}
			}
		}()
		start = time.Now()
		if err := l.retry(t.Context(), full); err == nil || time.Since(start) > planning.limit+planning.quiet {
			t.Errorf("with others that never end: %v after %s, want slot_full after about %s", err, time.Since(start), planning.limit)
		}
		close(stop)
		start = time.Now()
		if err := l.retry(t.Context(), func() error { return &api.Problem{Code: api.ErrorCodeInvalid} }); err == nil || time.Since(start) != 0 {
			t.Errorf("what nobody can heal: %v after %s, want an error at once", err, time.Since(start))
		}
	})
}

func TestWhoWaitsWhenTheRunComesToItsChangesWaitsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		start := time.Now()
		go func() {
			time.Sleep(planning.quiet / 2)
			l.begins()
			time.Sleep(applying.quiet - time.Second)
			l.drops("somebody")
		}()
		tries := 0
		err := l.retry(t.Context(), func() error {
			if tries++; time.Since(start) < applying.quiet-time.Second {
				return full()
			}
			return nil
		})
		if err != nil || tries != 3 {
			t.Errorf("seats given up during the changes: %v after %d tries, want success at the third", err, tries)
		}
	})
}

func TestPatienceGrowsWhenTheRunComesToItsChanges(t *testing.T) {
	l := newLedger()
	if got := l.patience(); got != planning {
		t.Errorf("patience is %+v, want that of a plan", got)
	}
	l.begins()
	if got := l.patience(); got != applying {
		t.Errorf("patience is %+v, want that of an apply", got)
	}
}

func TestSchedulesOfDistantHoursAreNotCountedWithEachOther(t *testing.T) {
	at := func(start, zone string, window, duration int) *api.BackupSchedule {
		return &api.BackupSchedule{StartTime: start, TimeZone: zone, WindowHours: window, DurationHours: duration}
	}
	for name, c := range map[string]struct {
		a, b *api.BackupSchedule
		want bool
	}{
		"the same hour":                     {at("02:00", "UTC", 1, 1), at("02:00", "UTC", 1, 1), false},
		"the next hour":                     {at("02:00", "UTC", 1, 1), at("03:00", "UTC", 1, 1), false},
		"an hour between":                   {at("02:00", "UTC", 1, 1), at("04:00", "UTC", 1, 1), true},
		"an hour between, the other way":    {at("04:00", "UTC", 1, 1), at("02:00", "UTC", 1, 1), true},
		"a window that reaches it":          {at("02:00", "UTC", 2, 1), at("04:00", "UTC", 1, 1), false},
		"a duration that reaches it":        {at("02:00", "UTC", 1, 2), at("04:00", "UTC", 1, 1), false},
		"past midnight":                     {at("22:00", "UTC", 2, 2), at("01:00", "UTC", 1, 1), false},
		"past midnight, the other way":      {at("01:00", "UTC", 1, 1), at("22:00", "UTC", 2, 2), false},
		"past midnight and still apart":     {at("22:00", "UTC", 2, 2), at("02:00", "UTC", 1, 1), true},
		"all day":                           {at("00:00", "UTC", 24, 1), at("12:00", "UTC", 1, 1), false},
		"other zones":                       {at("02:00", "UTC", 1, 1), at("12:00", "Asia/Tokyo", 1, 1), false},
		"the vcenter's zone and a named":    {at("02:00", "", 1, 1), at("12:00", "UTC", 1, 1), false},
		"both in their vcenter's":           {at("02:00", "", 1, 1), at("12:00", "", 1, 1), true},
		"an hour that the server will pick": {at("", "UTC", 1, 1), at("12:00", "UTC", 1, 1), false},
		"nothing that is known":             {nil, at("12:00", "UTC", 1, 1), false},
	} {
		if got := apart(c.a, c.b); got != c.want {
			t.Errorf("%s: apart is %t, want %t", name, got, c.want)
		}
	}
}

func TestWhoWaitsForSeatsIsListedWithAllThatWaitLikewise(t *testing.T) {
	l := newLedger()
	l.wants("a", named("a"))
	l.wants("b", named("b"))
	l.wants("c", named("c"))
	l.wants("", named("new"))
	if diff := cmp.Diff([]api.ScheduleMove{{ID: "b", Schedule: named("b")}}, l.waits("b")); diff != "" {
		t.Errorf("the first that waits has (-want +got):\n%s", diff)
	}
	before := l.news()
	want := []api.ScheduleMove{{ID: "a", Schedule: named("a")}, {ID: "b", Schedule: named("b")}}
	if diff := cmp.Diff(want, l.waits("a")); diff != "" || l.news() == before {
		t.Errorf("the second has (-want +got), and the first is woken (%t):\n%s", l.news() != before, diff)
	}
	before = l.news()
	if l.waits("a"); l.news() != before {
		t.Error("who waits still is news")
	}
	if all := l.waits("name/new"); all != nil {
		t.Errorf("one that has no seats yet changes places with %v", all)
	}
	l.forget("b")
	if diff := cmp.Diff(want[:1], l.waits("a")); diff != "" {
		t.Errorf("when the other is through (-want +got):\n%s", diff)
	}
}

func TestTheRefusedOneOfSeveralIsFoundByItsField(t *testing.T) {
	for field, want := range map[string]int{"schedules.0.start_time": 0, "schedules.12.one_time.date": 12, "schedules.3": 3, "schedules": -1, "schedules.x.y": -1, "start_time": -1, "": -1} {
		if got := placeIn(&api.Problem{Field: field}); got != want {
			t.Errorf("placeIn(%q) = %d, want %d", field, got, want)
		}
	}
	if got := placeIn(errors.New("no answer")); got != -1 {
		t.Errorf("placeIn(no answer) = %d, want -1", got)
	}
}
