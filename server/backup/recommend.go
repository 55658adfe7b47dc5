package backup

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// slotFull is the error of a booking that the hour of index at, among others,
// has no room for. It says who holds the hour and what can be booked instead,
// in all of the schedule's vcenters.
func (d desk) slotFull(at int, all desks) error {
	r, x := d.want.Recurrence, d.seats
	loc, err := r.Location()
	if err != nil {
		return err
	}
	hour := x.horizon.hour(at).In(loc)
	e := Errorf(SlotFull, "start_time", "%s %s on %s holds %d of %d seats of vcenter %s%s, and this schedule needs %d more.%s",
		hour.Format("15:04"), r.TimeZone, hour.Format(time.DateOnly), x.used[at], d.vcenter.SlotCapacity, d.vcenter.Name, x.whoHolds(at),
		x.holds(d.want, x.horizon.zone(r.TimeZone), at), d.otherFull())
	e.Recommendations = all.recommend(r, x.now)
	if len(e.Recommendations) > 0 {
		e.Message += " Free: " + e.Recommendations[0].text()
		for _, r := range e.Recommendations[1:] {
			e.Message += ", or " + r.text()
		}
		e.Message += "."
	}
	return e
}

// A message names fewHolders schedules of an hour, and none when more than
// manyHolders would have to be looked at: then it would help nobody.
const (
	fewHolders  = 4
	manyHolders = 1000
)

// whoHolds names the schedules that hold seats of the hour.
func (x *seatIndex) whoHolds(at int) string {
	var names []string
	for _, h := range x.holders(at, manyHolders) {
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

// otherFull says on how many days there is no room, when it is more than one.
func (d desk) otherFull() string {
	x, capacity := d.seats, int32(d.vcenter.SlotCapacity)
	crowded, of := 0, 0
	x.add(d.want, 1)
	defer x.add(d.want, -1)
	x.each(d.want, x.from, x.upTo, func(hour int, take *hourly) {
		full := false
		for k, seats := range take.seats[:take.n] {
			full = full || seats > 0 && x.used[hour+k] > capacity
		}
		if of++; full {
			crowded++
		}
	})
	if crowded < 2 {
		return ""
	}
	return fmt.Sprintf(" There is no room on %d of its %d days up to %s.", crowded, of, d.seats.now.AddDate(0, 0, horizonDays).Format(time.DateOnly))
}

func (r Recommendation) text() string {
	if r.Kind == SameDay {
		return fmt.Sprintf("%02d:00 (same days)", r.Recurrence.Hour)
	}
	return r.Recurrence.days() + " (same hour)"
}

// recommend returns what can be booked instead of r, in the order of the
// rules: the nearest hour of the same days, ties to the earlier; then the same
// hour on the nearest other days (seed N60).
func (all desks) recommend(r Recurrence, now time.Time) []Recommendation {
	var out []Recommendation
	for _, c := range []struct {
		kind RecommendationKind
		next func(yield func(Recurrence) bool)
	}{{SameDay, r.otherHours}, {SameSlot, func(yield func(Recurrence) bool) { all.otherDays(r, now, yield) }}} {
		for r := range c.next {
			if r.timely(now) != nil {
				continue
			}
			if left, ok := all.fits(r); ok {
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

// otherDays yields r on other days, nearest first.
func (all desks) otherDays(r Recurrence, now time.Time, yield func(Recurrence) bool) {
	if r.Kind == Daily {
		if from, ok := all.freeFrom(r, now); ok {
			r.Date = from
			yield(r)
		}
		return
	}
	end := now.AddDate(0, 0, horizonDays)
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

// freeFrom returns the first day from which a daily r fits for the whole
// horizon. From a later day on it takes no more, so that halving finds it.
func (all desks) freeFrom(r Recurrence, now time.Time) (Date, bool) {
	var coming []Date
	for o := range r.Between(now.Add(-bookable), now.AddDate(0, 0, horizonDays)) {
		coming = append(coming, o.Slot.Date)
	}
	i := sort.Search(len(coming), func(i int) bool {
		r.Date = coming[i]
		_, ok := all.fits(r)
		return ok
	})
	if i == len(coming) {
		return Date{}, false
	}
	return coming[i], true
}
