package backup

import (
	"sync"
	"time"
)

// horizon is a stretch of days, prepared so that the seats of a hundred
// thousand schedules can be counted in it: the days that a recurrence names are
// looked up, and the instants of a zone's hours are worked out, once.
type horizon struct {
	first Date  // its first day
	base  int64 // UTC hour, whole hours since 1970, of index 0
	days  int

	mu    sync.Mutex            // guards what follows
	named map[dayRule][]int32   // days by rule, counted from first
	zones map[string][]zoneHour // 24 for each day
}

// dayRule is what of a recurrence names its days, but for dates: few rules
// serve many schedules.
type dayRule struct {
	kind      RecurrenceKind
	weekdays  uint8  // a bit for each day of the week
	monthDays uint32 // a bit for each day of the month
	lastDay   bool
	shortLast bool
	nth       int8
	weekday   int8
}

// zoneHour is when a local hour begins.
type zoneHour struct {
	minute int32 // since the horizon's base
	gap    bool  // daylight saving skips it: its run queues and takes no seat
}

const (
	// spareDays lets a horizon serve for a month before it must be made anew.
	spareDays = 31
	// beforeDays reach back to slots that began yesterday in their zone and to
	// long windows and durations that still hold the running hour.
	beforeDays = 3
	// maxRules bounds what a horizon remembers: rules come from users.
	maxRules = 4096
)

// newHorizon returns a horizon that holds what begins within horizonDays of any
// instant of the spare days that follow now.
func newHorizon(now time.Time) *horizon {
	first := DateOf(now.UTC()).AddDays(-beforeDays)
	return &horizon{first: first, base: first.noon().Unix()/3600 - 12 - 24, days: beforeDays + spareDays + horizonDays + 2,
		named: map[dayRule][]int32{}, zones: map[string][]zoneHour{}}
}

// serves says whether the horizon reaches far enough at now.
func (h *horizon) serves(now time.Time) bool {
	age := DateOf(now.UTC()).DaysSince(h.first)
	return age >= beforeDays && age <= beforeDays+spareDays
}

// hours is how many UTC hours the horizon's days, in whatever zone, and the
// windows and durations that begin in them can touch.
func (h *horizon) hours() int { return (h.days + 5) * 24 }

// minute is t counted from the horizon's base, rounded down.
func (h *horizon) minute(t time.Time) int32 { return int32(t.Unix()/60 - h.base*60) }

// hour is the instant of an index of hours.
func (h *horizon) hour(i int) time.Time { return time.Unix((h.base+int64(i))*3600, 0).UTC() }

func (r Recurrence) rule() dayRule {
	k := dayRule{kind: r.Kind, lastDay: r.LastDay, shortLast: r.ShortLast, nth: int8(r.Nth)}
	if r.Nth != 0 {
		k.weekday = int8(r.Weekday)
	}
	for _, d := range r.Weekdays {
		k.weekdays |= 1 << d
	}
	for _, d := range r.MonthDays {
		k.monthDays |= 1 << d
	}
	return k
}

// daysOf lists the days on which r runs, counted from the horizon's first.
func (h *horizon) daysOf(r Recurrence) []int32 {
	switch {
	case r.Kind == OneTime:
		if i := r.Date.DaysSince(h.first); i >= 0 && i < h.days {
			return []int32{int32(i)}
		}
		return nil
	case r.Kind == Daily && !r.Date.IsZero(): // its rule names every day
		all := h.namedBy(r)
		return all[min(max(0, r.Date.DaysSince(h.first)), len(all)):]
	}
	return h.namedBy(r)
}

func (h *horizon) namedBy(r Recurrence) []int32 {
	k := r.rule()
	h.mu.Lock()
	defer h.mu.Unlock()
	if days, ok := h.named[k]; ok {
		return days
	}
	if len(h.named) >= maxRules {
		clear(h.named)
	}
	r.Date = Date{}
	days := []int32{}
	for i := range h.days {
		if r.On(h.first.AddDays(i)) {
			days = append(days, int32(i))
		}
	}
	h.named[k] = days
	return days
}

// zone returns when the hours of each day begin in that zone; nil for a zone
// that does not load, which no stored schedule has.
func (h *horizon) zone(name string) []zoneHour {
	h.mu.Lock()
	defer h.mu.Unlock()
	if z, ok := h.zones[name]; ok {
		return z
	}
	loc, err := Recurrence{TimeZone: name}.Location()
	if err != nil {
		return nil
	}
	z := make([]zoneHour, h.days*24)
	for i := range h.days {
		day := h.first.AddDays(i)
		for hour := range 24 {
			start, clock := Slot{day, hour}.Instant(loc)
			z[i*24+hour] = zoneHour{minute: h.minute(start), gap: clock == Gap}
		}
	}
	h.zones[name] = z
	return z
}
