package repository

import (
	"bytes"
	"context"
	"log/slog"

	"github.com/kopia/kopia/repo/object"
)

// wholeLister lists a disk of which everything is written that is not zero.
type wholeLister struct {
	*entryWriter
	growth   *growth
	capacity int64
	base     *comparison
}

func (l *wholeLister) list(off, length int64, id object.ID, zero bool) error {
	l.base.piece(off, length, id, zero)
	if zero {
		return nil // what is not listed is filled with zeroes
	}
	return l.add(off, length, id)
}

func (l *wholeLister) finish(ctx context.Context) (list object.ID, stored, changed int64, err error) {
	l.base.zeroes(l.capacity)
	if err := l.fill(l.capacity); err != nil {
		return object.EmptyID, 0, 0, err
	}
	list, stored, err = l.growth.count(ctx, l.entryWriter.finish)
	return list, stored, l.base.changed, err
}

// differenceLister lists a disk that is as the base where nothing is written.
type differenceLister struct {
	*listEditor
	tell            func(off, n int64)
	stored, changed int64
}

func newDifferenceLister(d *diskWriter) *differenceLister {
	l := &differenceLister{tell: d.draft.OnChange}
	l.listEditor = newListEditor(d.ctx, d.base, d.draft.Capacity, d.i.zeroes, &listSink{size: d.i.listChunk, store: func(b []byte) (object.ID, error) {
		id, n, err := d.i.storeObject(d.ctx, b, object.WriterOptions{
			Description: "list of blocks", Prefix: listPrefix, Splitter: splitterOf(zeroRun), Compressor: metaCompression, MetadataCompressor: metaCompression,
		})
		l.stored += n
		return id, err
	}})
	return l
}

func (l *differenceLister) list(off, length int64, id object.ID, zero bool) error {
	old := span{zero: true}
	if off < l.base.layout.Capacity {
		c, i, err := l.base.find(l.ctx, off)
		if err != nil {
			return err
		}
		old = c.spans[i]
	}
	switch {
	case zero && old.zero && off+length <= l.base.layout.Capacity, !zero && names(old, off, length, id):
		return nil
	case zero && old.zero:
		return l.erase(off, length)
	}
	l.changed += length
	if l.tell != nil {
		l.tell(off, length)
	}
	if zero {
		return l.erase(off, length)
	}
	return l.replace(off, length, id)
}

func (l *differenceLister) finish(context.Context) (list object.ID, stored, changed int64, err error) {
	list, err = l.listEditor.finish()
	return list, l.stored, l.changed, err
}

// names says whether an entry is that of a range and an object.
func names(s span, off, length int64, id object.ID) bool {
	var text [64]byte
	return !s.zero && s.start == off && s.length == length && bytes.Equal(s.id, id.Append(text[:0]))
}

// comparison counts how much of a disk that is read whole is not as in the
// base. It is told the disk's pieces in ascending order.
type comparison struct {
	ctx     context.Context
	base    *blockList // nil = none: all is new that is not zero
	log     *slog.Logger
	tell    func(off, n int64) // of what is not as in the base; nil = nobody asks
	at      int64
	changed int64
}

// piece counts a piece, and zeroes before it.
func (c *comparison) piece(off, length int64, id object.ID, zero bool) {
	c.zeroes(off)
	for end := off + length; c.at < end; {
		old, to := c.old(end)
		same := old.zero
		if !zero {
			same = names(old, off, length, id)
		}
		if !same {
			c.changed += to - c.at
			if c.tell != nil && c.base != nil {
				c.tell(c.at, to-c.at)
			}
		}
		c.at = to
	}
}

// zeroes counts a range of zeroes.
func (c *comparison) zeroes(to int64) {
	if c.at < to {
		c.piece(c.at, to-c.at, object.EmptyID, true)
	}
}

// old returns the base's entry, and where the range up to end leaves it.
func (c *comparison) old(end int64) (span, int64) {
	if c.base == nil || c.at >= c.base.layout.Capacity {
		return span{zero: true}, end
	}
	e, i, err := c.base.find(c.ctx, c.at)
	if err != nil { // no reason to fail: the disk itself is whole
		c.log.WarnContext(c.ctx, "list of the base's blocks cannot be read", "disk", c.base.layout.Key, "error", err)
		c.base = nil
		return span{zero: true}, end
	}
	return e.spans[i], min(end, e.spans[i].end())
}
