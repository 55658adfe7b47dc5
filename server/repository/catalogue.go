package repository

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/content"
	kopiaindex "github.com/kopia/kopia/repo/content/index"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// catalogue knows the manifests of a repository. kopia reads and parses all of
// them again after every write of anybody, which with 100,000 images takes
// seconds and hundreds of MiB; a catalogue reads each content that holds
// manifests once, as contents never change.
type catalogue struct {
	mu       sync.Mutex // guards the rest
	contents map[content.ID][]*stored
	latest   map[manifest.ID]*stored
	images   map[string][]manifest.ID // by the image's id
}

// stored is a manifest, or the note that it is deleted, as a content holds it.
type stored struct {
	id         manifest.ID
	modified   time.Time
	deleted    bool
	isSnapshot bool
	kind       string
	image      string
	data       json.RawMessage // of a snapshot
}

// rawManifest is how kopia writes a manifest down.
type rawManifest struct {
	ID       manifest.ID     `json:"id"`
	Labels   json.RawMessage `json:"labels"`
	Modified time.Time       `json:"modified"`
	Deleted  bool            `json:"deleted,omitempty"`
	Data     json.RawMessage `json:"data"`
}

// manifestLabels are the labels that the catalogue looks at.
type manifestLabels struct {
	Type  string `json:"type"`
	Kind  string `json:"tag:kura-kind"`
	Image string `json:"tag:kura-image"`
}

// update reads what is new in the index. Where some of it cannot be read the
// rest is known nevertheless.
func (c *catalogue) update(ctx context.Context, r content.Reader) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range 3 { // a content may go between its listing and its reading: its manifests are in another then
		if err = c.read(ctx, r); !errors.Is(err, content.ErrContentNotFound) {
			break
		}
	}
	return err
}

// read is one look at the index. The caller holds mu.
func (c *catalogue) read(ctx context.Context, r content.Reader) error {
	there := map[content.ID]bool{}
	options := content.IterateOptions{Range: kopiaindex.PrefixRange(manifest.ContentPrefix)}
	err := r.IterateContents(ctx, options, func(i content.Info) error {
		there[i.ContentID] = true
		return nil
	})
	if err != nil {
		return fmt.Errorf("list manifests: %w", err)
	}
	var fresh []content.ID
	for id := range there {
		if _, known := c.contents[id]; !known {
			fresh = append(fresh, id)
		}
	}
	had := len(c.contents)
	maps.DeleteFunc(c.contents, func(id content.ID, _ []*stored) bool { return !there[id] })
	vanished := had - len(c.contents)
	read, err := readManifests(ctx, r, fresh)
	if c.contents == nil || vanished > 0 { // what was only there is no more
		c.latest, c.images = map[manifest.ID]*stored{}, map[string][]manifest.ID{}
		if c.contents == nil {
			c.contents = map[content.ID][]*stored{}
		}
		for _, all := range c.contents {
			c.merge(all)
		}
	}
	for id, all := range read {
		c.contents[id] = all
		c.merge(all)
	}
	return err
}

// merge lets the latest of each manifest count. The caller holds mu.
func (c *catalogue) merge(all []*stored) {
	for _, s := range all {
		old := c.latest[s.id]
		if old != nil && !s.modified.After(old.modified) {
			continue
		}
		c.latest[s.id] = s
		if s.image != "" && old == nil {
			c.images[s.image] = append(c.images[s.image], s.id)
		}
	}
}

// readManifests reads contents. What it could read it returns with the error.
func readManifests(ctx context.Context, r content.Reader, ids []content.ID) (map[content.ID][]*stored, error) {
	var mu sync.Mutex
	read := map[content.ID][]*stored{}
	var errs []error
	var g errgroup.Group
	g.SetLimit(listers)
	for _, id := range ids {
		g.Go(func() error {
			var all []*stored
			err := eachManifest(ctx, r, id, func(m rawManifest) error {
				s, err := m.stored()
				all = append(all, s)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("read manifests: %w", err))
				return nil
			}
			read[id] = all
			return nil
		})
	}
	return read, errors.Join(g.Wait(), errors.Join(errs...))
}

func (m rawManifest) stored() (*stored, error) {
	s := &stored{id: m.ID, modified: m.Modified, deleted: m.Deleted}
	if m.Deleted {
		return s, nil
	}
	var l manifestLabels
	if err := json.Unmarshal(m.Labels, &l); err != nil {
		return nil, fmt.Errorf("labels of manifest %s: %w", m.ID, err)
	}
	s.isSnapshot, s.kind = l.Type == snapshot.ManifestType, strings.Clone(l.Kind)
	if s.isSnapshot {
		s.image, s.data = l.Image, m.Data
	}
	return s, nil
}

// eachManifest visits the manifests of a content.
func eachManifest(ctx context.Context, r content.Reader, id content.ID, visit func(rawManifest) error) error {
	b, err := r.GetContent(ctx, id)
	if err != nil && !lost(err) && ctx.Err() == nil { // a storage may have given back something else this once
		b, err = r.GetContent(ctx, id)
	}
	if err != nil {
		return err
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("unpack %s: %w", id, err)
	}
	d := json.NewDecoder(z)
	for _, want := range []any{json.Delim('{'), "entries", json.Delim('[')} {
		if got, err := d.Token(); err != nil || got != want {
			return fmt.Errorf("parse %s: it begins with something else than manifests: %w", id, errors.Join(err, errStrangeManifests))
		}
	}
	for d.More() {
		var m rawManifest
		if err := d.Decode(&m); err != nil {
			return fmt.Errorf("parse %s: %w", id, err)
		}
		if err := visit(m); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, z); err != nil { // its checksum stands at the end
		return fmt.Errorf("unpack %s: %w", id, err)
	}
	return nil
}

var errStrangeManifests = errors.New("manifests are not written as kopia writes them")

// get finds a manifest; nil = it is not there, or is deleted.
func (c *catalogue) get(id manifest.ID) *stored {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.latest[id]; s != nil && !s.deleted {
		return s
	}
	return nil
}

// of lists the manifests of an image: one, or more after an attempt that could
// not say that it had committed.
func (c *catalogue) of(image string) (ids []manifest.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range c.images[image] {
		if s := c.latest[id]; !s.deleted && s.kind == kindImage {
			ids = append(ids, id)
		}
	}
	return ids
}

// snapshots lists all snapshots: our images, and what others have stored.
func (c *catalogue) snapshots() (all []*stored) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.latest {
		if !s.deleted && s.isSnapshot {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *stored) int { return strings.Compare(string(a.id), string(b.id)) })
	return all
}

// parse returns the snapshot with its id.
func (s *stored) parse() (*snapshot.Manifest, error) {
	var m snapshot.Manifest
	if err := json.Unmarshal(s.data, &m); err != nil {
		return nil, fmt.Errorf("parse manifest %s: %w", s.id, err)
	}
	m.ID = s.id
	return &m, nil
}

// root is the folder of an image.
func (s *stored) root() (object.ID, error) {
	var m struct {
		RootEntry struct {
			ObjectID object.ID `json:"obj"`
		} `json:"rootEntry"`
	}
	if err := json.Unmarshal(s.data, &m); err != nil {
		return object.EmptyID, fmt.Errorf("parse manifest %s: %w", s.id, err)
	}
	return m.RootEntry.ObjectID, nil
}

// snapshot finds the snapshot that an image is.
func (r *repository) snapshot(ctx context.Context, ref string) (*snapshot.Manifest, error) {
	s, err := r.find(ctx, ref)
	if s == nil && err == nil {
		if err = r.refresh(ctx); err == nil {
			s, err = r.find(ctx, ref)
		}
	}
	if s != nil {
		m, err := s.parse()
		return m, explainRead(ctx, r.store, "find image", err)
	}
	if err != nil {
		return nil, explainRead(ctx, r.store, "find image", err)
	}
	if away := r.store.missing(ctx); away != nil { // in an empty mount point there is no image either
		return nil, unreachable(r.store.location(), away).Because(away)
	}
	return nil, backup.Errorf(backup.NotFound, "", "There is no image %s in the repository at %s.", ref, r.store.location())
}

// find looks an image up in what this process knows of the index.
func (r *repository) find(ctx context.Context, ref string) (*stored, error) {
	err := r.manifests.update(ctx, r.repo.ContentReader())
	if s := r.manifests.get(manifest.ID(ref)); s != nil && s.kind == kindImage {
		return s, nil // others that cannot be read are no matter
	}
	return nil, err
}
