package lab

import (
	"context"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// shutDown asks a guest to shut down. As in vSphere there is no task for it:
// the VM is off when the guest is done.
func (l *Lab) shutDown(ctx *simulator.Context, vm ref) types.BaseMethodFault {
	v, ok := l.index.get(vm)
	if !ok {
		return &types.ManagedObjectNotFound{Obj: vm}
	}
	if v.PowerState != string(types.VirtualMachinePowerStatePoweredOn) {
		return &types.InvalidPowerState{RequestedState: types.VirtualMachinePowerStatePoweredOn, ExistingState: types.VirtualMachinePowerState(v.PowerState)}
	}
	if !l.toolsRun(ctx, vm) {
		return &types.ToolsUnavailable{}
	}
	if _, already := l.shutting.LoadOrStore(vm, true); already {
		return nil // the guest does not begin anew
	}
	entry := l.journal.begin("ShutdownGuest", vm, v.Name)
	if l.faults.take("guest_hangs", vm, v.Name, true) != nil {
		l.shutting.Delete(vm)
		l.journal.end(entry, nil)
		return nil
	}
	slow := l.faults.take("guest_slow", vm, v.Name, true)
	off := l.powerJob(ctx, vm, false)
	l.work.Go(func() {
		if slow != nil {
			l.pause(slow.Delay)
		}
		if _, still := l.shutting.Load(vm); !still { // its power was cut meanwhile
			l.journal.end(entry, nil)
			return
		}
		_, fault := l.do(ctx, off)
		l.journal.end(entry, fault)
	})
	return nil
}

// toolsRun says whether VMware Tools run in a guest.
func (l *Lab) toolsRun(ctx *simulator.Context, vm ref) bool {
	run := false
	if o, ok := ctx.Map.Get(vm).(*simulator.VirtualMachine); ok {
		ctx.WithLock(o, func() { run = toolsIn(o) })
	}
	return run
}

func toolsIn(vm *simulator.VirtualMachine) bool {
	return vm.Guest != nil && vm.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
}

// SetTools starts or stops VMware Tools in a guest. What is powered on anew
// starts with them.
func (l *Lab) SetTools(_ context.Context, id string, run bool) error {
	v, err := l.index.find(id)
	if err != nil {
		return err
	}
	return l.run(func(ctx *simulator.Context) job {
		return l.vmJob(ctx, v.ref, "SetTools", "setTools", func(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
			l.showGuest(ctx, vm, run)
			return nil, nil
		})
	})
}

// PowerOperations counts, by the name of the API's method, the power
// operations on a VM that were asked for over the API and came about.
func (l *Lab) PowerOperations(id string) (map[string]int, error) {
	v, err := l.index.find(id)
	if err != nil {
		return nil, err
	}
	count := map[string]int{}
	for _, t := range l.Tasks() {
		if t.Object != v.Moid || t.State != string(types.TaskInfoStateSuccess) {
			continue
		}
		switch t.Name {
		case "PowerOnVM_Task", "PowerOffVM_Task", "ShutdownGuest":
			count[t.Name]++
		}
	}
	return count, nil
}
