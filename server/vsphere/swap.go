package vsphere

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// swap powers the VM off and changes it in one call: disks, hardware, cards
// and the record of it. If vSphere refuses the hardware, the disks alone.
func (o *overwrite) swap(ctx context.Context) error {
	if err := o.hold(ctx); err != nil {
		return err
	}
	disks, err := o.diskSpec(ctx)
	if err != nil {
		return err
	}
	whole := o.hardwareSpec(ctx)
	whole.DeviceChange = append(disks.DeviceChange, whole.DeviceChange...)
	whole.ExtraConfig = append(disks.ExtraConfig, whole.ExtraConfig...)
	err = o.s.reconfigure(ctx, o.vm.Self, whole)
	if err == nil || ctx.Err() != nil || unreachable(err) {
		return err
	}
	if again := o.s.reconfigure(ctx, o.vm.Self, disks); again != nil {
		return fmt.Errorf("swap the disks: %w", again)
	}
	o.messages = append(o.messages, fmt.Sprintf("The disks are restored, but vSphere refused to put the hardware back as it was: %v.", err))
	return nil
}

// hold makes sure that the VM is off and still what was planned with: the
// disks may have taken hours to come.
func (o *overwrite) hold(ctx context.Context) error {
	now, err := o.s.vm(ctx, o.vm.Self.Value, []string{"config", "runtime", "snapshot"})
	if err != nil {
		return err
	}
	o.vm.Config, o.vm.Runtime, o.vm.Snapshot = now.Config, now.Runtime, now.Snapshot
	if err := o.refuse(); err != nil {
		return err
	}
	for _, w := range o.swaps {
		if w.old == nil {
			continue
		}
		if d, there := find(now.Config.Hardware.Device, w.old.Key); !there || fileOf(d) != fileOf(w.old) {
			return backup.Errorf(backup.Conflict, "", "%s of the VM %q was changed while the image's disks were on their way: restore again.", label(w.old), unescapeName(o.vm.Name))
		}
	}
	o.keepPolicies(ctx)
	if now.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff {
		return nil
	}
	if !o.wasOn { // started meanwhile
		o.wasOn, o.record.WasOn = true, true
		if err := o.remember(ctx); err != nil {
			return err
		}
	}
	failpoint.Hit("inplace.powering_off")
	if err := o.s.powerOff(ctx, o.vm.Self); err != nil {
		return fmt.Errorf("power off: %w", err)
	}
	failpoint.Hit("inplace.powered_off")
	return nil
}

// keepPolicies notes the storage policies of the disks that are replaced: the
// new ones get them too.
func (o *overwrite) keepPolicies(ctx context.Context) {
	var keys []int32
	for _, w := range o.swaps {
		if w.old != nil {
			keys = append(keys, w.old.Key)
		}
	}
	of, err := o.s.policiesOf(ctx, o.vm.Self, keys)
	if err != nil {
		o.s.log.WarnContext(ctx, "storage policies not read", "vm", o.vm.Self.Value, "error", err)
		o.messages = append(o.messages, "The disks' storage policies could not be read: the restored disks have the default of their datastore.")
	}
	for i, w := range o.swaps {
		if w.old != nil {
			o.swaps[i].policy = of[w.old.Key]
		}
	}
}

// diskSpec takes the old disks off and puts the new ones on at the same places.
func (o *overwrite) diskSpec(ctx context.Context) (spec types.VirtualMachineConfigSpec, err error) {
	if o.record.Until, err = o.until(ctx); err != nil {
		return spec, err
	}
	for _, d := range o.extras {
		spec.DeviceChange = append(spec.DeviceChange, remove(d))
	}
	for _, w := range o.swaps {
		if w.old != nil {
			spec.DeviceChange = append(spec.DeviceChange, remove(w.old))
		}
	}
	made := map[int32]bool{}
	for _, w := range o.swaps {
		d := w.at()
		if _, there := findDevice(o.vm.Config.Hardware.Device, d.ControllerKey); !there && !made[d.ControllerKey] {
			if c := o.controller(d); c != nil {
				made[d.ControllerKey] = true
				spec.DeviceChange = append(spec.DeviceChange, add(c, ""))
			}
		}
		disk := newDisk(d, w.image.Capacity, storeOf(w.final))
		b := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		b.FileName = w.final
		if old, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok && old.DiskMode != "" {
			b.DiskMode, b.Sharing = old.DiskMode, old.Sharing
		}
		if w.fresh {
			disk.Key, disk.DeviceInfo = -1, nil // vSphere gives it both
		}
		change := &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: disk, Profile: byPolicy(w.policy)}
		spec.DeviceChange = append(spec.DeviceChange, change)
	}
	o.record.Done = true
	o.record.New = o.record.New[:0]
	for _, w := range o.swaps {
		o.record.New = append(o.record.New, w.final)
	}
	entry, err := keptOption(o.vm.Config, o.record)
	spec.ExtraConfig = []types.BaseOptionValue{entry}
	if o.disk == nil || o.disk.Mode != backup.DiskAttach {
		spec.ExtraConfig = append(spec.ExtraConfig, o.made())
	}
	return spec, err
}

func findDevice(devices []types.BaseVirtualDevice, key int32) (types.BaseVirtualDevice, bool) {
	for _, d := range devices {
		if d.GetVirtualDevice().Key == key {
			return d, true
		}
	}
	return nil, false
}

// copyController is the controller without the list of what hangs on it.
func copyController(d types.BaseVirtualDevice) types.BaseVirtualDevice {
	v := reflect.New(reflect.TypeOf(d).Elem())
	v.Elem().Set(reflect.ValueOf(d).Elem())
	return bareController(v.Interface().(types.BaseVirtualDevice))
}

// hardwareSpec is what differs between the VM and the image's configuration, apart from disks.
func (o *overwrite) hardwareSpec(ctx context.Context) types.VirtualMachineConfigSpec {
	spec := differing(hardware(o.saved), hardware(o.vm.Config))
	if o.saved.Annotation != o.vm.Config.Annotation {
		spec.Annotation = o.saved.Annotation
		if spec.Annotation == "" {
			spec.Annotation = " " // an empty text in a specification means "as it is"
		}
	}
	if o.saved.Version != o.vm.Config.Version {
		o.messages = append(o.messages, fmt.Sprintf("The VM keeps its hardware version %s; the image has %s.", o.vm.Config.Version, o.saved.Version))
	}
	then, now := extraConfig(o.saved), extraConfig(o.vm.Config)
	for _, k := range sortedKeys(then) {
		if now[k] != then[k] {
			spec.ExtraConfig = append(spec.ExtraConfig, optionValue(k, then[k]))
		}
	}
	for _, k := range sortedKeys(now) {
		if _, had := then[k]; !had {
			spec.ExtraConfig = append(spec.ExtraConfig, optionValue(k, ""))
		}
	}
	if then := o.saved.BootOptions; then != nil && o.vm.Config.BootOptions != nil && !reflect.DeepEqual(then.BootOrder, o.vm.Config.BootOptions.BootOrder) {
		spec.BootOptions = then // it names devices by keys, which stay
	}
	o.compareControllers()
	spec.DeviceChange = o.cards(ctx)
	return spec
}

// compareControllers tells of disks that now hang on a controller of another
// kind than in the image, whose guest may lack the driver for it.
func (o *overwrite) compareControllers() {
	told := map[int32]bool{}
	for _, w := range o.swaps {
		if w.old == nil || w.saved == nil || told[w.old.ControllerKey] {
			continue
		}
		now, then := kindOf(o.vm.Config.Hardware.Device, w.old), kindOf(o.saved.Hardware.Device, w.saved)
		if now != then && now != "" && then != "" {
			told[w.old.ControllerKey] = true
			o.messages = append(o.messages, fmt.Sprintf("%q stays on a %s; in the image it hangs on a %s, and the image's guest may lack the driver.",
				w.image.Label, strings.TrimPrefix(now, "*types."), strings.TrimPrefix(then, "*types.")))
		}
	}
}

// differing keeps the fields of want that have another value in have.
func differing(want, have types.VirtualMachineConfigSpec) types.VirtualMachineConfigSpec {
	w, h := reflect.ValueOf(&want).Elem(), reflect.ValueOf(&have).Elem()
	for i := range w.NumField() {
		if reflect.DeepEqual(w.Field(i).Interface(), h.Field(i).Interface()) {
			w.Field(i).SetZero()
		}
	}
	return want
}

// cards puts the network cards back: same keys, MACs and networks.
func (o *overwrite) cards(ctx context.Context) []types.BaseVirtualDeviceConfigSpec {
	var changes []types.BaseVirtualDeviceConfigSpec
	now := o.vm.Config.Hardware.Device
	kept := map[int32]bool{}
	for _, d := range o.saved.Hardware.Device {
		then, ok := d.(types.BaseVirtualEthernetCard)
		if !ok {
			continue
		}
		card := then.GetVirtualEthernetCard()
		have, there := findDevice(now, card.Key)
		there = there && reflect.TypeOf(have) == reflect.TypeOf(d)
		kept[card.Key] = there
		if there && sameCard(have.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard(), card) {
			continue
		}
		backing, err := o.network(ctx, o.machine.Networks[card.Key])
		if err != nil {
			o.messages = append(o.messages, fmt.Sprintf("%s was not put back: %v.", label(d), err))
			kept[card.Key] = there
			continue
		}
		op := types.VirtualDeviceConfigSpecOperationAdd
		if there {
			op = types.VirtualDeviceConfigSpecOperationEdit
		}
		changes = append(changes, &types.VirtualDeviceConfigSpec{Operation: op, Device: newCard(d, backing, true)})
	}
	for _, d := range now {
		if _, ok := d.(types.BaseVirtualEthernetCard); ok && !kept[d.GetVirtualDevice().Key] {
			changes = append([]types.BaseVirtualDeviceConfigSpec{
				&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationRemove, Device: d},
			}, changes...)
			o.messages = append(o.messages, fmt.Sprintf("%s came to the VM after the image and was removed.", label(d)))
		}
	}
	return changes
}

// sameCard compares MAC, network and what connects it (seed N84); a port's number and cookie are vSphere's own.
func sameCard(a, b *types.VirtualEthernetCard) bool {
	net := func(c *types.VirtualEthernetCard) any {
		switch v := c.Backing.(type) {
		case *types.VirtualEthernetCardNetworkBackingInfo:
			return v.DeviceName
		case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
			return v.Port.SwitchUuid + v.Port.PortgroupKey
		case *types.VirtualEthernetCardOpaqueNetworkBackingInfo:
			return v.OpaqueNetworkId
		}
		return c.Backing
	}
	connects := func(c *types.VirtualEthernetCard) [2]bool {
		if c.Connectable == nil {
			return [2]bool{}
		}
		return [2]bool{c.Connectable.StartConnected, c.Connectable.AllowGuestControl}
	}
	return a.MacAddress == b.MacAddress && connects(a) == connects(b) && yes(a.WakeOnLanEnabled) == yes(b.WakeOnLanEnabled) && reflect.DeepEqual(net(a), net(b))
}

// network is the backing of the network of that name on the VM's host.
func (o *overwrite) network(ctx context.Context, name string) (types.BaseVirtualDeviceBackingInfo, error) {
	t, err := o.s.site(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range t.hosts {
		if h.Self == deref(o.vm.Runtime.Host) {
			if n := t.network(h, name); n != (ref{}) {
				return o.s.cardBacking(ctx, n)
			}
		}
	}
	return nil, fmt.Errorf("its host has no network %q", name)
}

// settle does the rest after the swap. The VM is restored by now, so what
// fails is a message, or is found by the sweep.
func (o *overwrite) settle(ctx context.Context) error {
	s := o.s
	if err := o.verify(ctx); err != nil {
		return o.mark(ctx, err)
	}
	o.putNVRAM(ctx)
	o.messages = append(o.messages, o.tagsSince(ctx)...)
	o.messages = append(o.messages, s.restoreAttributes(ctx, o.vm.Self, o.machine)...)
	o.clear(ctx)
	failpoint.Hit("swap.cleared")
	return o.start(ctx)
}

// start powers the restored VM on where that was asked for.
func (o *overwrite) start(ctx context.Context) error {
	if ctx.Err() != nil || !o.draft.InPlace.PowerOn {
		return ctx.Err()
	}
	if err := o.s.powerOnAgain(ctx, o.vm.Self); err != nil {
		return backup.Errorf(backup.PreflightFailed, "in_place.power_on",
			"The VM %q is restored, but it could not be powered on: %s", unescapeName(o.vm.Name), sentence(err.Error())).Because(err)
	}
	failpoint.Hit("inplace.powered_on")
	return nil
}

// tagsSince names the tags that came to the VM after the image: they decide
// what groups it belongs to, so that it keeps them.
func (o *overwrite) tagsSince(ctx context.Context) (messages []string) {
	now, err := o.s.tags.of(ctx, o.vm.Self)
	if err != nil {
		return nil // restoring the image's tags tells of it
	}
	for _, t := range now {
		if !slices.Contains(o.machine.Tags, t) {
			messages = append(messages, fmt.Sprintf("The tag %s:%s came to the VM after the image and stays.", t.Category, t.Name))
		}
	}
	return messages
}

// clear resets change tracking, which knows nothing of the new disks, and puts
// away what is needed no more.
func (o *overwrite) clear(ctx context.Context) {
	s := o.s
	if yes(o.vm.Config.ChangeTrackingEnabled) {
		for _, on := range []bool{false, true} {
			if err := s.reconfigure(ctx, o.vm.Self, types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(on)}); err != nil {
				o.messages = append(o.messages, fmt.Sprintf("Changed block tracking could not be reset: %v.", err))
			}
		}
	}
	if o.whole && !o.record.Done {
		return // nothing is kept any more, and the staging VM was an earlier attempt's
	}
	if err := o.dropStaging(ctx); err != nil {
		s.log.WarnContext(ctx, "staging VM is left to the sweep", "vm", o.staging.Value, "error", err)
	}
	if o.draft.InPlace.Safety == backup.SafetyQuick {
		o.messages = append(o.messages, fmt.Sprintf("The replaced disks (%s) are kept in the VM's folder until %s.", baseNames(o.record.Old), o.record.Until.Format(time.RFC3339)))
	} else if err := s.forget(ctx, o.vm.Self, o.record.Marker, o.record.Old); err != nil {
		o.messages = append(o.messages, fmt.Sprintf("The replaced disks (%s) could not be deleted yet; kura tries again.", baseNames(o.record.Old)))
		s.log.WarnContext(ctx, "replaced disks are left to the sweep", "vm", o.vm.Self.Value, "error", err)
	}
}

// verify reads the VM again: every disk must be the new one, at its old key.
func (o *overwrite) verify(ctx context.Context) error {
	var vm mo.VirtualMachine
	if err := o.s.read(ctx, o.vm.Self, []string{"config.hardware.device"}, &vm); err != nil {
		return err
	}
	for _, w := range o.swaps {
		d, ok := find(vm.Config.Hardware.Device, w.at().Key)
		if !ok || fileOf(d) != w.final {
			return fmt.Errorf("%q is not on the VM as disk %d", w.image.Label, w.at().Key)
		}
	}
	return nil
}

// mark says on the VM itself that its state is not what it should be.
func (o *overwrite) mark(ctx context.Context, cause error) error {
	text := fmt.Sprintf("kura: the restore %s went wrong half way (%v). The old disks are %v.\n%s", o.draft.Marker, cause, o.record.Old, o.saved.Annotation)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.s.config.CallTimeout)
	defer cancel()
	if err := o.s.reconfigure(ctx, o.vm.Self, types.VirtualMachineConfigSpec{Annotation: text}); err != nil {
		o.s.log.WarnContext(ctx, "VM could not be marked", "vm", o.vm.Self.Value, "error", err)
	}
	return fmt.Errorf("the VM is left as it is, its annotation says how: %w", cause)
}
