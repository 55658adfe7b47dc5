package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// checkpointBytes is how much new data is written between two flushes: kopia
// holds the names of all contents since the last one in memory.
const checkpointBytes = 64 << 30

// imageWriter implements [backup.ImageWriter]. All its disks share one kopia
// session, so that a block that two disks have is stored once, and the places
// for blocks in work, so that memory does not grow with the number of disks.
type imageWriter struct {
	r           *repository
	draft       backup.ImageDraft
	base        layout
	parent      string               // base's image id
	bases       map[int32]*blockList // of the base's disks
	w           repo.DirectRepositoryWriter
	compression compression.Name
	slots       chan struct{} // one for each block in work
	zeroes      *zeroes
	growth      *growth
	listChunk   int          // bytes of a chunk of a changed list
	stored      atomic.Int64 // by files and zeroes
	pin         blob.ID

	mu    sync.Mutex // guards the rest
	ended bool       // committed or aborted
	disks map[int32]*diskWriter
	files map[string]storedFile
}

// storedFile is a small file in the image.
type storedFile struct {
	id   object.ID
	size int64
}

var _ backup.ImageWriter = (*imageWriter)(nil)

// Begin starts an image.
func (r *repository) Begin(ctx context.Context, d backup.ImageDraft) (backup.ImageWriter, error) {
	if err := r.writable(); err != nil {
		return nil, err
	}
	if d.ImageID == "" || d.VCenterUUID == "" || d.InstanceUUID == "" {
		return nil, errors.New("begin image: a draft needs the ids of image, vcenter and VM")
	}
	if err := r.store.missing(ctx); err != nil {
		return nil, unreachable(r.store.location(), err).Because(err)
	}
	pin, base, err := r.pinBase(ctx, d)
	if err != nil {
		return nil, explain(ctx, r.store, "begin image", err)
	}
	failpoint.Hit("image.pinned")
	w, gone, err := r.newSession(ctx)
	if err != nil {
		(&imageWriter{r: r, draft: d, pin: pin}).unpin(ctx)
		return nil, explain(ctx, r.store, "begin image", err)
	}
	i := &imageWriter{
		r: r, draft: d, w: w, pin: pin,
		compression: compressions[r.rec.Compression],
		slots:       make(chan struct{}, r.cfg.Workers),
		bases:       map[int32]*blockList{},
		listChunk:   chunkBytes,
		disks:       map[int32]*diskWriter{},
		files:       map[string]storedFile{},
		growth:      &growth{committed: r.repo, session: w, every: cmp.Or(d.Checkpoint, checkpointBytes), heal: healer{w: w, lost: gone}},
	}
	ctx = context.WithoutCancel(ctx) // of the caller; the image lives on
	i.zeroes = &zeroes{store: func(b []byte) (object.ID, error) { return i.storeZeroes(ctx, b) }}
	i.readBase(ctx, base)
	return i, nil
}

// newSession begins kopia's session for an image, and tells what is lost.
func (r *repository) newSession(ctx context.Context) (repo.DirectRepositoryWriter, *losses, error) {
	gone, err := r.readLosses(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	_, w, err := r.repo.NewDirectWriter(ctx, repo.WriteSessionOptions{Purpose: "image"})
	if err != nil {
		return nil, nil, err
	}
	return w, gone, (&healer{w: w, lost: gone}).forgetLists(ctx)
}

// pinBase pins the image with its base. Only then is the index read anew: what
// is there from here on stays until the image has ended.
func (r *repository) pinBase(ctx context.Context, d backup.ImageDraft) (blob.ID, *snapshot.Manifest, error) {
	if err := r.refresh(ctx); err != nil {
		return "", nil, err
	}
	base := r.findBase(ctx, d.BaseRef)
	var root object.ID
	if base != nil {
		root = base.RootObjectID()
	}
	pin, err := r.putPin(ctx, d.ImageID, root)
	if err != nil {
		return "", nil, err
	}
	if err := r.refresh(ctx); err != nil {
		(&imageWriter{r: r, draft: d, pin: pin}).unpin(ctx)
		return "", nil, err
	}
	return pin, r.findBase(ctx, d.BaseRef), nil
}

// findBase finds the base's snapshot; nil = it is not there, or none was named.
func (r *repository) findBase(ctx context.Context, ref string) *snapshot.Manifest {
	if ref == "" {
		return nil
	}
	s, err := r.snapshot(ctx, ref)
	if err != nil {
		r.cfg.Log.WarnContext(ctx, "base image not found", "ref", ref, "error", err)
		return nil
	}
	return s
}

// readBase learns how the base's disks are laid out. Without it everything is
// stored all the same; blocks that have not changed are still found by content.
func (i *imageWriter) readBase(ctx context.Context, s *snapshot.Manifest) {
	if s == nil {
		return
	}
	base, err := i.r.openImage(ctx, s)
	if err != nil {
		i.r.cfg.Log.WarnContext(ctx, "base image cannot be read", "ref", i.draft.BaseRef, "error", err)
		return
	}
	i.base, i.parent = base.doc.Layout, base.doc.Image.ID
	for _, l := range i.base.Disks {
		b, err := openBlockList(ctx, i.r.repo, l, base.files[l.File])
		if err == nil {
			_, err = b.chunk(ctx, 0)
		}
		if err == nil {
			err = i.growth.heal.whole(ctx, i.r.repo, base.files[l.File])
		}
		if err != nil {
			i.r.cfg.Log.WarnContext(ctx, "the base's disk cannot be built upon", "ref", i.draft.BaseRef, "disk", l.Key, "error", err)
			continue
		}
		i.bases[l.Key] = b
	}
}

// HasBase says whether only what has changed of a disk need be written.
func (i *imageWriter) HasBase(key int32, capacity int64) bool {
	b := i.bases[key]
	return b != nil && capacity >= b.layout.Capacity
}

// Disk starts a disk.
func (i *imageWriter) Disk(ctx context.Context, d backup.DiskDraft) (backup.DiskWriter, error) {
	if d.Capacity <= 0 || d.Capacity%sector != 0 {
		return nil, backup.Errorf(backup.Invalid, "", "The disk %s has %d bytes, which is no multiple of %d.", d.Label, d.Capacity, sector)
	}
	if d.FromBase && !i.HasBase(d.Key, d.Capacity) {
		return nil, backup.Errorf(backup.Conflict, "", "There is no image that disk %s could be compared with, so all of it has to be read.", d.Label)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return nil, errEnded
	}
	if i.disks[d.Key] != nil {
		return nil, fmt.Errorf("disk %d is written twice", d.Key)
	}
	w := newDiskWriter(ctx, i, d)
	i.disks[d.Key] = w
	return w, nil
}

var errEnded = errors.New("the image has ended")

// File adds a small file.
func (i *imageWriter) File(ctx context.Context, name string, b []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return errEnded
	}
	if _, taken := i.files[name]; taken || name == manifestName || name == recipeName {
		return fmt.Errorf("file %s is there already", name)
	}
	return i.file(ctx, name, "", b)
}

// file stores a small file. The caller holds mu.
func (i *imageWriter) file(ctx context.Context, name, prefix string, b []byte) error {
	id, n, err := i.storeObject(ctx, b, fileOptions(name, prefix))
	if err != nil {
		return explain(ctx, i.r.store, "store "+name, err)
	}
	i.files[name] = storedFile{id, int64(len(b))}
	i.stored.Add(n)
	return nil
}

// fileOptions are how a small file is stored.
func fileOptions(name, prefix string) object.WriterOptions {
	return object.WriterOptions{Description: name, Prefix: objectPrefix(prefix), Compressor: metaCompression, MetadataCompressor: metaCompression}
}

// storeZeroes stores an object of zeroes in one piece.
func (i *imageWriter) storeZeroes(ctx context.Context, b []byte) (object.ID, error) {
	size := int64(blockSmall)
	for splitterOf(size) == "" || size < int64(len(b)) {
		size *= 2
	}
	id, n, err := i.storeBlock(ctx, b, size, metaCompression)
	i.stored.Add(n)
	return id, err
}

// storeBlock stores at most size bytes in one piece and tells what the
// repository grew by.
func (i *imageWriter) storeBlock(ctx context.Context, b []byte, size int64, c compression.Name) (object.ID, int64, error) {
	return i.storeObject(ctx, b, object.WriterOptions{Compressor: c, Splitter: splitterOf(size)})
}

func (i *imageWriter) storeObject(ctx context.Context, b []byte, o object.WriterOptions) (object.ID, int64, error) {
	return i.growth.count(ctx, func() (id object.ID, err error) {
		w := i.w.NewObjectWriter(ctx, o)
		defer func() {
			if cerr := w.Close(); err == nil {
				err = cerr
			}
		}()
		if _, err := w.Write(b); err != nil {
			return object.EmptyID, err
		}
		return w.Result()
	})
}

// Abort gives the image up: what it has stored and nobody refers to goes.
func (i *imageWriter) Abort(ctx context.Context) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return
	}
	i.ended = true
	for _, d := range i.disks {
		d.abort()
	}
	ctx, cancel := i.r.settle(ctx)
	defer cancel()
	i.sweep(ctx)
	i.close(ctx)
	i.unpin(ctx)
}

// sweep removes the packs that no index names, and with them the sign that
// keeps them from being collected. On a full disk that is what makes room.
func (i *imageWriter) sweep(ctx context.Context) {
	packs := i.growth.loosePacks(ctx)
	if len(packs) == 0 {
		return
	}
	sessions := map[content.SessionID]bool{}
	for _, p := range packs {
		sessions[content.SessionIDFromBlobID(p)] = true
	}
	err := i.w.BlobStorage().ListBlobs(ctx, content.BlobIDPrefixSession, func(m blob.Metadata) error {
		if sessions[content.SessionIDFromBlobID(m.BlobID)] {
			packs = append(packs, m.BlobID)
		}
		return nil
	})
	for _, p := range packs {
		err = errors.Join(err, i.w.BlobStorage().DeleteBlob(ctx, p))
	}
	if err != nil {
		i.r.cfg.Log.WarnContext(ctx, "removing what an image has left failed", "image", i.draft.ImageID, "error", err)
	}
}

// close ends the kopia session.
func (i *imageWriter) close(ctx context.Context) {
	if err := i.w.Close(ctx); err != nil {
		i.r.cfg.Log.WarnContext(ctx, "ending an image failed", "image", i.draft.ImageID, "error", err)
	}
}
