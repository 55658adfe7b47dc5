//go:build failpoints

package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kopia/kopia/repo/blob"
)

// failed is what a storage says that was told to fail.
func failed(on string, id blob.ID) error {
	return &fs.PathError{Op: on, Path: string(id), Err: syscall.ETIMEDOUT}
}

// Faults make the storage at one place behave badly, for tests. They lie
// directly upon the storage, beneath all that kura and kopia do about failures.
type Faults struct {
	mu    sync.Mutex // guards the rest
	armed []*Fault
	calls int
	met   int
}

// Fault is one way in which a storage behaves badly.
type Fault struct {
	Kind  FaultKind
	On    string // operation: get, stat, list, put or delete; "" = all that the kind can be met in
	Of    string // what the names of the blobs begin with
	After int    // so many calls are well before it
	Times int    // so many calls meet it; 0 = all from then on
	Wait  time.Duration
	Room  int64  // bytes that can be written before the disk is full
	Then  func() // called when it is met; nil = nobody is told

	seen, met int
}

// FaultKind says what a storage does wrong.
type FaultKind string

// What storages do wrong.
const (
	FaultError FaultKind = "error"       // fails, and nothing has happened
	FaultDelay FaultKind = "delay"       // takes long
	FaultTear  FaultKind = "tear"        // fails, and half of the blob is there
	FaultHalf  FaultKind = "half"        // says that all is well, and half of the blob is there
	FaultFull  FaultKind = "full"        // has no room for more bytes
	FaultOmit  FaultKind = "omit"        // leaves blobs out of a list
	FaultHide  FaultKind = "hide"        // lists nothing
	FaultOther FaultKind = "other bytes" // gives back other bytes than it holds
	FaultLose  FaultKind = "lose"        // says that all is well, and the blob is not there
	FaultFlip  FaultKind = "flip"        // says that all is well, and a bit of the blob is another
)

// faulty are the faults of this process's storages by their places.
var faulty sync.Map

// FaultsAt returns the faults of the storage at a place, as it is named to
// users: of a folder its path. They count for repositories opened from now on.
func FaultsAt(location string) *Faults {
	f, _ := faulty.LoadOrStore(location, &Faults{})
	return f.(*Faults)
}

// Arm adds a fault.
func (f *Faults) Arm(one Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = append(f.armed, &one)
}

// Clear takes all faults away and returns how often one was met, and how many
// calls there were.
func (f *Faults) Clear() (met, calls int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	met, calls = f.met, f.calls
	f.armed, f.met, f.calls = nil, 0, 0
	return met, calls
}

func withFaults(s storage) storage {
	if f, ok := faulty.Load(s.location()); ok {
		return &faultyStorage{storage: s, faults: f.(*Faults)}
	}
	return s
}

// faultyStorage meets the faults of its place.
type faultyStorage struct {
	storage
	faults *Faults
}

// possible says in which operations a kind of fault can be met.
func (k FaultKind) possible(on string) bool {
	switch k {
	case FaultTear, FaultHalf, FaultFull, FaultLose, FaultFlip:
		return on == "put"
	case FaultOmit, FaultHide:
		return on == "list"
	case FaultOther:
		return on == "get"
	}
	return true
}

// meet returns the fault that a call meets.
func (f *Faults) meet(on string, id blob.ID, bytes int) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	for _, one := range f.armed {
		if !one.Kind.possible(on) || one.On != "" && one.On != on || !strings.HasPrefix(string(id), one.Of) {
			continue
		}
		one.seen++
		one.Room -= int64(bytes)
		full := one.Kind != FaultFull || one.Room < 0
		if one.seen <= one.After || one.Times > 0 && one.met >= one.Times || !full {
			continue
		}
		one.met++
		f.met++
		if one.Then != nil {
			one.Then()
		}
		return one
	}
	return nil
}

// suffer does what a fault does that is the same in all operations.
func (f *Faults) suffer(ctx context.Context, on string, id blob.ID) (*Fault, error) {
	met := f.meet(on, id, 0)
	if met == nil {
		return nil, nil
	}
	return met, met.suffer(ctx, on, id)
}

func (f *Fault) suffer(ctx context.Context, on string, id blob.ID) error {
	switch f.Kind {
	case FaultError:
		return failed(on, id)
	case FaultDelay:
		t := time.NewTimer(f.Wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// GetBlob reads a blob, or something else.
func (s *faultyStorage) GetBlob(ctx context.Context, id blob.ID, off, n int64, out blob.OutputBuffer) error {
	met, err := s.faults.suffer(ctx, "get", id)
	if err != nil {
		return err
	}
	if met == nil || met.Kind != FaultOther {
		return s.storage.GetBlob(ctx, id, off, n, out)
	}
	var b blobBuffer
	if err := s.storage.GetBlob(ctx, id, off, n, &b); err != nil {
		return err
	}
	out.Reset()
	_, err = out.Write(flipped(b.Bytes()))
	return err
}

// GetMetadata looks for a blob.
func (s *faultyStorage) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	if _, err := s.faults.suffer(ctx, "stat", id); err != nil {
		return blob.Metadata{}, err
	}
	return s.storage.GetMetadata(ctx, id)
}

// ListBlobs lists blobs, or every other one.
func (s *faultyStorage) ListBlobs(ctx context.Context, prefix blob.ID, fn func(blob.Metadata) error) error {
	met, err := s.faults.suffer(ctx, "list", prefix)
	if err != nil {
		return err
	}
	n := 0
	return s.storage.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
		if n++; met != nil && (met.Kind == FaultHide || met.Kind == FaultOmit && n%2 == 1) {
			return nil
		}
		return fn(m)
	})
}

// DeleteBlob removes a blob.
func (s *faultyStorage) DeleteBlob(ctx context.Context, id blob.ID) error {
	if _, err := s.faults.suffer(ctx, "delete", id); err != nil {
		return err
	}
	return s.storage.DeleteBlob(ctx, id)
}

// PutBlob writes a blob, or what a fault makes of it.
func (s *faultyStorage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	met := s.faults.meet("put", id, data.Length())
	if met == nil {
		return s.storage.PutBlob(ctx, id, data, o)
	}
	if err := met.suffer(ctx, "put", id); err != nil {
		return err
	}
	var b blobBuffer
	if _, err := data.WriteTo(&b); err != nil {
		return err
	}
	whole, half := blobBytes(b.Bytes()), blobBytes(b.Bytes()[:b.Len()/2])
	switch met.Kind {
	case FaultTear:
		return errors.Join(s.storage.PutBlob(ctx, id, half, o), failed("put", id))
	case FaultHalf:
		return s.storage.PutBlob(ctx, id, half, o)
	case FaultFull:
		return fmt.Errorf("put %s: %w", id, syscall.ENOSPC)
	case FaultLose:
		if err := s.storage.PutBlob(ctx, id, whole, o); err != nil {
			return err
		}
		return s.storage.DeleteBlob(ctx, id)
	case FaultFlip:
		return s.storage.PutBlob(ctx, id, blobBytes(flipped(whole)), o)
	}
	return s.storage.PutBlob(ctx, id, whole, o)
}

// flipped is a copy with another bit in the middle.
func flipped(b []byte) []byte {
	c := append([]byte(nil), b...)
	if len(c) > 0 {
		c[len(c)/2] ^= 1
	}
	return c
}
