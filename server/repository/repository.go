package repository

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// listers is how many manifests are read at the same time.
const listers = 8

// repository implements [backup.Repository] on an opened one.
type repository struct {
	*opened
	rec backup.RepositoryRecord
	cfg Config
}

var _ backup.Repository = (*repository)(nil)

// writable refuses writing where the repository is another's.
func (r *repository) writable() error {
	if r.readOnly || r.owner != "" {
		return readOnly(r.store.location(), r.owner)
	}
	return nil
}

// refresh makes visible what other processes have written.
func (r *repository) refresh(ctx context.Context) error {
	return explain(ctx, r.store, "refresh repository", r.repo.Refresh(ctx))
}

// Image opens an image.
func (r *repository) Image(ctx context.Context, ref string) (backup.ImageReader, error) {
	s, err := r.snapshot(ctx, ref)
	if err != nil {
		return nil, err
	}
	return r.openImage(ctx, s)
}

// Images lists the manifests of all images. One that cannot be read is listed
// as damaged, with what its snapshot says of it: a lost file must not hide the
// images that are whole.
func (r *repository) Images(ctx context.Context) ([]backup.Manifest, error) {
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	if err := r.manifests.update(ctx, r.repo.ContentReader()); err != nil {
		return nil, explainRead(ctx, r.store, "list images", err)
	}
	there := slices.DeleteFunc(r.manifests.snapshots(), func(s *stored) bool { return s.kind != kindImage })
	there = inOrder(ctx, r.repo, there)
	defer r.whole.hold()()
	all := make([]backup.Manifest, len(there))
	var machines shared
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(listers)
	for i, s := range there {
		g.Go(func() error {
			s, err := s.parse()
			if err != nil {
				return explainRead(gctx, r.store, "read image", err)
			}
			if all[i], err = r.listed(gctx, s); err == nil {
				all[i].Machine = machines.one(all[i].Machine)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b backup.Manifest) int {
		return a.Image.PointInTime.Compare(b.Image.PointInTime)
	})
	return all, nil
}

// shared keeps one of bytes that are equal: a VM is configured in most of
// its images as it is in the others.
type shared struct {
	mu  sync.Mutex // guards all
	all map[string][]byte
}

func (s *shared) one(b []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if had, ok := s.all[string(b)]; ok {
		return had
	}
	if s.all == nil {
		s.all = map[string][]byte{}
	}
	s.all[string(b)] = b
	return b
}

// listed reads the manifest of an image for the list.
func (r *repository) listed(ctx context.Context, s *snapshot.Manifest) (backup.Manifest, error) {
	i, err := r.openImage(ctx, s)
	if err == nil {
		return i.doc.Manifest, nil
	}
	code := backup.CodeOf(err)
	if code != backup.RepositoryDamaged && code != backup.Conflict {
		return backup.Manifest{}, err
	}
	r.cfg.Log.WarnContext(ctx, "image cannot be read", "image", s.Tags[tagImage], "ref", string(s.ID), "error", err)
	return backup.Manifest{
		Installation: s.Tags[tagInstallation],
		VCenterUUID:  s.Source.Host,
		Image: backup.Image{
			ID: s.Tags[tagImage], Ref: string(s.ID), RepositoryID: r.rec.ID,
			VMName: s.Description, VMInstanceUUID: s.Source.Path[1:],
			GroupID: s.Tags[tagGroup], ScheduleID: s.Tags[tagSchedule],
			PointInTime: s.StartTime.ToTime(), EndedAt: s.EndTime.ToTime(),
			Status: backup.ImageDamaged, Message: backup.AsError(err).Message,
		},
	}, nil
}

// Delete takes an image out. Its space comes back later, with maintenance.
func (r *repository) Delete(ctx context.Context, ref string) error {
	if err := r.writable(); err != nil {
		return err
	}
	if err := r.stillOwned(ctx); err != nil {
		return err
	}
	if err := r.refresh(ctx); err != nil {
		return err
	}
	s, err := r.snapshot(ctx, ref)
	if backup.CodeOf(err) == backup.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	err = repo.WriteSession(ctx, r.repo, repo.WriteSessionOptions{Purpose: "delete image"},
		func(ctx context.Context, w repo.RepositoryWriter) error {
			return r.manifests.drop(ctx, w, []manifest.ID{s.ID})
		})
	return explain(ctx, r.store, "delete image", err)
}

// Space tells what the storage holds and has left. The sum is counted every
// ten minutes and kept up to date in between.
func (r *repository) Space(ctx context.Context) (stored, free int64, err error) {
	if err := r.store.missing(ctx); err != nil {
		return 0, 0, unreachable(r.store.location(), err).Because(err)
	}
	stored, free, err = r.store.space(ctx, r.cfg.Now())
	return stored, free, explain(ctx, r.store, "count repository", err)
}

// readObject reads a small object whole.
func (r *repository) readObject(ctx context.Context, id object.ID) ([]byte, error) {
	return readAll(ctx, r.repo, id)
}

// readAll reads a small object, a second time where that failed: a storage may
// have given back something else this once.
func readAll(ctx context.Context, r repo.Repository, id object.ID) ([]byte, error) {
	b, err := readOnce(ctx, r, id)
	if err == nil || ctx.Err() != nil {
		return b, err
	}
	return readOnce(ctx, r, id)
}

func readOnce(ctx context.Context, r repo.Repository, id object.ID) ([]byte, error) {
	o, err := r.OpenObject(ctx, id)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(o)
	if cerr := o.Close(); err == nil {
		err = cerr
	}
	return b, err
}

// settleTime is what a write has that must not be left half done.
const settleTime = 5 * time.Minute

// settle gives a write that must not be left half done its own time.
func settle(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), settleTime)
}

// settle is that of an image.
func (o *opened) settle(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), o.settleTime)
}
