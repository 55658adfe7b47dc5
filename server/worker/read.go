package worker

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// reading copies the disks of a snapshot into an image.
type reading struct {
	*backupJob
	w     backup.ImageWriter
	areas []*diskPlan // of which only what has changed is read
	whole []*diskPlan
	done  int64 // bytes of the disks that are done
}

// read copies the disks from the snapshot into the image.
func (b *backupJob) read(ctx context.Context, w backup.ImageWriter, keys []int32) error {
	b.begin(ctx, "reading disks")
	plans, err := b.plan(ctx, w, keys)
	if err != nil {
		return err
	}
	r := &reading{backupJob: b, w: w}
	src, err := r.openAreas(ctx, plans)
	if err != nil {
		return err
	}
	if err := r.sort(ctx, plans, src != nil); err != nil {
		return errors.Join(err, b.closeDisks(ctx, src))
	}
	if src != nil {
		if err := r.each(ctx, src, &r.areas, r.readAreas); err != nil {
			return err
		}
	}
	if len(r.whole) > 0 {
		src, err := b.session.ReadDisks(ctx, b.snap, backup.ReadDraft{Keys: keysOf(r.whole), Transport: b.vcenter.Transport})
		if err != nil {
			return fmt.Errorf("open disks: %w", err)
		}
		if err := r.each(ctx, src, &r.whole, r.readWhole); err != nil {
			return err
		}
	}
	b.tell(plans)
	return nil
}

// openAreas opens those disks of which vSphere tells the changes; nil = their
// areas cannot be read, or there are none.
func (r *reading) openAreas(ctx context.Context, plans []*diskPlan) (backup.DiskSource, error) {
	var tracked []*diskPlan
	for _, p := range plans {
		if p.detect == backup.DetectCBT {
			tracked = append(tracked, p)
		}
	}
	if len(tracked) == 0 {
		return nil, nil
	}
	src, err := r.session.ReadDisks(ctx, r.snap, backup.ReadDraft{Keys: keysOf(tracked), Transport: r.vcenter.Transport, Areas: true, OnlyAreas: true})
	if errors.Is(err, backup.ErrNoAreas) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open disks: %w", err)
	}
	if !src.CanReadAreas() {
		return nil, r.closeDisks(ctx, src)
	}
	return src, nil
}

// sort decides what is read in part, in full, or, with a transport that sends
// only whole disks, not at all. Such a transport sends a disk that has changed
// in full, and so compares it at no extra cost.
func (r *reading) sort(ctx context.Context, plans []*diskPlan, canAreas bool) error {
	var total int64
	for _, p := range plans {
		idle := p.detect == backup.DetectCBT && p.told.empty()
		if p.detect == backup.DetectCBT && !canAreas && !idle {
			p.detect = backup.DetectCompare
		}
		if p.detect == backup.DetectCBT {
			if err := r.becomesDue(ctx, p); err != nil {
				return err
			}
		}
		switch {
		case p.detect != backup.DetectCBT:
			r.whole = append(r.whole, p)
			total += p.draft.Capacity
		case canAreas:
			r.areas = append(r.areas, p)
			total += p.told.bytes()
		default:
			if err := r.keep(ctx, p); err != nil {
				return fmt.Errorf("%s: %w", p.draft.Label, err)
			}
		}
	}
	r.expect(total)
	return nil
}

// each reads disks of a source, and closes it.
func (r *reading) each(ctx context.Context, src backup.DiskSource, plans *[]*diskPlan, read func(context.Context, backup.DiskSource, *diskPlan) error) (err error) {
	defer func() {
		if cerr := r.closeDisks(ctx, src); err == nil {
			err = cerr
		}
	}()
	for _, p := range *plans {
		if err := read(ctx, src, p); err != nil {
			return fmt.Errorf("%s: %w", p.draft.Label, err)
		}
		r.progress(r.done)
	}
	return nil
}

func (b *backupJob) closeDisks(ctx context.Context, src backup.DiskSource) error {
	if src == nil {
		return nil
	}
	cctx, cancel := b.outlive(ctx)
	defer cancel()
	if err := src.Close(cctx); err != nil {
		return fmt.Errorf("close disks: %w", err)
	}
	return nil
}

// keep takes a disk on which nothing has changed from the base, unread.
func (r *reading) keep(ctx context.Context, p *diskPlan) error {
	d := p.draft
	d.FromBase = true
	dw, err := r.w.Disk(ctx, d)
	if err != nil {
		return err
	}
	return r.closeDisk(ctx, dw, p)
}

// readAreas reads what has changed on a disk, once a sample of the rest has
// shown nothing else. Where it has, the disk is read in full.
func (r *reading) readAreas(ctx context.Context, src backup.DiskSource, p *diskPlan) error {
	lie, err := r.sample(ctx, src, p)
	if err != nil {
		return err
	}
	if lie != nil {
		p.doubt, p.detect = lie, backup.DetectCompare
		r.whole = append(r.whole, p)
		r.more(p.draft.Capacity - p.told.bytes())
		return nil
	}
	d := p.draft
	d.FromBase = true
	dw, err := r.w.Disk(ctx, d)
	if err != nil {
		return err
	}
	z := &zeroFiller{w: meter{dw, func(n, _ int64) { r.done += n; r.progress(r.done) }}, areas: p.told.extents()}
	defer z.close()
	read, err := src.ReadAreas(ctx, d.Key, p.told.extents(), z)
	if err == nil {
		err = z.finish()
	}
	if err != nil {
		return err
	}
	p.read += read
	return r.closeDisk(ctx, dw, p)
}

// readWhole reads all of a disk. What vSphere has told of its changes is held
// against what has changed.
func (r *reading) readWhole(ctx context.Context, src backup.DiskSource, p *diskPlan) error {
	d := p.draft
	if p.told != nil && p.doubt == nil {
		d.OnChange = p.check
	}
	dw, err := r.w.Disk(ctx, d)
	if err != nil {
		return err
	}
	read, err := src.ReadDisk(ctx, d.Key, meter{dw, func(_, end int64) { r.progress(r.done + end) }})
	if err != nil {
		return err
	}
	p.read += read
	r.done += d.Capacity
	if err := r.closeDisk(ctx, dw, p); err != nil {
		return err
	}
	r.settleBudget(ctx, p)
	return nil
}

func (r *reading) closeDisk(ctx context.Context, dw backup.DiskWriter, p *diskPlan) error {
	disk, err := dw.Close(ctx)
	if err != nil {
		return err
	}
	r.enter(p, disk)
	failpoint.Hit("backup.disk_read")
	return nil
}

// check notes the changed blocks that vSphere did not tell of.
func (p *diskPlan) check(off, n int64) {
	for block := off / p.told.size; block*p.told.size < off+n; block++ {
		if p.told.has(block) {
			continue
		}
		if p.missed.blocks == 0 {
			p.missed.first = block * p.told.size
		}
		p.missed.blocks++
	}
}

func keysOf(plans []*diskPlan) (keys []int32) {
	for _, p := range plans {
		keys = append(keys, p.draft.Key)
	}
	return keys
}

// meter tells how much was written, and how far into the disk that has come.
type meter struct {
	io.WriterAt
	at func(n, end int64)
}

func (m meter) WriteAt(p []byte, off int64) (int, error) {
	n, err := m.WriterAt.WriteAt(p, off)
	m.at(int64(n), off+int64(n))
	return n, err
}
