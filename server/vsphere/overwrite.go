package vsphere

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// overwrite is a restore in place on its way. The image's disks come to a
// staging VM first; the VM itself changes in one call, so that at every
// moment it has either all its old disks or all the new ones.
type overwrite struct {
	s        *Session
	draft    backup.OverwriteDraft
	disk     *backup.RestoreDisk // the only one that is restored; nil = the whole VM is
	from     backup.ImageReader
	machine  MachineConfig
	saved    *types.VirtualMachineConfigInfo
	vm       mo.VirtualMachine // as it was at the start
	dc       ref
	dcPath   string
	swaps    []swap
	extras   []*types.VirtualDisk // came to the VM after the image; they are let go of
	wasOn    bool
	staging  ref
	whole    bool               // an earlier attempt of the job has done it all
	way      direct             // by which the disks are written where they differ; nil = they are swapped
	shut     []backup.Transport // that have turned out to be unable to write
	unopened error              // why way could not open the disks
	back     bool               // all that was done is undone
	record   replaced
	messages []string
}

// swap is one disk that is replaced, or brought back.
type swap struct {
	image  backup.ImageDisk
	saved  *types.VirtualDisk
	old    *types.VirtualDisk // nil: the VM has lost it
	staged string             // where its new content lies at the moment
	final  string             // where it will lie
	policy string             // id of the storage policy of the disk that is replaced; "" = none
	fresh  bool               // it comes as one more disk, with an identity of its own
}

// at is the device whose place the new disk takes.
func (w swap) at() *types.VirtualDisk {
	if w.old != nil {
		return w.old
	}
	return w.saved
}

// OverwriteVM implements [backup.VSphereSession].
func (s *Session) OverwriteVM(ctx context.Context, r backup.OverwriteDraft, from backup.ImageReader, progress func(int64)) (backup.RestoredVM, []string, error) {
	doing := "overwrite the VM " + r.MOID
	o, err := s.planOverwrite(ctx, r, from)
	if err == nil && o.whole {
		err = o.resume(ctx)
		return o.result(), o.messages, s.problem(doing, err)
	}
	if err == nil && len(o.superseded()) > 0 {
		if err = o.supersede(ctx); err == nil {
			o, err = s.planOverwrite(ctx, r, from)
		}
	}
	if err != nil {
		return backup.RestoredVM{}, nil, s.problem(doing, err)
	}
	for o.way != nil {
		err := o.level(ctx, progress)
		if err == nil || !o.hasOther(ctx) {
			return o.result(), o.messages, s.problem(doing, err)
		}
		if o, err = o.otherwise(ctx); err != nil {
			return backup.RestoredVM{}, nil, s.problem(doing, err)
		}
	}
	if err := errors.Join(o.bring(ctx, progress), ctx.Err()); err != nil {
		return backup.RestoredVM{}, o.messages, s.problem(doing, o.undo(ctx, err))
	}
	ctx, release := s.decided(ctx)
	defer release()
	if err := o.swap(ctx); err != nil {
		return backup.RestoredVM{}, o.messages, s.problem(doing, o.undo(ctx, err))
	}
	failpoint.Hit("swap.swapped")
	err = o.settle(ctx)
	return o.result(), o.messages, s.problem(doing, err)
}

// result is the VM as it is known from now on, which is as before.
func (o *overwrite) result() backup.RestoredVM {
	return backup.RestoredVM{MOID: o.draft.MOID, InstanceUUID: o.vm.Config.InstanceUuid, BIOSUUID: o.vm.Config.Uuid, Name: unescapeName(o.vm.Name)}
}

// planOverwrite looks at everything that can be refused before anything is changed.
func (s *Session) planOverwrite(ctx context.Context, r backup.OverwriteDraft, from backup.ImageReader, shut ...backup.Transport) (*overwrite, error) {
	o, m, err := s.readOverwrite(ctx, r, from)
	if err != nil {
		return nil, err
	}
	o.shut = shut
	if o.whole = o.resumes(); o.whole {
		return o, nil
	}
	if err := o.refuse(); err != nil {
		return nil, err
	}
	o.pair(m)
	if err := o.choose(ctx); err != nil || o.way != nil {
		return o, err
	}
	return o, o.space(ctx)
}

// readOverwrite reads the image's configuration and the VM as it stands.
func (s *Session) readOverwrite(ctx context.Context, r backup.OverwriteDraft, from backup.ImageReader) (*overwrite, marker, error) {
	m, ok := parseMarker(r.Marker)
	if !ok {
		return nil, m, fmt.Errorf("%q is no marker", r.Marker)
	}
	o := &overwrite{s: s, draft: r, from: from}
	var err error
	if o.machine, o.saved, err = decodeMachine(from.Manifest().Machine); err != nil {
		return nil, m, err
	}
	if o.vm, err = s.vm(ctx, r.MOID, []string{"name", "parent", "parentVApp", "resourcePool", "config", "runtime", "snapshot", "datastore"}); err != nil {
		return nil, m, err
	}
	if o.dc, o.dcPath, err = s.datacenterOf(ctx, o.vm); err != nil {
		return nil, m, err
	}
	o.wasOn = o.vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
	o.record = replaced{Marker: o.draft.Marker, WasOn: o.wasOn}
	return o, m, nil
}

// refuse says why the VM cannot be overwritten as it stands.
func (o *overwrite) refuse() error {
	name := unescapeName(o.vm.Name)
	if o.vm.Snapshot != nil {
		names, _ := snapshotNames(o.vm.Snapshot.RootSnapshotList)
		names = slices.DeleteFunc(names, func(n string) bool {
			return slices.ContainsFunc(o.superseded(), func(r replaced) bool { return r.Snapshot == n })
		})
		if left := o.leftOvers(names); left != "" {
			return backup.Errorf(backup.VMBusy, "", "Kura still removes a snapshot of the VM %q that another job has left (%s): try again in a minute. If it stays, another installation of Kura made it.", name, left)
		}
		if len(names) > 0 {
			return backup.Errorf(backup.PreflightFailed, "", "The VM %q has snapshots (%s), which a restore in place would destroy: remove them first, or restore to a new VM.", name, strings.Join(names, ", "))
		}
	}
	switch {
	case yes(o.vm.Runtime.ConsolidationNeeded):
		return backup.Errorf(backup.PreflightFailed, "", "The disks of the VM %q need consolidation: consolidate them first, or restore to a new VM.", name)
	case o.vm.Config.Template:
		return backup.Errorf(backup.PreflightFailed, "", "%q is a template: convert it to a VM first, or restore to a new VM.", name)
	case faultTolerant(o.vm.Runtime.FaultToleranceState):
		return backup.Errorf(backup.PreflightFailed, "", "The VM %q is protected by Fault Tolerance: turn that off first, or restore to a new VM.", name)
	case o.vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff && o.disk != nil:
		return backup.Errorf(backup.VMRunning, "disk.mode", "The VM %q is not powered off, and its disk cannot be replaced while it runs: power it off, or use mode = \"attach\".", name)
	case o.vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff && !o.draft.InPlace.PowerOff:
		return backup.Errorf(backup.VMRunning, "in_place.power_off", "The VM %q is not powered off: power it off, or set power_off = true.", name)
	case o.vm.ResourcePool == nil:
		return backup.Errorf(backup.PreflightFailed, "", "The VM %q lies in no resource pool.", name)
	}
	return nil
}

// leftOvers names a snapshot of ours, if the VM has no others: a sweep removes it.
func (o *overwrite) leftOvers(names []string) string {
	own, _ := parseMarker(o.draft.Marker)
	for _, n := range names {
		if m, ours := parseMarker(n); !ours || o.draft.Marker != lookMarker && m.installation != own.installation {
			return ""
		}
	}
	return strings.Join(names, ", ")
}

// pair finds for each disk of the image the VM's disk that it replaces.
func (o *overwrite) pair(m marker) {
	now := o.vm.Config.Hardware.Device
	for _, d := range present(o.from.Manifest().Image.Disks) {
		w := swap{image: d}
		w.saved, _ = find(o.saved.Hardware.Device, d.Key)
		w.old, _ = find(now, d.Key)
		if w.at() == nil {
			continue // neither the VM nor the image's configuration knows it
		}
		folder := o.vm.Config.Files.VmPathName
		if w.old != nil {
			folder = fileOf(w.old)
		}
		w.final = inFolderOf(folder, fmt.Sprintf("%s-%d.vmdk", m.fileName(), d.Key))
		o.swaps = append(o.swaps, w)
	}
	for _, d := range now {
		disk, ok := d.(*types.VirtualDisk)
		if !ok || slices.ContainsFunc(o.swaps, func(w swap) bool { return w.image.Key == disk.Key }) {
			continue
		}
		if _, then := find(o.saved.Hardware.Device, disk.Key); then {
			o.messages = append(o.messages, fmt.Sprintf("%s is not in the image and was left as it is.", label(disk)))
			continue
		}
		o.extras = append(o.extras, disk)
		o.messages = append(o.messages, fmt.Sprintf("%s came to the VM after the image; it was detached, its file is still at %s.", label(disk), fileOf(disk)))
	}
	o.list()
}

// list takes the files that come and go into the record.
func (o *overwrite) list() {
	for _, w := range o.swaps {
		o.record.New = append(o.record.New, w.final)
		if w.old != nil {
			o.record.Old = append(o.record.Old, fileOf(w.old))
		}
	}
}

// space makes sure that the new disks fit beside the old ones.
func (o *overwrite) space(ctx context.Context) error {
	if len(o.swaps) == 0 {
		return backup.Errorf(backup.Conflict, "", "The image and the VM %q have no disk in common.", unescapeName(o.vm.Name))
	}
	need := map[string]int64{}
	for _, w := range o.swaps {
		n, err := footprint(ctx, o.from, w.image, w.at())
		if err != nil {
			return err
		}
		need[storeOf(w.final)] += n
	}
	free, err := o.s.freeBytes(ctx, o.vm.Datastore)
	if err != nil {
		return err
	}
	for store, n := range need {
		if f, known := free[store]; known && f < n {
			return backup.Errorf(backup.NoSpace, "", "The restored disks need %s beside the old ones, and the datastore %s has %s free: free some, or restore to a new VM elsewhere.",
				backup.SizeText(n), store, backup.SizeText(f))
		}
	}
	return nil
}

// remember writes the record onto the VM.
func (o *overwrite) remember(ctx context.Context) error {
	entry, err := keptOption(o.vm.Config, o.record)
	if err != nil {
		return err
	}
	err = o.s.reconfigure(ctx, o.vm.Self, types.VirtualMachineConfigSpec{ExtraConfig: []types.BaseOptionValue{entry}})
	if err != nil {
		return fmt.Errorf("note the restore on the VM: %w", err)
	}
	return nil
}

// undo puts away what was brought, unless the swap took place after all: a
// call whose answer was lost may have been heard. What fails here the sweep finds.
func (o *overwrite) undo(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.s.config.CallTimeout)
	defer cancel()
	if o.staging != (ref{}) {
		if err := o.s.destroyMarked(ctx, o.staging, o.draft.Marker); err != nil {
			o.s.log.WarnContext(ctx, "staging VM is left to the sweep", "vm", o.staging.Value, "error", err)
		}
	}
	vm, err := o.s.vm(ctx, o.vm.Self.Value, []string{"config", "runtime.powerState"})
	if err != nil {
		return fmt.Errorf("the VM may be left powered off: %w", cause)
	}
	if o.swapped(vm) {
		return fmt.Errorf("the disks were swapped, but what follows was not done: %w", cause)
	}
	if o.wasOn && vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff {
		if err := o.s.powerOnAgain(ctx, vm.Self); err != nil { // by its record a sweep goes on with it
			return fmt.Errorf("the VM has its old disks, but could not be powered on yet: %w", cause)
		}
	}
	if extra(vm.Config, keptKey) != "" {
		if err := o.s.forget(ctx, vm.Self, o.draft.Marker, o.record.New); err != nil {
			o.s.log.WarnContext(ctx, "new disks are left to the sweep", "vm", vm.Self.Value, "error", err)
		}
	}
	return fmt.Errorf("the VM has its old disks: %w", cause)
}

// swapped says whether the record of this restore on the VM is that of a done one.
func (o *overwrite) swapped(vm mo.VirtualMachine) bool {
	list, err := decodeKept(extra(vm.Config, keptKey))
	return err == nil && slices.ContainsFunc(list, func(r replaced) bool { return r.Marker == o.draft.Marker && r.Done })
}

// until is how long the replaced disks are kept.
func (o *overwrite) until(ctx context.Context) (time.Time, error) {
	now, err := o.s.keptNow(ctx)
	if o.draft.InPlace.Safety == backup.SafetyQuick {
		now = now.Add(o.s.config.KeepDisks)
	}
	return now.UTC(), err
}

func baseNames(files []string) string {
	names := make([]string, 0, len(files))
	for _, f := range files {
		names = append(names, path.Base(datastorePath(f)))
	}
	return strings.Join(names, ", ")
}
