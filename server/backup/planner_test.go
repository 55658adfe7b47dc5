package backup_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:N18 seed:N19 seed:N20 seed:A58 seed:A60 seed:A61
func TestAScheduleTakesItsSeatsWithItWhereverItGoes(t *testing.T) {
	h := newHouse(t, 4)
	vms := h.addVMs(h.vcenter.ID, 7)
	three, four := h.addGroup("three", vms[:3]), h.addGroup("four", vms[3:])
	holds := func(when string, at2, at3 int) {
		t.Helper()
		if u := h.taken(h.vcenter.ID); u[tonight(2)] != at2 || u[tonight(3)] != at3 {
			t.Errorf("%s: 02:00 holds %d and 03:00 %d seats, want %d and %d", when, u[tonight(2)], u[tonight(3)], at2, at3)
		}
	}
	s := nightly("s", 2)
	s.GroupID = three.ID
	s = h.add(s)
	if s.Seats != 3 || s.Version != 1 || s.RepositoryID != h.repository.ID {
		t.Errorf("made: %+v, want 3 seats, version 1, the default repository", s)
	}
	holds("made", 3, 0)
	s.Recurrence.Hour = 3
	s = h.change(s)
	holds("moved", 0, 3)
	s.Enabled = false
	s = h.change(s)
	holds("disabled", 0, 0)

	other := nightly("other", 3)
	other.GroupID = four.ID
	other = h.add(other)
	s.Enabled = true
	_, err := h.UpdateSchedule(h.ctx, s)
	e := refused(t, err, backup.SlotFull, "start_time")
	if !strings.Contains(e.Message, "4 of 4 seats") || len(e.Recommendations) == 0 || e.Recommendations[0].Recurrence.Hour != 2 {
		t.Errorf("enabling in a full hour: %q with %+v, want 4 of 4 seats and 02:00 instead", e.Message, e.Recommendations)
	}
	holds("refused", 0, 4)
	if err := h.DeleteSchedule(h.ctx, other.ID); err != nil {
		t.Fatal(err)
	}
	holds("the other deleted", 0, 0)
	h.change(s)
	holds("enabled", 0, 3)
	if err := h.DeleteSchedule(h.ctx, s.ID); err != nil {
		t.Fatal(err)
	}
	holds("deleted", 0, 0)
}

// seed:N60 seed:A18
func TestThirtyBookingsAtOnceNeverOverfillAnHour(t *testing.T) {
	const capacity, callers = 10, 30
	h := newHouse(t, capacity)
	vms := h.addVMs(h.vcenter.ID, callers)
	var mu sync.Mutex
	var booked, full int
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			s := nightly(vms[i].Name, 2)
			s.VMID = vms[i].ID
			_, err := h.CreateSchedule(h.ctx, s)
			mu.Lock()
			defer mu.Unlock()
			switch e := backup.AsError(err); {
			case err == nil:
				booked++
			case e != nil && e.Code == backup.SlotFull && len(e.Recommendations) > 0:
				full++
			default:
				t.Errorf("booking %d: %v, want it booked or refused with recommendations", i, err)
			}
		})
	}
	wg.Wait()
	if booked != capacity || full != callers-capacity {
		t.Errorf("%d booked and %d refused, want %d and %d", booked, full, capacity, callers-capacity)
	}
	nights := 0
	for at, n := range h.taken(h.vcenter.ID) {
		if nights++; n != capacity || at.Hour() != 2 {
			t.Errorf("%s holds %d seats, want %d at 02:00 only", at, n, capacity)
		}
	}
	if nights != 400 {
		t.Errorf("seats are held in %d nights, want 400", nights)
	}
}

func TestARecommendationCanBeBookedAsItIs(t *testing.T) {
	h := newHouse(t, 1)
	vms := h.addVMs(h.vcenter.ID, 3)
	first := nightly("first", 2)
	first.VMID = vms[0].ID
	h.add(first)
	second := nightly("second", 2)
	second.VMID = vms[1].ID
	second.Recurrence.Kind, second.Recurrence.Weekdays = backup.Weekly, []time.Weekday{time.Sunday}
	_, err := h.CreateSchedule(h.ctx, second)
	for _, r := range refused(t, err, backup.SlotFull, "start_time").Recommendations {
		second.Recurrence, second.Name = r.Recurrence, string(r.Kind)
		if _, err := h.CreateSchedule(h.ctx, second); err != nil {
			t.Errorf("booking the recommendation %+v: %v", r, err)
		}
	}
}

// seed:N58
func TestAnOmittedStartTimePicksTheLeastLoadedHourAndKeepsIt(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 12)
	for hour, n := range map[int]int{1: 4, 2: 2, 3: 1, 4: 1, 5: 3} {
		s := nightly(string(rune('a'+hour)), hour)
		s.GroupID = h.addGroup(s.Name, vms[:n]).ID
		h.add(s)
	}
	s := nightly("s", -1)
	s.VMID, s.EarliestHour, s.LatestHour = vms[11].ID, 1, 5
	for range 3 { // the same each time
		tried, _, err := h.CheckSchedule(h.ctx, s, nil)
		if err != nil || tried.Recurrence.Hour != 3 || !tried.StartTimeChosen {
			t.Fatalf("check picks %02d:00 (%v), want 03:00: the earlier of the two with one seat", tried.Recurrence.Hour, err)
		}
	}
	s = h.add(s)
	if s.Recurrence.Hour != 3 || !s.StartTimeChosen {
		t.Fatalf("made at %02d:00, want 03:00 of the server's choice", s.Recurrence.Hour)
	}
	crowd := nightly("crowd", 3)
	crowd.GroupID = h.addGroup("crowd", vms[:5]).ID
	h.add(crowd)
	s.Recurrence.Hour, s.StartTimeChosen, s.Description = -1, false, "changed"
	if s = h.change(s); s.Recurrence.Hour != 3 || !s.StartTimeChosen {
		t.Errorf("after an update it is at %02d:00, want 03:00 kept although others are freer", s.Recurrence.Hour)
	}
	s.Recurrence.Hour, s.StartTimeChosen, s.EarliestHour = -1, false, 4
	if s = h.change(s); s.Recurrence.Hour != 4 {
		t.Errorf("with a start window that leaves the kept hour out it is at %02d:00, want 04:00", s.Recurrence.Hour)
	}
}

func TestAnOmittedStartTimeIsStillToCome(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	once := func(name string, day backup.Date) backup.Schedule {
		s := nightly(name, -1)
		s.VMID, s.RetentionDays = vm.ID, 31
		s.Recurrence.Kind, s.Recurrence.Date = backup.OneTime, day
		return s
	}
	today := backup.DateOf(noon)
	if s := h.add(once("today", today)); s.Recurrence.Hour != 12 {
		t.Errorf("today's hour is %02d:00, want 12:00: it can be booked until 12:55", s.Recurrence.Hour)
	}
	disabled := once("disabled", today)
	disabled.Enabled = false
	if s := h.add(disabled); s.Recurrence.Hour < 12 {
		t.Errorf("a disabled one's hour is %02d:00, want one that is to come", s.Recurrence.Hour)
	}
	for name, enabled := range map[string]bool{"late": true, "late and disabled": false} {
		late := once(name, today.AddDays(-1))
		late.Enabled = enabled
		_, err := h.CreateSchedule(h.ctx, late)
		refused(t, err, backup.SlotClosed, "one_time.date")
	}
	morning := once("this morning", today)
	morning.LatestHour = 11
	_, err := h.CreateSchedule(h.ctx, morning)
	refused(t, err, backup.SlotClosed, "start_time")

	s := nightly("picked", -1)
	s.VMID, s.LatestHour = vm.ID, 3
	s = h.add(s)
	s.Recurrence = backup.Recurrence{Kind: backup.OneTime, TimeZone: "UTC", Hour: -1, Date: today}
	s.LatestHour, s.RetentionDays = 23, 31
	if s = h.change(s); s.Recurrence.Hour < 12 {
		t.Errorf("made a one-time schedule of today it keeps %02d:00, which is over", s.Recurrence.Hour)
	}
}

// seed:N59
func TestTheLastFiveMinutesOfASlotAreRefused(t *testing.T) {
	h := newHouse(t, 10)
	s := nightly("s", 12)
	s.VMID, s.RetentionDays = h.addVMs(h.vcenter.ID, 1)[0].ID, 1
	s.Recurrence.Kind, s.Recurrence.Date = backup.OneTime, backup.DateOf(noon)
	h.clock.set(noon.Add(55 * time.Minute))
	_, err := h.CreateSchedule(h.ctx, s)
	if e := refused(t, err, backup.SlotClosed, "start_time"); !strings.Contains(e.Message, "12:55") {
		t.Errorf("message %q does not say when the slot closed", e.Message)
	}
	h.clock.set(noon.Add(55*time.Minute - time.Second))
	h.add(s)
}

func TestAStartWindowMustNotEndBeforeItBegins(t *testing.T) {
	h := newHouse(t, 10)
	s := nightly("s", -1)
	s.VMID, s.EarliestHour, s.LatestHour = h.addVMs(h.vcenter.ID, 1)[0].ID, 5, 4
	_, err := h.CreateSchedule(h.ctx, s)
	refused(t, err, backup.Invalid, "start_window.earliest")
}

func TestACallersDaysStayAsTheyWere(t *testing.T) {
	h := newHouse(t, 10)
	days := []time.Weekday{time.Friday, time.Monday, time.Friday}
	s := nightly("s", 2)
	s.VMID = h.addVMs(h.vcenter.ID, 1)[0].ID
	s.Recurrence.Kind, s.Recurrence.Weekdays = backup.Weekly, days
	if s = h.add(s); !slices.Equal(s.Recurrence.Weekdays, []time.Weekday{time.Monday, time.Friday}) {
		t.Errorf("stored %v, want Monday and Friday", s.Recurrence.Weekdays)
	}
	if !slices.Equal(days, []time.Weekday{time.Friday, time.Monday, time.Friday}) {
		t.Errorf("the caller's slice is %v now", days)
	}
}

func TestWhatIsHeldStaysWhenTheCapacityIsMadeSmaller(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 6)
	g := h.addGroup("g", vms[:5])
	s := nightly("s", 2)
	s.GroupID = g.ID
	s = h.add(s)
	h.vcenter.SlotCapacity = 3
	h.vcenter = must(h.UpdateVCenter(h.ctx, h.vcenter))(t)
	if h.vcenter.SlotCapacity != 3 {
		t.Fatalf("capacity %d, want 3", h.vcenter.SlotCapacity)
	}
	s.Description = "only words"
	if _, _, err := h.CheckSchedule(h.ctx, s, nil); err != nil {
		t.Errorf("check of other words: %v, want the seats that it holds", err)
	}
	s = h.change(s)
	g.VirtualMachineIDs = ids(vms[:4])
	g = must(h.UpdateGroup(h.ctx, g))(t)
	if n := h.taken(h.vcenter.ID)[tonight(2)]; n != 4 {
		t.Errorf("%d seats after one member left, want 4", n)
	}
	g.VirtualMachineIDs = ids(vms)
	_, err := h.UpdateGroup(h.ctx, g)
	refused(t, err, backup.ExceedsCapacity, "virtual_machine_ids")
	s.Version, s.Recurrence.Hour = 0, 3
	_, err = h.UpdateSchedule(h.ctx, s)
	refused(t, err, backup.ExceedsCapacity, "window_hours")
}

func TestAStaleUpdateIsRefused(t *testing.T) {
	h := newHouse(t, 10)
	s := nightly("s", 2)
	s.VMID = h.addVMs(h.vcenter.ID, 1)[0].ID
	s = h.add(s)
	newer := s
	newer.Description = "newer"
	h.change(newer)
	s.Description = "older"
	_, err := h.UpdateSchedule(h.ctx, s)
	refused(t, err, backup.Stale, "")
	s.Version = 0
	if s = h.change(s); s.Description != "older" || s.Version != 3 {
		t.Errorf("an update without a version gives %+v, want it stored as version 3", s)
	}
}

// seed:A51 seed:A59 seed:N45
func TestDeletingAScheduleOrGroupDeletesNoImage(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	g := h.addGroup("g", vms)
	s := nightly("s", 2)
	s.GroupID = g.ID
	s = h.add(s)
	kept := h.addImage(vms[0], s.ID)
	if e := refused(t, h.DeleteGroup(h.ctx, g.ID), backup.InUse, ""); !strings.Contains(e.Message, `"s"`) {
		t.Errorf("message %q does not name the schedule", e.Message)
	}
	if err := h.DeleteSchedule(h.ctx, s.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.DeleteGroup(h.ctx, g.ID); err != nil {
		t.Fatal(err)
	}
	h.leave(vms...)
	if got := h.images(); len(got) != 1 || got[0].ID != kept.ID || got[0].Status != backup.ImageGood {
		t.Errorf("images %+v, want the one that was there", got)
	}
	refused(t, h.DeleteSchedule(h.ctx, s.ID), backup.NotFound, "")
	refused(t, h.DeleteGroup(h.ctx, g.ID), backup.NotFound, "")
}

func TestWhatIsProtectedFromDeletionStays(t *testing.T) {
	h := newHouse(t, 10)
	g := must(h.CreateGroup(h.ctx, backup.Group{Name: "g", VirtualMachineIDs: ids(h.addVMs(h.vcenter.ID, 1)), DeletionProtection: true}))(t)
	s := nightly("s", 2)
	s.GroupID, s.DeletionProtect = g.ID, true
	s = h.add(s)
	refused(t, h.DeleteSchedule(h.ctx, s.ID), backup.InUse, "deletion_protection")
	s.DeletionProtect = false
	h.change(s)
	if err := h.DeleteSchedule(h.ctx, s.ID); err != nil {
		t.Fatal(err)
	}
	refused(t, h.DeleteGroup(h.ctx, g.ID), backup.InUse, "deletion_protection")
	g.DeletionProtection = false
	must(h.UpdateGroup(h.ctx, g))(t)
	if err := h.DeleteGroup(h.ctx, g.ID); err != nil {
		t.Fatal(err)
	}
}

func TestAScheduleOfWhatIsNotThereNamesTheField(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	for field, change := range map[string]func(*backup.Schedule){
		"virtual_machine_id": func(s *backup.Schedule) { s.VMID = "none" },
		"group_id":           func(s *backup.Schedule) { s.VMID, s.GroupID = "", "none" },
		"repository":         func(s *backup.Schedule) { s.RepositoryID = "none" },
	} {
		s := nightly("s", 2)
		s.VMID = vm.ID
		change(&s)
		_, err := h.CreateSchedule(h.ctx, s)
		refused(t, err, backup.NotFound, field)
	}
	h.leave(vm)
	s := nightly("s", 2)
	s.VMID = vm.ID
	_, err := h.CreateSchedule(h.ctx, s)
	refused(t, err, backup.VMGone, "virtual_machine_id")
}

// TestRetentionReachesExistingImagesWhereThatIsAsked: and no lock is shortened.
func TestRetentionReachesExistingImagesWhereThatIsAsked(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	s := nightly("s", 2)
	s.VMID = vm.ID
	s = h.add(s)
	plain, locked := h.addImage(vm, s.ID), h.addImage(vm, s.ID)
	until := h.clock.Now().Add(100 * 24 * time.Hour)
	locked.LockedUntil, locked.ExpiresAt = until, until
	h.update(func(tx backup.Tx) error { return tx.UpdateImage(h.ctx, locked) })

	s.RetentionDays = 3
	s = h.change(s)
	if got := h.images(); !got[0].ExpiresAt.IsZero() && !got[1].ExpiresAt.IsZero() {
		t.Errorf("images changed though nobody asked: %+v", got)
	}
	s.ApplyToExisting = true
	h.change(s)
	for _, i := range h.images() {
		want := plain.StartedAt.Add(3 * 24 * time.Hour)
		if i.ID == locked.ID {
			want = until
		}
		if !i.ExpiresAt.Equal(want) {
			t.Errorf("image %s expires %s, want %s", i.ID, i.ExpiresAt, want)
		}
	}
}
