package repository

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/indexblob"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/repo/maintenancestats"
	"github.com/kopia/kopia/repo/manifest"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// scheduleBlob is where kopia notes when its maintenance ran; the stock program
// shows our collections from there.
const scheduleBlob blob.ID = "kopia.maintenance"

// safety are the times that a collection waits, for what it cannot see: clocks
// that differ, indexes that others have not read yet, sessions in the middle.
type safety struct {
	contentAge time.Duration // younger blocks are not marked
	between    time.Duration // from the end of a marking to the collection that gives up what it marked
	pinMargin  time.Duration // a writer that began so long after a marking may have seen what it marked
	packAge    time.Duration // younger packs stay
	rewriteGap time.Duration // from a rewriting until the packs it emptied go
	rewriteAge time.Duration // younger blocks are not moved
	skew       time.Duration // by which the clocks of server and storage may differ; 0 = they are not compared
}

func fullSafety() safety {
	return safety{
		contentAge: 24 * time.Hour, between: 4 * time.Hour, pinMargin: time.Hour,
		packAge: 24 * time.Hour, rewriteGap: time.Hour, rewriteAge: 2 * time.Hour, skew: 5 * time.Minute,
	}
}

// Unfinished sessions keep their packs for so long; see sweepPacks.
const sessionAge = 96 * time.Hour

// collector is one collection under way.
type collector struct {
	*repository
	safety
	ask    backup.Collection
	w      repo.DirectRepositoryWriter
	start  time.Time // by the clock that stamps contents
	cutoff time.Time // by the storage's clock
	runs   *maintenance.Schedule
	pins   []pinned // of images being written when it began, and since
	lost   *losses
	listed []string             // refs of the images that the catalogue lists
	living map[blob.ID]struct{} // packs in which something was not marked when the marking began
	out    backup.Collected
}

// Collect frees what no image needs, in steps of which each leaves the
// repository whole: blocks are marked first, given up by a later collection
// once nobody who could have found them writes any more, and packs go when no
// index names them.
func (r *repository) Collect(ctx context.Context, ask backup.Collection) (backup.Collected, error) {
	return r.collect(ctx, ask, fullSafety())
}

func (r *repository) collect(ctx context.Context, ask backup.Collection, s safety) (backup.Collected, error) {
	if err := r.writable(); err != nil {
		return backup.Collected{}, err
	}
	if err := r.store.missing(ctx); err != nil {
		return backup.Collected{}, unreachable(r.store.location(), err).Because(err)
	}
	c := &collector{repository: r, safety: s, ask: ask}
	err := repo.DirectWriteSession(ctx, r.repo, repo.WriteSessionOptions{Purpose: "collect"},
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			c.w = w
			return c.run(ctx)
		})
	if l := r.rec.StorageLock(); l.Locks() { // what it was told to delete it keeps as an older version
		c.out.Freed, c.out.Locked = 0, c.out.Locked+c.out.Freed
	}
	return c.out, explain(ctx, r.store, "collect", err)
}

func (c *collector) run(ctx context.Context) error {
	if c.ask.IndexOnly {
		return c.gather(ctx)
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	m := c.newMarker(ctx, c.w)
	err := c.task(ctx, maintenance.TaskSnapshotGarbageCollection, func() (maintenancestats.Kind, error) {
		err := c.manifests.update(ctx, c.w.ContentReader())
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		if err := c.allThere(ctx); err != nil {
			return nil, err
		}
		if err := c.markAll(ctx, m); err != nil {
			return nil, err
		}
		return nil, c.markUnused(ctx, m)
	})
	if err != nil {
		return err
	}
	if c.ask.DryRun {
		return c.count(ctx)
	}
	*m = marker{} // gives its memory back
	failpoint.Hit("collect.marked")
	for _, step := range []func(context.Context) error{c.giveUp, c.sweepPacks, c.dropHealed, c.rewrite, c.gatherManifests, c.compact, c.count} {
		if err := c.stillOwned(ctx); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
		failpoint.Hit("collect.step_done")
	}
	return nil
}

// gather gathers manifests and index blobs, which backups add to, and counts
// what is left. It frees nothing, so it looks at neither pins nor clocks.
func (c *collector) gather(ctx context.Context) error {
	c.start = c.repo.Time()
	for _, step := range []func(context.Context) error{c.stillOwned, c.w.Refresh, c.gatherManifests, c.compact} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	blobs, err := c.w.IndexBlobs(ctx, false)
	c.out.IndexBlobs = len(blobs)
	return err
}

// begin looks at clocks, index and pins, in this order: a writer whose pin is
// not seen here reads the index after us.
func (c *collector) begin(ctx context.Context) (err error) {
	if err := c.stillOwned(ctx); err != nil {
		return err
	}
	c.start = c.repo.Time()
	if c.ask.Listed != nil { // before the index is read: what is listed now is in it
		if c.listed, err = c.ask.Listed(ctx); err != nil {
			return err
		}
	}
	if c.runs, err = maintenance.GetSchedule(ctx, c.w); err != nil {
		return err
	}
	c.cutoff = c.start
	if !c.ask.DryRun && c.skew > 0 {
		if err := c.compareClocks(ctx); err != nil {
			return err
		}
	}
	if err := c.w.Refresh(ctx); err != nil {
		return err
	}
	live, dead, err := c.livePins(ctx, c.start, c.ask.Alive)
	if err != nil {
		return err
	}
	if c.lost, err = c.readLosses(ctx, nil); err != nil {
		return err
	}
	c.pins = live
	c.out.Abandoned = len(dead)
	for _, p := range dead {
		if c.ask.DryRun {
			break
		}
		if err := c.store.DeleteBlob(ctx, p.id); err != nil {
			return fmt.Errorf("remove pin of %s: %w", p.Image, err)
		}
	}
	return nil
}

// compareClocks learns what time it is for the storage.
func (c *collector) compareClocks(ctx context.Context) error {
	if err := maintenance.SetSchedule(ctx, c.w, c.runs); err != nil {
		return err
	}
	m, err := c.store.GetMetadata(ctx, scheduleBlob)
	if err != nil {
		return err
	}
	if d := m.Timestamp.Sub(c.start).Abs(); d > c.skew {
		return backup.Errorf(backup.Unavailable, "",
			"The clock of this server (%s) and that of the storage at %s (%s) differ by %s. Nothing is freed until they agree: set them by NTP.",
			c.start.UTC().Format(time.DateTime), c.store.location(), m.Timestamp.UTC().Format(time.DateTime), d.Round(time.Second))
	}
	c.cutoff = m.Timestamp
	return nil
}

// task notes a step in kopia's own record.
func (c *collector) task(ctx context.Context, t maintenance.TaskType, run func() (maintenancestats.Kind, error)) error {
	if c.ask.DryRun || c.ask.IndexOnly {
		_, err := run()
		return err
	}
	return maintenance.ReportRun(ctx, c.w, t, c.runs, run)
}

// markBatch is how many blocks are marked between two flushes.
const markBatch = 100_000

// markUnused marks blocks that nobody needs, and takes the mark from those that
// are needed again.
func (c *collector) markUnused(ctx context.Context, m *marker) error {
	before := c.spared(c.start.Add(-c.contentAge)).Truncate(time.Second) // as contents are stamped
	n := 0
	c.living = map[blob.ID]struct{}{}
	err := c.w.ContentReader().IterateContents(ctx, content.IterateOptions{IncludeDeleted: true}, func(i content.Info) error {
		if n++; n%pageBlocks == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !i.Deleted && i.PackBlobID != "" {
			c.living[i.PackBlobID] = struct{}{}
		}
		return c.judge(ctx, i, m, before)
	})
	if err != nil || c.ask.DryRun {
		return err
	}
	return c.w.Flush(ctx)
}

// spared is the earlier of t and the time when the oldest running backup began:
// what it stores has no image yet.
func (c *collector) spared(t time.Time) time.Time {
	for _, p := range c.pins {
		if p.Since.Before(t) {
			t = p.Since
		}
	}
	return t
}

func (c *collector) judge(ctx context.Context, i content.Info, m *marker, before time.Time) error {
	size := int64(i.PackedLength)
	switch {
	case i.ContentID.Prefix() == manifest.ContentPrefix:
		return nil
	case m.needs(i.ContentID):
		c.out.Live += size
		if !i.Deleted {
			return nil
		}
		c.out.Restored++
		if c.ask.DryRun {
			return nil
		}
		return c.w.ContentManager().UndeleteContent(ctx, i.ContentID)
	case i.Deleted:
		c.out.Waiting += size
		return nil
	case !i.Timestamp().Before(before):
		c.out.Recent += size
		return nil
	}
	c.out.Marked += size
	c.out.MarkedN++
	if c.ask.DryRun {
		return nil
	}
	if err := c.w.ContentManager().DeleteContent(ctx, i.ContentID); err != nil {
		return err
	}
	if c.out.MarkedN%markBatch == 0 {
		return c.w.Flush(ctx)
	}
	return nil
}

// giveUp takes out of the index what an earlier collection has marked, if every
// writer that may have found it before has ended: the marking of this one has
// seen what they refer to.
func (c *collector) giveUp(ctx context.Context) error {
	live, _, err := c.livePins(ctx, c.start, c.ask.Alive)
	if err != nil {
		return err
	}
	c.pins = append(c.pins, live...)
	upTo := c.safeUpTo()
	if upTo.IsZero() {
		return nil
	}
	return c.task(ctx, maintenance.TaskDropDeletedContentsFull, func() (maintenancestats.Kind, error) {
		return c.w.ContentManager().CompactIndexes(ctx, indexblob.CompactOptions{AllIndexes: true, DropDeletedBefore: upTo})
	})
}

// safeUpTo is the end of the last marking whose marks may be given up.
func (c *collector) safeUpTo() (upTo time.Time) {
	for _, run := range c.runs.Runs[maintenance.TaskSnapshotGarbageCollection] {
		if !run.Success || !run.Start.Before(c.start) || c.start.Sub(run.End) < c.between {
			continue
		}
		older := func(p pinned) bool { return p.Since.Before(run.End.Add(c.pinMargin)) }
		if !slices.ContainsFunc(c.pins, older) && run.End.After(upTo) {
			upTo = run.End
		}
	}
	return upTo
}
