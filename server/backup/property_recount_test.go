package backup_test

import (
	"slices"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// recount counts seats in the slowest way that cannot be wrong: it walks over
// every quarter hour of the horizon, reads the zone's clock, and asks what
// begins there. It shares no code with what it checks.
type recount struct {
	testing.TB
	now   time.Time
	hours map[string]*[24][]beginning // by zone and local hour
	used  map[time.Time]int           // seats of a UTC hour
}

// beginning is the first instant at which a zone's clock shows a whole hour of
// a day. One that the clock jumps over begins with what follows and has gap set.
type beginning struct {
	day backup.Date
	at  time.Time
	gap bool
}

const (
	horizon = 400 * 24 * time.Hour
	// beyond is so long that whatever meets a schedule that begins within the
	// horizon has begun by then.
	beyond = 3 * 24 * time.Hour
)

func newRecount(t testing.TB, now time.Time) *recount {
	return &recount{TB: t, now: now, hours: map[string]*[24][]beginning{}, used: map[time.Time]int{}}
}

// zone walks over the zone's clock, from so long before now that an hour which
// occurs twice is met the first time.
func (c *recount) zone(name string) *[24][]beginning {
	if z := c.hours[name]; z != nil {
		return z
	}
	z := walk(c.TB, name, c.now.Add(-5*24*time.Hour), c.now.Add(horizon+beyond))
	c.hours[name] = z
	return z
}

func walk(t testing.TB, zone string, from, to time.Time) *[24][]beginning {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	z := &[24][]beginning{}
	begin := func(wall, at time.Time, gap bool) {
		known, day := &z[wall.Hour()], backup.DateOf(wall)
		if n := len(*known); n == 0 || (*known)[n-1].day.Before(day) { // else the hour occurs again: it has begun already
			*known = append(*known, beginning{day, at.UTC(), gap})
		}
	}
	var last time.Time // what the clock showed a quarter of an hour ago, as if it were UTC
	for at := from.Truncate(15 * time.Minute); !at.After(to); at = at.Add(15 * time.Minute) {
		local := at.In(loc)
		wall := time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), 0, 0, time.UTC)
		if !last.IsZero() {
			for skipped := last.Truncate(time.Hour).Add(time.Hour); skipped.Before(wall); skipped = skipped.Add(time.Hour) {
				begin(skipped, at, true)
			}
		}
		if wall.Minute() == 0 {
			begin(wall, at, false)
		}
		last = wall
	}
	return z
}

// due says whether the recurrence names the day.
func due(r backup.Recurrence, d backup.Date) bool {
	t := time.Date(d.Year, d.Month, d.Day, 12, 0, 0, 0, time.UTC)
	ends := t.AddDate(0, 0, 1).Month() != d.Month
	switch {
	case r.Kind == backup.OneTime:
		return d == r.Date
	case r.Kind == backup.Daily:
		return r.Date.IsZero() || !t.Before(time.Date(r.Date.Year, r.Date.Month, r.Date.Day, 0, 0, 0, 0, time.UTC))
	case r.Kind == backup.Weekly:
		return slices.Contains(r.Weekdays, t.Weekday())
	case r.LastDay:
		return ends
	case r.Nth == backup.Last:
		return t.Weekday() == r.Weekday && t.AddDate(0, 0, 7).Month() != d.Month
	case r.Nth > 0:
		nth := 0
		for u := t; u.Month() == d.Month; u = u.AddDate(0, 0, -7) {
			nth++
		}
		return t.Weekday() == r.Weekday && nth == r.Nth
	}
	return slices.ContainsFunc(r.MonthDays, func(day int) bool { return day == d.Day || r.ShortLast && ends && day > d.Day })
}

// claim is what one schedule wants of a vcenter.
type claim struct {
	backup.Recurrence
	window, duration, seats int
}

func claimOf(s backup.Schedule, seats int) claim {
	return claim{s.Recurrence, max(1, s.WindowHours), max(1, s.DurationHours), seats}
}

// coming lists the seats of each UTC hour that k takes when it is booked now:
// nothing of a slot that can no longer be booked, and up to the horizon's end.
func (c *recount) coming(k claim) map[time.Time]int {
	out, all := map[time.Time]int{}, c.seats(k, c.now.Add(horizon+beyond))
	for h := range c.seats(k, c.now.Add(horizon)) {
		out[h] = all[h]
	}
	return out
}

// seats lists what k takes of each UTC hour with all that begins up to then.
func (c *recount) seats(k claim, upTo time.Time) map[time.Time]int {
	out, from := map[time.Time]int{}, c.now.Add(-55*time.Minute)
	for _, b := range c.zone(k.TimeZone)[k.Hour] {
		if b.gap || !b.at.After(from) || b.at.After(upTo) || !due(k.Recurrence, b.day) {
			continue
		}
		given := 0
		for w := range k.window { // as even as whole numbers allow
			n := k.seats*(w+1)/k.window - given
			given += n
			start := b.at.Add(time.Duration(w) * time.Hour)
			for h := start.Truncate(time.Hour); n > 0 && h.Before(start.Add(time.Duration(k.duration)*time.Hour)); h = h.Add(time.Hour) {
				out[h] += n
			}
		}
	}
	return out
}

// book counts k's seats from now on.
func (c *recount) book(k claim) {
	for h, n := range c.seats(k, c.now.Add(horizon+beyond)) {
		c.used[h] += n
	}
}

// unbook gives them back.
func (c *recount) unbook(k claim) {
	for h, n := range c.seats(k, c.now.Add(horizon+beyond)) {
		c.used[h] -= n
	}
}

// peak is the most that an hour which k touches would hold with it.
func (c *recount) peak(k claim) (most int) {
	for h, n := range c.coming(k) {
		most = max(most, c.used[h]+n)
	}
	return most
}

func (c *recount) fits(k claim, capacity int) bool { return c.peak(k) <= capacity }

// alone is the most that k takes of an hour by itself.
func (c *recount) alone(k claim) (most int) {
	for _, n := range c.coming(k) {
		most = max(most, n)
	}
	return most
}

// closed says whether a one-time schedule's slot can no longer be booked.
func (c *recount) closed(r backup.Recurrence) bool {
	if r.Kind != backup.OneTime {
		return false
	}
	loc, err := time.LoadLocation(r.TimeZone)
	if err != nil {
		c.Fatal(err)
	}
	// The first instant whose local clock shows the slot's time or a later one.
	want := time.Date(r.Date.Year, r.Date.Month, r.Date.Day, r.Hour, 0, 0, 0, time.UTC)
	for at := want.Add(-15 * time.Hour); ; at = at.Add(15 * time.Minute) {
		_, offset := at.In(loc).Zone()
		if !at.Add(time.Duration(offset) * time.Second).Before(want) {
			return !c.now.Before(at.Add(55 * time.Minute))
		}
	}
}
