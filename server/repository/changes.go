package repository

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// EachChange compares the lists of two images of a disk. What they share in
// chunks is not read.
func (i *imageReader) EachChange(ctx context.Context, since string, key int32, fn func(off, n int64) error) error {
	s, err := i.r.snapshot(ctx, since)
	if err != nil {
		return err
	}
	other, err := i.r.openImage(ctx, s)
	if err != nil {
		return err
	}
	older, err := other.list(ctx, key)
	if err != nil {
		return err
	}
	newer, err := i.list(ctx, key)
	if err != nil {
		return err
	}
	if older.layout.BlockSize != newer.layout.BlockSize {
		return backup.Errorf(backup.NotFound, "", "The images hold disk %d in blocks of different sizes, which cannot be compared.", key)
	}
	c := &difference{ctx: ctx, fn: fn, newer: cursor{l: newer}, older: cursor{l: older}}
	if err := c.run(); err != nil {
		return explainRead(ctx, i.r.store, "compare lists of blocks", err)
	}
	return nil
}

// list opens the list of a disk's blocks.
func (i *imageReader) list(ctx context.Context, key int32) (*blockList, error) {
	l := i.doc.Layout.disk(key)
	if l == nil {
		return nil, backup.Errorf(backup.NotFound, "", "The image holds no disk %d.", key)
	}
	id, ok := i.files[l.File]
	if !ok {
		return nil, damaged(i.r.store, fmt.Sprintf("the image names the disk %d but does not hold it", key))
	}
	b, err := openBlockList(ctx, i.r.repo, *l, id)
	return b, explainRead(ctx, i.r.store, "read the list of blocks", err)
}

// cursor goes through a list entry by entry.
type cursor struct {
	l       *blockList
	chunk   int
	i       int // entry in the chunk
	entries *chunkEntries
}

// span returns the entry where the cursor is, and false behind the last one.
func (c *cursor) span(ctx context.Context) (span, bool, error) {
	for c.chunk < len(c.l.chunks) {
		if c.entries == nil {
			var err error
			if c.entries, err = c.l.chunk(ctx, c.chunk); err != nil {
				return span{}, false, err
			}
		}
		if c.i < len(c.entries.spans) {
			return c.entries.spans[c.i], true, nil
		}
		c.jump(c.chunk + 1)
	}
	return span{}, false, nil
}

func (c *cursor) jump(chunk int) { c.chunk, c.i, c.entries = chunk, 0, nil }

// ends moves to the next chunk where the entries of this one are done.
func (c *cursor) ends() {
	if c.entries != nil && c.i == len(c.entries.spans) {
		c.jump(c.chunk + 1)
	}
}

// difference walks through two lists at once.
type difference struct {
	ctx          context.Context
	fn           func(off, n int64) error
	newer, older cursor
	at           int64
	from, to     int64 // range found and not told yet
}

func (d *difference) run() error {
	capacity := d.newer.l.layout.Capacity
	for d.at < capacity {
		d.skip()
		a, ok, err := d.newer.span(d.ctx)
		if err != nil || !ok {
			return d.end(err)
		}
		b, ok, err := d.older.span(d.ctx)
		if err != nil {
			return err
		}
		if !ok {
			b = span{entry: entry{start: d.at, length: capacity - d.at}, zero: true}
		}
		if d.at < 0 {
			d.at = a.start
		}
		to := min(a.end(), b.end())
		same := a.zero && b.zero || !a.zero && !b.zero && a.start == b.start && a.length == b.length && string(a.id) == string(b.id)
		if !same {
			if err := d.tell(d.at, to); err != nil {
				return err
			}
		}
		d.at = to
		if a.end() == to {
			d.newer.i++
		}
		if ok && b.end() == to {
			d.older.i++
		}
	}
	return d.end(nil)
}

// skip passes chunks that both lists have at the same place. An entry may reach
// into the next chunk, so the last of a run is looked at, unless both lists end
// with it.
func (d *difference) skip() {
	d.newer.ends()
	d.older.ends()
	a, b := &d.newer, &d.older
	if a.i > 0 || b.i > 0 {
		return
	}
	n := 0
	for a.chunk+n < len(a.l.chunks) && b.chunk+n < len(b.l.chunks) && a.l.chunks[a.chunk+n].id == b.l.chunks[b.chunk+n].id {
		n++
	}
	if a.chunk+n == len(a.l.chunks) && b.chunk+n == len(b.l.chunks) {
		a.jump(a.chunk + n)
		b.jump(b.chunk + n)
		return
	}
	if n > 1 {
		a.jump(a.chunk + n - 1)
		b.jump(b.chunk + n - 1)
		d.at = -1 // where the chunk begins
	}
}

// tell gathers ranges that touch.
func (d *difference) tell(from, to int64) error {
	if d.from < d.to && d.to == from {
		d.to = to
		return nil
	}
	err := d.flush()
	d.from, d.to = from, to
	return err
}

func (d *difference) flush() error {
	if d.from == d.to {
		return nil
	}
	return d.fn(d.from, d.to-d.from)
}

func (d *difference) end(err error) error {
	if err != nil {
		return err
	}
	return d.flush()
}
