package repository

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo/content"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// hurtBy finds the images that need what is lost, but for one of which that is
// known. Images share most of their lists, of which each chunk is read once.
func (r *repository) hurtBy(ctx context.Context, l *losses, except string) (all []backup.HurtImage, err error) {
	if err := r.manifests.update(ctx, r.repo.ContentReader()); err != nil && !isDamage(explainRead(ctx, r.store, "list images", err)) {
		return nil, fmt.Errorf("list images: %w", err)
	}
	defer r.whole.hold()()
	m := r.newMarker(ctx, r.repo)
	m.bad = r.lostFrom(ctx, l)
	there := slices.DeleteFunc(r.manifests.snapshots(), func(s *stored) bool { return s.kind != kindImage || string(s.id) == except })
	for _, s := range inOrder(ctx, r.repo, there) {
		files, err := r.hurtFiles(ctx, m, s)
		if err != nil {
			if err = explainRead(ctx, r.store, "read image "+s.image, err); !isDamage(err) {
				return nil, err
			}
			all = append(all, backup.HurtImage{ID: s.image, Message: backup.AsError(err).Message})
			continue
		}
		if len(files) > 0 {
			all = append(all, backup.HurtImage{ID: s.image, Disks: disksOf(files), Message: r.lacking(files)})
		}
	}
	return all, nil
}

// lostFrom says of a content whether it is lost, by those notes.
func (r *repository) lostFrom(ctx context.Context, l *losses) func(content.ID) bool {
	return func(c content.ID) bool {
		i, err := r.repo.ContentInfo(ctx, c)
		return lost(err) || err == nil && l.has(i)
	}
}

// hurtFiles names the files of an image that need what the marker looks out for.
func (r *repository) hurtFiles(ctx context.Context, m *marker, s *stored) (files []string, err error) {
	root, err := s.root()
	if err != nil {
		return nil, err
	}
	b, err := r.readObject(ctx, root)
	if err != nil {
		return nil, err
	}
	all, err := parseFolder(b)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		m.hit = false
		err := m.object(ctx, e.ObjectID)
		if err = explainRead(ctx, r.store, "read list of "+e.Name, err); err != nil && !isDamage(err) {
			return nil, err
		}
		if err != nil || m.hit {
			files = append(files, e.Name)
		}
	}
	return files, nil
}

// disksOf returns the keys of the disks among files.
func disksOf(files []string) (keys []int32) {
	for _, name := range files {
		var key int32
		if n, err := fmt.Sscanf(name, diskPattern, &key); n == 1 && err == nil {
			keys = append(keys, key)
		}
	}
	return keys
}

// lacking tells a user what an image lacks.
func (r *repository) lacking(files []string) string {
	return fmt.Sprintf("Parts of %s are missing in the repository at %s or cannot be read.", strings.Join(files, ", "), r.store.location())
}
