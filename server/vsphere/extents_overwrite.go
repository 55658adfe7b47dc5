package vsphere

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// A restore in place by differing extents writes into the VM's own disks. What
// makes that safe is a snapshot, made first: what is written goes into its
// delta, so that until the restore is done a revert brings the old VM back,
// whoever dies when. The record on the VM says which snapshot that is.

// choose takes a transport that writes into disks, where one can be had and
// the image's disks are those that the VM has. Else the disks are swapped.
func (o *overwrite) choose(ctx context.Context) error {
	if o.disk != nil {
		return nil
	}
	own, err := o.s.isProxy(ctx, o.draft.MOID)
	if err != nil {
		return err
	}
	if own {
		return backup.Errorf(backup.PreflightFailed, "in_place", "This server runs in the VM %q, so it cannot put it back in place: restore it to a new VM.", unescapeName(o.vm.Name))
	}
	why := o.uneven()
	switch t := o.s.transport(); t {
	case backup.TransportNFC:
	case backup.TransportAuto, "":
		if why == "" {
			return o.chooseBest(ctx)
		}
	default:
		d, err := o.s.named(ctx, t, o.draft.MOID)
		if err != nil {
			return err
		}
		if why == "" {
			o.way = d
		} else {
			o.messages = append(o.messages, fmt.Sprintf("The disks are replaced whole, not written where they differ: %s.", why))
		}
	}
	return nil
}

// chooseBest takes the first transport that can be had and is worth it.
func (o *overwrite) chooseBest(ctx context.Context) error {
	for _, d := range o.s.directs() {
		if slices.Contains(o.shut, d.name()) || d.missing(ctx, o.draft.MOID) != nil {
			continue
		}
		slow := false
		if d.name() == backup.TransportHotAdd { // which reads what is zero, too
			var err error
			if slow, err = o.mostlyHoles(ctx); err != nil {
				return err
			}
		}
		if !slow {
			o.way = d
			return nil
		}
	}
	return nil
}

// holesFrom is how many times its content a disk has to be as large for the
// comparison of the whole over hot-add to take longer than to bring the content anew.
const holesFrom = 20

// sparseFloor is the size of disks from which that matters.
const sparseFloor = 1 << 40

// mostlyHoles says whether the image's disks hold little of what they could.
func (o *overwrite) mostlyHoles(ctx context.Context) (bool, error) {
	var capacity, held int64
	for _, w := range o.swaps {
		capacity += w.image.Capacity
	}
	if capacity < sparseFloor {
		return false, nil
	}
	for _, w := range o.swaps {
		n, err := footprint(ctx, o.from, w.image, nil)
		if err != nil {
			return false, err
		}
		held += n
	}
	return held < capacity/holesFrom, nil
}

// uneven says why the image cannot be written into the VM's disks; "" = it can.
func (o *overwrite) uneven() string {
	if len(o.swaps) == 0 {
		return "the image and the VM have no disk in common"
	}
	if len(o.extras) > 0 {
		return label(o.extras[0]) + " came to the VM after the image"
	}
	for _, w := range o.swaps {
		switch {
		case w.old == nil:
			return fmt.Sprintf("the VM has no disk %q", w.image.Label)
		case capacity(w.old) != w.image.Capacity:
			return fmt.Sprintf("%s has %d bytes, and in the image %d", label(w.old), capacity(w.old), w.image.Capacity)
		}
		uuid, _ := backing(w.old)
		if _, flat := w.old.Backing.(*types.VirtualDiskFlatVer2BackingInfo); !flat || uuid == "" {
			return label(w.old) + " is of a kind that cannot be attached elsewhere"
		}
	}
	return ""
}

// level is the whole of a restore by differing extents.
func (o *overwrite) level(ctx context.Context, progress func(int64)) error {
	err := o.expose(ctx)
	if err == nil {
		err = errors.Join(o.write(ctx, progress), ctx.Err())
	}
	ctx, release := o.s.decided(ctx)
	defer release()
	if err == nil {
		err = o.finish(ctx)
	}
	if err != nil {
		return o.takeBack(ctx, err)
	}
	failpoint.Hit("level.finished")
	return o.settleLevelled(ctx)
}

// expose writes the intent down, powers the VM off, and makes the snapshot that keeps what it is.
func (o *overwrite) expose(ctx context.Context) error {
	o.record.Old, o.record.New = nil, nil
	o.record.Snapshot, o.record.Tracked = o.draft.Marker, yes(o.vm.Config.ChangeTrackingEnabled)
	if err := o.remember(ctx); err != nil {
		return err
	}
	failpoint.Hit("level.intended")
	if err := o.hold(ctx); err != nil {
		return err
	}
	if o.record.Tracked {
		// What a proxy writes is in no log of changes: the log must end, not go on.
		// The snapshot makes that take effect.
		if err := o.s.setTracking(ctx, o.vm.Self.Value, false); err != nil {
			return err
		}
	}
	err := o.s.createSnapshot(ctx, backup.SnapshotDraft{
		MOID: o.vm.Self.Value, Name: o.draft.Marker, Description: "The VM before kura restored it in place. It is removed by itself.",
	})
	if err != nil {
		return fmt.Errorf("keep the VM as it is: %w", err)
	}
	failpoint.Hit("level.snapshot_made")
	return o.s.reconfigure(ctx, o.vm.Self, types.VirtualMachineConfigSpec{Annotation: warningOf(o.draft.Marker) + "\n" + o.vm.Config.Annotation})
}

// warningOf is the first line of the annotation of a VM whose disks are being written.
func warningOf(marker string) string {
	return fmt.Sprintf("kura: the restore %s is writing the disks of this VM, which are neither old nor new until it ends. Leave it powered off.", marker)
}

// write makes each disk equal to the image's.
func (o *overwrite) write(ctx context.Context, progress func(int64)) (err error) {
	now, err := o.s.vm(ctx, o.vm.Self.Value, []string{"config"})
	if err != nil {
		return err
	}
	w := writeDraft{Marker: o.draft.Marker, MOID: o.vm.Self.Value}
	for _, x := range o.swaps {
		disk, there := find(now.Config.Hardware.Device, x.old.Key)
		if !there {
			return backup.Errorf(backup.Conflict, "", "%s was taken from the VM %q while it was restored: restore again.", label(x.old), unescapeName(o.vm.Name))
		}
		d, err := flatDisk(disk)
		if err != nil {
			return err
		}
		w.Disks = append(w.Disks, d)
	}
	open, err := o.way.write(ctx, w)
	if err != nil {
		o.unopened = err
		return err
	}
	defer func() { err = errors.Join(err, open.close(ctx)) }()
	free, err := o.s.freeBytes(ctx, o.vm.Datastore)
	if err != nil {
		return err
	}
	var before, written int64
	for i, x := range o.swaps {
		image, err := o.from.Disk(ctx, x.image.Key)
		if err != nil {
			return err
		}
		got, err := o.s.level(ctx, w.Disks[i], open.disk(x.old.Key), image, roomOn(free, w.Disks[i].File), func(n int64) { progress(before + n) })
		if err = errors.Join(err, image.Close()); err != nil {
			return err
		}
		failpoint.Hit("level.disk_written")
		before, written = before+got.compared, written+got.written
		free[storeOf(w.Disks[i].File)] -= got.written
	}
	o.messages = append(o.messages, fmt.Sprintf("Over %s, %d bytes were compared and the %d that differed were written.", o.way.name(), before, written))
	return nil
}

// roomOn is how much may be written to a datastore: other VMs stop when it is full.
func roomOn(free map[string]int64, file string) int64 {
	n, known := free[storeOf(file)]
	if !known {
		return math.MaxInt64
	}
	return n - n/10
}

// finish puts the hardware back and strikes the warning out, in one call with
// the record that says that the VM is whole.
func (o *overwrite) finish(ctx context.Context) error {
	if err := o.verifyLevelled(ctx); err != nil {
		return err
	}
	until, err := o.until(ctx)
	if err != nil {
		return err
	}
	o.record.Done, o.record.Until = true, until
	entry, err := keptOption(o.vm.Config, o.record)
	if err != nil {
		return err
	}
	spec := o.hardwareSpec(ctx)
	spec.Annotation = annotation(o.saved.Annotation)
	spec.ExtraConfig = append(spec.ExtraConfig, entry, o.made())
	err = o.s.reconfigure(ctx, o.vm.Self, spec)
	if err == nil || ctx.Err() != nil || unreachable(err) {
		return err
	}
	plain := types.VirtualMachineConfigSpec{Annotation: annotation(o.vm.Config.Annotation), ExtraConfig: []types.BaseOptionValue{entry, o.made()}}
	if again := o.s.reconfigure(ctx, o.vm.Self, plain); again != nil {
		return fmt.Errorf("note that the VM is whole: %w", again)
	}
	o.messages = append(o.messages, fmt.Sprintf("The disks are restored, but vSphere refused to put the hardware back as it was: %v.", err))
	return nil
}

// verifyLevelled makes sure that the VM still has the disks that were written.
func (o *overwrite) verifyLevelled(ctx context.Context) error {
	var vm mo.VirtualMachine
	if err := o.s.read(ctx, o.vm.Self, []string{"config.hardware.device"}, &vm); err != nil {
		return err
	}
	for _, w := range o.swaps {
		d, ok := find(vm.Config.Hardware.Device, w.old.Key)
		if !ok {
			return fmt.Errorf("%q is not on the VM any more", w.image.Label)
		}
		was, _ := backing(w.old)
		if is, _ := backing(d); is != was {
			return fmt.Errorf("%q has the UUID %s now, it had %s", w.image.Label, is, was)
		}
	}
	return nil
}

// takeBack makes the VM what it was, unless it is whole after all: a call
// whose answer was lost may have been heard. What fails here the sweep does.
func (o *overwrite) takeBack(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.s.config.CallTimeout)
	defer cancel()
	vm, err := o.s.vm(ctx, o.vm.Self.Value, []string{"config"})
	if err != nil {
		return fmt.Errorf("the VM is off, and kura gives it its old disks as soon as it can: %w", cause)
	}
	if o.swapped(vm) {
		return fmt.Errorf("the disks are restored, but what follows was not done: %w", cause)
	}
	if err := o.s.rollBack(ctx, o.vm.Self, o.record, o.s.config.GiveUp); err != nil {
		o.s.log.WarnContext(ctx, "VM is left to the sweep", "vm", o.vm.Self.Value, "error", err)
		return fmt.Errorf("the VM is off, and kura gives it its old disks as soon as it can: %w", cause)
	}
	o.back = true
	return fmt.Errorf("the VM has its old disks: %w", cause)
}

// rollBack reverts a VM to the snapshot of a restore that did not end, and
// strikes out all that it had left on the VM. It may be repeated after any end.
func (s *Session) rollBack(ctx context.Context, vm ref, r replaced, patience time.Duration) error {
	if err := s.detachOf(ctx, r.Marker, patience); err != nil {
		return err
	}
	trees, err := s.snapshots(ctx, vm.Value, r.Snapshot)
	if err != nil {
		return err
	}
	if len(trees) > 0 {
		res, err := methods.RevertToSnapshot_Task(ctx, s.client, &types.RevertToSnapshot_Task{This: trees[0].Snapshot, SuppressPowerOn: types.NewBool(true)})
		if err == nil {
			_, err = s.finish(ctx, res.Returnval)
		}
		if err != nil {
			return fmt.Errorf("revert to the snapshot %s: %w", r.Snapshot, err)
		}
	}
	if r.WasOn { // before the record goes: where this fails, or dies here, a sweep goes on
		if err := s.leaveUndo(ctx, vm, r, patience, false); err != nil {
			return err
		}
		if there, err := s.recorded(ctx, vm, r.Marker); err != nil || !there {
			return err
		}
		if err := s.powerOnAgain(ctx, vm); err != nil {
			return err
		}
		failpoint.Hit("level.undone")
	}
	return s.dropUndo(ctx, vm, r, patience)
}

// dropUndo removes the snapshot of a restore in place and the record of it.
func (s *Session) dropUndo(ctx context.Context, self ref, r replaced, patience time.Duration) error {
	return s.leaveUndo(ctx, self, r, patience, true)
}

// leaveUndo removes the snapshot of a restore in place and what it has said on
// the VM, and strikes the record out if the VM owes nothing any more.
func (s *Session) leaveUndo(ctx context.Context, self ref, r replaced, patience time.Duration, strike bool) error {
	if err := s.removeSnapshots(ctx, self.Value, r.Snapshot, patience); err != nil {
		return err
	}
	vm, err := s.vm(ctx, self.Value, []string{"config", "snapshot"})
	if err != nil {
		return err
	}
	list, err := decodeKept(extra(vm.Config, keptKey))
	if err != nil {
		return err
	}
	if strike {
		list = slices.DeleteFunc(list, func(x replaced) bool { return x.Marker == r.Marker })
	}
	entry, err := encodeKept(list)
	if err != nil {
		return err
	}
	spec := types.VirtualMachineConfigSpec{ExtraConfig: []types.BaseOptionValue{entry}}
	if before, ok := strings.CutPrefix(vm.Config.Annotation, warningOf(r.Marker)+"\n"); ok {
		spec.Annotation = annotation(before)
	}
	if r.Tracked && vm.Snapshot == nil {
		spec.ChangeTrackingEnabled = types.NewBool(true)
	}
	return s.reconfigure(ctx, self, spec)
}

// settleLevelled does the rest. The VM is restored by now, so what fails is a
// message, or is found by the sweep.
func (o *overwrite) settleLevelled(ctx context.Context) error {
	s := o.s
	o.putNVRAM(ctx)
	o.messages = append(o.messages, s.restoreAttributes(ctx, o.vm.Self, o.machine)...)
	if o.draft.InPlace.Safety == backup.SafetyQuick {
		o.messages = append(o.messages, fmt.Sprintf("What the VM was is kept in its snapshot %s until %s; while that stands, its changes are not tracked.", o.record.Snapshot, o.record.Until.Format(time.RFC3339)))
	} else if err := s.dropUndo(ctx, o.vm.Self, o.record, s.config.GiveUp); err != nil {
		o.messages = append(o.messages, fmt.Sprintf("The snapshot %s of what the VM was could not be removed yet; kura tries again.", o.record.Snapshot))
		s.log.WarnContext(ctx, "snapshot of a restore is left to the sweep", "vm", o.vm.Self.Value, "error", err)
	}
	failpoint.Hit("level.dropped")
	return o.start(ctx)
}
