package repository

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo/object"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// diskWriter implements [backup.DiskWriter]. WriteAt gathers whole blocks;
// each is then hashed, packed and encrypted by a goroutine of its own, and one
// goroutine lists the blocks in order as they get done.
type diskWriter struct {
	i      *imageWriter
	draft  backup.DiskDraft
	size   int64           // of a block
	base   *blockList      // of the same disk in the base image; nil = none
	tail   int64           // the short block at the end of a base that has grown; -1 = none
	ctx    context.Context // of the opening: WriteAt brings none
	cancel context.CancelCauseFunc
	queue  chan *block
	listed chan struct{} // closed when the list is done
	pool   sync.Pool
	read   atomic.Int64
	stored atomic.Int64

	mu     sync.Mutex // guards the rest
	next   int64      // end of what was written last
	cur    *block     // being gathered; nil = none
	tailed bool       // the tail is on its way
	closed bool

	// Set before listed is closed.
	list    object.ID // of the blocks
	changed int64     // bytes of blocks that are not as in the base
	err     error     // why the disk is not whole
}

// block is a block on its way.
type block struct {
	n    int64 // number
	buf  *[]byte
	fill int64 // bytes of buf that are set
	gaps []gap // of these bytes, what is as in the base
	id   object.ID
	zero bool
	done chan struct{}
}

// gap is a range of a block that was not written.
type gap struct{ from, to int64 }

var _ backup.DiskWriter = (*diskWriter)(nil)

func newDiskWriter(ctx context.Context, i *imageWriter, draft backup.DiskDraft) *diskWriter {
	ctx, cancel := context.WithCancelCause(ctx)
	d := &diskWriter{
		i: i, draft: draft, ctx: ctx, cancel: cancel, base: i.bases[draft.Key], tail: -1,
		size:   blockSizeFor(draft.Capacity, i.base.disk(draft.Key)),
		queue:  make(chan *block, cap(i.slots)),
		listed: make(chan struct{}),
	}
	d.pool.New = func() any {
		b := make([]byte, d.size)
		return &b
	}
	if draft.FromBase && draft.Capacity > d.base.layout.Capacity && d.base.layout.Capacity%d.size != 0 {
		d.tail = d.base.layout.Capacity / d.size
	}
	go d.makeList()
	return d
}

// WriteAt takes the bytes of a range behind the last one.
func (d *diskWriter) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return 0, errors.New("disk is closed")
	}
	if off < d.next || off > d.draft.Capacity-int64(len(p)) {
		return 0, fmt.Errorf("write of %d bytes at %d: the disk is written up to %d and has %d", len(p), off, d.next, d.draft.Capacity)
	}
	n := 0
	for n < len(p) {
		c, err := d.gather(p[n:], off+int64(n))
		if err != nil {
			return n, err
		}
		n += c
	}
	d.read.Add(int64(n))
	return n, nil
}

// gather copies what belongs into the block at off and sends the block off
// when it is full.
func (d *diskWriter) gather(p []byte, off int64) (int, error) {
	n, at := off/d.size, off%d.size
	if d.cur != nil && d.cur.n != n {
		if err := d.send(); err != nil {
			return 0, err
		}
	}
	if d.cur == nil {
		if err := d.sendTail(n); err != nil {
			return 0, err
		}
		d.cur = d.newBlock(n)
	}
	d.skip(at)
	c := copy((*d.cur.buf)[at:], p)
	d.cur.fill = at + int64(c)
	d.next = off + int64(c)
	if d.cur.fill == d.size {
		return c, d.send()
	}
	return c, nil
}

func (d *diskWriter) newBlock(n int64) *block {
	return &block{n: n, buf: d.pool.Get().(*[]byte), done: make(chan struct{})}
}

// skip leaves a gap up to at in the block that is being gathered.
func (d *diskWriter) skip(at int64) {
	switch b := d.cur; {
	case at <= b.fill:
		return
	case d.draft.FromBase:
		b.gaps = append(b.gaps, gap{b.fill, at})
	default:
		clear((*b.buf)[b.fill:at])
	}
	d.cur.fill = at
}

// sendTail sends the base's short last block before the blocks behind it: on a
// disk that has grown it is longer. The caller holds mu.
func (d *diskWriter) sendTail(next int64) error {
	if d.tail < 0 || d.tailed || next < d.tail {
		return nil
	}
	d.tailed = true
	if next == d.tail {
		return nil
	}
	d.cur = d.newBlock(d.tail)
	return d.send()
}

// send starts the work on the block that was gathered. It waits for a place.
func (d *diskWriter) send() error {
	b := d.cur
	length := min(d.size, d.draft.Capacity-b.n*d.size)
	d.skip(length)
	d.cur = nil
	select {
	case d.i.slots <- struct{}{}:
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	}
	select {
	case d.queue <- b:
	case <-d.ctx.Done():
		<-d.i.slots
		return context.Cause(d.ctx)
	}
	go func() {
		defer func() { <-d.i.slots }()
		defer close(b.done)
		if err := d.store(b, (*b.buf)[:length]); err != nil {
			d.fail(err)
		}
		d.pool.Put(b.buf)
		b.buf = nil
	}()
	return nil
}

// store makes an object of a block.
func (d *diskWriter) store(b *block, bytes []byte) error {
	if d.ctx.Err() != nil {
		return nil //nolint:nilerr // what is wrong is known where the context was ended
	}
	if err := d.fillGaps(b, bytes); err != nil {
		return err
	}
	if allZero(bytes) {
		b.zero = true
		return nil
	}
	id, n, err := d.i.storeBlock(d.ctx, bytes, d.size, d.i.compression)
	if err != nil {
		return err
	}
	b.id = id
	d.stored.Add(n)
	return nil
}

// fillGaps takes what was not written of a block from the base's.
func (d *diskWriter) fillGaps(b *block, bytes []byte) error {
	if len(b.gaps) == 0 {
		return nil
	}
	old, err := d.base.block(d.ctx, b.n)
	if err != nil {
		return fmt.Errorf("read block %d of the base image: %w", b.n, err)
	}
	for _, g := range b.gaps {
		n := copy(bytes[g.from:g.to], old[min(g.from, int64(len(old))):])
		clear(bytes[g.from+int64(n) : g.to])
	}
	return nil
}

// fail keeps the first error and stops the disk.
func (d *diskWriter) fail(err error) {
	d.cancel(explain(context.WithoutCancel(d.ctx), d.i.r.store, fmt.Sprintf("store disk %d", d.draft.Key), err))
}

// makeList lists the blocks in order until the queue is closed. After an error
// it only waits for the blocks that are still in work.
func (d *diskWriter) makeList() {
	defer close(d.listed)
	l := d.lister()
	for b := range d.queue {
		<-b.done
		if d.ctx.Err() != nil {
			continue
		}
		off := b.n * d.size
		err := l.list(off, min(d.size, d.draft.Capacity-off), b.id, b.zero)
		if err == nil {
			err = d.i.growth.checkpoint(d.ctx)
		}
		if err != nil {
			d.fail(err)
		}
	}
	if err := d.finishList(l); err != nil {
		d.fail(err)
	}
	d.err = context.Cause(d.ctx)
}

// lister makes the list of a disk's blocks, told in ascending order.
type lister interface {
	list(off, length int64, id object.ID, zero bool) error
	// finish returns the list, what the repository grew by for it, and how many
	// bytes of the disk are not as in the base.
	finish(ctx context.Context) (list object.ID, stored, changed int64, err error)
	close() error
}

func (d *diskWriter) lister() lister {
	if d.draft.FromBase {
		return newDifferenceLister(d)
	}
	return &wholeLister{
		entryWriter: newEntryWriter(d.ctx, d.i.w, d.size, d.i.zeroes), growth: d.i.growth, capacity: d.draft.Capacity,
		base: &comparison{ctx: d.ctx, base: d.base, log: d.i.r.cfg.Log, tell: d.draft.OnChange},
	}
}

func (d *diskWriter) finishList(l lister) (err error) {
	defer func() {
		if cerr := l.close(); err == nil {
			err = cerr
		}
	}()
	if d.ctx.Err() != nil {
		return nil // what is wrong is known
	}
	var n int64
	d.list, n, d.changed, err = l.finish(d.ctx)
	d.stored.Add(n)
	return err
}

// Close waits until all is stored.
func (d *diskWriter) Close(ctx context.Context) (backup.ImageDisk, error) {
	stop := context.AfterFunc(ctx, func() { d.cancel(ctx.Err()) })
	defer stop()
	d.end(true)
	<-d.listed
	if d.err != nil {
		return backup.ImageDisk{}, d.err
	}
	return d.disk(), nil
}

// end sends the last block, if it is wanted, and closes the queue.
func (d *diskWriter) end(whole bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	if whole {
		if err := d.sendLast(); err != nil {
			d.fail(err)
		}
	}
	d.cur = nil
	close(d.queue)
}

func (d *diskWriter) sendLast() error {
	if d.cur != nil {
		if err := d.send(); err != nil {
			return err
		}
	}
	return d.sendTail(math.MaxInt64)
}

// abort stops the disk and waits for what is in work.
func (d *diskWriter) abort() {
	d.cancel(errEnded)
	d.end(false)
	<-d.listed
}

// disk tells what became of it. It is called after listed is closed.
func (d *diskWriter) disk() backup.ImageDisk {
	return backup.ImageDisk{
		Key: d.draft.Key, Label: d.draft.Label, Capacity: d.draft.Capacity,
		Read: d.read.Load(), Changed: d.changed, Stored: d.stored.Load(),
		UUID: d.draft.UUID, ChangeID: d.draft.ChangeID, File: d.draft.File,
	}
}

// whole says whether the disk was closed and all of it is stored.
func (d *diskWriter) whole() error {
	select {
	case <-d.listed:
		return d.err
	default:
		return fmt.Errorf("disk %d is not closed", d.draft.Key)
	}
}

func (d *diskWriter) layout() diskLayout {
	return diskLayout{
		Key: d.draft.Key, File: diskName(d.draft.Key), Capacity: d.draft.Capacity,
		BlockSize: d.size, Zeroes: d.zeroes(),
	}
}

// zeroes are the objects of zeroes that the list may name.
func (d *diskWriter) zeroes() []object.ID {
	all := d.i.zeroes.ids()
	if d.draft.FromBase {
		for _, id := range d.base.layout.Zeroes {
			if !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
	}
	return all
}
