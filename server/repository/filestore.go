package repository

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"
)

const (
	fileMode = 0o600
	dirMode  = 0o700

	// layoutFile is where kopia notes how blobs are spread over folders.
	layoutFile = ".shards"

	// packPrefix begins the names of the blobs that hold disk data.
	packPrefix = "p"
	// directFrom is the size from which a pack is written past the page cache:
	// nobody reads it soon, and copying it through the cache costs more CPU
	// than compressing it.
	directFrom = 1 << 20
	// lowWater is the free space below which kopia must not tidy up while it
	// reads: a full disk must stay readable.
	lowWater = 64 << 20
)

// fileStore keeps blobs in a folder, in the layout of kopia's own store, so
// that the stock program opens it as a plain "filesystem" repository. Unlike
// that store it syncs file and folder before it reports success.
type fileStore struct {
	blob.Storage // kopia's, for reading, listing and deleting
	path         string
	paths        interface {
		GetShardedPathAndFilePath(ctx context.Context, id blob.ID) (shard, file string, err error)
	}
	// reserve is asked before bytes are written; tests make disks full with it.
	reserve func(n int) error
	hasty   bool // a test: nothing is synced, nor written past the page cache

	frozen   atomic.Bool // attached read-only
	buffered atomic.Bool // the file system refuses O_DIRECT
	full     atomic.Bool // the last write found no space
	usage    usage

	mu   sync.Mutex // guards root
	root os.FileInfo
}

// openFileStore opens the folder at path, which must be there.
func openFileStore(ctx context.Context, path string, create bool) (*fileStore, error) {
	root, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !root.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
	}
	if _, err := os.Stat(filepath.Join(path, layoutFile)); err != nil && !create {
		return nil, fmt.Errorf("%w: %w", blob.ErrBlobNotFound, err) // kopia would write one into the empty folder
	}
	inner, err := filesystem.New(ctx, &filesystem.Options{Path: path, FileMode: fileMode, DirectoryMode: dirMode}, create)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	s := &fileStore{Storage: inner, path: path, root: root, reserve: func(int) error { return nil }}
	s.paths = inner.(interface {
		GetShardedPathAndFilePath(ctx context.Context, id blob.ID) (shard, file string, err error)
	})
	return s, nil
}

func (s *fileStore) location() string { return s.path }

func (s *fileStore) place() place { return folderPlace(s.path) }

func (s *fileStore) freeze() { s.frozen.Store(true) }

// ConnectionInfo is what kopia writes down about the storage: nothing.
func (s *fileStore) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: kind, Config: &handle{}}
}

// DisplayName names the storage in kopia's messages.
func (s *fileStore) DisplayName() string { return "Filesystem: " + s.path }

// IsReadOnly also keeps kopia from tidying up while it reads a full disk.
func (s *fileStore) IsReadOnly() bool {
	if s.frozen.Load() || s.full.Load() {
		return true
	}
	free := freeBytes(s.path)
	return free >= 0 && free < lowWater
}

// missing compares the folder with the one that was opened: what was written
// into an empty mount point would be gone when the disk comes back.
func (s *fileStore) missing(ctx context.Context) error {
	now, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if os.SameFile(now, s.root) {
		return nil
	}
	if _, err := s.GetMetadata(ctx, formatBlob); err != nil {
		return err
	}
	s.root = now // mounted anew
	return nil
}

// here is missing without the second chance: no write may go into a folder
// that nobody has looked at.
func (s *fileStore) here() error {
	now, err := os.Stat(s.path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !os.SameFile(now, s.root) {
		return &fs.PathError{Op: "write", Path: s.path, Err: errAnotherFolder}
	}
	return nil
}

var errAnotherFolder = errors.New("another folder is mounted there now")

// PutBlob writes a blob whole or not at all: into a file of another name,
// which is synced, renamed, and made lasting by a sync of the folder.
func (s *fileStore) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if s.frozen.Load() {
		return &fs.PathError{Op: "write", Path: s.path, Err: syscall.EROFS}
	}
	if o.HasRetentionOptions() || o.DoNotRecreate {
		return blob.ErrUnsupportedPutBlobOption
	}
	if err := s.here(); err != nil {
		return err
	}
	_, path, err := s.paths.GetShardedPathAndFilePath(ctx, id)
	if err != nil {
		return fmt.Errorf("path of %s: %w", id, err)
	}
	if err := s.put(path, data, strings.HasPrefix(string(id), packPrefix)); err != nil {
		s.full.Store(isFull(err))
		return fmt.Errorf("write %s: %w", id, err)
	}
	s.full.Store(false)
	s.usage.add(int64(data.Length()))
	return stamp(path, o)
}

// DeleteBlob removes a blob; one that is not there is no error.
func (s *fileStore) DeleteBlob(ctx context.Context, id blob.ID) error {
	if s.frozen.Load() {
		return &fs.PathError{Op: "delete", Path: s.path, Err: syscall.EROFS}
	}
	if m, err := s.GetMetadata(ctx, id); err == nil {
		s.usage.add(-m.Length)
	}
	return s.Storage.DeleteBlob(ctx, id)
}

func (s *fileStore) put(path string, data blob.Bytes, pack bool) (err error) {
	var suffix [8]byte
	_, _ = rand.Read(suffix[:]) // never fails: the runtime ends the process instead
	tmp := fmt.Sprintf("%s%s%x", path, tmpMark, suffix)
	defer func() {
		if err != nil {
			_ = os.Remove(tmp) // a name that nobody reads; space() removes what stays
		}
	}()
	dir := filepath.Dir(path)
	if err := s.mkdir(dir); err != nil {
		return err
	}
	direct := pack && data.Length() >= directFrom && !s.buffered.Load() && !s.hasty
	err = s.write(tmp, data, direct)
	if direct && errors.Is(err, syscall.EINVAL) {
		s.buffered.Store(true)
		err = s.write(tmp, data, false)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return s.syncDir(dir)
}

// tmpMark is in the names of files that are not whole yet.
const tmpMark = ".tmp."

// mkdir makes dir and what lies between it and the store's folder, which must
// be there: a folder of our making would hide that a disk is not mounted.
func (s *fileStore) mkdir(dir string) error {
	if _, err := os.Stat(dir); err == nil || dir == s.path {
		return err
	}
	parent := filepath.Dir(dir)
	if len(parent) < len(s.path) {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: fs.ErrNotExist}
	}
	if err := s.mkdir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return s.syncDir(parent)
}

func (s *fileStore) write(tmp string, data blob.Bytes, direct bool) (err error) {
	flag := os.O_CREATE | os.O_TRUNC | os.O_WRONLY
	if direct {
		flag |= directFlag
	}
	f, err := os.OpenFile(tmp, flag, fileMode)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	w := newAlignedWriter(f, s.reserve)
	defer w.release()
	if _, err := data.WriteTo(w); err != nil {
		return err
	}
	if err := w.finish(direct); err != nil {
		return err
	}
	if s.hasty {
		return nil
	}
	return f.Sync()
}

func (s *fileStore) syncDir(dir string) error {
	if s.hasty {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// stamp sets and reads the time of a blob as kopia asked.
func stamp(path string, o blob.PutOptions) error {
	if t := o.SetModTime; !t.IsZero() {
		if err := os.Chtimes(path, t, t); err != nil {
			return err
		}
	}
	if o.GetModTime == nil {
		return nil
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	*o.GetModTime = fi.ModTime()
	return nil
}
