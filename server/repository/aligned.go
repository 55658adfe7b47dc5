package repository

import (
	"os"
	"sync"
	"unsafe"
)

const (
	// align is the multiple of which direct writes must be, in memory and on disk.
	align = 4096
	// writeSize is what is written at once: enough to keep a disk busy.
	writeSize = 4 << 20
)

var alignedBuffers = sync.Pool{New: func() any {
	b := make([]byte, writeSize+align)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & (align - 1)) // #nosec G103 -- an address is looked at, not used
	b = b[skip : skip+writeSize]
	return &b
}}

// alignedWriter gathers bytes in an aligned buffer and writes it when it is
// full, so that the file may be open with O_DIRECT.
type alignedWriter struct {
	f       *os.File
	reserve func(n int) error
	buf     *[]byte
	n       int   // bytes in buf
	total   int64 // bytes taken
}

func newAlignedWriter(f *os.File, reserve func(n int) error) *alignedWriter {
	return &alignedWriter{f: f, reserve: reserve, buf: alignedBuffers.Get().(*[]byte)}
}

func (w *alignedWriter) Write(p []byte) (int, error) {
	taken := 0
	for len(p) > 0 {
		c := copy((*w.buf)[w.n:], p)
		w.n, w.total, taken, p = w.n+c, w.total+int64(c), taken+c, p[c:]
		if w.n == writeSize {
			if err := w.flush(writeSize); err != nil {
				return taken, err
			}
		}
	}
	return taken, nil
}

func (w *alignedWriter) flush(n int) error {
	if err := w.reserve(n); err != nil {
		return err
	}
	w.n = 0
	_, err := w.f.Write((*w.buf)[:n])
	return err
}

// finish writes the rest; a direct write is padded and the file cut to length.
func (w *alignedWriter) finish(direct bool) error {
	if w.n == 0 {
		return nil
	}
	if !direct {
		return w.flush(w.n)
	}
	up := (w.n + align - 1) &^ (align - 1)
	clear((*w.buf)[w.n:up])
	if err := w.flush(up); err != nil {
		return err
	}
	return w.f.Truncate(w.total)
}

func (w *alignedWriter) release() { alignedBuffers.Put(w.buf) }
