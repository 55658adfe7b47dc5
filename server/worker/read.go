package worker

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// read copies the disks from the snapshot into the image.
func (b *backupJob) read(ctx context.Context, w backup.ImageWriter, keys []int32) (err error) {
	b.begin(ctx, "reading disks")
	src, err := b.session.ReadDisks(ctx, b.snap, backup.ReadDraft{Keys: keys, Transport: b.vcenter.Transport})
	if err != nil {
		return fmt.Errorf("open disks: %w", err)
	}
	defer func() {
		cctx, cancel := b.outlive(ctx)
		defer cancel()
		if cerr := src.Close(cctx); err == nil && cerr != nil {
			err = fmt.Errorf("close disks: %w", cerr)
		}
	}()
	var total, before int64
	for _, d := range b.snap.Disks {
		if slices.Contains(keys, d.Key) {
			total += d.Capacity
		}
	}
	b.expect(total)
	for _, d := range b.snap.Disks {
		if !slices.Contains(keys, d.Key) {
			continue
		}
		if err := b.readDisk(ctx, w, src, d, before); err != nil {
			return fmt.Errorf("%s: %w", d.Label, err)
		}
		before += d.Capacity
		b.progress(before)
	}
	return nil
}

func (b *backupJob) readDisk(ctx context.Context, w backup.ImageWriter, src backup.DiskSource, d backup.DiskDraft, before int64) error {
	dw, err := w.Disk(ctx, d)
	if err != nil {
		return err
	}
	read, err := src.ReadDisk(ctx, d.Key, meter{dw, func(end int64) { b.progress(before + end) }})
	if err != nil {
		return err
	}
	disk, err := dw.Close(ctx)
	if err != nil {
		return err
	}
	disk.Read = read
	b.image.Disks = append(b.image.Disks, disk)
	b.image.Sizes.Provisioned += d.Capacity
	b.image.Sizes.Read += read
	return nil
}

// meter tells how far into the disk the writing has come.
type meter struct {
	io.WriterAt
	at func(end int64)
}

func (m meter) WriteAt(p []byte, off int64) (int, error) {
	n, err := m.WriterAt.WriteAt(p, off)
	m.at(off + int64(n))
	return n, err
}
