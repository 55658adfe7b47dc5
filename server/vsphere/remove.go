package vsphere

import (
	"context"
	"fmt"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var _ backup.Remover = (*Connector)(nil)

// RemoveVM implements [backup.Remover].
func (c *Connector) RemoveVM(ctx context.Context, v backup.VCenter, moid, instanceUUID string) error {
	opened, err := c.Connect(ctx, v)
	if err != nil {
		return err
	}
	s, ok := opened.(*Session)
	if !ok {
		return fmt.Errorf("remove %s: a session of another kind", moid)
	}
	vm, err := s.vm(ctx, moid, []string{"name", "config", "runtime.powerState"})
	if backup.CodeOf(err) == backup.VMGone {
		return nil
	}
	if err != nil {
		return err
	}
	name := unescapeName(vm.Name)
	switch {
	case !strings.EqualFold(vm.Config.InstanceUuid, instanceUUID):
		return backup.Errorf(backup.Conflict, "", "%s is %q now, with another instance UUID (%s) than the VM that was restored (%s). It is left as it is.", moid, name, vm.Config.InstanceUuid, instanceUUID)
	case vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff:
		return backup.Errorf(backup.VMRunning, "", "VM %q is not powered off, so it may be in use. Power it off, or delete it in vSphere.", name)
	}
	if err := s.detachForeign(ctx, vm); err != nil {
		return s.problem("detach disks of others from "+name, err)
	}
	res, err := methods.Destroy_Task(ctx, s.client, &types.Destroy_Task{This: vmRef(moid)})
	if err == nil {
		_, err = s.finish(ctx, res.Returnval)
	}
	if f, ok := faultOf[*types.ManagedObjectNotFound](err); ok && f.Obj == vmRef(moid) {
		return nil
	}
	return s.problem("delete the VM "+name, err)
}
