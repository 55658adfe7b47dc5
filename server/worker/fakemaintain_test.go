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
