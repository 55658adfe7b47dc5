package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/repo/maintenancestats"
	"github.com/kopia/kopia/repo/manifest"
	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// sweepPacks removes packs that no index names. Those of sessions that have not
// ended stay: their index comes with the next flush. The order matters: a
// session that ends after it was listed has its index read here or its packs
// younger than the cut-off.
func (c *collector) sweepPacks(ctx context.Context) error {
	if c.cutoff.Before(c.lastRun(maintenance.TaskRewriteContentsFull).Add(c.rewriteGap)) {
		return nil // others may still read from the packs that a rewriting has emptied
	}
	return c.task(ctx, maintenance.TaskDeleteOrphanedBlobsFull, func() (maintenancestats.Kind, error) {
		sessions, err := c.w.ContentManager().ListActiveSessions(ctx)
		if err != nil {
			return nil, err
		}
		if err := c.w.Refresh(ctx); err != nil {
			return nil, err
		}
		named, err := c.packs(ctx)
		if err != nil {
			return nil, err
		}
		if err := c.stillNamed(named); err != nil {
			return nil, err
		}
		for _, prefix := range []blob.ID{content.PackBlobIDPrefixRegular, content.PackBlobIDPrefixSpecial, content.BlobIDPrefixSession} {
			if err := c.sweepPrefix(ctx, prefix, named, sessions); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
}

// allThere refuses to free anything while images are not in the index that the
// catalogue lists. One that was deleted meanwhile is not listed any more.
func (c *collector) allThere(ctx context.Context) error {
	absent := c.absent(c.listed)
	if len(absent) == 0 {
		return nil
	}
	again, err := c.ask.Listed(ctx)
	if err != nil {
		return err
	}
	absent = slices.DeleteFunc(absent, func(ref string) bool { return !slices.Contains(again, ref) })
	if len(absent) == 0 {
		return nil
	}
	return backup.Errorf(backup.Unavailable, "",
		"%d images that the catalogue lists are not in the index of the repository at %s, %s among them. Nothing is freed, as what looks unneeded may be theirs: verify the images, and look whether files of the storage were lost.",
		len(absent), c.store.location(), absent[0])
}

func (c *collector) absent(refs []string) (absent []string) {
	for _, ref := range refs {
		if c.manifests.get(manifest.ID(ref)) == nil {
			absent = append(absent, ref)
		}
	}
	return absent
}

// stillNamed refuses to remove anything by an index that has lost some of what
// it named when the marking began: what is given up since was marked before
// that. The storage has left blobs of the index out of a list then, or has lost
// them, and packs that images need would look like rubbish.
func (c *collector) stillNamed(named map[blob.ID]int64) error {
	gone := 0
	for pack := range c.living {
		if _, ok := named[pack]; !ok {
			gone++
		}
	}
	c.living = nil // gives its memory back
	if gone == 0 {
		return nil
	}
	return backup.Errorf(backup.Unavailable, "",
		"The storage at %s lists less of its index than a moment ago: %d packs are not named any more. Nothing was freed; the next collection looks again.",
		c.store.location(), gone)
}

func (c *collector) sweepPrefix(ctx context.Context, prefix blob.ID, named map[blob.ID]int64, sessions map[content.SessionID]*content.SessionInfo) error {
	before := c.spared(c.cutoff.Add(-c.packAge)).Add(-c.skew)
	var dead []blob.Metadata
	err := c.store.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
		_, isNamed := named[m.BlobID]
		s := sessions[content.SessionIDFromBlobID(m.BlobID)]
		if !isNamed && m.Timestamp.Before(before) && (s == nil || c.start.Sub(s.CheckpointTime) >= sessionAge) {
			dead = append(dead, m)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list packs: %w", err)
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(removals)
	for _, m := range dead {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			err := c.store.DeleteBlob(gctx, m.BlobID)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, errLocked) { // a collection after the lock's end removes it
				c.out.Locked += m.Length
				return nil
			}
			if err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
				return fmt.Errorf("remove pack: %w", err)
			}
			c.out.Freed += m.Length
			c.out.FreedPacks++
			return nil
		})
	}
	return errors.Join(g.Wait(), ctx.Err())
}

// packs lists the packs that the index names, with the bytes in them that are
// not marked.
func (c *collector) packs(ctx context.Context) (map[blob.ID]int64, error) {
	named := map[blob.ID]int64{}
	err := c.w.ContentReader().IterateContents(ctx, content.IterateOptions{IncludeDeleted: true}, func(i content.Info) error {
		if i.PackBlobID == "" {
			return nil
		}
		live := int64(i.PackedLength)
		if i.Deleted {
			live = 0
		}
		named[i.PackBlobID] += live
		return nil
	})
	return named, err
}

func (c *collector) lastRun(t maintenance.TaskType) (last time.Time) {
	for _, run := range c.runs.Runs[t] {
		if run.Success && run.End.After(last) {
			last = run.End
		}
	}
	return last
}

// sparse is the share of a pack in percent below which what lives in it moves.
const sparse = 60

// rewrite moves blocks out of packs that are mostly dead, or small. The packs
// go with a later collection, which is why one rewriting waits for the sweep
// after the one before.
func (c *collector) rewrite(ctx context.Context) error {
	last := c.lastRun(maintenance.TaskRewriteContentsFull)
	if !last.IsZero() && c.lastRun(maintenance.TaskDeleteOrphanedBlobsFull).Before(last) {
		return nil
	}
	moves, bytes, err := c.toMove(ctx)
	if err != nil || len(moves) == 0 {
		return err
	}
	defer c.whole.hold()()
	return c.task(ctx, maintenance.TaskRewriteContentsFull, func() (maintenancestats.Kind, error) {
		_, err := maintenance.RewriteContents(ctx, c.w, &maintenance.RewriteContentsOptions{ContentIDs: moves},
			maintenance.SafetyParameters{RewriteMinAge: c.rewriteAge})
		if err == nil {
			c.out.Rewritten = bytes
			return nil, nil
		}
		return nil, c.whyNotMoved(ctx, moves, err)
	})
}

// whyNotMoved looks at packs whose blocks could not all be moved. Where some
// are lost that is noted: the next collection leaves those packs alone and tells
// whom they hurt, and this one has done the rest of its work.
func (c *collector) whyNotMoved(ctx context.Context, moves []content.ID, failed error) error {
	suspects := map[blob.ID]bool{}
	for _, id := range moves {
		if i, err := c.repo.ContentInfo(ctx, id); err == nil {
			suspects[i.PackBlobID] = true
		}
	}
	fresh, err := c.noteLosses(ctx, suspects)
	if err != nil || fresh.empty() {
		return errors.Join(failed, err)
	}
	return nil
}

// toMove lists the living blocks of sparse packs. A single sparse pack of its
// kind stays: moved, it would be as sparse again.
func (c *collector) toMove(ctx context.Context) (moves []content.ID, bytes int64, err error) {
	named, err := c.packs(ctx)
	if err != nil {
		return nil, 0, err
	}
	count := map[string]int{}
	for id, live := range named {
		if live == 0 || live*100 >= packSize*sparse {
			delete(named, id)
			continue
		}
		count[string(id[:1])]++
	}
	var all []content.Info
	err = c.w.ContentReader().IterateContents(ctx, content.IterateOptions{}, func(i content.Info) error {
		_, isSparse := named[i.PackBlobID]
		_, hurt := c.lost.packs[i.PackBlobID]
		if isSparse && !hurt && count[string(i.PackBlobID[:1])] > 1 && c.start.Sub(i.Timestamp()) >= c.rewriteAge {
			all = append(all, i)
			bytes += int64(i.PackedLength)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b content.Info) int { // as they lie, so that each pack is read once
		return cmp.Or(strings.Compare(string(a.PackBlobID), string(b.PackBlobID)), cmp.Compare(a.PackOffset, b.PackOffset))
	})
	for _, i := range all {
		moves = append(moves, i.ContentID)
	}
	return moves, bytes, err
}

// compact gathers the index blobs of past epochs. An epoch that has ended is
// gathered in the same run as far as it is settled: two epochs behind the one
// that is being written.
func (c *collector) compact(ctx context.Context) error {
	epochs, ok, err := c.w.ContentManager().EpochManager(ctx)
	if err != nil || !ok {
		return err
	}
	fresh := func(run func() error) func() (maintenancestats.Kind, error) {
		return func() (maintenancestats.Kind, error) {
			if err := epochs.Refresh(ctx); err != nil {
				return nil, err
			}
			return nil, run()
		}
	}
	steps := []struct {
		task maintenance.TaskType
		run  func() error
	}{
		{maintenance.TaskEpochAdvance, func() error {
			_, err := epochs.MaybeAdvanceWriteEpoch(ctx)
			return err
		}},
		{maintenance.TaskEpochCompactSingle, func() error {
			for {
				done, err := epochs.MaybeCompactSingleEpoch(ctx)
				if err != nil || done == nil {
					return err
				}
				if err := epochs.Refresh(ctx); err != nil {
					return err
				}
			}
		}},
		{maintenance.TaskEpochGenerateRange, func() error {
			_, err := epochs.MaybeGenerateRangeCheckpoint(ctx)
			return err
		}},
		{maintenance.TaskEpochCleanupMarkers, func() error {
			_, err := epochs.CleanupMarkers(ctx)
			return err
		}},
		{maintenance.TaskEpochDeleteSupersededIndexes, func() error {
			_, err := epochs.CleanupSupersededIndexes(ctx)
			return err
		}},
	}
	for _, s := range steps {
		err := c.task(ctx, s.task, fresh(s.run))
		if errors.Is(err, errLocked) {
			c.cfg.Log.InfoContext(ctx, "index blobs stay until their lock is over", "step", string(s.task))
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.task, err)
		}
	}
	return nil
}

// count tells how many index blobs there are, and when what is left can go.
func (c *collector) count(ctx context.Context) error {
	blobs, err := c.w.IndexBlobs(ctx, false)
	if err != nil {
		return fmt.Errorf("list index blobs: %w", err)
	}
	c.out.IndexBlobs = len(blobs)
	if !c.ask.DryRun {
		if c.out.Waiting, err = c.waiting(ctx); err != nil {
			return err
		}
	}
	if c.out.Marked+c.out.Waiting+c.out.Rewritten > 0 {
		c.out.RestFrom = c.repo.Time().Add(max(c.between, c.rewriteGap))
	}
	return nil
}

// waiting counts the bytes that are marked, by earlier collections.
func (c *collector) waiting(ctx context.Context) (bytes int64, err error) {
	err = c.w.ContentReader().IterateContents(ctx, content.IterateOptions{IncludeDeleted: true}, func(i content.Info) error {
		if i.Deleted && i.ContentID.Prefix() != manifest.ContentPrefix {
			bytes += int64(i.PackedLength)
		}
		return nil
	})
	return max(0, bytes-c.out.Marked), err
}
