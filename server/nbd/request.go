package nbd

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// request is one that waits for its answer.
type request struct {
	command, flags uint16
	off, n         int64
	data           []byte // to be written, or to be read into

	// The receiver's alone, until done is closed.
	seen    []span // of data, what has come
	extents []Extent
	refused Error // no code: it is not
	err     error

	done chan struct{}
}

type span struct{ off, end int64 }

// String says what was asked for.
func (r *request) String() string {
	if r.command == cmdFlush {
		return "flush"
	}
	return fmt.Sprintf("%s of %d bytes at %d", r.op(), r.n, r.off)
}

func (r *request) op() string {
	switch r.command {
	case cmdRead:
		return "read"
	case cmdWrite:
		return "write"
	case cmdWriteZeroes:
		return "write of zeroes"
	case cmdBlockStatus:
		return "look at the extents"
	}
	return "flush"
}

func (r *request) finish(err error) {
	r.err = err
	close(r.done)
}

// cover notes that bytes of a read have come; none may come twice.
func (r *request) cover(off, n int64) error {
	if r.command != cmdRead || n <= 0 || off < r.off || off-r.off > r.n-n {
		return violation("%d bytes at %d are no part of a %s", n, off, r)
	}
	i, _ := slices.BinarySearchFunc(r.seen, off, func(s span, off int64) int { return cmp.Compare(s.off, off) })
	if (i > 0 && r.seen[i-1].end > off) || (i < len(r.seen) && r.seen[i].off < off+n) {
		return violation("bytes at %d come twice in a %s", off, r)
	}
	if i > 0 && r.seen[i-1].end == off {
		r.seen[i-1].end = off + n
		return nil
	}
	r.seen = slices.Insert(r.seen, i, span{off, off + n})
	return nil
}

// conclude judges a whole answer.
func (r *request) conclude() error {
	switch {
	case r.refused.Code != 0:
		return nil
	case r.command == cmdRead:
		var got int64
		for _, s := range r.seen {
			got += s.end - s.off
		}
		if got != r.n {
			return violation("a %s brought %d bytes", r, got)
		}
	case r.command == cmdBlockStatus:
		if len(r.extents) == 0 {
			return violation("a %s told none", r)
		}
	}
	return nil
}

// answer is what the caller gets.
func (r *request) answer() error {
	if r.refused.Code == 0 {
		return nil
	}
	return &r.refused
}

// do sends a request and waits for its answer.
func (c *Conn) do(r *request) error {
	r.done = make(chan struct{})
	cookie, err := c.register(r)
	if err != nil {
		return fmt.Errorf("%s: %w", r, err)
	}
	silence := time.AfterFunc(c.stall, func() { c.fail(ErrStall) })
	defer silence.Stop()
	if err := c.transmit(r, cookie); err != nil {
		c.fail(err)
	}
	<-r.done
	return r.err
}

func (c *Conn) register(r *request) (cookie uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.cookie++
	c.waiting[c.cookie] = r
	return c.cookie, nil
}

func (c *Conn) transmit(r *request, cookie uint64) error {
	head := header(r.command, r.flags, cookie, uint64(r.off), uint32(r.n))
	c.send.Lock()
	defer c.send.Unlock()
	if r.command != cmdWrite {
		_, err := c.net.Write(head)
		return err
	}
	both := net.Buffers{head, r.data}
	_, err := both.WriteTo(c.net)
	return err
}

// ReadAt implements [io.ReaderAt]. What the server refuses is an [*Error].
func (c *Conn) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	want := len(p)
	p = p[:max(0, min(int64(want), c.export.size-off))]
	if off%c.export.least != 0 || int64(len(p))%c.export.least != 0 {
		if err := c.readWidened(p, off); err != nil {
			return 0, err
		}
	} else {
		for done := int64(0); done < int64(len(p)); done += c.export.most {
			n := min(c.export.most, int64(len(p))-done)
			if err := c.do(&request{command: cmdRead, off: off + done, n: n, data: p[done : done+n]}); err != nil {
				return int(done), err
			}
		}
	}
	if len(p) < want {
		return len(p), io.EOF
	}
	return len(p), nil
}

// readWidened reads what does not begin or end at a block's border.
func (c *Conn) readWidened(p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	least := c.export.least
	from := off / least * least
	to := min((off+int64(len(p))+least-1)/least*least, c.export.size)
	whole := make([]byte, to-from)
	if to%least != 0 {
		return fmt.Errorf("read at %d: the export's %d bytes are no multiple of its blocks of %d", off, c.export.size, least)
	}
	_, err := c.ReadAt(whole, from)
	copy(p, whole[off-from:])
	return err
}

// WriteAt implements [io.WriterAt]. It is on the server's disk after [Conn.Flush].
func (c *Conn) WriteAt(p []byte, off int64) (int, error) { return c.write(p, off, 0) }

// WriteThrough writes what is on the server's disk when it returns.
func (c *Conn) WriteThrough(p []byte, off int64) (int, error) {
	if c.export.flags&flagFUA != 0 {
		return c.write(p, off, requestFUA)
	}
	n, err := c.write(p, off, 0)
	if err != nil {
		return n, err
	}
	return n, c.Flush()
}

func (c *Conn) write(p []byte, off int64, flags uint16) (int, error) {
	if err := c.writable("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	for done := int64(0); done < int64(len(p)); done += c.export.most {
		n := min(c.export.most, int64(len(p))-done)
		if err := c.do(&request{command: cmdWrite, flags: flags, off: off + done, n: n, data: p[done : done+n]}); err != nil {
			return int(done), err
		}
	}
	return len(p), nil
}

// WriteZeroes makes a range zero without sending it.
func (c *Conn) WriteZeroes(off, n int64) error {
	if err := c.writable("write of zeroes", off, n); err != nil {
		return err
	}
	if c.export.flags&flagWriteZeroes == 0 {
		return c.sendZeroes(off, n)
	}
	const most = 1 << 30 // a server may do the work at once, and must not seem stuck
	for ; n > 0; off, n = off+most, n-most {
		if err := c.do(&request{command: cmdWriteZeroes, off: off, n: min(most, n)}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) sendZeroes(off, n int64) error {
	zero := make([]byte, min(n, 1<<20))
	for ; n > 0; off, n = off+int64(len(zero)), n-int64(len(zero)) {
		if _, err := c.WriteAt(zero[:min(n, int64(len(zero)))], off); err != nil {
			return err
		}
	}
	return nil
}

// writable refuses what the server would, or worse, would not.
func (c *Conn) writable(op string, off, n int64) error {
	switch {
	case c.ReadOnly():
		return &Error{Op: op, Off: off, N: n, Code: NotPermitted, Message: "the export is read-only"}
	case off < 0 || n < 0 || off > c.export.size-n:
		return &Error{Op: op, Off: off, N: n, Code: NoSpace, Message: fmt.Sprintf("the export has %d bytes", c.export.size)}
	case off%c.export.least != 0 || n%c.export.least != 0:
		return &Error{Op: op, Off: off, N: n, Code: InvalidValue, Message: fmt.Sprintf("the export takes whole blocks of %d bytes", c.export.least)}
	}
	return nil
}

// Flush waits until what was written before is on the server's disk.
func (c *Conn) Flush() error {
	if c.export.flags&flagFlush == 0 {
		return nil // nothing is held back
	}
	return c.do(&request{command: cmdFlush})
}
