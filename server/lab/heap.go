package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// blockSize is the unit of allocation, of copying on write and of changed
// block tracking: 64 KiB, a grain of the VMDKs that are exported.
const blockSize = 64 << 10

// place says where the content of a block is.
type place uint32

const (
	absent  place = iota // not owned: the parent's, the generator's, or a hole
	zeroed               // owned, and zero
	inHeap0              // the heap's first slot; the others follow
)

// heapFileBlocks bounds one file to 64 GiB: a file system's limits are never met.
const heapFileBlocks = 1 << 20

// heap keeps the blocks of all disks in a few sparse files, so that thousands
// of disks need no file of their own and merging a delta moves no byte.
type heap struct {
	dir string

	mu    sync.Mutex // guards all below
	files []*os.File
	free  []place
	next  place
}

func newHeap(dir string) *heap { return &heap{dir: dir, next: inHeap0} }

func (h *heap) alloc() (place, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := len(h.free); k > 0 {
		p := h.free[k-1]
		h.free = h.free[:k-1]
		return p, nil
	}
	if h.next < inHeap0 {
		return absent, errors.New("the lab's heap is full")
	}
	for int(h.next-inHeap0)/heapFileBlocks >= len(h.files) {
		f, err := os.Create(filepath.Join(h.dir, fmt.Sprintf("blocks-%d", len(h.files))))
		if err != nil {
			return absent, fmt.Errorf("grow the lab's heap: %w", err)
		}
		h.files = append(h.files, f)
	}
	h.next++
	return h.next - 1, nil
}

func (h *heap) release(places ...place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range places {
		if p >= inHeap0 {
			h.free = append(h.free, p)
		}
	}
}

func (h *heap) file(p place) (*os.File, int64) {
	n := int64(p - inHeap0)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.files[n/heapFileBlocks], n % heapFileBlocks * blockSize
}

// read reads len(b) bytes at off of a block. The part of a slot that nobody
// wrote since the file grew reads as zero.
func (h *heap) read(p place, b []byte, off int64) error {
	f, at := h.file(p)
	n, err := f.ReadAt(b, at+off)
	clear(b[n:])
	if n < len(b) && !isEOF(err) {
		return fmt.Errorf("read the lab's heap: %w", err)
	}
	return nil
}

func (h *heap) write(p place, b []byte, off int64) error {
	f, at := h.file(p)
	if _, err := f.WriteAt(b, at+off); err != nil {
		return fmt.Errorf("write the lab's heap: %w", err)
	}
	return nil
}

func (h *heap) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, f := range h.files {
		errs = append(errs, f.Close(), os.Remove(f.Name()))
	}
	h.files = nil
	return errors.Join(errs...)
}
