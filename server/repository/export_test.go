package repository

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/snapshot"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// LimitDisk makes the disks of repositories opened from now on full after n
// bytes. The returned number is what is left; it may be raised.
func (rs *Repositories) LimitDisk(n int64) *atomic.Int64 {
	var left atomic.Int64
	left.Store(n)
	rs.onStore = func(s *fileStore) {
		s.reserve = func(n int) error {
			if left.Add(-int64(n)) < 0 {
				return syscall.ENOSPC
			}
			return nil
		}
	}
	return &left
}

// LimitWrites makes the disks of repositories opened from now on fail after n
// writes, as if the process had been killed there.
func (rs *Repositories) LimitWrites(n int) {
	var left atomic.Int64
	left.Store(int64(n))
	rs.onStore = func(s *fileStore) {
		s.reserve = func(int) error {
			if left.Add(-1) < 0 {
				return syscall.EIO
			}
			return nil
		}
	}
}

// StockRead reads a file of an image with kopia's own object reader, which is
// what the stock program restores with.
func StockRead(ctx context.Context, r backup.Repository, ref, name string) (b []byte, err error) {
	rep := r.(*repository)
	i, err := rep.Image(ctx, ref)
	if err != nil {
		return nil, err
	}
	o, err := rep.repo.OpenObject(ctx, i.(*imageReader).files[name])
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	return io.ReadAll(o)
}

// Snapshot returns the kopia snapshot that an image is.
func Snapshot(ctx context.Context, r backup.Repository, ref string) (*snapshot.Manifest, error) {
	return r.(*repository).snapshot(ctx, ref)
}

// Entries counts the entries of the list of a disk's blocks.
func Entries(ctx context.Context, r backup.Repository, ref string, key int32) (n int, err error) {
	rep := r.(*repository)
	i, err := rep.Image(ctx, ref)
	if err != nil {
		return 0, err
	}
	list, _ := i.(*imageReader).files[diskName(key)].IndexObjectID()
	o, err := rep.repo.OpenObject(ctx, list)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	s, err := scanEntries(o, 0)
	for ok := err == nil; ok; n++ {
		_, ok, err = s.next()
	}
	return n - 1, err
}

// CommitAs commits with another format version than this kura's.
func CommitAs(ctx context.Context, w backup.ImageWriter, m backup.Manifest, version int) (string, error) {
	i := w.(*imageWriter)
	l, err := i.complete(&m)
	if err != nil {
		return "", err
	}
	m.FormatVersion = version
	return i.commit(ctx, &m, l)
}

// FlushEvery makes an image flush after so many bytes.
func FlushEvery(w backup.ImageWriter, n int64) { w.(*imageWriter).growth.every = n }

// CutLists makes the chunks of changed lists so many bytes long.
func CutLists(w backup.ImageWriter, n int) { w.(*imageWriter).listChunk = n }

// OpenStorage opens the storage of a record.
func OpenStorage(ctx context.Context, rs *Repositories, rec backup.RepositoryRecord) (blob.Storage, error) {
	return rs.openStorage(ctx, rec, false)
}

// Blob is a blob to write.
func Blob[T ~string | ~[]byte](b T) blob.Bytes { return blobBytes(b) }

// Buffer takes a blob that is read.
type Buffer = blobBuffer

// Hurry shortens the waits between requests to a storage, and the time that one has.
func (rs *Repositories) Hurry(wait, quiet time.Duration) {
	rs.patience, rs.settleTime = patience{tries: 3, wait: wait, most: 10 * wait, quiet: quiet}, 10*quiet
}

// BlockSizeFor is the size of the blocks of a disk whose base has blocks of
// another size; 0 = it has no base.
func BlockSizeFor(capacity, base int64) int64 {
	if base == 0 {
		return blockSizeFor(capacity, nil)
	}
	return blockSizeFor(capacity, &diskLayout{BlockSize: base})
}

// Hasty lets the folders of repositories opened from now on be written without
// waiting for the disk: most tests do not cut its power.
func (rs *Repositories) Hasty() { rs.hasty = true }

// ListedDisk writes a disk all of whose blocks hold the same bytes without
// going through them: only its list is as long as that of such a disk.
func ListedDisk(ctx context.Context, w backup.ImageWriter, d backup.DiskDraft, block []byte) error {
	i := w.(*imageWriter)
	size := int64(len(block))
	id, _, err := i.storeBlock(ctx, block, size, "")
	if err != nil {
		return err
	}
	l := newEntryWriter(ctx, i.w, size, i.zeroes)
	for off := int64(0); off < d.Capacity && err == nil; off += size {
		err = l.add(off, size, id)
	}
	if err != nil {
		return err
	}
	disk := &diskWriter{i: i, draft: d, size: size, listed: make(chan struct{}), cancel: func(error) {}}
	close(disk.listed)
	disk.list, err = l.finish()
	i.disks[d.Key] = disk
	return errors.Join(err, l.close())
}

// ListPlace tells where the list of a disk's blocks lies, as far as it is in one piece.
func ListPlace(ctx context.Context, r backup.Repository, ref string, key int32) (pack string, off, length int, err error) {
	rep := r.(*repository)
	i, err := rep.Image(ctx, ref)
	if err != nil {
		return "", 0, 0, err
	}
	list, _ := i.(*imageReader).files[diskName(key)].IndexObjectID()
	c, _, _ := list.ContentID()
	info, err := rep.repo.ContentInfo(ctx, c)
	return string(info.PackBlobID), int(info.PackOffset), int(info.PackedLength), err
}
