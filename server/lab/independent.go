package lab

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// MakeIndependent is an administrator who takes a disk out of snapshots.
func (l *Lab) MakeIndependent(id string, key int32) error {
	v, k, err := l.top(id, key)
	if err != nil {
		return err
	}
	return l.run(func(ctx *simulator.Context) job {
		return l.vmJob(ctx, v.ref, "ReconfigVM_Task", "reconfigVm", func(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
			list := devices(vm)
			for i, dev := range list {
				d, b := diskOf(dev)
				if b == nil || l.store.get(b.FileName) != k {
					continue
				}
				disk, backing := *d, *b
				backing.DiskMode = string(types.VirtualDiskModeIndependent_persistent)
				disk.Backing = &backing
				list[i] = &disk
			}
			setDevices(ctx, vm, list)
			return nil, nil
		})
	})
}
