package lab

import (
	"fmt"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// What an administrator does behind the backup's back. No fault strikes it,
// but for those that only such a deed can bring about.

// Snapshot makes a snapshot of a VM.
func (l *Lab) Snapshot(id, name string) error {
	v, err := l.index.find(id)
	if err != nil {
		return err
	}
	return l.run(func(ctx *simulator.Context) job {
		return l.snapshotJob(ctx, "CreateSnapshot_Task", &types.CreateSnapshotEx_Task{This: v.ref, Name: name})
	})
}

// RemoveSnapshots removes all snapshots of a VM.
func (l *Lab) RemoveSnapshots(id string) error {
	v, err := l.index.find(id)
	if err != nil {
		return err
	}
	return l.run(func(ctx *simulator.Context) job {
		return l.removeAllJob(ctx, &types.RemoveAllSnapshots_Task{This: v.ref})
	})
}

// Revert takes a VM back to its last snapshot, and powers it off.
func (l *Lab) Revert(id string) error {
	v, err := l.index.find(id)
	if err != nil {
		return err
	}
	var to *ref
	c := l.context()
	if vm, ok := c.Map.Get(v.ref).(*simulator.VirtualMachine); ok {
		c.WithLock(vm, func() {
			if vm.Snapshot != nil {
				to = vm.Snapshot.CurrentSnapshot
			}
		})
	}
	if to == nil {
		return fmt.Errorf("VM %s has no snapshot to revert to", v.Name)
	}
	return l.run(func(ctx *simulator.Context) job { return l.revertJob(ctx, "RevertToSnapshot_Task", *to) })
}

// SetTracking switches changed block tracking on or off: with the next stun.
func (l *Lab) SetTracking(id string, on bool) error {
	v, err := l.index.find(id)
	if err != nil {
		return err
	}
	return l.run(func(ctx *simulator.Context) job {
		return l.vmJob(ctx, v.ref, "ReconfigVM_Task", "reconfigVm", func(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
			unshare(vm)
			vm.Config.ChangeTrackingEnabled = types.NewBool(on)
			return nil, nil
		})
	})
}
