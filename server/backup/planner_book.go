package backup

import (
	"context"
	"slices"
	"strings"
	"time"
)

// book completes and checks s, and finds the seats it needs. old is what is
// stored of it; nil = nothing.
func (p *Planner) book(ctx context.Context, tx *planTx, s *Schedule, old *Schedule) ([]SeatsBooked, error) {
	*s = s.Defaulted()
	counts, err := p.target(ctx, tx, s)
	if err != nil {
		return nil, err
	}
	if err := p.repository(ctx, tx, s); err != nil {
		return nil, err
	}
	if err := s.Validate(p.profile()); err != nil {
		return nil, err
	}
	if err := checkOffline(ctx, tx, *s); err != nil {
		return nil, err
	}
	if old != nil {
		s.keepHour(*old, tx.Now())
		if err := s.keepGrowth(ctx, tx, *old, counts); err != nil {
			return nil, err
		}
	}
	s.Seats = 0
	for _, c := range counts {
		s.Seats += c.Seats
	}
	if err := p.place(ctx, tx, s, old, counts); err != nil || !s.Enabled {
		return nil, err
	}
	return slices.DeleteFunc(counts, func(c SeatsBooked) bool { return c.Seats == 0 }), nil
}

// keepHour gives s the hour that the server once picked for it, while that
// hour is in its start window and can still come.
func (s *Schedule) keepHour(old Schedule, now time.Time) {
	hour := old.Recurrence.Hour
	if s.Recurrence.Hour >= 0 || !old.StartTimeChosen || hour < s.EarliestHour || hour > s.LatestHour {
		return
	}
	kept := s.Recurrence
	kept.Hour = hour
	if sameDays(old.Recurrence, kept) || kept.timely(now) == nil {
		s.Recurrence.Hour, s.StartTimeChosen = hour, true
	}
}

// place finds s a slot where it has none, and checks that it is to come and
// has room. A disabled schedule needs no room. It notes in counts since when
// the seats are held.
func (p *Planner) place(ctx context.Context, tx *planTx, s *Schedule, old *Schedule, counts []SeatsBooked) error {
	var all desks
	defer func() { all.close() }()
	if s.Enabled || s.Recurrence.Hour < 0 {
		for _, c := range counts {
			d, err := openDesk(ctx, tx, s, c)
			if err != nil {
				return err
			}
			all = append(all, d)
		}
	}
	if s.Recurrence.Hour < 0 {
		s.pick(all, tx.Now())
	}
	if old == nil || !sameDays(old.Recurrence, s.Recurrence) {
		if err := s.Recurrence.timely(tx.Now()); err != nil {
			return err
		}
	}
	if !s.Enabled {
		return nil
	}
	if err := all.admit(s.Recurrence); err != nil {
		return err
	}
	for i, d := range all {
		counts[i].Since = d.want.Since
		if d.keeps(s.Recurrence) {
			counts[i].Since = d.held.Since
		}
	}
	return nil
}

// openDesk takes what s holds of the vcenter's seats out of the index until the
// desk is closed.
func openDesk(ctx context.Context, tx *planTx, s *Schedule, c SeatsBooked) (desk, error) {
	d := desk{want: s.booking(c)}
	d.want.Since = tx.Now().Add(-bookable)
	var err error
	if d.vcenter, err = tx.VCenter(ctx, c.VCenterID); err != nil {
		return d, err
	}
	if d.seats, err = tx.seats(ctx, c.VCenterID); err != nil {
		return d, err
	}
	if s.ID != "" {
		d.held = tx.free(d.seats, s.ID)
	}
	return d, nil
}

// covers says whether who holds b has a seat for each of w's.
func (b Booking) covers(w Booking) bool {
	return sameDays(b.Recurrence, w.Recurrence) && b.WindowHours == w.WindowHours && b.DurationHours == w.DurationHours &&
		(b.Seats == w.Seats || b.Seats > w.Seats && b.WindowHours == 1)
}

func (s Schedule) booking(c SeatsBooked) Booking {
	return Booking{ScheduleID: s.ID, Name: s.Name, Recurrence: s.Recurrence, WindowHours: s.WindowHours, DurationHours: s.DurationHours, Seats: c.Seats}
}

// pick gives s the hour, within its start window, at which the fullest hour of
// its vcenters stays least full for its size; ties go to the earlier hour, so
// that the choice is the same each time. Without an hour that is still to come
// it is the earliest.
func (s *Schedule) pick(all desks, now time.Time) {
	best, least := -1, 0.0
	for h := s.EarliestHour; h <= s.LatestHour; h++ {
		s.Recurrence.Hour = h
		if s.Recurrence.timely(now) != nil {
			continue
		}
		if load := all.load(s.Recurrence); best < 0 || load < least {
			best, least = h, load
		}
	}
	s.Recurrence.Hour, s.StartTimeChosen = max(best, s.EarliestHour), true
}

// target resolves what s backs up: the seats per vcenter, in the order of
// their ids, and the time zone where none is given. A vcenter that the group
// has no VM of just now has no seats.
func (p *Planner) target(ctx context.Context, tx Tx, s *Schedule) ([]SeatsBooked, error) {
	vms, reserved, err := p.targetVMs(ctx, tx, s)
	if err != nil {
		return nil, err
	}
	var counts []SeatsBooked
	of := func(vcenterID string) *SeatsBooked {
		i := slices.IndexFunc(counts, func(c SeatsBooked) bool { return c.VCenterID == vcenterID })
		if i < 0 {
			counts = append(counts, SeatsBooked{VCenterID: vcenterID})
			i = len(counts) - 1
		}
		return &counts[i]
	}
	for _, vm := range vms {
		if c := of(vm.VCenterID); !vm.Gone() { // one that is gone takes no seat, but its zone counts
			c.Seats++
		}
	}
	s.UnbookedSeats = 0
	if reserved.VCenterID != "" {
		if c := of(reserved.VCenterID); reserved.Seats > 0 {
			s.UnbookedSeats = max(0, c.Seats-reserved.Seats) // FollowGroups looks for room for them
			c.Seats = reserved.Seats
		}
	}
	slices.SortFunc(counts, func(a, b SeatsBooked) int { return strings.Compare(a.VCenterID, b.VCenterID) })
	if s.Recurrence.TimeZone == "" {
		return counts, p.zone(ctx, tx, s, counts)
	}
	return counts, nil
}

func (p *Planner) targetVMs(ctx context.Context, tx Tx, s *Schedule) ([]VirtualMachine, SeatsBooked, error) {
	var reserved SeatsBooked
	if s.GroupID == "" {
		if s.VMID == "" {
			return nil, reserved, nil // Validate says so
		}
		vm, err := tx.Machine(ctx, s.VMID)
		if err == nil && vm.Gone() {
			err = Errorf(VMGone, "virtual_machine_id", "VM %q left its vcenter on %s, so it cannot be backed up.", vm.Name, vm.GoneAt.Format(time.DateOnly))
		}
		return []VirtualMachine{vm}, reserved, at("virtual_machine_id", err)
	}
	g, err := tx.Group(ctx, s.GroupID)
	if err != nil {
		return nil, reserved, at("group_id", err)
	}
	vms, err := members(ctx, tx, g)
	if g.Selector != nil {
		reserved = SeatsBooked{VCenterID: g.Selector.VCenterID, Seats: g.ReservedSeats}
	}
	return vms, reserved, err
}

// at names the field of a NotFound error that lacks it.
func at(field string, err error) error {
	if e := AsError(err); e != nil && e.Field == "" {
		c := *e
		c.Field = field
		return &c
	}
	return err
}

func (p *Planner) zone(ctx context.Context, tx Tx, s *Schedule, counts []SeatsBooked) error {
	zone := ""
	for _, c := range counts {
		v, err := tx.VCenter(ctx, c.VCenterID)
		if err != nil {
			return err
		}
		if zone != "" && zone != v.TimeZone {
			return Errorf(Invalid, "time_zone", "The group spans vcenters in %s and %s, so the schedule needs a time_zone of its own.", zone, v.TimeZone)
		}
		zone = v.TimeZone
	}
	if zone == "" {
		zone = "UTC"
	}
	s.Recurrence.TimeZone = zone
	return nil
}

// repository puts the ids of the repositories in place of their names, or of nothing.
func (p *Planner) repository(ctx context.Context, tx Tx, s *Schedule) error {
	r, err := FindRepository(ctx, tx, s.RepositoryID)
	s.RepositoryID = r.ID
	if err != nil {
		return at("repository", err)
	}
	return p.copyTo(ctx, tx, s)
}
