package vsphere

import (
	"context"
	"fmt"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// bring makes the staging VM, fills its disks, and moves them into the VM's own folder.
func (o *overwrite) bring(ctx context.Context, progress func(int64)) error {
	spec, disks := o.stagingSpec()
	folder := deref(o.vm.Parent)
	if folder == (ref{}) || folder.Type != "Folder" {
		var dc mo.Datacenter
		if err := o.s.read(ctx, o.dc, []string{"vmFolder"}, &dc); err != nil {
			return err
		}
		folder = dc.VmFolder
	}
	where, err := o.s.placesOf(ctx, *o.vm.ResourcePool)
	if err != nil {
		return err
	}
	pool, ok := where.up(*o.vm.ResourcePool, "ResourcePool") // not into the VM's vApp
	if !ok {
		return fmt.Errorf("%s lies in no resource pool", o.vm.Self.Value)
	}
	o.staging, err = o.s.importVM(ctx, load{
		spec: spec, pool: pool, folder: folder, host: deref(o.vm.Runtime.Host), disks: disks, from: o.from, progress: progress,
	})
	if err != nil {
		return fmt.Errorf("fill the new disks: %w", err)
	}
	if err := o.release(ctx, spec); err != nil {
		return fmt.Errorf("take the new disks off the staging VM: %w", err)
	}
	if err := o.remember(ctx); err != nil {
		return err
	}
	failpoint.Hit("swap.released")
	for i := range o.swaps {
		w := &o.swaps[i]
		if uuid := w.uuid(); uuid != "" {
			if err := o.s.setDiskUUID(ctx, o.dc, w.staged, uuid); err != nil {
				return err
			}
		}
		if w.fresh { // on another datastore the VM has no folder yet
			if err := o.s.makeFolder(ctx, o.dc, w.final); err != nil {
				return err
			}
		}
		if err := o.s.moveDisk(ctx, o.dc, w.staged, w.final); err != nil {
			return err
		}
		failpoint.Hit("swap.disk_moved")
		w.staged = w.final
	}
	return nil
}

// uuid is the backing UUID that the guest knows the disk by.
func (w swap) uuid() string {
	if w.fresh {
		return ""
	}
	if w.old != nil {
		uuid, _ := backing(w.old)
		return uuid
	}
	return w.image.UUID
}

// stagingSpec is a VM of nothing but the new disks, each at its place and on its datastore.
func (o *overwrite) stagingSpec() (types.VirtualMachineConfigSpec, []backup.ImageDisk) {
	spec := types.VirtualMachineConfigSpec{
		Name: o.draft.Marker, GuestId: o.vm.Config.GuestId, Version: o.vm.Config.Version, NumCPUs: 1, MemoryMB: 128,
		Annotation:  o.draft.Marker + "\nkura keeps disks here for a moment. It is removed by itself.",
		Files:       &types.VirtualMachineFileInfo{VmPathName: "[" + storeOf(o.vm.Config.Files.VmPathName) + "]"},
		ExtraConfig: []types.BaseOptionValue{optionValue(markerKey, o.draft.Marker)},
	}
	var disks []backup.ImageDisk
	made := map[int32]bool{}
	for _, w := range o.swaps {
		d := w.at()
		if c := o.controller(d); c != nil && !made[d.ControllerKey] {
			made[d.ControllerKey] = true
			spec.DeviceChange = append(spec.DeviceChange, add(c, ""))
		}
		disk := newDisk(d, w.image.Capacity, storeOf(w.final))
		disk.Key = w.image.Key // by which its stream is found
		spec.DeviceChange = append(spec.DeviceChange, add(disk, types.VirtualDeviceConfigSpecFileOperationCreate))
		disks = append(disks, w.image)
	}
	return spec, disks
}

// controller is a copy of what the disk hangs on, from the VM or else from the image.
func (o *overwrite) controller(d *types.VirtualDisk) types.BaseVirtualDevice {
	for _, devices := range []object.VirtualDeviceList{o.vm.Config.Hardware.Device, o.saved.Hardware.Device} {
		if c := devices.FindByKey(d.ControllerKey); c != nil {
			return copyController(c)
		}
	}
	return nil
}

func add(d types.BaseVirtualDevice, op types.VirtualDeviceConfigSpecFileOperation) types.BaseVirtualDeviceConfigSpec {
	return &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: op, Device: d}
}

// release notes where the new disks lie and takes them off the staging VM: its end must not be theirs.
func (o *overwrite) release(ctx context.Context, spec types.VirtualMachineConfigSpec) error {
	vm, err := o.s.vm(ctx, o.staging.Value, []string{"config"})
	if err != nil {
		return err
	}
	asked := specDevices(spec)
	var change types.VirtualMachineConfigSpec
	for i := range o.swaps {
		want, _ := find(asked, o.swaps[i].image.Key)
		for _, d := range vm.Config.Hardware.Device {
			if disk, ok := d.(*types.VirtualDisk); ok && want != nil && samePlace(want, asked, disk, vm.Config.Hardware.Device) {
				o.swaps[i].staged = fileOf(disk)
				change.DeviceChange = append(change.DeviceChange, remove(disk))
			}
		}
		if o.swaps[i].staged == "" {
			return fmt.Errorf("%q did not arrive", o.swaps[i].image.Label)
		}
	}
	// Where the files are is written down before they are nobody's.
	o.record.New = o.record.New[:0]
	for _, w := range o.swaps {
		o.record.New = append(o.record.New, w.staged, w.final)
	}
	if err := o.remember(ctx); err != nil {
		return err
	}
	failpoint.Hit("swap.intended")
	return o.s.reconfigure(ctx, o.staging, change)
}
