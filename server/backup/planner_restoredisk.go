package backup

import (
	"context"
	"fmt"
)

// checkDisk checks the restore of one disk: what can be told without asking
// the vcenter.
func (p *Planner) checkDisk(ctx context.Context, tx Tx, r Restore, t *restoreTarget) (err error) {
	if _, err := r.Disk.Choose(t.image.Disks); err != nil {
		return err
	}
	t.vm, err = tx.Machine(ctx, r.Disk.VMID)
	switch {
	case err != nil:
		return at("disk.virtual_machine_id", err)
	case t.vm.Gone():
		return Errorf(VMGone, "disk.virtual_machine_id", "VM %q is no longer in its vcenter, so it can take no disk. Name another VM, or restore the image with new_vm.", t.vm.Name)
	}
	if t.vcenter, err = tx.VCenter(ctx, t.vm.VCenterID); err != nil {
		return err
	}
	if r.Disk.Mode == DiskReplace {
		if t.vm.VCenterID != t.image.VCenterID {
			return Errorf(Invalid, "disk.virtual_machine_id", "VM %q is of another vcenter than the image: a disk can be replaced only in the vcenter in which the image was made. Use mode = \"attach\".", t.vm.Name)
		}
		if t.vm.PowerState != PoweredOff && !p.asks(*t) { // the vcenter knows better
			return Errorf(VMRunning, "disk.mode", "VM %q is not powered off, and its disk cannot be replaced while it runs. Power it off, or use mode = \"attach\".", t.vm.Name)
		}
	}
	return checkIdle(ctx, tx, "disk.virtual_machine_id", t.vm, true)
}

// oneDiskOnly says whether the job puts back one disk: several of one VM may be
// asked for at once, and go one after the other.
func oneDiskOnly(ctx context.Context, tx Tx, j Job) bool {
	if j.Kind != KindRestore {
		return false
	}
	r, err := tx.Restore(ctx, j.RestoreID)
	return err == nil && r.Disk != nil
}

// diskWarnings tell what the restore of one disk will do.
func (t restoreTarget) diskWarnings(r RestoreDisk, at string) []string {
	disk, err := r.Choose(t.image.Disks)
	if err != nil {
		return nil
	}
	if r.Mode == DiskAttach {
		return []string{fmt.Sprintf("VM %q gets one more disk: %q of %q as it was at %s. A guest that has the same file systems mounted already sees them twice.", t.vm.Name, disk.Label, t.image.VMName, at)}
	}
	w := []string{fmt.Sprintf("%q of VM %q will be replaced as it was at %s; what was written to it since is lost. If the system is on it, the root and Administrator passwords of that time are valid again.", disk.Label, t.vm.Name, at)}
	if t.vm.ID != t.image.VMID {
		w = append(w, fmt.Sprintf("The image is of another VM (%q) than the one whose disk is replaced (%q).", t.image.VMName, t.vm.Name))
	}
	return w
}
