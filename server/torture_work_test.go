//go:build failpoints && linux

package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// work is something that users have a server do, and that comes to its good
// end however often servers are killed meanwhile.
type work struct {
	name string
	run  func(*torture) error
	// slow works wait for what servers do only now and then.
	slow bool
}

// works are all kinds of traffic.
func works() []work {
	over := func(t api.Transport) func(*torture) error {
		return func(r *torture) error { return r.backUp(t, api.BackupOptions{RetentionDays: 31}) }
	}
	inPlace := func(t api.Transport, s api.Safety) func(*torture) error {
		return func(r *torture) error {
			return r.restoreOver(t, api.Restore{InPlace: &api.RestoreInPlace{PowerOff: true, PowerOn: true, Safety: s}})
		}
	}
	return []work{
		{name: "backup over nfc", run: over(api.TransportNfc)},
		{name: "backup over hotadd", run: over(api.TransportHotadd)},
		{name: "backup offline", run: func(r *torture) error {
			return r.backUp(api.TransportNfc, api.BackupOptions{RetentionDays: 31, Consistency: api.ConsistencyOffline})
		}},
		{name: "backup of a group", run: (*torture).backUpGroup},
		{name: "restore to a new VM", run: (*torture).restoreNew},
		{name: "restore in place by disks", run: inPlace(api.TransportNfc, api.SafetyNone)},
		{name: "restore in place by areas", run: inPlace(api.TransportHotadd, api.SafetyNone)},
		{name: "restore in place behind a backup", run: inPlace(api.TransportNfc, api.SafetyImage)},
		{name: "restore of a disk", run: (*torture).restoreDisk},
		{name: "copy", run: (*torture).copyImage},
		{name: "verification", run: (*torture).verifyImage},
		{name: "deletion", run: (*torture).deleteImage},
		{name: "collection", run: (*torture).collectRepository},
		{name: "catalogue", run: (*torture).rebuildCatalogue},
		{name: "inventory", run: (*torture).syncInventory},
		{name: "bookings", run: (*torture).book},
		{name: "locks", run: (*torture).lockImages},
		{name: "first start", run: (*torture).firstStart},
		{name: "debt", run: (*torture).owe, slow: true},
	}
}

// job waits for a job to end well.
func (r *torture) job(id string) (api.Job, error) {
	var j api.Job
	for end := time.Now().Add(patience); ; time.Sleep(30 * time.Millisecond) {
		err := r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
			g, err := a.GetJobWithResponse(ctx, id)
			if err == nil && g.JSON200 != nil {
				j = *g.JSON200
			}
			return g, err
		})
		switch {
		case err != nil:
			return j, fmt.Errorf("job %s: %w", id, err)
		case j.State.Final():
			return j, r.outcome(j)
		case time.Now().After(end):
			return j, fmt.Errorf("job %s (%s) is still %s (%s) after %s", id, j.Kind, j.State, j.Step, patience)
		}
	}
}

// outcome remembers how a job ended: that must not change any more.
func (r *torture) outcome(j api.Job) error {
	r.ended[j.ID] = lastWord(j)
	return well(j)
}

func well(j api.Job) error {
	if j.State != api.JobStateSucceeded {
		return fmt.Errorf("%w: job %s (%s) ended %s: %+v", errNotWell, j.ID, j.Kind, j.State, j.Error)
	}
	return nil
}

// errNotWell is an end that says why it is no good one. Kills are no reason for
// that; other faults may be.
var errNotWell = errors.New("not well")

func lastWord(j api.Job) string {
	return fmt.Sprintf("%s at %s in attempt %d with image %q", j.State, j.EndedAt, j.Attempt, j.ImageID)
}

// lookAtEnded sees that what was over is still so.
func (r *torture) lookAtEnded() (violations []string) {
	for id, was := range r.ended {
		g, err := r.check.any().GetJobWithResponse(r.ctx, id)
		if err := api.Err(g, err); err != nil {
			violations = append(violations, fmt.Sprintf("(5) The job %s was over and is gone: %v", id, err))
		} else if is := lastWord(*g.JSON200); is != was {
			violations = append(violations, fmt.Sprintf("(5) The job %s had %s, and now %s", id, was, is))
		}
	}
	return violations
}

// accepted waits for the job that a request was answered with.
func (r *torture) accepted(ask func(context.Context, *api.ClientWithResponses) (api.Answer, *api.JobAccepted, error)) (api.Job, error) {
	var id string
	err := r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		answer, job, err := ask(ctx, a)
		if err == nil && job != nil {
			id = job.ID
		}
		return answer, err
	})
	if err != nil {
		return api.Job{}, err
	}
	return r.job(id)
}

// victimVM is a VM by chance, with something new on its first disk.
func (r *torture) victimVM() api.VirtualMachine {
	name := fmt.Sprintf("vm%02d", 1+r.chance.IntN(tortured))
	off := r.chance.Int64N(28) << 16
	if err := r.lab.GuestWriteRandom(name, 2000, off, 128<<10, r.chance.Uint64()); err != nil {
		r.say("The guest of %s cannot write: %v", name, err)
	}
	return r.vms[name]
}

// transport has the vcenter read and written by that from now on.
func (r *torture) transport(t api.Transport) error {
	if r.vcenter.Transport == t {
		return nil
	}
	v := r.vcenter
	change := api.VCenter{Name: v.Name, Endpoint: v.Endpoint, Username: v.Username, Password: r.lab.Password(), Thumbprint: v.Thumbprint, SlotCapacity: v.SlotCapacity, Transport: t}
	err := r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		return a.UpdateVCenterWithResponse(ctx, v.ID, &api.UpdateVCenterParams{IfMatch: "*"}, change)
	})
	if err == nil {
		r.vcenter.Transport = t
	}
	return err
}

func (r *torture) backUp(t api.Transport, o api.BackupOptions) error {
	if err := r.transport(t); err != nil {
		return err
	}
	_, err := r.imageOf(r.victimVM(), o)
	return err
}

// imageOf backs a VM up and returns the image that came of it, the only one.
func (r *torture) imageOf(vm api.VirtualMachine, o api.BackupOptions) (string, error) {
	run, err := r.startBackup(vm, o)
	if err != nil {
		return "", err
	}
	images, err := r.runEnd(run)
	if err == nil && len(images) != 1 {
		err = fmt.Errorf("run %s made %d images, want one", run, len(images))
	}
	if err != nil {
		return "", err
	}
	return images[0], nil
}

func (r *torture) startBackup(vm api.VirtualMachine, o api.BackupOptions) (run string, err error) {
	p := &api.BackupVirtualMachineParams{IdempotencyKey: r.key()}
	err = r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.BackupVirtualMachineWithResponse(ctx, vm.ID, p, o)
		if err == nil && g.JSON202 != nil {
			run = g.JSON202.ID
		}
		return g, err
	})
	return run, err
}

// runEnd waits for all jobs of a run and returns their images.
func (r *torture) runEnd(id string) (images []string, err error) {
	var jobs []api.Job
	err = r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.GetRunWithResponse(ctx, id)
		if err == nil && g.JSON200 != nil {
			jobs = g.JSON200.Jobs
		}
		return g, err
	})
	for _, j := range jobs {
		done, jerr := r.job(j.ID)
		err = errors.Join(err, jerr)
		if done.ImageID != "" && done.Kind == api.JobKindBackup {
			images = append(images, done.ImageID)
		}
	}
	return images, err
}

func (r *torture) backUpGroup() error {
	if err := r.transport(api.TransportNfc); err != nil {
		return err
	}
	var group, run string
	r.victimVM()
	p := &api.CreateBackupGroupParams{IdempotencyKey: r.key()}
	name := "group " + r.key()
	err := r.made(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, string, error) {
		g, err := a.CreateBackupGroupWithResponse(ctx, p, api.BackupGroup{Name: name, Consistent: true, VirtualMachineIDs: []string{r.vms["vm01"].ID, r.vms["vm02"].ID}})
		if err == nil && g.JSON201 != nil {
			return g, g.JSON201.ID, nil
		}
		return g, "", err
	}, func(ctx context.Context, a *api.ClientWithResponses) (string, error) {
		g, err := a.ListBackupGroupsWithResponse(ctx, &api.ListBackupGroupsParams{Limit: 1000})
		if err := api.Err(g, err); err != nil {
			return "", err
		}
		i := slices.IndexFunc(g.JSON200.Items, func(g api.BackupGroup) bool { return g.Name == name })
		if i < 0 {
			return "", nil
		}
		return g.JSON200.Items[i].ID, nil
	}, &group)
	if err != nil {
		return err
	}
	q := &api.BackupGroupParams{IdempotencyKey: r.key()}
	err = r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.BackupGroupWithResponse(ctx, group, q, api.BackupOptions{RetentionDays: 31})
		if err == nil && g.JSON202 != nil {
			run = g.JSON202.ID
		}
		return g, err
	})
	if err != nil {
		return err
	}
	images, err := r.runEnd(run)
	if err == nil && len(images) != 2 {
		err = fmt.Errorf("the group's run made %d images, want two", len(images))
	}
	return err
}

// made has something made whose name may be had only once. Where a server died
// before its answer it may be there.
func (r *torture) made(create func(context.Context, *api.ClientWithResponses) (api.Answer, string, error), find func(context.Context, *api.ClientWithResponses) (string, error), id *string) error {
	err := r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		answer, got, err := create(ctx, a)
		*id = got
		return answer, err
	})
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != api.ErrorCodeConflict {
		return err
	}
	found, ferr := find(r.ctx, r.check.any())
	if ferr != nil || found == "" {
		return errors.Join(err, ferr)
	}
	*id = found
	return nil
}

// newest is the newest good image of a VM; one is made where there is none.
func (r *torture) newest(vm api.VirtualMachine) (i api.BackupImage, err error) {
	err = r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.ListBackupImagesWithResponse(ctx, &api.ListBackupImagesParams{VirtualMachineID: vm.ID, Limit: 1000})
		if err == nil && g.JSON200 != nil {
			for _, x := range g.JSON200.Items {
				if restores(x) && x.Repository == "default" && x.PointInTime.After(i.PointInTime) {
					i = x
				}
			}
		}
		return g, err
	})
	if err != nil || i.ID != "" {
		return i, err
	}
	if _, err := r.imageOf(vm, api.BackupOptions{RetentionDays: 31}); err != nil {
		return i, err
	}
	return r.newest(vm)
}

// put restores, and returns what came of it.
func (r *torture) put(order api.Restore) (done api.Restore, err error) {
	p := &api.CreateRestoreParams{IdempotencyKey: r.key()}
	err = r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.CreateRestoreWithResponse(ctx, p, order)
		if err == nil && g.JSON201 != nil {
			done = *g.JSON201
		}
		return g, err
	})
	if err != nil {
		return done, err
	}
	if _, err := r.job(done.JobID); err != nil {
		return done, err
	}
	return done, r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.GetRestoreWithResponse(ctx, done.ID, nil)
		if err == nil && g.JSON200 != nil {
			done = *g.JSON200
		}
		return g, err
	})
}

// equals compares a VM's disks with those that an image is of.
func (r *torture) equals(moid string, i api.BackupImage) error {
	got, err := r.check.sumsOf(r.ctx, moid)
	if err != nil {
		return err
	}
	want := r.lab.FrozenSHA256(i.VirtualMachine.MOID, i.PointInTime)
	for _, d := range i.Disks {
		if got[d.Key] == "" || got[d.Key] != want[d.Key] {
			return fmt.Errorf("%q of %s is %s after the restore of image %s, want %s", d.Label, moid, got[d.Key], i.ID, want[d.Key])
		}
	}
	return nil
}

func (r *torture) restoreNew() error {
	i, err := r.newest(r.victimVM())
	if err != nil {
		return err
	}
	name := "restored " + r.key()
	done, err := r.put(api.Restore{ImageID: i.ID, NewVM: &api.RestoreNewVM{Name: name, PowerOn: true}})
	if err != nil {
		return err
	}
	if n := slices.IndexFunc(r.lab.VMs(), func(v lab.VM) bool { return v.Name == name }); n < 0 || done.RestoredVM == nil || r.lab.VMs()[n].Moid != done.RestoredVM.MOID {
		return fmt.Errorf("the restore tells of %+v, and no such VM is there", done.RestoredVM)
	}
	err = r.equals(done.RestoredVM.MOID, i)
	r.lab.ClearFaults()
	return errors.Join(err, r.lab.SetPower(r.ctx, done.RestoredVM.MOID, false), r.lab.RemoveVM(r.ctx, done.RestoredVM.MOID))
}

func (r *torture) restoreOver(t api.Transport, order api.Restore) error {
	if err := r.transport(t); err != nil {
		return err
	}
	vm := r.victimVM()
	i, err := r.newest(vm)
	if err != nil {
		return err
	}
	r.victimVM() // which may be the same one
	order.ImageID = i.ID
	if _, err := r.put(order); err != nil {
		return err
	}
	if is, err := r.lab.VM(vm.MOID); err != nil || is.PowerState != "poweredOn" {
		return fmt.Errorf("the VM is %s after its restore, want it on (%w)", is.PowerState, err)
	}
	return r.equals(vm.MOID, i)
}

func (r *torture) restoreDisk() error {
	if err := r.transport(api.TransportNfc); err != nil {
		return err
	}
	vm := r.victimVM()
	i, err := r.newest(vm)
	if err != nil {
		return err
	}
	r.check.noteOff(vm.MOID)
	if err := r.lab.SetPower(r.ctx, vm.MOID, false); err != nil {
		return err
	}
	_, err = r.put(api.Restore{ImageID: i.ID, Disk: &api.RestoreDisk{SourceDiskKey: 2000, VirtualMachineID: vm.ID, Mode: api.DiskRestoreModeReplace}})
	r.lab.ClearFaults()
	i.Disks = slices.DeleteFunc(i.Disks, func(d api.ImageDisk) bool { return d.Key != 2000 })
	if err == nil {
		err = r.equals(vm.MOID, i)
	}
	return errors.Join(err, r.lab.SetPower(r.ctx, vm.MOID, true))
}

func (r *torture) copyImage() error {
	i, err := r.newest(r.victimVM())
	if err == nil && len(i.CopyOf) == 0 { // a copy that is there already would be none to make
		_, err = r.imageOf(r.vms[i.VirtualMachine.Name], api.BackupOptions{RetentionDays: 31})
	}
	if err == nil {
		i, err = r.newest(r.vms[i.VirtualMachine.Name])
	}
	if err != nil {
		return err
	}
	p := &api.CopyBackupImageParams{IdempotencyKey: r.key()}
	_, err = r.accepted(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, *api.JobAccepted, error) {
		g, err := a.CopyBackupImageWithResponse(ctx, i.ID, p, api.ImageCopyRequest{Repository: r.second, RetentionDays: new(31)})
		if err != nil {
			return g, nil, err
		}
		return g, g.JSON202, nil
	})
	if err != nil {
		return err
	}
	var good int
	err = r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.ListImageCopiesWithResponse(ctx, i.ID)
		if err == nil && g.JSON200 != nil {
			good = 0
			for _, c := range g.JSON200.Items {
				if c.Status == api.ImageCopyStatusGood {
					good++
				}
			}
		}
		return g, err
	})
	if err == nil && good != 1 {
		err = fmt.Errorf("image %s has %d good copies, want one", i.ID, good)
	}
	return err
}

func (r *torture) verifyImage() error {
	i, err := r.newest(r.victimVM())
	if err != nil {
		return err
	}
	p := &api.VerifyBackupImageParams{IdempotencyKey: r.key(), SHA256: true}
	_, err = r.accepted(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, *api.JobAccepted, error) {
		g, err := a.VerifyBackupImageWithResponse(ctx, i.ID, p)
		if err != nil {
			return g, nil, err
		}
		return g, g.JSON202, nil
	})
	return err
}

// deleteImage deletes an image that a newer one follows.
func (r *torture) deleteImage() error {
	vm := r.victimVM()
	i, err := r.newest(vm)
	if err == nil {
		_, err = r.imageOf(vm, api.BackupOptions{RetentionDays: 31})
	}
	if err != nil {
		return err
	}
	if err := r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		return a.DeleteBackupImageWithResponse(ctx, i.ID)
	}); err != nil && !strings.Contains(err.Error(), i.ID) { // a repetition finds it deleted
		return err
	}
	for end := time.Now().Add(patience); ; time.Sleep(30 * time.Millisecond) {
		var p *api.Problem
		err := r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
			return a.GetBackupImageWithResponse(ctx, i.ID)
		})
		if errors.As(err, &p) && p.Code == api.ErrorCodeNotFound {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("image %s is not deleted after %s: %w", i.ID, patience, err)
		}
	}
}

// repositories are the ids of all repositories, by name.
func (r *torture) repositories() (ids map[string]string, err error) {
	ids = map[string]string{}
	err = r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.ListRepositoriesWithResponse(ctx, nil)
		if err == nil && g.JSON200 != nil {
			for _, x := range g.JSON200.Items {
				ids[x.Name] = x.ID
			}
		}
		return g, err
	})
	return ids, err
}

func (r *torture) collectRepository() error {
	ids, err := r.repositories()
	if err != nil {
		return err
	}
	p := &api.MaintainRepositoryParams{IdempotencyKey: r.key()}
	_, err = r.accepted(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, *api.JobAccepted, error) {
		g, err := a.MaintainRepositoryWithResponse(ctx, ids["default"], p, api.Maintenance{})
		if err != nil {
			return g, nil, err
		}
		return g, g.JSON202, nil
	})
	return err
}

// rebuildCatalogue has both repositories listed: nothing may be in them that is
// not in the catalogue.
func (r *torture) rebuildCatalogue() error {
	ids, err := r.repositories()
	if err != nil {
		return err
	}
	for name, id := range ids {
		p := &api.RebuildCatalogueParams{IdempotencyKey: r.key()}
		j, err := r.accepted(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, *api.JobAccepted, error) {
			g, err := a.RebuildCatalogueWithResponse(ctx, id, p)
			if err != nil {
				return g, nil, err
			}
			return g, g.JSON202, nil
		})
		if err != nil {
			return err
		}
		if text := strings.Join(j.Messages, " "); !strings.Contains(text, "0 images are listed now that were not") || strings.Contains(text, "not in the repository") {
			return fmt.Errorf("the repository %s and the catalogue differ: %s", name, text)
		}
	}
	return nil
}

func (r *torture) syncInventory() error {
	p := &api.SyncVCenterParams{IdempotencyKey: r.key()}
	_, err := r.accepted(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, *api.JobAccepted, error) {
		g, err := a.SyncVCenterWithResponse(ctx, r.vcenter.ID, p)
		if err != nil {
			return g, nil, err
		}
		return g, g.JSON202, nil
	})
	return err
}

// book makes schedules, changes one and deletes one.
func (r *torture) book() error {
	at := func(h int) string { return time.Now().UTC().Add(time.Duration(h) * time.Hour).Format("15:00") } // hours that do not come now
	var ids []string
	for n := range 3 {
		name := fmt.Sprintf("schedule %s %d", r.key(), n)
		p := &api.CreateBackupScheduleParams{IdempotencyKey: r.key()}
		s := api.BackupSchedule{Name: name, VirtualMachineID: r.victimVM().ID, Daily: &api.Daily{}, StartTime: at(8 + n), TimeZone: "UTC", RetentionDays: 7}
		var id string
		err := r.made(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, string, error) {
			g, err := a.CreateBackupScheduleWithResponse(ctx, p, s)
			if err == nil && g.JSON201 != nil {
				return g, g.JSON201.ID, nil
			}
			return g, "", err
		}, func(ctx context.Context, a *api.ClientWithResponses) (string, error) {
			g, err := a.ListBackupSchedulesWithResponse(ctx, &api.ListBackupSchedulesParams{Limit: 1000})
			if err := api.Err(g, err); err != nil {
				return "", err
			}
			i := slices.IndexFunc(g.JSON200.Items, func(s api.BackupSchedule) bool { return s.Name == name })
			if i < 0 {
				return "", nil
			}
			return g.JSON200.Items[i].ID, nil
		}, &id)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	var s api.BackupSchedule
	err := r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.GetBackupScheduleWithResponse(ctx, ids[0])
		if err == nil && g.JSON200 != nil {
			s = *g.JSON200
		}
		return g, err
	})
	if err != nil {
		return err
	}
	s.StartTime = at(14)
	if err := r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		return a.UpdateBackupScheduleWithResponse(ctx, s.ID, &api.UpdateBackupScheduleParams{IfMatch: "*"}, s)
	}); err != nil {
		return err
	}
	for _, id := range ids[1:] { // some stay; a repetition finds it gone
		err := r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
			return a.DeleteBackupScheduleWithResponse(ctx, id)
		})
		var p *api.Problem
		if err != nil && (!errors.As(err, &p) || p.Code != api.ErrorCodeNotFound) {
			return err
		}
	}
	return nil
}

// owe shuts a guest down for an offline backup that is cancelled while the VM
// cannot be powered on: the sweep has to.
func (r *torture) owe() error {
	if err := r.transport(api.TransportNfc); err != nil {
		return err
	}
	vm := r.victimVM()
	if err := r.lab.Arm(lab.Fault{Kind: "task_fail", Method: "PowerOnVM_Task", VM: vm.Name, Count: -1}); err != nil {
		return err
	}
	defer r.lab.ClearFaults()
	var run api.Run
	p := &api.BackupVirtualMachineParams{IdempotencyKey: r.key()}
	err := r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.BackupVirtualMachineWithResponse(ctx, vm.ID, p, api.BackupOptions{RetentionDays: 31, Consistency: api.ConsistencyOffline})
		if err == nil && g.JSON202 != nil {
			run = api.Run{ID: g.JSON202.ID, Jobs: g.JSON202.Jobs}
		}
		return g, err
	})
	if err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; time.Sleep(30 * time.Millisecond) { // until it cannot be powered on
		is, err := r.lab.VM(vm.MOID)
		if err != nil || time.Now().After(end) {
			return fmt.Errorf("the guest of %s is not shut down: %w", vm.Name, err)
		}
		if is.PowerState == "poweredOff" {
			break
		}
	}
	id := run.Jobs[0].ID
	if err := r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		return a.CancelJobWithResponse(ctx, id)
	}); err != nil && !errors.Is(err, errRefused) {
		return err
	}
	if j, err := r.job(id); !j.State.Final() {
		return err
	}
	r.lab.ClearFaults()
	for end := time.Now().Add(patience); ; time.Sleep(30 * time.Millisecond) {
		is, err := r.lab.VM(vm.MOID)
		if err == nil && is.PowerState == "poweredOn" {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("VM %s is %s %s after its backup was cancelled (%w)", vm.Name, is.PowerState, patience, err)
		}
	}
}
