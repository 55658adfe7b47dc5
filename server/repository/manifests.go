package repository

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
)

const (
	// manifestsEach is how many manifests are gathered in one content, so that
	// a content unpacked takes some MiB, and 100,000 images have 25 of them.
	manifestsEach = 4000
	// manifestsFew is how many contents of few manifests are left alone: kopia
	// itself gathers them from about as many on.
	manifestsFew = 12
	// tombstoneAge is the age below which the note that a manifest was deleted
	// is kept, for those who gather manifests by an old index.
	tombstoneAge = 48 * time.Hour
	// manifestsSplitter never splits what manifestsEach take when packed.
	manifestsSplitter = "FIXED-8M"
)

// writeManifests stores manifests in one content, as kopia does.
func writeManifests(ctx context.Context, w repo.RepositoryWriter, all []rawManifest) (id content.ID, err error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := json.NewEncoder(z).Encode(map[string]any{"entries": all}); err != nil {
		return id, fmt.Errorf("encode manifests: %w", err)
	}
	if err := z.Close(); err != nil {
		return id, fmt.Errorf("pack manifests: %w", err)
	}
	o := w.NewObjectWriter(ctx, object.WriterOptions{
		Description: "manifests", Prefix: manifest.ContentPrefix, Splitter: manifestsSplitter, Compressor: metaCompression,
	})
	defer func() {
		if cerr := o.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := o.Write(b.Bytes()); err != nil {
		return id, err
	}
	root, err := o.Result()
	if err != nil {
		return id, err
	}
	id, _, direct := root.ContentID()
	if !direct {
		return id, fmt.Errorf("%d manifests of %d bytes do not fit into one content", len(all), b.Len())
	}
	return id, nil
}

// drop notes that manifests are deleted. kopia would read all there
// are before it did the same. The note is younger than its manifest also where
// a server whose clock is ahead has written that.
func (c *catalogue) drop(ctx context.Context, w repo.RepositoryWriter, ids []manifest.ID) error {
	if len(ids) == 0 {
		return nil
	}
	var all []rawManifest
	for _, id := range ids {
		at := w.Time().UTC()
		if s := c.get(id); s != nil && !at.After(s.modified) {
			at = s.modified.Add(time.Millisecond)
		}
		all = append(all, rawManifest{ID: id, Labels: json.RawMessage("null"), Modified: at, Deleted: true, Data: json.RawMessage("null")})
	}
	_, err := writeManifests(ctx, w, all)
	return err
}

// gatherManifests puts manifests of contents that hold few of them together: a
// backup and a deletion make a content each, which all who open the repository
// read. What is deleted is left out. One index tells of the new contents and of
// the end of the old ones, so that it happens wholly or not at all.
func (c *collector) gatherManifests(ctx context.Context) (err error) {
	if err := c.manifests.update(ctx, c.w.ContentReader()); err != nil {
		return fmt.Errorf("read manifests: %w", err)
	}
	small, keep := c.manifests.sparse()
	if len(small) < manifestsFew {
		return nil
	}
	if err := c.w.Flush(ctx); err != nil {
		return err
	}
	m := c.w.ContentManager()
	m.DisableIndexFlush(ctx)
	if err := c.regroup(ctx, small, keep); err != nil {
		return err // without a flush nothing has happened
	}
	m.EnableIndexFlush(ctx)
	return c.w.Flush(ctx)
}

// regroup writes what counts of some contents anew and gives those up.
func (c *collector) regroup(ctx context.Context, small []content.ID, keep func(rawManifest) bool) error {
	written := map[content.ID]bool{}
	var group []rawManifest
	write := func(least int) error {
		if len(group) < least {
			return nil
		}
		id, err := writeManifests(ctx, c.w, group)
		written[id], group = true, group[:0]
		return err
	}
	for _, id := range small {
		err := eachManifest(ctx, c.w.ContentReader(), id, func(m rawManifest) error {
			if !keep(m) {
				return nil
			}
			group = append(group, m)
			return write(manifestsEach)
		})
		if err != nil {
			return fmt.Errorf("gather manifests: %w", err)
		}
	}
	if err := write(1); err != nil {
		return fmt.Errorf("gather manifests: %w", err)
	}
	for _, id := range small {
		if written[id] {
			continue
		}
		if err := c.w.ContentManager().DeleteContent(ctx, id); err != nil {
			return fmt.Errorf("gather manifests: %w", err)
		}
	}
	return nil
}

// sparse lists the contents with less than half as many living manifests as
// they could have, and says what of them must be kept: the latest of each
// manifest, and the note of a deletion that is young or whose manifest another
// content holds.
func (c *catalogue) sparse() (small []content.ID, keep func(rawManifest) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	elsewhere := map[manifest.ID]bool{}
	newest := time.Time{}
	for id, all := range c.contents {
		living := 0
		for _, s := range all {
			if s.modified.After(newest) {
				newest = s.modified
			}
			if c.latest[s.id] == s && !s.deleted {
				living++
			}
		}
		if living < manifestsEach/2 {
			small = append(small, id)
			continue
		}
		for _, s := range all {
			elsewhere[s.id] = true
		}
	}
	kept := map[manifest.ID]bool{}
	return small, func(m rawManifest) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		last := c.latest[m.ID]
		if kept[m.ID] || last == nil || !m.Modified.Equal(last.modified) {
			return false
		}
		kept[m.ID] = !m.Deleted || elsewhere[m.ID] || newest.Sub(m.Modified) < tombstoneAge
		return kept[m.ID]
	}
}
