package vsphere

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// creating are the descriptions of the tasks that make snapshots.
var creating = []string{"VirtualMachine.createSnapshot", "VirtualMachine.createSnapshotEx"}

// CreateSnapshot implements [backup.VSphereSession].
func (s *Session) CreateSnapshot(ctx context.Context, d backup.SnapshotDraft) (backup.Snapshot, error) {
	doing := fmt.Sprintf("create a snapshot of the VM %s", d.MOID)
	if err := s.settleSnapshots(ctx, d.MOID); err != nil {
		return backup.Snapshot{}, s.problem(doing, err)
	}
	trees, err := s.snapshots(ctx, d.MOID, d.Name)
	if err != nil {
		return backup.Snapshot{}, s.problem(doing, err)
	}
	if len(trees) == 0 {
		if err := s.createSnapshot(ctx, d); err != nil {
			return backup.Snapshot{}, s.problem(doing, quiesceProblem(d, err))
		}
		if trees, err = s.snapshots(ctx, d.MOID, d.Name); err != nil {
			return backup.Snapshot{}, s.problem(doing, err)
		}
	}
	if len(trees) == 0 {
		return backup.Snapshot{}, backup.Errorf(backup.VMBusy, "", "The snapshot of the VM %s was removed by someone right after it was made.", d.MOID)
	}
	snap, err := s.snapshot(ctx, d.MOID, trees[0])
	return snap, s.problem("read the snapshot of the VM "+d.MOID, err)
}

func (s *Session) createSnapshot(ctx context.Context, d backup.SnapshotDraft) error {
	res, err := methods.CreateSnapshot_Task(ctx, s.client, &types.CreateSnapshot_Task{
		This: vmRef(d.MOID), Name: d.Name, Description: d.Description, Quiesce: d.Quiesce,
	})
	if err != nil {
		return err
	}
	failpoint.Hit("snapshot.asked")
	_, err = s.finish(ctx, res.Returnval)
	return err
}

// settleSnapshots waits for the snapshots that are being made of a VM: one of
// them may be ours, of a call whose context ended.
func (s *Session) settleSnapshots(ctx context.Context, moid string) error {
	tasks, err := s.running(ctx, vmRef(moid), creating...)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if _, err := s.finish(ctx, t); err != nil && ctx.Err() != nil {
			return err // the task's own failure is not ours
		}
	}
	return nil
}

// quiesceProblem tells a failed quiescing from other failures: without it the snapshot may work.
func quiesceProblem(d backup.SnapshotDraft, err error) error {
	if !d.Quiesce || backup.AsError(err) != nil || cancelled(err) {
		return err
	}
	_, app := faultOf[*types.ApplicationQuiesceFault](err)
	_, files := faultOf[*types.FilesystemQuiesceFault](err)
	_, tools := faultOf[*types.ToolsUnavailable](err)
	_, memory := faultOf[*types.MemorySnapshotOnIndependentDisk](err)
	text := err.Error()
	if app || files || tools || (!memory && strings.Contains(strings.ToLower(text), "quiesc")) {
		return backup.Errorf(backup.PreflightFailed, "consistency",
			"The guest of the VM %s could not be quiesced: %s Look at VMware Tools and, on Windows, at the VSS writers.", d.MOID, sentence(text)).Because(err)
	}
	return err
}

// snapshots returns the VM's snapshots of that name.
func (s *Session) snapshots(ctx context.Context, moid, name string) ([]types.VirtualMachineSnapshotTree, error) {
	var vm mo.VirtualMachine
	if err := s.read(ctx, vmRef(moid), []string{"snapshot"}, &vm); err != nil || vm.Snapshot == nil {
		return nil, err
	}
	var found []types.VirtualMachineSnapshotTree
	eachSnapshot(vm.Snapshot.RootSnapshotList, func(t types.VirtualMachineSnapshotTree) {
		if unescapeName(t.Name) == name {
			found = append(found, t)
		}
	})
	return found, nil
}

// eachSnapshot goes through a tree, children first: those can be removed without moving others.
func eachSnapshot(trees []types.VirtualMachineSnapshotTree, fn func(types.VirtualMachineSnapshotTree)) {
	for _, t := range trees {
		eachSnapshot(t.ChildSnapshotList, fn)
		fn(t)
	}
}

// snapshot reads what the snapshot itself holds: its disks and configuration,
// which may differ from the VM's by now.
func (s *Session) snapshot(ctx context.Context, moid string, t types.VirtualMachineSnapshotTree) (backup.Snapshot, error) {
	var held mo.VirtualMachineSnapshot
	if err := s.read(ctx, t.Snapshot, []string{"config"}, &held); err != nil {
		return backup.Snapshot{}, err
	}
	vm, err := s.vm(ctx, moid, machineProperties)
	if err != nil {
		return backup.Snapshot{}, err
	}
	vm.Config = &held.Config
	m, config, err := s.machine(ctx, vm)
	if err != nil {
		return backup.Snapshot{}, err
	}
	snap := backup.Snapshot{MOID: moid, Ref: t.Snapshot.Value, Name: unescapeName(t.Name), CreatedAt: t.CreateTime.UTC(), Quiesced: t.Quiesced}
	if snap.Config, err = json.Marshal(config); err != nil {
		return backup.Snapshot{}, fmt.Errorf("encode the configuration of %s: %w", moid, err)
	}
	doubt, err := s.doubts(ctx, vm, t.Snapshot)
	if err != nil {
		return backup.Snapshot{}, err
	}
	for _, d := range held.Config.Hardware.Device {
		disk, ok := d.(*types.VirtualDisk)
		if !ok || slices.ContainsFunc(m.Disks, func(d backup.VMDisk) bool { return d.Key == disk.Key && d.Unprotectable != "" }) {
			continue
		}
		uuid, changeID := backing(disk)
		snap.Disks = append(snap.Disks, backup.DiskDraft{
			Key: disk.Key, Label: label(disk), Capacity: capacity(disk), UUID: uuid, ChangeID: changeID,
			File: fileOf(disk), Doubt: doubt(disk),
		})
	}
	return snap, nil
}

// backing returns the disk's UUID and change id.
func backing(disk *types.VirtualDisk) (uuid, changeID string) {
	switch b := disk.Backing.(type) {
	case *types.VirtualDiskFlatVer2BackingInfo:
		return b.Uuid, b.ChangeId
	case *types.VirtualDiskSeSparseBackingInfo:
		return b.Uuid, b.ChangeId
	case *types.VirtualDiskSparseVer2BackingInfo:
		return b.Uuid, b.ChangeId
	case *types.VirtualDiskRawDiskMappingVer1BackingInfo:
		return b.Uuid, b.ChangeId
	}
	return "", ""
}

// RemoveSnapshot implements [backup.VSphereSession].
func (s *Session) RemoveSnapshot(ctx context.Context, moid, name string) error {
	return s.removeWithin(ctx, moid, name, s.config.GiveUp)
}

// removeWithin is RemoveSnapshot that waits for so long for what blocks it.
func (s *Session) removeWithin(ctx context.Context, moid, name string, patience time.Duration) error {
	err := s.detachOf(ctx, name, patience)
	if err == nil {
		err = s.removeSnapshots(ctx, moid, name, patience)
	}
	err = s.problem(fmt.Sprintf("remove the snapshot %s of the VM %s", name, moid), err)
	if backup.CodeOf(err) == backup.VMGone {
		return nil
	}
	return err
}

func (s *Session) removeSnapshots(ctx context.Context, moid, name string, patience time.Duration) error {
	if err := s.settleSnapshots(ctx, moid); err != nil {
		return err
	}
	trees, err := s.snapshots(ctx, moid, name)
	if err != nil {
		return err
	}
	for _, t := range trees {
		if err := s.insist(ctx, patience, func() error { return s.removeSnapshot(ctx, t.Snapshot) }); err != nil {
			return err
		}
	}
	var vm mo.VirtualMachine
	if err := s.read(ctx, vmRef(moid), []string{"runtime.consolidationNeeded"}, &vm); err != nil || !yes(vm.Runtime.ConsolidationNeeded) {
		return err
	}
	if m, ok := parseMarker(name); ok {
		if err := s.detachFrom(ctx, m.installation, moid, patience); err != nil {
			return err
		}
	}
	return s.consolidate(ctx, moid, patience)
}

func (s *Session) removeSnapshot(ctx context.Context, snapshot ref) error {
	res, err := methods.RemoveSnapshot_Task(ctx, s.client, &types.RemoveSnapshot_Task{This: snapshot, Consolidate: types.NewBool(true)})
	if err == nil {
		failpoint.Hit("snapshot.removing")
		_, err = s.finish(ctx, res.Returnval)
	}
	if f, ok := faultOf[*types.ManagedObjectNotFound](err); ok && f.Obj == snapshot {
		return nil
	}
	return err
}

// consolidate merges what a removal left behind. vSphere refuses it while a
// host still holds a file open, so it is tried until it works.
func (s *Session) consolidate(ctx context.Context, moid string, patience time.Duration) error {
	began := time.Now()
	for n := 0; ; n++ {
		var vm mo.VirtualMachine
		if err := s.read(ctx, vmRef(moid), []string{"runtime.consolidationNeeded"}, &vm); err != nil || !yes(vm.Runtime.ConsolidationNeeded) {
			return err
		}
		if n > 0 && !s.pause(ctx, n-1, began, patience) {
			return errors.Join(ctx.Err(), backup.Errorf(backup.VMBusy, "",
				"The VM %s needs consolidation of its disks, and vSphere does not get it done: its deltas grow until it does.", moid))
		}
		res, err := methods.ConsolidateVMDisks_Task(ctx, s.client, &types.ConsolidateVMDisks_Task{This: vmRef(moid)})
		if err == nil {
			_, err = s.finish(ctx, res.Returnval)
		}
		if _, lost := faultOf[*types.ManagedObjectNotFound](err); lost || ctx.Err() != nil {
			return err
		}
		if err != nil {
			s.log.WarnContext(ctx, "consolidation failed, trying again", "vm", moid, "error", err)
		}
	}
}

// yes reads vSphere's optional booleans.
func yes[T bool | *bool](b T) bool {
	switch v := any(b).(type) {
	case bool:
		return v
	case *bool:
		return v != nil && *v
	}
	return false
}

// insist repeats what another operation on the VM blocks, for as long as patience lasts.
func (s *Session) insist(ctx context.Context, patience time.Duration, fn func() error) error {
	began := time.Now()
	for n := 0; ; n++ {
		err := fn()
		if err == nil || ctx.Err() != nil {
			return err
		}
		_, busy := faultOf[*types.TaskInProgress](err)
		_, race := faultOf[*types.ConcurrentAccess](err)
		_, locked := faultOf[*types.FileLocked](err)
		if !(busy || race || locked) || !s.pause(ctx, n, began, patience) {
			return err
		}
	}
}
