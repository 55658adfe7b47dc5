package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// before makes the image of a VM that a restore is about to overwrite, and
// lists it. Whatever ends this job later, that image stays. An attempt that
// comes after the commit lists it and makes no other.
func (a *attempt) before(ctx context.Context, r restoreJob, session backup.VSphereSession) error {
	if a.note.Image == nil {
		if err := a.imageBefore(ctx, r, session); err != nil {
			return err
		}
	}
	// Only what is noted for sure may be built upon: an attempt that did not know
	// of the image would make it anew, of what the restore has put there.
	failpoint.Hit("restore.before_made")
	if err := a.remember(ctx); err != nil {
		return err
	}
	i := *a.note.Image
	err := a.Store.Update(ctx, func(tx backup.Tx) error {
		if _, err := tx.Image(ctx, i.ID); backup.CodeOf(err) != backup.NotFound {
			return err
		}
		return tx.InsertImage(ctx, i)
	})
	if err != nil {
		return fmt.Errorf("list image %s: %w", i.ID, err)
	}
	failpoint.Hit("restore.before_listed")
	a.say("The VM as it was was backed up first: image %s, kept until %s.", i.ID, i.ExpiresAt.UTC().Format("2006-01-02"))
	return nil
}

// imageBefore makes that image. Its snapshot has to be gone before the VM can
// be overwritten.
func (a *attempt) imageBefore(ctx context.Context, r restoreJob, session backup.VSphereSession) (err error) {
	b := &backupJob{attempt: a, spec: *r.spec.Before, vcenter: r.vcenter, vm: r.vm, session: session}
	err = a.Store.View(ctx, func(tx backup.Tx) (err error) {
		b.record, err = tx.Repository(ctx, b.spec.RepositoryID)
		return err
	})
	if err != nil {
		return err
	}
	if b.repo, err = a.Repositories.Repository(ctx, b.record); err != nil {
		return err
	}
	a.begin(ctx, "checking")
	if b.machine, err = session.Machine(ctx, b.vm.MOID); err != nil {
		return err
	}
	if err := r.refuse(b.machine, a.Installation); err != nil {
		return err
	}
	if err := b.preflight(); err != nil {
		return err
	}
	if a.note.ImageID == "" {
		a.note.ImageID = backup.NewID(a.Now())
	}
	a.note.MOID = b.vm.MOID
	if err := a.remember(ctx); err != nil { // which snapshot may be made stands there already
		return err
	}
	err = b.make(ctx)
	if lost(ctx, err) {
		return err
	}
	rctx, cancel := a.outlive(ctx)
	defer cancel()
	rctx, release := context.WithTimeout(rctx, removeTime)
	defer release()
	if rerr := session.RemoveSnapshot(rctx, b.vm.MOID, a.marker()); err == nil && rerr != nil {
		err = fmt.Errorf("remove the snapshot: %w", rerr)
	}
	return err
}

// refuse looks before the long read whether the VM may be overwritten at all,
// and whether what would be overwritten can be kept.
func (r restoreJob) refuse(m backup.Machine, installation string) error {
	if m.PowerState != backup.PoweredOff && !r.spec.InPlace.PowerOff {
		return backup.Errorf(backup.VMRunning, "in_place.power_off", "VM %q is not powered off. Power it off, or set power_off = true.", m.Name)
	}
	// What an earlier restore keeps of the VM is a snapshot of ours.
	foreign := slices.DeleteFunc(slices.Clone(m.SnapshotNames), func(n string) bool { return strings.HasPrefix(n, "kura:"+installation+":") })
	if len(foreign) > 0 {
		return backup.Errorf(backup.PreflightFailed, "", "VM %q has snapshots (first: %q), which a restore in place would destroy: remove them first, or restore to a new VM.", m.Name, foreign[0])
	}
	for _, d := range m.Disks {
		restored := func(i backup.ImageDisk) bool { return i.Key == d.Key && i.SkippedReason == "" }
		if d.Unprotectable != "" && slices.ContainsFunc(r.image.Disks, restored) {
			return backup.Errorf(backup.Unprotectable, "in_place.safety", "%s of VM %q would be overwritten and cannot be backed up first: %s. Choose safety = \"quick\".", d.Label, m.Name, d.Unprotectable)
		}
	}
	return nil
}
