package vsphere

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// trackedFrom is the hardware version from which changed block tracking works.
const trackedFrom = 7

var trackingProperties = []string{"capability.changeTrackingSupported", "config.changeTrackingEnabled", "config.version", "snapshot"}

// TrackChanges implements [backup.VSphereSession].
func (s *Session) TrackChanges(ctx context.Context, moid string) (backup.Tracking, error) {
	vm, err := s.vm(ctx, moid, trackingProperties)
	if err != nil {
		return backup.Tracking{}, err
	}
	if yes(vm.Config.ChangeTrackingEnabled) {
		return backup.Tracking{On: true}, nil
	}
	if why := untrackable(vm); why != "" {
		return backup.Tracking{Reason: why}, nil
	}
	if err := s.setTracking(ctx, moid, true); err != nil {
		return s.untracked(err)
	}
	return backup.Tracking{On: true, Fresh: true}, nil
}

// ResetTracking implements [backup.VSphereSession].
func (s *Session) ResetTracking(ctx context.Context, moid, name string) (backup.Tracking, error) {
	vm, err := s.vm(ctx, moid, trackingProperties)
	if err != nil {
		return backup.Tracking{}, err
	}
	if why := untrackable(vm); why != "" {
		return backup.Tracking{On: yes(vm.Config.ChangeTrackingEnabled), Reason: why}, nil
	}
	if yes(vm.Config.ChangeTrackingEnabled) {
		if err := s.setTracking(ctx, moid, false); err != nil {
			return s.untracked(err)
		}
	}
	err = s.createSnapshot(ctx, backup.SnapshotDraft{MOID: moid, Name: name, Description: "Made by kura to reset changed block tracking; it is removed at once."})
	if err != nil {
		return s.untracked(s.problem("create a snapshot of the VM "+moid, err))
	}
	if err := s.RemoveSnapshot(ctx, moid, name); err != nil {
		return backup.Tracking{}, err // while it stands, nothing can be switched on, and it would be taken for the job's own
	}
	if err := s.setTracking(ctx, moid, true); err != nil {
		return s.untracked(err)
	}
	return backup.Tracking{On: true, Fresh: true}, nil
}

// untrackable says why tracking cannot be switched on; "" = it can.
func untrackable(vm mo.VirtualMachine) string {
	version, err := strconv.Atoi(strings.TrimPrefix(vm.Config.Version, "vmx-"))
	switch {
	case err == nil && version < trackedFrom: // seed:W9
		return fmt.Sprintf("the VM has hardware version %d, and vSphere tracks changes from version %d on", version, trackedFrom)
	case !vm.Capability.ChangeTrackingSupported:
		return "vSphere does not support it for this VM"
	case vm.Snapshot != nil && len(vm.Snapshot.RootSnapshotList) > 0:
		return fmt.Sprintf("the VM has the snapshot %q, and it must have none when tracking is switched on", unescapeName(vm.Snapshot.RootSnapshotList[0].Name))
	}
	return ""
}

func (s *Session) setTracking(ctx context.Context, moid string, on bool) error {
	doing := "switch changed block tracking on for the VM " + moid
	if !on {
		doing = "switch changed block tracking off for the VM " + moid
	}
	res, err := methods.ReconfigVM_Task(ctx, s.client, &types.ReconfigVM_Task{
		This: vmRef(moid), Spec: types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(on)},
	})
	if err == nil {
		_, err = s.finish(ctx, res.Returnval)
	}
	return s.problem(doing, err)
}

// untracked makes a reason of what only keeps tracking from being switched on.
func (s *Session) untracked(err error) (backup.Tracking, error) {
	e := backup.AsError(err)
	if e == nil || e.Code == backup.VCenterUnreachable || e.Code == backup.Unavailable || e.Code == backup.VMGone {
		return backup.Tracking{}, err
	}
	return backup.Tracking{Reason: phrase(e.Message)}, nil
}

// phrase is a sentence as a part of another.
func phrase(sentence string) string {
	return strings.TrimSuffix(strings.TrimSpace(sentence), ".")
}
