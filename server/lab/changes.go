package lab

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// errChangeID means that a change id is of no use: of another epoch, or of the future.
var errChangeID = errors.New("the change id is not valid for the disk")

// changes is the log of changed block tracking: which blocks were written in
// each interval between two snapshots. A change id names the end of an interval.
type changes struct {
	on    bool
	epoch string
	seq   int
	log   map[int]blockSet
	// lame says that what is told leaves out blocks, for a reason that only a
	// reset takes away.
	lame bool
}

// blockSet is a set of block numbers; it costs 64 bytes for each 32 MiB that were touched.
type blockSet map[int64]*[chunkBlocks / 64]uint64

func (s blockSet) add(block int64) {
	m := s[block/chunkBlocks]
	if m == nil {
		m = new([chunkBlocks / 64]uint64)
		s[block/chunkBlocks] = m
	}
	i := block % chunkBlocks
	m[i/64] |= 1 << (i % 64)
}

func (s blockSet) addAll(other blockSet) {
	for n, bits := range other {
		m := s[n]
		if m == nil {
			m = new([chunkBlocks / 64]uint64)
			s[n] = m
		}
		for i := range m {
			m[i] |= bits[i]
		}
	}
}

// from yields the members from first on, in order.
func (s blockSet) from(first int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for _, n := range slices.Sorted(maps.Keys(s)) {
			for i := range int64(chunkBlocks) {
				b := n*chunkBlocks + i
				if b >= first && s[n][i/64]&(1<<(i%64)) != 0 && !yield(b) {
					return
				}
			}
		}
	}
}

// reset starts a new epoch, which makes all change ids void.
func (c *changes) reset() {
	c.epoch = uuid.NewString()
	c.lame = false
	c.seq = 1
	c.log = map[int]blockSet{1: {}}
}

// extendLimit is where old hosts lost track: a disk that grew past a multiple
// of it told wrong areas from then on.
const extendLimit = 128 << 30

// grow makes the disk larger, never smaller. The caller holds its lock.
func (d *disk) grow(capacity int64) {
	if capacity > d.capacity {
		d.changes.lame = d.changes.lame || d.changes.on && (capacity-1)/extendLimit > (d.capacity-1)/extendLimit
		d.capacity = capacity
	}
}

func (c *changes) note(block int64) {
	if c.on {
		c.log[c.seq].add(block)
	}
}

// cut ends the present interval and returns its change id, or "" while tracking is off.
func (c *changes) cut() string {
	if !c.on {
		return ""
	}
	id := fmt.Sprintf("%s/%d", c.epoch, c.seq)
	c.seq++
	c.log[c.seq] = blockSet{}
	return id
}

// number returns the interval that a change id ends.
func (c *changes) number(id string) (int, error) {
	epoch, num, _ := strings.Cut(id, "/")
	n, err := strconv.Atoi(num)
	if err != nil || epoch != c.epoch || n < 0 || n > c.seq {
		return 0, errChangeID
	}
	return n, nil
}

// between unites the intervals after one and up to another.
func (c *changes) between(after, upTo int) blockSet {
	all := blockSet{}
	for n := after + 1; n <= upTo; n++ {
		all.addAll(c.log[n])
	}
	return all
}
