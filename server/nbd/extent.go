package nbd

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Extent is a range of an export of one kind.
type Extent struct {
	Off, N int64
	Hole   bool // takes no space; reads as anything unless it is Zero, too
	Zero   bool // reads as zeroes
}

// Extents asks of what kind the n bytes at off are. It tells of at least one
// byte, and perhaps of fewer than n: who wants more asks again behind them. It
// is for a server of which CanExtents is true.
func (c *Conn) Extents(off, n int64) ([]Extent, error) {
	if !c.export.allocation {
		return nil, fmt.Errorf("look at the extents: %w", errNotOffered)
	}
	if off < 0 || n <= 0 || off > c.export.size-n {
		return nil, fmt.Errorf("look at the extents of %d bytes at %d: the export has %d bytes", n, off, c.export.size)
	}
	least := c.export.least
	from := off / least * least
	const most = math.MaxUint32 &^ (64<<10 - 1) // the most that fits, in blocks of any size
	length := min((off+n-from+least-1)/least*least, most, c.export.size-from)
	r := &request{command: cmdBlockStatus, off: from, n: length}
	if err := c.do(r); err != nil {
		return nil, err
	}
	return clip(r.extents, off, off+n), nil
}

// clip cuts extents to what was asked for. The last of them may reach beyond it.
func clip(all []Extent, from, to int64) []Extent {
	out := all[:0]
	for _, e := range all {
		end := min(e.Off+e.N, to)
		e.Off = max(e.Off, from)
		if e.N = end - e.Off; e.N > 0 {
			out = append(out, e)
		}
	}
	return out
}

// take reads a chunk that tells of a request's range. Neighbours of one kind become one.
func (r *request) take(data []byte, context uint32) error {
	if r.command != cmdBlockStatus || r.extents != nil || len(data) < 12 || len(data)%8 != 4 {
		return violation("%d bytes about extents answer a %s", len(data), r)
	}
	if got := binary.BigEndian.Uint32(data); got != context {
		return violation("extents of context %d, not of %d", got, context)
	}
	at, end := r.off, r.off+r.n
	for data = data[4:]; len(data) > 0; data = data[8:] {
		n, state := int64(binary.BigEndian.Uint32(data)), binary.BigEndian.Uint32(data[4:])
		if n == 0 || at >= end {
			return violation("an extent of %d bytes at %d in a %s", n, at, r)
		}
		e := Extent{Off: at, N: n, Hole: state&stateHole != 0, Zero: state&stateZero != 0}
		if k := len(r.extents) - 1; k >= 0 && r.extents[k].Hole == e.Hole && r.extents[k].Zero == e.Zero {
			r.extents[k].N += n
		} else {
			r.extents = append(r.extents, e)
		}
		at += n
	}
	return nil
}
