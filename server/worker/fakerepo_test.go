package worker_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// fakeRepository keeps images in memory. It is its own Repositories.
type fakeRepository struct {
	points

	imagesMu    sync.Mutex // guards what follows
	images      map[string]*fakeImage
	commits     int
	verified    backup.Verified // what is found of every image
	collections []backup.Collection
}

// fakeImage is a committed image.
type fakeImage struct {
	manifest backup.Manifest
	draft    backup.ImageDraft
	disks    map[int32][]byte
	files    map[string][]byte
}

func (r *fakeRepository) Repository(ctx context.Context, rec backup.RepositoryRecord) (backup.Repository, error) {
	return r, r.pass(ctx, "Repository", rec.Name)
}

func (r *fakeRepository) Begin(ctx context.Context, d backup.ImageDraft) (backup.ImageWriter, error) {
	w := &fakeWriter{r: r, image: &fakeImage{draft: d, disks: map[int32][]byte{}, files: map[string][]byte{}}}
	return w, r.pass(ctx, "Begin", "base="+d.BaseRef)
}

func (r *fakeRepository) Image(ctx context.Context, ref string) (backup.ImageReader, error) {
	if err := r.pass(ctx, "OpenImage", ref); err != nil {
		return nil, err
	}
	r.imagesMu.Lock()
	defer r.imagesMu.Unlock()
	i := r.images[ref]
	if i == nil {
		return nil, backup.Errorf(backup.NotFound, "", "There is no image %s.", ref)
	}
	return i, nil
}

func (r *fakeRepository) Images(context.Context) ([]backup.Manifest, error) {
	r.imagesMu.Lock()
	defer r.imagesMu.Unlock()
	var all []backup.Manifest
	for ref, i := range r.images {
		m := i.manifest
		m.Image.Ref = ref
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b backup.Manifest) int { return cmp.Compare(a.Image.ID, b.Image.ID) })
	return all, nil
}

func (r *fakeRepository) Delete(ctx context.Context, ref string) error {
	if err := r.pass(ctx, "Delete", ref); err != nil {
		return err
	}
	r.imagesMu.Lock()
	defer r.imagesMu.Unlock()
	delete(r.images, ref)
	return nil
}

func (r *fakeRepository) Space(ctx context.Context) (stored, free int64, err error) {
	return 1 << 20, 1 << 30, r.pass(ctx, "Space", "")
}

// fakeWriter writes one image.
type fakeWriter struct {
	r     *fakeRepository
	image *fakeImage
	ended bool
}

func (w *fakeWriter) Disk(ctx context.Context, d backup.DiskDraft) (backup.DiskWriter, error) {
	if w.image.disks[d.Key] != nil {
		return nil, fmt.Errorf("disk %d is written twice", d.Key)
	}
	w.image.disks[d.Key] = make([]byte, d.Capacity)
	return &fakeDiskWriter{w, d}, w.r.pass(ctx, "Disk", d.Label)
}

func (w *fakeWriter) File(ctx context.Context, name string, content []byte) error {
	w.image.files[name] = slices.Clone(content)
	return w.r.pass(ctx, "File", name)
}

// Commit replaces an image of the same id, as the real one does.
func (w *fakeWriter) Commit(ctx context.Context, m backup.Manifest) (string, error) {
	if err := w.r.pass(ctx, "Commit", ""); err != nil {
		return "", err
	}
	w.r.imagesMu.Lock()
	defer w.r.imagesMu.Unlock()
	for ref, i := range w.r.images {
		if i.manifest.Image.ID == m.Image.ID {
			delete(w.r.images, ref)
		}
	}
	w.r.commits++
	ref := fmt.Sprint("ref-", w.r.commits)
	w.image.manifest = m
	if w.r.images == nil {
		w.r.images = map[string]*fakeImage{}
	}
	w.r.images[ref] = w.image
	w.ended = true
	return ref, nil
}

func (w *fakeWriter) Abort(ctx context.Context) {
	if !w.ended {
		_ = w.r.pass(ctx, "Abort", "") // it has nobody to tell
	}
}

type fakeDiskWriter struct {
	w *fakeWriter
	d backup.DiskDraft
}

func (d *fakeDiskWriter) WriteAt(p []byte, off int64) (int, error) {
	return copy(d.w.image.disks[d.d.Key][off:], p), nil
}

func (d *fakeDiskWriter) Close(ctx context.Context) (backup.ImageDisk, error) {
	return backup.ImageDisk{Key: d.d.Key, Label: d.d.Label, Capacity: d.d.Capacity, Stored: d.d.Capacity / 2}, d.w.r.pass(ctx, "CloseDisk", d.d.Label)
}

func (i *fakeImage) Manifest() backup.Manifest { return i.manifest }

func (i *fakeImage) Disk(_ context.Context, key int32) (backup.DiskReader, error) {
	if i.disks[key] == nil {
		return nil, backup.Errorf(backup.NotFound, "", "There is no disk %d.", key)
	}
	return &fakeDiskReader{bytes.NewReader(i.disks[key])}, nil
}

func (i *fakeImage) File(_ context.Context, name string) ([]byte, error) { return i.files[name], nil }

func (i *fakeImage) Close() error { return nil }

type fakeDiskReader struct{ *bytes.Reader }

func (r *fakeDiskReader) Capacity() int64 { return r.Size() }

func (r *fakeDiskReader) Next(off int64) (start, n int64) { return off, r.Size() - off }

func (r *fakeDiskReader) Close() error { return nil }
