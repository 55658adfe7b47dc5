package backup

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// seatIndex counts the seats of one vcenter in each UTC hour of a horizon, and
// knows whose they are. Between transactions it holds what is committed up to
// its mark.
type seatIndex struct {
	mu      sync.Mutex // held by the transaction that looks at it
	mark    int64      // the last change of the store's log that is counted; 0 = nothing is
	horizon *horizon
	used    []int32 // by hours since the horizon's base
	held    map[string]*Booking
	begin   map[zonedHour]*beginners

	now        time.Time
	from, upTo int32 // minutes: a booking needs room for what starts after from and not after upTo
}

// zonedHour is a local hour of the day.
type zonedHour struct {
	zone string
	hour int
}

// beginners are the bookings that begin at the same local hour.
type beginners struct {
	of   map[string]*Booking
	span int // hours that the longest one ever among them touches
}

// newSeats returns an empty index that looks at what is bookable at now.
func newSeats(h *horizon, now time.Time) *seatIndex {
	x := &seatIndex{}
	x.reset(h)
	x.look(now)
	return x
}

func (x *seatIndex) reset(h *horizon) {
	x.horizon, x.mark = h, 0
	x.used = make([]int32, h.hours())
	x.held, x.begin = map[string]*Booking{}, map[zonedHour]*beginners{}
}

// look sets for which occurrences a booking needs room.
func (x *seatIndex) look(now time.Time) {
	x.now = now
	x.from = x.horizon.minute(now) - int32(bookable/time.Minute)
	x.upTo = x.horizon.minute(now.AddDate(0, 0, horizonDays))
}

// set makes b what its schedule holds, nothing when it has no seats, and
// returns what the schedule held before.
func (x *seatIndex) set(b Booking) (before Booking) {
	id := b.ScheduleID
	before = Booking{ScheduleID: id}
	if held := x.held[id]; held != nil {
		before = *held
		x.add(before, -1)
		delete(x.held, id)
		delete(x.begin[before.begins()].of, id)
	}
	if b.Seats > 0 {
		x.add(b, 1)
		x.held[id] = &b
		g := x.begin[b.begins()]
		if g == nil {
			g = &beginners{of: map[string]*Booking{}}
			x.begin[b.begins()] = g
		}
		g.of[id], g.span = &b, max(g.span, b.WindowHours+b.DurationHours)
	}
	return before
}

func (b Booking) begins() zonedHour { return zonedHour{b.Recurrence.TimeZone, b.Recurrence.Hour} }

// hourly is how many seats one occurrence takes in each UTC hour from that in
// which it begins.
type hourly struct {
	n     int
	seats [49]int32 // the longest window, the longest duration, and half an hour
}

// hourly returns what an occurrence takes that begins on the hour, and what
// one takes that begins within it (seed N58).
func (b Booking) hourly() (whole, within hourly) {
	for w := range b.WindowHours {
		seats := int32(share(b.Seats, b.WindowHours, w))
		for d := range b.DurationHours {
			whole.seats[w+d] += seats
		}
		for d := range b.DurationHours + 1 {
			within.seats[w+d] += seats
		}
	}
	whole.n = b.WindowHours + b.DurationHours - 1
	within.n = whole.n + 1
	return whole, within
}

// share is how many of n seats fall to start hour i of a window: as even as
// whole numbers allow.
func share(n, window, i int) int { return n*(i+1)/window - n*i/window }

// each calls f for every occurrence of b after from and not after upTo, with
// the index of the hour in which it begins and the seats from there on. Days
// whose hour daylight saving skips take no seat: their run queues when it comes.
func (x *seatIndex) each(b Booking, from, upTo int32, f func(hour int, take *hourly)) {
	zone := x.horizon.zone(b.Recurrence.TimeZone)
	if zone == nil {
		return
	}
	whole, within := b.hourly()
	for _, day := range x.horizon.daysOf(b.Recurrence) {
		start := zone[int(day)*24+b.Recurrence.Hour]
		if start.gap || start.minute <= from || start.minute > upTo {
			continue
		}
		take := &whole
		if start.minute%60 != 0 {
			take = &within
		}
		f(int(start.minute/60), take)
	}
}

// add books n times b's seats (n is 1, or -1 to give them back) in the whole
// horizon.
func (x *seatIndex) add(b Booking, n int32) {
	x.each(b, x.since(b), int32(len(x.used))*60, func(hour int, take *hourly) {
		for k, seats := range take.seats[:take.n] {
			x.used[hour+k] += n * seats
		}
	})
}

// since is the minute after which occurrences are b's.
func (x *seatIndex) since(b Booking) int32 {
	if b.Since.IsZero() {
		return -1
	}
	return max(-1, x.horizon.minute(b.Since))
}

// overlaps says whether two occurrences of b a day apart, on a day that the
// clock makes shorter, may touch the same hour.
func (b Booking) overlaps() bool { return b.WindowHours+b.DurationHours > 22 }

// peak is the most seats that any hour that b touches would hold with it, and
// that hour. It is 0 when b has no occurrence to come.
func (x *seatIndex) peak(b Booking) (most int32, at int) {
	over := b.overlaps()
	if over {
		x.add(b, 1)
		defer x.add(b, -1)
	}
	x.each(b, x.from, x.upTo, func(hour int, take *hourly) {
		for k, seats := range take.seats[:take.n] {
			if seats == 0 { // a long window of few VMs leaves hours out
				continue
			}
			n := x.used[hour+k]
			if !over {
				n += seats
			}
			if n > most {
				most, at = n, hour+k
			}
		}
	})
	return most, at
}

// usedFrom is how many seats the fuller one of the UTC hours holds that the
// hour from start on touches.
func (x *seatIndex) usedFrom(start time.Time) int {
	m := x.horizon.minute(start)
	var used int32
	for i := m / 60; i <= (m+59)/60; i++ {
		used = max(used, x.used[i])
	}
	return int(used)
}

// holders lists the bookings that hold seats of that hour, by name. When more
// than limit would have to be looked at it lists none; limit 0 = all.
func (x *seatIndex) holders(hour, limit int) (out []*Booking) {
	var may []*beginners
	looked := 0
	for begins, g := range x.begin {
		if reaches(x.horizon.zone(begins.zone), begins.hour, hour, g.span) {
			may = append(may, g)
			looked += len(g.of)
		}
	}
	if limit > 0 && looked > limit {
		return nil
	}
	for _, g := range may {
		for _, b := range g.of {
			if x.holds(*b, x.horizon.zone(b.Recurrence.TimeZone), hour) > 0 {
				out = append(out, b)
			}
		}
	}
	slices.SortFunc(out, func(a, b *Booking) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// near lists the days on which an occurrence may begin that touches the hour,
// whatever the zone: it lasts span hours at most.
func near(hour, span int) (first, last int32) {
	day := int32(hour/24) - 1 // the horizon's hours begin a day before its days
	return day - int32(span)/24 - 2, day + 2
}

// reaches says whether what begins at the zone's local hour on some day may
// touch the given hour, when it lasts span hours at most.
func reaches(zone []zoneHour, local, hour, span int) bool {
	first, last := near(hour, span)
	for day := max(first, 0); day <= last && int(day)*24 < len(zone); day++ {
		if k := hour - int(zone[int(day)*24+local].minute/60); k >= 0 && k < span {
			return true
		}
	}
	return false
}

// holds is how many seats b takes in that hour.
func (x *seatIndex) holds(b Booking, zone []zoneHour, hour int) (seats int32) {
	days, since := x.horizon.daysOf(b.Recurrence), x.since(b)
	whole, within := b.hourly()
	first, last := near(hour, within.n)
	i, _ := slices.BinarySearch(days, first)
	for ; i < len(days) && days[i] <= last; i++ {
		start := zone[int(days[i])*24+b.Recurrence.Hour]
		take := &whole
		if start.minute%60 != 0 {
			take = &within
		}
		if k := hour - int(start.minute/60); !start.gap && start.minute > since && k >= 0 && k < take.n {
			seats += take.seats[k]
		}
	}
	return seats
}
