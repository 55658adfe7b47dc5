package vsphere

import (
	"context"
	"io"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// direct is a transport that reaches any place of a disk: it reads areas
// alone, and writes into the disks of a VM that is powered off.
type direct interface {
	name() backup.Transport
	// missing says why the transport cannot be had for the VM, with what to do
	// about it; nil = it can. It looks only, and changes nothing.
	missing(ctx context.Context, moid string) error
	// read opens disks of a snapshot. Its source can read areas.
	read(ctx context.Context, snap backup.Snapshot, keys []int32) (backup.DiskSource, error)
	// write opens disks of a VM that is powered off.
	write(ctx context.Context, w writeDraft) (writing, error)
}

// writeDraft says which disks are going to be written.
type writeDraft struct {
	Marker string // kura:<installation>:<job>:<attempt>
	MOID   string
	Disks  []writeDisk
}

// writeDisk is a disk of a VM as it stands.
type writeDisk struct {
	Key      int32
	Label    string
	File     string // datastore path of what the VM itself would write to
	UUID     string
	Capacity int64
}

// writing is a set of disks that are open for writing.
type writing interface {
	// disk is one of them.
	disk(key int32) device
	// close makes what was written last and lets go of the disks.
	close(ctx context.Context) error
}

// device is a disk that can be read and written at any place.
type device interface {
	io.ReaderAt
	io.WriterAt
}

// directs are the transports of that kind, the best first.
func (s *Session) directs() []direct {
	return []direct{hotAdd{s}, overNBD{s}}
}

// ReadDisks implements [backup.VSphereSession].
func (s *Session) ReadDisks(ctx context.Context, snap backup.Snapshot, r backup.ReadDraft) (backup.DiskSource, error) {
	if r.Transport == backup.TransportHotAdd {
		own, err := s.isProxy(ctx, snap.MOID)
		if err != nil {
			return nil, err
		}
		if own { // nothing can be attached to itself
			r.Transport = backup.TransportNFC
		}
	}
	switch r.Transport {
	case backup.TransportNFC:
		if r.OnlyAreas {
			return nil, backup.ErrNoAreas
		}
		return s.readNFC(ctx, snap, r.Keys)
	case backup.TransportAuto, "":
	default:
		d, err := s.named(ctx, r.Transport, snap.MOID)
		if err != nil {
			return nil, err
		}
		return d.read(ctx, snap, r.Keys)
	}
	if !r.Areas { // a stream leaves out what was never written; a device would have to be read whole
		return s.readNFC(ctx, snap, r.Keys)
	}
	for _, d := range s.directs() {
		if d.missing(ctx, snap.MOID) != nil {
			continue
		}
		src, err := d.read(ctx, snap, r.Keys)
		if err == nil || ctx.Err() != nil {
			return src, err
		}
		s.log.WarnContext(ctx, "transport failed, trying another", "transport", string(d.name()), "vm", snap.MOID, "error", err)
	}
	if r.OnlyAreas {
		return nil, backup.ErrNoAreas
	}
	return s.readNFC(ctx, snap, r.Keys)
}

// readNFC is openNFC without the trap of a nil pointer in an interface.
func (s *Session) readNFC(ctx context.Context, snap backup.Snapshot, keys []int32) (backup.DiskSource, error) {
	n, err := s.openNFC(ctx, snap, keys)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// named is the transport of that name, if it can be had.
func (s *Session) named(ctx context.Context, t backup.Transport, moid string) (direct, error) {
	for _, d := range s.directs() {
		if d.name() == t {
			return d, d.missing(ctx, moid)
		}
	}
	return nil, invalid("transport", "This server has no transport %q.", t)
}
