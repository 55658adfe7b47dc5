package lab

import (
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// forget drops snapshots and, unless their deltas shall be kept, merges what nobody needs.
func (l *Lab) forget(ctx *simulator.Context, vm *simulator.VirtualMachine, gone []ref, keep bool) types.BaseMethodFault {
	l.mu.Lock()
	for _, r := range gone {
		delete(l.snapshots, r)
	}
	l.mu.Unlock()
	for _, r := range gone {
		if ctx.Map.Get(r) != nil { // the children of what vcsim removed
			ctx.Map.Remove(ctx, r)
		}
	}
	l.dropStates(vm)
	l.activate(vm)
	left := true
	if !keep {
		left = !l.mergeAll(ctx, vm)
	}
	ctx.Update(vm, []types.PropertyChange{{Name: "runtime.consolidationNeeded", Val: left}})
	return nil
}

func (l *Lab) consolidate(ctx *simulator.Context, q *types.ConsolidateVMDisks_Task) ref {
	return l.start(ctx, l.vmJob(ctx, q.This, "ConsolidateVMDisks_Task", "consolidateVMDisks", func(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
		l.activate(vm)
		if !l.mergeAll(ctx, vm) {
			return nil, &types.FileLocked{}
		}
		ctx.Update(vm, []types.PropertyChange{{Name: "runtime.consolidationNeeded", Val: false}})
		return nil, nil
	}))
}

// mergeAll merges the deltas that no snapshot needs, and says whether none is
// left: a link on which a proxy's redo log hangs as well must stay.
func (l *Lab) mergeAll(ctx *simulator.Context, vm *simulator.VirtualMachine) bool {
	tops, whole := map[int32]*link{}, true
	var ends []*link
	// A disk whose file is missing cannot be merged; its neighbours can.
	_ = l.eachDisk(vm, func(_ int, d *types.VirtualDisk, _ *types.VirtualDiskFlatVer2BackingInfo, top *link) error {
		tops[d.Key], ends = top, append(ends, top)
		for k := top; k != nil; {
			parent := k.parentLink()
			switch {
			case parent == nil || l.holds(parent):
			case !parent.onlyKid(k):
				whole = whole && !parent.lent()
			default:
				l.merge(parent, k)
				if tops[d.Key] == k {
					tops[d.Key] = parent
				}
			}
			k = parent
		}
		return nil
	})
	for _, s := range l.snapshotsOf(vm.Self) {
		l.setSnapshotBackings(ctx, s, nil)
	}
	setDevices(ctx, vm, l.setBackings(vm.Config.Hardware.Device, tops, nil))
	for _, k := range ends {
		l.prune(k)
	}
	return whole
}

func (l *link) parentLink() *link {
	l.disk.mu.RLock()
	defer l.disk.mu.RUnlock()
	return l.parent
}

// lent says whether a proxy VM has a redo log over the link.
func (l *link) lent() bool {
	l.disk.mu.RLock()
	defer l.disk.mu.RUnlock()
	return slices.ContainsFunc(l.kids(), func(k *link) bool { return k.aside })
}

func (l *link) onlyKid(k *link) bool {
	l.disk.mu.RLock()
	defer l.disk.mu.RUnlock()
	return len(l.kids()) == 1
}

// merge makes one link of two, and lets snapshots that kept the kid keep the parent.
func (l *Lab) merge(parent, kid *link) {
	parent.disk.mu.Lock()
	parent.merge(kid)
	parent.disk.mu.Unlock()
	l.mu.Lock()
	for _, s := range l.snapshots {
		for key, k := range s.links {
			if k == kid {
				s.links[key] = parent
			}
		}
	}
	l.mu.Unlock()
	l.store.erase(kid)
}

// prune erases the links of a disk on which nothing hangs any more: neither a
// VM nor a snapshot nor another link.
func (l *Lab) prune(of *link) {
	for again := true; again; {
		again = false
		of.disk.mu.RLock()
		var ends []*link
		for k := range of.disk.links {
			if k.parent != nil && len(k.kids()) == 0 {
				ends = append(ends, k)
			}
		}
		of.disk.mu.RUnlock()
		for _, k := range ends {
			if _, used := l.index.owner(l.store.pathOf(k)); !used && !l.holds(k) && !l.onLoan(k) {
				l.store.erase(k)
				again = true
			}
		}
	}
}
