package server

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// ImageSums reads an image whole and returns the SHA-256 of each of its disks,
// zeros included, by device key: for programs that compare every byte.
func (s *Server) ImageSums(ctx context.Context, id string) (sums map[int32]string, err error) {
	var image backup.Image
	var record backup.RepositoryRecord
	err = s.db.View(ctx, func(tx backup.Tx) (err error) {
		if image, err = tx.Image(ctx, id); err != nil {
			return err
		}
		record, err = tx.Repository(ctx, image.RepositoryID)
		return err
	})
	if err != nil {
		return nil, err
	}
	repo, err := s.repositories.Repository(ctx, record)
	if err != nil {
		return nil, err
	}
	r, err := repo.Image(ctx, image.Ref)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := r.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("close image %s: %w", id, cerr)
		}
	}()
	sums = map[int32]string{}
	for _, d := range image.Disks {
		if d.SkippedReason != "" {
			continue
		}
		if sums[d.Key], err = diskSum(ctx, r, d.Key); err != nil {
			return nil, fmt.Errorf("disk %d of image %s: %w", d.Key, id, err)
		}
	}
	return sums, nil
}

func diskSum(ctx context.Context, r backup.ImageReader, key int32) (string, error) {
	d, err := r.Disk(ctx, key)
	if err != nil {
		return "", err
	}
	sum, err := repository.DiskSHA256(ctx, d)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return sum, err
}
