package backup_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func inPlace(image backup.Image) backup.Restore {
	return backup.Restore{ImageID: image.ID, InPlace: &backup.RestoreInPlace{Safety: backup.SafetyQuick}}
}

func newVM(image backup.Image, name string) backup.Restore {
	return backup.Restore{ImageID: image.ID, NewVM: &backup.RestoreNewVM{Name: name}}
}

// A token that was sent with one restore does not tell another one that it is
// under way.
func TestATokenOfAnotherRestoreIsRefused(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	image, later := h.addImage(vm, ""), h.addImage(vm, "")
	ask := newVM(image, "copy")
	ask.Token = "token"
	if _, err := h.CreateRestore(h.ctx, ask); err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]backup.Restore{"another image": newVM(later, "copy"), "another name": newVM(image, "other")} {
		other.Token = "token"
		if r, err := h.CreateRestore(h.ctx, other); backup.CodeOf(err) != backup.Conflict {
			t.Errorf("%s: %+v, %v; want a conflict", name, r, err)
		}
		if _, err := h.CheckRestore(h.ctx, other); backup.CodeOf(err) != backup.Conflict {
			t.Errorf("check of %s: %v; want a conflict", name, err)
		}
	}
}

// TestATokenStartsOneRestoreUntilItsSuccessWasTold is what lets an apply be
// repeated: the caller that never got its answer gets the same restore.
func TestATokenStartsOneRestoreUntilItsSuccessWasTold(t *testing.T) {
	h := newHouse(t, 10)
	ask := inPlace(h.addImage(h.addVMs(h.vcenter.ID, 1)[0], ""))
	ask.Token = "token"
	start := func() backup.Restore {
		t.Helper()
		h.clock.pass(time.Second)
		return must(h.CreateRestore(h.ctx, ask))(t)
	}

	first := start()
	if again := start(); again.ID != first.ID || again.State != backup.JobQueued {
		t.Errorf("while it waits the token gives %+v, want restore %s joined", again, first.ID)
	}
	j := h.claim()
	if again := start(); again.ID != first.ID || again.State != backup.JobRunning {
		t.Errorf("while it runs the token gives %+v, want restore %s joined", again, first.ID)
	}
	h.finish(j, backup.Ending{State: backup.JobFailed, Code: backup.NoSpace, Error: "Full."})
	second := start()
	if second.ID == first.ID {
		t.Errorf("after a failure the token gives restore %s again, want a new one", first.ID)
	}
	h.finish(h.claim(), backup.Ending{State: backup.JobSucceeded})
	told := start()
	if told.ID != second.ID || told.State != backup.JobSucceeded {
		t.Errorf("the success that nobody was told of: %+v, want restore %s", told, second.ID)
	}
	told.Delivered = true
	h.update(func(tx backup.Tx) error { return tx.UpdateRestore(h.ctx, told) })
	if third := start(); third.ID == second.ID {
		t.Errorf("after its success was told the token gives restore %s again, want a new one", second.ID)
	}
	other := ask
	other.Token = "other"
	if r := must(h.CreateRestore(h.ctx, other))(t); r.ID == first.ID || r.ID == second.ID {
		t.Error("another token joins the restore of the first")
	}
}

// seed:N65
func TestARunningVMOrABusyOneIsNotOverwritten(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	image := h.addImage(vm, "")
	vm.PowerState = backup.PoweredOn
	h.save([]backup.VirtualMachine{vm})
	_, err := h.CreateRestore(h.ctx, inPlace(image))
	refused(t, err, backup.VMRunning, "in_place.power_off")
	forced := inPlace(image)
	forced.InPlace.PowerOff = true
	warnings := must(h.CheckRestore(h.ctx, forced))(t)
	if text := strings.Join(warnings, " "); !strings.Contains(text, "powered off") || !strings.Contains(text, "passwords") { // seed:N66
		t.Errorf("warnings %q, want the power-off and the old passwords", warnings)
	}

	run := must(h.BackupVM(h.ctx, vm.ID, backup.RunOptions{RetentionDays: 1}))(t)
	if _, err := h.CheckRestore(h.ctx, forced); err != nil {
		t.Errorf("a backup that only waits: %v, want no refusal", err)
	}
	j := h.claim()
	_, err = h.CreateRestore(h.ctx, forced)
	if e := refused(t, err, backup.VMBusy, "in_place"); !strings.Contains(e.Message, run.Jobs[0].ID) {
		t.Errorf("message %q does not name the job", e.Message)
	}
	if _, err := h.CheckRestore(h.ctx, newVM(image, "copy")); err != nil {
		t.Errorf("a new VM beside a running backup: %v, want no refusal", err)
	}
	h.finish(j, backup.Ending{State: backup.JobSucceeded})
	must(h.CreateRestore(h.ctx, forced))(t)
	// The reverse: the backup waits while the restore has the VM.
	restore := h.claim()
	must(h.BackupVM(h.ctx, vm.ID, backup.RunOptions{RetentionDays: 1}))(t)
	if restore == nil || restore.Kind != backup.KindRestore {
		t.Fatalf("claimed %+v, want the restore", restore)
	}
	if second := h.claim(); second != nil {
		t.Errorf("claimed %s job of the same VM at the same time", second.Kind)
	}
}

func TestADeletionOfAnImageKeepsNoRestoreWaiting(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	old, image := h.addImage(vm, ""), h.addImage(vm, "")
	must(h.DeleteImage(h.ctx, old.ID))(t)
	if j := h.claim(); j == nil || j.Kind != backup.KindDelete {
		t.Fatalf("claimed %+v, want the deletion", j)
	}
	if _, err := h.CheckRestore(h.ctx, inPlace(image)); err != nil {
		t.Errorf("in place while another image is deleted: %v, want no refusal", err)
	}
}

// seed:N73 seed:N45 seed:A50
func TestAVMThatIsGoneComesBackAsANewOneOnly(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	image := h.addImage(vm, "")
	h.leave(vm)
	_, err := h.CreateRestore(h.ctx, inPlace(image))
	if e := refused(t, err, backup.VMGone, "in_place"); !strings.Contains(e.Message, "new_vm") {
		t.Errorf("message %q does not say what to do", e.Message)
	}
	r := must(h.CreateRestore(h.ctx, newVM(image, "copy")))(t)
	if r.State != backup.JobQueued || r.JobID == "" {
		t.Errorf("restore %+v, want it waiting", r)
	}
}

func TestARestoreOfWhatCannotBeRestoredIsRefused(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	image := h.addImage(vm, "")
	damaged := h.addImage(vm, "")
	damaged.Status = backup.ImageDamaged
	h.update(func(tx backup.Tx) error { return tx.UpdateImage(h.ctx, damaged) })
	with := func(r backup.Restore, change func(*backup.Restore)) backup.Restore { change(&r); return r }
	for name, c := range map[string]struct {
		restore backup.Restore
		code    backup.Code
		field   string
	}{
		"no image":         {backup.Restore{InPlace: &backup.RestoreInPlace{Safety: backup.SafetyNone}}, backup.Invalid, "image_id"},
		"two modes":        {with(newVM(image, "copy"), func(r *backup.Restore) { r.InPlace = inPlace(image).InPlace }), backup.Invalid, "in_place"},
		"an unknown image": {backup.Restore{ImageID: "none", NewVM: &backup.RestoreNewVM{Name: "copy"}}, backup.NotFound, "image_id"},
		"a damaged image":  {newVM(damaged, "copy"), backup.RepositoryDamaged, "image_id"},
		"unknown vcenter":  {with(newVM(image, "copy"), func(r *backup.Restore) { r.NewVM.VCenterID = "none" }), backup.NotFound, "new_vm.vcenter_id"},
		"same identity":    {with(newVM(image, vm.Name), func(r *backup.Restore) { r.NewVM.PreserveIdentity = true }), backup.Conflict, "new_vm.name"},
		"unknown safety":   {with(inPlace(image), func(r *backup.Restore) { r.InPlace.Safety = "most" }), backup.Invalid, "in_place.safety"},
	} {
		_, err := h.CheckRestore(h.ctx, c.restore)
		if e := backup.AsError(err); e == nil || e.Code != c.code || e.Field != c.field {
			t.Errorf("%s: check gives %v, want %s for %s", name, err, c.code, c.field)
		}
		_, err = h.CreateRestore(h.ctx, c.restore)
		if e := backup.AsError(err); e == nil || e.Code != c.code || e.Field != c.field {
			t.Errorf("%s: create gives %v, want %s for %s", name, err, c.code, c.field)
		}
	}
	if j := h.claim(); j != nil {
		t.Errorf("a refused restore left the job %+v", j)
	}
}

// seed:N77
func TestRestoresOfOnePoolGoOneAtATime(t *testing.T) {
	h := newHouse(t, 10)
	image := h.addImage(h.addVMs(h.vcenter.ID, 1)[0], "")
	for _, name := range []string{"one", "two"} {
		r := newVM(image, name)
		r.NewVM.ResourcePool = "/DC0/pool"
		must(h.CreateRestore(h.ctx, r))(t)
	}
	elsewhere := newVM(image, "three")
	elsewhere.NewVM.ResourcePool = "/DC0/other"
	third := must(h.CreateRestore(h.ctx, elsewhere))(t)
	first := h.claim()
	if j := h.claim(); first == nil || j == nil || (j.RestoreID == third.ID) == (first.RestoreID == third.ID) {
		t.Fatalf("claimed %+v and %+v, want one of each pool", first, j)
	}
	if j := h.claim(); j != nil {
		t.Errorf("claimed a second restore of one pool: %+v", j)
	}
}

func TestForgettingARestoreCancelsIt(t *testing.T) {
	h := newHouse(t, 10)
	r := must(h.CreateRestore(h.ctx, newVM(h.addImage(h.addVMs(h.vcenter.ID, 1)[0], ""), "copy")))(t)
	if err := h.DeleteRestore(h.ctx, r.ID); err != nil {
		t.Fatal(err)
	}
	j := read(h, func(tx backup.Tx) (backup.Job, error) { return tx.Job(h.ctx, r.JobID) })
	if j.State != backup.JobCancelled {
		t.Errorf("job is %s, want cancelled", j.State)
	}
	refused(t, h.DeleteRestore(h.ctx, r.ID), backup.NotFound, "")
}

// seed:N43 seed:A33 seed:A40
func TestALockedImageOrOneInUseIsNotDeleted(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	locked := h.addImage(vm, "")
	locked.LockedUntil = noon.AddDate(0, 0, 7)
	h.update(func(tx backup.Tx) error { return tx.UpdateImage(h.ctx, locked) })
	_, err := h.DeleteImage(h.ctx, locked.ID)
	if e := refused(t, err, backup.Locked, ""); !strings.Contains(e.Message, "2026-11-30") {
		t.Errorf("message %q does not say until when", e.Message)
	}
	h.clock.set(locked.LockedUntil)
	used := h.addImage(vm, "")
	restore := must(h.CreateRestore(h.ctx, newVM(used, "copy")))(t)
	_, err = h.DeleteImage(h.ctx, used.ID)
	if e := refused(t, err, backup.InUse, ""); !strings.Contains(e.Message, restore.JobID) {
		t.Errorf("message %q does not name the job", e.Message)
	}
	j := must(h.DeleteImage(h.ctx, locked.ID))(t)
	if j.Kind != backup.KindDelete || j.ImageID != locked.ID {
		t.Errorf("job %+v, want the deletion of the image whose lock has ended", j)
	}
	_, err = h.CreateRestore(h.ctx, newVM(locked, "late"))
	refused(t, err, backup.RepositoryDamaged, "image_id")
}

func TestADeletionIsAskedForOnceAndAgainWhenItFailed(t *testing.T) {
	h := newHouse(t, 10)
	image := h.addImage(h.addVMs(h.vcenter.ID, 1)[0], "")
	first := must(h.DeleteImage(h.ctx, image.ID))(t)
	if again := must(h.DeleteImage(h.ctx, image.ID))(t); again.ID != first.ID {
		t.Errorf("asked again it gives job %q, want %q which waits", again.ID, first.ID)
	}
	h.finish(h.claim(), backup.Ending{State: backup.JobFailed, Code: backup.RepositoryUnreachable, Error: "Away."})
	second := must(h.DeleteImage(h.ctx, image.ID))(t)
	if j := h.claim(); j == nil || j.ID != second.ID || j.ID == first.ID {
		t.Errorf("after a failure job %+v, want a new one", j)
	}
}

// seed:A65
func TestAQueuedJobIsCancelledAtOnceAndOneThatIsOverStays(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	run := must(h.BackupVM(h.ctx, vm.ID, backup.RunOptions{RetentionDays: 1}))(t)
	if j := must(h.CancelJob(h.ctx, run.Jobs[0].ID))(t); j.State != backup.JobCancelled {
		t.Errorf("job is %s, want cancelled", j.State)
	}
	must(h.BackupVM(h.ctx, vm.ID, backup.RunOptions{RetentionDays: 1}))(t)
	j := h.claim()
	if got := must(h.CancelJob(h.ctx, j.ID))(t); got.State != backup.JobRunning || !got.Cancel {
		t.Errorf("running job is %s, asked to stop: %t, want it running and asked", got.State, got.Cancel)
	}
	h.finish(j, backup.Ending{State: backup.JobSucceeded})
	if got := must(h.CancelJob(h.ctx, j.ID))(t); got.State != backup.JobSucceeded {
		t.Errorf("job that is over is %s, want succeeded as it was", got.State)
	}
	_, err := h.CancelJob(h.ctx, "none")
	refused(t, err, backup.NotFound, "")
}

// gate is a vSphere that lets in whom it is told to.
type gate struct {
	backup.VSphereSession
	uuid string
	err  error
}

func (g *gate) Connect(context.Context, backup.VCenter) (backup.VSphereSession, error) {
	return g, g.err
}

func (g *gate) About() (string, string) { return g.uuid, "8.0" }

func TestAVCenterIsAskedBeforeItIsStored(t *testing.T) {
	h := newHouse(t, 10)
	g := &gate{uuid: "one", err: backup.Errorf(backup.VCenterDenied, "password", "Wrong.")}
	h.VSphere = g
	v := backup.VCenter{Name: "b", Endpoint: "https://b.example", Username: "kura", Password: "p"}
	_, err := h.CreateVCenter(h.ctx, v)
	refused(t, err, backup.VCenterDenied, "password")
	g.err = nil
	v = must(h.CreateVCenter(h.ctx, v))(t)
	if v.InstanceUUID != "one" || v.SlotCapacity != 10 || v.TimeZone != "UTC" {
		t.Errorf("stored %+v, want what it told and the defaults", v)
	}
	g.uuid = "two"
	v.Username = "other"
	_, err = h.UpdateVCenter(h.ctx, v)
	refused(t, err, backup.Conflict, "endpoint")
}

// seed:W22
func TestOneSyncWaitsAtATime(t *testing.T) {
	h := newHouse(t, 10)
	first := must(h.SyncVCenter(h.ctx, h.vcenter.ID))(t)
	if again := must(h.SyncVCenter(h.ctx, h.vcenter.ID))(t); again.ID != first.ID {
		t.Errorf("a second sync %s waits beside %s", again.ID, first.ID)
	}
	running := must(h.db.Claim(h.ctx, backup.Claim{Owner: "server", Lease: time.Hour}))(t)
	if running == nil || running.ID != first.ID {
		t.Fatalf("claimed %+v, want the sync", running)
	}
	h.clock.pass(time.Second)
	behind := must(h.SyncVCenter(h.ctx, h.vcenter.ID))(t)
	if again := must(h.SyncVCenter(h.ctx, h.vcenter.ID))(t); behind.ID == first.ID || again.ID != behind.ID {
		t.Errorf("behind the running one wait %s and %s, want one", behind.ID, again.ID)
	}
	if j := must(h.db.Claim(h.ctx, backup.Claim{Owner: "server", Lease: time.Hour}))(t); j != nil {
		t.Errorf("two syncs of one vcenter run at the same time: %+v", j)
	}
}

// TestACheckTellsThatARestoreWouldBeJoined: the pre-flight of a second apply
// says what that apply will do, also while the first one's restore makes its VM busy.
func TestACheckTellsThatARestoreWouldBeJoined(t *testing.T) {
	h := newHouse(t, 10)
	ask := inPlace(h.addImage(h.addVMs(h.vcenter.ID, 1)[0], ""))
	ask.InPlace.PowerOff = true
	ask.Token = "token"
	first := must(h.CreateRestore(h.ctx, ask))(t)
	if w := must(h.CheckRestore(h.ctx, ask))(t); len(w) != 1 || !strings.Contains(w[0], first.ID) {
		t.Errorf("check with the token of a waiting restore: %q, want it to name %s", w, first.ID)
	}
	ask.Token = "another"
	if w := must(h.CheckRestore(h.ctx, ask))(t); len(w) == 0 || strings.Contains(w[0], first.ID) {
		t.Errorf("check with another token: %q, want the warnings of a new restore", w)
	}
}
