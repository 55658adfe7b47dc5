package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// backupJob is a backup under way.
type backupJob struct {
	*attempt
	spec    backup.BackupSpec
	vcenter backup.VCenter
	record  backup.RepositoryRecord
	base    backup.Image // the image before; zero = none
	vm      backup.VirtualMachine

	session backup.VSphereSession
	repo    backup.Repository
	machine backup.Machine
	snap    backup.Snapshot
	image   backup.Image
}

// backup makes one image of one VM.
func (a *attempt) backup(ctx context.Context) (ending, error) {
	b := &backupJob{attempt: a}
	if err := b.open(ctx); err != nil {
		return gone(err)
	}
	if err := b.clear(ctx); err != nil {
		return ending{}, err
	}
	a.begin(ctx, "checking")
	var err error
	if b.machine, err = b.session.Machine(ctx, b.vm.MOID); err != nil {
		return gone(err)
	}
	if err := b.preflight(); err != nil {
		return ending{}, err
	}
	if err := b.intend(ctx); err != nil {
		return ending{}, err
	}
	err = b.make(ctx)
	// Whatever happened, the snapshot goes; when our lease is lost it is the
	// next owner's, and clear() there knows its name.
	if !errors.Is(context.Cause(ctx), backup.ErrLeaseLost) {
		b.removeSnapshot(ctx)
	}
	if err != nil {
		return ending{}, err
	}
	ctx = context.WithoutCancel(ctx) // the image is committed: a stop that comes now is too late
	return ending{state: backup.JobSucceeded, imageID: b.image.ID, also: func(tx backup.Tx) error {
		return tx.InsertImage(ctx, b.image)
	}}, nil
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
	for _, name := range b.note.Markers {
		b.begin(ctx, "removing the snapshot of an earlier attempt")
		cctx, cancel := context.WithTimeout(ctx, patience)
		err := b.session.RemoveSnapshot(cctx, b.note.MOID, name)
		cancel()
		if ctx.Err() != nil {
			return fmt.Errorf("remove snapshot %s: %w", name, err)
		}
		if err != nil {
			b.log.WarnContext(ctx, "snapshot of an earlier attempt not removed yet", "snapshot", name, "error", err)
		}
	}
	return nil
}

// maxChain is how deep a snapshot chain may be: vSphere ends at 32.
const maxChain = 30

// spaceFactor of the disks and the memory must be free for the snapshot (seed N54).
const spaceFactor = 0.20

// preflight refuses what could not work or would hurt the VM.
func (b *backupJob) preflight() error {
	m := b.machine
	if m.Template {
		return backup.Errorf(backup.Unprotectable, "", "%q is a template; convert it to a VM to back it up.", m.Name)
	}
	if m.ConsolidationNeeded {
		return backup.Errorf(backup.PreflightFailed, "", "The disks of VM %q need consolidation. Consolidate them in vSphere, then run the backup again.", m.Name)
	}
	if m.SnapshotDepth > maxChain {
		return backup.Errorf(backup.PreflightFailed, "", "VM %q has a chain of %d snapshots; one more could stop it. Remove some first (at most %d).", m.Name, m.SnapshotDepth, maxChain)
	}
	foreign := slices.DeleteFunc(slices.Clone(m.SnapshotNames), func(n string) bool { return strings.HasPrefix(n, "kura:") })
	if len(foreign) > 0 {
		b.say("VM has %d snapshots of others (first: %q); they slow it down and are left as they are.", len(foreign), foreign[0])
	}
	if err := b.checkDisks(); err != nil {
		return err
	}
	return b.checkSpace()
}

// checkDisks finds the disks that vSphere cannot snapshot: never silent (seed N7, A8, H10).
func (b *backupJob) checkDisks() error {
	chosen := 0
	for _, d := range b.machine.Disks {
		if !b.spec.Disks.Chosen(d.Label) {
			continue
		}
		chosen++
		if d.Unprotectable == "" {
			continue
		}
		if b.spec.Unprotect != backup.UnprotectedSkip {
			return backup.Errorf(backup.Unprotectable, "", "%s of VM %q cannot be backed up: %s. Exclude it by its label, or set unprotectable_disks = \"skip\".", d.Label, b.machine.Name, d.Unprotectable)
		}
		b.say("%s was skipped: %s.", d.Label, d.Unprotectable)
	}
	if chosen == 0 && len(b.machine.Disks) > 0 {
		return backup.Errorf(backup.Unprotectable, "", "None of the %d disks of VM %q is chosen by the schedule's include_labels and exclude_labels.", len(b.machine.Disks), b.machine.Name)
	}
	return nil
}

func (b *backupJob) checkSpace() error {
	need := map[string]int64{}
	for i, d := range b.machine.Disks {
		ds := datastore(d.File)
		need[ds] += int64(float64(d.Capacity) * spaceFactor)
		if i == 0 {
			need[ds] += int64(float64(b.machine.MemoryMiB<<20) * spaceFactor)
		}
	}
	for ds, n := range need {
		if free, known := b.machine.FreeBytes[ds]; known && free < n {
			return backup.Errorf(backup.NoSpace, "", "Datastore %q has %s free, and a snapshot of VM %q needs %s (%.0f %% of disks and memory). Free some space.",
				ds, bytesText(free), b.machine.Name, bytesText(n), spaceFactor*100)
		}
	}
	return nil
}

// datastore returns the name in "[name] folder/file.vmdk".
func datastore(file string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(file, "["), "]")
	return name
}

// intend writes down which snapshot is going to be made, before it is.
func (b *backupJob) intend(ctx context.Context) error {
	if b.note.ImageID == "" {
		b.note.ImageID = backup.NewID(b.Now())
	}
	b.note.MOID = b.vm.MOID
	b.note.Markers = append(b.note.Markers, b.marker())
	return b.remember(ctx)
}

// make takes the snapshot and commits an image of it.
func (b *backupJob) make(ctx context.Context) error {
	started := b.Now()
	if err := b.snapshot(ctx); err != nil {
		return err
	}
	keys := b.keys()
	w, err := b.repo.Begin(ctx, backup.ImageDraft{ImageID: b.note.ImageID, VCenterUUID: b.vcenter.InstanceUUID, InstanceUUID: b.vm.InstanceUUID,
		VMName: b.vm.Name, PointInTime: b.snap.CreatedAt, BaseRef: b.base.Ref})
	if err != nil {
		return err
	}
	defer w.Abort(context.WithoutCancel(ctx))
	b.image = b.newImage(started)
	if err := b.read(ctx, w, keys); err != nil {
		return err
	}
	b.begin(ctx, "committing")
	if len(b.machine.NVRAM) > 0 {
		if err := w.File(ctx, "vm.nvram", b.machine.NVRAM); err != nil {
			return err
		}
	}
	b.image.EndedAt = b.Now()
	m := backup.Manifest{FormatVersion: backup.ManifestVersion, Image: b.image, Installation: b.Installation,
		VCenterUUID: b.vcenter.InstanceUUID, Machine: b.machine.Config}
	if b.image.Ref, err = w.Commit(ctx, m); err != nil {
		return fmt.Errorf("commit image: %w", err)
	}
	return nil
}

// snapshot makes the vSphere snapshot, quiesced where that was asked for.
func (b *backupJob) snapshot(ctx context.Context) error {
	b.begin(ctx, "making the snapshot")
	d := backup.SnapshotDraft{MOID: b.vm.MOID, Name: b.marker(), Description: "Made by kura for one backup; it is removed when that ends."}
	app := b.spec.Consistency == backup.ConsistencyApp || b.spec.Consistency == backup.ConsistencyAppRequired
	if b.spec.Consistency == backup.ConsistencyOffline {
		return backup.Errorf(backup.PreflightFailed, "consistency", "This server cannot shut guests down for a backup: use crash, app or app_required.")
	}
	d.Quiesce = app && b.machine.PowerState == backup.PoweredOn // a VM that is off is consistent (seed N56, H7)
	s, err := b.session.CreateSnapshot(ctx, d)
	if d.Quiesce && b.spec.Consistency == backup.ConsistencyApp && backup.CodeOf(err) == backup.PreflightFailed {
		b.say("The guest could not be quiesced (%s), so the image is crash-consistent.", strings.TrimSuffix(backup.AsError(err).Message, "."))
		d.Quiesce = false
		s, err = b.session.CreateSnapshot(ctx, d)
	}
	if err != nil {
		return fmt.Errorf("create snapshot: %w", err)
	}
	b.snap = s
	b.image.Consistency = backup.ConsistencyCrash
	if d.Quiesce || app && b.machine.PowerState == backup.PoweredOff {
		b.image.Consistency = backup.ConsistencyApp
	}
	return nil
}

// keys lists the device keys of the disks to read, in order.
func (b *backupJob) keys() []int32 {
	var keys []int32
	for _, d := range b.snap.Disks {
		if b.spec.Disks.Chosen(d.Label) {
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
		Status: backup.ImageGood, Consistency: b.image.Consistency, ChangeDetection: backup.DetectFull, Labels: b.spec.Labels}
	if b.base.Ref != "" {
		i.ChangeDetection = backup.DetectCompare
	}
	if b.spec.Lock {
		i.LockedUntil = i.ExpiresAt
	}
	for _, d := range b.machine.Disks {
		if !b.spec.Disks.Chosen(d.Label) {
			continue
		}
		i.Sizes.Provisioned += d.Capacity
		if d.Unprotectable != "" {
			i.Status = backup.ImagePartial
			i.Disks = append(i.Disks, backup.ImageDisk{Key: d.Key, Label: d.Label, Capacity: d.Capacity, SkippedReason: d.Unprotectable})
		}
	}
	return i
}

// read copies the disks from the snapshot into the image.
func (b *backupJob) read(ctx context.Context, w backup.ImageWriter, keys []int32) (err error) {
	b.begin(ctx, "reading disks")
	src, err := b.session.ReadDisks(ctx, b.snap, keys)
	if err != nil {
		return fmt.Errorf("open disks: %w", err)
	}
	defer func() {
		if cerr := src.Close(context.WithoutCancel(ctx)); err == nil && cerr != nil {
			err = fmt.Errorf("close disks: %w", cerr)
		}
	}()
	var total, before int64
	for _, d := range b.snap.Disks {
		if slices.Contains(keys, d.Key) {
			total += d.Capacity
		}
	}
	b.expect(total)
	for _, d := range b.snap.Disks {
		if !slices.Contains(keys, d.Key) {
			continue
		}
		if err := b.readDisk(ctx, w, src, d, before); err != nil {
			return fmt.Errorf("%s: %w", d.Label, err)
		}
		before += d.Capacity
		b.progress(before)
	}
	return nil
}

func (b *backupJob) readDisk(ctx context.Context, w backup.ImageWriter, src backup.DiskSource, d backup.DiskDraft, before int64) error {
	dw, err := w.Disk(ctx, d)
	if err != nil {
		return err
	}
	read, err := src.ReadDisk(ctx, d.Key, meter{dw, func(end int64) { b.progress(before + end) }})
	if err != nil {
		return err
	}
	disk, err := dw.Close(ctx)
	if err != nil {
		return err
	}
	disk.Read = read
	b.image.Disks = append(b.image.Disks, disk)
	b.image.Sizes.Read += read
	b.image.Sizes.Stored += disk.Stored
	return nil
}

// meter tells how far into the disk the writing has come.
type meter struct {
	io.WriterAt
	at func(end int64)
}

func (m meter) WriteAt(p []byte, off int64) (int, error) {
	n, err := m.WriterAt.WriteAt(p, off)
	m.at(off + int64(n))
	return n, err
}

// removeSnapshot removes the job's snapshot also when the job was stopped. If
// it cannot, the sweep goes on trying, and the job says so.
func (b *backupJob) removeSnapshot(ctx context.Context) {
	b.begin(ctx, "removing the snapshot")
	limit := 10 * time.Minute
	if ctx.Err() != nil {
		limit = cleanupTime
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := b.session.RemoveSnapshot(ctx, b.vm.MOID, b.marker()); err != nil {
		b.log.WarnContext(ctx, "snapshot not removed", "error", err)
		b.say("The snapshot could not be removed yet (%v); the server keeps trying.", err)
	}
}

func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1024, 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[u])
}
