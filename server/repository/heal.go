package repository

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// healer stores again what is lost wherever an image has the same bytes. From
// then on the index finds them in a new pack, for all images that need them.
type healer struct {
	w    repo.DirectRepositoryWriter
	lost *losses

	mu   sync.Mutex // held while something is stored again; guards done
	done map[content.ID]bool
}

// forgetLists makes the session forget the lost pieces of lists, which are
// written in a stream. What is not written again stays marked, which does no
// harm: while an image's list cannot be read nothing is given up, and once it
// can be a collection takes the mark away.
func (h *healer) forgetLists(ctx context.Context) error {
	if h.lost.empty() {
		return nil
	}
	for _, contents := range h.lost.packs {
		for c := range contents {
			if c.Prefix() != listPrefix {
				continue
			}
			info, err := h.w.ContentInfo(ctx, c)
			if err == nil && h.lost.has(info) {
				err = h.w.ContentManager().DeleteContent(ctx, c)
			}
			if err != nil && !errors.Is(err, content.ErrContentNotFound) {
				return fmt.Errorf("forget %s: %w", c, err)
			}
		}
	}
	return nil
}

// again stores an object once more if kopia took some of it for stored that is
// lost. Pieces of lists were forgotten before they were written.
func (h *healer) again(ctx context.Context, id object.ID, store func() (object.ID, error)) error {
	if h.lost.empty() {
		return nil
	}
	all, err := h.w.VerifyObject(ctx, id)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var forgotten []content.ID
	for _, c := range all {
		if c.HasPrefix() || h.done[c] {
			continue
		}
		info, err := h.w.ContentInfo(ctx, c)
		if err != nil {
			return err
		}
		if !h.lost.has(info) {
			continue
		}
		if err := h.w.ContentManager().DeleteContent(ctx, c); err != nil {
			return fmt.Errorf("forget %s: %w", c, err)
		}
		forgotten = append(forgotten, c)
	}
	if len(forgotten) == 0 {
		return nil
	}
	if _, err := store(); err != nil {
		return err
	}
	if h.done == nil {
		h.done = map[content.ID]bool{}
	}
	for _, c := range forgotten {
		h.done[c] = true
	}
	return nil
}

// renewed says whether a content was stored again.
func (h *healer) renewed(c content.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done[c]
}

// count is how many blocks were stored again.
func (h *healer) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.done)
}

var errLostBlocks = errors.New("it needs blocks that are lost")

// whole refuses an object of which something is lost.
func (h *healer) whole(ctx context.Context, r repo.Repository, o object.ID) error {
	if h.lost.empty() {
		return nil
	}
	return eachContent(ctx, r, o, func(c content.ID) error {
		i, err := r.ContentInfo(ctx, c)
		if err == nil && (i.Deleted || h.lost.has(i)) {
			err = errLostBlocks
		}
		return err
	})
}

// healRecipes writes the VM's lost recipes again: each is of one image alone, so
// no backup would.
func (i *imageWriter) healRecipes(ctx context.Context) error {
	if i.growth.heal.lost.empty() {
		return nil
	}
	for _, s := range i.r.manifests.snapshots() {
		if s.kind != kindImage {
			continue
		}
		m, err := s.parse()
		if err != nil || m.Source.Host != i.draft.VCenterUUID || m.Source.Path != "/"+i.draft.InstanceUUID || !i.lacksRecipe(ctx, m) {
			continue
		}
		text := recipe(i.r.store.place(), backup.Manifest{VCenterUUID: m.Source.Host, Image: backup.Image{
			ID: m.Tags[tagImage], VMInstanceUUID: m.Source.Path[1:], PointInTime: m.StartTime.ToTime()}})
		if _, _, err := i.storeObject(ctx, []byte(text), fileOptions(recipeName, "")); err != nil {
			return fmt.Errorf("store recipe of %s again: %w", m.Tags[tagImage], err)
		}
	}
	return nil
}

// lacksRecipe says whether the recipe of an image is lost.
func (i *imageWriter) lacksRecipe(ctx context.Context, s *snapshot.Manifest) bool {
	b, err := i.r.readObject(ctx, s.RootObjectID())
	if err != nil {
		return false
	}
	all, _ := parseFolder(b) // what cannot be read lacks more than its recipe
	for _, e := range all {
		if e.Name == recipeName {
			return i.growth.heal.whole(ctx, i.r.repo, e.ObjectID) != nil
		}
	}
	return false
}
