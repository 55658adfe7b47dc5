package backup

import (
	"context"
	"maps"
	"slices"
)

// A group with a selector grows and shrinks by itself. Its schedules follow
// when the inventory has been read: they book the seats of new members, as far
// as there is room, and give back those of members that left. Members without
// a seat run when the hour has room, after those that have one.

// FollowGroups books the enabled schedules of the vcenter's selector groups
// for the members that they have now, and returns those for which that changed
// anything. changed says that the inventory is another than before: then it is
// noted who has joined and left. Without it only members that have no seat yet
// are looked after.
func (p *Planner) FollowGroups(ctx context.Context, vcenterID string, changed bool) ([]Schedule, error) {
	if changed {
		if err := p.lookAtGroups(ctx, vcenterID); err != nil {
			return nil, err
		}
	}
	var behind []string
	err := p.view(ctx, func(tx *planTx) (err error) {
		behind, err = schedulesBehind(ctx, tx, vcenterID, changed)
		return err
	})
	if err != nil || len(behind) == 0 {
		return nil, err
	}
	var followed []Schedule
	err = p.update(ctx, func(tx *planTx) error {
		followed = nil
		inv := inventories{}
		for _, id := range behind {
			s, err := follow(ctx, tx, id, inv)
			if err != nil {
				return err
			}
			if s.ID != "" {
				followed = append(followed, s)
			}
		}
		return nil
	})
	return followed, err
}

// schedulesBehind lists the schedules that hold other seats than their groups
// ask for.
func schedulesBehind(ctx context.Context, tx *planTx, vcenterID string, changed bool) ([]string, error) {
	groups, err := selecting(ctx, tx, vcenterID)
	if err != nil || len(groups) == 0 {
		return nil, err
	}
	all, _, err := tx.Schedules(ctx, ScheduleFilter{EnabledOnly: true, Unbooked: true})
	if changed {
		for _, g := range groups {
			of, _, gerr := tx.Schedules(ctx, ScheduleFilter{EnabledOnly: true, GroupID: g.ID})
			if gerr != nil {
				return nil, gerr
			}
			all = append(all, of...)
		}
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	inv := inventories{}
	for _, s := range all {
		g, ok := groups[s.GroupID]
		if !ok || slices.Contains(ids, s.ID) {
			continue
		}
		live, err := inv.live(ctx, tx, g)
		if err != nil {
			return nil, err
		}
		held, err := tx.heldBy(ctx, vcenterID, s.ID)
		if err != nil {
			return nil, err
		}
		if held.Seats != max(live[vcenterID], g.ReservedSeats) || s.UnbookedSeats > 0 {
			ids = append(ids, s.ID)
		}
	}
	return ids, nil
}

// selecting finds the groups whose selector chooses VMs of the vcenter, by id.
func selecting(ctx context.Context, tx Tx, vcenterID string) (map[string]Group, error) {
	out := map[string]Group{}
	for page := (Page{Limit: 1000}); ; {
		groups, next, err := tx.Groups(ctx, page)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			if g.Selector != nil && g.Selector.VCenterID == vcenterID {
				out[g.ID] = g
			}
		}
		if page.Cursor = next; next == "" {
			return out, nil
		}
	}
}

// follow books what fits of the seats that the schedule's group asks for now.
// The schedule's ID is "" when nothing is to be told of it.
func follow(ctx context.Context, tx *planTx, id string, inv inventories) (Schedule, error) {
	s, err := tx.Schedule(ctx, id)
	if CodeOf(err) == NotFound || err == nil && (!s.Enabled || s.GroupID == "") { // changed meanwhile
		return Schedule{}, nil
	}
	if err != nil {
		return s, err
	}
	g, err := tx.Group(ctx, s.GroupID)
	if err != nil || g.Selector == nil {
		return Schedule{}, err
	}
	live, err := inv.live(ctx, tx, g)
	if err != nil {
		return s, err
	}
	want := map[string]int{g.Selector.VCenterID: max(live[g.Selector.VCenterID], g.ReservedSeats)}
	for v, n := range live {
		want[v] = max(want[v], n)
	}
	unbooked, moved := s.UnbookedSeats, false
	s.Seats, s.UnbookedSeats = 0, 0
	var booked []SeatsBooked
	for _, v := range slices.Sorted(maps.Keys(want)) {
		held, err := tx.heldBy(ctx, v, s.ID)
		if err != nil {
			return s, err
		}
		c, err := bookWhatFits(ctx, tx, &s, SeatsBooked{VCenterID: v, Seats: want[v]})
		if err != nil {
			return s, err
		}
		moved = moved || c.Seats != held.Seats
		s.Seats += c.Seats
		s.UnbookedSeats += max(0, live[v]-c.Seats)
		if c.Seats > 0 {
			booked = append(booked, c)
		}
	}
	if !moved && s.UnbookedSeats == unbooked {
		return Schedule{}, nil
	}
	return s, tx.SaveSeats(ctx, s, booked)
}

// bookWhatFits finds how many of the wanted seats the vcenter has room for:
// never fewer than the schedule holds, unless fewer are wanted. Seats are tried
// one by one, since a window's hours do not all gain with each one.
func bookWhatFits(ctx context.Context, tx *planTx, s *Schedule, want SeatsBooked) (SeatsBooked, error) {
	d, err := openDesk(ctx, tx, s, want)
	if err != nil {
		return want, err
	}
	defer desks{d}.close()
	step := -1
	if want.Seats < d.held.Seats {
		step = 1
	}
	for n := want.Seats; ; n += step {
		d.want.Seats = n
		if n == d.held.Seats || d.keeps(s.Recurrence) {
			return SeatsBooked{VCenterID: want.VCenterID, Seats: n, Since: d.held.Since}, nil
		}
		if _, ok := (desks{d}).fits(s.Recurrence); ok {
			return SeatsBooked{VCenterID: want.VCenterID, Seats: n, Since: d.want.Since}, nil
		}
	}
}

// heldBy is what the schedule holds of the vcenter's seats.
func (t *planTx) heldBy(ctx context.Context, vcenterID, scheduleID string) (Booking, error) {
	x, err := t.seats(ctx, vcenterID)
	if err != nil {
		return Booking{}, err
	}
	if held := x.held[scheduleID]; held != nil {
		return *held, nil
	}
	return Booking{}, nil
}

// keepGrowth lets a schedule that stays where it is keep the seats that its
// group has grown into, and leaves unbooked what it found no room for: a change
// of its retention must not be refused because the group has grown.
func (s *Schedule) keepGrowth(ctx context.Context, tx *planTx, old Schedule, counts []SeatsBooked) error {
	stays := old.Enabled && s.Enabled && s.GroupID == old.GroupID && s.GroupID != "" && sameDays(old.Recurrence, s.Recurrence) &&
		s.WindowHours == old.WindowHours && s.DurationHours == old.DurationHours
	if !stays {
		return nil
	}
	left := old.UnbookedSeats
	for i := range counts {
		c := &counts[i]
		held, err := tx.heldBy(ctx, c.VCenterID, s.ID)
		if err != nil {
			return err
		}
		if grown := min(held.Seats-c.Seats, s.UnbookedSeats); grown > 0 { // past what it reserves
			c.Seats += grown
			s.UnbookedSeats -= grown
		}
		if short := min(c.Seats-held.Seats, left); short > 0 {
			c.Seats -= short
			s.UnbookedSeats += short
			left -= short
		}
	}
	return nil
}
