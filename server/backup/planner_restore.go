package backup

import (
	"context"
	"encoding/json"
	"fmt"
)

// CreateRestore checks r and starts it. With r.Token set, a restore of that
// token that still runs is joined, and a success that nobody was told of is
// returned; after that the token starts anew. Errors: Invalid, NotFound, and
// those of CheckRestore.
func (p *Planner) CreateRestore(ctx context.Context, r Restore) (Restore, error) {
	if err := r.Validate(); err != nil {
		return Restore{}, err
	}
	if _, err := p.CheckRestore(ctx, r); err != nil {
		return Restore{}, fmt.Errorf("restore of image %s: %w", r.ImageID, err)
	}
	var done Restore
	err := p.Store.Update(ctx, func(tx Tx) error {
		old, err := joined(ctx, tx, r)
		if err != nil {
			return err
		}
		if old != nil {
			done = *old
			return nil
		}
		c := r
		if err := p.startRestore(ctx, tx, &c); err != nil {
			return err
		}
		done = c
		return nil
	})
	if err != nil {
		return Restore{}, fmt.Errorf("restore of image %s: %w", r.ImageID, err)
	}
	p.wake()
	return done, nil
}

// joined returns the restore of r's token that still runs, or whose success
// nobody was told of; nil = there is none. A token stands for what was asked for
// with it: who asks for something else must not be told that it is done.
func joined(ctx context.Context, tx Tx, r Restore) (*Restore, error) {
	if r.Token == "" {
		return nil, nil
	}
	old, err := tx.RestoreByToken(ctx, r.Token)
	switch {
	case CodeOf(err) == NotFound:
		return nil, nil
	case err != nil:
		return nil, err
	case old.State.Final() && (old.State != JobSucceeded || old.Delivered):
		return nil, nil
	case !old.sameWish(r):
		return nil, Errorf(Conflict, "", "The Idempotency-Key is that of restore %s (%s), which is of another image or to another place. Use another key.", old.ID, old.State)
	}
	return &old, nil
}

// sameWish says whether both put the same image back in the same way.
func (r Restore) sameWish(o Restore) bool {
	mine, err := json.Marshal([]any{r.ImageID, r.InPlace, r.NewVM, r.Disk})
	if err != nil {
		return false
	}
	theirs, err := json.Marshal([]any{o.ImageID, o.InPlace, o.NewVM, o.Disk})
	return err == nil && string(mine) == string(theirs)
}

// CheckRestore says whether CreateRestore would do with r now, and warns of
// what that would do (seed N66, N71, N80). Where this server reaches vcenter and
// repository, both are asked. Errors: Invalid, NotFound, VMGone, VMRunning, VMBusy,
// RepositoryDamaged, Conflict, PreflightFailed, NoSpace, VCenterUnreachable, RepositoryUnreachable.
func (p *Planner) CheckRestore(ctx context.Context, r Restore) ([]string, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	var old *Restore
	var t restoreTarget
	err := p.Store.View(ctx, func(tx Tx) (err error) {
		if old, err = joined(ctx, tx, r); err != nil || old != nil {
			return err
		}
		t, err = p.checkRestore(ctx, tx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	if old != nil {
		return []string{fmt.Sprintf("Restore %s of the same is %s: it is joined, no other one starts.", old.ID, old.State)}, nil
	}
	seen, err := p.preflight(ctx, r, &t)
	if err != nil {
		return nil, err
	}
	return append(t.warnings(r), seen...), nil
}

// restoreTarget is what a restore works on.
type restoreTarget struct {
	image   Image
	repo    RepositoryRecord
	vcenter VCenter
	vm      VirtualMachine   // the one that is overwritten or gets the disk; zero for a new VM
	before  RepositoryRecord // where the VM is backed up before it is overwritten; zero = it is not
}

func (t restoreTarget) warnings(r Restore) []string {
	at := t.image.PointInTime.UTC().Format("2006-01-02 15:04 UTC")
	if r.Disk != nil {
		return t.diskWarnings(*r.Disk, at)
	}
	if r.NewVM != nil {
		return []string{fmt.Sprintf("VM %q will be made of %q as it was at %s. The passwords of that time are valid in it.", r.NewVM.Name, t.image.VMName, at)}
	}
	w := []string{fmt.Sprintf("VM %q will be overwritten as it was at %s; what was written since is lost. The root and Administrator passwords of that time are valid again.", t.vm.Name, at)}
	if r.InPlace != nil && r.InPlace.PowerOff && t.vm.PowerState == PoweredOn {
		w = append(w, fmt.Sprintf("VM %q is running and will be powered off.", t.vm.Name))
	}
	if t.before.ID != "" {
		w = append(w, fmt.Sprintf("VM %q is backed up in full to the repository %q first; that image is kept for %d days.", t.vm.Name, t.before.Name, SafetyDays))
	}
	return w
}

func (p *Planner) checkRestore(ctx context.Context, tx Tx, r Restore) (t restoreTarget, err error) {
	if t.image, err = tx.Image(ctx, r.ImageID); err != nil {
		return t, at("image_id", err)
	}
	if t.image.Status != ImageGood && t.image.Status != ImagePartial {
		return t, Errorf(RepositoryDamaged, "image_id", "Image %s is %s and cannot be restored. Choose another image of %q.", t.image.ID, t.image.Status, t.image.VMName)
	}
	if t.repo, err = tx.Repository(ctx, t.image.RepositoryID); err != nil {
		return t, err
	}
	if r.Disk != nil {
		err = p.checkDisk(ctx, tx, r, &t)
		return t, err
	}
	vcenterID := t.image.VCenterID
	if r.NewVM != nil && r.NewVM.VCenterID != "" {
		vcenterID = r.NewVM.VCenterID
	}
	if vcenterID == "" && r.NewVM == nil {
		return t, vmGone(t.image)
	}
	if vcenterID == "" { // a rebuild of the catalogue found the image, which was made elsewhere
		return t, Errorf(Invalid, "new_vm.vcenter_id", "The vcenter in which image %s was made is not known here: name the one to restore to.", t.image.ID)
	}
	if t.vcenter, err = tx.VCenter(ctx, vcenterID); err != nil {
		return t, at("new_vm.vcenter_id", err)
	}
	if r.NewVM != nil {
		return t, checkNewVM(r, t)
	}
	if err := p.checkInPlace(ctx, tx, r, &t); err != nil || r.InPlace.Safety != SafetyImage {
		return t, err
	}
	t.before, err = p.repositoryBefore(ctx, tx, t.repo)
	return t, err
}

// repositoryBefore is where a VM is backed up before it is overwritten: where
// the image lies, or where that can only be read, the default repository.
func (p *Planner) repositoryBefore(ctx context.Context, tx Tx, r RepositoryRecord) (RepositoryRecord, error) {
	if !r.ReadOnly && !r.Foreign(p.Installation) {
		return r, nil
	}
	def, err := FindRepository(ctx, tx, "")
	if err == nil && (def.ReadOnly || def.Foreign(p.Installation)) {
		err = Errorf(Conflict, "in_place.safety", "The repository %q can only be read from here, so the VM cannot be backed up first: choose safety = \"quick\".", def.Name)
	}
	return def, at("in_place.safety", err)
}

func checkNewVM(r Restore, t restoreTarget) error {
	if r.NewVM.PreserveIdentity && t.vcenter.ID == t.image.VCenterID && r.NewVM.Name == t.image.VMName {
		return Errorf(Conflict, "new_vm.name", "A new VM that keeps the identity of %q needs another name than it, or use in_place.", t.image.VMName)
	}
	return nil
}

func vmGone(i Image) error {
	return Errorf(VMGone, "in_place", "VM %q is no longer in its vcenter, so it cannot be overwritten. Restore the image with new_vm instead.", i.VMName)
}

func (p *Planner) checkInPlace(ctx context.Context, tx Tx, r Restore, t *restoreTarget) (err error) {
	if t.vm, err = tx.Machine(ctx, t.image.VMID); err != nil && CodeOf(err) != NotFound {
		return err
	}
	if err != nil || t.vm.Gone() {
		return vmGone(t.image)
	}
	if t.vm.PowerState == PoweredOn && !r.InPlace.PowerOff && !p.asks(*t) { // the vcenter knows better
		return Errorf(VMRunning, "in_place.power_off", "VM %q is running. Power it off, or set power_off = true.", t.vm.Name)
	}
	return checkIdle(ctx, tx, "in_place", t.vm, false)
}

// checkIdle refuses a VM on which a job runs; other kinds do not touch it. With
// joins, the restore of one disk is no reason: what is asked for waits for it.
func checkIdle(ctx context.Context, tx Tx, field string, vm VirtualMachine, joins bool) error {
	for _, kind := range []JobKind{KindBackup, KindRestore} {
		active, _, err := tx.Jobs(ctx, JobFilter{Kind: kind, VMID: vm.ID, State: JobRunning, Page: Page{Limit: 1}})
		if err != nil {
			return err
		}
		if len(active) > 0 && !(joins && oneDiskOnly(ctx, tx, active[0])) {
			return Errorf(VMBusy, field, "VM %q has a running %s job (%s). Wait for it or cancel it.", vm.Name, kind, active[0].ID)
		}
	}
	return nil
}

func (p *Planner) startRestore(ctx context.Context, tx Tx, r *Restore) error {
	t, err := p.checkRestore(ctx, tx, *r)
	if err != nil {
		return err
	}
	now := tx.Now()
	j := newJob(now, KindRestore)
	r.ID, r.Project, r.JobID, r.State, r.CreatedAt = NewID(now), DefaultProject, j.ID, JobQueued, now
	j.RestoreID, j.ImageID, j.VCenterID, j.VMID, j.VMName = r.ID, r.ImageID, t.vcenter.ID, t.vm.ID, t.image.VMName
	spec := RestoreSpec{RestoreID: r.ID, ImageID: r.ImageID, VCenterID: t.vcenter.ID, InPlace: r.InPlace, NewVM: r.NewVM, Disk: r.Disk}
	j.Needs = []string{reachVCenter(t.vcenter), reachRepository(t.repo)}
	if t.before.ID != "" {
		spec.Before = &BackupSpec{Consistency: ConsistencyCrash, Unprotect: UnprotectedSkip, RepositoryID: t.before.ID, Retention: SafetyDays, Full: true}
		if t.before.ID != t.repo.ID {
			j.Needs = append(j.Needs, reachRepository(t.before))
		}
	}
	if j.Spec, err = json.Marshal(spec); err != nil {
		return fmt.Errorf("spec of restore %s: %w", r.ID, err)
	}
	j.Keys = t.keys(*r)
	if err := tx.InsertJob(ctx, j); err != nil {
		return err
	}
	return tx.InsertRestore(ctx, *r)
}

// keys lists what the restore counts against: the limits of any job on its VM,
// and the restores of its resource pool (seed N77).
func (t restoreTarget) keys(r Restore) []JobKey {
	l := t.vcenter.Limits.Defaulted()
	pool := t.vm.ResourcePool
	if r.NewVM != nil {
		pool = r.NewVM.ResourcePool
	}
	keys := []JobKey{{Name: "pool:" + t.vcenter.ID + "/" + pool, Weight: 1, Max: l.RestoresPerPool}}
	if r.NewVM != nil {
		return append(keys, JobKey{Name: "vcenter:" + t.vcenter.ID, Weight: min(max(1, len(t.image.Disks)), l.Disks), Max: l.Disks})
	}
	return append(keys, keysOf(t.vcenter, t.vm)...)
}

// DeleteRestore forgets a restore and cancels it when it still runs; it
// touches no VM. Errors: NotFound.
func (p *Planner) DeleteRestore(ctx context.Context, id string) error {
	return p.Store.Update(ctx, func(tx Tx) error {
		r, err := tx.Restore(ctx, id)
		if err != nil {
			return err
		}
		if !r.State.Final() {
			if _, err := tx.CancelJob(ctx, r.JobID); err != nil {
				return err
			}
		}
		return tx.DeleteRestore(ctx, id)
	})
}
