package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// errStrangeList says that a list of blocks is not one of ours.
var errStrangeList = errors.New("list of blocks is not ours")

// eachContent visits the contents that an object is made of, those of its lists
// included; some more than once, but not in a row. Lists of ours are read as a stream.
func eachContent(ctx context.Context, r repo.Repository, o object.ID, visit func(content.ID) error) error {
	if c, _, direct := o.ContentID(); direct {
		return visit(c)
	}
	err := eachListed(ctx, r, o, visit)
	if !errors.Is(err, errStrangeList) {
		return err
	}
	all, err := r.VerifyObject(ctx, o)
	if err != nil {
		return err
	}
	for _, c := range all {
		if err := visit(c); err != nil {
			return err
		}
	}
	return nil
}

func eachListed(ctx context.Context, r repo.Repository, o object.ID, visit func(content.ID) error) (err error) {
	list, ok := o.IndexObjectID()
	if !ok {
		return fmt.Errorf("object %s is stored in an unknown way", o)
	}
	own, err := r.VerifyObject(ctx, list)
	if err != nil {
		return err
	}
	for _, c := range own {
		if err := visit(c); err != nil {
			return err
		}
	}
	reader, err := r.OpenObject(ctx, list)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := reader.Close(); err == nil {
			err = cerr
		}
	}()
	s, err := scanEntries(reader, 0)
	if err != nil {
		return errors.Join(errStrangeList, err)
	}
	var last []byte
	for n := 0; ; n++ {
		if n%pageBlocks == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		e, ok, err := s.next()
		if err != nil {
			return errors.Join(errStrangeList, err)
		}
		if !ok {
			return nil
		}
		if bytes.Equal(e.id, last) { // as the millions of empty blocks of a hole are
			continue
		}
		last = append(last[:0], e.id...)
		id, err := object.ParseID(string(e.id))
		if err != nil {
			return errors.Join(errStrangeList, err)
		}
		c, _, direct := id.ContentID()
		if !direct {
			return errStrangeList
		}
		if err := visit(c); err != nil {
			return err
		}
	}
}

// keep makes sure, just before the commit, that all that the image refers to is
// in the index and stays there. What a collection has marked as unneeded since
// it was found is stored anew; what is gone altogether refuses the image.
func (i *imageWriter) keep(ctx context.Context, folder object.ID) error {
	gone, err := i.r.readLosses(ctx, i.growth.heal.lost)
	if err != nil {
		return err
	}
	news := gone != i.growth.heal.lost // found since the image was begun
	again := 0
	visit := func(c content.ID) error {
		info, err := i.w.ContentInfo(ctx, c)
		if err == nil && gone.has(info) {
			return errLostBlocks
		}
		if err != nil || !info.Deleted {
			return err
		}
		again++
		return i.w.ContentManager().UndeleteContent(ctx, c)
	}
	err = eachContent(ctx, i.w, folder, visit)
	for _, f := range i.files {
		if err == nil {
			err = eachContent(ctx, i.w, f.id, visit)
		}
	}
	for _, d := range i.disks {
		if err == nil {
			err = i.eachOwn(ctx, d, news, visit)
		}
	}
	if lost(err) || errors.Is(err, errLostBlocks) {
		return backup.Errorf(backup.Unavailable, "",
			"Blocks that image %s shares with others went while it was written, so it was not kept. The next try stores them anew.",
			i.draft.ImageID).Because(err)
	}
	if err != nil {
		return fmt.Errorf("check what the image refers to: %w", err)
	}
	if again > 0 {
		i.r.cfg.Log.InfoContext(ctx, "blocks that were given up are needed again", "image", i.draft.ImageID, "count", again)
	}
	return nil
}

// eachOwn visits the contents of a disk. Of one that was written from its base,
// those in chunks of the list that it shares with the base are left out while
// the base is there: nobody marks what a listed image needs, and what comes
// after that the pin keeps away. So the cost is that of the change. Where losses
// came to light meanwhile, all of the disk is visited.
func (i *imageWriter) eachOwn(ctx context.Context, d *diskWriter, all bool, visit func(content.ID) error) error {
	id, err := indirect(d.list)
	if err != nil {
		return fmt.Errorf("list of disk %d: %w", d.draft.Key, err)
	}
	if all || !d.draft.FromBase || i.r.findBase(ctx, i.draft.BaseRef) == nil {
		return eachContent(ctx, i.w, id, visit)
	}
	list, err := openBlockList(ctx, i.w, d.layout(), id)
	if err != nil {
		return err
	}
	if index, nested := list.id.IndexObjectID(); nested {
		if err := eachContent(ctx, i.w, index, visit); err != nil {
			return err
		}
	}
	shared := map[object.ID]bool{}
	for _, c := range d.base.chunks {
		shared[c.id] = true
	}
	for n, c := range list.chunks {
		if shared[c.id] {
			continue
		}
		if err := list.eachContent(ctx, n, visit); err != nil {
			return err
		}
	}
	return nil
}

// eachContent visits a chunk and the blocks whose entries begin in it.
func (b *blockList) eachContent(ctx context.Context, n int, visit func(content.ID) error) error {
	c, err := b.chunk(ctx, n)
	if err != nil {
		return err
	}
	ids := []object.ID{b.chunks[n].id}
	for _, s := range c.spans {
		id, err := object.ParseID(string(s.id))
		if err != nil {
			return errors.Join(errStrangeList, err)
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		c, _, direct := id.ContentID()
		if !direct {
			return errStrangeList
		}
		if err := visit(c); err != nil {
			return err
		}
	}
	return nil
}
