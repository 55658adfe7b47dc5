package backup_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// state is all that a check could leave behind.
type state struct {
	schedules []backup.Schedule
	booked    []backup.Booking
	marks     []time.Time
}

func (h *house) state() state {
	h.Helper()
	return read(h, func(tx backup.Tx) (s state, err error) {
		if s.schedules, _, err = tx.Schedules(h.ctx, backup.ScheduleFilter{}); err != nil {
			return s, err
		}
		for _, c := range s.schedules {
			mark, err := tx.DueMark(h.ctx, c.ID)
			if err != nil {
				return s, err
			}
			s.marks = append(s.marks, mark)
		}
		s.booked, err = tx.Booked(h.ctx, h.vcenter.ID)
		return s, err
	})
}

// TestAPlanIsCheckedAsAWhole: with one seat an hour, B can be planned into A's
// hour when the same plan moves, shrinks or deletes A.
func TestAPlanIsCheckedAsAWhole(t *testing.T) {
	h := newHouse(t, 1)
	vms := h.addVMs(h.vcenter.ID, 3)
	on := func(s backup.Schedule, vm int) backup.Schedule {
		s.VMID = vms[vm].ID
		return s
	}
	a := h.add(on(nightly("a", 2), 0))
	moved, disabled := a, a
	moved.Recurrence.Hour = 3
	disabled.Enabled = false
	at2, at3 := on(nightly("b", 2), 1), on(nightly("b", 3), 1)
	other := on(nightly("c", 3), 2)
	b := h.add(on(nightly("e", 5), 1))
	bTo2, bTo3 := b, b
	bTo2.Recurrence.Hour, bTo3.Recurrence.Hour = 2, 3

	for name, c := range map[string]struct {
		check  backup.Schedule
		others []backup.Planned
		code   backup.Code
	}{
		"alone":                       {at2, nil, backup.SlotFull},
		"the other moves away":        {at2, []backup.Planned{{ID: a.ID, Schedule: &moved}}, ""},
		"the other is disabled":       {at2, []backup.Planned{{ID: a.ID, Schedule: &disabled}}, ""},
		"the other is deleted":        {at2, []backup.Planned{{ID: a.ID}}, ""},
		"the other moves in":          {at3, []backup.Planned{{ID: a.ID, Schedule: &moved}}, backup.SlotFull},
		"another is made there":       {at3, []backup.Planned{{Schedule: &other}}, backup.SlotFull},
		"another is made elsewhere":   {on(nightly("b", 4), 1), []backup.Planned{{Schedule: &other}}, ""},
		"two change places":           {bTo2, []backup.Planned{{ID: a.ID, Schedule: &moved}}, ""},
		"two move to one hour":        {bTo3, []backup.Planned{{ID: a.ID, Schedule: &moved}}, backup.SlotFull},
		"one that is no longer there": {at3, []backup.Planned{{ID: "gone"}, {ID: "gone too", Schedule: &other}}, ""},
	} {
		before := h.state()
		got, _, err := h.CheckSchedule(h.ctx, c.check, c.others)
		if code := backup.CodeOf(err); code != c.code {
			t.Errorf("%s: got %v, want code %q", name, err, c.code)
		}
		if err == nil && (got.Seats != 1 || got.Recurrence.Hour != c.check.Recurrence.Hour || got.RepositoryID != h.repository.ID) {
			t.Errorf("%s: checked as %+v, want it as it would be stored", name, got)
		}
		if after := h.state(); !reflect.DeepEqual(after, before) {
			t.Errorf("%s: the check left something behind:\n%+v, before it\n%+v", name, after, before)
		}
	}
}

// seed:N36
func TestACheckWarnsOfMonthsWithoutTheDay(t *testing.T) {
	h := newHouse(t, 10)
	s := nightly("s", 2)
	s.VMID, s.RetentionDays = h.addVMs(h.vcenter.ID, 1)[0].ID, 31
	s.Recurrence = backup.Recurrence{Kind: backup.Monthly, TimeZone: "UTC", Hour: 2, MonthDays: []int{31}}
	_, warnings, err := h.CheckSchedule(h.ctx, s, nil)
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "February 2027") || strings.Contains(warnings[0], "January") {
		t.Errorf("warnings %q (%v), want the months that have no 31st", warnings, err)
	}
	s.Recurrence.ShortLast = true
	if _, warnings, err := h.CheckSchedule(h.ctx, s, nil); err != nil || len(warnings) != 0 {
		t.Errorf("warnings %q (%v), want none when a shorter month's last day will do", warnings, err)
	}
}

// TestYesterdaysOneTimeScheduleCanStillBeChanged: only what is new or changed
// must lie ahead.
func TestYesterdaysOneTimeScheduleCanStillBeChanged(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	s := nightly("s", 14)
	s.VMID, s.RetentionDays = vms[0].ID, 31
	s.Recurrence.Kind, s.Recurrence.Date = backup.OneTime, backup.DateOf(noon)
	s = h.add(s)
	h.clock.pass(24 * time.Hour)
	h.dispatch(1)
	s.Description = "done"
	if _, _, err := h.CheckSchedule(h.ctx, s, nil); err != nil {
		t.Errorf("check of another description: %v", err)
	}
	s = h.change(s)
	for range 2 { // off and on again
		s.Enabled = !s.Enabled
		s = h.change(s)
	}
	h.dispatch(0)
	if runs := h.runs(s.ID); len(runs) != 1 {
		t.Errorf("%d runs, want the one of yesterday", len(runs))
	}
	s.Recurrence.Hour = 15
	_, err := h.UpdateSchedule(h.ctx, s)
	refused(t, err, backup.SlotClosed, "one_time.date")
}

// seed:W14 seed:W26
func TestAGroupThatGrowsBooksAnewOrIsRefused(t *testing.T) {
	h := newHouse(t, 4)
	vms := h.addVMs(h.vcenter.ID, 6)
	g := h.addGroup("g", vms[:2])
	for name, hour := range map[string]int{"early": 2, "crowded": 3} {
		s := nightly(name, hour)
		s.GroupID = g.ID
		h.add(s)
	}
	alone := nightly("alone", 3)
	alone.VMID = vms[5].ID
	h.add(alone)
	g.VirtualMachineIDs = ids(vms[:3])
	g = must(h.UpdateGroup(h.ctx, g))(t)
	if u := h.taken(h.vcenter.ID); u[tonight(2)] != 3 || u[tonight(3)] != 4 {
		t.Errorf("seats %d and %d, want 3 and 4", u[tonight(2)], u[tonight(3)])
	}
	g.VirtualMachineIDs = ids(vms[:4])
	_, err := h.UpdateGroup(h.ctx, g)
	e := refused(t, err, backup.SlotFull, "virtual_machine_ids")
	if !strings.Contains(e.Message, `"crowded"`) || len(e.Recommendations) == 0 {
		t.Errorf("message %q with %d recommendations: want the schedule named", e.Message, len(e.Recommendations))
	}
	if u := h.taken(h.vcenter.ID); u[tonight(2)] != 3 || u[tonight(3)] != 4 {
		t.Errorf("after the refusal: seats %d and %d, want 3 and 4 as before", u[tonight(2)], u[tonight(3)])
	}
	if m := must(h.GroupMembers(h.ctx, g.ID))(t); !slices.Equal(ids(m), ids(vms[:3])) {
		t.Errorf("after the refusal the members are %v, want the three as before", ids(m))
	}
}

// seed:N30 seed:N37
func TestTheTimeZoneIsThatOfTheGroupsVCenters(t *testing.T) {
	h := newHouse(t, 10)
	tokyo, berlin := h.addVCenter("t", "Asia/Tokyo", 10), h.addVCenter("b", "Europe/Berlin", 10)
	there, here := h.addVMs(tokyo.ID, 2), h.addVMs(berlin.ID, 1)
	both := h.addGroup("both", append(slices.Clone(there), here...))
	empty := must(h.CreateGroup(h.ctx, backup.Group{Name: "empty", Selector: &backup.Selector{VCenterID: tokyo.ID, NameRegex: "^none"}}))(t)
	gone := h.addVMs(berlin.ID, 1)
	left := h.addGroup("left", gone)
	h.leave(gone...)
	for group, want := range map[string]string{empty.ID: "Asia/Tokyo", left.ID: "Europe/Berlin"} {
		s := nightly("of "+group, 2)
		s.GroupID, s.Recurrence.TimeZone = group, ""
		if s = h.add(s); s.Recurrence.TimeZone != want || s.Seats != 0 {
			t.Errorf("zone %s and %d seats, want %s and none", s.Recurrence.TimeZone, s.Seats, want)
		}
	}
	s := nightly("s", 2)
	s.GroupID, s.Recurrence.TimeZone = both.ID, ""
	_, err := h.CreateSchedule(h.ctx, s)
	if e := refused(t, err, backup.Invalid, "time_zone"); !strings.Contains(e.Message, "Asia/Tokyo") || !strings.Contains(e.Message, "Europe/Berlin") {
		t.Errorf("message %q does not name both zones", e.Message)
	}
	s.Recurrence.TimeZone = "Asia/Tokyo"
	s = h.add(s)
	if s.Seats != 3 || h.taken(tokyo.ID)[tonight(17)] != 2 || h.taken(berlin.ID)[tonight(17)] != 1 {
		t.Errorf("%d seats, %v and %v, want 2 in Tokyo's and 1 in Berlin's at 17:00 UTC", s.Seats, h.taken(tokyo.ID)[tonight(17)], h.taken(berlin.ID)[tonight(17)])
	}
	one := nightly("one", 2)
	one.VMID, one.Recurrence.TimeZone = there[0].ID, ""
	if one = h.add(one); one.Recurrence.TimeZone != "Asia/Tokyo" {
		t.Errorf("zone of one VM's schedule is %q, want its vcenter's", one.Recurrence.TimeZone)
	}
}

// seed:W12 seed:W13
func TestASelectorGroupBooksWhatItReservesOrItsMembers(t *testing.T) {
	h := newHouse(t, 10)
	h.addVMs(h.vcenter.ID, 3)
	for reserved, want := range map[int]int{0: 3, 6: 6} {
		g := must(h.CreateGroup(h.ctx, backup.Group{Name: "g" + string(rune('0'+reserved)), ReservedSeats: reserved,
			Selector: &backup.Selector{VCenterID: h.vcenter.ID, NameRegex: "^vm"}}))(t)
		s := nightly("of "+g.Name, 2+reserved)
		s.GroupID = g.ID
		if s = h.add(s); s.Seats != want || h.taken(h.vcenter.ID)[tonight(2+reserved)] != want {
			t.Errorf("with %d reserved it books %d seats, want %d", reserved, s.Seats, want)
		}
	}
}

// TestSchedulesOfFullHoursChangePlaces: each holds what the other wants, so one
// by one they are refused, and as one they are done.
//
// seed:N60
func TestSchedulesOfFullHoursChangePlaces(t *testing.T) {
	h := newHouse(t, 1)
	var held []backup.Schedule
	for i, hour := range []int{2, 3, 4} {
		s := nightly(fmt.Sprintf("s%d", i), hour)
		s.VMID = h.addVMs(h.vcenter.ID, 1)[0].ID
		held = append(held, h.add(s))
	}
	want := slices.Clone(held)
	for i := range want {
		want[i].Version, want[i].Recurrence.Hour = 0, held[(i+1)%3].Recurrence.Hour
	}
	_, err := h.UpdateSchedule(h.ctx, want[0])
	refused(t, err, backup.SlotFull, "start_time")
	done, err := h.UpdateSchedules(h.ctx, want)
	if err != nil {
		t.Fatalf("a circle of three: %v", err)
	}
	for i, s := range done {
		if s.Recurrence.Hour != want[i].Recurrence.Hour || s.Version != held[i].Version+1 {
			t.Errorf("%s: at %d in version %d, want %d in %d", s.Name, s.Recurrence.Hour, s.Version, want[i].Recurrence.Hour, held[i].Version+1)
		}
	}
	again, err := h.UpdateSchedules(h.ctx, want)
	if err != nil || again[0].Recurrence.Hour != want[0].Recurrence.Hour {
		t.Errorf("the same again: %v", err)
	}
	for hour, n := range h.taken(h.vcenter.ID) {
		if n != 1 {
			t.Fatalf("%s holds %d seats, want 1", hour, n)
		}
	}
	want[1].Recurrence.Hour = want[2].Recurrence.Hour
	_, err = h.UpdateSchedules(h.ctx, want)
	refused(t, err, backup.SlotFull, "schedules.1.start_time")
	want[1].ID = "gone"
	_, err = h.UpdateSchedules(h.ctx, want)
	refused(t, err, backup.NotFound, "schedules.1")
	_, err = h.UpdateSchedules(h.ctx, []backup.Schedule{want[0], want[0]})
	refused(t, err, backup.Invalid, "schedules.1.id")
}

// TestWhoStaysIsNotPushedOutByOneThatGrows: of several schedules that change as
// one, a group that has grown finds no seat that another one stays in.
func TestWhoStaysIsNotPushedOutByOneThatGrows(t *testing.T) {
	h := newHouse(t, 2)
	vms := h.addVMs(h.vcenter.ID, 3)
	vms[0].Name = "grow1"
	h.save(vms)
	grows := nightly("grows", 2)
	grows.GroupID = must(h.CreateGroup(h.ctx, backup.Group{Name: "g", Selector: &backup.Selector{VCenterID: h.vcenter.ID, NameRegex: "^grow"}}))(t).ID
	grows = h.add(grows)
	stays := nightly("stays", 2)
	stays.VMID = vms[2].ID
	stays = h.add(stays)
	vms[1].Name = "grow2"
	h.save(vms)
	grows.Version, grows.RetentionDays = 0, 8
	if _, err := h.UpdateSchedules(h.ctx, []backup.Schedule{grows, stays}); err != nil && backup.CodeOf(err) != backup.SlotFull {
		t.Fatal(err)
	}
	for hour, n := range h.taken(h.vcenter.ID) {
		if n > 2 {
			t.Fatalf("%s holds %d seats of 2", hour, n)
		}
	}
}

// TestWhatIsHeldStaysWhenSchedulesChangeAsOne: an hour that is over-booked
// since the capacity was made smaller refuses nobody who is in it.
func TestWhatIsHeldStaysWhenSchedulesChangeAsOne(t *testing.T) {
	h := newHouse(t, 2)
	var held []backup.Schedule
	for i := range 2 {
		s := nightly(fmt.Sprintf("s%d", i), 2)
		s.VMID = h.addVMs(h.vcenter.ID, 1)[0].ID
		held = append(held, h.add(s))
	}
	v := h.vcenter
	v.Version, v.SlotCapacity = 0, 1
	if _, err := h.UpdateVCenter(h.ctx, v); err != nil {
		t.Fatal(err)
	}
	for i := range held {
		held[i].Version, held[i].Description = 0, "changed"
	}
	if _, err := h.UpdateSchedules(h.ctx, held); err != nil {
		t.Errorf("changed in place: %v", err)
	}
	if _, _, err := h.CheckSchedule(h.ctx, held[0], []backup.Planned{{ID: held[1].ID, Schedule: &held[1]}}); err != nil {
		t.Errorf("checked beside the other: %v", err)
	}
	over, err := h.OverBooked(h.ctx, v.ID)
	if err != nil || over.Most != 2 || over.Hours < 399 {
		t.Errorf("over-booked %+v, %v; want 2 seats each night", over, err)
	}
}
