package repository

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// errLocked says that a storage does not delete a blob before its lock is over.
var errLocked = errors.New("blob is locked")

// lockers is how many blobs are locked at the same time.
const lockers = 16

// locker extends the storage's locks of what images need. Without it a lock
// ends a fixed time after a pack was written, however many images have come to
// share it since.
type locker struct {
	*repository
	lock
	ask   backup.Locking
	begin time.Time
	out   backup.StorageLocked
}

// Lock extends the storage's own locks of what images need.
func (r *repository) Lock(ctx context.Context, ask backup.Locking) (backup.StorageLocked, error) {
	l, err := lockOf(r.rec.Settings)
	if err != nil {
		return backup.StorageLocked{}, err
	}
	if l.mode == "" {
		return backup.StorageLocked{}, backup.Errorf(backup.Conflict, "", "Repository %s has no object lock: its settings name no lock_mode.", r.rec.Name)
	}
	if err := r.writable(); err != nil {
		return backup.StorageLocked{}, err
	}
	if err := r.stillOwned(ctx); err != nil {
		return backup.StorageLocked{}, explain(ctx, r.store, "look whose the repository is", err)
	}
	if err := r.refresh(ctx); err != nil {
		return backup.StorageLocked{}, err
	}
	k := &locker{repository: r, lock: l, ask: ask, begin: r.cfg.Now()}
	k.out = backup.StorageLocked{At: k.begin, Until: k.begin.Add(l.period), Days: int(l.period / (24 * time.Hour))}
	if ask.Ref == "" {
		err = k.all(ctx)
	} else {
		err = k.one(ctx)
	}
	k.out.Seconds = r.cfg.Now().Sub(k.begin).Seconds()
	return k.out, explain(ctx, r.store, "lock what images need", err)
}

// all locks what the images need, the index that finds it, and what opens the
// repository. What nobody needs any more is left to its time.
func (k *locker) all(ctx context.Context) error {
	blobs := map[blob.ID]struct{}{formatBlob: {}, configBlob: {}}
	err := repo.DirectWriteSession(ctx, k.repo, repo.WriteSessionOptions{Purpose: "lock"}, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		return k.needed(ctx, w, blobs)
	})
	if err != nil {
		return err
	}
	index, err := k.repo.IndexBlobs(ctx, false)
	if err != nil {
		return fmt.Errorf("list index: %w", err)
	}
	for _, m := range index {
		blobs[m.BlobID] = struct{}{}
	}
	// Notes of kopia's about the index's epochs; without them old ones would count.
	for _, prefix := range []blob.ID{"xe", "xw"} {
		err := k.store.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
			blobs[m.BlobID] = struct{}{}
			return nil
		})
		if err != nil {
			return fmt.Errorf("list index: %w", err)
		}
	}
	return k.extend(ctx, blobs)
}

// needed adds the packs that hold what images, and the snapshots of others,
// need. An image whose lists are lost keeps none of the others from being locked.
func (k *locker) needed(ctx context.Context, w repo.DirectRepositoryWriter, blobs map[blob.ID]struct{}) error {
	if err := k.manifests.update(ctx, w.ContentReader()); err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	m := k.newMarker(ctx, w)
	for _, s := range k.manifests.snapshots() {
		switch err := m.snapshot(ctx, s); {
		case err == nil && s.kind == kindImage:
			k.out.Images = append(k.out.Images, s.image)
		case isDamage(m.explain(err)):
			k.out.Unread = append(k.out.Unread, s.image)
		case err != nil:
			return fmt.Errorf("read image %s: %w", s.image, err)
		}
	}
	return w.ContentReader().IterateContents(ctx, content.IterateOptions{IncludeDeleted: true}, func(i content.Info) error {
		needed := m.needs(i.ContentID) || i.ContentID.Prefix() == manifest.ContentPrefix && !i.Deleted
		if needed && i.PackBlobID != "" {
			blobs[i.PackBlobID] = struct{}{}
			k.out.Bytes += int64(i.PackedLength)
		}
		return nil
	})
}

// one locks the packs of one image whose lock would end too early: those that
// it shares with older images. What its base needs is left out where that is
// locked for long enough.
func (k *locker) one(ctx context.Context) error {
	enough := k.out.Until.Add(-backup.LockLate)
	old := map[blob.ID]struct{}{}
	err := k.packsOf(ctx, k.ask.Ref, func(i content.Info) {
		if until := i.Timestamp().Add(k.period); until.Before(enough) {
			old[i.PackBlobID] = struct{}{}
		} else if until.Before(k.out.Until) {
			k.out.Until = until // packs were locked when they were written, just after their contents
		}
	})
	if err != nil {
		return err
	}
	if len(old) > 0 && k.ask.Base != "" && !k.ask.BaseUntil.Before(enough) {
		before := len(old)
		err := k.packsOf(ctx, k.ask.Base, func(i content.Info) { delete(old, i.PackBlobID) })
		if err != nil && backup.CodeOf(err) != backup.NotFound {
			return err
		}
		if len(old) < before && k.ask.BaseUntil.Before(k.out.Until) {
			k.out.Until = k.ask.BaseUntil
		}
	}
	if err := k.extend(ctx, old); err != nil {
		return err
	}
	if k.out.Missing > 0 {
		return backup.Errorf(backup.RepositoryDamaged, "", "%d packs that the image needs are missing at %s.", k.out.Missing, k.store.location())
	}
	return nil
}

// packsOf visits the contents of an image, some more than once.
func (k *locker) packsOf(ctx context.Context, ref string, visit func(content.Info)) error {
	s, err := k.snapshot(ctx, ref)
	if err != nil {
		return err
	}
	i, err := k.openImage(ctx, s)
	if err != nil {
		return err
	}
	see := func(c content.ID) error {
		info, err := k.repo.ContentInfo(ctx, c)
		if err == nil {
			visit(info)
		}
		return err
	}
	if err := eachContent(ctx, k.repo, s.RootObjectID(), see); err != nil {
		return err
	}
	for _, o := range i.files {
		if err := eachContent(ctx, k.repo, o, see); err != nil {
			return err
		}
	}
	return nil
}

// extend locks blobs anew. One that is not there is counted: to find out what
// is damaged by that is a verification's business.
func (k *locker) extend(ctx context.Context, blobs map[blob.ID]struct{}) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lockers)
	var mu sync.Mutex // guards k.out and the teller
	o := blob.ExtendOptions{RetentionMode: k.mode, RetentionPeriod: k.period}
	for id := range blobs {
		g.Go(func() error {
			err := k.store.ExtendBlobRetention(ctx, id, o)
			mu.Lock()
			defer mu.Unlock()
			k.out.Calls++
			switch {
			case errors.Is(err, blob.ErrBlobNotFound):
				k.out.Missing++
			case err != nil:
				return err
			default:
				k.out.Blobs++
			}
			if k.ask.Progress != nil {
				k.ask.Progress(k.out.Blobs+k.out.Missing, len(blobs))
			}
			return nil
		})
	}
	return g.Wait()
}
