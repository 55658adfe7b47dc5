package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// hashBlock is how much of a disk is read at a time.
const hashBlock = 1 << 20

// hashes tells the SHA-256 of each disk of an image, zeroes included.
func (a *attempt) hashes(ctx context.Context, repo backup.Repository, i backup.Image) (map[int32]string, error) {
	a.begin(ctx, "hashing the disks")
	r, err := repo.Image(ctx, i.Ref)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it was only read
	sums := map[int32]string{}
	for _, d := range i.Disks {
		if d.SkippedReason != "" {
			continue
		}
		if sums[d.Key], err = hashDisk(ctx, r, d.Key); err != nil {
			return nil, fmt.Errorf("%s: %w", d.Label, err)
		}
	}
	return sums, nil
}

func hashDisk(ctx context.Context, r backup.ImageReader, key int32) (string, error) {
	d, err := r.Disk(ctx, key)
	if err != nil {
		return "", err
	}
	defer func() { _ = d.Close() }() // it was only read
	sum, block := sha256.New(), make([]byte, hashBlock)
	for done := int64(0); done < d.Capacity(); {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		start, n := d.Next(done)
		if n == 0 {
			start = d.Capacity()
		}
		hashZeroes(sum, start-done)
		done = start
		n = min(n, hashBlock)
		if got, err := d.ReadAt(block[:n], done); err != nil && (!errors.Is(err, io.EOF) || int64(got) < n) {
			return "", err
		}
		sum.Write(block[:n])
		done += n
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// hashZeroes adds n zeroes.
func hashZeroes(sum hash.Hash, n int64) {
	var zeroes [64 << 10]byte
	for ; n > 0; n -= int64(len(zeroes)) {
		sum.Write(zeroes[:min(n, int64(len(zeroes)))])
	}
}
