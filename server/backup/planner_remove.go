package backup

import (
	"context"
	"fmt"
)

// Remover deletes VMs that restores have made.
type Remover interface {
	// RemoveVM deletes the VM with its files. It does so only if the VM has that
	// instance UUID and is powered off; disks outside its folder are detached and
	// stay. One that is gone is no error. Errors: Conflict (another VM has that
	// managed object id), VMRunning, VCenterUnreachable.
	RemoveVM(ctx context.Context, v VCenter, moid, instanceUUID string) error
}

// DeleteRestoredVM deletes the VM that a restore has made new, for a test that
// is over. Errors: NotFound, Conflict (the restore made none), VMRunning,
// Unavailable.
func (p *Planner) DeleteRestoredVM(ctx context.Context, restoreID string) error {
	var r Restore
	var v VCenter
	err := p.Store.View(ctx, func(tx Tx) (err error) {
		if r, err = tx.Restore(ctx, restoreID); err != nil {
			return err
		}
		if r.NewVM == nil || r.Result.InstanceUUID == "" {
			return Errorf(Conflict, "delete_restored_vm", "Restore %s has made no VM that could be deleted.", restoreID)
		}
		v, err = restoredIn(ctx, tx, r)
		return err
	})
	if err != nil {
		return err
	}
	if p.Remover == nil {
		return Errorf(Unavailable, "", "This server does not reach vcenters: ask one that does.")
	}
	if err := p.Remover.RemoveVM(ctx, v, r.Result.MOID, r.Result.InstanceUUID); err != nil {
		return fmt.Errorf("delete the VM of restore %s: %w", restoreID, err)
	}
	return nil
}

// restoredIn is the vcenter that a restore made its VM in.
func restoredIn(ctx context.Context, tx Tx, r Restore) (VCenter, error) {
	if r.NewVM.VCenterID != "" {
		return tx.VCenter(ctx, r.NewVM.VCenterID)
	}
	j, err := tx.Job(ctx, r.JobID)
	if err != nil {
		return VCenter{}, err
	}
	return tx.VCenter(ctx, j.VCenterID)
}
