package repository

import (
	"context"
	"encoding/json"

	"github.com/kopia/kopia/repo/object"
)

// chunkBytes is how long the chunks are that a changed list is stored in, as
// long as those of a new list on average.
const chunkBytes = 128 << 10

// listEditor writes the list of a disk that differs from its base in some
// blocks. Chunks of the base's list in which nothing changes are taken over by
// their names, so that the work is that for the chunks that do.
type listEditor struct {
	entryWriter
	ctx      context.Context
	base     *blockList
	capacity int64
	sink     *listSink
	edited   bool

	zeroFrom, zeroTo int64 // blocks that became zero and are not listed yet
}

func newListEditor(ctx context.Context, base *blockList, capacity int64, z *zeroes, sink *listSink) *listEditor {
	return &listEditor{
		entryWriter: entryWriter{w: sink, blockSize: base.layout.BlockSize, zeroes: z},
		ctx:         ctx, base: base, capacity: capacity, sink: sink,
	}
}

// replace lists another object for a range than the base does.
func (e *listEditor) replace(off, length int64, id object.ID) error {
	if err := e.copyTo(off); err != nil {
		return err
	}
	return e.put(length, id)
}

// erase lists a range as zero.
func (e *listEditor) erase(off, length int64) error {
	if off != e.zeroTo || e.zeroFrom == e.zeroTo {
		if err := e.copyTo(off); err != nil {
			return err
		}
		e.zeroFrom = off
	}
	e.zeroTo = off + length
	return nil
}

// finish lists what is left and returns the list.
func (e *listEditor) finish() (object.ID, error) {
	if !e.edited && e.zeroFrom == e.zeroTo && e.capacity == e.base.layout.Capacity {
		return e.base.id, nil
	}
	if err := e.copyTo(e.capacity); err != nil {
		return object.EmptyID, err
	}
	if e.sink.ended {
		return e.sink.Result()
	}
	return e.entryWriter.finish()
}

// copyTo lists everything up to off as the base does, and zeroes behind its end.
func (e *listEditor) copyTo(off int64) error {
	e.edited = true
	if from, to := e.zeroFrom, e.zeroTo; from < to {
		e.zeroFrom, e.zeroTo = 0, 0
		if err := e.fill(to); err != nil {
			return err
		}
	}
	if len(e.buf) == 0 && e.next == 0 && len(e.sink.buf) == 0 {
		if err := e.resume(0, off); err != nil {
			return err
		}
	}
	for end := min(off, e.base.layout.Capacity); e.next < end; {
		if err := e.copySome(end); err != nil {
			return err
		}
	}
	if e.sink.ended {
		return nil
	}
	return e.fill(off)
}

// copySome copies entries of the chunk that holds the next one, and the chunks after it.
func (e *listEditor) copySome(off int64) error {
	c, first, err := e.base.find(e.ctx, e.next)
	if err != nil {
		return err
	}
	if s := c.spans[first]; s.start < e.next || s.end() > off {
		if !s.zero {
			return errStrangeList
		}
		return e.fill(min(s.end(), off)) // a piece of zeroes is cut
	}
	last := first
	for last+1 < len(c.spans) && c.spans[last+1].end() <= off {
		last++
	}
	if err := e.entryWriter.flush(); err != nil {
		return err
	}
	if last+1 < len(c.spans) || c.last {
		e.next = c.spans[last].end()
		return e.text(c.text[c.spans[first].from:c.spans[last].to])
	}
	if err := e.text(c.text[c.spans[first].from:c.own]); err != nil {
		return err
	}
	return e.resume(c.n+1, off)
}

// resume goes on where the text that was written ends with the chunk before n.
func (e *listEditor) resume(n int, off int64) error {
	to, err := e.base.chunkAt(e.ctx, off)
	if err != nil {
		return err
	}
	all := len(e.base.chunks)
	switch {
	case off == e.capacity && off == e.base.layout.Capacity:
		to = all
	case to > all-2: // the tail of the list may begin in the chunk before the last
		to = max(n, all-2)
	}
	for ; n < to; n++ {
		if e.sink.mayTake() {
			if err := e.sink.take(e.base.chunks[n]); err != nil {
				return err
			}
			continue
		}
		c, err := e.base.chunk(e.ctx, n)
		if err != nil {
			return err
		}
		if err := e.text(c.head); err != nil {
			return err
		}
		if err := e.text(c.text[:c.own]); err != nil {
			return err
		}
		if c.last {
			e.next = e.base.layout.Capacity
			return nil
		}
	}
	if n == all {
		e.next, e.sink.ended = e.capacity, true
		return nil
	}
	c, err := e.base.chunk(e.ctx, n)
	if err != nil {
		return err
	}
	e.next = e.base.layout.Capacity
	if len(c.spans) > 0 {
		e.next = c.spans[0].start
	}
	return e.text(c.head)
}

func (e *listEditor) text(b []byte) error {
	_, err := e.w.Write(b)
	return err
}

// listSink makes a list of chunks that are there already and of text that is
// stored as new ones.
type listSink struct {
	size  int // of a chunk
	store func([]byte) (object.ID, error)
	buf   []byte // text that is not stored yet
	made  []object.IndirectObjectEntry
	at    int64 // where in the list buf begins
	ended bool  // the base's last chunk was taken, and the tail with it
}

func (s *listSink) Write(p []byte) (int, error) {
	s.buf = append(s.buf, p...)
	for len(s.buf) >= 2*s.size {
		if err := s.emit(s.size); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// emit stores the first n bytes of the text.
func (s *listSink) emit(n int) error {
	id, err := s.store(s.buf[:n])
	if err != nil {
		return err
	}
	s.add(listChunk{id, int64(n)})
	s.buf = s.buf[:copy(s.buf, s.buf[n:])]
	return nil
}

func (s *listSink) add(c listChunk) {
	s.made = append(s.made, object.IndirectObjectEntry{Start: s.at, Length: c.length, Object: c.id})
	s.at += c.length
}

// mayTake keeps lists from falling into crumbs: text that is short takes the
// chunk that follows into itself.
func (s *listSink) mayTake() bool { return len(s.buf) == 0 || len(s.buf) >= s.size/4 }

func (s *listSink) take(c listChunk) error {
	if len(s.buf) > 0 {
		if err := s.emit(len(s.buf)); err != nil {
			return err
		}
	}
	s.add(c)
	return nil
}

// Result stores the rest and returns the list's object.
func (s *listSink) Result() (object.ID, error) {
	if len(s.buf) > 0 {
		if err := s.emit(len(s.buf)); err != nil {
			return object.EmptyID, err
		}
	}
	if len(s.made) == 1 {
		return s.made[0].Object, nil
	}
	text, err := json.Marshal(index{Stream: "kopia:indirect", Entries: s.made})
	if err != nil {
		return object.EmptyID, err
	}
	id, err := s.store(append(text, '\n')) // as kopia writes it
	if err != nil {
		return object.EmptyID, err
	}
	return indirect(id)
}

// Close has nothing to give back.
func (s *listSink) Close() error { return nil }
