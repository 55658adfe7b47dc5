package backup_test

import (
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// spanning is a court whose last group has members in a second vcenter too.
func spanning(t *testing.T, capacity, second int) (*court, backup.VCenter, backup.Group) {
	c := newCourt(t, capacity)
	other := c.addVCenter("b", "UTC", second)
	vms := append(c.addVMs(c.vcenter.ID, 1), c.addVMs(other.ID, 1)...)
	return c, other, c.addGroup("both", vms)
}

// TestARecommendationFitsEveryVCenterOfAGroup: what is recommended for a group
// that lies in two vcenters has room in both.
//
// seed:N60
func TestARecommendationFitsEveryVCenterOfAGroup(t *testing.T) {
	c, other, both := spanning(t, 1, 1)
	first := nightly("first", 2)
	first.GroupID = c.groups[0].ID
	c.add(first)
	for name, hour := range map[string]int{"before": 1, "after": 3} { // the hours beside are full in the second one
		s := nightly(name, hour)
		s.VMID = c.addVMs(other.ID, 1)[0].ID
		c.add(s)
	}
	s := nightly("s", 2)
	s.GroupID = both.ID
	_, err := c.CreateSchedule(c.ctx, s)
	e := refused(t, err, backup.SlotFull, "start_time")
	if len(e.Recommendations) == 0 || e.Recommendations[0].Recurrence.Hour != 0 {
		t.Errorf("recommended %+v, want 00:00: the nearest hour that is free in both vcenters", e.Recommendations)
	}
	c.bookable(s, e)
}

// TestAnOmittedStartTimeFindsTheHourThatFitsEveryVCenter: a large vcenter that
// is half full does not hide that a small one is full.
//
// seed:N58
func TestAnOmittedStartTimeFindsTheHourThatFitsEveryVCenter(t *testing.T) {
	c, other, both := spanning(t, 10, 1)
	small := nightly("small", 1)
	small.VMID = c.addVMs(other.ID, 1)[0].ID
	c.add(small)
	large := nightly("large", 2)
	large.GroupID = c.groups[4].ID
	c.add(large)
	s := nightly("s", -1)
	s.GroupID, s.EarliestHour, s.LatestHour = both.ID, 1, 2
	if s = c.add(s); s.Recurrence.Hour != 2 {
		t.Errorf("picked %02d:00, want 02:00: the small vcenter has no seat at 01:00", s.Recurrence.Hour)
	}
}

// TestABackupThatStillRunsHoldsItsSeat: the further hours of a duration count,
// also when the slot in which it began is over.
func TestABackupThatStillRunsHoldsItsSeat(t *testing.T) {
	c := newCourt(t, 1)
	long := nightly("long", 10)
	long.GroupID, long.DurationHours = c.groups[0].ID, 4
	c.clock.pass(-5 * 3600e9) // 07:00, before it begins
	c.add(long)
	c.clock.pass(5 * 3600e9)
	once := nightly("once", 13)
	once.GroupID, once.Recurrence.Kind, once.Recurrence.Date = c.groups[0].ID, backup.OneTime, backup.DateOf(noon)
	_, err := c.CreateSchedule(c.ctx, once)
	e := refused(t, err, backup.SlotFull, "start_time")
	c.bookable(once, e)
}

// TestASlotThatIsOverHoldsNothing: a schedule made after its slot begins with
// its next occurrence, so that today's later hours are free.
func TestASlotThatIsOverHoldsNothing(t *testing.T) {
	c := newCourt(t, 1)
	long := nightly("long", 10)
	long.GroupID, long.DurationHours = c.groups[0].ID, 4
	c.add(long) // at noon: its first run is tomorrow's
	once := nightly("once", 13)
	once.GroupID, once.Recurrence.Kind, once.Recurrence.Date = c.groups[0].ID, backup.OneTime, backup.DateOf(noon)
	c.add(once)
}

// TestSchedulesThatFollowTheirGroupLeaveEachOtherTheirSeats: one that finds no
// more room keeps what it holds, and the next one does not take it.
func TestSchedulesThatFollowTheirGroupLeaveEachOtherTheirSeats(t *testing.T) {
	c := newCourt(t, 2)
	g := must(c.CreateGroup(c.ctx, backup.Group{Name: "pool", Selector: &backup.Selector{VCenterID: c.vcenter.ID, NameRegex: "^pool"}}))(t)
	for _, name := range []string{"first", "second"} {
		s := nightly(name, 2)
		s.GroupID = g.ID
		c.add(s)
	}
	var vms []backup.VirtualMachine
	for _, name := range []string{"pool1", "pool2", "pool3"} {
		vms = append(vms, backup.VirtualMachine{VCenterID: c.vcenter.ID, InstanceUUID: name, MOID: name, Name: name})
	}
	c.save(vms)
	for range 3 {
		must(c.FollowGroups(c.ctx, c.vcenter.ID, true))(t)
		if n := c.taken(c.vcenter.ID)[tonight(2)]; n != 2 {
			t.Fatalf("%d of 2 seats are booked, want both and no more", n)
		}
	}
}
