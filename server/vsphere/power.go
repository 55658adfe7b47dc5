package vsphere

import (
	"context"
	"fmt"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// powerProperties are what Power reads: little, so that it may be asked often.
var powerProperties = []string{"runtime.powerState", "summary.runtime.bootTime", "guest.toolsRunningStatus"}

// Power implements [backup.VSphereSession].
func (s *Session) Power(ctx context.Context, moid string) (backup.Power, error) {
	var vm mo.VirtualMachine
	if err := s.read(ctx, vmRef(moid), powerProperties, &vm); err != nil {
		return backup.Power{}, s.problem("read the power state of the VM "+moid, err)
	}
	p := backup.Power{State: powerState(vm.Runtime.PowerState)}
	if vm.Summary.Runtime.BootTime != nil {
		p.BootedAt = vm.Summary.Runtime.BootTime.UTC()
	}
	if vm.Guest != nil {
		p.Tools = vm.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
	}
	return p, nil
}

// ShutDownGuest implements [backup.VSphereSession].
func (s *Session) ShutDownGuest(ctx context.Context, moid string) error {
	_, err := methods.ShutdownGuest(ctx, s.client, &types.ShutdownGuest{This: vmRef(moid)})
	if _, missing := faultOf[*types.ToolsUnavailable](err); missing {
		return backup.Errorf(backup.PreflightFailed, "consistency", "The guest of the VM %s cannot be shut down: VMware Tools do not run in it.", moid).Because(err)
	}
	// Off already, or on its way there: vSphere refuses to be asked twice.
	_, state := faultOf[*types.InvalidPowerState](err)
	_, busy := faultOf[*types.TaskInProgress](err)
	if err != nil && !state && !busy {
		return s.problem("shut down the guest of the VM "+moid, err)
	}
	err = s.wait(ctx, vmRef(moid), []string{"runtime.powerState"}, func(changes []types.PropertyChange) bool {
		for _, c := range changes {
			if c.Val == types.VirtualMachinePowerStatePoweredOff {
				return true
			}
		}
		return false
	})
	return s.problem("wait for the VM "+moid+" to be off", err)
}

// SetPower implements [backup.VSphereSession].
func (s *Session) SetPower(ctx context.Context, moid string, on bool) error {
	doing, turn, want := "power off", s.powerOff, types.VirtualMachinePowerStatePoweredOff
	if on {
		doing, turn, want = "power on", s.powerOn, types.VirtualMachinePowerStatePoweredOn
	}
	err := turn(ctx, vmRef(moid))
	if f, wrong := faultOf[*types.InvalidPowerState](err); wrong && f.ExistingState == want {
		err = nil
	}
	return s.problem(fmt.Sprintf("%s the VM %s", doing, moid), err)
}
