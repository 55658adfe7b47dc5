package repository

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
)

// wholeKept is how many packs are kept whole, of up to packSize each.
const wholeKept = 6

// wholeReads is the storage as kopia sees it. While it is held, packs of small
// things are read whole and kept for a while: one request brings what would be
// asked for in thousands of pieces.
type wholeReads struct {
	storage

	mu    sync.Mutex // guards the rest
	users int
	kept  []*wholePack // last used first
}

// wholePack is a pack in memory, once it was read.
type wholePack struct {
	id   blob.ID
	once sync.Once
	b    blobBuffer
	err  error
}

// hold makes reads whole until it is released.
func (s *wholeReads) hold() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.users--; s.users == 0 {
			s.kept = nil
		}
	}
}

// GetBlob reads a piece of a blob.
func (s *wholeReads) GetBlob(ctx context.Context, id blob.ID, off, n int64, out blob.OutputBuffer) error {
	p := s.pack(id)
	if p == nil || off < 0 || n < 0 {
		return s.storage.GetBlob(ctx, id, off, n, out)
	}
	p.once.Do(func() { p.err = s.storage.GetBlob(ctx, id, 0, -1, &p.b) })
	if p.err != nil {
		s.forget(p)
		return s.storage.GetBlob(ctx, id, off, n, out) // its error is the caller's own
	}
	b := p.b.Bytes()
	if off+n > int64(len(b)) {
		return fmt.Errorf("read %s at %d: %w", id, off, blob.ErrInvalidRange)
	}
	out.Reset()
	_, err := out.Write(b[off : off+n])
	return err
}

// pack finds the place of a pack that is to be read whole; nil = it is not.
func (s *wholeReads) pack(id blob.ID) *wholePack {
	if !strings.HasPrefix(string(id), string(content.PackBlobIDPrefixSpecial)) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		return nil
	}
	if n := slices.IndexFunc(s.kept, func(p *wholePack) bool { return p.id == id }); n >= 0 {
		p := s.kept[n]
		copy(s.kept[1:n+1], s.kept[:n])
		s.kept[0] = p
		return p
	}
	p := &wholePack{id: id}
	s.kept = slices.Insert(s.kept, 0, p)
	s.kept = s.kept[:min(len(s.kept), wholeKept)]
	return p
}

func (s *wholeReads) forget(p *wholePack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = slices.DeleteFunc(s.kept, func(k *wholePack) bool { return k == p })
}

// inOrder sorts images as their folders lie in the packs, so that each pack is
// read once. Those whose folders are not found come first.
func inOrder(ctx context.Context, r repo.Repository, all []*stored) []*stored {
	type placed struct {
		*stored
		pack blob.ID
		off  uint32
	}
	places := make([]placed, len(all))
	for i, s := range all {
		places[i].stored = s
		root, err := s.root()
		c, _, direct := root.ContentID()
		if err != nil || !direct {
			continue
		}
		if info, err := r.ContentInfo(ctx, c); err == nil {
			places[i].pack, places[i].off = info.PackBlobID, info.PackOffset
		}
	}
	slices.SortStableFunc(places, func(a, b placed) int {
		return cmp.Or(strings.Compare(string(a.pack), string(b.pack)), cmp.Compare(a.off, b.off))
	})
	for i, p := range places {
		all[i] = p.stored
	}
	return all
}
