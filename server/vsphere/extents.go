package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// ahead is how many reads of a disk are under way at once.
const ahead = 4

// distant is a disk to which the way is long: more reads are under way at once.
type distant interface {
	ahead() int
}

func aheadOf(disk any) int {
	if d, ok := disk.(distant); ok {
		return d.ahead()
	}
	return ahead
}

// piece is a part of a disk that is being read.
type piece struct {
	off  int64
	buf  []byte
	done chan error
}

// sending moves areas of a disk to a writer, in order, with a few reads under way.
type sending struct {
	s        *Session
	from     io.ReaderAt
	to       io.WriterAt
	capacity int64
	label    string

	waiting []piece // in order
	spare   [][]byte
	total   int64
}

// sendAreas reads exactly those areas, in pieces of up to a MiB that end at
// whole MiB, and writes them to w in ascending order. It returns the bytes read.
func (s *Session) sendAreas(ctx context.Context, r io.ReaderAt, d writeDisk, areas iter.Seq[backup.Extent], w io.WriterAt) (int64, error) {
	c := &sending{s: s, from: r, to: w, capacity: d.Capacity, label: d.Label}
	var next int64
	for a := range areas {
		if a.Off < next || a.N < 0 || a.Off+a.N > d.Capacity {
			return c.total, fmt.Errorf("read %q: the area of %d bytes at %d is out of order, or outside the disk of %d bytes", d.Label, a.N, a.Off, d.Capacity)
		}
		next = a.Off + a.N
		for off := a.Off; off < next; {
			end := min(next, off/burst*burst+burst)
			if err := c.start(ctx, off, int(end-off)); err != nil {
				return c.total, err
			}
			off = end
		}
	}
	for len(c.waiting) > 0 {
		if err := c.land(ctx); err != nil {
			return c.total, err
		}
	}
	return c.total, nil
}

// start begins a read; when enough are under way, it ends the oldest first.
func (c *sending) start(ctx context.Context, off int64, n int) error {
	if len(c.waiting) == aheadOf(c.from) {
		if err := c.land(ctx); err != nil {
			return err
		}
	}
	if err := c.s.speed.WaitN(ctx, n); err != nil {
		return fmt.Errorf("read %q: %w", c.label, err)
	}
	var buf []byte
	if k := len(c.spare); k > 0 {
		buf, c.spare = c.spare[k-1], c.spare[:k-1]
	} else {
		buf = make([]byte, burst)
	}
	p := piece{off: off, buf: buf[:n], done: make(chan error, 1)}
	c.waiting = append(c.waiting, p)
	// A device that hangs cannot be made to give up: such a read is left behind
	// with its buffer, and ends when the device is let go of.
	go func() {
		n, err := c.from.ReadAt(p.buf, p.off)
		if n == len(p.buf) {
			err = nil // a reader may say io.EOF along with the last bytes
		} else if err == nil {
			err = io.ErrUnexpectedEOF
		}
		p.done <- err
	}()
	return nil
}

// land waits for the oldest read and writes what it brought.
func (c *sending) land(ctx context.Context) error {
	p := c.waiting[0]
	c.waiting = c.waiting[1:]
	silence := time.NewTimer(c.s.config.Stall)
	defer silence.Stop()
	var err error
	select {
	case err = <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("read %q: %w", c.label, context.Cause(ctx))
	case <-silence.C:
		err = errStall
	}
	if err != nil {
		return deviceProblem("read", c.label, p.off, len(p.buf), err)
	}
	c.total += int64(len(p.buf))
	if _, err := c.to.WriteAt(p.buf, p.off); err != nil {
		return fmt.Errorf("read %q: %w", c.label, err)
	}
	c.spare = append(c.spare, p.buf[:cap(p.buf)])
	return nil
}

// deviceProblem says where on a disk a read or a write failed. It is worth
// another try: the way to a datastore comes back.
func deviceProblem(done, label string, off int64, n int, err error) error {
	if backup.AsError(err) != nil || errors.Is(err, context.Canceled) {
		return err
	}
	return backup.Errorf(backup.Unavailable, "", "%q could not be %s at offset %d (%d bytes): %v.", label, done, off, n, err).Because(err)
}

// whole is all of a disk as one area.
func whole(capacity int64) iter.Seq[backup.Extent] {
	return func(yield func(backup.Extent) bool) { yield(backup.Extent{N: capacity}) }
}
