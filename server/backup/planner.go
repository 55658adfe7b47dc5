package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Planner is where every change of what is wanted goes through: it applies the
// rules within one transaction of the store. Store is required.
type Planner struct {
	Store        Store
	VSphere      VSphere          // asked once when a vcenter is added or its access changes; nil = not asked
	Profile      RetentionProfile // "" = standard
	SlotCapacity int              // of a vcenter that names none; 0 = 10
	Wake         func()           // called after new jobs were committed; nil = nothing
}

func (p *Planner) profile() RetentionProfile {
	if p.Profile == "" {
		return ProfileStandard
	}
	return p.Profile
}

func (p *Planner) wake() {
	if p.Wake != nil {
		p.Wake()
	}
}

// CreateSchedule books the seats of s and stores it. Errors: Invalid, NotFound
// (group, VM or repository), Conflict (name), SlotFull, SlotClosed,
// ExceedsCapacity.
func (p *Planner) CreateSchedule(ctx context.Context, s Schedule) (Schedule, error) {
	err := p.Store.Update(ctx, func(tx Tx) error {
		c := s
		if err := p.insertSchedule(ctx, tx, &c, nil); err != nil {
			return err
		}
		s = c
		return nil
	})
	if err != nil {
		return Schedule{}, fmt.Errorf("create schedule %q: %w", s.Name, err)
	}
	return s, nil
}

func (p *Planner) insertSchedule(ctx context.Context, tx Tx, s *Schedule, ignore []string) error {
	seats, err := p.book(ctx, tx, s, nil, ignore)
	if err != nil {
		return err
	}
	if err := tx.InsertSchedule(ctx, s, seats); err != nil {
		return err
	}
	return tx.SetDueMark(ctx, s.ID, tx.Now().Add(-bookable))
}

// UpdateSchedule gives the seats of the stored schedule back, books those of s
// and stores it. s.Version 0 means whatever is stored. Errors: as of
// CreateSchedule, and Stale.
func (p *Planner) UpdateSchedule(ctx context.Context, s Schedule) (Schedule, error) {
	err := p.Store.Update(ctx, func(tx Tx) error {
		c := s
		if err := p.updateSchedule(ctx, tx, &c); err != nil {
			return err
		}
		s = c
		return nil
	})
	if err != nil {
		return Schedule{}, fmt.Errorf("update schedule %q: %w", s.Name, err)
	}
	return s, nil
}

func (p *Planner) updateSchedule(ctx context.Context, tx Tx, s *Schedule) error {
	old, err := tx.Schedule(ctx, s.ID)
	if err != nil {
		return err
	}
	if s.Version == 0 {
		s.Version = old.Version
	}
	s.Project, s.CreatedAt = old.Project, old.CreatedAt
	if s.Recurrence.Hour < 0 && old.StartTimeChosen && within(old.Recurrence.Hour, s.EarliestHour, s.LatestHour) {
		s.Recurrence.Hour, s.StartTimeChosen = old.Recurrence.Hour, true // a slot that the server picked is kept
	}
	seats, err := p.book(ctx, tx, s, &old, nil)
	if err != nil {
		return err
	}
	if err := tx.UpdateSchedule(ctx, s, seats); err != nil {
		return err
	}
	if old.Enabled && sameDays(old.Recurrence, s.Recurrence) {
		return nil
	}
	// What was due while it was disabled, or by the old calendar, is not made up for.
	return tx.SetDueMark(ctx, s.ID, tx.Now().Add(-bookable))
}

func sameDays(a, b Recurrence) bool {
	return a.Describe() == b.Describe()
}

func within(hour, earliest, latest int) bool { return earliest <= hour && hour <= latest }

// DeleteSchedule removes a schedule and gives its seats back. Its images stay
// (seed A51, A59). Errors: NotFound, InUse (deletion protection).
func (p *Planner) DeleteSchedule(ctx context.Context, id string) error {
	return p.Store.Update(ctx, func(tx Tx) error {
		s, err := tx.Schedule(ctx, id)
		if err != nil {
			return err
		}
		if s.DeletionProtect {
			return Errorf(InUse, "deletion_protection", "Schedule %q is protected from deletion. Set deletion_protection = false first.", s.Name)
		}
		return tx.DeleteSchedule(ctx, id)
	})
}

// errRollback ends a transaction whose changes are not wanted.
var errRollback = errors.New("roll back")

// Planned is a change of another schedule in the same plan: with Schedule only
// it will be made, with both changed, with ID only deleted.
type Planned struct {
	ID       string
	Schedule *Schedule
}

// CheckSchedule tells whether s could be stored now, when the others, which the
// same plan wants, are there too: the seats that they give up are free, those
// that they take are taken. It returns s as it would be, and warnings. Errors:
// as of CreateSchedule, or UpdateSchedule when s.ID is set.
func (p *Planner) CheckSchedule(ctx context.Context, s Schedule, others []Planned) (Schedule, []string, error) {
	var warnings []string
	err := p.Store.Update(ctx, func(tx Tx) error {
		if err := release(ctx, tx, s.ID, others); err != nil {
			return err
		}
		for _, o := range others {
			if o.Schedule == nil {
				continue
			}
			c := *o.Schedule
			c.ID, c.Version = o.ID, 0
			if err := p.put(ctx, tx, &c); err != nil && CodeOf(err) == Internal {
				return err // the other's own refusal is told where it is checked itself
			}
		}
		c := s
		if err := p.put(ctx, tx, &c); err != nil {
			return err
		}
		s, warnings = c, c.warnings(tx.Now())
		return errRollback
	})
	if !errors.Is(err, errRollback) {
		return Schedule{}, nil, err
	}
	return s, warnings, nil
}

// release gives back the seats of the schedules that a plan changes or deletes.
func release(ctx context.Context, tx Tx, id string, others []Planned) error {
	ids := []string{id}
	for _, o := range others {
		ids = append(ids, o.ID)
	}
	for _, id := range ids {
		if id == "" {
			continue
		}
		old, err := tx.Schedule(ctx, id)
		if CodeOf(err) == NotFound {
			continue
		}
		if err == nil {
			err = tx.UpdateSchedule(ctx, &old, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Planner) put(ctx context.Context, tx Tx, s *Schedule) error {
	if s.ID != "" {
		s.Version = 0
		return p.updateSchedule(ctx, tx, s)
	}
	return p.insertSchedule(ctx, tx, s, nil)
}

// warnings says what of s may surprise (seed N36).
func (s Schedule) warnings(now time.Time) []string {
	loc, err := s.Recurrence.Location()
	if err != nil {
		return nil
	}
	months := s.Recurrence.SkippedMonths(DateOf(now.In(loc)))
	if len(months) == 0 {
		return nil
	}
	names := make([]string, len(months))
	for i, m := range months {
		names[i] = fmt.Sprintf("%s %d", m.Month, m.Year)
	}
	return []string{fmt.Sprintf("No run in %s: the month lacks the day (%s).", list(names), s.Recurrence.Describe())}
}

// book completes and checks s, and finds the seats it needs. old is what is
// stored of it; nil = nothing. ignore names schedules whose seats do not count.
func (p *Planner) book(ctx context.Context, tx Tx, s *Schedule, old *Schedule, ignore []string) ([]SeatsBooked, error) {
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
	if old == nil || !sameDays(old.Recurrence, s.Recurrence) {
		if err := s.Recurrence.timely(tx.Now()); err != nil {
			return nil, err
		}
	}
	s.Seats = 0
	for _, c := range counts {
		s.Seats += c.Seats
	}
	if !s.Enabled {
		return nil, p.placeDisabled(s)
	}
	return counts, p.place(ctx, tx, s, counts, append(ignore, s.ID))
}

// placeDisabled gives a disabled schedule, which books nothing, its hour.
func (p *Planner) placeDisabled(s *Schedule) error {
	if s.Recurrence.Hour < 0 {
		s.Recurrence.Hour, s.StartTimeChosen = s.EarliestHour, true
	}
	return nil
}

// place finds s a slot where it has none, and checks that there is room.
func (p *Planner) place(ctx context.Context, tx Tx, s *Schedule, counts []SeatsBooked, ignore []string) error {
	var vcenters []VCenter
	var indexes []*seatsIndex
	for _, c := range counts {
		if err := tx.LockVCenter(ctx, c.VCenterID); err != nil {
			return err
		}
		v, err := tx.VCenter(ctx, c.VCenterID)
		if err != nil {
			return err
		}
		booked, err := tx.Booked(ctx, c.VCenterID)
		if err != nil {
			return err
		}
		x := newSeats(tx.Now())
		for _, b := range booked {
			if !slices.Contains(ignore, b.ScheduleID) {
				x.add(b, 1)
			}
		}
		vcenters, indexes = append(vcenters, v), append(indexes, x)
	}
	if s.Recurrence.Hour < 0 {
		s.pick(indexes, counts)
	}
	for i, x := range indexes {
		if err := x.admit(s.booking(counts[i]), vcenters[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s Schedule) booking(c SeatsBooked) Booking {
	return Booking{ScheduleID: s.ID, Name: s.Name, Recurrence: s.Recurrence, WindowHours: s.WindowHours, DurationHours: s.DurationHours, Seats: c.Seats}
}

// pick gives s the hour, within its start window, at which its fullest hour
// stays least full; ties go to the earlier hour, so that the choice is the
// same each time.
func (s *Schedule) pick(indexes []*seatsIndex, counts []SeatsBooked) {
	best, least := -1, int32(0)
	for h := s.EarliestHour; h <= s.LatestHour; h++ {
		s.Recurrence.Hour = h
		if len(indexes) > 0 && s.Recurrence.timely(indexes[0].now) != nil {
			continue
		}
		var worst int32
		for i, x := range indexes {
			peak, _ := x.add(s.booking(counts[i]), 1)
			x.add(s.booking(counts[i]), -1)
			worst = max(worst, peak)
		}
		if best < 0 || worst < least {
			best, least = h, worst
		}
	}
	s.Recurrence.Hour, s.StartTimeChosen = max(best, s.EarliestHour), true
}

// target resolves what s backs up: the VMs per vcenter, and the time zone where
// none is given.
func (p *Planner) target(ctx context.Context, tx Tx, s *Schedule) ([]SeatsBooked, error) {
	vms, reserved, err := p.targetVMs(ctx, tx, s)
	if err != nil {
		return nil, err
	}
	var counts []SeatsBooked
	for _, vm := range vms {
		i := slices.IndexFunc(counts, func(c SeatsBooked) bool { return c.VCenterID == vm.VCenterID })
		if i < 0 {
			counts = append(counts, SeatsBooked{VCenterID: vm.VCenterID})
			i = len(counts) - 1
		}
		counts[i].Seats++
	}
	if reserved.Seats > 0 {
		i := slices.IndexFunc(counts, func(c SeatsBooked) bool { return c.VCenterID == reserved.VCenterID })
		if i < 0 {
			counts = append(counts, reserved)
		} else {
			counts[i].Seats = reserved.Seats
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
	if g.Selector != nil && g.ReservedSeats > 0 {
		reserved = SeatsBooked{VCenterID: g.Selector.VCenterID, Seats: g.ReservedSeats}
	}
	return slices.DeleteFunc(vms, VirtualMachine.Gone), reserved, err
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

// repository puts the id of the repository in place of its name, or of nothing.
func (p *Planner) repository(ctx context.Context, tx Tx, s *Schedule) error {
	r, err := FindRepository(ctx, tx, s.RepositoryID)
	s.RepositoryID = r.ID
	return at("repository", err)
}
