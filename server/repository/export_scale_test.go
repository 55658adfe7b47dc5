package repository

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Crowd writes very many images through one session of kopia, as a collection
// leaves them: many in a pack. Blocks, lists, folders and snapshots are made by
// what makes them in a backup; pins and the looks at the storage are left out.
type Crowd struct {
	r      *repository
	w      repo.DirectRepositoryWriter
	zeroes *zeroes
	growth *growth
}

// NewCrowd begins to write.
func NewCrowd(ctx context.Context, r backup.Repository) (*Crowd, error) {
	rep := r.(*repository)
	_, w, err := rep.repo.NewDirectWriter(ctx, repo.WriteSessionOptions{Purpose: "crowd"})
	if err != nil {
		return nil, err
	}
	c := &Crowd{r: rep, w: w, growth: &growth{committed: rep.repo, session: w, every: 1 << 60}}
	c.zeroes = &zeroes{store: func(b []byte) (object.ID, error) { return c.image(backup.ImageDraft{}).storeZeroes(ctx, b) }}
	return c, nil
}

func (c *Crowd) image(d backup.ImageDraft) *imageWriter {
	return &imageWriter{
		r: c.r, draft: d, w: c.w, compression: compressions[c.r.rec.Compression], zeroes: c.zeroes, growth: c.growth,
		disks: map[int32]*diskWriter{}, files: map[string]storedFile{},
	}
}

// CrowdDisk is the disk of one VM as its last image left it.
type CrowdDisk struct {
	Draft  backup.DiskDraft
	Parent string
	blocks map[int64]object.ID
}

// Store gives the disk a block.
func (c *Crowd) Store(ctx context.Context, d *CrowdDisk, n int64, b []byte) error {
	id, _, err := c.image(backup.ImageDraft{}).storeBlock(ctx, b, blockMedium, compressions[c.r.rec.Compression])
	if err != nil {
		return err
	}
	if d.blocks == nil {
		d.blocks = map[int64]object.ID{}
	}
	d.blocks[n] = id
	return nil
}

// Take makes an image of the disk.
func (c *Crowd) Take(ctx context.Context, draft backup.ImageDraft, m backup.Manifest, d *CrowdDisk) (ref string, err error) {
	i := c.image(draft)
	i.parent = d.Parent
	l := newEntryWriter(ctx, c.w, blockMedium, c.zeroes)
	for n := range d.Draft.Capacity / blockMedium {
		if id, ok := d.blocks[n]; ok {
			if err := l.add(n*blockMedium, blockMedium, id); err != nil {
				return "", err
			}
		}
	}
	if err := l.fill(d.Draft.Capacity); err != nil {
		return "", err
	}
	w := &diskWriter{i: i, draft: d.Draft, size: blockMedium, listed: make(chan struct{})}
	if w.list, err = l.finish(); err != nil {
		return "", err
	}
	close(w.listed)
	i.disks[d.Draft.Key] = w
	ref, err = c.save(ctx, i, m)
	d.Parent = draft.ImageID
	return ref, cmp.Or(err, l.close())
}

func (c *Crowd) save(ctx context.Context, i *imageWriter, m backup.Manifest) (string, error) {
	lay, err := i.complete(&m)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(document{m, lay})
	if err != nil {
		return "", err
	}
	if err := i.file(ctx, recipeName, "", []byte(recipe(c.r.store.place(), m))); err != nil {
		return "", err
	}
	if err := i.file(ctx, manifestName, manifestPrefix, b); err != nil {
		return "", err
	}
	s, err := i.folder(ctx, m)
	if err != nil {
		return "", err
	}
	id, err := snapshot.SaveSnapshot(ctx, c.w, s)
	return string(id), err
}

// Flush makes visible what was taken.
func (c *Crowd) Flush(ctx context.Context) error { return c.growth.flush(ctx) }

// Close ends the writing.
func (c *Crowd) Close(ctx context.Context) error { return c.w.Close(ctx) }

// Operations counts what a storage was asked for.
type Operations struct {
	Get, Head, Put, Delete, List atomic.Int64

	deleting, Most atomic.Int64 // deletions at the same time
}

// Take returns the counts as a line and begins anew.
func (o *Operations) Take() string {
	return fmt.Sprintf("get %d, head %d, put %d, delete %d, list %d",
		o.Get.Swap(0), o.Head.Swap(0), o.Put.Swap(0), o.Delete.Swap(0), o.List.Swap(0))
}

// Sum is how many there were.
func (o *Operations) Sum() int64 {
	return o.Get.Load() + o.Head.Load() + o.Put.Load() + o.Delete.Load() + o.List.Load()
}

// Watch counts what the storages of repositories opened from now on are asked
// for, and makes each wait before it answers, as one that is far away does.
func (rs *Repositories) Watch(o *Operations, wait time.Duration) {
	rs.onStore = func(s *fileStore) { s.Storage = &watchedStorage{s.Storage, o, wait} }
}

type watchedStorage struct {
	blob.Storage
	o    *Operations
	wait time.Duration
}

func (s *watchedStorage) pause(n *atomic.Int64) {
	n.Add(1)
	if s.wait > 0 {
		<-time.After(s.wait)
	}
}

func (s *watchedStorage) GetBlob(ctx context.Context, id blob.ID, off, n int64, out blob.OutputBuffer) error {
	s.pause(&s.o.Get)
	return s.Storage.GetBlob(ctx, id, off, n, out)
}

func (s *watchedStorage) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	s.pause(&s.o.Head)
	return s.Storage.GetMetadata(ctx, id)
}

func (s *watchedStorage) DeleteBlob(ctx context.Context, id blob.ID) error {
	if n := s.o.deleting.Add(1); n > s.o.Most.Load() {
		s.o.Most.Store(n)
	}
	defer s.o.deleting.Add(-1)
	s.pause(&s.o.Delete)
	return s.Storage.DeleteBlob(ctx, id)
}

func (s *watchedStorage) ListBlobs(ctx context.Context, prefix blob.ID, f func(blob.Metadata) error) error {
	s.pause(&s.o.List)
	return s.Storage.ListBlobs(ctx, prefix, f)
}
