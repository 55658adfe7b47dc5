package repository

import (
	"context"
	"fmt"
	"slices"

	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// imageReader implements [backup.ImageReader].
type imageReader struct {
	r     *repository
	doc   document
	files map[string]object.ID
}

var _ backup.ImageReader = (*imageReader)(nil)

// openImage reads an image's folder and manifest.
func (r *repository) openImage(ctx context.Context, s *snapshot.Manifest) (*imageReader, error) {
	i := &imageReader{r: r, files: map[string]object.ID{}}
	b, err := r.readObject(ctx, s.RootObjectID())
	var files []file
	if err == nil {
		files, err = parseFolder(b)
	}
	if err != nil {
		return nil, explainRead(ctx, r.store, "read image's folder", err)
	}
	for _, f := range files {
		i.files[f.Name] = f.ObjectID
	}
	b, err = i.File(ctx, manifestName)
	if err != nil {
		return nil, err
	}
	if i.doc, err = parseDocument(b); err != nil {
		return nil, explainRead(ctx, r.store, "read image's manifest", err)
	}
	i.doc.Image.Ref = string(s.ID)
	i.doc.Image.RepositoryID = r.rec.ID
	return i, nil
}

// Manifest returns the image's manifest with its ref.
func (i *imageReader) Manifest() backup.Manifest { return i.doc.Manifest }

// Files names the small files that writers have added.
func (i *imageReader) Files() []string {
	var names []string
	for name := range i.files {
		if name != manifestName && name != recipeName && !slices.ContainsFunc(i.doc.Layout.Disks, func(d diskLayout) bool { return d.File == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// File reads a small file.
func (i *imageReader) File(ctx context.Context, name string) ([]byte, error) {
	id, ok := i.files[name]
	if !ok {
		return nil, backup.Errorf(backup.NotFound, "", "The image holds no file %s.", name)
	}
	b, err := i.r.readObject(ctx, id)
	return b, explainRead(ctx, i.r.store, "read "+name, err)
}

// Disk opens a disk. Reading ends when ctx does.
func (i *imageReader) Disk(ctx context.Context, key int32) (backup.DiskReader, error) {
	l := i.doc.Layout.disk(key)
	if l == nil {
		return nil, backup.Errorf(backup.NotFound, "", "The image holds no disk %d.", key)
	}
	id, ok := i.files[l.File]
	if !ok {
		return nil, damaged(i.r.store, fmt.Sprintf("the image names the disk %d but does not hold it", key))
	}
	m, err := openBlockMap(ctx, i.r.repo, *l, id)
	if err != nil {
		return nil, explainRead(ctx, i.r.store, "read the list of blocks", err)
	}
	return newDiskReader(ctx, i.r, m), nil
}

// Close gives nothing back: an image holds no more than its manifest.
func (i *imageReader) Close() error { return nil }
