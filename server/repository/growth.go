package repository

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
)

// growth counts what an image makes the repository grow by: the packed length
// of the contents that the image brought and that were not there before.
type growth struct {
	committed repo.DirectRepository       // sees what is in the index
	session   repo.DirectRepositoryWriter // sees the image's own contents, too
	every     int64                       // bytes between two flushes

	gate   sync.RWMutex // held for reading while contents are stored, for writing while flushed
	failed atomic.Bool  // a flush failed: some of the contents may be in the index
	heal   healer

	mu    sync.Mutex // guards the rest
	fresh map[content.ID]blob.ID
	since int64 // bytes since the last flush
}

// count runs store and returns what the repository grew by. kopia does not say
// whether a content was there, so we ask afterwards: contents of this session
// are not in the index before the next flush.
func (g *growth) count(ctx context.Context, store func() (object.ID, error)) (object.ID, int64, error) {
	g.gate.RLock()
	defer g.gate.RUnlock()
	id, err := store()
	if err == nil {
		err = g.heal.again(ctx, id, store)
	}
	if err != nil {
		return object.EmptyID, 0, err
	}
	n, err := g.note(ctx, id)
	return id, n, err
}

// note counts the contents of an object that was stored since the last flush.
// The caller holds gate.
func (g *growth) note(ctx context.Context, id object.ID) (int64, error) {
	if c, _, direct := id.ContentID(); direct {
		return g.noteContent(ctx, c)
	}
	all, err := g.session.VerifyObject(ctx, id)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, c := range all {
		n, err := g.noteContent(ctx, c)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func (g *growth) noteContent(ctx context.Context, c content.ID) (int64, error) {
	g.mu.Lock()
	_, known := g.fresh[c]
	g.mu.Unlock()
	if known {
		return 0, nil
	}
	old, err := g.committed.ContentInfo(ctx, c)
	if err == nil && !old.Deleted && !g.heal.renewed(c) {
		return 0, nil
	}
	if err != nil && !errors.Is(err, content.ErrContentNotFound) {
		return 0, err
	}
	info, err := g.session.ContentInfo(ctx, c)
	if err != nil {
		return 0, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known := g.fresh[c]; known {
		return 0, nil
	}
	if g.fresh == nil {
		g.fresh = map[content.ID]blob.ID{}
	}
	g.fresh[c] = info.PackBlobID
	g.since += int64(info.PackedLength)
	return int64(info.PackedLength), nil
}

// checkpoint flushes when enough has been stored since the last time.
func (g *growth) checkpoint(ctx context.Context) error {
	g.mu.Lock()
	due := g.since >= g.every
	g.mu.Unlock()
	if !due {
		return nil
	}
	return g.flush(ctx)
}

// flush puts all contents into the index, where other processes see them.
func (g *growth) flush(ctx context.Context) error {
	g.gate.Lock()
	defer g.gate.Unlock()
	if err := g.session.Flush(ctx); err != nil {
		g.failed.Store(true)
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fresh, g.since = nil, 0
	return nil
}

// loosePacks returns the packs of this session that no index names. kopia
// flushes by itself after ten minutes, and a flush that failed may have come
// as far as the index, so the index is asked for each content.
func (g *growth) loosePacks(ctx context.Context) []blob.ID {
	g.gate.Lock()
	defer g.gate.Unlock()
	if g.failed.Load() && g.committed.Refresh(ctx) != nil {
		return nil // nothing is certain
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	named := map[blob.ID]bool{}
	for c, pack := range g.fresh {
		info, err := g.committed.ContentInfo(ctx, c)
		isNamed := err == nil && info.PackBlobID == pack || err != nil && !errors.Is(err, content.ErrContentNotFound)
		named[pack] = named[pack] || isNamed
	}
	var loose []blob.ID
	for pack, isNamed := range named {
		if !isNamed && pack != "" {
			loose = append(loose, pack)
		}
	}
	return loose
}
