package vsphere

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// RestoreDisk implements [backup.VSphereSession]. It is a restore in place of
// one disk: the same staging VM, the same record, one call that changes the VM.
func (s *Session) RestoreDisk(ctx context.Context, r backup.DiskRestoreDraft, from backup.ImageReader, progress func(int64)) (backup.RestoredVM, []string, error) {
	doing := "restore a disk of the VM " + r.MOID
	o, err := s.planDisk(ctx, r, from)
	if err == nil && o.whole {
		o.clear(ctx)
		return o.result(), o.messages, s.problem(doing, ctx.Err())
	}
	if err == nil && r.Disk.Mode != backup.DiskAttach && len(o.superseded()) > 0 {
		if err = o.supersede(ctx); err == nil {
			o, err = s.planDisk(ctx, r, from)
		}
	}
	if err != nil {
		return backup.RestoredVM{}, nil, s.problem(doing, err)
	}
	if d := o.attached(); d != nil {
		o.messages = append(o.messages, tellAttached(o.vm, d))
		return o.result(), o.messages, nil
	}
	if err := errors.Join(o.bring(ctx, progress), ctx.Err()); err != nil {
		return backup.RestoredVM{}, o.messages, s.problem(doing, o.undo(ctx, err))
	}
	ctx, release := s.decided(ctx)
	defer release()
	if err := o.change(ctx); err != nil {
		return backup.RestoredVM{}, o.messages, s.problem(doing, o.undo(ctx, err))
	}
	failpoint.Hit("disk.changed")
	err = o.settleDisk(ctx)
	return o.result(), o.messages, s.problem(doing, err)
}

// planDisk decides where the disk goes, and refuses what can be refused before
// anything is changed.
func (s *Session) planDisk(ctx context.Context, r backup.DiskRestoreDraft, from backup.ImageReader) (*overwrite, error) {
	disk, err := r.Disk.Choose(from.Manifest().Image.Disks)
	if err != nil {
		return nil, err
	}
	o, m, err := s.readOverwrite(ctx, backup.OverwriteDraft{Marker: r.Marker, MOID: r.MOID, InPlace: backup.RestoreInPlace{Safety: backup.SafetyQuick}}, from)
	if err != nil {
		return nil, err
	}
	o.disk = &r.Disk
	w := swap{image: disk, fresh: r.Disk.Mode == backup.DiskAttach}
	if w.fresh {
		o.draft.InPlace.Safety = backup.SafetyNone // there is nothing old to keep
		o.record.WasOn = false                     // and the VM is not powered off
		err = o.planAttach(ctx, m, &w)
	} else {
		if o.whole = o.resumes(); o.whole {
			return o, nil
		}
		err = o.planReplace(m, &w)
	}
	if err != nil {
		return nil, err
	}
	o.swaps = []swap{w}
	o.list()
	if o.attached() != nil {
		return o, nil
	}
	return o, o.space(ctx)
}

// planReplace finds the disk whose place is taken: of the same key, else of the same label.
func (o *overwrite) planReplace(m marker, w *swap) error {
	if err := o.refuse(); err != nil {
		return err
	}
	devices := o.vm.Config.Hardware.Device
	w.saved, _ = find(o.saved.Hardware.Device, w.image.Key)
	if w.old, _ = find(devices, w.image.Key); w.old == nil {
		for _, d := range devices {
			if disk, ok := d.(*types.VirtualDisk); ok && label(disk) == w.image.Label {
				w.old = disk
			}
		}
	}
	if w.old == nil {
		return backup.Errorf(backup.PreflightFailed, "disk.mode", "The VM %q has no disk %q (key %d) that could be replaced. It has: %s. Use mode = \"attach\" to add it.",
			unescapeName(o.vm.Name), w.image.Label, w.image.Key, diskNames(devices))
	}
	w.final = inFolderOf(fileOf(w.old), diskFile(m, w.image.Key))
	return nil
}

func diskFile(m marker, key int32) string { return fmt.Sprintf("%s-%d.vmdk", m.fileName(), key) }

func diskNames(devices []types.BaseVirtualDevice) string {
	var names []string
	for _, d := range devices {
		if disk, ok := d.(*types.VirtualDisk); ok {
			names = append(names, fmt.Sprintf("%q (key %d)", label(disk), disk.Key))
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// planAttach finds a datastore and a free place for one more disk. A VM that
// runs, or has snapshots, may get one.
func (o *overwrite) planAttach(ctx context.Context, m marker, w *swap) error {
	name, state := unescapeName(o.vm.Name), o.vm.Runtime.PowerState
	switch {
	case o.vm.Config.Template:
		return backup.Errorf(backup.PreflightFailed, "disk.virtual_machine_id", "%q is a template: convert it to a VM first.", name)
	case faultTolerant(o.vm.Runtime.FaultToleranceState):
		return backup.Errorf(backup.PreflightFailed, "disk.virtual_machine_id", "The VM %q is protected by Fault Tolerance and takes no disk: turn that off first.", name)
	case state != types.VirtualMachinePowerStatePoweredOff && state != types.VirtualMachinePowerStatePoweredOn:
		return backup.Errorf(backup.PreflightFailed, "disk.virtual_machine_id", "The VM %q is suspended and takes no disk: resume it, or power it off.", name)
	case o.vm.ResourcePool == nil:
		return backup.Errorf(backup.PreflightFailed, "disk.virtual_machine_id", "The VM %q lies in no resource pool.", name)
	}
	home := o.vm.Config.Files.VmPathName
	w.final = inFolderOf(home, diskFile(m, w.image.Key))
	if want := o.disk.Datastore; want != "" && want != storeOf(home) {
		store, err := o.pickStore(ctx, want)
		if err != nil {
			return err
		}
		w.final = "[" + store + "] " + path.Join(path.Base(path.Dir(datastorePath(home))), diskFile(m, w.image.Key))
	}
	then, _ := find(o.saved.Hardware.Device, w.image.Key)
	controller, unit, ok := freePlace(o.vm.Config.Hardware.Device, kindOf(o.saved.Hardware.Device, then), state == types.VirtualMachinePowerStatePoweredOn)
	if !ok {
		return backup.Errorf(backup.PreflightFailed, "disk.mode", "The VM %q has no free place for another disk: remove one first.", name)
	}
	if _, there := findDevice(o.vm.Config.Hardware.Device, controller.GetVirtualDevice().Key); !there {
		o.saved.Hardware.Device = append([]types.BaseVirtualDevice{controller}, o.saved.Hardware.Device...) // where the disk's controller is looked for
	}
	w.saved = &types.VirtualDisk{VirtualDevice: types.VirtualDevice{Key: w.image.Key, ControllerKey: controller.GetVirtualDevice().Key, UnitNumber: &unit}}
	return nil
}

// pickStore finds a datastore that the VM's host can use.
func (o *overwrite) pickStore(ctx context.Context, want string) (string, error) {
	t, err := o.s.site(ctx)
	if err != nil {
		return "", err
	}
	var seen []ref
	for _, h := range t.hosts {
		if h.Self != deref(o.vm.Runtime.Host) {
			continue
		}
		for _, d := range t.stores {
			if slices.Contains(h.Datastore, d.Self) && usableStore(d) {
				seen = append(seen, d.Self)
			}
		}
	}
	r, err := t.pick("disk.datastore", "datastore on the VM's host", want, seen)
	if err != nil {
		return "", err
	}
	d, _ := t.store(r)
	o.vm.Datastore = append(o.vm.Datastore, r) // whose free space is looked at
	return d.Summary.Name, nil
}

// attached is the disk that an attempt of this job has attached already: a disk
// is on the VM only when it is whole.
func (o *overwrite) attached() *types.VirtualDisk {
	m, ok := parseMarker(o.draft.Marker)
	if !ok || !o.swaps[0].fresh {
		return nil
	}
	for _, d := range o.vm.Config.Hardware.Device {
		disk, ok := d.(*types.VirtualDisk)
		if !ok {
			continue
		}
		for file := range usedFiles([]types.BaseVirtualDevice{disk}) { // a snapshot made since lies over it
			if of, ok := diskOfJob(file); ok && of == fmt.Sprintf("%s-%d", m.job, o.swaps[0].image.Key) {
				return disk
			}
		}
	}
	return nil
}

// diskOfJob takes "kura-<job>-<attempt>-<key>.vmdk" apart: "<job>-<key>".
func diskOfJob(file string) (string, bool) {
	name, ok := strings.CutPrefix(strings.TrimSuffix(path.Base(datastorePath(file)), ".vmdk"), "kura-")
	p := strings.Split(name, "-")
	if !ok || len(p) < 3 {
		return "", false
	}
	return strings.Join(p[:len(p)-2], "-") + "-" + p[len(p)-1], true
}

// change puts the disk onto the VM, in one call.
func (o *overwrite) change(ctx context.Context) error {
	if o.swaps[0].fresh { // what was noted on the VM since is kept
		now, err := o.s.vm(ctx, o.vm.Self.Value, []string{"config"})
		if err != nil {
			return err
		}
		o.vm.Config = now.Config
	} else if err := o.hold(ctx); err != nil {
		return err
	}
	spec, err := o.diskSpec(ctx)
	if err != nil {
		return err
	}
	return o.s.reconfigure(ctx, o.vm.Self, spec)
}

// settleDisk does the rest. The disk is restored by now, so what fails is a
// message, or is found by the sweep.
func (o *overwrite) settleDisk(ctx context.Context) error {
	if !o.swaps[0].fresh {
		if err := o.verify(ctx); err != nil {
			return o.mark(ctx, err)
		}
		o.clear(ctx)
		return ctx.Err()
	}
	vm, err := o.s.vm(ctx, o.vm.Self.Value, []string{"config"})
	if err != nil {
		return err
	}
	o.vm.Config = vm.Config
	d := o.attached()
	if d == nil {
		return o.mark(ctx, fmt.Errorf("the disk %s is not on the VM", o.swaps[0].final))
	}
	o.messages = append(o.messages, tellAttached(o.vm, d))
	if err := o.s.destroyMarked(ctx, o.staging, o.draft.Marker); err != nil {
		o.s.log.WarnContext(ctx, "staging VM is left to the sweep", "vm", o.staging.Value, "error", err)
	}
	if err := o.s.forget(ctx, o.vm.Self, o.draft.Marker, nil); err != nil {
		o.s.log.WarnContext(ctx, "note of a restore is left to the sweep", "vm", o.vm.Self.Value, "error", err)
	}
	return ctx.Err()
}

func tellAttached(vm mo.VirtualMachine, d *types.VirtualDisk) string {
	uuid, _ := backing(d)
	return fmt.Sprintf("The disk was attached to %q as %s (key %d, backing UUID %s); its file is %s.", unescapeName(vm.Name), label(d), d.Key, uuid, fileOf(d))
}

// makeFolder makes the folder of a file. One that is there is no error.
func (s *Session) makeFolder(ctx context.Context, datacenter ref, file string) error {
	_, err := methods.MakeDirectory(ctx, s.client, &types.MakeDirectory{
		This: *s.client.ServiceContent.FileManager, Name: path.Dir(file), Datacenter: &datacenter, CreateParentDirectories: types.NewBool(true),
	})
	if _, there := faultOf[*types.FileAlreadyExists](err); there {
		return nil
	}
	return s.problem("make the folder of "+file, err)
}
