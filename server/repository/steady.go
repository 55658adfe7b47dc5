package repository

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
)

// steady is the storage of one opened repository. The two blobs that the
// password opens stay for it what they were when it was opened: kopia reads them
// again every quarter of an hour with the key that it has, which would fail in a
// long backup when another server has changed the password meanwhile. What else
// they say changes only together with the record, and then the repository is
// opened anew.
type steady struct {
	blob.Storage

	mu   sync.Mutex // guards the rest
	kept map[blob.ID][]byte
	open bool // kopia took it: it may close it
	// drawer takes what kopia writes of the two; nil = the storage does.
	drawer map[blob.ID]written
}

// written is a blob that kopia wanted to write.
type written struct {
	bytes   []byte
	options blob.PutOptions
}

func newSteady(s blob.Storage) *steady {
	return &steady{Storage: s, kept: map[blob.ID][]byte{}}
}

func isFormat(id blob.ID) bool { return id == formatBlob || id == configBlob }

// GetBlob reads a blob; one of the format only once. That one is missing is
// remembered, too.
func (s *steady) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	if !isFormat(id) || offset != 0 || length >= 0 {
		return s.Storage.GetBlob(ctx, id, offset, length, out)
	}
	b, err := s.format(ctx, id)
	if err != nil {
		return err
	}
	out.Reset()
	_, err = out.Write(b)
	return err
}

func (s *steady) format(ctx context.Context, id blob.ID) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, known := s.kept[id]
	if !known {
		var read blobBuffer
		switch err := s.Storage.GetBlob(ctx, id, 0, -1, &read); {
		case err == nil:
			b = read.Bytes()
		case !errors.Is(err, blob.ErrBlobNotFound):
			return nil, err
		}
		s.kept[id] = b
	}
	if b == nil {
		return nil, blob.ErrBlobNotFound
	}
	return b, nil
}

// PutBlob writes a blob. What is written of the format is what it is from then on.
func (s *steady) PutBlob(ctx context.Context, id blob.ID, b blob.Bytes, o blob.PutOptions) error {
	if !isFormat(id) {
		err := s.Storage.PutBlob(ctx, id, b, o)
		if err != nil {
			s.tidy(ctx, id, int64(b.Length()))
		}
		return err
	}
	var text blobBuffer
	if _, err := b.WriteTo(&text); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drawer != nil {
		s.drawer[id] = written{text.Bytes(), o}
		return nil
	}
	if err := s.Storage.PutBlob(ctx, id, blobBytes(text.Bytes()), o); err != nil {
		return err
	}
	s.kept[id] = text.Bytes()
	return nil
}

// tidyTime is how long a part of a blob may take to remove.
const tidyTime = 10 * time.Second

// tidy removes the part of a blob that a storage has kept of a write that
// failed: a torn index blob would shut the repository to everyone. One that is
// whole stays, as another server may have written the same.
func (s *steady) tidy(ctx context.Context, id blob.ID, want int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	if m, err := s.GetMetadata(ctx, id); err == nil && m.Length < want {
		_ = s.DeleteBlob(ctx, id) // what cannot be removed is told by whoever reads it
	}
}

// forget lets the format be read anew.
func (s *steady) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.kept)
}

// draw makes kopia's writing of the format end in a drawer.
func (s *steady) draw() map[blob.ID]written {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drawer = map[blob.ID]written{}
	return s.drawer
}

func (s *steady) taken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
}

// Close closes the storage, but not after a failed try to open the repository,
// as there may be another.
func (s *steady) Close(ctx context.Context) error {
	s.mu.Lock()
	open := s.open
	s.mu.Unlock()
	if !open {
		return nil
	}
	return s.Storage.Close(ctx)
}
