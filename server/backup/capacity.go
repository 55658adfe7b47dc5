package backup

import "time"

// seatsIndex counts the seats of one vcenter in each UTC hour of the horizon.
type seatsIndex struct {
	first int64 // UTC hour of used[0]: whole hours since 1970
	used  []int32
	now   time.Time
	upTo  time.Time
}

// newSeats returns an empty index for the horizon that begins now.
func newSeats(now time.Time) *seatsIndex {
	// A slot that is running now may have begun in the hour before; windows and
	// durations reach up to two days over the horizon's end.
	return &seatsIndex{first: now.Unix()/3600 - 1, used: make([]int32, (horizonDays+3)*24), now: now, upTo: now.AddDate(0, 0, horizonDays)}
}

// add books n times b's seats (n is 1, or -1 to give them back) and returns the
// most that any hour it touches then holds, and that hour. Days whose hour
// daylight saving skips are not counted: their run queues when it comes.
func (x *seatsIndex) add(b Booking, n int32) (peak int32, at int64) {
	for o := range b.Recurrence.Between(x.now.Add(-bookable), x.upTo) {
		if o.Clock == Gap {
			continue
		}
		for w := range b.WindowHours {
			seats := int32(share(b.Seats, b.WindowHours, w)) * n
			from := o.Start.Add(time.Duration(w) * time.Hour).Unix()
			to := from + int64(b.DurationHours)*3600 - 1
			for h := from / 3600; h <= to/3600; h++ {
				i := h - x.first
				if i < 0 || i >= int64(len(x.used)) {
					continue
				}
				if x.used[i] += seats; x.used[i] > peak {
					peak, at = x.used[i], h
				}
			}
		}
	}
	return peak, at
}

// share is how many of n seats fall to start hour i of a window: as even as
// whole numbers allow.
func share(n, window, i int) int { return n*(i+1)/window - n*i/window }

// fits says whether b can be booked with that capacity, and how many seats its
// fullest hour then has left. It leaves the index as it is.
func (x *seatsIndex) fits(b Booking, capacity int) (left int, ok bool) {
	peak, _ := x.add(b, 1)
	x.add(b, -1)
	return capacity - int(peak), int(peak) <= capacity
}

// peak is the most seats that b alone takes in an hour.
func (b Booking) peak(now time.Time) int {
	p, _ := newSeats(now).add(b, 1)
	return int(p)
}

// admit books b, or says why it cannot be.
func (x *seatsIndex) admit(b Booking, v VCenter) error {
	if own := b.peak(x.now); own > v.SlotCapacity {
		return exceeds(b, v, own, x.now)
	}
	peak, at := x.add(b, 1)
	if int(peak) <= v.SlotCapacity {
		return nil
	}
	x.add(b, -1)
	return x.slotFull(b, v, at)
}

// exceeds is the error of a schedule that no load would let in: it names the
// window that would do.
func exceeds(b Booking, v VCenter, own int, now time.Time) error {
	for w := b.WindowHours + 1; w <= 24; w++ {
		c := b
		c.WindowHours = w
		if c.peak(now) <= v.SlotCapacity {
			return Errorf(ExceedsCapacity, "window_hours", "%d VMs take %d seats in one hour, and vcenter %s has %d. With window_hours = %d they fit.",
				b.Seats, own, v.Name, v.SlotCapacity, w)
		}
	}
	return Errorf(ExceedsCapacity, "window_hours", "%d VMs take %d seats in one hour, and vcenter %s has %d; no window of a day is long enough. Split the group or raise the vcenter's slot_capacity.",
		b.Seats, own, v.Name, v.SlotCapacity)
}
