package lab

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// snapshot is the lab's side of a VM snapshot: the links that it froze.
type snapshot struct {
	ref   ref
	vm    ref
	links map[int32]*link // by device key
	upTo  map[int32]int   // interval of changed block tracking that it ended
}

func (l *Lab) snapshot(r ref) *snapshot {
	if r.Type != "VirtualMachineSnapshot" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.snapshots[r]
}

func (l *Lab) snapshotsOf(vm ref) (list []*snapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.snapshots {
		if s.vm == vm {
			list = append(list, s)
		}
	}
	return list
}

// holds says whether a snapshot needs a link.
func (l *Lab) holds(k *link) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.snapshots {
		for _, x := range s.links {
			if x == k {
				return true
			}
		}
	}
	return false
}

// eachDisk calls f for the disks of a VM that take part in snapshots.
func (l *Lab) eachDisk(vm *simulator.VirtualMachine, f func(i int, d *types.VirtualDisk, b *types.VirtualDiskFlatVer2BackingInfo, k *link) error) error {
	for i, dev := range vm.Config.Hardware.Device {
		d, b := diskOf(dev)
		if b == nil || independent(b) {
			continue
		}
		k := l.store.get(b.FileName)
		if k == nil {
			return fmt.Errorf("the file %s of disk %d is missing", b.FileName, d.Key)
		}
		if err := f(i, d, b, k); err != nil {
			return err
		}
	}
	return nil
}

// setBackings gives the disks of a device list the backings that belong to their links.
func (l *Lab) setBackings(list []types.BaseVirtualDevice, links map[int32]*link, changeIDs map[int32]string) []types.BaseVirtualDevice {
	list = slices.Clone(list)
	for i, dev := range list {
		if c, ok := dev.(*types.VirtualPCIController); ok {
			list[i] = ownBus(c, list)
		}
		d, b := diskOf(dev)
		if b == nil || links[d.Key] == nil {
			continue
		}
		c := *d
		nb := l.store.backing(*b, links[d.Key])
		if id, ok := changeIDs[d.Key]; ok {
			nb.ChangeId = id
		} else if nb.FileName == b.FileName {
			nb.ChangeId = b.ChangeId
		}
		c.Backing = nb
		list[i] = &c
	}
	return list
}

func setDevices(ctx *simulator.Context, vm *simulator.VirtualMachine, list []types.BaseVirtualDevice) {
	ctx.Update(vm, []types.PropertyChange{
		{Name: "config.hardware.device", Val: list},
		{Name: "config.changeVersion", Val: time.Now().UTC().Format(time.RFC3339Nano)},
	})
}

// activate makes a wanted change of the tracking setting real, as a stun does.
func (l *Lab) activate(vm *simulator.VirtualMachine) {
	want := vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled
	standing := len(l.snapshotsOf(vm.Self)) > 0
	// A disk whose file is missing has nothing to track.
	_ = l.eachDisk(vm, func(_ int, _ *types.VirtualDisk, _ *types.VirtualDiskFlatVer2BackingInfo, k *link) error {
		k.disk.mu.Lock()
		defer k.disk.mu.Unlock()
		if k.disk.changes.on != want {
			k.disk.changes.on = want
			k.disk.changes.reset()
			// What a snapshot froze before was never tracked.
			k.disk.changes.lame = want && standing
		}
		return nil
	})
}

func (l *Lab) createSnapshot(ctx *simulator.Context, method string, q *types.CreateSnapshotEx_Task) ref {
	return l.start(ctx, l.snapshotJob(ctx, method, q))
}

func (l *Lab) snapshotJob(ctx *simulator.Context, method string, q *types.CreateSnapshotEx_Task) job {
	j := l.vmJob(ctx, q.This, method, "createSnapshotEx", func(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
		if l.faults.take("cbt_reset", vm.Self, vm.Name, true) != nil {
			l.resetChanges(vm)
		}
		l.activate(vm)
		if err := l.eachDisk(vm, func(_ int, _ *types.VirtualDisk, _ *types.VirtualDiskFlatVer2BackingInfo, k *link) error {
			if !k.space.fits(1) {
				return errNoSpace
			}
			return nil
		}); err != nil {
			return nil, &types.NoDiskSpace{FileFault: types.FileFault{File: vm.Name}, Datastore: err.Error()}
		}
		if q.QuiesceSpec != nil && !toolsIn(vm) { // vSphere does not say either that it leaves the guest out
			plain := *q
			plain.QuiesceSpec = nil
			q = &plain
		}
		defer l.lockCurrent(ctx, vm)()
		result, fault := l.inner(ctx, func() ref {
			return vm.CreateSnapshotExTask(ctx, q).(*methods.CreateSnapshotEx_TaskBody).Res.Returnval
		})
		if fault != nil {
			return nil, fault
		}
		s := &snapshot{ref: result.(ref), vm: vm.Self, links: map[int32]*link{}, upTo: map[int32]int{}}
		if fault := l.freeze(ctx, vm, s); fault != nil {
			return s.ref, fault
		}
		return s.ref, l.keepSums(ctx, vm, s)
	})
	j.asked.quiesce = q.QuiesceSpec != nil
	return j
}

// lockCurrent locks the snapshot on which the next one is going to hang: vcsim
// changes it without its lock.
func (l *Lab) lockCurrent(ctx *simulator.Context, vm *simulator.VirtualMachine) (unlock func()) {
	if vm.Snapshot == nil || vm.Snapshot.CurrentSnapshot == nil {
		return func() {}
	}
	return ctx.Map.AcquireLock(ctx, *vm.Snapshot.CurrentSnapshot)
}

// freeze makes the VM go on in deltas over what the snapshot shall keep.
func (l *Lab) freeze(ctx *simulator.Context, vm *simulator.VirtualMachine, s *snapshot) types.BaseMethodFault {
	ids, tops := map[int32]string{}, map[int32]*link{}
	err := l.eachDisk(vm, func(_ int, d *types.VirtualDisk, _ *types.VirtualDiskFlatVer2BackingInfo, k *link) error {
		k.disk.mu.Lock()
		s.upTo[d.Key] = k.disk.changes.seq
		ids[d.Key] = k.disk.changes.cut()
		k.disk.mu.Unlock()
		s.links[d.Key] = k
		var err error
		tops[d.Key], err = l.delta(k, false)
		return err
	})
	if err != nil {
		return systemError(err)
	}
	l.mu.Lock()
	l.snapshots[s.ref] = s
	l.mu.Unlock()
	l.setSnapshotBackings(ctx, s, ids)
	setDevices(ctx, vm, l.setBackings(vm.Config.Hardware.Device, tops, nil))
	return nil
}

func (l *Lab) setSnapshotBackings(ctx *simulator.Context, s *snapshot, ids map[int32]string) {
	if o, ok := ctx.Map.Get(s.ref).(*simulator.VirtualMachineSnapshot); ok {
		ctx.WithLock(o, func() {
			ctx.Update(o, []types.PropertyChange{{Name: "config.hardware.device", Val: l.setBackings(o.Config.Hardware.Device, s.links, ids)}})
		})
	}
}

// delta starts a delta file over k, next to it.
func (l *Lab) delta(k *link, aside bool) (*link, error) {
	root := k
	k.disk.mu.RLock()
	for root.parent != nil {
		root = root.parent
	}
	k.disk.mu.RUnlock()
	top := k.freeze(aside)
	k.disk.mu.RLock()
	n := k.disk.serial
	k.disk.mu.RUnlock()
	base := strings.TrimSuffix(l.store.pathOf(root), ".vmdk")
	name := fmt.Sprintf("%s-%06d.vmdk", base, n)
	for l.store.get(name) != nil { // left by a disk that had the file's name before
		n++
		name = fmt.Sprintf("%s-%06d.vmdk", base, n)
	}
	l.store.put(name, top)
	return top, l.store.describe(top)
}

func (l *Lab) removeSnapshot(ctx *simulator.Context, q *types.RemoveSnapshot_Task) ref {
	a := l.askedOf(&simulator.Method{This: q.This})
	return l.start(ctx, l.vmJob(ctx, a.vm, "RemoveSnapshot_Task", "removeSnapshot", func(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
		o, ok := ctx.Map.Get(q.This).(*simulator.VirtualMachineSnapshot)
		if !ok {
			return nil, &types.ManagedObjectNotFound{Obj: q.This}
		}
		gone := []ref{q.This}
		if q.RemoveChildren {
			gone = append(gone, below(vm.Snapshot, q.This)...)
		}
		if slices.ContainsFunc(gone, l.leases.holds) {
			return nil, &types.TaskInProgress{}
		}
		keep := l.faults.take("consolidation_needed", vm.Self, vm.Name, true) != nil
		if _, fault := l.inner(ctx, func() ref {
			unlay(ctx, vm)
			return o.RemoveSnapshotTask(ctx, q).(*methods.RemoveSnapshot_TaskBody).Res.Returnval
		}); fault != nil {
			return nil, fault
		}
		return nil, l.forget(ctx, vm, gone, keep)
	}))
}

func (l *Lab) removeAllSnapshots(ctx *simulator.Context, q *types.RemoveAllSnapshots_Task) ref {
	return l.start(ctx, l.removeAllJob(ctx, q))
}

func (l *Lab) removeAllJob(ctx *simulator.Context, q *types.RemoveAllSnapshots_Task) job {
	return l.vmJob(ctx, q.This, "RemoveAllSnapshots_Task", "removeAllSnapshots", func(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
		var gone []ref
		for _, s := range l.snapshotsOf(vm.Self) {
			if l.leases.holds(s.ref) {
				return nil, &types.TaskInProgress{}
			}
			gone = append(gone, s.ref)
		}
		keep := l.faults.take("consolidation_needed", vm.Self, vm.Name, true) != nil
		if _, fault := l.inner(ctx, func() ref {
			unlay(ctx, vm)
			return vm.RemoveAllSnapshotsTask(ctx, q).(*methods.RemoveAllSnapshots_TaskBody).Res.Returnval
		}); fault != nil {
			return nil, fault
		}
		return nil, l.forget(ctx, vm, gone, keep)
	})
}

// below lists the snapshots that hang on another.
func below(info *types.VirtualMachineSnapshotInfo, r ref) (list []ref) {
	var walk func(tree []types.VirtualMachineSnapshotTree, in bool)
	walk = func(tree []types.VirtualMachineSnapshotTree, in bool) {
		for _, s := range tree {
			if in {
				list = append(list, s.Snapshot)
			}
			walk(s.ChildSnapshotList, in || s.Snapshot == r)
		}
	}
	if info != nil {
		walk(info.RootSnapshotList, false)
	}
	return list
}

func (l *Lab) revert(ctx *simulator.Context, method string, to ref) ref {
	return l.start(ctx, l.revertJob(ctx, method, to))
}

func (l *Lab) revertJob(ctx *simulator.Context, method string, to ref) job {
	a := l.askedOf(&simulator.Method{This: to})
	return l.vmJob(ctx, a.vm, method, "revertToSnapshot", func(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
		s := l.snapshot(to)
		o, ok := ctx.Map.Get(to).(*simulator.VirtualMachineSnapshot)
		if s == nil || !ok {
			return nil, &types.ManagedObjectNotFound{Obj: to}
		}
		req := &types.RevertToSnapshot_Task{This: to}
		if _, fault := l.inner(ctx, func() ref {
			return o.RevertToSnapshotTask(ctx, req).(*methods.RevertToSnapshot_TaskBody).Res.Returnval
		}); fault != nil {
			return nil, fault
		}
		tops := map[int32]*link{}
		kept := l.faults.take("cbt_revert", vm.Self, vm.Name, true) != nil
		for key, k := range s.links {
			top, err := l.delta(k, false)
			if err != nil {
				return nil, systemError(err)
			}
			tops[key] = top
			if kept {
				continue
			}
			k.disk.mu.Lock()
			k.disk.changes.reset() // change ids from before are of no use
			k.disk.mu.Unlock()
		}
		var saved object.VirtualDeviceList
		ctx.WithLock(o, func() { saved = slices.Clone(o.Config.Hardware.Device) })
		setDevices(ctx, vm, l.setBackings(saved, tops, nil))
		ctx.Update(vm, []types.PropertyChange{
			{Name: "runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOff}, // snapshots hold no memory
			{Name: "summary.runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOff},
		})
		for _, k := range s.links {
			l.prune(k)
		}
		return nil, nil
	})
}

// ResetChanges does to a VM's changed block tracking what a crash of its host does.
func (l *Lab) ResetChanges(vm string) error {
	v, err := l.index.find(vm)
	if err != nil {
		return err
	}
	for _, d := range v.Disks {
		if k := l.store.get(d.File); k != nil {
			k.disk.mu.Lock()
			k.disk.changes.reset()
			k.disk.mu.Unlock()
		}
	}
	return nil
}

func (l *Lab) resetChanges(vm *simulator.VirtualMachine) {
	// The VM exists: it is being snapshotted.
	_ = l.ResetChanges(vm.Self.Value)
}
