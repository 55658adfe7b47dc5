package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os/exec"
	"sync"

	"github.com/vmware/govmomi/vim25/mo"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/nbd"
	"github.com/kura-backup/terraform-provider-kura/server/vmdk"
)

// overNBD reads and writes disks that a program of the operator's serves.
type overNBD struct{ s *Session }

func (o overNBD) name() backup.Transport { return backup.TransportNBD }

// missing implements [direct].
func (o overNBD) missing(context.Context, string) error {
	program := o.s.config.NBDCommand
	if program == "" {
		return backup.Errorf(backup.PreflightFailed, "transport",
			"The transport nbd cannot be had: this server was started without --nbd-command, which names the program that serves disks.")
	}
	if _, err := exec.LookPath(program); err != nil {
		return backup.Errorf(backup.PreflightFailed, "transport", "The transport nbd cannot be had: the --nbd-command cannot be run: %v.", err).Because(err)
	}
	return nil
}

// read implements [direct]. It opens the first disk at once, so that a program
// that does not work is found while there is another choice.
func (o overNBD) read(ctx context.Context, snap backup.Snapshot, keys []int32) (backup.DiskSource, error) {
	doing := "read the snapshot of the VM " + snap.MOID
	var held mo.VirtualMachineSnapshot
	if err := o.s.read(ctx, ref{Type: "VirtualMachineSnapshot", Value: snap.Ref}, []string{"config.hardware.device"}, &held); err != nil {
		return nil, o.s.problem(doing, err)
	}
	account, err := o.s.nbdAccount(ctx)
	if err != nil {
		return nil, o.s.problem(doing, err)
	}
	n := &nbdSource{s: o.s, vm: snap.MOID, disks: map[int32]*nbdDisk{}}
	for _, key := range keys {
		disk, ok := find(held.Config.Hardware.Device, key)
		if !ok {
			return nil, fmt.Errorf("the snapshot of %s has no disk %d", snap.MOID, key)
		}
		n.disks[key] = &nbdDisk{writeDisk: writeDisk{Key: key, Label: label(disk), File: fileOf(disk), Capacity: capacity(disk)},
			draft: nbdDraft{account: account, moid: snap.MOID, snapshot: snap.Ref}}
	}
	if len(keys) > 0 {
		d, err := n.take(ctx, keys[0])
		if err != nil {
			return nil, err
		}
		n.giveBack(d, nil)
	}
	return n, nil
}

// nbdSource reads disks of a snapshot. A program runs for each disk that is
// being read, and for the one that was read last: an idle one costs memory and
// a connection to a host.
type nbdSource struct {
	s  *Session
	vm string

	disks map[int32]*nbdDisk
	mu    sync.Mutex // guards users of all disks
}

type nbdDisk struct {
	writeDisk
	draft nbdDraft
	users int // readings that go on

	opening sync.Mutex // guards served
	served  *nbdServer // nil = not open
}

// Transport implements [backup.DiskSource].
func (n *nbdSource) Transport() backup.Transport { return backup.TransportNBD }

// CanReadAreas implements [backup.DiskSource].
func (n *nbdSource) CanReadAreas() bool { return true }

// ReadDisk implements [backup.DiskSource].
func (n *nbdSource) ReadDisk(ctx context.Context, key int32, w io.WriterAt) (int64, error) {
	d, ok := n.disks[key]
	if !ok {
		return 0, fmt.Errorf("disk %d of %s was not opened", key, n.vm)
	}
	return n.ReadAreas(ctx, key, whole(d.Capacity), w)
}

// ReadAreas implements [backup.DiskSource]. What the server knows to be zero is not read.
func (n *nbdSource) ReadAreas(ctx context.Context, key int32, areas iter.Seq[backup.Extent], w io.WriterAt) (read int64, err error) {
	d, err := n.take(ctx, key)
	if err != nil {
		return 0, err
	}
	defer func() { n.giveBack(d, err) }()
	conn := d.served.conn
	stop := context.AfterFunc(ctx, func() { conn.Abort(context.Cause(ctx)) })
	defer stop()
	known := &allocation{conn: conn, blind: !conn.CanExtents()}
	to := &sink{w: w}
	read, err = n.s.sendAreas(ctx, &nbdDevice{Conn: conn}, d.writeDisk, known.of(areas), to)
	if err == nil && known.err != nil {
		err = backup.Errorf(backup.Unavailable, "", "%q could not be read: %v.", d.Label, known.err).Because(known.err)
	}
	if err != nil && !to.failed && ctx.Err() == nil {
		err = d.served.blame(err)
	}
	return read, err
}

// sink remembers whether it was the writing that failed.
type sink struct {
	w      io.WriterAt
	failed bool
}

func (s *sink) WriteAt(p []byte, off int64) (int, error) {
	n, err := s.w.WriteAt(p, off)
	s.failed = err != nil
	return n, err
}

// take opens a disk, unless that was done, and closes those that nobody reads.
func (n *nbdSource) take(ctx context.Context, key int32) (*nbdDisk, error) {
	d, ok := n.disks[key]
	if !ok {
		return nil, fmt.Errorf("disk %d of %s was not opened", key, n.vm)
	}
	n.mu.Lock()
	d.users++
	var idle []*nbdDisk
	for _, o := range n.disks {
		if o.users == 0 {
			idle = append(idle, o)
		}
	}
	n.mu.Unlock()
	for _, o := range idle {
		n.let(o)
	}
	d.opening.Lock()
	defer d.opening.Unlock()
	if d.served != nil {
		return d, nil
	}
	served, err := n.s.serveNBD(ctx, d.draft, d.writeDisk)
	if err != nil {
		n.mu.Lock()
		d.users--
		n.mu.Unlock()
		return nil, err
	}
	d.served = served
	return d, nil
}

// giveBack ends a reading. A disk on which one failed is opened anew for the next.
func (n *nbdSource) giveBack(d *nbdDisk, err error) {
	n.mu.Lock()
	d.users--
	n.mu.Unlock()
	if err != nil {
		n.let(d)
	}
}

// let closes a disk that nobody reads.
func (n *nbdSource) let(d *nbdDisk) {
	d.opening.Lock()
	defer d.opening.Unlock()
	n.mu.Lock()
	used := d.users > 0
	n.mu.Unlock()
	if !used && d.served != nil {
		d.served.stop()
		d.served = nil
	}
}

// Close implements [backup.DiskSource].
func (n *nbdSource) Close(context.Context) error {
	var wg sync.WaitGroup
	for _, d := range n.disks {
		wg.Go(func() { n.let(d) })
	}
	wg.Wait()
	return nil
}

// write implements [direct].
func (o overNBD) write(ctx context.Context, w writeDraft) (writing, error) {
	account, err := o.s.nbdAccount(ctx)
	if err != nil {
		return nil, o.s.problem("write disks of the VM "+w.MOID, err)
	}
	t := &nbdTarget{served: map[int32]*nbdServer{}}
	for _, d := range w.Disks {
		served, err := o.s.serveNBD(ctx, nbdDraft{account: account, moid: w.MOID, writable: true}, d)
		if err == nil {
			t.served[d.Key] = served
		}
		if err == nil && served.conn.ReadOnly() {
			err = backup.Errorf(backup.PreflightFailed, "transport", "%q cannot be written: the --nbd-command serves it read-only although KURA_WRITABLE is 1. Serve it so that it can be written, or set transport = \"nfc\" on the vcenter: then disks are replaced whole.", d.Label)
		}
		if err != nil {
			return nil, errors.Join(err, t.close(ctx))
		}
	}
	t.unbind = context.AfterFunc(ctx, func() {
		for _, served := range t.served {
			served.conn.Abort(context.Cause(ctx))
		}
	})
	return t, nil
}

// nbdTarget writes disks of a VM, for as long as the context lives in which they were opened.
type nbdTarget struct {
	served map[int32]*nbdServer
	unbind func() bool // the disks from that context
}

// disk implements [writing].
func (t *nbdTarget) disk(key int32) device {
	if served, ok := t.served[key]; ok {
		return &nbdDevice{Conn: served.conn, known: allocation{conn: served.conn, blind: !served.conn.CanExtents()}}
	}
	return nil
}

// nbdDevice is a disk that is served.
type nbdDevice struct {
	*nbd.Conn
	known allocation // where it is compared and written
}

var (
	_ barren  = (*nbdDevice)(nil)
	_ distant = (*nbdDevice)(nil)
)

// ahead implements [distant]: behind the server is a network. Over a link that
// takes 5 ms for a request, four reads of a MiB are half as fast as eight.
func (d *nbdDevice) ahead() int { return 8 }

// WriteAt implements [io.WriterAt]. Zeroes are not sent, and may free space.
func (d *nbdDevice) WriteAt(p []byte, off int64) (int, error) {
	if !vmdk.IsZero(p) {
		return d.Conn.WriteAt(p, off)
	}
	if err := d.WriteZeroes(off, int64(len(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// zeroes implements [barren].
func (d *nbdDevice) zeroes(off, n int64) (zero int64) {
	for zero < n {
		e, err := d.known.at(off+zero, n-zero)
		if err != nil || !e.Zero { // what is wrong the next read says
			return zero
		}
		zero += e.N
	}
	return zero
}

// close implements [writing].
func (t *nbdTarget) close(context.Context) error {
	if t.unbind != nil {
		t.unbind()
	}
	errs := make(chan error, len(t.served))
	for _, served := range t.served {
		go func() {
			err := served.conn.Flush()
			if err != nil {
				err = served.blame(deviceProblem("written", served.label, 0, 0, err))
			}
			served.stop()
			errs <- err
		}()
	}
	var all []error
	for range t.served {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// lookAhead is how far beyond an area the server is asked at least: an answer
// costs little more for it, and often does for the next areas, too.
const lookAhead = 256 << 20

// allocation asks, while areas of a disk are gone through, which of them are zero.
type allocation struct {
	conn  *nbd.Conn
	known []nbd.Extent // of the last answer, what lies ahead
	blind bool         // the server does not tell: nothing is taken for zero
	err   error        // why the areas ended early
}

// of leaves out of areas what is zero.
func (a *allocation) of(areas iter.Seq[backup.Extent]) iter.Seq[backup.Extent] {
	return func(yield func(backup.Extent) bool) {
		for area := range areas {
			outside := area.Off < 0 || area.N <= 0 || area.Off > a.conn.Size()-area.N // who reads says so
			for !outside && !a.blind && area.N > 0 {
				e, err := a.at(area.Off, area.N)
				if err != nil {
					a.err = err
					return
				}
				if e.N > 0 && !e.Zero && !yield(backup.Extent{Off: e.Off, N: e.N}) {
					return
				}
				area.Off, area.N = area.Off+e.N, area.N-e.N
			}
			if (outside || area.N > 0) && !yield(area) {
				return
			}
		}
	}
}

// at tells of what kind the first of n bytes at off are, and how many of them.
func (a *allocation) at(off, n int64) (nbd.Extent, error) {
	if a.blind {
		return nbd.Extent{Off: off}, nil
	}
	for len(a.known) > 0 && (a.known[0].Off > off || a.known[0].Off+a.known[0].N <= off) {
		a.known = a.known[1:]
	}
	if len(a.known) == 0 {
		all, err := a.conn.Extents(off, min(max(n, lookAhead), a.conn.Size()-off))
		if _, refused := errors.AsType[*nbd.Error](err); refused {
			a.blind = true // a disk whose allocation cannot be told can be read all the same
			return nbd.Extent{Off: off}, nil
		}
		if err != nil {
			return nbd.Extent{}, err
		}
		a.known = all
	}
	e := a.known[0]
	e.N = min(e.Off+e.N-off, n)
	e.Off = off
	return e, nil
}
