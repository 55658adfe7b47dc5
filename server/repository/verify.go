package repository

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// verifier checks one image.
type verifier struct {
	r     *repository
	image *imageReader
	ask   backup.Verification
	began time.Time
	read  atomic.Int64

	lost *losses

	mu       sync.Mutex // guards the rest
	out      backup.Verified
	packs    map[blob.ID]packUse
	suspects map[blob.ID]bool // packs in which something is missing or wrong
}

// packUse is what an image needs of a pack.
type packUse struct {
	end   int64 // the pack must be so long
	files []string
}

// Verify checks an image: that each of its blocks is in the index and in a pack
// that is there, and if it is asked to, that each can be read and is what was
// written. What is wrong with the image is its answer, not its error.
func (r *repository) Verify(ctx context.Context, ref string, ask backup.Verification) (backup.Verified, error) {
	if err := r.refresh(ctx); err != nil {
		return backup.Verified{}, err
	}
	s, err := r.snapshot(ctx, ref)
	if err != nil {
		return backup.Verified{}, err
	}
	v := &verifier{r: r, ask: ask, began: time.Now(), packs: map[blob.ID]packUse{}, suspects: map[blob.ID]bool{}}
	if v.lost, err = r.readLosses(ctx, nil); err != nil {
		return backup.Verified{}, explain(ctx, r.store, "verify image", err)
	}
	v.image, err = r.openImage(ctx, s)
	if isDamage(err) {
		return backup.Verified{Message: backup.AsError(err).Message}, nil
	}
	if err != nil {
		return backup.Verified{}, err
	}
	if err := v.run(ctx); err != nil {
		return backup.Verified{}, explain(ctx, r.store, "verify image", err)
	}
	return v.result(), nil
}

func (v *verifier) run(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(v.image.files)) {
		if err := v.file(ctx, name); err != nil {
			return err
		}
	}
	if err := v.checkPacks(ctx); err != nil {
		return err
	}
	if v.ask.Read {
		if err := v.readAll(ctx); err != nil {
			return err
		}
	}
	return v.note(ctx)
}

// note notes what was found lost, so that nobody builds upon it, and finds the
// images that it hurts besides this one. A reading looks at what was noted
// before, too: it may have been put back.
func (v *verifier) note(ctx context.Context) error {
	if foreign := v.r.readOnly || v.r.owner != ""; foreign || v.ask.Brief {
		return nil
	}
	if v.ask.Read && !v.lost.empty() {
		for pack := range v.packs {
			if _, noted := v.lost.packs[pack]; noted {
				v.suspects[pack] = true
			}
		}
	}
	if len(v.suspects) == 0 {
		return nil
	}
	fresh, err := v.r.noteLosses(ctx, v.suspects)
	if err != nil || fresh.empty() {
		return err
	}
	v.out.Hurt, err = v.r.hurtBy(ctx, fresh, v.image.doc.Image.Ref)
	return err
}

// suspect has the pack looked at in which a content lies.
func (v *verifier) suspect(ctx context.Context, c content.ID) {
	i, err := v.r.repo.ContentInfo(ctx, c)
	if err != nil {
		return // it is in no pack
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.suspects[i.PackBlobID] = true
}

// file looks for all contents of a file in the index.
func (v *verifier) file(ctx context.Context, name string) error {
	err := eachContent(ctx, v.r.repo, v.image.files[name], func(c content.ID) error {
		info, err := v.r.repo.ContentInfo(ctx, c)
		if lost(err) {
			v.damaged(name)
			return nil
		}
		if err != nil {
			return err
		}
		v.out.Blocks++
		if !v.ask.Read && v.lost.has(info) { // a reading finds out by itself
			v.damaged(name)
		}
		p := v.packs[info.PackBlobID]
		p.end = max(p.end, int64(info.PackOffset)+int64(info.PackedLength))
		if n := len(p.files); n == 0 || p.files[n-1] != name { // files come one after the other
			p.files = append(p.files, name)
		}
		v.packs[info.PackBlobID] = p
		return nil
	})
	if err != nil && ctx.Err() == nil && isDamage(explainRead(ctx, v.r.store, "read list", err)) {
		v.damaged(name)
		v.suspectList(ctx, name)
		return nil
	}
	return err
}

// suspectList has the packs looked at in which the list of a disk's blocks
// lies, as far as it can be told, or a small file.
func (v *verifier) suspectList(ctx context.Context, name string) {
	o := v.image.files[name]
	if list, indirect := o.IndexObjectID(); indirect {
		o = list
	}
	pieces := []object.ID{o}
	if index, nested := o.IndexObjectID(); nested {
		pieces = append(pieces, index)
		entries, err := piecesOf(ctx, v.r.repo, index)
		for _, e := range entries {
			pieces = append(pieces, e.Object)
		}
		if err != nil {
			v.r.cfg.Log.WarnContext(ctx, "list of blocks cannot be read", "file", name, "error", err)
		}
	}
	for _, p := range pieces {
		if c, _, direct := p.ContentID(); direct {
			v.suspect(ctx, c)
		}
	}
}

func (v *verifier) damaged(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.out.Files, name) {
		v.out.Files = append(v.out.Files, name)
	}
}

// readAll reads the disks and the files. It goes on after damage, to tell all of it.
func (v *verifier) readAll(ctx context.Context) error {
	for _, l := range v.image.doc.Layout.Disks {
		if err := v.readDisk(ctx, l); err != nil {
			return err
		}
	}
	for name := range v.image.files {
		if slices.ContainsFunc(v.image.doc.Layout.Disks, func(l diskLayout) bool { return l.File == name }) {
			continue
		}
		if _, err := v.image.File(ctx, name); isDamage(err) {
			v.damaged(name)
			v.suspectList(ctx, name)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) readDisk(ctx context.Context, l diskLayout) (err error) {
	m, err := openBlockMap(ctx, v.r.repo, l, v.image.files[l.File])
	if err != nil {
		return v.orDamaged(ctx, l.File, err)
	}
	defer func() {
		if cerr := m.close(); err == nil {
			err = cerr
		}
	}()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(v.r.cfg.Workers)
	for b := m.nextUsed(0); b < l.blocks(); b = m.nextUsed(b + 1) {
		if err := v.pace(ctx); err != nil {
			return errors.Join(err, g.Wait())
		}
		g.Go(func() error {
			c, err := m.content(b)
			var bytes []byte
			if err == nil {
				bytes, err = getContent(ctx, v.r.repo, c)
			}
			if err == nil && int64(len(bytes)) != l.length(b) {
				err = fmt.Errorf("block has %d bytes", len(bytes))
			}
			v.tell(l.length(b))
			if err != nil {
				v.suspect(ctx, c)
			}
			return v.orDamaged(ctx, l.File, err)
		})
	}
	return g.Wait()
}

// tell counts bytes as read.
func (v *verifier) tell(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if done := v.read.Add(n); v.ask.Progress != nil {
		v.ask.Progress(done)
	}
}

// orDamaged notes an error that means damage and returns any other.
func (v *verifier) orDamaged(ctx context.Context, name string, err error) error {
	if err == nil {
		return nil
	}
	if err = explainRead(ctx, v.r.store, "read "+name, err); !isDamage(err) {
		return err
	}
	v.damaged(name)
	return nil
}

// pace waits until reading on keeps to the rate.
func (v *verifier) pace(ctx context.Context) error {
	if v.ask.Rate <= 0 {
		return ctx.Err()
	}
	due := time.Duration(float64(v.read.Load()) / float64(v.ask.Rate) * float64(time.Second))
	wait := due - time.Since(v.began)
	if wait <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *verifier) result() backup.Verified {
	out := v.out
	out.Bytes = v.read.Load()
	slices.Sort(out.Files)
	for _, l := range v.image.doc.Layout.Disks {
		if slices.Contains(out.Files, l.File) {
			out.Damaged = append(out.Damaged, l.Key)
		}
	}
	if len(out.Files) > 0 {
		out.Message = v.r.lacking(out.Files)
	}
	return out
}
