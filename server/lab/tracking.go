package lab

import (
	"iter"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// QueryChangedDiskAreas answers from the log of writes, or with the allocated areas for "*".
func (r *router) QueryChangedDiskAreas(ctx *simulator.Context, q *types.QueryChangedDiskAreas) soap.HasFault {
	info, fault := r.l.changedAreas(q)
	if fault != nil {
		return &methods.QueryChangedDiskAreasBody{Fault_: simulator.Fault(faultName(fault), fault)}
	}
	return &methods.QueryChangedDiskAreasBody{Res: &types.QueryChangedDiskAreasResponse{Returnval: *info}}
}

func (l *Lab) changedAreas(q *types.QueryChangedDiskAreas) (*types.DiskChangeInfo, types.BaseMethodFault) {
	v, ok := l.index.get(q.This)
	if !ok {
		return nil, &types.ManagedObjectNotFound{Obj: q.This}
	}
	k, upTo, fault := l.stateOf(v, q)
	if fault != nil {
		return nil, fault
	}
	d := k.disk
	d.mu.RLock()
	capacity := d.capacity
	var blocks iter.Seq[int64]
	broken := &types.FileFault{File: l.store.pathOf(k)}
	switch after, err := d.changes.number(q.ChangeId); {
	case !d.changes.on:
		d.mu.RUnlock()
		return nil, broken
	case q.StartOffset < 0 || q.StartOffset >= capacity:
		d.mu.RUnlock()
		return nil, &types.InvalidArgument{InvalidProperty: "startOffset"}
	case q.ChangeId == "*":
		blocks = k.allocated(q.StartOffset / blockSize)
	case err != nil || after > upTo:
		d.mu.RUnlock()
		return nil, broken
	default:
		blocks = d.changes.between(after, upTo).from(q.StartOffset / blockSize)
	}
	lame := d.changes.lame
	d.mu.RUnlock()
	lies := func(kind string) bool { return l.faults.take(kind, v.ref, v.Name, true) != nil }
	if lies("cbt_wrong") || lame {
		blocks = everySecond(blocks)
	}
	most := l.config.MaxAreas
	if lies("cbt_truncate") {
		most = 1
	}
	info := areas(blocks, q.StartOffset, capacity, most)
	l.twist(info, capacity, lies)
	return info, nil
}

// twist makes of a right answer what hosts have been seen or must be feared to give.
func (l *Lab) twist(info *types.DiskChangeInfo, capacity int64, lies func(kind string) bool) {
	if n := len(info.ChangedArea); n > 0 && info.ChangedArea[0].Start > info.StartOffset && lies("cbt_empty") {
		info.Length = info.ChangedArea[0].Start - info.StartOffset
		info.ChangedArea = nil
	}
	if lies("cbt_beyond") {
		info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: capacity, Length: blockSize})
	}
	if lies("cbt_unordered") {
		slices.Reverse(info.ChangedArea)
	}
	if lies("cbt_stuck") {
		info.Length, info.ChangedArea = 0, nil
	}
}

// stateOf finds the content that is asked about, and the interval with which it ends.
func (l *Lab) stateOf(v VM, q *types.QueryChangedDiskAreas) (*link, int, types.BaseMethodFault) {
	if q.Snapshot != nil {
		s := l.snapshot(*q.Snapshot)
		if s == nil {
			return nil, 0, &types.ManagedObjectNotFound{Obj: *q.Snapshot}
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if s.links[q.DeviceKey] == nil {
			return nil, 0, &types.InvalidArgument{InvalidProperty: "deviceKey"}
		}
		return s.links[q.DeviceKey], s.upTo[q.DeviceKey], nil
	}
	if v.PowerState == string(types.VirtualMachinePowerStatePoweredOn) {
		return nil, 0, &types.InvalidArgument{InvalidProperty: "snapshot"}
	}
	for _, d := range v.Disks {
		if k := l.store.get(d.File); d.Key == q.DeviceKey && k != nil {
			k.disk.mu.RLock()
			defer k.disk.mu.RUnlock()
			return k, k.disk.changes.seq, nil
		}
	}
	return nil, 0, &types.InvalidArgument{InvalidProperty: "deviceKey"}
}

// areas joins blocks to areas; with more than most of them the answer ends early.
func areas(blocks iter.Seq[int64], start, capacity int64, most int) *types.DiskChangeInfo {
	info := &types.DiskChangeInfo{StartOffset: start, Length: capacity - start}
	for b := range blocks {
		from, to := max(b*blockSize, start), min((b+1)*blockSize, capacity)
		if n := len(info.ChangedArea); n > 0 && info.ChangedArea[n-1].Start+info.ChangedArea[n-1].Length == from {
			info.ChangedArea[n-1].Length += to - from
			continue
		}
		if len(info.ChangedArea) == most {
			info.Length = from - start
			break
		}
		info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: from, Length: to - from})
	}
	return info
}

func everySecond(blocks iter.Seq[int64]) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		odd := false
		for b := range blocks {
			if odd = !odd; odd && !yield(b) {
				return
			}
		}
	}
}
