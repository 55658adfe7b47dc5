package backup

import (
	"iter"
	"regexp"
	"slices"
	"sync"
	"time"
	_ "time/tzdata" // the server's zones are the same everywhere
)

// Location loads the zone of r. The error is [Invalid] for time_zone.
func (r Recurrence) Location() (*time.Location, error) {
	if r.TimeZone == "" || r.TimeZone == "Local" || !zoneName.MatchString(r.TimeZone) {
		return nil, Errorf(Invalid, "time_zone", "A time zone is an IANA name such as Asia/Tokyo, got %q.", r.TimeZone)
	}
	if loc, ok := locations.Load(r.TimeZone); ok {
		return loc.(*time.Location), nil
	}
	loc, err := time.LoadLocation(r.TimeZone)
	if err != nil {
		return nil, Errorf(Invalid, "time_zone", "%q is not an IANA time zone. Write a name such as Asia/Tokyo or UTC.", r.TimeZone)
	}
	locations.Store(r.TimeZone, loc)
	return loc, nil
}

// zoneName is the form of a zone's one name. The system's folder of zones would
// give it under others as well ("Asia//Tokyo"), and has what is no zone but this
// machine's own, or counts leap seconds, by which hours would not begin at :00.
var zoneName = regexp.MustCompile(`^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*)*$`)

// locations keeps the zones that were asked for, since loading one takes
// longer than all that is computed with it. There are but a few hundred.
var locations sync.Map // name -> *time.Location

// On says whether r runs on the local day d (seed N22, N24, N36).
func (r Recurrence) On(d Date) bool {
	switch r.Kind {
	case OneTime:
		return d == r.Date
	case Daily:
		return r.Date.IsZero() || !d.Before(r.Date)
	case Weekly:
		return slices.Contains(r.Weekdays, d.Weekday())
	case Monthly:
		return r.onMonthDay(d)
	}
	return false
}

func (r Recurrence) onMonthDay(d Date) bool {
	last := LastDay(d.Year, d.Month).Day
	switch {
	case r.LastDay:
		return d.Day == last
	case r.Nth == Last:
		return d.Weekday() == r.Weekday && d.Day+7 > last
	case r.Nth > 0:
		return d.Weekday() == r.Weekday && (d.Day-1)/7+1 == r.Nth
	case slices.Contains(r.MonthDays, d.Day):
		return true
	}
	return r.ShortLast && d.Day == last && slices.Max(r.MonthDays) > last
}

// Occurrence is one instant at which a schedule is due.
type Occurrence struct {
	Slot  Slot
	Start time.Time
	Clock Resolution // what the clock does then
}

// bookable is how long into a slot it can be booked: not in its last five minutes (seed N59).
const bookable = 55 * time.Minute

// Between yields the occurrences of r whose start is after from and not after
// to, in their order.
func (r Recurrence) Between(from, to time.Time) iter.Seq[Occurrence] {
	return func(yield func(Occurrence) bool) {
		loc, err := r.Location()
		if err != nil {
			return
		}
		day, end := DateOf(from.In(loc)).AddDays(-1), DateOf(to.In(loc)).AddDays(1)
		if r.Kind == OneTime || r.Kind == Daily && day.Before(r.Date) {
			day = r.Date
		}
		if r.Kind == OneTime && r.Date.Before(end) {
			end = r.Date
		}
		for ; !end.Before(day); day = day.AddDays(1) {
			if !r.On(day) {
				continue
			}
			slot := Slot{day, r.Hour}
			start, clock := slot.Instant(loc)
			if start.After(from) && !start.After(to) && !yield(Occurrence{Slot: slot, Start: start, Clock: clock}) {
				return
			}
		}
	}
}

// horizonDays is how far ahead occurrences are looked for and seats are counted.
const horizonDays = 400

// searchYears is how far ahead the next occurrences are looked for: the
// longest wait is that for 29 February in a year that 100 divides.
const searchYears = 9

// Next returns up to n occurrences of r that start after from.
func (r Recurrence) Next(from time.Time, n int) []Occurrence {
	var out []Occurrence
	for o := range r.Between(from, from.AddDate(searchYears, 0, 0)) {
		if len(out) == n {
			break
		}
		out = append(out, o)
	}
	return out
}

// SkippedMonths lists the first days of the months, out of the twelve that
// begin with from's, in which r never runs (seed N36). It is empty for other
// kinds than monthly.
func (r Recurrence) SkippedMonths(from Date) []Date {
	if r.Kind != Monthly {
		return nil
	}
	var out []Date
	for i := range 12 {
		first := DateOf(time.Date(from.Year, from.Month+time.Month(i), 1, 12, 0, 0, 0, time.UTC))
		if !r.runsIn(first) {
			out = append(out, first)
		}
	}
	return out
}

func (r Recurrence) runsIn(first Date) bool {
	for d := first; d.Month == first.Month; d = d.AddDays(1) {
		if r.On(d) {
			return true
		}
	}
	return false
}
