package lab

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"

	"github.com/kura-backup/terraform-provider-kura/server/vmdk"
)

// chunkBlocks is how many blocks share one piece of a disk's map: 32 MiB of
// disk for 2 KiB of memory, and nothing for what was never written.
const chunkBlocks = 512

type chunk [chunkBlocks]place

// errNoSpace means that the datastore of a disk is full.
var errNoSpace = errors.New("the datastore is full")

// disk is the content behind a virtual disk: a tree of links, of which one is
// the running state and the others are frozen by snapshots.
type disk struct {
	heap     *heap
	mu       sync.RWMutex // guards all below, and what the links hold
	capacity int64
	links    map[*link]struct{}
	changes  changes
	serial   int // number of the last delta file
}

// link is one VMDK file: a base, or a delta over its parent.
type link struct {
	disk   *disk
	parent *link
	chunks map[int64]*chunk
	base   *generator // of a base only: what it holds where nothing was written
	space  *space
	count  int64 // blocks that take space
	uuid   string
	// aside marks the redo log that a proxy VM writes: no part of the VM's own
	// chain, so its writes are none of the VM's changes.
	aside bool

	path string // datastore path; guarded by store.mu
}

// newDisk makes a disk of one base link.
func newDisk(h *heap, capacity int64, base *generator, sp *space) *link {
	d := &disk{heap: h, capacity: capacity, links: map[*link]struct{}{}}
	d.changes.reset()
	l := &link{disk: d, chunks: map[int64]*chunk{}, base: base, space: sp}
	if base != nil {
		l.take(base.allocated(d.blocks()))
	}
	d.links[l] = struct{}{}
	return l
}

func (d *disk) blocks() int64 { return (d.capacity + blockSize - 1) / blockSize }

// freeze makes l read-only by starting a delta over it. The caller puts the delta into the store.
func (l *link) freeze(aside bool) *link {
	d := l.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serial++
	delta := &link{disk: d, parent: l, chunks: map[int64]*chunk{}, space: l.space, uuid: l.uuid, aside: aside}
	d.links[delta] = struct{}{}
	return delta
}

// kids lists the links whose parent is l. The caller holds the disk's lock.
func (l *link) kids() (list []*link) {
	for k := range l.disk.links {
		if k.parent == l {
			list = append(list, k)
		}
	}
	return list
}

// hasKids says whether l is frozen.
func (l *link) hasKids() bool {
	l.disk.mu.RLock()
	defer l.disk.mu.RUnlock()
	return len(l.kids()) > 0
}

// place says where the chain that ends in l has a block, and in which link's
// base content the search ended. The caller holds the disk's lock.
func (l *link) place(block int64) (place, *generator) {
	for m := l; ; m = m.parent {
		if c := m.chunks[block/chunkBlocks]; c != nil && c[block%chunkBlocks] != absent {
			return c[block%chunkBlocks], nil
		}
		if m.parent == nil {
			return absent, m.base
		}
	}
}

// ReadAt reads the state of the disk that ends in l.
func (l *link) ReadAt(p []byte, off int64) (int, error) {
	d := l.disk
	d.mu.RLock()
	defer d.mu.RUnlock()
	if off < 0 || off >= d.capacity {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), d.capacity-off))
	for done := 0; done < n; {
		at := off + int64(done)
		k := min(int((at/blockSize+1)*blockSize-at), n-done)
		if err := l.readBlock(at/blockSize, p[done:done+k], at%blockSize); err != nil {
			return done, err
		}
		done += k
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readBlock reads a part of one block. The caller holds the disk's lock.
func (l *link) readBlock(block int64, p []byte, off int64) error {
	at, base := l.place(block)
	switch {
	case at >= inHeap0:
		return l.disk.heap.read(at, p, off)
	case at == zeroed || base.kind(block) == hole:
		clear(p)
	case off == 0 && len(p) == blockSize:
		base.block(block, p)
	default:
		var whole [blockSize]byte
		base.block(block, whole[:])
		copy(p, whole[off:])
	}
	return nil
}

// WriteAt is a write of the VM whose disk l is; l must not be frozen.
func (l *link) WriteAt(p []byte, off int64) (int, error) { return l.writeAt(p, off, !l.aside) }

// writeAt writes to l, past changed block tracking where that is not tracked.
func (l *link) writeAt(p []byte, off int64, tracked bool) (int, error) {
	d := l.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 || off+int64(len(p)) > d.capacity {
		return 0, fmt.Errorf("write of %d bytes at %d to a disk of %d bytes", len(p), off, d.capacity)
	}
	if len(l.kids()) > 0 {
		return 0, errors.New("write to a disk file that a snapshot froze")
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		k := min(int((at/blockSize+1)*blockSize-at), len(p)-done)
		if tracked {
			d.changes.note(at / blockSize)
		}
		if err := l.writeBlock(at/blockSize, p[done:done+k], at%blockSize); err != nil {
			return done, err
		}
		done += k
	}
	return len(p), nil
}

func (l *link) writeBlock(block int64, p []byte, off int64) error {
	whole := off == 0 && int64(len(p)) == min(blockSize, l.disk.capacity-block*blockSize)
	if whole && vmdk.IsZero(p) {
		l.own(block, zeroed)
		return nil
	}
	if at := l.owned(block); at >= inHeap0 {
		return l.disk.heap.write(at, p, off)
	}
	if !l.space.fits(1) {
		return errNoSpace
	}
	if !whole {
		var b [blockSize]byte
		if err := l.readBlock(block, b[:], 0); err != nil {
			return err
		}
		copy(b[off:], p)
		p = b[:]
	}
	at, err := l.disk.heap.alloc()
	if err != nil {
		return err
	}
	if err := l.disk.heap.write(at, p, 0); err != nil {
		l.disk.heap.release(at)
		return err
	}
	l.own(block, at)
	return nil
}

func (l *link) owned(block int64) place {
	if c := l.chunks[block/chunkBlocks]; c != nil {
		return c[block%chunkBlocks]
	}
	return absent
}

// own replaces where l has a block, frees what it had there and keeps count of the space.
func (l *link) own(block int64, at place) {
	c := l.chunks[block/chunkBlocks]
	if c == nil {
		c = new(chunk)
		l.chunks[block/chunkBlocks] = c
	}
	old := c[block%chunkBlocks]
	had := old >= inHeap0 || old == absent && l.base.kind(block) != hole
	if old >= inHeap0 && old != at {
		l.disk.heap.release(old)
	}
	c[block%chunkBlocks] = at
	switch has := at >= inHeap0; {
	case has && !had:
		l.take(1)
	case had && !has:
		l.give(1)
	}
}

// merge moves what kid holds into l, its parent, and takes kid's place. The caller holds the disk's lock.
func (l *link) merge(kid *link) {
	for n, c := range kid.chunks {
		for i, at := range c {
			if at != absent {
				if at >= inHeap0 {
					kid.give(1)
				}
				l.own(n*chunkBlocks+int64(i), at)
			}
		}
	}
	kid.chunks = nil
	delete(l.disk.links, kid)
	for k := range l.disk.links {
		if k.parent == kid {
			k.parent = l
		}
	}
}

// drop frees all that l holds. The caller holds the disk's lock and knows that nothing hangs on l.
func (l *link) drop() {
	var places []place
	for _, c := range l.chunks {
		for _, at := range c {
			if at >= inHeap0 {
				places = append(places, at)
			}
		}
	}
	l.disk.heap.release(places...)
	l.give(l.count)
	l.chunks, l.base = nil, nil
	delete(l.disk.links, l)
}

// size is the space that l itself takes, in bytes.
func (l *link) size() int64 {
	l.disk.mu.RLock()
	defer l.disk.mu.RUnlock()
	return l.count * blockSize
}

// take counts blocks that l holds from now on; give is its reverse.
func (l *link) take(blocks int64) {
	l.count += blocks
	l.space.used.Add(blocks)
}

func (l *link) give(blocks int64) { l.take(-blocks) }

// allocated yields, in order, the blocks from first on that are no holes in
// the chain that ends in l. What no link ever touched is passed over chunk by chunk.
func (l *link) allocated(first int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		blocks := l.disk.blocks()
		for n := first / chunkBlocks; n*chunkBlocks < blocks; n++ {
			for _, b := range l.allocatedIn(n) {
				if b >= first && !yield(b) {
					return
				}
			}
		}
	}
}

func (l *link) allocatedIn(n int64) (list []int64) {
	d := l.disk
	d.mu.RLock()
	defer d.mu.RUnlock()
	touched, root := false, l
	for m := l; m != nil; m = m.parent {
		touched = touched || m.chunks[n] != nil
		root = m
	}
	last := min((n+1)*chunkBlocks, d.blocks())
	for b := n * chunkBlocks; b < last; b++ {
		if !touched && root.base.kind(b) == hole {
			b += runBlocks - 1 - b%runBlocks // a run is of one kind
			continue
		}
		if at, base := l.place(b); at >= inHeap0 || at == absent && base.kind(b) != hole {
			list = append(list, b)
		}
	}
	return list
}

// copyTo copies the state that ends in l to another disk of the same capacity.
func (l *link) copyTo(to *link) error {
	b := make([]byte, blockSize)
	for n := range l.allocated(0) {
		k, err := l.ReadAt(b, n*blockSize)
		if err != nil && !isEOF(err) {
			return err
		}
		if _, err := to.WriteAt(b[:k], n*blockSize); err != nil {
			return err
		}
	}
	return nil
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
