package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// contentKey is a content's hash. Contents of one hash and different prefixes
// are taken for one: that keeps too much, never too little.
type contentKey [16]byte

func keyOf(c content.ID) (k contentKey) {
	copy(k[:], c.Hash())
	return k
}

// marker finds out what is needed. Images share most of their lists of blocks:
// a chunk of a list that has been seen is not read again, so that an image
// costs what it has of its own.
type marker struct {
	r      repo.DirectRepository
	whole  *wholeReads
	used   map[contentKey]struct{}
	chunks map[contentKey]fragment

	explain func(error) error // for users

	bad  func(content.ID) bool // what to look out for besides; nil = nothing
	hit  bool                  // it was seen
	hurt []string              // files of the image at hand that name it
}

// fragment is what a chunk of a list holds beside its whole entries: the end of
// an entry that began before it, and the beginning of one that ends after it.
type fragment struct {
	head, tail []byte
	cut        bool // an entry ends in it; else all of it is head
	hit        bool // it names what the marker looks out for
}

func (r *repository) newMarker(ctx context.Context, from repo.DirectRepository) *marker {
	explain := func(err error) error { return explainRead(ctx, r.store, "read image", err) }
	return &marker{r: from, whole: r.whole, explain: explain, used: map[contentKey]struct{}{}, chunks: map[contentKey]fragment{}}
}

func (m *marker) needs(c content.ID) bool {
	_, ok := m.used[keyOf(c)]
	return ok
}

func (m *marker) need(c content.ID) error {
	m.used[keyOf(c)] = struct{}{}
	m.hit = m.hit || m.bad != nil && m.bad(c)
	return nil
}

// image marks what an image needs.
func (m *marker) image(ctx context.Context, root object.ID) error {
	if err := eachContent(ctx, m.r, root, m.need); err != nil {
		return err
	}
	b, err := readAll(ctx, m.r, root)
	if err != nil {
		return err
	}
	all, err := parseFolder(b)
	if err != nil {
		return err
	}
	m.hurt = nil
	for _, e := range all {
		m.hit = false
		if err := m.object(ctx, e.ObjectID); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		if m.hit {
			m.hurt = append(m.hurt, e.Name)
		}
	}
	return nil
}

// stranger marks what a snapshot of another program needs.
func (m *marker) stranger(ctx context.Context, s *snapshot.Manifest) error {
	w, err := snapshotfs.NewTreeWalker(ctx, snapshotfs.TreeWalkerOptions{
		Parallelism: 1,
		EntryCallback: func(ctx context.Context, _ fs.Entry, o object.ID, _ string) error {
			all, err := m.r.VerifyObject(ctx, o)
			for _, c := range all {
				m.used[keyOf(c)] = struct{}{}
			}
			return err
		},
	})
	if err != nil {
		return err
	}
	defer w.Close(ctx)
	root, err := snapshotfs.SnapshotRoot(m.r, s)
	if err != nil {
		return err
	}
	return w.Process(ctx, root, "")
}

func (m *marker) object(ctx context.Context, o object.ID) error {
	list, indirect := o.IndexObjectID()
	if !indirect {
		return eachContent(ctx, m.r, o, m.need)
	}
	err := m.list(ctx, list)
	if errors.Is(err, errStrangeList) {
		return eachContent(ctx, m.r, o, m.need)
	}
	return err
}

// list marks a list of blocks and all the blocks in it.
func (m *marker) list(ctx context.Context, list object.ID) error {
	chunks, err := m.chunksOf(ctx, list)
	if err != nil {
		return err
	}
	var carry []byte
	for n, c := range chunks {
		if n%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		f, err := m.fragment(ctx, c)
		if err != nil {
			return err
		}
		carry = append(carry, f.head...)
		if !f.cut {
			continue
		}
		if err := m.entry(carry); err != nil {
			return err
		}
		carry = append(carry[:0], f.tail...)
	}
	if len(carry) > 0 {
		return errStrangeList
	}
	return nil
}

// chunksOf marks what a list is made of and returns the pieces of its text.
func (m *marker) chunksOf(ctx context.Context, list object.ID) ([]content.ID, error) {
	own, err := m.r.VerifyObject(ctx, list)
	if err != nil {
		return nil, err
	}
	for _, c := range own {
		_ = m.need(c) // never fails
	}
	pieces := []object.IndirectObjectEntry{{Object: list}}
	if index, nested := list.IndexObjectID(); nested {
		if pieces, err = piecesOf(ctx, m.r, index); err != nil {
			return nil, err
		}
	}
	var chunks []content.ID
	for _, p := range pieces {
		c, compressed, direct := p.Object.ContentID()
		if compressed || !direct {
			return nil, errStrangeList
		}
		chunks = append(chunks, c)
	}
	return chunks, nil
}

// fragment marks the entries that lie wholly in a chunk, once.
func (m *marker) fragment(ctx context.Context, c content.ID) (f fragment, err error) {
	if f, ok := m.chunks[keyOf(c)]; ok {
		m.hit = m.hit || f.hit
		return f, nil
	}
	before := m.hit
	m.hit = false
	defer func() {
		if f.hit = m.hit; err == nil {
			m.chunks[keyOf(c)] = f
		}
		m.hit = m.hit || before
	}()
	b, err := getContent(ctx, m.r, c)
	if err != nil {
		return f, err
	}
	end := bytes.IndexByte(b, '}') + 1
	f.cut = end > 0
	if !f.cut {
		end = len(b)
	}
	f.head, b = bytes.Clone(b[:end]), b[end:]
	for {
		end := bytes.IndexByte(b, '}') + 1
		if end == 0 {
			break
		}
		if err := m.entry(b[:end]); err != nil {
			return f, err
		}
		b = b[end:]
	}
	f.tail = bytes.Clone(b)
	return f, nil
}

// entry marks the block that an entry of a list names.
func (m *marker) entry(b []byte) error {
	if string(b) == entriesTail {
		return nil
	}
	_, id, named := bytes.Cut(b, []byte(`,"o":"`))
	id, closed := bytes.CutSuffix(id, []byte(`"}`))
	if !named || !closed {
		return errStrangeList
	}
	o, err := object.ParseID(string(id))
	if err != nil {
		return errors.Join(errStrangeList, err)
	}
	c, _, direct := o.ContentID()
	if !direct {
		return errStrangeList
	}
	return m.need(c)
}

// markAll marks what the images, what others have stored and what running
// backups build upon need. What cannot be read ends it: without its lists
// nobody knows what it needs, and nothing may be taken away.
func (c *collector) markAll(ctx context.Context, m *marker) error {
	defer m.whole.hold()()
	if !c.lost.empty() {
		m.bad = c.lostFrom(ctx, c.lost)
	}
	for _, s := range inOrder(ctx, m.r, c.manifests.snapshots()) {
		if err := m.snapshot(ctx, s); err != nil {
			return unreadable(s, m.explain(err))
		}
		if s.kind != kindImage {
			continue
		}
		c.out.Images++
		if len(m.hurt) > 0 {
			c.out.Hurt = append(c.out.Hurt, backup.HurtImage{ID: s.image, Disks: disksOf(m.hurt), Message: c.lacking(m.hurt)})
		}
	}
	return c.markBases(ctx, m)
}

// markBases marks what the images being written build upon.
func (c *collector) markBases(ctx context.Context, m *marker) error {
	for _, p := range c.pins {
		if p.Root == "" {
			continue
		}
		root, err := object.ParseID(p.Root)
		if err == nil {
			err = m.image(ctx, root)
		}
		if err != nil && !isDamage(m.explain(err)) {
			return fmt.Errorf("read base of image %s: %w", p.Image, err)
		}
		if err != nil { // the backup reads all of its disks: it needs no base
			c.cfg.Log.WarnContext(ctx, "base of an image being written cannot be read", "image", p.Image, "error", err)
		}
	}
	return nil
}

func (m *marker) snapshot(ctx context.Context, s *stored) error {
	if s.kind != kindImage {
		all, err := s.parse()
		if err != nil {
			return err
		}
		return m.stranger(ctx, all)
	}
	root, err := s.root()
	if err != nil {
		return err
	}
	return m.image(ctx, root)
}

// unreadable names the image for whose sake nothing can be collected.
func unreadable(s *stored, err error) error {
	if !isDamage(err) {
		return fmt.Errorf("read image %s: %w", s.image, err)
	}
	name := ""
	if all, perr := s.parse(); perr == nil {
		name = all.Description
	}
	return backup.Errorf(backup.RepositoryDamaged, "",
		"Image %s of VM %q is damaged in such a way that nobody knows which blocks it needs, so no space can be freed. Delete that image, or put the lost files back.",
		s.image, name).Because(err)
}
