package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// writeUnit is what is written at the least: half the size of it would make
// twice the requests of scattered changes, twice the size write what is equal.
const writeUnit = 64 << 10

// levelled is what making a disk equal to an image took.
type levelled struct {
	compared int64 // bytes
	written  int64
}

// levelling makes a disk equal to an image's, and writes only where they differ.
// It may be repeated after any end.
type levelling struct {
	s        *Session
	disk     device
	image    backup.DiskReader
	target   writeDisk
	room     int64 // bytes that may be written
	progress func(compared int64)

	waiting []comparison // in order
	spare   [][2][]byte
	done    levelled
}

// comparison is a piece of the disk and of the image that are being read.
type comparison struct {
	off        int64
	have, want []byte
	done       chan error
}

// level compares all of the disk with the image, piece by piece, with a few
// reads under way. Where the image has nothing, the disk has to be zero. What is
// written takes space, of which there is room.
func (s *Session) level(ctx context.Context, d writeDisk, disk device, image backup.DiskReader, room int64, progress func(int64)) (levelled, error) {
	l := &levelling{s: s, disk: disk, image: image, target: d, room: room, progress: progress}
	for off := int64(0); off < d.Capacity; off += burst {
		if n := l.skip(off); n > 0 {
			l.done.compared += n
			progress(l.done.compared)
			off += n - burst
			continue
		}
		if len(l.waiting) == aheadOf(l.disk) {
			if err := l.land(ctx); err != nil {
				return l.done, err
			}
		}
		n := int(min(burst, d.Capacity-off))
		if err := s.speed.WaitN(ctx, n); err != nil {
			return l.done, fmt.Errorf("compare %q: %w", d.Label, err)
		}
		l.start(off, n)
	}
	for len(l.waiting) > 0 {
		if err := l.land(ctx); err != nil {
			return l.done, err
		}
	}
	return l.done, nil
}

// barren is a device that knows, without reading, what of it is zero.
type barren interface {
	// zeroes says how many of the n bytes at off, from the first on, are known to
	// be zero. It is asked for ascending places ahead of what is written.
	zeroes(off, n int64) int64
}

// skip says how many bytes at off need no comparison, in whole pieces: the
// image has none there, and the disk is known to have none.
func (l *levelling) skip(off int64) int64 {
	disk, knows := l.disk.(barren)
	if !knows {
		return 0
	}
	end := l.target.Capacity
	if start, n := l.image.Next(off); n > 0 {
		end = max(start, off)
	}
	if end-off < burst {
		return 0
	}
	return disk.zeroes(off, end-off) / burst * burst
}

func (l *levelling) start(off int64, n int) {
	var b [2][]byte
	if k := len(l.spare); k > 0 {
		b, l.spare = l.spare[k-1], l.spare[:k-1]
	} else {
		b = [2][]byte{make([]byte, burst), make([]byte, burst)}
	}
	c := comparison{off: off, have: b[0][:n], want: b[1][:n], done: make(chan error, 1)}
	l.waiting = append(l.waiting, c)
	go func() { // as in sending.start, a read that hangs is left behind
		err := readFull(l.disk, c.have, c.off)
		if err != nil {
			err = deviceProblem("read", l.target.Label, c.off, n, err)
		} else if err = readImage(l.image, c.want, c.off); err != nil {
			err = fmt.Errorf("read %q of the image at %d: %w", l.target.Label, c.off, err)
		}
		c.done <- err
	}()
}

func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil // a reader may say io.EOF along with the last bytes
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// readImage reads only where the image holds something.
func readImage(r backup.DiskReader, p []byte, off int64) error {
	clear(p)
	end := off + int64(len(p))
	for at := off; at < end; {
		start, n := r.Next(at)
		if n == 0 || start >= end {
			return nil
		}
		stop := min(start+n, end)
		start = max(start, off)
		if err := readFull(r, p[start-off:stop-off], start); err != nil {
			return err
		}
		at = stop
	}
	return nil
}

// land waits for the oldest comparison and writes where it differs.
func (l *levelling) land(ctx context.Context) error {
	c := l.waiting[0]
	l.waiting = l.waiting[1:]
	silence := time.NewTimer(l.s.config.Stall)
	defer silence.Stop()
	select {
	case err := <-c.done:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return fmt.Errorf("compare %q: %w", l.target.Label, context.Cause(ctx))
	case <-silence.C:
		return deviceProblem("read", l.target.Label, c.off, len(c.have), errStall)
	}
	for _, e := range differences(c.have, c.want) {
		p := c.want[e.Off : e.Off+e.N]
		if l.done.written+e.N > l.room {
			return backup.Errorf(backup.NoSpace, "", "More of %q differs than the datastore %s has room for: %s may be written. Free some, or restore to a new VM elsewhere.",
				l.target.Label, storeOf(l.target.File), backup.SizeText(l.room))
		}
		if err := l.s.speed.WaitN(ctx, len(p)); err != nil {
			return fmt.Errorf("write %q: %w", l.target.Label, err)
		}
		if _, err := l.disk.WriteAt(p, c.off+e.Off); err != nil {
			if errors.Is(err, context.Canceled) {
				return err
			}
			return deviceProblem("written", l.target.Label, c.off+e.Off, len(p), err)
		}
		l.done.written += e.N
	}
	l.done.compared += int64(len(c.have))
	l.progress(l.done.compared)
	l.spare = append(l.spare, [2][]byte{c.have[:cap(c.have)], c.want[:cap(c.want)]})
	return nil
}

// differences are the runs of units in which two pieces of one length differ.
func differences(a, b []byte) (runs []backup.Extent) {
	for off := 0; off < len(a); off += writeUnit {
		end := min(off+writeUnit, len(a))
		if bytes.Equal(a[off:end], b[off:end]) {
			continue
		}
		if k := len(runs); k > 0 && runs[k-1].Off+runs[k-1].N == int64(off) {
			runs[k-1].N += int64(end - off)
			continue
		}
		runs = append(runs, backup.Extent{Off: int64(off), N: int64(end - off)})
	}
	return runs
}
