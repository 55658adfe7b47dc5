package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// copyJob is a copy under way: an image read from one repository and written
// to another.
type copyJob struct {
	*attempt
	spec   backup.CopySpec
	source backup.Image
	base   backup.Image // in the target, to build upon; zero = none
	same   backup.Image // the same image as base, in the source's repository; zero = it is not there
	from   backup.RepositoryRecord
	to     backup.RepositoryRecord

	target backup.Repository
	image  backup.Image
	pace   pace
}

// copy makes a copy of an image in another repository.
func (a *attempt) copy(ctx context.Context) (ending, error) {
	c := &copyJob{attempt: a}
	if err := json.Unmarshal(a.job.Spec, &c.spec); err != nil {
		return ending{}, fmt.Errorf("spec: %w", err)
	}
	if a.note.Image != nil { // an earlier attempt committed it and could not say so
		c.image = *a.note.Image
		c.reopen(ctx)
		return c.settle(ctx)
	}
	if over := c.spec.ExpiresAt; !over.IsZero() && !a.Now().Before(over) {
		return ending{state: backup.JobSkipped, message: "The time for the copy was over before it was made."}, nil
	}
	e, err := c.open(ctx)
	if err != nil || e.state != "" {
		return e, err
	}
	if err := c.make(ctx); err != nil {
		return ending{}, err
	}
	return c.settle(ctx)
}

// open reads what the job is about. An ending says that there is nothing to do.
func (c *copyJob) open(ctx context.Context) (ending, error) {
	c.begin(ctx, "connecting")
	err := c.Store.View(ctx, func(tx backup.Tx) (err error) {
		if c.source, err = tx.Image(ctx, c.spec.SourceID); err != nil {
			return err
		}
		if c.from, err = tx.Repository(ctx, c.source.RepositoryID); err != nil {
			return err
		}
		if c.to, err = tx.Repository(ctx, c.spec.RepositoryID); err != nil {
			return err
		}
		c.base, c.same, err = backup.CopyBase(ctx, tx, c.source, c.to.ID)
		return err
	})
	if backup.CodeOf(err) == backup.NotFound || err == nil && c.source.Status == backup.ImageExpired {
		return ending{state: backup.JobSkipped, message: "The image was deleted."}, nil
	}
	if err != nil {
		return ending{}, err
	}
	if e, err := c.keep(ctx); err != nil || e.state != "" {
		return e, err
	}
	if c.source.Status == backup.ImageDamaged {
		return ending{}, backup.Errorf(backup.RepositoryDamaged, "", "Image %s is damaged, so it is not copied.", c.source.ID)
	}
	c.target, err = c.Repositories.Repository(ctx, c.to)
	return ending{}, err
}

// keep ends the job where the copy is there already: then it only lasts for as
// long as this job asks for, too.
func (c *copyJob) keep(ctx context.Context) (ending, error) {
	var id string
	err := c.Store.Update(ctx, func(tx backup.Tx) (err error) {
		id, _, err = backup.KeepCopy(ctx, tx, c.source, c.spec)
		return err
	})
	if err != nil || id == "" {
		return ending{}, err
	}
	c.say("The copy %s was there already.", id)
	return ending{state: backup.JobSucceeded}, nil
}

// make writes the copy and commits it.
func (c *copyJob) make(ctx context.Context) error {
	repo, err := c.Repositories.Repository(ctx, c.from)
	if err != nil {
		return err
	}
	r, err := repo.Image(ctx, c.source.Ref)
	if err != nil {
		return fmt.Errorf("open image %s: %w", c.source.ID, err)
	}
	defer func() { _ = r.Close() }() // it was only read
	if c.note.ImageID == "" {
		c.note.ImageID = backup.NewID(c.Now())
	}
	if err := c.remember(ctx); err != nil { // a collection must know that the image is being written
		return err
	}
	failpoint.Hit("copy.intended")
	m := r.Manifest()
	w, err := c.target.Begin(ctx, backup.ImageDraft{ImageID: c.note.ImageID, VCenterUUID: m.VCenterUUID, InstanceUUID: m.Image.VMInstanceUUID,
		VMName: m.Image.VMName, PointInTime: c.source.PointInTime, BaseRef: c.base.Ref, Checkpoint: c.CopyCheckpoint})
	if err != nil {
		return err
	}
	defer func() {
		actx, cancel := c.outlive(ctx)
		defer cancel()
		w.Abort(actx)
	}()
	c.image = backup.NewCopy(c.source, c.spec)
	c.image.ID, c.image.JobID = c.note.ImageID, c.job.ID
	if err := c.disks(ctx, w, r); err != nil {
		return err
	}
	for _, name := range r.Files() {
		b, err := r.File(ctx, name)
		if err == nil {
			err = w.File(ctx, name, b)
		}
		if err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return c.commit(ctx, w, m)
}

func (c *copyJob) commit(ctx context.Context, w backup.ImageWriter, m backup.Manifest) error {
	c.begin(ctx, "committing")
	c.image.EndedAt = c.Now()
	m.Image, m.Installation = c.image, c.Installation
	i, err := w.Commit(ctx, m)
	if err != nil {
		return fmt.Errorf("commit copy of image %s: %w", c.source.ID, err)
	}
	failpoint.Hit("copy.committed")
	c.image = i
	if err := c.noteImage(ctx, &c.image); err != nil {
		return err
	}
	failpoint.Hit("copy.noted")
	return nil
}

// disks copies the disks that the image holds.
func (c *copyJob) disks(ctx context.Context, w backup.ImageWriter, r backup.ImageReader) error {
	c.begin(ctx, "copying disks")
	var total, before int64
	for _, d := range c.source.Disks {
		if d.SkippedReason == "" {
			total += d.Capacity
		}
	}
	c.expect(total)
	c.pace = pace{rate: c.CopyRate, began: time.Now()}
	for n, d := range c.source.Disks {
		if d.SkippedReason != "" {
			continue
		}
		copied, err := c.disk(ctx, w, r, d, before)
		if err != nil {
			return fmt.Errorf("copy %s: %w", d.Label, err)
		}
		c.image.Disks[n] = copied
		c.image.Sizes.Read += copied.Read
		before += d.Capacity
		c.progress(before)
	}
	return nil
}

// disk copies one disk: where the target's base is known here, too, only what
// has changed since.
func (c *copyJob) disk(ctx context.Context, w backup.ImageWriter, r backup.ImageReader, d backup.ImageDisk, before int64) (out backup.ImageDisk, err error) {
	draft := backup.DiskDraft{Key: d.Key, Label: d.Label, Capacity: d.Capacity, UUID: d.UUID, ChangeID: d.ChangeID}
	if c.same.Ref != "" && w.HasBase(d.Key, d.Capacity) {
		if draft.FromBase, err = canCompare(ctx, r, c.same.Ref, d.Key); err != nil {
			return d, err
		}
	}
	from, err := r.Disk(ctx, d.Key)
	if err != nil {
		return d, err
	}
	defer func() { _ = from.Close() }() // it was only read
	to, err := w.Disk(ctx, draft)
	if err != nil {
		return d, err
	}
	s := stream{job: c, from: from, to: to, before: before, buf: make([]byte, copyChunk)}
	if draft.FromBase {
		err = r.EachChange(ctx, c.same.Ref, d.Key, func(off, n int64) error { return s.send(ctx, off, n) })
		if backup.CodeOf(err) == backup.NotFound { // another try finds what else to compare with
			err = backup.Errorf(backup.Unavailable, "", "The image that this one was compared with was deleted meanwhile.").Because(err)
		}
	} else {
		err = s.all(ctx)
	}
	if err != nil {
		return d, err
	}
	written, err := to.Close(ctx)
	if err != nil {
		return d, err
	}
	failpoint.Hit("copy.disk_written")
	out, out.Stored, out.Read = d, written.Stored, s.read
	return out, nil
}

// canCompare says whether it can be told what has changed since that image.
func canCompare(ctx context.Context, r backup.ImageReader, since string, key int32) (bool, error) {
	seen := false
	err := r.EachChange(ctx, since, key, func(int64, int64) error {
		seen = true
		return errors.New("one is enough")
	})
	switch {
	case err == nil || seen:
		return true, nil
	case backup.CodeOf(err) == backup.NotFound:
		return false, nil
	}
	return false, err
}

// copyChunk is how much of a disk is read at a time.
const copyChunk = 1 << 20

// stream carries a disk's bytes over.
type stream struct {
	job    *copyJob
	from   backup.DiskReader
	to     io.WriterAt
	before int64 // bytes of the disks before
	read   int64
	buf    []byte
}

// all sends everything that may not be zero.
func (s *stream) all(ctx context.Context) error {
	for off := int64(0); ; {
		start, n := s.from.Next(off)
		if n == 0 {
			return nil
		}
		if err := s.send(ctx, start, n); err != nil {
			return err
		}
		off = start + n
	}
}

// send sends a range.
func (s *stream) send(ctx context.Context, off, n int64) error {
	for end := off + n; off < end; {
		b := s.buf[:min(int64(len(s.buf)), end-off)]
		if _, err := s.from.ReadAt(b, off); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read at %d: %w", off, err)
		}
		if _, err := s.to.WriteAt(b, off); err != nil {
			return fmt.Errorf("write at %d: %w", off, err)
		}
		off += int64(len(b))
		s.read += int64(len(b))
		s.job.progress(s.before + off)
		if err := s.job.pace.wait(ctx, int64(len(b))); err != nil {
			return err
		}
	}
	return nil
}

// pace keeps to a rate.
type pace struct {
	rate  int64 // bytes per second; 0 = no limit
	began time.Time
	bytes int64
}

// wait counts the bytes and waits until going on keeps to the rate.
func (p *pace) wait(ctx context.Context, n int64) error {
	p.bytes += n
	if p.rate <= 0 {
		return ctx.Err()
	}
	left := time.Duration(float64(p.bytes)/float64(p.rate)*float64(time.Second)) - time.Since(p.began)
	if left <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reopen opens the repository that an earlier attempt has committed the copy to.
func (c *copyJob) reopen(ctx context.Context) {
	err := c.Store.View(ctx, func(tx backup.Tx) (err error) {
		c.to, err = tx.Repository(ctx, c.spec.RepositoryID)
		return err
	})
	if err == nil {
		c.target, err = c.Repositories.Repository(ctx, c.to)
	}
	if err != nil {
		c.target = nil
		c.log.WarnContext(ctx, "copy not checked", "image", c.image.ID, "error", err)
		c.say(notChecked, because(err))
	}
}

func (c *copyJob) settle(ctx context.Context) (ending, error) {
	return stored{c.attempt, c.to, c.target, &c.image, c.base, !c.image.LockedUntil.IsZero(), c.done}.settle(ctx)
}

// done lists the copy with the job's end.
func (c *copyJob) done(ctx context.Context) ending {
	ctx = context.WithoutCancel(ctx) // the copy is committed: a stop that comes now is too late
	e := ending{state: backup.JobSucceeded, also: func(tx backup.Tx) error { return tx.InsertImage(ctx, c.image) }}
	if c.image.Status == backup.ImageDamaged {
		e.state, e.code, e.message = backup.JobFailed, backup.RepositoryDamaged, c.image.Message
	}
	c.say("The copy is image %s.", c.image.ID)
	return e
}
