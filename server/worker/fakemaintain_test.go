package worker_test

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func (r *fakeRepository) Verify(ctx context.Context, ref string, v backup.Verification) (backup.Verified, error) {
	if err := r.pass(ctx, "Verify", ref); err != nil {
		return backup.Verified{}, err
	}
	r.imagesMu.Lock()
	defer r.imagesMu.Unlock()
	i := r.images[ref]
	if i == nil {
		return backup.Verified{}, backup.Errorf(backup.NotFound, "", "There is no image %s.", ref)
	}
	if v.Progress != nil {
		v.Progress(1 << 20)
	}
	return r.verified, nil
}

func (r *fakeRepository) Collect(ctx context.Context, c backup.Collection) (backup.Collected, error) {
	if err := r.pass(ctx, "Collect", ""); err != nil {
		return backup.Collected{}, err
	}
	r.imagesMu.Lock()
	defer r.imagesMu.Unlock()
	r.collections = append(r.collections, c)
	return backup.Collected{Images: len(r.images), Marked: 1 << 20}, nil
}

func (r *fakeRepository) Lock(ctx context.Context, l backup.Locking) (backup.StorageLocked, error) {
	point := "Lock"
	if l.Ref == "" {
		point = "LockAll"
	}
	if err := r.pass(ctx, point, l.Ref+" base="+l.Base); err != nil {
		return backup.StorageLocked{}, err
	}
	r.imagesMu.Lock()
	defer r.imagesMu.Unlock()
	r.lockings = append(r.lockings, l)
	out := backup.StorageLocked{At: r.lockedFrom, Until: r.lockedFrom.AddDate(0, 0, 7), Days: 7, Blobs: 3, Calls: 3, Bytes: 3 << 20, Seconds: 0.5}
	for _, i := range r.images {
		out.Images = append(out.Images, i.manifest.Image.ID)
	}
	return out, nil
}
