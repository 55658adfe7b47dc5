package lab

import (
	"reflect"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// makeVM is alone for tasks that make a VM in a folder. vcsim puts a VM into
// the inventory before it furnishes it, without the VM's lock; here nobody else
// has that lock until show is called, which must be in any case.
func (l *Lab) makeVM(ctx *simulator.Context, folder *simulator.Folder, begin func() ref) (vm *simulator.VirtualMachine, show func(), fault types.BaseMethodFault) {
	show = func() {}
	l.busy.Lock()
	defer l.busy.Unlock()
	// vcsim notes the task at the folder, too, without its lock.
	defer ctx.Map.AcquireLock(ctx, folder)()
	l.index.whenMade(func(vm *simulator.VirtualMachine) {
		show = ctx.Map.AcquireLock(ctx, vm)
		ownDevices(vm)
	})
	defer l.index.whenMade(nil)
	result, fault := l.finishAlone(ctx, begin)
	if fault != nil {
		return nil, show, fault
	}
	vm, ok := ctx.Map.Get(result.(ref)).(*simulator.VirtualMachine)
	if !ok {
		return nil, show, &types.ManagedObjectNotFound{Obj: result.(ref)}
	}
	unshare(vm)
	return vm, show, nil
}

// ownDevices gives a new VM copies of the devices that every VM has. vcsim has
// one set of them for all VMs of all labs of a process, and notes on its
// controllers what is attached to them.
func ownDevices(vm *simulator.VirtualMachine) {
	list := make([]types.BaseVirtualDevice, len(vm.Config.Hardware.Device))
	for i, d := range vm.Config.Hardware.Device {
		own := reflect.New(reflect.TypeOf(d).Elem())
		own.Elem().Set(reflect.ValueOf(d).Elem())
		list[i] = own.Interface().(types.BaseVirtualDevice)
		if c, ok := list[i].(types.BaseVirtualController); ok {
			bus := c.GetVirtualController()
			bus.Device = slices.Clone(bus.Device)
		}
	}
	vm.Config.Hardware.Device = list
}

// still keeps the inventory as it is until the returned function is called, for
// methods of vcsim's that walk through it without its locks.
func (l *Lab) still() func() {
	l.busy.RLock()
	return l.busy.RUnlock
}

// fence leaves no room at the end of lists to which vcsim appends, in place,
// whatever it looks at next when it walks along them.
func (l *Lab) fence() {
	for _, e := range l.registry().All("ClusterComputeResource") {
		if c, ok := e.(*simulator.ClusterComputeResource); ok {
			c.Host = slices.Clip(c.Host)
		}
	}
	for _, e := range l.registry().All("ResourcePool") {
		if p, ok := e.(*simulator.ResourcePool); ok {
			p.ResourcePool.ResourcePool = slices.Clip(p.ResourcePool.ResourcePool)
		}
	}
}
