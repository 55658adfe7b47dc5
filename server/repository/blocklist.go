package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
)

// chunksKept is how many chunks of a list stay parsed in memory.
const chunksKept = 4

// blockList is the list of a disk's blocks, of which only what is asked for is
// read: the list is stored in chunks of some 2,000 entries, and where a chunk
// begins on the disk is found by looking into a few of them.
type blockList struct {
	r      repo.DirectRepository
	layout diskLayout
	id     object.ID // of the list
	chunks []listChunk
	zero   map[string]bool

	mu    sync.Mutex // guards the rest
	start []int64    // where on the disk a chunk's first entry starts; -1 = not known yet
	kept  []*chunkEntries
}

// listChunk is a piece of a list's text.
type listChunk struct {
	id     object.ID
	length int64
}

// chunkEntries are the entries that begin in a chunk.
type chunkEntries struct {
	n     int
	head  []byte // the end of the entry that began before, or the list's own head
	text  []byte // the entries, each with the comma before it; the last may reach beyond the chunk
	own   int    // bytes of text that lie in the chunk itself
	last  bool   // the list's tail follows
	spans []span
}

// span is an entry in the text of a chunk.
type span struct {
	entry
	from, to int // in text
	zero     bool
}

func (s span) end() int64 { return s.start + s.length }

// openBlockList reads of which chunks a disk's list is made, and no more.
func openBlockList(ctx context.Context, r repo.DirectRepository, l diskLayout, disk object.ID) (*blockList, error) {
	list, ok := disk.IndexObjectID()
	if !ok || l.Capacity <= 0 || splitterOf(l.BlockSize) == "" {
		return nil, fmt.Errorf("disk %d is laid out in an unknown way", l.Key)
	}
	if _, err := r.VerifyObject(ctx, list); err != nil {
		return nil, err
	}
	b := &blockList{r: r, layout: l, id: list, zero: map[string]bool{}}
	for _, id := range l.Zeroes {
		b.zero[id.String()] = true
	}
	if err := b.readChunks(ctx); err != nil {
		return nil, err
	}
	b.start = slices.Repeat([]int64{-1}, len(b.chunks))
	b.start[0] = 0
	return b, nil
}

// index is what kopia stores of an object of several pieces.
type index struct {
	Stream  string                       `json:"stream"`
	Entries []object.IndirectObjectEntry `json:"entries"`
}

// piecesOf reads of which pieces a list is made that is stored in several.
func piecesOf(ctx context.Context, r repo.Repository, id object.ID) ([]object.IndirectObjectEntry, error) {
	text, err := readAll(ctx, r, id)
	if err != nil {
		return nil, err
	}
	var x index
	if err := json.Unmarshal(text, &x); err != nil {
		return nil, fmt.Errorf("parse index of the list of blocks: %w", err)
	}
	return x.Entries, nil
}

func (b *blockList) readChunks(ctx context.Context) error {
	id, nested := b.id.IndexObjectID()
	if !nested {
		text, err := b.content(ctx, b.id)
		b.chunks = []listChunk{{b.id, int64(len(text))}}
		return err
	}
	pieces, err := piecesOf(ctx, b.r, id)
	if err != nil {
		return err
	}
	for _, e := range pieces {
		if _, _, direct := e.Object.ContentID(); !direct {
			return errStrangeList
		}
		b.chunks = append(b.chunks, listChunk{e.Object, e.Length})
	}
	if len(b.chunks) == 0 {
		return errStrangeList
	}
	return nil
}

func (b *blockList) content(ctx context.Context, id object.ID) ([]byte, error) {
	c, compressed, direct := id.ContentID()
	if compressed || !direct {
		return nil, errStrangeList
	}
	return getContent(ctx, b.r, c)
}

// getContent reads a content, a second time where that failed: a collection may
// have moved it since the index was read, and a storage may have given back
// something else this once.
func getContent(ctx context.Context, r repo.DirectRepository, id content.ID) ([]byte, error) {
	b, err := r.ContentReader().GetContent(ctx, id)
	if err == nil || ctx.Err() != nil || lost(err) && r.Refresh(ctx) != nil {
		return b, err
	}
	return r.ContentReader().GetContent(ctx, id)
}

// chunk returns the entries that begin in a chunk.
func (b *blockList) chunk(ctx context.Context, n int) (*chunkEntries, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.parsed(ctx, n)
}

// parsed is chunk for those who hold mu.
func (b *blockList) parsed(ctx context.Context, n int) (*chunkEntries, error) {
	if i := slices.IndexFunc(b.kept, func(c *chunkEntries) bool { return c.n == n }); i >= 0 {
		c := b.kept[i]
		copy(b.kept[1:i+1], b.kept[:i])
		b.kept[0] = c
		return c, nil
	}
	c, err := b.parse(ctx, n)
	if err != nil {
		return nil, err
	}
	b.kept = slices.Insert(b.kept, 0, c)
	b.kept = b.kept[:min(len(b.kept), chunksKept)]
	return c, nil
}

// find returns the chunk and the entry that hold the disk's byte at off.
func (b *blockList) find(ctx context.Context, off int64) (*chunkEntries, int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.at(ctx, off)
	if err != nil {
		return nil, 0, err
	}
	c, err := b.parsed(ctx, n)
	if err != nil {
		return nil, 0, err
	}
	i := sort.Search(len(c.spans), func(i int) bool { return c.spans[i].end() > off })
	if i == len(c.spans) || c.spans[i].start > off {
		return nil, 0, fmt.Errorf("list of blocks has a gap at %d", off)
	}
	return c, i, nil
}

// chunkAt returns the last chunk whose first entry starts at off or before.
func (b *blockList) chunkAt(ctx context.Context, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at(ctx, off)
}

// at is chunkAt for those who hold mu.
func (b *blockList) at(ctx context.Context, off int64) (int, error) {
	for _, c := range b.kept {
		if k := len(c.spans); k > 0 && c.spans[0].start <= off && off < c.spans[k-1].end() {
			return c.n, nil
		}
	}
	var failed error
	n := sort.Search(len(b.chunks), func(n int) bool {
		if failed != nil {
			return true
		}
		start, err := b.startOf(ctx, n)
		if err != nil {
			failed = err
		}
		return start > off
	})
	return n - 1, failed
}

// startOf tells where on the disk a chunk's first entry starts. The caller holds mu.
func (b *blockList) startOf(ctx context.Context, n int) (int64, error) {
	if n == len(b.chunks) {
		return b.layout.Capacity, nil
	}
	if b.start[n] >= 0 {
		return b.start[n], nil
	}
	c, err := b.parsed(ctx, n)
	if err != nil {
		return 0, err
	}
	if len(c.spans) > 0 {
		b.start[n] = c.spans[0].start
		return b.start[n], nil
	}
	b.start[n], err = b.startOf(ctx, n+1)
	return b.start[n], err
}

// parse reads a chunk and, of the next ones, what its last entry has in them.
func (b *blockList) parse(ctx context.Context, n int) (*chunkEntries, error) {
	text, err := b.content(ctx, b.chunks[n].id)
	if err != nil {
		return nil, err
	}
	if int64(len(text)) != b.chunks[n].length {
		return nil, fmt.Errorf("chunk %d of the list of blocks has %d bytes, want %d", n, len(text), b.chunks[n].length)
	}
	head, err := headOf(text, n)
	if err != nil {
		return nil, err
	}
	c := &chunkEntries{n: n, head: text[:head], text: text[head:], own: len(text) - head}
	for next := n + 1; len(c.text) > 0 && c.text[len(c.text)-1] != '}' && next < len(b.chunks); next++ {
		more, err := b.content(ctx, b.chunks[next].id)
		if err != nil {
			return nil, err
		}
		end := bytes.IndexByte(more, '}') + 1
		if end > 0 {
			more = more[:end]
		}
		c.text = append(c.text, more...)
	}
	return c, b.split(c)
}

// headOf tells how many bytes at a chunk's beginning belong to the entry before.
func headOf(text []byte, n int) (int, error) {
	switch {
	case n == 0 && bytes.HasPrefix(text, []byte(entriesHead)):
		return len(entriesHead), nil
	case n == 0:
		return 0, errors.Join(errStrangeList, errors.New("list of blocks begins with something else"))
	case bytes.HasPrefix(text, []byte(",{")), bytes.HasPrefix(text, []byte("]")):
		return 0, nil
	}
	if end := bytes.IndexByte(text, '}') + 1; end > 0 {
		return end, nil
	}
	return len(text), nil
}

// split parses the entries of a chunk and drops the list's tail from its text.
func (b *blockList) split(c *chunkEntries) error {
	for at := 0; at < len(c.text); {
		end := at + bytes.IndexByte(c.text[at:], '}') + 1
		if end == at {
			return fmt.Errorf("%w: chunk %d ends within an entry", errStrangeList, c.n)
		}
		if string(c.text[at:end]) == entriesTail {
			c.text, c.own, c.last = c.text[:at], min(c.own, at), true
			return nil
		}
		e, ok := parseEntry(bytes.TrimPrefix(c.text[at:end], []byte(",")))
		s := span{entry: e, from: at, to: end, zero: b.zero[string(e.id)]}
		if !ok || e.length <= 0 || e.start > b.layout.Capacity-e.length || len(c.spans) > 0 && c.spans[len(c.spans)-1].end() != e.start {
			return fmt.Errorf("%w: no entry at %d of chunk %d", errStrangeList, at, c.n)
		}
		if block := e.start / b.layout.BlockSize; !s.zero && (e.start%b.layout.BlockSize != 0 || e.length != b.layout.length(block)) {
			return fmt.Errorf("%w: a piece of %d bytes at %d", errStrangeList, e.length, e.start)
		}
		c.spans = append(c.spans, s)
		at = end
	}
	return nil
}

// block returns a block's bytes; none where it is zero.
func (b *blockList) block(ctx context.Context, n int64) ([]byte, error) {
	if n*b.layout.BlockSize >= b.layout.Capacity {
		return nil, nil
	}
	c, i, err := b.find(ctx, n*b.layout.BlockSize)
	if err != nil || c.spans[i].zero {
		return nil, err
	}
	id, err := object.ParseID(string(c.spans[i].id))
	if err != nil {
		return nil, errors.Join(errStrangeList, err)
	}
	bytes, err := b.content(ctx, id)
	if err == nil && int64(len(bytes)) != c.spans[i].length {
		err = fmt.Errorf("block %d has %d bytes", n, len(bytes))
	}
	return bytes, err
}
