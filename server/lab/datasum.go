package lab

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"

	"github.com/kura-backup/terraform-provider-kura/server/vmdk"
)

// DataSHA256 is the checksum, in hex, of a disk's capacity and of what it holds
// where it is not zero, with the places: two disks are the same when it is, and
// of a disk of terabytes only what was written is read.
func (l *Lab) DataSHA256(ctx context.Context, id string, key int32) (string, error) {
	_, k, err := l.top(id, key)
	if err != nil {
		return "", err
	}
	k.disk.mu.RLock()
	capacity := k.disk.capacity
	k.disk.mu.RUnlock()
	h := sha256.New()
	place := func(n int64) { _, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	place(capacity)
	b := make([]byte, blockSize)
	for n := range k.allocated(0) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		size, err := k.ReadAt(b, n*blockSize)
		if err != nil && !isEOF(err) {
			return "", err
		}
		if vmdk.IsZero(b[:size]) {
			continue
		}
		place(n)
		_, _ = h.Write(b[:size])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// CopyDisk writes what a disk holds to the same places of w.
func (l *Lab) CopyDisk(ctx context.Context, id string, key int32, w io.WriterAt) error {
	_, k, err := l.top(id, key)
	if err != nil {
		return err
	}
	b := make([]byte, blockSize)
	for n := range k.allocated(0) {
		if err := ctx.Err(); err != nil {
			return err
		}
		size, err := k.ReadAt(b, n*blockSize)
		if err != nil && !isEOF(err) {
			return err
		}
		if _, err := w.WriteAt(b[:size], n*blockSize); err != nil {
			return err
		}
	}
	return nil
}
