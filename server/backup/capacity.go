package backup

// admit says whether b can be booked beside what is held, or why it cannot be.
func (x *seatIndex) admit(b Booking, v VCenter) error {
	most, at := x.peak(b)
	if int(most) <= v.SlotCapacity {
		return nil
	}
	empty := &seatIndex{horizon: x.horizon, used: make([]int32, len(x.used)), now: x.now, from: x.from, upTo: x.upTo}
	if own, _ := empty.peak(b); int(own) > v.SlotCapacity {
		return empty.exceeds(b, v, int(own))
	}
	return x.slotFull(b, v, at)
}

// exceeds is the error of a schedule that no load would let in: it names the
// window that would do. x is empty.
func (x *seatIndex) exceeds(b Booking, v VCenter, own int) error {
	for w := b.WindowHours + 1; w <= 24; w++ {
		c := b
		c.WindowHours = w
		if _, ok := x.fits(c, v.SlotCapacity); ok {
			return Errorf(ExceedsCapacity, "window_hours", "%d VMs take %d seats in one hour, and vcenter %s has %d. With window_hours = %d they fit.",
				b.Seats, own, v.Name, v.SlotCapacity, w)
		}
	}
	return Errorf(ExceedsCapacity, "window_hours", "%d VMs take %d seats in one hour, and vcenter %s has %d; no window of a day is long enough. Split the group or raise the vcenter's slot_capacity.",
		b.Seats, own, v.Name, v.SlotCapacity)
}
