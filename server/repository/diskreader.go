package repository

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// diskReader implements [backup.DiskReader]: it keeps the blocks that were
// read last, and reads ahead while it is read in order.
type diskReader struct {
	r      *repository
	m      *blockMap
	ctx    context.Context // of the opening: ReadAt brings none
	cancel context.CancelFunc
	slots  chan struct{} // one for each block being read
	ahead  int           // blocks to read ahead
	keep   int           // blocks to remember
	wg     sync.WaitGroup

	mu     sync.Mutex // guards the rest
	blocks map[int64]*list.Element
	order  *list.List // of *fetch, last used first
	next   int64      // block that comes next if reading goes on in order
	closed bool
}

// fetch is a block that is, or is being, read.
type fetch struct {
	block int64
	done  chan struct{}
	data  []byte
	err   error
}

var _ backup.DiskReader = (*diskReader)(nil)

func newDiskReader(ctx context.Context, r *repository, m *blockMap) *diskReader {
	ctx, cancel := context.WithCancel(ctx)
	at := r.readers(m.layout.BlockSize)
	ahead := at
	if m.layout.BlockSize <= blockMedium {
		ahead = 2 * at
	}
	return &diskReader{
		r: r, m: m, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, at), ahead: ahead, keep: 2 * ahead,
		blocks: map[int64]*list.Element{}, order: list.New(),
	}
}

const (
	// A storage elsewhere answers late: so many blocks are asked for at the same
	// time, unless they are so large that they come to more bytes.
	remoteReaders = 32
	remoteBytes   = 16 << 20
)

// readers is how many blocks of that size are read at the same time: as many
// bytes as the workers can take, whatever the size.
func (r *repository) readers(size int64) int {
	n := max(r.cfg.Workers, r.cfg.Workers*blockMedium/int(size))
	if r.kind == KindFilesystem {
		return n
	}
	return max(n, min(remoteReaders, int(remoteBytes/size)))
}

func (d *diskReader) Capacity() int64 { return d.m.layout.Capacity }

// Next returns the next range from off on that may hold other bytes than zero.
func (d *diskReader) Next(off int64) (start, n int64) {
	l := d.m.layout
	if off < 0 {
		off = 0
	}
	if off >= l.Capacity {
		return l.Capacity, 0
	}
	first := d.m.nextUsed(off / l.BlockSize)
	if first == l.blocks() {
		return l.Capacity, 0
	}
	start = max(off, first*l.BlockSize)
	end := min(d.m.nextFree(first)*l.BlockSize, l.Capacity)
	return start, end - start
}

// ReadAt reads the disk's bytes.
func (d *diskReader) ReadAt(p []byte, off int64) (int, error) {
	l := d.m.layout
	if err := d.ctx.Err(); err != nil {
		return 0, fmt.Errorf("disk is closed: %w", err)
	}
	if off < 0 {
		return 0, errors.New("read before the beginning of the disk")
	}
	if off >= l.Capacity {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), l.Capacity-off)]
	last := (off + int64(len(want)) - 1) / l.BlockSize
	n := 0
	for n < len(want) {
		at := off + int64(n)
		block := at / l.BlockSize
		rest := want[n:min(int64(len(want)), int64(n)+l.length(block)-at%l.BlockSize)]
		if !d.m.isUsed(block) {
			clear(rest)
		} else {
			b, err := d.block(block, last)
			if err != nil {
				return n, err
			}
			copy(rest, b[at%l.BlockSize:])
		}
		n += len(rest)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// block returns the bytes of a used block; last is the last one that the
// caller wants now.
func (d *diskReader) block(block, last int64) ([]byte, error) {
	f, err := d.request(block, last)
	if err != nil {
		return nil, err
	}
	select {
	case <-f.done:
		return f.data, f.err
	case <-d.ctx.Done():
		return nil, d.ctx.Err()
	}
}

// request begins to read a block, unless it is there, and those after it if
// they will be wanted.
func (d *diskReader) request(block, last int64) (*fetch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.New("disk is closed")
	}
	inOrder := block == d.next || block+1 == d.next || last > block
	f := d.start(block)
	d.next = d.m.nextUsed(block + 1)
	b := d.next
	for i := 0; inOrder && i < d.ahead && b < d.m.layout.blocks(); i++ {
		if d.blocks[b] == nil {
			d.start(b)
		}
		b = d.m.nextUsed(b + 1)
	}
	return f, nil
}

// start returns the block's fetch and begins it if there is none. The caller
// holds mu.
func (d *diskReader) start(block int64) *fetch {
	if e := d.blocks[block]; e != nil {
		d.order.MoveToFront(e)
		return e.Value.(*fetch)
	}
	f := &fetch{block: block, done: make(chan struct{})}
	d.blocks[block] = d.order.PushFront(f)
	for d.order.Len() > d.keep {
		old := d.order.Remove(d.order.Back()).(*fetch)
		delete(d.blocks, old.block)
	}
	d.wg.Go(func() { d.fetch(f) })
	return f
}

func (d *diskReader) fetch(f *fetch) {
	defer close(f.done)
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-d.ctx.Done():
		f.err = d.ctx.Err()
		return
	}
	f.data, f.err = d.read(f.block)
	if f.err == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.blocks[f.block]; e != nil && e.Value == f { // the next reader tries again
		d.order.Remove(e)
		delete(d.blocks, f.block)
	}
}

func (d *diskReader) read(block int64) ([]byte, error) {
	doing := fmt.Sprintf("read block %d of disk %d", block, d.m.layout.Key)
	id, err := d.m.content(block)
	if err != nil {
		return nil, explainRead(d.ctx, d.r.store, doing, err)
	}
	b, err := getContent(d.ctx, d.r.repo, id)
	if err == nil && int64(len(b)) != d.m.layout.length(block) {
		err = fmt.Errorf("block has %d bytes", len(b))
	}
	return b, explainRead(d.ctx, d.r.store, doing, err)
}

// Close waits until nothing is read any more.
func (d *diskReader) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.wg.Wait()
	return d.m.close()
}
