package backup_test

import (
	"slices"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// selected is a schedule at 13:00 of a group that selects every VM of the
// vcenter, which reserves that many seats.
func (h *house) selected(reserved int) backup.Schedule {
	h.Helper()
	g := must(h.CreateGroup(h.ctx, backup.Group{Name: "all", ReservedSeats: reserved, Selector: &backup.Selector{VCenterID: h.vcenter.ID}}))(h.T)
	s := nightly("all", 13)
	s.GroupID = g.ID
	return h.add(s)
}

// follow lets the schedules follow the inventory, and checks what this one
// books then.
func (h *house) follow(s backup.Schedule, changed bool, seats, unbooked int) backup.Schedule {
	h.Helper()
	must(h.FollowGroups(h.ctx, h.vcenter.ID, changed))(h.T)
	s = read(h, func(tx backup.Tx) (backup.Schedule, error) { return tx.Schedule(h.ctx, s.ID) })
	if s.Seats != seats || s.UnbookedSeats != unbooked {
		h.Errorf("schedule %s books %d seats and lacks %d, want %d and %d", s.Name, s.Seats, s.UnbookedSeats, seats, unbooked)
	}
	most := 0
	for _, n := range h.taken(h.vcenter.ID) {
		most = max(most, n)
	}
	if own := len(h.held(s)); seats > 0 && own != 1 || h.booked(s) != seats || most > h.vcenter.SlotCapacity {
		h.Errorf("the store has %d seats of %s, and %d in the fullest hour of %d", h.booked(s), s.Name, most, h.vcenter.SlotCapacity)
	}
	return s
}

// held are the bookings of the schedule.
func (h *house) held(s backup.Schedule) []backup.Booking {
	h.Helper()
	all := read(h, func(tx backup.Tx) ([]backup.Booking, error) { return tx.Booked(h.ctx, h.vcenter.ID) })
	return slices.DeleteFunc(all, func(b backup.Booking) bool { return b.ScheduleID != s.ID })
}

func (h *house) booked(s backup.Schedule) (n int) {
	for _, b := range h.held(s) {
		n += b.Seats
	}
	return n
}

func TestAGroupThatSelectsMoreBooksMoreAndLessGivesBack(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 3)
	s := h.selected(0)
	h.follow(s, true, 3, 0)
	h.addVMs(h.vcenter.ID, 4)
	version := h.follow(s, false, 3, 0).Version // nobody said that the inventory is another
	if after := h.follow(s, true, 7, 0); after.Version != version {
		t.Errorf("version %d became %d: a change that a user makes meanwhile would be refused", version, after.Version)
	}
	h.leave(vms...)
	h.follow(s, true, 4, 0)
	if followed := must(h.FollowGroups(h.ctx, h.vcenter.ID, true))(t); len(followed) != 0 {
		t.Errorf("%+v followed a group that stayed as it was", followed)
	}
	s.Enabled = false
	s = h.change(s)
	h.addVMs(h.vcenter.ID, 1)
	if followed := must(h.FollowGroups(h.ctx, h.vcenter.ID, true))(t); len(followed) != 0 {
		t.Errorf("%+v followed its group, want a disabled schedule left alone", followed)
	}
	if got := h.held(s); len(got) != 0 {
		t.Errorf("a disabled schedule holds %+v, want nothing", got)
	}
}

func TestAReservationHoldsUntilTheGroupHasMoreMembers(t *testing.T) {
	h := newHouse(t, 10)
	h.addVMs(h.vcenter.ID, 2)
	s := h.selected(4)
	h.follow(s, true, 4, 0)
	more := h.addVMs(h.vcenter.ID, 4)
	s = h.follow(s, true, 6, 0)
	s.Description = "changed" // which leaves the seats that the group has grown into
	s = h.change(s)
	h.follow(s, false, 6, 0)
	h.leave(more[:3]...)
	h.follow(s, true, 4, 0)
}

func TestAReservationThatIsTooSmallFromTheStartLooksForRoom(t *testing.T) {
	h := newHouse(t, 10)
	h.addVMs(h.vcenter.ID, 5)
	s := h.selected(3)
	if s.Seats != 3 || s.UnbookedSeats != 2 {
		t.Errorf("books %d seats and lacks %d, want what it reserves and the others unbooked", s.Seats, s.UnbookedSeats)
	}
	h.follow(s, false, 5, 0)
}

func TestWhatFindsNoRoomIsUnbookedUntilThereIsSome(t *testing.T) {
	h := newHouse(t, 5)
	vms := h.addVMs(h.vcenter.ID, 2)
	s := h.selected(0)
	neighbour := nightly("neighbour", 13)
	neighbour.GroupID = h.addGroup("two", vms).ID
	neighbour = h.add(neighbour)
	h.addVMs(h.vcenter.ID, 3)
	h.follow(s, true, 3, 2) // 5 seats, of which the neighbour has 2
	s = h.follow(s, false, 3, 2)
	unbooked := read(h, func(tx backup.Tx) ([]backup.Schedule, error) {
		all, _, err := tx.Schedules(h.ctx, backup.ScheduleFilter{Unbooked: true})
		return all, err
	})
	if len(unbooked) != 1 || unbooked[0].ID != s.ID {
		t.Errorf("schedules that lack seats are %+v, want the one", unbooked)
	}
	neighbour.Enabled = false
	neighbour = h.change(neighbour)
	h.follow(s, false, 5, 0)
	neighbour.Enabled = true
	_, err := h.UpdateSchedule(h.ctx, neighbour)
	if backup.CodeOf(err) != backup.SlotFull {
		t.Errorf("the neighbour that comes back gets %v, want slot_full", err)
	}
}

func TestAScheduleThatLacksSeatsCanBeChangedWhereItIs(t *testing.T) {
	h := newHouse(t, 3)
	h.addVMs(h.vcenter.ID, 3)
	s := h.selected(0)
	h.addVMs(h.vcenter.ID, 2)
	s = h.follow(s, true, 3, 2)
	s.RetentionDays = 8 // has nothing to do with seats
	if checked, _, err := h.CheckSchedule(h.ctx, s, nil); err != nil || checked.Seats != 3 || checked.UnbookedSeats != 2 {
		t.Errorf("a check of it gives %+v (%v), want it allowed", checked, err)
	}
	if s = h.change(s); s.Seats != 3 || s.UnbookedSeats != 2 {
		t.Errorf("after a change of retention %d seats and %d unbooked, want them as they were", s.Seats, s.UnbookedSeats)
	}
	elsewhere := s
	elsewhere.Recurrence.Hour = 14 // a slot that it chooses must have room for all
	_, err := h.UpdateSchedule(h.ctx, elsewhere)
	if backup.CodeOf(err) != backup.ExceedsCapacity {
		t.Errorf("moving all to an hour of 3 seats gives %v, want exceeds_capacity", err)
	}
	elsewhere.WindowHours = 2
	if elsewhere = h.change(elsewhere); elsewhere.Seats != 5 || elsewhere.UnbookedSeats != 0 {
		t.Errorf("in a longer window %d seats and %d unbooked, want all of them booked", elsewhere.Seats, elsewhere.UnbookedSeats)
	}
}

// seed:N61
func TestMembersWithoutASeatComeLast(t *testing.T) {
	h := newHouse(t, 3)
	h.addVMs(h.vcenter.ID, 3)
	s := h.selected(0)
	h.clock.pass(time.Minute)
	late := h.addVMs(h.vcenter.ID, 1)
	s = h.follow(s, true, 3, 1)
	h.clock.set(noon.Add(time.Hour))
	byHand := must(h.BackupVM(h.ctx, late[0].ID, backup.RunOptions{RetentionDays: 1}))(t)
	h.dispatch(1)
	for _, j := range h.runs(s.ID)[0].Jobs {
		if j.Unbooked != (j.VMID == late[0].ID) {
			t.Errorf("job of %s has no seat: %t", j.VMName, j.Unbooked)
		}
	}
	if !byHand.Jobs[0].Unbooked {
		t.Error("a run by hand has a seat, want none")
	}
	h.clock.pass(50 * time.Minute) // all are due
	var order []string
	var last *backup.Job
	for range 3 {
		last = h.claim()
		if last == nil {
			t.Fatal("fewer than three backups run in an hour of three seats")
		}
		order = append(order, last.VMID)
	}
	if slices.Contains(order, late[0].ID) {
		t.Errorf("%v began, want those with a seat before the one without", order)
	}
	if j := h.claim(); j != nil {
		t.Errorf("job %s began beyond the hour's seats", j.ID)
	}
	h.finish(last, backup.Ending{State: backup.JobSucceeded})
	if j := h.claim(); j == nil || j.VMID != late[0].ID {
		t.Errorf("claimed %+v, want the member without a seat once there is room", j)
	}
}

// A day whose hour daylight saving skips is booked nowhere: its run begins in
// the next hour, after what is booked there.
func TestARunThatDaylightSavingMovedHasNoSeat(t *testing.T) {
	h := newHouse(t, 2)
	vms := h.addVMs(h.vcenter.ID, 2)
	for i, hour := range []int{2, 3} { // New York has no 02:00 on 14 March 2027
		s := nightly(vms[i].Name, hour)
		s.VMID, s.Recurrence.TimeZone, s.Recurrence.Date = vms[i].ID, "America/New_York", backup.Date{Year: 2027, Month: 3, Day: 14}
		h.add(s)
	}
	h.clock.set(time.Date(2027, 3, 14, 7, 0, 0, 0, time.UTC))
	h.dispatch(2)
	for _, r := range h.runs("") {
		if j := r.Jobs[0]; j.Unbooked != (j.VMID == vms[0].ID) {
			t.Errorf("job of %s (due %s) has no seat: %t", j.VMName, j.Due, j.Unbooked)
		}
	}
}
