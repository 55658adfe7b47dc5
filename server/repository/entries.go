package repository

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
)

// A disk is what kopia calls an indirect object: a list of entries, one for
// each range of the disk, that names the object with the range's bytes. We
// write and read that list ourselves, as a stream: kopia would hold it in
// memory whole, which for a disk of 2 TiB takes 1.2 GiB.
const (
	entriesHead = `{"stream":"kopia:indirect","entries":[`
	entriesTail = `]}`
	// listSplitter cuts lists where their content says, so that a block more
	// or less does not make all that follows new.
	listSplitter = "DYNAMIC-128K-BUZHASH"
	// listPrefix is how kopia marks lists; it keeps them apart from data.
	listPrefix = "x"
	listBuffer = 64 << 10
)

// entryWriter writes the list of a disk's blocks in ascending order and fills
// the gaps with shared objects of zeroes.
type entryWriter struct {
	w         listObject
	buf       []byte
	next      int64 // up to here the disk is listed
	blockSize int64
	zeroes    *zeroes
}

// listObject takes the text of a list and makes an object of it.
type listObject interface {
	io.WriteCloser
	Result() (object.ID, error)
}

func newEntryWriter(ctx context.Context, w repo.RepositoryWriter, blockSize int64, z *zeroes) *entryWriter {
	return &entryWriter{
		w: w.NewObjectWriter(ctx, object.WriterOptions{
			Description: "list of blocks", Prefix: listPrefix, Splitter: listSplitter,
			Compressor: metaCompression, MetadataCompressor: metaCompression,
		}),
		buf:       append(make([]byte, 0, listBuffer+256), entriesHead...),
		blockSize: blockSize,
		zeroes:    z,
	}
}

// add lists the object that holds the bytes from off on.
func (e *entryWriter) add(off, length int64, id object.ID) error {
	if err := e.fill(off); err != nil {
		return err
	}
	return e.put(length, id)
}

// fill lists zeroes up to off, in the longest pieces that there are.
func (e *entryWriter) fill(off int64) error {
	for e.next < off {
		n := off - e.next
		switch {
		case n >= zeroRun && e.next%zeroRun == 0:
			n = zeroRun
		case n >= e.blockSize:
			n = e.blockSize
		}
		id, err := e.zeroes.object(n)
		if err != nil {
			return err
		}
		if err := e.put(n, id); err != nil {
			return err
		}
	}
	return nil
}

func (e *entryWriter) put(length int64, id object.ID) error {
	if e.next > 0 {
		e.buf = append(e.buf, ',')
	}
	e.buf = append(e.buf, `{"s":`...)
	e.buf = strconv.AppendInt(e.buf, e.next, 10)
	e.buf = append(e.buf, `,"l":`...)
	e.buf = strconv.AppendInt(e.buf, length, 10)
	e.buf = append(e.buf, `,"o":"`...)
	e.buf = id.Append(e.buf)
	e.buf = append(e.buf, `"}`...)
	e.next += length
	if len(e.buf) < listBuffer {
		return nil
	}
	return e.flush()
}

func (e *entryWriter) flush() error {
	_, err := e.w.Write(e.buf)
	e.buf = e.buf[:0]
	return err
}

// finish ends the list and returns its object.
func (e *entryWriter) finish() (list object.ID, err error) {
	e.buf = append(e.buf, entriesTail...)
	if err := e.flush(); err != nil {
		return object.EmptyID, err
	}
	return e.w.Result()
}

func (e *entryWriter) close() error { return e.w.Close() }

// indirect is the object whose bytes the list's objects hold together.
func indirect(list object.ID) (object.ID, error) { return object.ParseID("I" + list.String()) }

// entry is one piece of a disk. A scanner's id lives until its next call.
type entry struct {
	start, length int64
	id            []byte
	at            int64 // where in the list it stands
}

// entryScanner reads a list.
type entryScanner struct {
	r   *bufio.Reader
	off int64
}

// scanEntries begins at the head of a list, or at an entry's place in it.
func scanEntries(r io.Reader, at int64) (*entryScanner, error) {
	s := &entryScanner{r: bufio.NewReaderSize(r, listBuffer), off: at}
	if at > 0 {
		return s, nil
	}
	head := make([]byte, len(entriesHead))
	if _, err := io.ReadFull(s.r, head); err != nil {
		return nil, fmt.Errorf("list of blocks: %w", err)
	}
	if string(head) != entriesHead {
		return nil, errors.New("list of blocks begins with something else")
	}
	s.off = int64(len(head))
	return s, nil
}

// next returns the next entry, and false at the end of the list.
func (s *entryScanner) next() (entry, bool, error) {
	b, err := s.r.ReadSlice('}')
	if err != nil {
		return entry{}, false, fmt.Errorf("list of blocks at %d: %w", s.off, err)
	}
	at := s.off
	s.off += int64(len(b))
	if string(b) == entriesTail {
		return entry{}, false, nil
	}
	if b[0] == ',' {
		b = b[1:]
		at++
	}
	e, ok := parseEntry(b)
	if !ok {
		return entry{}, false, fmt.Errorf("list of blocks at %d holds no entry", at)
	}
	e.at = at
	return e, true, nil
}

// parseEntry reads one entry's text.
func parseEntry(b []byte) (e entry, ok bool) {
	ok = true
	number := func(name string) (n int64) {
		rest, found := bytes.CutPrefix(b, []byte(name))
		i := 0
		for ; i < len(rest) && i < 19 && rest[i] >= '0' && rest[i] <= '9'; i++ {
			n = n*10 + int64(rest[i]-'0')
		}
		ok = ok && found && i > 0 && n >= 0 // of 19 digits it may have run over
		b = rest[i:]
		return n
	}
	e.start = number(`{"s":`)
	e.length = number(`,"l":`)
	id, named := bytes.CutPrefix(b, []byte(`,"o":"`))
	id, closed := bytes.CutSuffix(id, []byte(`"}`))
	e.id = id
	return e, ok && named && closed
}
