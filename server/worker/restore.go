package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// restoreJob is a restore under way.
type restoreJob struct {
	spec    backup.RestoreSpec
	image   backup.Image
	vcenter backup.VCenter
	record  backup.RepositoryRecord
	vm      backup.VirtualMachine // the one that is overwritten or gets the disk; zero for a new VM
}

func (a *attempt) openRestore(ctx context.Context) (r restoreJob, err error) {
	if err := json.Unmarshal(a.job.Spec, &r.spec); err != nil {
		return r, fmt.Errorf("spec: %w", err)
	}
	return r, a.Store.View(ctx, func(tx backup.Tx) (err error) {
		if r.image, err = tx.Image(ctx, r.spec.ImageID); err != nil {
			return err
		}
		if r.vcenter, err = tx.VCenter(ctx, r.spec.VCenterID); err != nil {
			return err
		}
		if r.record, err = tx.Repository(ctx, r.image.RepositoryID); err != nil {
			return err
		}
		switch {
		case r.spec.InPlace != nil:
			r.vm, err = tx.Machine(ctx, r.image.VMID)
		case r.spec.Disk != nil:
			r.vm, err = tx.Machine(ctx, r.spec.Disk.VMID)
		}
		return err
	})
}

// restore puts one image back.
func (a *attempt) restore(ctx context.Context) (ending, error) {
	a.begin(ctx, "connecting")
	r, err := a.openRestore(ctx)
	if err != nil {
		return ending{}, err
	}
	if a.note.Restored != nil { // by an attempt that could not say so any more
		return a.restored(ctx, r.spec, *a.note.Restored, r.image), nil
	}
	repo, err := a.Repositories.Repository(ctx, r.record)
	if err != nil {
		return ending{}, err
	}
	session, err := a.VSphere.Connect(ctx, r.vcenter)
	if err != nil {
		return ending{}, err
	}
	if len(a.note.Markers) > 0 {
		if err := a.sweepOne(ctx, session); err != nil {
			return ending{}, err
		}
	}
	reader, err := repo.Image(ctx, r.image.Ref)
	if err != nil {
		return ending{}, err
	}
	defer func() {
		if err := reader.Close(); err != nil {
			a.log.WarnContext(ctx, "image not closed", "error", err)
		}
	}()
	a.note.Markers = append(a.note.Markers, a.marker())
	if err := a.remember(ctx); err != nil {
		return ending{}, err
	}
	failpoint.Hit("restore.intended")
	if r.spec.Before != nil {
		if err := a.before(ctx, r, session); err != nil {
			return ending{}, fmt.Errorf("back the VM up before it is overwritten: %w", err)
		}
	}
	done, err := a.put(ctx, session, r.spec, r.vm.MOID, reader)
	if err != nil {
		return ending{}, err
	}
	failpoint.Hit("restore.done")
	a.note.Restored = &done
	if err := a.remember(context.WithoutCancel(ctx)); err != nil {
		a.log.WarnContext(ctx, "restored VM not noted", "error", err)
	}
	failpoint.Hit("restore.noted")
	return a.restored(ctx, r.spec, done, reader.Manifest().Image), nil
}

// put moves the bytes and returns the VM that holds them.
func (a *attempt) put(ctx context.Context, s backup.VSphereSession, spec backup.RestoreSpec, moid string, from backup.ImageReader) (backup.RestoredVM, error) {
	a.expect(restorable(spec, from.Manifest().Image))
	a.begin(ctx, "writing disks")
	var vm backup.RestoredVM
	var messages []string
	var err error
	switch {
	case spec.NewVM != nil:
		vm, messages, err = s.ImportVM(ctx, backup.ImportDraft{Marker: a.marker(), NewVM: *spec.NewVM}, from, a.progress)
	case spec.InPlace != nil:
		vm, messages, err = s.OverwriteVM(ctx, backup.OverwriteDraft{Marker: a.marker(), MOID: moid, InPlace: *spec.InPlace}, from, a.progress)
	case spec.Disk != nil:
		vm, messages, err = s.RestoreDisk(ctx, backup.DiskRestoreDraft{Marker: a.marker(), MOID: moid, Disk: *spec.Disk}, from, a.progress)
	default:
		err = errors.New("the restore has no target")
	}
	for _, m := range messages {
		a.say("%s", m)
	}
	return vm, err
}

// restorable counts the bytes that are going to be put back.
func restorable(spec backup.RestoreSpec, i backup.Image) (total int64) {
	if spec.Disk != nil {
		if d, err := spec.Disk.Choose(i.Disks); err == nil {
			return d.Capacity
		}
		return 0 // it is refused in a moment
	}
	for _, d := range i.Disks {
		if d.SkippedReason == "" {
			total += d.Capacity
		}
	}
	return total
}

// restored stores the result with the job's end, and asks for the inventory
// that has the VM in it.
func (a *attempt) restored(ctx context.Context, spec backup.RestoreSpec, vm backup.RestoredVM, of backup.Image) ending {
	bytes := restorable(spec, of)
	a.progress(bytes)
	ctx = context.WithoutCancel(ctx) // the VM is whole: a stop that comes now is too late
	if _, err := a.Planner.SyncVCenter(ctx, spec.VCenterID); err != nil {
		a.log.WarnContext(ctx, "inventory not asked for", "error", err)
	}
	return ending{state: backup.JobSucceeded, also: func(tx backup.Tx) error {
		r, err := tx.Restore(ctx, spec.RestoreID)
		if backup.CodeOf(err) == backup.NotFound {
			return nil // forgotten while it ran; the job keeps the outcome
		}
		if err != nil {
			return err
		}
		r.Result, r.Bytes = vm, bytes
		return tx.UpdateRestore(ctx, r)
	}}
}

// sweepOne removes what earlier attempts of this job left in a vcenter. What
// others left is the sweep's work, and no reason against this job.
func (a *attempt) sweepOne(ctx context.Context, s backup.VSphereSession) error {
	a.begin(ctx, "removing what an earlier attempt left")
	removed, err := s.Sweep(ctx, a.Installation, func(job string, attempt int) bool {
		return job != a.job.ID || attempt >= a.job.Attempt
	})
	for _, line := range removed {
		a.log.InfoContext(ctx, "left-over removed", "what", line)
	}
	if err != nil {
		return fmt.Errorf("remove what an earlier attempt left: %w", err)
	}
	return nil
}
