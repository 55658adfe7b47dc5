package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// complete gives a VM whose disks have arrived the rest of what the image
// holds, and takes the marker off: from then on it is nobody's to sweep.
func (s *Session) complete(ctx context.Context, made ref, p *newVM, from backup.ImageReader) (backup.RestoredVM, error) {
	vm, err := s.vm(ctx, made.Value, []string{"name", "config"})
	if err != nil {
		return backup.RestoredVM{}, err
	}
	m, _ := parseMarker(p.draft.Marker)
	spec := types.VirtualMachineConfigSpec{Annotation: p.config.Annotation, ExtraConfig: []types.BaseOptionValue{optionValue(markerKey, ""), optionValue(madeKey, m.job)}}
	if file, message := s.restoreNVRAM(ctx, vm, p.at.dcPath, p.machine, from); message != "" {
		p.messages = append(p.messages, message)
	} else if file != "" {
		spec.ExtraConfig = append(spec.ExtraConfig, optionValue("nvram", file))
	}
	p.messages = append(p.messages, s.restoreAttributes(ctx, made, p.machine)...)
	p.messages = append(p.messages, s.dress(ctx, made, p, vm.Config.Hardware.Device)...)
	if err := s.reconfigure(ctx, made, spec); err != nil {
		return backup.RestoredVM{}, fmt.Errorf("finish the VM: %w", err)
	}
	if spec.Annotation == "" { // an empty text in a specification means "as it is"
		if err := s.clearAnnotation(ctx, made, p.draft.Marker); err != nil {
			return backup.RestoredVM{}, fmt.Errorf("finish the VM: %w", err)
		}
	}
	return backup.RestoredVM{MOID: made.Value, InstanceUUID: vm.Config.InstanceUuid, BIOSUUID: vm.Config.Uuid, Name: unescapeName(vm.Name)}, nil
}

// clearAnnotation replaces the marker by nothing, or where vSphere keeps an empty annotation from being set, by a blank.
func (s *Session) clearAnnotation(ctx context.Context, vm ref, was string) error {
	var now mo.VirtualMachine
	if err := s.read(ctx, vm, []string{"config.annotation"}, &now); err != nil {
		return err
	}
	if now.Config == nil || firstLine(now.Config.Annotation) != was {
		return nil
	}
	return s.reconfigure(ctx, vm, types.VirtualMachineConfigSpec{Annotation: " "})
}

// annotation is a text as a specification has to say it: an empty one means "as it is".
func annotation(text string) string {
	if text == "" {
		return " "
	}
	return text
}

func (s *Session) reconfigure(ctx context.Context, vm ref, spec types.VirtualMachineConfigSpec) error {
	return s.insist(ctx, s.config.GiveUp, func() error {
		res, err := methods.ReconfigVM_Task(ctx, s.client, &types.ReconfigVM_Task{This: vm, Spec: spec})
		if err == nil {
			_, err = s.finish(ctx, res.Returnval)
		}
		return err
	})
}

// restoreNVRAM puts the image's NVRAM into the VM's folder and returns its
// name there. A VM boots without it, so a refusal is a message and no failure.
func (s *Session) restoreNVRAM(ctx context.Context, vm mo.VirtualMachine, datacenter string, m MachineConfig, from backup.ImageReader) (name, message string) {
	if m.NVRAMFile == "" {
		return "", ""
	}
	content, err := from.File(ctx, NVRAM)
	if backup.CodeOf(err) == backup.NotFound {
		return "", ""
	}
	if err == nil {
		name = strings.TrimSuffix(path.Base(datastorePath(vm.Config.Files.VmPathName)), ".vmx") + ".nvram"
		err = s.writeFile(ctx, datacenter, beside(vm, name), content)
	}
	if err != nil {
		return "", fmt.Sprintf("The NVRAM (boot order, firmware settings) was not restored: %v.", err)
	}
	return name, ""
}

// NVRAM is the name under which an image keeps the VM's NVRAM.
const NVRAM = "vm.nvram"

// restoreAttributes sets custom attributes and tags that this vcenter knows, and names those it does not.
func (s *Session) restoreAttributes(ctx context.Context, vm ref, m MachineConfig) (messages []string) {
	if err := s.setAttributes(ctx, vm, m.CustomAttributes); err != nil {
		messages = append(messages, fmt.Sprintf("The custom attributes were not restored: %v.", err))
	}
	if len(m.Tags) == 0 {
		return messages
	}
	missing, err := s.tags.attach(ctx, vm, m.Tags)
	if err != nil {
		messages = append(messages, fmt.Sprintf("The tags were not restored: %v.", err))
	}
	for _, t := range missing {
		messages = append(messages, fmt.Sprintf("The tag %s:%s does not exist here and was not restored.", t.Category, t.Name))
	}
	return messages
}

func (s *Session) setAttributes(ctx context.Context, vm ref, want map[string]string) error {
	manager := s.client.ServiceContent.CustomFieldsManager
	if len(want) == 0 || manager == nil {
		return nil
	}
	var fields mo.CustomFieldsManager
	if err := s.read(ctx, *manager, []string{"field"}, &fields); err != nil {
		return err
	}
	var errs []error
	for _, name := range sortedKeys(want) {
		i := slices.IndexFunc(fields.Field, func(f types.CustomFieldDef) bool { return f.Name == name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("%q does not exist here", name))
			continue
		}
		_, err := methods.SetField(ctx, s.client, &types.SetField{This: *manager, Entity: vm, Key: fields.Field[i].Key, Value: want[name]})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// begin makes the whole VM a template, or powers it on, where that is asked
// for. The VM is restored and stays when that fails, which is told.
func (s *Session) begin(ctx context.Context, vm ref, r backup.RestoreNewVM) []string {
	var err error
	switch {
	case r.AsTemplate:
		_, err = methods.MarkAsTemplate(ctx, s.client, &types.MarkAsTemplate{This: vm})
	case r.PowerOn:
		err = s.powerOnAgain(ctx, vm)
	}
	if err == nil {
		return nil
	}
	s.log.WarnContext(ctx, "restored VM not started", "vm", r.Name, "error", err)
	return []string{fmt.Sprintf("The VM %q is restored, but it could not be started or made a template: %s", r.Name, sentence(err.Error()))}
}

func (s *Session) powerOn(ctx context.Context, vm ref) error {
	res, err := methods.PowerOnVM_Task(ctx, s.client, &types.PowerOnVM_Task{This: vm})
	if err == nil {
		_, err = s.finish(ctx, res.Returnval)
	}
	return err
}

func (s *Session) powerOff(ctx context.Context, vm ref) error {
	res, err := methods.PowerOffVM_Task(ctx, s.client, &types.PowerOffVM_Task{This: vm})
	if err == nil {
		_, err = s.finish(ctx, res.Returnval)
	}
	if _, off := faultOf[*types.InvalidPowerState](err); off {
		return nil
	}
	return err
}

// discard destroys what a restore made, even though its context may have
// ended. What fails here is left to the sweep.
func (s *Session) discard(ctx context.Context, vm ref, marker string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.CallTimeout)
	defer cancel()
	if err := s.destroyMarked(ctx, vm, marker); err != nil {
		s.log.WarnContext(ctx, "half-made VM is left to the sweep", "vm", vm.Value, "error", err)
	}
}

// destroyMarked destroys a VM that carries the marker in both places, is off,
// and has no disk outside its own folder. One that is gone is no error.
func (s *Session) destroyMarked(ctx context.Context, r ref, marker string) error {
	vm, err := s.vm(ctx, r.Value, []string{"config", "runtime.powerState"})
	if backup.CodeOf(err) == backup.VMGone {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case firstLine(vm.Config.Annotation) != marker || extra(vm.Config, markerKey) != marker:
		return fmt.Errorf("%s does not carry the marker %s", r.Value, marker)
	case vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn:
		return fmt.Errorf("%s carries the marker %s, but runs", r.Value, marker)
	}
	if err := s.detachForeign(ctx, vm); err != nil {
		return err
	}
	err = s.insist(ctx, s.config.sweepPatience(), func() error {
		res, err := methods.Destroy_Task(ctx, s.client, &types.Destroy_Task{This: r})
		if err == nil {
			_, err = s.finish(ctx, res.Returnval)
		}
		return err
	})
	if f, ok := faultOf[*types.ManagedObjectNotFound](err); ok && f.Obj == r {
		return nil
	}
	return err
}

// detachForeign lets go of disks outside the VM's folder, which destroying the VM would delete.
func (s *Session) detachForeign(ctx context.Context, vm mo.VirtualMachine) error {
	own := path.Dir(datastorePath(vm.Config.Files.VmPathName))
	var spec types.VirtualMachineConfigSpec
	for _, d := range vm.Config.Hardware.Device {
		if disk, ok := d.(*types.VirtualDisk); ok && path.Dir(datastorePath(fileOf(disk))) != own {
			spec.DeviceChange = append(spec.DeviceChange, remove(disk))
		}
	}
	if len(spec.DeviceChange) == 0 {
		return nil
	}
	return s.reconfigure(ctx, vm.Self, spec)
}

// remove takes a disk off a VM and keeps its file.
func remove(d *types.VirtualDisk) types.BaseVirtualDeviceConfigSpec {
	return &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationRemove, Device: d}
}

// extra is an entry of a VM's extra configuration.
func extra(c *types.VirtualMachineConfigInfo, key string) string {
	for _, o := range c.ExtraConfig {
		if v := o.GetOptionValue(); v.Key == key {
			s, _ := v.Value.(string)
			return s
		}
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
