package repository

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// usageAge is how long a count of the folder is good; what this process
	// writes and deletes meanwhile is added to it.
	usageAge = 10 * time.Minute
	// tmpAge is the age from which a file that never became whole is taken for
	// left behind: no write takes that long.
	tmpAge = 24 * time.Hour
	// lostAndFound is the file system's own folder at the root of a disk.
	lostAndFound = "lost+found"
)

// usage remembers how much a folder holds.
type usage struct {
	counting sync.Mutex // held while the folder is walked

	mu      sync.Mutex // guards the rest
	bytes   int64
	counted time.Time
}

func (u *usage) add(n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.bytes += n
}

// known returns the bytes if they were counted not long before now.
func (u *usage) known(now time.Time) (int64, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	age := now.Sub(u.counted)
	return u.bytes, !u.counted.IsZero() && age >= 0 && age < usageAge
}

func (u *usage) set(n int64, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.bytes, u.counted = n, now
}

func (s *fileStore) space(ctx context.Context, now time.Time) (stored, free int64, err error) {
	s.usage.counting.Lock()
	defer s.usage.counting.Unlock()
	stored, ok := s.usage.known(now)
	if !ok {
		if stored, err = s.count(ctx, now); err != nil {
			return 0, 0, err
		}
		s.usage.set(stored, now)
	}
	return stored, freeBytes(s.path), nil
}

// count adds up the folder's files and removes those that a killed process
// left behind half written.
func (s *fileStore) count(ctx context.Context, now time.Time) (int64, error) {
	var sum int64
	err := filepath.WalkDir(s.path, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return gone(err)
		}
		if d.IsDir() {
			if d.Name() == lostAndFound {
				return fs.SkipDir
			}
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return gone(err)
		}
		if strings.Contains(d.Name(), tmpMark) && now.Sub(fi.ModTime()) > tmpAge && !s.frozen.Load() {
			return gone(os.Remove(path))
		}
		sum += fi.Size()
		return nil
	})
	return sum, err
}

// gone lets pass that a file has been deleted since it was listed.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
