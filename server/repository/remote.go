package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// remote is what a storage elsewhere does beyond keeping blobs.
type remote interface {
	blob.Volume
	blob.Lister
	GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error
	GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error)
	PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error
	DeleteBlob(ctx context.Context, id blob.ID) error
	ExtendBlobRetention(ctx context.Context, id blob.ID, o blob.ExtendOptions) error
	FlushCaches(ctx context.Context) error
	Close(ctx context.Context) error
	// measure counts what is stored, and removes what was left half written
	// before the time given, where the storage leaves such things.
	measure(ctx context.Context, before time.Time) (int64, error)
}

// remoteStore is a storage elsewhere. It tells kopia nothing that kopia would
// write down, refuses writing where it is only attached, and remembers how much
// is stored.
type remoteStore struct {
	remote
	at     place
	frozen atomic.Bool
	usage  usage
}

func (s *remoteStore) location() string { return s.at.name }

func (s *remoteStore) place() place { return s.at }

func (s *remoteStore) freeze() { s.frozen.Store(true) }

// IsReadOnly keeps kopia from tidying up what is only attached.
func (s *remoteStore) IsReadOnly() bool { return s.frozen.Load() }

// ConnectionInfo is what kopia writes down about the storage: nothing.
func (s *remoteStore) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: kind, Config: &handle{}}
}

// DisplayName names the storage in kopia's messages.
func (s *remoteStore) DisplayName() string { return s.at.name }

// missing asks for the blob without which nothing can be opened.
func (s *remoteStore) missing(ctx context.Context) error {
	_, err := s.GetMetadata(ctx, formatBlob)
	return err
}

// PutBlob writes a blob whole or not at all.
func (s *remoteStore) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if err := s.thawed("write"); err != nil {
		return err
	}
	if err := s.remote.PutBlob(ctx, id, data, o); err != nil {
		return fmt.Errorf("write %s: %w", id, err)
	}
	s.usage.add(int64(data.Length()))
	return nil
}

// DeleteBlob removes a blob; one that is not there is no error.
func (s *remoteStore) DeleteBlob(ctx context.Context, id blob.ID) error {
	if err := s.thawed("delete"); err != nil {
		return err
	}
	if err := s.remote.DeleteBlob(ctx, id); err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	return nil
}

// ExtendBlobRetention lengthens the storage's own lock of a blob.
func (s *remoteStore) ExtendBlobRetention(ctx context.Context, id blob.ID, o blob.ExtendOptions) error {
	if err := s.thawed("lock"); err != nil {
		return err
	}
	if err := s.remote.ExtendBlobRetention(ctx, id, o); err != nil {
		return fmt.Errorf("lock %s: %w", id, err)
	}
	return nil
}

func (s *remoteStore) thawed(doing string) error {
	if s.frozen.Load() {
		return &fs.PathError{Op: doing, Path: s.at.name, Err: syscall.EROFS}
	}
	return nil
}

func (s *remoteStore) space(ctx context.Context, now time.Time) (stored, free int64, err error) {
	s.usage.counting.Lock()
	defer s.usage.counting.Unlock()
	stored, ok := s.usage.known(now)
	if !ok {
		before := now.Add(-tmpAge)
		if s.frozen.Load() {
			before = time.Time{}
		}
		if stored, err = s.measure(ctx, before); err != nil {
			return 0, 0, err
		}
		s.usage.set(stored, now)
	}
	c, err := s.GetCapacity(ctx)
	if errors.Is(err, blob.ErrNotAVolume) {
		return stored, -1, nil
	}
	return stored, int64(c.FreeB), err
}

// sumBlobs adds up the lengths of all blobs.
func sumBlobs(ctx context.Context, s blob.Lister) (sum int64, err error) {
	err = s.ListBlobs(ctx, "", func(m blob.Metadata) error {
		sum += m.Length
		return nil
	})
	return sum, err
}

// refuseOccupied refuses a place in which others keep things. What has one of
// our blobs is looked at later.
func refuseOccupied(at place, names []string) error {
	ours := func(name string) bool {
		name, _, _ = strings.Cut(name, tmpMark)
		switch blob.ID(strings.TrimSuffix(name, ".f")) {
		case markBlob, formatBlob, configBlob, layoutFile:
			return true
		}
		return false
	}
	for _, n := range names {
		if ours(n) {
			return nil
		}
	}
	for _, n := range names {
		if n != lostAndFound {
			return backup.Errorf(backup.Conflict, at.field,
				"The %s %s is not empty: it holds %q. Choose an empty one.", at.noun, at.name, n)
		}
	}
	return nil
}
