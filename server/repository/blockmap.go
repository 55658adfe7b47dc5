package repository

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
)

const (
	pageBlocks = 4096 // blocks in a page of the map
	pagesKept  = 4
)

// blockMap tells which content holds a block of a disk. Only one bit for each
// block is in memory; the names of the contents are read from the list, page
// by page, when they are asked for.
type blockMap struct {
	layout diskLayout
	used   []uint64 // a bit for each block, as far as any is used: it may hold other bytes than zero
	pages  []page

	mu   sync.Mutex    // guards the rest
	list object.Reader // seeks: one at a time
	kept []keptPage    // last used first
}

// page is where in the list the names of up to pageBlocks used blocks stand.
type page struct {
	first int64 // block
	at    int64
}

type keptPage struct {
	n    int
	refs []blockRef
}

// blockRef is one used block and its content.
type blockRef struct {
	block int64
	id    content.ID
}

// openBlockMap reads the list of a disk once.
func openBlockMap(ctx context.Context, r repo.Repository, l diskLayout, disk object.ID) (*blockMap, error) {
	list, ok := disk.IndexObjectID()
	if !ok || l.Capacity <= 0 || splitterOf(l.BlockSize) == "" {
		return nil, fmt.Errorf("disk %d is laid out in an unknown way", l.Key)
	}
	o, err := r.OpenObject(ctx, list)
	if err != nil {
		return nil, err
	}
	m := &blockMap{layout: l, list: o}
	if err := m.scan(ctx); err != nil {
		_ = o.Close() // the first error counts
		return nil, err
	}
	return m, nil
}

func (l diskLayout) blocks() int64 { return (l.Capacity + l.BlockSize - 1) / l.BlockSize }

// length is the length of a block: the last one may be short.
func (l diskLayout) length(block int64) int64 {
	return min(l.BlockSize, l.Capacity-block*l.BlockSize)
}

// scan checks that the list covers the disk without a gap, and notes which
// blocks are used and where they are named.
func (m *blockMap) scan(ctx context.Context) error {
	s, err := scanEntries(m.list, 0)
	if err != nil {
		return err
	}
	zero := map[string]bool{}
	for _, id := range m.layout.Zeroes {
		zero[id.String()] = true
	}
	var end, used int64
	for n := 0; ; n++ {
		if n%pageBlocks == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		e, ok, err := s.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if e.start != end || e.length <= 0 || e.length > m.layout.Capacity-end {
			return fmt.Errorf("list of blocks has a gap at %d", end)
		}
		end += e.length
		if zero[string(e.id)] {
			if e.length > zeroRun {
				return fmt.Errorf("list of blocks has a piece of %d zeroes at %d", e.length, e.start)
			}
			continue
		}
		block := e.start / m.layout.BlockSize
		if e.start%m.layout.BlockSize != 0 || e.length != m.layout.length(block) {
			return fmt.Errorf("list of blocks has a piece of %d bytes at %d", e.length, e.start)
		}
		if used%pageBlocks == 0 {
			m.pages = append(m.pages, page{first: block, at: e.at})
		}
		if more := int(block/64) + 1 - len(m.used); more > 0 { // as the list goes on, so that no false capacity takes memory
			m.used = append(m.used, make([]uint64, more)...)
		}
		m.used[block/64] |= 1 << (block % 64)
		used++
	}
	if end != m.layout.Capacity {
		return fmt.Errorf("list of blocks ends at %d, the disk at %d", end, m.layout.Capacity)
	}
	return nil
}

func (m *blockMap) isUsed(block int64) bool { return m.word(block)>>(block%64)&1 == 1 }

// word holds the bit of a block.
func (m *blockMap) word(block int64) uint64 {
	if i := block / 64; i < int64(len(m.used)) {
		return m.used[i]
	}
	return 0
}

// nextUsed returns the first used block from block on, or the number of blocks.
func (m *blockMap) nextUsed(block int64) int64 { return m.nextBit(block, 0) }

// nextFree returns the first unused block from block on, or the number of blocks.
func (m *blockMap) nextFree(block int64) int64 { return m.nextBit(block, ^uint64(0)) }

func (m *blockMap) nextBit(block int64, invert uint64) int64 {
	count := m.layout.blocks()
	for block < count {
		if w := (m.word(block) ^ invert) >> (block % 64); w != 0 {
			return min(block+int64(bits.TrailingZeros64(w)), count)
		}
		block = (block/64 + 1) * 64
	}
	return count
}

// content returns the name of a used block's content.
func (m *blockMap) content(block int64) (content.ID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, found := slices.BinarySearchFunc(m.pages, block, func(p page, b int64) int { return cmp.Compare(p.first, b) })
	if !found {
		n--
	}
	refs, err := m.page(n)
	if err != nil {
		return content.EmptyID, err
	}
	i, found := slices.BinarySearchFunc(refs, block, func(r blockRef, b int64) int { return cmp.Compare(r.block, b) })
	if !found {
		return content.EmptyID, fmt.Errorf("block %d is not in the list", block)
	}
	return refs[i].id, nil
}

// page returns a page, from memory if it was used lately. The caller holds mu.
func (m *blockMap) page(n int) ([]blockRef, error) {
	if i := slices.IndexFunc(m.kept, func(k keptPage) bool { return k.n == n }); i >= 0 {
		k := m.kept[i]
		copy(m.kept[1:i+1], m.kept[:i])
		m.kept[0] = k
		return k.refs, nil
	}
	refs, err := m.readPage(n)
	if err != nil {
		return nil, err
	}
	m.kept = slices.Insert(m.kept, 0, keptPage{n, refs})
	m.kept = m.kept[:min(len(m.kept), pagesKept)]
	return refs, nil
}

func (m *blockMap) readPage(n int) ([]blockRef, error) {
	if n < 0 {
		return nil, fmt.Errorf("page %d is not in the list", n)
	}
	if _, err := m.list.Seek(m.pages[n].at, 0); err != nil {
		return nil, err
	}
	s, err := scanEntries(m.list, m.pages[n].at)
	if err != nil {
		return nil, err
	}
	refs := make([]blockRef, 0, pageBlocks)
	for len(refs) < pageBlocks {
		e, ok, err := s.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		block := e.start / m.layout.BlockSize
		if !m.isUsed(block) {
			continue
		}
		id, err := object.ParseID(string(e.id))
		if err != nil {
			return nil, err
		}
		c, compressed, direct := id.ContentID()
		if compressed || !direct {
			return nil, fmt.Errorf("block %d is stored in an unknown way", block)
		}
		refs = append(refs, blockRef{block, c})
	}
	return refs, nil
}

func (m *blockMap) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list.Close()
}
