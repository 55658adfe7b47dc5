package vsphere

import (
	"context"
	"fmt"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// ChangedAreas implements [backup.VSphereSession].
func (s *Session) ChangedAreas(ctx context.Context, snap backup.Snapshot, key int32, since string, fn func(backup.Extent) error) error {
	if since == "" || since == "*" { // "*" asks for what is allocated, which is known to lie
		return fmt.Errorf("changed areas of disk %d of %s: %q is no change id", key, snap.MOID, since)
	}
	var capacity int64
	for _, d := range snap.Disks {
		if d.Key == key {
			capacity = d.Capacity
		}
	}
	at := ref{Type: "VirtualMachineSnapshot", Value: snap.Ref}
	p := pages{capacity: capacity, fn: fn}
	for p.next < capacity {
		res, err := methods.QueryChangedDiskAreas(ctx, s.client, &types.QueryChangedDiskAreas{
			This: vmRef(snap.MOID), Snapshot: &at, DeviceKey: key, StartOffset: p.next, ChangeId: since,
		})
		if err != nil {
			return s.changesProblem(err)
		}
		if err := p.take(res.Returnval); err != nil {
			return err
		}
	}
	return nil
}

// pages puts the answers for one disk together and holds them to what they
// must be: each goes on where the one before ended, up to the disk's end.
type pages struct {
	capacity int64
	fn       func(backup.Extent) error
	next     int64         // where the next page begins
	held     backup.Extent // found and not told yet: the next may touch it
}

func (p *pages) take(page types.DiskChangeInfo) error {
	if page.StartOffset != p.next || page.Length <= 0 {
		return backup.Doubtf(backup.DoubtAnswer, "asked for what changed from %d on, vSphere told of %d bytes at %d", p.next, page.Length, page.StartOffset)
	}
	end := p.capacity
	if page.Length < end-page.StartOffset {
		end = page.StartOffset + page.Length
	}
	for _, a := range page.ChangedArea {
		switch {
		case a.Length <= 0 || a.Start < p.next:
			return backup.Doubtf(backup.DoubtAnswer, "vSphere named an area of %d bytes at %d after one that ended at %d", a.Length, a.Start, p.next)
		case a.Length > p.capacity || a.Start > p.capacity-a.Length:
			return backup.Doubtf(backup.DoubtAnswer, "vSphere named an area of %d bytes at %d on a disk of %d", a.Length, a.Start, p.capacity)
		case a.Start+a.Length > end:
			return backup.Doubtf(backup.DoubtAnswer, "vSphere named an area of %d bytes at %d in an answer that ends at %d", a.Length, a.Start, end)
		}
		p.next = a.Start + a.Length
		if err := p.tell(backup.Extent{Off: a.Start, N: a.Length}); err != nil {
			return err
		}
	}
	if p.next = end; end == p.capacity && p.held.N > 0 {
		return p.fn(p.held)
	}
	return nil
}

// tell joins areas that touch.
func (p *pages) tell(e backup.Extent) error {
	if p.held.N > 0 && p.held.Off+p.held.N == e.Off {
		p.held.N += e.N
		return nil
	}
	last := p.held
	p.held = e
	if last.N == 0 {
		return nil
	}
	return p.fn(last)
}

// changesProblem tells what makes an answer useless from what makes vSphere
// itself useless for now.
func (s *Session) changesProblem(err error) error {
	err = s.problem("query the changed areas of a disk", err)
	switch e := backup.AsError(err); {
	case e == nil || e.Code == backup.VCenterUnreachable || e.Code == backup.Unavailable || e.Code == backup.VMGone:
		return err
	case e.Code == backup.VCenterDenied:
		return backup.Doubtf(backup.DoubtDenied, "%s", phrase(e.Message))
	default:
		return backup.Doubtf(backup.DoubtFault, "%s", phrase(e.Message))
	}
}

// doubts looks at the snapshots that stand besides the one asked about: where a
// disk has no change id in one of them, or one of another epoch, tracking began
// while it stood, and what was written before is in no log.
func (s *Session) doubts(ctx context.Context, vm mo.VirtualMachine, own ref) (func(*types.VirtualDisk) *backup.Doubt, error) {
	var refs []ref
	names := map[ref]string{}
	if vm.Snapshot != nil {
		eachSnapshot(vm.Snapshot.RootSnapshotList, func(t types.VirtualMachineSnapshotTree) {
			if t.Snapshot != own {
				refs, names[t.Snapshot] = append(refs, t.Snapshot), unescapeName(t.Name)
			}
		})
	}
	others, err := s.standing(ctx, refs)
	if err != nil {
		return nil, err
	}
	return func(disk *types.VirtualDisk) *backup.Doubt {
		_, id := backing(disk)
		for _, o := range others {
			if older, ok := find(o.Config.Hardware.Device, disk.Key); ok && id != "" {
				if _, its := backing(older); backup.Epoch(its) != backup.Epoch(id) {
					return backup.Doubtf(backup.DoubtSnapshot, "tracking began while the snapshot %q stood; remove that, and it is reset", names[o.Self])
				}
			}
		}
		return nil
	}, nil
}

// standing reads the disks of snapshots. One that is removed meanwhile, as a
// sweep may do with what a dead attempt left, is left out.
func (s *Session) standing(ctx context.Context, refs []ref) ([]mo.VirtualMachineSnapshot, error) {
	var all []mo.VirtualMachineSnapshot
	for _, r := range refs {
		var one mo.VirtualMachineSnapshot
		err := s.read(ctx, r, []string{"config.hardware.device"}, &one)
		if f, gone := faultOf[*types.ManagedObjectNotFound](err); gone && f.Obj == r {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}
