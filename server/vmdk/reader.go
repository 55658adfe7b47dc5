package vmdk

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zlib"
)

// Reader yields the grains of a stream in the stream's order. It trusts
// nothing that it reads: what it allocates is bounded by the bytes that came.
//
// A Reader is for one goroutine; it decompresses on several.
type Reader struct {
	in        *bufio.Reader
	capacity  int64
	grainSize int64
	seen      map[int64]*[tableEntries / 64]uint64 // which grains came, by table
	ended     bool
	err       error // what comes after the grains that are ready

	ready []*packed // decompressed, from taken on
	taken int
	spare []*packed
	unzip []io.ReadCloser
}

// packed is one grain as it came and as it is.
type packed struct {
	off  int64
	raw  []byte
	data []byte // one byte longer than a grain, to find out what is too long
	size int64
	err  error
}

// NewReader reads the header.
func NewReader(r io.Reader) (*Reader, error) {
	v := &Reader{in: bufio.NewReaderSize(r, 1<<20), seen: map[int64]*[tableEntries / 64]uint64{}}
	var sector [sectorSize]byte
	if _, err := io.ReadFull(v.in, sector[:]); err != nil {
		return nil, cut(err)
	}
	h, err := decodeHeader(sector[:])
	if err != nil {
		return nil, err
	}
	v.capacity = int64(h.Capacity) * sectorSize
	v.grainSize = int64(h.GrainSize) * sectorSize
	v.unzip = make([]io.ReadCloser, min(runtime.GOMAXPROCS(0), maxWorkers))
	return v, v.discard(int64(h.Overhead) - 1)
}

// Capacity is the size of the disk in bytes.
func (v *Reader) Capacity() int64 { return v.capacity }

// Next returns the offset and the bytes of the next grain; the bytes hold
// until the next call. After the last grain of a whole stream comes io.EOF.
func (v *Reader) Next() (int64, []byte, error) {
	if v.taken == len(v.ready) {
		v.fill()
	}
	if v.taken == len(v.ready) {
		return 0, nil, v.err
	}
	g := v.ready[v.taken]
	v.taken++
	if g.err != nil {
		v.ready, v.err = v.ready[:v.taken], g.err
		return 0, nil, g.err
	}
	return g.off, g.data[:g.size], nil
}

// fill takes as many grains as have arrived, at least one, and decompresses them side by side.
func (v *Reader) fill() {
	v.spare = append(v.spare, v.ready...)
	v.ready, v.taken = v.ready[:0], 0
	for v.err == nil && len(v.ready) < batchSize {
		if len(v.ready) > 0 && v.in.Buffered() < int(v.grainSize)*2 {
			break // the rest would have to be waited for
		}
		g, err := v.read()
		if err != nil {
			v.err = err
			break
		}
		v.ready = append(v.ready, g)
	}
	var taken atomic.Int64
	work := func(z *io.ReadCloser) {
		for i := taken.Add(1) - 1; i < int64(len(v.ready)); i = taken.Add(1) - 1 {
			v.ready[i].inflate(z, v.grainSize)
		}
	}
	var wg sync.WaitGroup
	for i := range v.unzip[1:] {
		if len(v.ready) > 1 {
			wg.Go(func() { work(&v.unzip[i+1]) })
		}
	}
	work(&v.unzip[0])
	wg.Wait()
}

// read returns the next grain as it stands in the stream, or io.EOF behind the end-of-stream marker.
func (v *Reader) read() (*packed, error) {
	var head [markerHead]byte
	for !v.ended {
		if _, err := io.ReadFull(v.in, head[:]); err != nil {
			return nil, cut(err)
		}
		value, size := binary.LittleEndian.Uint64(head[:]), binary.LittleEndian.Uint32(head[8:])
		if size > 0 {
			return v.readGrain(value, size)
		}
		if err := v.metadata(value); err != nil {
			return nil, err
		}
	}
	n, err := io.Copy(io.Discard, io.LimitReader(v.in, maxTrailingBytes+1))
	switch {
	case err != nil:
		return nil, cut(err)
	case n > maxTrailingBytes:
		return nil, fmt.Errorf("%w: more than %d bytes after its end", ErrInvalid, maxTrailingBytes)
	}
	return nil, io.EOF
}

func (v *Reader) metadata(value uint64) error {
	var rest [sectorSize - markerHead]byte
	if _, err := io.ReadFull(v.in, rest[:]); err != nil {
		return cut(err)
	}
	switch kind := binary.LittleEndian.Uint32(rest[:]); kind {
	case markEndOfStream:
		v.ended = true
	case markGrainTable, markDirectory:
		if value > maxMetaSectors {
			return fmt.Errorf("%w: metadata of %d sectors", ErrInvalid, value)
		}
		return v.discard(int64(value))
	case markFooter:
		return v.footer(value)
	default:
		return fmt.Errorf("%w: marker %d", ErrInvalid, kind)
	}
	return nil
}

// footer compares the header's twin at the end of the stream.
func (v *Reader) footer(value uint64) error {
	if value != 1 {
		return fmt.Errorf("%w: footer of %d sectors", ErrInvalid, value)
	}
	var sector [sectorSize]byte
	if _, err := io.ReadFull(v.in, sector[:]); err != nil {
		return cut(err)
	}
	h, err := decodeHeader(sector[:])
	if err == nil && int64(h.Capacity)*sectorSize != v.capacity {
		err = fmt.Errorf("%w: capacity %d in the header, %d in the footer", ErrInvalid, v.capacity, h.Capacity*sectorSize)
	}
	return err
}

func (v *Reader) readGrain(sector uint64, size uint32) (*packed, error) {
	if sector >= uint64(v.capacity/sectorSize) || int64(sector)*sectorSize%v.grainSize != 0 {
		return nil, fmt.Errorf("%w: grain at sector %d of %d", ErrInvalid, sector, v.capacity/sectorSize)
	}
	if int64(size) > 2*v.grainSize+4096 {
		return nil, fmt.Errorf("%w: grain of %d compressed bytes", ErrInvalid, size)
	}
	off := int64(sector) * sectorSize
	if !v.mark(off / v.grainSize) {
		return nil, fmt.Errorf("%w: the grain at offset %d comes twice", ErrInvalid, off)
	}
	g := v.buffer()
	padded := sectors(markerHead+int(size))*sectorSize - markerHead
	if cap(g.raw) < padded {
		g.raw = make([]byte, padded+4096)
	}
	g.raw = g.raw[:padded]
	if _, err := io.ReadFull(v.in, g.raw); err != nil {
		return nil, cut(err)
	}
	g.raw = g.raw[:size]
	g.off, g.size = off, min(v.grainSize, v.capacity-off)
	return g, nil
}

func (v *Reader) buffer() *packed {
	if k := len(v.spare); k > 0 {
		g := v.spare[k-1]
		v.spare = v.spare[:k-1]
		return g
	}
	return &packed{data: make([]byte, v.grainSize+1)}
}

// mark notes that a grain came, and says whether it is the first time. Tables
// that are full share one mark, so that a full disk takes little memory.
func (v *Reader) mark(n int64) bool {
	t, bit := n/tableEntries, n%tableEntries
	m := v.seen[t]
	if m == nil {
		m = new([tableEntries / 64]uint64)
		v.seen[t] = m
	}
	if m[bit/64]&(1<<(bit%64)) != 0 {
		return false
	}
	m[bit/64] |= 1 << (bit % 64)
	if *m == allSeen {
		v.seen[t] = &allSeen
	}
	return true
}

var allSeen = func() (m [tableEntries / 64]uint64) {
	for i := range m {
		m[i] = ^uint64(0)
	}
	return m
}()

func (g *packed) inflate(z *io.ReadCloser, grainSize int64) {
	g.err = nil
	src := bytes.NewReader(g.raw)
	if *z == nil {
		r, err := zlib.NewReader(src)
		if err != nil {
			g.err = fmt.Errorf("%w: grain at offset %d: %w", ErrInvalid, g.off, err)
			return
		}
		*z = r
	} else if err := (*z).(zlib.Resetter).Reset(src, nil); err != nil {
		g.err = fmt.Errorf("%w: grain at offset %d: %w", ErrInvalid, g.off, err)
		return
	}
	// Reading on to the end is what makes zlib compare its checksum.
	n, err := readAll(*z, g.data)
	switch {
	case err != nil:
		g.err = fmt.Errorf("%w: grain at offset %d: %w", ErrInvalid, g.off, err)
	case int64(n) > grainSize:
		g.err = fmt.Errorf("%w: the grain at offset %d is longer than %d bytes", ErrInvalid, g.off, grainSize)
	case int64(n) < g.size:
		g.err = fmt.Errorf("%w: the grain at offset %d has %d bytes", ErrInvalid, g.off, n)
	}
}

// readAll reads until r ends or p is full. Unlike io.ReadFull it keeps the
// clean end of r apart from an end in the middle of its data.
func readAll(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) {
		k, err := r.Read(p[n:])
		n += k
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (v *Reader) discard(count int64) error {
	if _, err := io.CopyN(io.Discard, v.in, count*sectorSize); err != nil {
		return cut(err)
	}
	return nil
}

// cut tells the end of a stream in the middle of a disk from other errors.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return fmt.Errorf("read VMDK: %w", err)
}
