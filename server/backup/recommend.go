package backup

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// slotFull is the error of a booking that the hour at has no room for. It
// says who holds the hour and what can be booked instead.
func (x *seatsIndex) slotFull(b Booking, v VCenter, at int64) error {
	loc, err := b.Recurrence.Location()
	if err != nil {
		return err
	}
	hour := time.Unix(at*3600, 0).In(loc)
	held := int(x.used[at-x.first])
	e := Errorf(SlotFull, "start_time", "%s %s holds %d of %d seats of vcenter %s, and this schedule needs %d more.",
		hour.Format("15:04"), hour.Format("MST on 2006-01-02"), held, v.SlotCapacity, v.Name, (b.Seats+b.WindowHours-1)/b.WindowHours)
	e.Message = strings.Replace(e.Message, hour.Format("MST"), b.Recurrence.TimeZone, 1)
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

func (r Recommendation) text() string {
	if r.Kind == SameDay {
		return fmt.Sprintf("%02d:00 (same days)", r.Recurrence.Hour)
	}
	return r.Recurrence.days() + " (same hour)"
}

// recommend returns what can be booked instead of b, in the order of the
// rules: the nearest hour of the same days, ties to the earlier; then the same
// hour on the nearest other days (seed N60).
func (x *seatsIndex) recommend(b Booking, capacity int) []Recommendation {
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
func (x *seatsIndex) otherDays(b Booking, capacity int, yield func(Recurrence) bool) {
	r := b.Recurrence
	if r.Kind == Daily {
		if from, ok := x.freeFrom(b, capacity); ok {
			r.Date = from
			yield(r)
		}
		return
	}
	reach := map[RecurrenceKind]int{OneTime: horizonDays - 1, Weekly: 3, Monthly: 30}[r.Kind]
	for dist := 1; dist <= reach; dist++ {
		for _, by := range [2]int{-dist, dist} {
			c, ok := r.moved(by)
			if c.Kind == OneTime && DateOf(x.upTo).Before(c.Date) {
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
func (x *seatsIndex) freeFrom(b Booking, capacity int) (Date, bool) {
	x.add(b, 1)
	defer x.add(b, -1)
	var last Date
	for o := range b.Recurrence.Between(x.now.Add(-bookable), x.upTo) {
		from := o.Start.Unix()
		for h := from / 3600; h <= (from+int64(b.WindowHours+b.DurationHours-1)*3600-1)/3600; h++ {
			if i := h - x.first; o.Clock != Gap && i >= 0 && i < int64(len(x.used)) && int(x.used[i]) > capacity {
				last = o.Slot.Date
			}
		}
	}
	if last.IsZero() || !last.AddDays(1).Before(DateOf(x.upTo)) {
		return Date{}, false
	}
	return last.AddDays(1), true
}
