package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// backupJob is a backup under way.
type backupJob struct {
	*attempt
	spec    backup.BackupSpec
	vcenter backup.VCenter
	record  backup.RepositoryRecord
	base    backup.Image // the image before; zero = none
	vm      backup.VirtualMachine

	session  backup.VSphereSession
	repo     backup.Repository
	machine  backup.Machine
	tracking backup.Tracking
	snap     backup.Snapshot
	image    backup.Image
	apart    string // why the image is not of the instant of its group; "" = it is
	hung     bool   // vSphere may still be making the snapshot

	gate   gate          // through which the reading goes
	waited time.Duration // for slow datastores, before the snapshot
}

// backup makes one image of one VM.
func (a *attempt) backup(ctx context.Context) (ending, error) {
	b := &backupJob{attempt: a}
	defer b.repay(ctx)
	if a.note.Image != nil {
		b.image = *a.note.Image
		b.resume(ctx)
		return b.settle(ctx)
	}
	if err := b.open(ctx); err != nil {
		return gone(err)
	}
	if err := b.clear(ctx); err != nil {
		return ending{}, err
	}
	if e, err := b.share(ctx); err != nil || e.imageID != "" {
		if err == nil && b.note.Frozen != nil {
			b.removeSnapshot(ctx)
		}
		return e, err
	}
	a.begin(ctx, "checking")
	var err error
	if b.machine, err = b.session.Machine(ctx, b.vm.MOID); err != nil {
		return gone(err)
	}
	b.retake()
	if err := b.check(); err != nil {
		return ending{}, err
	}
	if err := b.quiet(ctx); err != nil {
		return ending{}, err
	}
	if err := b.intend(ctx); err != nil {
		return ending{}, err
	}
	failpoint.Hit("backup.intended")
	err = b.make(ctx)
	b.repay(ctx) // before a snapshot is removed, which may take long
	// Whatever happened, the snapshot goes; when our lease is lost it is the
	// next owner's, and clear() there knows its name.
	if !lost(ctx, err) && !b.keeps(ctx, err) {
		b.removeSnapshot(ctx)
	}
	switch {
	case err != nil && b.snap.Ref == "":
		return gone(err)
	case err != nil:
		return ending{}, err
	}
	return b.settle(ctx)
}

// done lists the image with the job's end, and gives it to the jobs that wait
// to make the same one.
func (b *backupJob) done(ctx context.Context) ending {
	ctx = context.WithoutCancel(ctx) // the image is committed: a stop that comes now is too late
	e := ending{state: backup.JobSucceeded, imageID: b.image.ID}
	if b.image.Status == backup.ImageDamaged {
		e = ending{state: backup.JobFailed, code: backup.RepositoryDamaged, message: b.image.Message, imageID: b.image.ID}
	}
	e.also = func(tx backup.Tx) error { return b.list(ctx, tx) }
	return e
}

// share ends the job with the image that another schedule's has made in the
// same window, where there is one: then no snapshot is needed.
func (b *backupJob) share(ctx context.Context) (ending, error) {
	var i backup.Image
	var text string
	err := b.Store.View(ctx, func(tx backup.Tx) (err error) {
		if i, err = backup.SharedImage(ctx, tx, *b.job); err == nil && i.ID != "" {
			text, err = backup.SharingText(ctx, tx, i)
		}
		return err
	})
	if err != nil || i.ID == "" {
		return ending{}, err
	}
	locked, err := b.lockShared(ctx, i)
	if err != nil {
		return ending{}, err
	}
	b.say("%s", text)
	e := ending{state: backup.JobSucceeded, imageID: i.ID, also: func(tx backup.Tx) error {
		if !locked.IsZero() {
			if err := tx.SetStorageLock(ctx, []string{i.ID}, locked); err != nil {
				return err
			}
		}
		return backup.ShareImage(ctx, tx, *b.job, i.ID)
	}}
	if i.StartedAt.Before(b.job.StartedAt) {
		e.started = i.StartedAt
	}
	return e, nil
}

// resume ends what an attempt left that committed its image and could not say
// so: the snapshot goes, now or with the next sweep.
func (b *backupJob) resume(ctx context.Context) {
	b.note.Frozen = nil // nobody reads it any more
	err := b.open(ctx)
	if err == nil {
		err = b.clear(ctx)
	}
	if err != nil && backup.CodeOf(err) != backup.VMGone {
		b.log.WarnContext(ctx, "snapshot of an earlier attempt not removed yet", "error", err)
		b.say(snapshotStays, because(err))
	}
}

// gone makes a VM that has left its vcenter the end of the job, not its failure (seed N61).
func gone(err error) (ending, error) {
	if backup.CodeOf(err) == backup.VMGone {
		return ending{state: backup.JobSkipped, code: backup.VMGone, message: backup.AsError(err).Message}, nil
	}
	return ending{}, err
}

// open reads what the job is about and connects to both sides.
func (b *backupJob) open(ctx context.Context) error {
	b.begin(ctx, "connecting")
	if err := json.Unmarshal(b.job.Spec, &b.spec); err != nil {
		return fmt.Errorf("spec: %w", err)
	}
	err := b.Store.View(ctx, func(tx backup.Tx) (err error) {
		if b.vcenter, err = tx.VCenter(ctx, b.job.VCenterID); err != nil {
			return err
		}
		if b.vm, err = tx.Machine(ctx, b.job.VMID); err != nil {
			return err
		}
		if b.record, err = tx.Repository(ctx, b.spec.RepositoryID); err != nil {
			return err
		}
		if b.spec.Full || b.note.NoBase {
			return nil
		}
		b.base, err = tx.LastImage(ctx, b.job.VMID, b.spec.RepositoryID)
		if backup.CodeOf(err) == backup.NotFound {
			err = nil
		}
		return err
	})
	if err != nil {
		return err
	}
	if b.vm.Gone() {
		return backup.Errorf(backup.VMGone, "", "VM %q is no longer in vcenter %s.", b.vm.Name, b.vcenter.Name)
	}
	if b.repo, err = b.Repositories.Repository(ctx, b.record); err != nil {
		return err
	}
	b.session, err = b.VSphere.Connect(ctx, b.vcenter)
	return err
}

// patience is how long a job waits for what an earlier attempt left. The export
// lease of a killed server holds its snapshot for minutes: the sweep removes
// that later, and the job goes on with a snapshot of its own.
const patience = 10 * time.Second

// clear removes what earlier attempts of this job left in the vcenter.
func (b *backupJob) clear(ctx context.Context) error {
	var left []string
	for _, name := range b.note.Markers {
		if b.note.Frozen != nil && name == b.note.Frozen.Name {
			left = append(left, name)
			continue
		}
		b.begin(ctx, "removing the snapshot of an earlier attempt")
		cctx, cancel := context.WithTimeout(ctx, min(patience, b.SnapshotTime))
		err := b.session.RemoveSnapshot(cctx, b.note.MOID, name)
		cancel()
		if ctx.Err() != nil {
			return fmt.Errorf("remove snapshot %s: %w", name, err)
		}
		if err != nil {
			left = append(left, name)
			b.log.WarnContext(ctx, "snapshot of an earlier attempt not removed yet", "snapshot", name, "error", err)
		}
	}
	b.note.Markers = left
	failpoint.Hit("backup.cleared")
	return nil
}

// intend writes down which snapshot is going to be made, before it is.
func (b *backupJob) intend(ctx context.Context) error {
	if b.note.ImageID == "" {
		b.note.ImageID = backup.NewID(b.Now())
	}
	b.note.MOID = b.vm.MOID
	if name := b.snapshotName(); !slices.Contains(b.note.Markers, name) {
		b.note.Markers = append(b.note.Markers, name)
	}
	if failpoint.Without("intent") {
		return nil
	}
	return b.remember(ctx)
}

// make takes the snapshot and commits an image of it.
func (b *backupJob) make(ctx context.Context) error {
	started := b.Now()
	track, take := b.track, b.snapshot
	if b.note.Frozen != nil {
		b.repay(ctx) // an earlier attempt had no time for it
		started, track, take = b.note.Frozen.At, b.trackFrozen, b.takeFrozen
	}
	if err := track(ctx); err != nil {
		return err
	}
	failpoint.Hit("backup.tracked")
	if err := take(ctx); err != nil {
		return err
	}
	failpoint.Hit("backup.snapshot_made")
	err := b.write(ctx, started)
	if b.baseLess(ctx, err) {
		err = b.write(ctx, started)
	}
	return err
}

// write commits an image of the snapshot.
func (b *backupJob) write(ctx context.Context, started time.Time) error {
	keys := b.keys()
	w, err := b.repo.Begin(ctx, backup.ImageDraft{ImageID: b.note.ImageID, VCenterUUID: b.vcenter.InstanceUUID, InstanceUUID: b.vm.InstanceUUID,
		VMName: b.vm.Name, PointInTime: b.snap.CreatedAt, BaseRef: b.base.Ref})
	if err != nil {
		return err
	}
	defer func() {
		actx, cancel := b.outlive(ctx)
		defer cancel()
		w.Abort(actx)
	}()
	b.image = b.newImage(started)
	if err := b.guarded(ctx, func(ctx context.Context) error { return b.read(ctx, w, keys) }); err != nil {
		return err
	}
	b.begin(ctx, "committing")
	if len(b.machine.NVRAM) > 0 {
		if err := w.File(ctx, "vm.nvram", b.machine.NVRAM); err != nil {
			return err
		}
	}
	b.image.EndedAt = b.Now()
	b.image.Summarize()
	m := backup.Manifest{FormatVersion: backup.ManifestVersion, Image: b.image, Installation: b.Installation,
		VCenterUUID: b.vcenter.InstanceUUID, Machine: b.machine.Config}
	if len(b.snap.Config) > 0 { // what the disks are of, should the VM have changed since it was checked
		m.Machine = b.snap.Config
	}
	failpoint.Hit("backup.image_ready")
	done, err := w.Commit(ctx, m)
	if err != nil {
		return fmt.Errorf("commit image: %w", errors.Join(err, errAtCommit))
	}
	failpoint.Hit("backup.image_committed")
	b.image.Ref, b.image.Sizes = done.Ref, done.Sizes
	b.tellHealed(done.Healed)
	if err := b.noteImage(ctx, &b.image); err != nil {
		return err
	}
	failpoint.Hit("backup.image_noted")
	return nil
}

// snapshot makes the vSphere snapshot, quiesced where that was asked for.
func (b *backupJob) snapshot(ctx context.Context) error {
	b.begin(ctx, "making the snapshot")
	d := backup.SnapshotDraft{MOID: b.vm.MOID, Name: b.snapshotName(), Description: "Made by kura for one backup; it is removed when that ends."}
	d.Quiesce = b.app() && b.machine.PowerState == backup.PoweredOn // a VM that is off is consistent (seed N56, H7)
	b.image.Consistency = backup.ConsistencyCrash
	take := b.createSnapshot
	switch {
	case b.spec.Consistency == backup.ConsistencyOffline:
		take = b.offline
	case d.Quiesce:
		take = b.quiesced
	case b.app() && b.machine.PowerState == backup.PoweredOff:
		b.image.Consistency = backup.ConsistencyApp
	}
	var err error
	if b.snap, err = take(ctx, d); err != nil {
		return fmt.Errorf("create snapshot: %w", err)
	}
	return nil
}

// keys lists the device keys of the disks to read, in order.
func (b *backupJob) keys() []int32 {
	var keys []int32
	for _, d := range b.snap.Disks {
		skipped := slices.ContainsFunc(b.machine.Disks, func(m backup.VMDisk) bool { return m.Key == d.Key && m.Unprotectable != "" })
		if b.spec.Disks.Chosen(d.Label) && !skipped {
			keys = append(keys, d.Key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (b *backupJob) newImage(started time.Time) backup.Image {
	i := backup.Image{ID: b.note.ImageID, Project: b.job.Project, VCenterID: b.vcenter.ID, VMID: b.vm.ID, VMName: b.machine.Name, VMMOID: b.vm.MOID,
		VMInstanceUUID: b.vm.InstanceUUID, ScheduleID: b.spec.ScheduleID, GroupID: b.spec.GroupID, RunID: b.job.RunID, JobID: b.job.ID,
		RepositoryID: b.record.ID, StartedAt: started, PointInTime: b.snap.CreatedAt, ExpiresAt: backup.ExpiresAt(started, b.spec.Retention),
		Status: backup.ImageGood, Consistency: b.image.Consistency, Labels: b.spec.Labels, Message: b.apart}
	if b.spec.Lock {
		i.LockedUntil = backup.LockedUntil(i.ExpiresAt)
	}
	for _, d := range b.machine.Disks {
		if b.spec.Disks.Chosen(d.Label) && d.Unprotectable != "" {
			i.Status = backup.ImagePartial
			i.Sizes.Provisioned += d.Capacity
			i.Disks = append(i.Disks, backup.ImageDisk{Key: d.Key, Label: d.Label, Capacity: d.Capacity, SkippedReason: d.Unprotectable})
		}
	}
	return i
}

// snapshotStays is said of a snapshot that could not be removed.
const snapshotStays = "The snapshot could not be removed yet (%s); the server keeps trying."

// removeTime is how long a removal may take: vSphere merges what the guest has
// written meanwhile.
const removeTime = 10 * time.Minute

// removeSnapshot removes the job's snapshot, within cleanupTime when the job
// was stopped. If it cannot, the sweep goes on trying, and the job says so.
func (b *backupJob) removeSnapshot(ctx context.Context) {
	if b.hung {
		return // a removal would wait for that task; a sweep removes what comes of it
	}
	b.begin(ctx, "removing the snapshot")
	rctx, cancel := b.outlive(ctx)
	defer cancel()
	unhook := context.AfterFunc(ctx, func() {
		if lost(ctx, nil) {
			cancel() // it is the next owner's now
		}
	})
	defer unhook()
	rctx, release := context.WithTimeout(rctx, removeTime)
	defer release()
	if err := b.session.RemoveSnapshot(rctx, b.vm.MOID, b.snapshotName()); err != nil {
		b.log.WarnContext(rctx, "snapshot not removed", "error", err)
		b.say(snapshotStays, because(err))
	}
	failpoint.Hit("backup.snapshot_removed")
}
