package repository

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// manifestPrefix puts vm.json into the packs of small things, which are read
// together when images are listed.
const manifestPrefix = "v"

func objectPrefix(p string) content.IDPrefix { return content.IDPrefix(p) }

// Commit makes the image visible with one flush. An image of the same id, left
// by an attempt that was cut short after its commit, is replaced by this one in
// the same step.
func (i *imageWriter) Commit(ctx context.Context, m backup.Manifest) (backup.Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return backup.Image{}, errEnded
	}
	l, err := i.complete(&m)
	if err != nil {
		return backup.Image{}, err
	}
	m.Image.Ref, err = i.commit(ctx, &m, l)
	m.Image.Healed = i.growth.heal.count()
	if err != nil {
		return backup.Image{}, explain(ctx, i.r.store, "commit image", err)
	}
	failpoint.Hit("image.landed")
	i.ended = true
	for _, d := range i.disks {
		d.cancel(nil)
	}
	i.close(ctx)
	i.unpin(context.WithoutCancel(ctx))
	return m.Image, nil
}

// complete fills the manifest with what was written. The caller holds mu.
func (i *imageWriter) complete(m *backup.Manifest) (layout, error) {
	var l layout
	disks := slices.DeleteFunc(slices.Clone(m.Image.Disks), func(d backup.ImageDisk) bool {
		return i.disks[d.Key] != nil || d.SkippedReason == ""
	})
	m.Image.Sizes.Changed, m.Image.Sizes.Stored = 0, 0
	for _, w := range i.disks {
		if err := w.whole(); err != nil {
			return l, err
		}
		d := w.disk()
		if n := slices.IndexFunc(m.Image.Disks, func(o backup.ImageDisk) bool { return o.Key == d.Key }); n >= 0 {
			o := m.Image.Disks[n]
			d.Read, d.SHA256 = cmp.Or(o.Read, d.Read), cmp.Or(d.SHA256, o.SHA256) // the source knows better what it read
			d.File, d.ChangeDetection, d.FullCompareAt, d.TrackingDoubt = cmp.Or(d.File, o.File), o.ChangeDetection, o.FullCompareAt, o.TrackingDoubt
		}
		disks = append(disks, d)
		l.Disks = append(l.Disks, w.layout())
		m.Image.Sizes.Changed += d.Changed
		m.Image.Sizes.Stored += d.Stored
		m.BlockSize = max(m.BlockSize, int(w.size))
	}
	slices.SortFunc(disks, func(a, b backup.ImageDisk) int { return cmp.Compare(a.Key, b.Key) })
	slices.SortFunc(l.Disks, func(a, b diskLayout) int { return cmp.Compare(a.Key, b.Key) })
	m.Image.Disks = disks
	m.FormatVersion = backup.ManifestVersion
	m.Installation = cmp.Or(m.Installation, i.r.cfg.Installation)
	m.VCenterUUID = i.draft.VCenterUUID
	m.Image.ID = i.draft.ImageID
	m.Image.VMInstanceUUID = i.draft.InstanceUUID
	m.Image.VMName = cmp.Or(m.Image.VMName, i.draft.VMName)
	m.Image.RepositoryID = i.r.rec.ID
	m.Image.Ref = "" // not known before the commit
	if m.Image.PointInTime.IsZero() {
		m.Image.PointInTime = i.draft.PointInTime
	}
	return l, nil
}

// commit writes the image's folder and its snapshot, and flushes.
func (i *imageWriter) commit(ctx context.Context, m *backup.Manifest, l layout) (string, error) {
	if err := i.file(ctx, recipeName, "", []byte(recipe(i.r.store.place(), *m))); err != nil {
		return "", err
	}
	if err := i.healRecipes(ctx); err != nil {
		return "", err
	}
	b, err := i.count(m, l)
	if err != nil {
		return "", err
	}
	if err := i.file(ctx, manifestName, manifestPrefix, b); err != nil {
		return "", err
	}
	s, err := i.folder(ctx, *m)
	if err != nil {
		return "", err
	}
	if err := i.r.repo.Refresh(ctx); err != nil {
		return "", err
	}
	if err := i.stillPinned(ctx); err != nil {
		return "", err
	}
	if err := i.keep(ctx, s.RootObjectID()); err != nil {
		return "", err
	}
	if err := i.r.manifests.update(ctx, i.r.repo.ContentReader()); err != nil {
		return "", fmt.Errorf("find image %s: %w", m.Image.ID, err)
	}
	older := i.r.manifests.of(m.Image.ID)
	id, err := snapshot.SaveSnapshot(ctx, i.w, s)
	if err != nil {
		return "", fmt.Errorf("save snapshot: %w", err)
	}
	if err := i.r.store.missing(ctx); err != nil {
		return "", unreachable(i.r.store.location(), err).Because(err)
	}
	if err := i.r.stillOwned(ctx); err != nil {
		return "", err
	}
	if err := i.r.manifests.drop(ctx, i.w, older); err != nil {
		return "", fmt.Errorf("replace image: %w", err)
	}
	failpoint.Hit("image.landing")
	return i.land(ctx, id)
}

// count adds what the small files grew the repository by and returns vm.json,
// which tells it and so cannot be stored before: it counts by what it would take.
func (i *imageWriter) count(m *backup.Manifest, l layout) ([]byte, error) {
	b, err := json.Marshal(document{*m, l})
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	var packed bytes.Buffer
	if err := compression.ByName[metaCompression].Compress(&packed, bytes.NewReader(b)); err != nil {
		return nil, fmt.Errorf("pack manifest: %w", err)
	}
	m.Image.Sizes.Stored += i.stored.Load() + int64(packed.Len()) + folderSize
	if b, err = json.Marshal(document{*m, l}); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return b, nil
}

// folderSize is about what an image's folder and snapshot take.
const folderSize = 1 << 10

// land flushes. Where the flush fails after the index was written the image is
// there nevertheless: then that is what is reported.
func (i *imageWriter) land(ctx context.Context, id manifest.ID) (string, error) {
	ctx, cancel := i.r.settle(ctx)
	defer cancel()
	err := i.growth.flush(ctx)
	if err == nil {
		return string(id), nil
	}
	if i.r.repo.Refresh(ctx) != nil {
		return "", err
	}
	if s, _ := i.r.find(ctx, string(id)); s == nil {
		return "", err
	}
	i.r.cfg.Log.WarnContext(ctx, "image landed although the flush failed", "image", i.draft.ImageID, "error", err)
	return string(id), nil
}

// folder stores the list of the image's files and returns its snapshot.
func (i *imageWriter) folder(ctx context.Context, m backup.Manifest) (*snapshot.Manifest, error) {
	at := fs.UTCTimestampFromTime(m.Image.PointInTime)
	var b snapshotfs.DirManifestBuilder
	add := func(name string, size int64, id object.ID) {
		b.AddEntry(&snapshot.DirEntry{
			Name: name, Type: snapshot.EntryTypeFile, Permissions: fileMode, FileSize: size, ModTime: at, ObjectID: id,
		})
	}
	var total int64
	for key, d := range i.disks {
		id, err := indirect(d.list)
		if err != nil {
			return nil, fmt.Errorf("list of disk %d: %w", key, err)
		}
		add(diskName(key), d.draft.Capacity, id)
		total += d.draft.Capacity
	}
	for name, f := range i.files {
		add(name, f.size, f.id)
		total += f.size
	}
	dir := b.Build(at, "")
	id, err := snapshotfs.WriteDirManifest(ctx, i.w, ".", dir, metaCompression)
	if err != nil {
		return nil, fmt.Errorf("store folder: %w", err)
	}
	return &snapshot.Manifest{
		Source:      snapshot.SourceInfo{Host: i.draft.VCenterUUID, UserName: sourceUser, Path: "/" + i.draft.InstanceUUID},
		Description: m.Image.VMName,
		StartTime:   at,
		EndTime:     fs.UTCTimestampFromTime(cmp.Or(m.Image.EndedAt, i.r.cfg.Now())),
		RootEntry: &snapshot.DirEntry{
			Name: i.draft.InstanceUUID, Type: snapshot.EntryTypeDirectory, Permissions: dirMode,
			ModTime: at, ObjectID: id, DirSummary: dir.Summary,
		},
		Stats: snapshot.Stats{
			TotalFileSize: total, TotalFileCount: int32(len(i.disks) + len(i.files)), TotalDirectoryCount: 1,
		},
		Tags: tagsOf(m, i.parent),
		Pins: []string{pin},
	}, nil
}
