package backup

// desk is where one vcenter's seats are booked.
type desk struct {
	vcenter VCenter
	seats   *seatIndex // without those that the schedule holds
	want    Booking
	held    Booking // what the schedule holds now
}

// desks are those of all vcenters that a schedule books seats of: it finds room
// in all of them or in none.
type desks []desk

// close puts what the schedule held back into the indexes: what it holds from
// now on is told by the store's log.
func (all desks) close() {
	for _, d := range all {
		if d.held.Seats > 0 {
			d.seats.set(d.held)
		}
	}
}

// on is what is wanted, by another calendar.
func (d desk) on(r Recurrence) Booking {
	b := d.want
	b.Recurrence = r
	return b
}

// keeps says whether what is wanted is held already. That stays, also in an
// hour that has more than its seats since the vcenter's capacity was made
// smaller.
func (d desk) keeps(r Recurrence) bool {
	return d.held.Seats > 0 && d.held.covers(d.on(r))
}

// admit says whether what is wanted can be booked, or why it cannot be.
func (all desks) admit(r Recurrence) error {
	for _, d := range all {
		if d.want.Seats == 0 || d.keeps(r) {
			continue
		}
		d.want.Recurrence = r
		most, at := d.seats.peak(d.want)
		if int(most) <= d.vcenter.SlotCapacity {
			continue
		}
		if err := d.exceeds(); err != nil {
			return err
		}
		return d.slotFull(at, all)
	}
	return nil
}

// fits says whether all can be booked by that calendar, and how many seats the
// fullest hour then has left.
func (all desks) fits(r Recurrence) (left int, ok bool) {
	first := true
	for _, d := range all {
		if d.want.Seats == 0 {
			continue
		}
		most, _ := d.seats.peak(d.on(r))
		free := d.vcenter.SlotCapacity - int(most)
		if free < 0 {
			return free, false
		}
		if first || free < left {
			left, first = free, false
		}
	}
	return left, true
}

// load is how full the fullest hour is with what is wanted: 1 = all of its
// seats are booked.
func (all desks) load(r Recurrence) (load float64) {
	for _, d := range all {
		most, _ := d.seats.peak(d.on(r))
		load = max(load, float64(most)/float64(d.vcenter.SlotCapacity))
	}
	return load
}

// exceeds is the error of a schedule that no load would let in: it names the
// window that would do. nil = it could find room.
func (d desk) exceeds() error {
	x, capacity := d.seats, d.vcenter.SlotCapacity
	empty := &seatIndex{horizon: x.horizon, used: make([]int32, len(x.used)), now: x.now, from: x.from, upTo: x.upTo}
	own, _ := empty.peak(d.want)
	if int(own) <= capacity {
		return nil
	}
	for w := d.want.WindowHours + 1; w <= 24; w++ {
		b := d.want
		b.WindowHours = w
		if most, _ := empty.peak(b); int(most) <= capacity {
			return Errorf(ExceedsCapacity, "window_hours", "%d VMs take %d seats in one hour, and vcenter %s has %d. With window_hours = %d they fit.",
				b.Seats, own, d.vcenter.Name, capacity, w)
		}
	}
	return Errorf(ExceedsCapacity, "window_hours", "%d VMs take %d seats in one hour, and vcenter %s has %d; no window of a day is long enough. Split the group or raise the vcenter's slot_capacity.",
		d.want.Seats, own, d.vcenter.Name, capacity)
}
