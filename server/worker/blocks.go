package worker

import (
	"iter"
	"math/bits"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// blockSet is a set of a disk's blocks, those in which the repository keeps it:
// a bit for each, 2 MiB for the largest disk.
type blockSet struct {
	size     int64 // bytes of a block
	capacity int64
	bits     []uint64
}

func newBlockSet(size, capacity int64) *blockSet {
	blocks := (capacity + size - 1) / size
	return &blockSet{size: size, capacity: capacity, bits: make([]uint64, (blocks+63)/64)}
}

// add adds the blocks that a range touches.
func (s *blockSet) add(e backup.Extent) {
	for b := e.Off / s.size; b*s.size < e.Off+e.N; b++ {
		s.bits[b/64] |= 1 << (b % 64)
	}
}

func (s *blockSet) has(block int64) bool { return s.bits[block/64]>>(block%64)&1 == 1 }

func (s *blockSet) empty() bool {
	for _, w := range s.bits {
		if w != 0 {
			return false
		}
	}
	return true
}

// bytes is how much of the disk the blocks are.
func (s *blockSet) bytes() (n int64) {
	for e := range s.extents() {
		n += e.N
	}
	return n
}

// extents yields the blocks as ranges, ascending and apart.
func (s *blockSet) extents() iter.Seq[backup.Extent] {
	return func(yield func(backup.Extent) bool) {
		for b := s.next(0, 0); b*s.size < s.capacity; {
			end := s.next(b, ^uint64(0))
			from, to := b*s.size, min(end*s.size, s.capacity)
			if !yield(backup.Extent{Off: from, N: to - from}) {
				return
			}
			b = s.next(end, 0)
		}
	}
}

// next is the first block from b on that is in the set or, inverted, that is
// not; behind the last one it is the number of bits.
func (s *blockSet) next(b int64, invert uint64) int64 {
	last := int64(len(s.bits)) * 64
	for b < last {
		if w := (s.bits[b/64] ^ invert) >> (b % 64); w != 0 {
			return b + int64(bits.TrailingZeros64(w))
		}
		b = (b/64 + 1) * 64
	}
	return last
}
