package repository

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// BlockSize is how the disk is cut into blocks: as in its base, where it has one.
func (i *imageWriter) BlockSize(key int32, capacity int64) int64 {
	return blockSizeFor(capacity, i.base.disk(key))
}

// ReadBase reads of a disk's base whole blocks at a time.
func (i *imageWriter) ReadBase(ctx context.Context, key int32, p []byte, off int64) error {
	b := i.bases[key]
	if b == nil {
		return backup.Errorf(backup.Conflict, "", "There is no image that disk %d could be compared with, so all of it has to be read.", key)
	}
	size := b.layout.BlockSize
	for len(p) > 0 {
		n := min(int64(len(p)), size-off%size)
		block, err := b.block(ctx, off/size)
		if err != nil {
			return explainRead(ctx, i.r.store, fmt.Sprintf("read block %d of the base image", off/size), err)
		}
		got := copy(p[:n], block[min(off%size, int64(len(block))):])
		clear(p[got:n])
		p, off = p[n:], off+n
	}
	return nil
}
