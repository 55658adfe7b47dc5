package worker_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

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
	lockings    []backup.Locking
	lockedFrom  time.Time // when lockings say that they began
}

// fakeImage is a committed image.
type fakeImage struct {
	r        *fakeRepository
	manifest backup.Manifest
	draft    backup.ImageDraft
	disks    map[int32][]byte
	files    map[string][]byte
}

func (r *fakeRepository) Repository(ctx context.Context, rec backup.RepositoryRecord) (backup.Repository, error) {
	return r, r.pass(ctx, "Repository", rec.Name)
}

func (r *fakeRepository) Begin(ctx context.Context, d backup.ImageDraft) (backup.ImageWriter, error) {
	w := &fakeWriter{r: r, image: &fakeImage{r: r, draft: d, disks: map[int32][]byte{}, files: map[string][]byte{}}}
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

// base returns the bytes of the base's disk; nil = there is none.
func (w *fakeWriter) base(key int32) []byte {
	w.r.imagesMu.Lock()
	defer w.r.imagesMu.Unlock()
	if i := w.r.images[w.image.draft.BaseRef]; i != nil {
		return i.disks[key]
	}
	return nil
}

func (w *fakeWriter) HasBase(key int32, capacity int64) bool {
	b := w.base(key)
	return b != nil && int64(len(b)) <= capacity
}

func (w *fakeWriter) Disk(ctx context.Context, d backup.DiskDraft) (backup.DiskWriter, error) {
	if w.image.disks[d.Key] != nil {
		return nil, fmt.Errorf("disk %d is written twice", d.Key)
	}
	w.image.disks[d.Key] = make([]byte, d.Capacity)
	if d.FromBase {
		copy(w.image.disks[d.Key], w.base(d.Key))
	}
	return &fakeDiskWriter{w, d}, w.r.pass(ctx, "Disk", d.Label)
}

func (w *fakeWriter) File(ctx context.Context, name string, content []byte) error {
	w.image.files[name] = slices.Clone(content)
	return w.r.pass(ctx, "File", name)
}

// Commit replaces an image of the same id, as the real one does.
func (w *fakeWriter) Commit(ctx context.Context, m backup.Manifest) (backup.Image, error) {
	if err := w.r.pass(ctx, "Commit", ""); err != nil {
		return backup.Image{}, err
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
	m.Image.Sizes.Stored, m.Image.Sizes.Changed = 0, 0
	for _, d := range m.Image.Disks {
		m.Image.Sizes.Stored += d.Stored
		m.Image.Sizes.Changed += d.Changed
	}
	w.image.manifest = m
	if w.r.images == nil {
		w.r.images = map[string]*fakeImage{}
	}
	w.r.images[ref] = w.image
	w.ended = true
	m.Image.Ref = ref
	return m.Image, nil
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
	d.differences()
	return backup.ImageDisk{Key: d.d.Key, Label: d.d.Label, Capacity: d.d.Capacity, Stored: d.d.Capacity / 2, ChangeID: d.d.ChangeID}, d.w.r.pass(ctx, "CloseDisk", d.d.Label)
}

func (i *fakeImage) Manifest() backup.Manifest { return i.manifest }

func (i *fakeImage) Disk(_ context.Context, key int32) (backup.DiskReader, error) {
	if i.disks[key] == nil {
		return nil, backup.Errorf(backup.NotFound, "", "There is no disk %d.", key)
	}
	return &fakeDiskReader{bytes.NewReader(i.disks[key])}, nil
}

// EachChange compares in pieces of 4 KiB.
func (i *fakeImage) EachChange(ctx context.Context, since string, key int32, fn func(off, n int64) error) error {
	older, err := i.r.Image(ctx, since)
	if err != nil {
		return err
	}
	old := older.(*fakeImage).disks[key]
	if old == nil {
		return backup.Errorf(backup.NotFound, "", "There is no disk %d.", key)
	}
	now, zero := i.disks[key], make([]byte, 4096)
	for off := 0; off < len(now); off += len(zero) {
		piece := now[off:min(off+len(zero), len(now))]
		was := zero[:len(piece)]
		if off+len(piece) <= len(old) {
			was = old[off : off+len(piece)]
		}
		if bytes.Equal(piece, was) {
			continue
		}
		if err := fn(int64(off), int64(len(piece))); err != nil {
			return err
		}
	}
	return nil
}

func (i *fakeImage) Files() []string { return slices.Sorted(maps.Keys(i.files)) }

func (i *fakeImage) File(_ context.Context, name string) ([]byte, error) { return i.files[name], nil }

func (i *fakeImage) Close() error { return nil }

type fakeDiskReader struct{ *bytes.Reader }

func (r *fakeDiskReader) Capacity() int64 { return r.Size() }

func (r *fakeDiskReader) Next(off int64) (start, n int64) { return off, r.Size() - off }

func (r *fakeDiskReader) Close() error { return nil }
