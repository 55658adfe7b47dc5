package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// hotAdd reads and writes disks that vSphere attaches to the VM in which this server runs.
type hotAdd struct{ s *Session }

func (h hotAdd) name() backup.Transport { return backup.TransportHotAdd }

// seenProxies are the VMs on which kura has, or may have, attached disks: its
// own, and those of other servers that a sweep has come across.
type seenProxies struct {
	own atomic.Bool // this server's own VM was looked for

	mu  sync.Mutex // guards set
	set map[ref]bool
}

func (p *seenProxies) add(proxy ref) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.set == nil {
		p.set = map[ref]bool{}
	}
	p.set[proxy] = true
}

func (p *seenProxies) list() (all []ref) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := range p.set {
		all = append(all, r)
	}
	return all
}

// hotAddDisks are disks that are attached to a proxy and open.
type hotAddDisks struct {
	s      *Session
	proxy  ref
	marker string
	vm     string
	disks  map[int32]hotAddDisk
}

type hotAddDisk struct {
	writeDisk
	dev OpenDevice
}

// open attaches disks and opens their devices. After an error nothing is attached.
func (h hotAdd) open(ctx context.Context, w writeDraft, mode types.VirtualDiskMode) (*hotAddDisks, error) {
	s := h.s
	proxy, err := s.proxy(ctx)
	if err != nil {
		return nil, err
	}
	o := &hotAddDisks{s: s, proxy: proxy, marker: w.Marker, vm: w.MOID, disks: map[int32]hotAddDisk{}}
	if _, err := s.attach(ctx, proxy, w, mode); err != nil {
		return nil, errors.Join(s.problem("attach disks of the VM "+w.MOID+" to kura's own", err), o.release(ctx))
	}
	for _, d := range w.Disks {
		dev, err := s.openDevice(ctx, d, mode == types.VirtualDiskModeIndependent_persistent)
		if err != nil {
			return nil, errors.Join(deviceMissing(d, err), o.release(ctx))
		}
		o.disks[d.Key] = hotAddDisk{writeDisk: d, dev: dev}
	}
	return o, nil
}

func deviceMissing(d writeDisk, err error) error {
	if backup.AsError(err) != nil || errors.Is(err, context.Canceled) {
		return err
	}
	return backup.Errorf(backup.Unavailable, "transport", "%q was attached to kura's VM, but could not be opened there: %v.", d.Label, err).Because(err)
}

// release closes the devices and detaches the disks, even though the context may have ended.
// What fails here the sweep finds.
func (o *hotAddDisks) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.s.config.CallTimeout)
	defer cancel()
	var errs []error
	for _, d := range o.disks {
		errs = append(errs, d.dev.Close())
	}
	err := o.s.detach(ctx, o.proxy, o.s.config.GiveUp, func(a attachment) bool { return a.Marker == o.marker && a.VM == o.vm })
	errs = append(errs, o.s.problem("detach disks of the VM "+o.vm+" from kura's own", err))
	return errors.Join(errs...)
}

// read implements [direct].
func (h hotAdd) read(ctx context.Context, snap backup.Snapshot, keys []int32) (backup.DiskSource, error) {
	var held mo.VirtualMachineSnapshot
	at := ref{Type: "VirtualMachineSnapshot", Value: snap.Ref}
	if err := h.s.read(ctx, at, []string{"config.hardware.device"}, &held); err != nil {
		return nil, h.s.problem("read the snapshot of the VM "+snap.MOID, err)
	}
	w := writeDraft{Marker: snap.Name, MOID: snap.MOID}
	for _, key := range keys {
		disk, ok := find(held.Config.Hardware.Device, key)
		if !ok {
			return nil, fmt.Errorf("the snapshot of %s has no disk %d", snap.MOID, key)
		}
		d, err := flatDisk(disk)
		if err != nil {
			return nil, err
		}
		w.Disks = append(w.Disks, d)
	}
	o, err := h.open(ctx, w, types.VirtualDiskModeIndependent_nonpersistent)
	if err != nil {
		return nil, err
	}
	return &hotAddSource{o}, nil
}

// flatDisk is a disk by what is needed to attach it elsewhere.
func flatDisk(disk *types.VirtualDisk) (writeDisk, error) {
	uuid, _ := backing(disk)
	d := writeDisk{Key: disk.Key, Label: label(disk), File: fileOf(disk), UUID: uuid, Capacity: capacity(disk)}
	if d.File == "" || d.UUID == "" {
		return d, noHotAdd("%q has no file with a UUID, by which it could be attached and found.", d.Label)
	}
	return d, nil
}

// hotAddSource reads disks of a snapshot.
type hotAddSource struct{ *hotAddDisks }

// Transport implements [backup.DiskSource].
func (*hotAddSource) Transport() backup.Transport { return backup.TransportHotAdd }

// CanReadAreas implements [backup.DiskSource].
func (*hotAddSource) CanReadAreas() bool { return true }

// ReadAreas implements [backup.DiskSource].
func (o *hotAddSource) ReadAreas(ctx context.Context, key int32, areas iter.Seq[backup.Extent], w io.WriterAt) (int64, error) {
	d, ok := o.disks[key]
	if !ok {
		return 0, fmt.Errorf("disk %d of %s was not opened", key, o.vm)
	}
	return o.s.sendAreas(ctx, d.dev, d.writeDisk, areas, w)
}

// ReadDisk implements [backup.DiskSource]. A device does not tell what of it
// was never written: all is read.
func (o *hotAddSource) ReadDisk(ctx context.Context, key int32, w io.WriterAt) (int64, error) {
	return o.ReadAreas(ctx, key, whole(o.disks[key].Capacity), w)
}

// Close implements [backup.DiskSource].
func (o *hotAddSource) Close(ctx context.Context) error { return o.release(ctx) }

// write implements [direct]. The disks are independent on the proxy, so that a
// snapshot of it does not hold them.
func (h hotAdd) write(ctx context.Context, w writeDraft) (writing, error) {
	o, err := h.open(ctx, w, types.VirtualDiskModeIndependent_persistent)
	if err != nil {
		return nil, err
	}
	return &hotAddTarget{o}, nil
}

// hotAddTarget writes disks of a VM.
type hotAddTarget struct{ *hotAddDisks }

func (o *hotAddTarget) disk(key int32) device { return o.disks[key].dev }

// close implements [writing].
func (o *hotAddTarget) close(ctx context.Context) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(o.disks)) {
		if err := o.disks[key].dev.Sync(); err != nil {
			errs = append(errs, deviceProblem("written", o.disks[key].Label, 0, 0, err))
		}
	}
	return errors.Join(append(errs, o.release(ctx))...)
}
