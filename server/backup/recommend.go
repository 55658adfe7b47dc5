package backup

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// slotFull is the error of a booking that the hour of index at, among others,
// has no room for. It says who holds the hour and what can be booked instead.
func (x *seatIndex) slotFull(b Booking, v VCenter, at int) error {
	loc, err := b.Recurrence.Location()
	if err != nil {
		return err
	}
	hour := x.horizon.hour(at).In(loc)
	e := Errorf(SlotFull, "start_time", "%s %s on %s holds %d of %d seats of vcenter %s%s, and this schedule needs %d more.%s",
		hour.Format("15:04"), b.Recurrence.TimeZone, hour.Format(time.DateOnly), x.used[at], v.SlotCapacity, v.Name, x.whoHolds(at),
		x.needs(b, at), x.otherFull(b, v.SlotCapacity))
	e.Recommendations = x.recommend(b, v.SlotCapacity)
	if len(e.Recommendations) > 0 {
		e.Message += " Free: " + e.Recommendations[0].text()
		for _, r := range e.Recommendations[1:] {
			e.Message += ", or " + r.text()
		}
		e.Message += "."
	}
	return e
}

// fewHolders is how many schedules a message names.
const fewHolders = 4

// whoHolds names the schedules that hold seats of the hour.
func (x *seatIndex) whoHolds(at int) string {
	var names []string
	for _, h := range x.holders(at) {
		names = append(names, h.Name)
	}
	switch more := len(names) - fewHolders; {
	case len(names) == 0:
		return ""
	case more > 0:
		return fmt.Sprintf(" (%s and %d more)", strings.Join(names[:fewHolders], ", "), more)
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// needs is how many seats b takes in that hour.
func (x *seatIndex) needs(b Booking, at int) int {
	return int(x.holds(b, x.horizon.zone(b.Recurrence.TimeZone), at))
}

// otherFull says on how many days b finds no room, when it is more than one.
func (x *seatIndex) otherFull(b Booking, capacity int) string {
	full, of := 0, 0
	x.add(b, 1)
	defer x.add(b, -1)
	x.each(b, x.from, x.upTo, func(_ int32, hour int, take *hourly) {
		of++
		if slices.Max(x.used[hour:hour+take.n]) > int32(capacity) {
			full++
		}
	})
	if full < 2 {
		return ""
	}
	return fmt.Sprintf(" There is no room on %d of its %d days up to %s.", full, of, x.now.AddDate(0, 0, horizonDays).Format(time.DateOnly))
}

func (r Recommendation) text() string {
	if r.Kind == SameDay {
		return fmt.Sprintf("%02d:00 (same days)", r.Recurrence.Hour)
	}
	return r.Recurrence.days() + " (same hour)"
}

// recommend returns what can be booked instead of b, in the order of the
// rules: the nearest hour of the same days, ties to the earlier; then the same
// hour on the nearest other days (seed N60).
func (x *seatIndex) recommend(b Booking, capacity int) []Recommendation {
	var out []Recommendation
	for _, c := range []struct {
		kind RecommendationKind
		next func(yield func(Recurrence) bool)
	}{{SameDay, b.Recurrence.otherHours}, {SameSlot, func(y func(Recurrence) bool) { x.otherDays(b, capacity, y) }}} {
		for r := range c.next {
			if r.timely(x.now) != nil {
				continue
			}
			o := b
			o.Recurrence = r
			if left, ok := x.fits(o, capacity); ok {
				out = append(out, Recommendation{Kind: c.kind, Recurrence: r, FreeSeats: left})
				break
			}
		}
	}
	return out
}

// otherHours yields r at the other hours of its days, nearest first.
func (r Recurrence) otherHours(yield func(Recurrence) bool) {
	hour := r.Hour
	for dist := 1; dist < 24; dist++ {
		for _, h := range [2]int{hour - dist, hour + dist} {
			if r.Hour = h; 0 <= h && h < 24 && !yield(r) {
				return
			}
		}
	}
}

// otherDays yields b's recurrence on other days, nearest first.
func (x *seatIndex) otherDays(b Booking, capacity int, yield func(Recurrence) bool) {
	r := b.Recurrence
	if r.Kind == Daily {
		if from, ok := x.freeFrom(b, capacity); ok {
			r.Date = from
			yield(r)
		}
		return
	}
	end := x.now.AddDate(0, 0, horizonDays)
	reach := map[RecurrenceKind]int{OneTime: horizonDays - 1, Weekly: 3, Monthly: 30}[r.Kind]
	for dist := 1; dist <= reach; dist++ {
		for _, by := range [2]int{-dist, dist} {
			c, ok := r.moved(by)
			if c.Kind == OneTime && DateOf(end).Before(c.Date) {
				continue // seats are not counted that far ahead
			}
			if ok && !yield(c) {
				return
			}
		}
	}
}

// moved returns r with its days moved as a whole, and whether that makes sense.
func (r Recurrence) moved(by int) (Recurrence, bool) {
	switch {
	case r.Kind == OneTime:
		r.Date = r.Date.AddDays(by)
		return r, true
	case r.Kind == Weekly:
		r.Weekdays = slices.Clone(r.Weekdays)
		for i, d := range r.Weekdays {
			r.Weekdays[i] = time.Weekday((int(d) + by + 7) % 7)
		}
		slices.Sort(r.Weekdays)
		return r, true
	case r.Nth != 0:
		r.Weekday += time.Weekday(by)
		return r, r.Weekday >= time.Sunday && r.Weekday <= time.Saturday
	case r.LastDay: // every month has a 28th
		r.LastDay, r.MonthDays = false, []int{29 + by}
		return r, by < 0 && by > -29
	}
	r.MonthDays = slices.Clone(r.MonthDays)
	for i := range r.MonthDays {
		r.MonthDays[i] += by
	}
	return r, r.MonthDays[0] >= 1 && r.MonthDays[len(r.MonthDays)-1] <= 28
}

// freeFrom returns the first day from which a daily b fits for the whole
// horizon: the day after the last one that is too full.
func (x *seatIndex) freeFrom(b Booking, capacity int) (Date, bool) {
	x.add(b, 1)
	defer x.add(b, -1)
	full, end := int32(-1), int32(-1)
	x.each(b, x.from, x.upTo, func(day int32, hour int, take *hourly) {
		if end = day; slices.Max(x.used[hour:hour+take.n]) > int32(capacity) {
			full = day
		}
	})
	if full < 0 || full == end {
		return Date{}, false
	}
	return x.horizon.first.AddDays(int(full) + 1), true
}
