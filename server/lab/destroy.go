package lab

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func (l *Lab) destroyJob(ctx *simulator.Context, vm ref) job {
	if e, ok := ctx.Map.Get(vm).(mo.Entity); ok && vm.Type != "VirtualMachine" {
		return job{method: "Destroy_Task", name: "destroy", object: e, run: func() (types.AnyType, types.BaseMethodFault) { return nil, &types.NotSupported{} }}
	}
	return l.vmJob(ctx, vm, "Destroy_Task", "destroy", func(o *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
		var tops []*link
		for _, file := range files(o) {
			if k := l.store.get(file); k != nil {
				tops = append(tops, k)
			}
		}
		dir, lent := folderOf(o.Config.Files.VmPathName), l.lentTo(vm)
		result, fault := l.alone(ctx, func() ref {
			return o.DestroyTask(ctx, &types.Destroy_Task{This: vm}).(*methods.Destroy_TaskBody).Res.Returnval
		})
		if fault != nil {
			return nil, fault
		}
		l.forgetVM(ctx, vm)
		l.eraseChains(tops)
		for _, k := range tops {
			l.prune(k)
		}
		for _, k := range lent { // as vSphere: a VM's disks go with it, whosever they are
			l.store.erase(k)
		}
		// vcsim deletes the VM's folder with all that is in it; vSphere leaves what is not the VM's.
		for _, k := range l.store.under(dir) {
			if err := l.store.describe(k); err != nil {
				return nil, systemError(err)
			}
		}
		return result, nil
	})
}

// forgetVM drops what the lab knows about a VM that has left the inventory.
func (l *Lab) forgetVM(ctx *simulator.Context, vm ref) {
	for _, s := range l.snapshotsOf(vm) {
		l.leases.abortOf(ctx, s.ref)
		l.mu.Lock()
		delete(l.snapshots, s.ref)
		l.mu.Unlock()
		ctx.Map.Remove(ctx, s.ref)
	}
	l.lend(vm, nil)
	l.stopWriters(func(w ref) bool { return w == vm })
	l.untag(vm)
}

func (l *Lab) unregister(ctx *simulator.Context, q *types.UnregisterVM) (res soap.HasFault) {
	vm, ok := ctx.Map.Get(q.This).(*simulator.VirtualMachine)
	if !ok {
		return &methods.UnregisterVMBody{Fault_: simulator.Fault("", &types.ManagedObjectNotFound{Obj: q.This})}
	}
	entry := l.journal.begin("UnregisterVM", q.This, l.nameOf(q.This))
	ctx.WithLock(vm, func() {
		l.busy.Lock()
		defer l.busy.Unlock()
		res = vm.UnregisterVM(ctx, q)
	})
	if res.Fault() == nil {
		l.forgetVM(ctx, q.This)
		l.journal.end(entry, nil)
	} else {
		l.journal.end(entry, &types.InvalidPowerState{})
	}
	return res
}
