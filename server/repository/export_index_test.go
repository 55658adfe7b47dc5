package repository

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	kopiaindex "github.com/kopia/kopia/repo/content/index"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// ManifestContents counts the contents that hold manifests, by an index read anew.
func ManifestContents(ctx context.Context, r backup.Repository) (n int, err error) {
	rep := r.(*repository)
	if err := rep.refresh(ctx); err != nil {
		return 0, err
	}
	err = rep.repo.ContentReader().IterateContents(ctx, content.IterateOptions{Range: kopiaindex.PrefixRange(manifest.ContentPrefix)},
		func(content.Info) error { n++; return nil })
	return n, err
}

// StockImages lists the refs of all images as the stock program finds them. It
// gathers manifests by itself when there are many.
func StockImages(ctx context.Context, r backup.Repository) (refs []string, err error) {
	ids, err := snapshot.ListSnapshotManifests(ctx, r.(*repository).repo, nil, nil)
	for _, id := range ids {
		refs = append(refs, string(id))
	}
	return refs, err
}

// packsAfar is a storage that holds n packs and counts what it is asked.
type packsAfar struct {
	storage
	n             int
	asked, listed atomic.Int64
}

func (s *packsAfar) GetMetadata(_ context.Context, id blob.ID) (blob.Metadata, error) {
	s.asked.Add(1)
	return blob.Metadata{BlobID: id, Length: 7}, nil
}

func (s *packsAfar) ListBlobs(_ context.Context, prefix blob.ID, tell func(blob.Metadata) error) error {
	s.listed.Add(1)
	for i := range s.n {
		if err := tell(blob.Metadata{BlobID: prefix + blob.ID(fmt.Sprint(i)), Length: 7}); err != nil {
			return err
		}
	}
	return nil
}

// LooksAtPacks looks at n packs of an image each, one image after the other,
// on a storage that lists in pages, and counts what it is asked.
func LooksAtPacks(ctx context.Context, n int) (asked, listed int64, err error) {
	s := &packsAfar{n: n}
	p := presence{paged: true}
	now := time.Now()
	for i := range n {
		id := blob.ID(fmt.Sprint("p", i))
		found, err := p.look(ctx, s, []blob.ID{id}, now.Add(-seenAge), now)
		if err != nil || found[id] != 7 {
			return 0, 0, fmt.Errorf("look at %s = %v, %w", id, found, err)
		}
	}
	return s.asked.Load(), s.listed.Load(), nil
}
