package repository

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/object"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// CollectByClock collects with all the waiting times, by the server's clock
// alone: the storage's cannot be moved.
func CollectByClock(ctx context.Context, r backup.Repository, ask backup.Collection) (backup.Collected, error) {
	s := fullSafety()
	s.skew = 0
	return r.(*repository).collect(ctx, ask, s)
}

// CollectAtOnce collects without waiting for anything.
func CollectAtOnce(ctx context.Context, r backup.Repository, ask backup.Collection) (backup.Collected, error) {
	return r.(*repository).collect(ctx, ask, safety{})
}

// CollectSoon collects while others read and write: it waits for seconds where
// others need hours.
func CollectSoon(ctx context.Context, r backup.Repository) (backup.Collected, error) {
	const wait = 2 * time.Second
	return r.(*repository).collect(ctx, backup.Collection{}, safety{between: wait, rewriteGap: wait})
}

// Pins lists the images that are pinned.
func Pins(ctx context.Context, r backup.Repository) (images []string, err error) {
	live, _, err := r.(*repository).livePins(ctx, r.(*repository).repo.Time(), nil)
	for _, p := range live {
		images = append(images, p.Image)
	}
	return images, err
}

// MarkedList stores a list of blocks with those ids, which need not exist, and
// returns which of them a collection takes for needed, and whether it takes
// another one for so.
func MarkedList(ctx context.Context, r backup.Repository, ids []string, other string) (needed int, also bool, err error) {
	err = repo.DirectWriteSession(ctx, r.(*repository).repo, repo.WriteSessionOptions{}, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		l := newEntryWriter(ctx, w, blockSmall, &zeroes{})
		parse := func(s string) object.ID {
			o, perr := object.ParseID(s)
			err = errors.Join(err, perr)
			return o
		}
		for n, id := range ids {
			if err := l.add(int64(n)*blockSmall, blockSmall, parse(id)); err != nil {
				return err
			}
		}
		list, lerr := l.finish()
		if err := errors.Join(err, lerr, l.close(), w.Flush(ctx)); err != nil {
			return err
		}
		m := r.(*repository).newMarker(ctx, w)
		if err := m.list(ctx, list); err != nil {
			return err
		}
		has := func(s string) bool { c, _, _ := parse(s).ContentID(); return m.needs(c) }
		for _, id := range ids {
			if has(id) {
				needed++
			}
		}
		also = has(other)
		return nil
	})
	return needed, also, err
}

// ErrInjected is what a broken storage says.
var ErrInjected = errors.New("injected failure")

// Break makes the storage of repositories opened from now on fail every
// operation once left has come to zero; each operation takes one of it. dead is
// called then, as kopia tries some operations for as long as its context lasts.
func (rs *Repositories) Break(left *atomic.Int64, dead func()) {
	use := func() error {
		if left.Add(-1) < 0 {
			dead()
			return ErrInjected
		}
		return nil
	}
	rs.onStore = func(s *fileStore) {
		s.Storage = &brokenStorage{s.Storage, use}
		s.reserve = func(int) error { return use() }
	}
}

type brokenStorage struct {
	blob.Storage
	use func() error
}

func (s *brokenStorage) GetBlob(ctx context.Context, id blob.ID, off, n int64, out blob.OutputBuffer) error {
	if err := s.use(); err != nil {
		return err
	}
	return s.Storage.GetBlob(ctx, id, off, n, out)
}

func (s *brokenStorage) DeleteBlob(ctx context.Context, id blob.ID) error {
	if err := s.use(); err != nil {
		return err
	}
	return s.Storage.DeleteBlob(ctx, id)
}

func (s *brokenStorage) ListBlobs(ctx context.Context, prefix blob.ID, f func(blob.Metadata) error) error {
	if err := s.use(); err != nil {
		return err
	}
	return s.Storage.ListBlobs(ctx, prefix, f)
}
