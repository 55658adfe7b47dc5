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
	err = p.Store.View(ctx, func(tx Tx) error {
		slots, next, err = p.timeslots(ctx, tx, q)
		return err
	})
	return slots, next, err
}

func (p *Planner) timeslots(ctx context.Context, tx Tx, q TimeslotQuery) (slots []Timeslot, next time.Time, err error) {
	v, err := tx.VCenter(ctx, q.VCenterID)
	if err != nil {
		return nil, next, at("vcenter_id", err)
	}
	loc, err := q.complete(v, tx.Now())
	if err != nil {
		return nil, next, err
	}
	booked, err := tx.Booked(ctx, v.ID)
	if err != nil {
		return nil, next, err
	}
	seats := newSeats(tx.Now())
	for _, b := range booked {
		seats.add(b, 1)
	}
	for start := range wholeHours(q.From.In(loc), q.To) {
		if q.Limit > 0 && len(slots) == q.Limit {
			next = start
			break
		}
		s := Timeslot{Start: start, Capacity: v.SlotCapacity, Used: seats.usedFrom(start)}
		s.Free = max(0, s.Capacity-s.Used)
		if q.Who {
			s.Schedules = holders(booked, start, tx.Now())
		}
		slots = append(slots, s)
	}
	recommendDaily(slots)
	return slots, next, nil
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

// usedFrom is how many seats the fuller one of the UTC hours holds that the
// hour from start on touches.
func (x *seatsIndex) usedFrom(start time.Time) int {
	var used int32
	for h := start.Unix() / 3600; h <= (start.Unix()+3599)/3600; h++ {
		if i := h - x.first; i >= 0 && i < int64(len(x.used)) {
			used = max(used, x.used[i])
		}
	}
	return int(used)
}

// holders lists who holds seats of the hour from start on, by name.
func holders(booked []Booking, start, now time.Time) []TimeslotHolder {
	var out []TimeslotHolder
	for _, b := range booked {
		own := newSeats(now)
		own.add(b, 1)
		if n := own.usedFrom(start); n > 0 {
			out = append(out, TimeslotHolder{ScheduleID: b.ScheduleID, Name: b.Name, Seats: n})
		}
	}
	slices.SortFunc(out, func(a, b TimeslotHolder) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// recommendDaily marks the emptiest slot of each local day.
func recommendDaily(slots []Timeslot) {
	for from := 0; from < len(slots); {
		day, best := DateOf(slots[from].Start), -1
		to := from
		for ; to < len(slots) && DateOf(slots[to].Start) == day; to++ {
			if s := slots[to]; s.Free > 0 && (best < 0 || s.Free > slots[best].Free) {
				best = to
			}
		}
		if best >= 0 {
			slots[best].Recommended = true
		}
		from = to
	}
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
	err = p.Store.View(ctx, func(tx Tx) error {
		v, err := tx.VCenter(ctx, vcenterID)
		if err != nil {
			return err
		}
		booked, err := tx.Booked(ctx, vcenterID)
		if err != nil {
			return err
		}
		x := newSeats(tx.Now())
		for _, b := range booked {
			x.add(b, 1)
		}
		o = OverBooked{}
		for i, used := range x.used {
			if int(used) <= v.SlotCapacity {
				continue
			}
			if o.Hours++; o.Hours == 1 {
				o.First = time.Unix((x.first+int64(i))*3600, 0).UTC()
			}
			o.Most = max(o.Most, int(used))
		}
		return nil
	})
	return o, err
}
