package backup

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Timeslot is one hour of a vcenter, as its seats stand. It is a whole hour of
// the time zone that it was asked for in: where that lies half an hour beside
// UTC, the fuller one of the two UTC hours that it touches counts.
type Timeslot struct {
	Start       time.Time // in the zone that was asked for
	Capacity    int       // seats of the hour
	Used        int       // seats that are booked; more than Capacity after that was made smaller
	Free        int       // seats that can be booked, 0 or more
	Recommended bool      // the emptiest slot of its local day that still has a seat free; ties go to the earlier
	Schedules   []TimeslotHolder
}

// TimeslotHolder is who holds seats of a slot.
type TimeslotHolder struct {
	ScheduleID string
	Name       string
	Seats      int // in the slot's fullest hour
}

// TimeslotQuery chooses slots of one vcenter.
type TimeslotQuery struct {
	VCenterID string
	TimeZone  string    // IANA; "" = the vcenter's
	From      time.Time // zero = now. Hours that are over are not listed
	To        time.Time // slots that start before it; zero = 7 days after From. At most 400 days from now
	Limit     int       // slots at most; 0 = all
	Who       bool      // with Schedules
}

// Timeslots lists the coming hours of a vcenter with their seats, soonest
// first, and when to go on from; zero = there are no more. Errors: NotFound,
// Invalid.
func (p *Planner) Timeslots(ctx context.Context, q TimeslotQuery) (slots []Timeslot, next time.Time, err error) {
	err = p.view(ctx, func(tx *planTx) error {
		slots, next, err = p.timeslots(ctx, tx, q)
		return err
	})
	return slots, next, err
}

func (p *Planner) timeslots(ctx context.Context, tx *planTx, q TimeslotQuery) (slots []Timeslot, next time.Time, err error) {
	v, err := tx.VCenter(ctx, q.VCenterID)
	if err != nil {
		return nil, next, at("vcenter_id", err)
	}
	loc, err := q.complete(v, tx.Now())
	if err != nil {
		return nil, next, err
	}
	x, err := tx.seats(ctx, v.ID)
	if err != nil {
		return nil, next, err
	}
	for start := range wholeHours(q.From.In(loc), q.To) {
		if q.Limit > 0 && len(slots) == q.Limit {
			next = start
			break
		}
		slots = append(slots, x.timeslot(start, v, q.Who))
	}
	x.recommendDaily(slots, v)
	return slots, next, nil
}

func (x *seatIndex) timeslot(start time.Time, v VCenter, who bool) Timeslot {
	s := Timeslot{Start: start, Capacity: v.SlotCapacity, Used: x.usedFrom(start)}
	s.Free = max(0, s.Capacity-s.Used)
	if who {
		s.Schedules = x.whoIn(start)
	}
	return s
}

// complete fills in what q leaves open, and checks the rest.
func (q *TimeslotQuery) complete(v VCenter, now time.Time) (*time.Location, error) {
	if q.TimeZone == "" {
		q.TimeZone = v.TimeZone
	}
	loc, err := Recurrence{TimeZone: q.TimeZone}.Location()
	if err != nil {
		return nil, err
	}
	if q.From.IsZero() {
		q.From = now
	}
	if q.To.IsZero() {
		q.To = q.From.AddDate(0, 0, 7)
	}
	if !q.From.Before(q.To) {
		return nil, Errorf(Invalid, "to", "to must come after from, got %s and %s.", q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	}
	if end := now.AddDate(0, 0, horizonDays); q.To.After(end) {
		return nil, Errorf(Invalid, "to", "Seats are counted %d days ahead: to must not come after %s.", horizonDays, end.In(loc).Format(time.RFC3339))
	}
	if running := now.Add(-time.Hour + time.Nanosecond); q.From.Before(running) {
		q.From = running
	}
	return loc, nil
}

// wholeHours yields the whole hours of from's zone from then on and before to.
// A whole hour that a change of the clock makes last less or more is listed at
// each of the instants at which it begins.
func wholeHours(from, to time.Time) func(yield func(time.Time) bool) {
	return func(yield func(time.Time) bool) {
		for t := from; ; {
			if into := time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond()); into > 0 {
				t = t.Add(time.Hour - into)
				continue
			}
			if !t.Before(to) || !yield(t) {
				return
			}
			t = t.Add(time.Hour)
		}
	}
}

// whoIn lists who holds seats of the hour from start on, by name.
func (x *seatIndex) whoIn(start time.Time) []TimeslotHolder {
	var out []TimeslotHolder
	m := int(x.horizon.minute(start))
	for i := m / 60; i <= (m+59)/60; i++ {
		for _, b := range x.holders(i, 0) {
			seats := int(x.holds(*b, x.horizon.zone(b.Recurrence.TimeZone), i))
			k := slices.IndexFunc(out, func(h TimeslotHolder) bool { return h.ScheduleID == b.ScheduleID })
			if k < 0 {
				out = append(out, TimeslotHolder{ScheduleID: b.ScheduleID, Name: b.Name, Seats: seats})
			} else {
				out[k].Seats = max(out[k].Seats, seats)
			}
		}
	}
	slices.SortFunc(out, func(a, b TimeslotHolder) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// recommendDaily marks the emptiest slot of each local day, also where slots
// lists but a part of it.
func (x *seatIndex) recommendDaily(slots []Timeslot, v VCenter) {
	var day Date
	var best time.Time
	for i, s := range slots {
		if d := DateOf(s.Start); d != day {
			day, best = d, x.emptiest(s.Start, v)
		}
		slots[i].Recommended = s.Start.Equal(best)
	}
}

// emptiest is the slot to come with the most free seats of the local day of t;
// zero = all are full.
func (x *seatIndex) emptiest(t time.Time, v VCenter) (best time.Time) {
	y, m, d := t.Date()
	from := time.Date(y, m, d, 0, 0, 0, 0, t.Location())
	if closed := x.now.Add(-bookable); from.Before(closed) {
		from = closed.In(t.Location())
	}
	least := v.SlotCapacity
	for start := range wholeHours(from, time.Date(y, m, d+1, 0, 0, 0, 0, t.Location())) {
		if used := x.usedFrom(start); used < least && DateOf(start) == DateOf(t) {
			least, best = used, start
		}
	}
	return best
}

// OverBooked tells of the coming hours of a vcenter that hold more seats than
// there are, since its capacity was made smaller. Nothing of them is dropped:
// their backups queue when they come.
type OverBooked struct {
	Hours int       // UTC hours
	First time.Time // the first of them; zero = there is none
	Most  int       // seats booked in the fullest
}

// OverBooked counts the over-booked hours of a vcenter. Errors: NotFound.
func (p *Planner) OverBooked(ctx context.Context, vcenterID string) (o OverBooked, err error) {
	err = p.view(ctx, func(tx *planTx) error {
		v, err := tx.VCenter(ctx, vcenterID)
		if err != nil {
			return err
		}
		x, err := tx.seats(ctx, vcenterID)
		if err != nil {
			return err
		}
		o = x.overBooked(v.SlotCapacity)
		return nil
	})
	return o, err
}

func (x *seatIndex) overBooked(capacity int) (o OverBooked) {
	for i := int(x.horizon.minute(x.now) / 60); i < int(x.upTo/60); i++ {
		used := int(x.used[i])
		if used <= capacity {
			continue
		}
		if o.Hours++; o.Hours == 1 {
			o.First = x.horizon.hour(i)
		}
		o.Most = max(o.Most, used)
	}
	return o
}
