package repository

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// DiskSHA256 reads a disk of an image and returns the SHA-256 of all its bytes,
// zeroes included. Writing an image does not compute it: that would cost more
// than all else of the writing, holes of terabytes above all.
func DiskSHA256(ctx context.Context, d backup.DiskReader) (string, error) {
	h := sha256.New()
	buf := make([]byte, blockMedium)
	var done int64
	for done < d.Capacity() {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		start, n := d.Next(done)
		for done < start { // a hole
			c := min(start-done, int64(len(zeroBytes)))
			h.Write(zeroBytes[:c])
			done += c
		}
		c, err := d.ReadAt(buf[:min(n, int64(len(buf)))], start)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("hash disk at %d: %w", start, err)
		}
		h.Write(buf[:c])
		done += int64(c)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
