package backup_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// FuzzAdmission asks about a plan of several schedules, and compares the answer
// about the last one with a recount of every hour.
func FuzzAdmission(f *testing.F) {
	f.Add([]byte("a plan of a few schedules that stand in each other's way, one after the other"))
	f.Add([]byte{1, 3, 9, 0, 0, 0, 0, 1, 1, 9, 0, 0, 0, 0, 1, 1, 9, 0, 0, 0, 0, 1, 1})
	f.Add([]byte{2, 4, 2, 1, 1, 0, 3, 5, 20, 20, 8, 2, 1, 1, 0, 3, 5, 21, 12, 8, 2, 1, 5})
	known := map[int]*recount{} // the walk over the zones' clocks, by day
	f.Fuzz(func(t *testing.T, input []byte) {
		pick := func(n int) int { // 0 when the input has ended
			if len(input) == 0 {
				return 0
			}
			v := int(input[0]) % n
			input = input[1:]
			return v
		}
		day := pick(16) * 23
		now := noon.Add(time.Duration(day) * 24 * time.Hour)
		c := paperCourt(t, now, 1+pick(8))
		if known[day] == nil {
			known[day] = newRecount(t, now)
		}
		count := &recount{TB: t, now: now, hours: known[day].hours, used: map[time.Time]int{}}
		var others []backup.Planned
		for range pick(7) {
			s, k := c.draw(pick)
			others = append(others, backup.Planned{Schedule: &s})
			if !count.closed(k.Recurrence) && count.fits(k, c.vcenter.SlotCapacity) {
				count.book(k)
			}
		}
		s, k := c.draw(pick)
		_, _, err := c.CheckSchedule(c.ctx, s, others)
		c.judge(count, k, err)
	})
}

// paperCourt is a court whose store keeps nothing: a check rolls back anyway.
func paperCourt(t *testing.T, now time.Time, capacity int) *court {
	p := &paper{now: now, vcenter: backup.VCenter{Meta: backup.Meta{ID: "v"}, Name: "a", TimeZone: "UTC", SlotCapacity: capacity}}
	h := &house{T: t, ctx: t.Context(), clock: &clock{now: now}, vcenter: p.vcenter,
		Planner: &backup.Planner{Store: p, Profile: backup.ProfileGeneral}}
	c := &court{house: h}
	for i := range largest {
		vm := backup.VirtualMachine{ID: fmt.Sprint("m", i), VCenterID: "v"}
		p.vms = append(p.vms, vm)
		c.groups = append(c.groups, backup.Group{Meta: backup.Meta{ID: fmt.Sprint("g", i)}, VirtualMachineIDs: ids(p.vms)})
	}
	p.groups = c.groups
	return c
}

// paper is a store that a plan is written on. Each transaction begins with a
// clean sheet.
type paper struct {
	now     time.Time
	vcenter backup.VCenter
	vms     []backup.VirtualMachine
	groups  []backup.Group
}

// sheet is a transaction of it, and has what a check of new schedules asks for.
type sheet struct {
	backup.Tx // nil: nothing else is asked for
	*paper
	booked []backup.Booking
}

func (p *paper) Update(_ context.Context, fn func(backup.Tx) error) error {
	return fn(&sheet{paper: p})
}

func (p *paper) View(_ context.Context, fn func(backup.Tx) error) error {
	return fn(&sheet{paper: p})
}

func (s *sheet) Now() time.Time { return s.now }

func (s *sheet) VCenter(context.Context, string) (backup.VCenter, error) { return s.vcenter, nil }

func (s *sheet) Group(_ context.Context, id string) (backup.Group, error) {
	for _, g := range s.groups {
		if g.ID == id {
			return g, nil
		}
	}
	return backup.Group{}, backup.Errorf(backup.NotFound, "", "There is no group %s.", id)
}

func (s *sheet) Machines(_ context.Context, f backup.MachineFilter) ([]backup.VirtualMachine, string, error) {
	return s.vms[:len(f.IDs)], "", nil // a group's VMs are the first ones
}

func (s *sheet) Repositories(context.Context, backup.Page) ([]backup.RepositoryRecord, string, error) {
	return []backup.RepositoryRecord{{Meta: backup.Meta{ID: "r"}, Default: true}}, "", nil
}

func (s *sheet) Repository(context.Context, string) (backup.RepositoryRecord, error) {
	return backup.RepositoryRecord{Meta: backup.Meta{ID: "r"}, Default: true}, nil
}

func (s *sheet) Images(context.Context, backup.ImageFilter) ([]backup.Image, string, error) {
	return nil, "", nil // nothing was backed up yet
}

func (s *sheet) SeatChanges(context.Context, string, int64) ([]backup.Booking, int64, bool, error) {
	return s.booked, 1, len(s.booked) > 0, nil
}

func (s *sheet) InsertSchedule(_ context.Context, n *backup.Schedule, seats []backup.SeatsBooked) error {
	n.ID = fmt.Sprint("s", len(s.booked))
	for _, b := range seats {
		s.booked = append(s.booked, backup.Booking{ScheduleID: n.ID, Name: n.Name, Recurrence: n.Recurrence,
			WindowHours: n.WindowHours, DurationHours: n.DurationHours, Seats: b.Seats, Since: b.Since})
	}
	return nil
}

func (s *sheet) SetDueMark(context.Context, string, time.Time) error { return nil }
