package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
)

// A note says which contents of a pack cannot be read any more. kopia's index
// goes on naming them, so kopia would take a block of the same bytes for stored;
// who writes an image reads the notes and stores such a block again. A content
// that the index has in another pack by then is healed: the note says nothing of
// that. Nothing is deleted, so that files which are put back count again, and no
// lock of the storage is in the way. A note is named after its pack: two who
// find the same loss write the same.
const lostPrefix blob.ID = "kura.lost."

// lostNote is the text of a note.
type lostNote struct {
	FoundAt  time.Time `json:"found_at"`
	Contents []string  `json:"contents"`
}

// losses are the notes of a repository.
type losses struct {
	listed map[blob.ID]blob.Metadata
	packs  map[blob.ID]lostContents
}

// lostContents are those of one pack; nil = all of them.
type lostContents map[content.ID]struct{}

func (l *losses) empty() bool { return l == nil || len(l.packs) == 0 }

// has says whether a content cannot be read from where the index has it.
func (l *losses) has(i content.Info) bool {
	if l.empty() {
		return false
	}
	c, noted := l.packs[i.PackBlobID]
	_, named := c[i.ContentID]
	return noted && (named || c == nil)
}

// readLosses reads the notes that are not known from before.
func (r *repository) readLosses(ctx context.Context, before *losses) (*losses, error) {
	now := &losses{listed: map[blob.ID]blob.Metadata{}, packs: map[blob.ID]lostContents{}}
	err := r.store.ListBlobs(ctx, lostPrefix, func(m blob.Metadata) error {
		now.listed[m.BlobID] = m
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list what is lost: %w", err)
	}
	if before != nil && maps.EqualFunc(before.listed, now.listed, sameBlob) {
		return before, nil
	}
	for id := range now.listed {
		pack := blob.ID(strings.TrimPrefix(string(id), string(lostPrefix)))
		c, err := r.readLoss(ctx, id)
		if errors.Is(err, blob.ErrBlobNotFound) {
			delete(now.listed, id) // all of it is stored again
			continue
		}
		if err != nil {
			return nil, err
		}
		now.packs[pack] = c
	}
	return now, nil
}

func sameBlob(a, b blob.Metadata) bool {
	return a.Length == b.Length && a.Timestamp.Equal(b.Timestamp)
}

// readLoss reads a note. Of one that was written badly all counts as lost.
func (r *repository) readLoss(ctx context.Context, id blob.ID) (lostContents, error) {
	var b blobBuffer
	if err := r.store.GetBlob(ctx, id, 0, -1, &b); err != nil {
		return nil, fmt.Errorf("read %s: %w", id, err)
	}
	var n lostNote
	err := json.Unmarshal(b.Bytes(), &n)
	all := lostContents{}
	for _, name := range n.Contents {
		c, perr := content.ParseID(name)
		err = errors.Join(err, perr)
		all[c] = struct{}{}
	}
	if err != nil {
		r.cfg.Log.WarnContext(ctx, "note of what is lost cannot be read", "blob", string(id), "error", err)
		return nil, nil
	}
	return all, nil
}

func (r *repository) writeLoss(ctx context.Context, pack blob.ID, c lostContents) error {
	n := lostNote{FoundAt: r.cfg.Now().UTC()}
	for id := range c {
		n.Contents = append(n.Contents, id.String())
	}
	slices.Sort(n.Contents)
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode note: %w", err)
	}
	if err := r.store.PutBlob(ctx, lostPrefix+pack, blobBytes(b), blob.PutOptions{}); err != nil {
		return fmt.Errorf("note what is lost: %w", err)
	}
	return nil
}

// noteLosses looks at packs in which something was found missing or wrong, all
// of what the index has in them, and brings their notes up to date. It returns
// what was not known to be lost before. Blocks that no image needs count, too:
// the next backup may.
func (r *repository) noteLosses(ctx context.Context, suspects map[blob.ID]bool) (fresh *losses, err error) {
	before, err := r.readLosses(ctx, nil)
	if err != nil {
		return nil, err
	}
	in := map[blob.ID][]content.Info{}
	err = r.repo.ContentReader().IterateContents(ctx, content.IterateOptions{IncludeDeleted: true}, func(i content.Info) error {
		if suspects[i.PackBlobID] {
			in[i.PackBlobID] = append(in[i.PackBlobID], i)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list contents: %w", err)
	}
	fresh = &losses{packs: map[blob.ID]lostContents{}}
	for pack := range suspects {
		gone, err := r.unreadable(ctx, pack, in[pack])
		if err != nil {
			return nil, err
		}
		if err := r.bring(ctx, pack, before, gone); err != nil {
			return nil, err
		}
		news := lostContents{}
		for _, i := range gone {
			if !before.has(i) {
				news[i.ContentID] = struct{}{}
			}
		}
		if len(news) > 0 {
			fresh.packs[pack] = news
		}
	}
	return fresh, nil
}

// bring makes the note of a pack say what is gone of it.
func (r *repository) bring(ctx context.Context, pack blob.ID, before *losses, gone []content.Info) error {
	had, noted := before.packs[pack]
	if len(gone) == 0 {
		if !noted {
			return nil
		}
		return r.dropLoss(ctx, pack)
	}
	now := lostContents{}
	for _, i := range gone {
		now[i.ContentID] = struct{}{}
	}
	if noted && had != nil && maps.Equal(had, now) {
		return nil
	}
	r.cfg.Log.ErrorContext(ctx, "blocks are lost; they are stored again where backups find them", "pack", string(pack), "blocks", len(now))
	return r.writeLoss(ctx, pack, now)
}

func (r *repository) dropLoss(ctx context.Context, pack blob.ID) error {
	if err := r.store.DeleteBlob(ctx, lostPrefix+pack); err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
		return fmt.Errorf("drop note of what was lost: %w", err)
	}
	return nil
}

// unreadable returns which contents cannot be read from a pack.
func (r *repository) unreadable(ctx context.Context, pack blob.ID, all []content.Info) (gone []content.Info, err error) {
	m, err := r.store.GetMetadata(ctx, pack)
	if errors.Is(err, blob.ErrBlobNotFound) {
		if away := r.store.missing(ctx); away != nil {
			return nil, unreachable(r.store.location(), away).Because(err)
		}
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for pack %s: %w", pack, err)
	}
	for _, i := range all {
		if int64(i.PackOffset)+int64(i.PackedLength) <= m.Length {
			_, err := getContent(ctx, r.repo, i.ContentID)
			if err == nil {
				continue
			}
			if err = explainRead(ctx, r.store, "read block", err); !isDamage(err) {
				return nil, err
			}
		}
		gone = append(gone, i)
	}
	return gone, nil
}

// dropHealed drops the notes of packs in which the index has nothing any more.
func (c *collector) dropHealed(ctx context.Context) error {
	if c.lost.empty() {
		return nil
	}
	named, err := c.packs(ctx)
	if err != nil {
		return err
	}
	for pack := range c.lost.packs {
		if _, still := named[pack]; still {
			continue
		}
		if err := c.dropLoss(ctx, pack); err != nil {
			return err
		}
	}
	return nil
}
