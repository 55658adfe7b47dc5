package backup

import (
	"context"
	"sync"
	"time"
)

// seatBook keeps the seat indexes of all vcenters in memory. Its zero value is
// empty; each index is read from the store when it is first looked at, and then
// follows the store's log of changes, whichever server made them.
type seatBook struct {
	mu      sync.Mutex // guards what follows
	horizon *horizon
	indexes map[string]*seatIndex // by vcenter
}

// index returns the vcenter's index and the horizon for now.
func (b *seatBook) index(vcenterID string, now time.Time) (*seatIndex, *horizon) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.horizon == nil || !b.horizon.serves(now) {
		b.horizon = newHorizon(now)
	}
	if b.indexes == nil {
		b.indexes = map[string]*seatIndex{}
	}
	if b.indexes[vcenterID] == nil {
		b.indexes[vcenterID] = &seatIndex{}
	}
	return b.indexes[vcenterID], b.horizon
}

// planTx is a transaction that looks at seats. What it changes in an index for
// itself, or reads there of its own changes, is undone when it ends: whether it
// commits is not known before, and what it did commit comes back with the log.
type planTx struct {
	Tx
	book *seatBook
	open map[string]*seatIndex // locked
	undo []func()              // in the order in which it was done
}

// update runs fn in a transaction that may book seats.
func (p *Planner) update(ctx context.Context, fn func(*planTx) error) error {
	return p.Store.Update(ctx, func(tx Tx) error { return p.withSeats(tx, fn) })
}

// view runs fn in a read-only transaction that may look at seats.
func (p *Planner) view(ctx context.Context, fn func(*planTx) error) error {
	return p.Store.View(ctx, func(tx Tx) error { return p.withSeats(tx, fn) })
}

func (p *Planner) withSeats(tx Tx, fn func(*planTx) error) error {
	t := &planTx{Tx: tx, book: &p.seats, open: map[string]*seatIndex{}}
	defer t.close()
	return fn(t)
}

func (t *planTx) close() {
	for i := len(t.undo) - 1; i >= 0; i-- {
		t.undo[i]()
	}
	for _, x := range t.open {
		x.mu.Unlock()
	}
}

// seats returns the vcenter's index as this transaction sees it. It is the
// transaction's own until that ends.
func (t *planTx) seats(ctx context.Context, vcenterID string) (*seatIndex, error) {
	x, h := t.book.index(vcenterID, t.Now())
	if t.open[vcenterID] == nil {
		x.mu.Lock()
		t.open[vcenterID] = x
	}
	if x.horizon == nil || !x.horizon.serves(t.Now()) {
		x.reset(h)
	}
	x.look(t.Now())
	changed, mark, own, err := t.SeatChanges(ctx, vcenterID, x.mark)
	if err != nil {
		return nil, err
	}
	if own && x.mark == 0 { // read it all again when this is over
		t.undo = append(t.undo, func() { x.reset(x.horizon) })
	}
	for _, b := range changed {
		before := x.set(b)
		if own {
			t.undo = append(t.undo, func() { x.set(before) })
		}
	}
	if !own {
		x.mark = mark
	}
	return x, nil
}

// free takes what the schedule holds out of the index, for this transaction,
// and returns it.
func (t *planTx) free(x *seatIndex, scheduleID string) (held Booking) {
	held = x.set(Booking{ScheduleID: scheduleID})
	if held.Seats > 0 {
		t.undo = append(t.undo, func() { x.set(held) })
	}
	return held
}
