package server_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// plainSheet decrypts a recovery sheet.
func plainSheet(t *testing.T, text string, key *age.X25519Identity) string {
	t.Helper()
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(text)), key)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for p := make([]byte, 4096); err == nil; {
		var n int
		n, err = r.Read(p)
		b.Write(p[:n])
	}
	return b.String()
}

// told is an image as the API tells it, by field.
func (w *world) told(id string) map[string]any {
	w.Helper()
	b, err := json.Marshal(w.image(id))
	if err != nil {
		w.Fatal(err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(b, &fields); err != nil {
		w.Fatal(err)
	}
	return fields
}

// sameFields compares all fields of an image but those.
func (w *world) sameFields(got, want map[string]any, but ...string) {
	w.Helper()
	for name := range want {
		g, _ := json.Marshal(got[name])
		f, _ := json.Marshal(want[name])
		if string(g) != string(f) && !slices.Contains(but, name) {
			w.Errorf("%s of the image is\n%s, want\n%s", name, g, f)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok && !slices.Contains(but, name) {
			w.Errorf("the image has a %s = %v, want none", name, got[name])
		}
	}
}

// site is an installation with a repository outside of its data folder.
type site struct {
	*world
	data, sheet string
	repository  api.Repository
	vm          api.VirtualMachine
	stop        func()
}

func newRecoverable(t *testing.T) *site {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{world: &world{T: t, ctx: t.Context(), lab: newLab(t, lab.Config{VMs: 1, DiskSize: 8 << 20})}, data: filepath.Join(t.TempDir(), "data")}
	s.stop = s.serve(server.Config{Data: s.data, AgeRecipient: key.Recipient().String(), RetentionProfile: backup.ProfileGeneral})
	s.vm = s.world.vm(s.vcenter("tokyo").ID, "vm01")
	made, err := s.api.CreateRepositoryWithResponse(s.ctx, nil, api.Repository{Name: "site", Kind: "filesystem", Settings: map[string]string{"path": filepath.Join(t.TempDir(), "site")}})
	s.ok(made, err)
	s.repository = *made.JSON201
	sheet, err := s.api.RecoverySheetWithResponse(s.ctx, s.repository.ID, api.RecoverySheet{})
	s.ok(sheet, err)
	s.sheet = plainSheet(t, sheet.JSON200.Text, key)
	if _, err := server.Recover(s.ctx, server.Recovery{Sheet: sheet.JSON200.Text, Data: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "age --decrypt") {
		t.Errorf("recovery by a sheet that is encrypted: %v", err)
	}
	return s
}

// backUp makes an image in the site's repository.
func (s *site) backUp() api.BackupImage {
	s.Helper()
	b, err := s.api.BackupVirtualMachineWithResponse(s.ctx, s.vm.ID, nil, api.BackupOptions{RetentionDays: 60, Repository: "site", Labels: map[string]string{"tier": "gold"}})
	s.ok(b, err)
	run := s.finish(b.JSON202.ID)
	if run.State != api.RunStateSucceeded {
		s.Fatalf("backup ended %s", run.State)
	}
	return s.image(run.Jobs[0].ImageID)
}

// dress gives an image all that the database alone knows of it.
func (s *site) dress(id string) {
	s.Helper()
	h, err := s.api.HoldBackupImageWithResponse(s.ctx, id, nil, api.ImageHold{Reason: "court"})
	s.ok(h, err)
	e, err := s.api.ExtendBackupImageWithResponse(s.ctx, id, api.ImageExtension{ExpiresAt: time.Now().AddDate(1, 0, 0).UTC().Truncate(time.Second)})
	s.ok(e, err)
	v, err := s.api.VerifyBackupImageWithResponse(s.ctx, id, nil)
	s.ok(v, err)
	if j := s.jobDone(v.JSON202.ID); j.State != api.JobStateSucceeded {
		s.Fatalf("verification ended %s", j.State)
	}
}

// TestAServerThatIsGoneIsMadeAnewOfItsRepository: what is left is the repository
// and its sheet. An image was made after the copy of the database.
func TestAServerThatIsGoneIsMadeAnewOfItsRepository(t *testing.T) {
	t.Parallel()
	s := newRecoverable(t)
	first := s.backUp()
	s.dress(first.ID)
	schedule, err := s.api.CreateBackupScheduleWithResponse(s.ctx, nil, api.BackupSchedule{Name: "nightly", VirtualMachineID: s.vm.ID, Repository: "site", RetentionDays: 7, Daily: &api.Daily{}, StartTime: inHalfADay(), TimeZone: "UTC"})
	s.ok(schedule, err)
	want := s.told(first.ID)
	copied, err := s.api.CopyDatabaseWithResponse(s.ctx, s.repository.ID, nil)
	s.ok(copied, err)
	if copied.JSON200.DatabaseCopiedAt.IsZero() {
		t.Error("the repository does not tell when the database was copied into it")
	}
	if err := s.lab.GuestWriteRandom("vm01", s.machine("vm01").Disks[0].Key, 0, 1<<20, 3); err != nil {
		t.Fatal(err)
	}
	second, disks := s.backUp(), s.sums("vm01")
	wantSecond := s.told(second.ID)
	s.stop()
	if err := os.RemoveAll(s.data); err != nil {
		t.Fatal(err)
	}

	done, err := server.Recover(s.ctx, server.Recovery{Sheet: s.sheet, Data: s.data})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := server.Recover(s.ctx, server.Recovery{Sheet: s.sheet, Data: s.data}); backup.CodeOf(err) != backup.Conflict {
		t.Errorf("recovery into a folder that holds a database: %+v, %v, want it refused", again, err)
	}
	if done.At.IsZero() || len(done.Others) != 0 || done.TokenFile != filepath.Join(s.data, "operator.token") {
		t.Errorf("recovered %+v", done)
	}
	defer s.serve(server.Config{Data: s.data, RetentionProfile: backup.ProfileGeneral})()
	if old := s.oldDatabase(); old == nil || !strings.Contains(old.Message, "is a copy that was made at") {
		t.Fatalf("the server says of its database %+v, want that it is a copy", old)
	}
	s.adopt(1) // the default one lay in the data folder
	s.sameFields(s.told(first.ID), want)
	s.sameFields(s.told(second.ID), wantSecond)
	g, err := s.api.GetBackupScheduleWithResponse(s.ctx, schedule.JSON201.ID)
	s.ok(g, err)
	if g.JSON200.Name != "nightly" || g.JSON200.RetentionDays != 7 {
		t.Errorf("the schedule is %+v", g.JSON200)
	}
	if r := s.restore(api.Restore{ImageID: second.ID, NewVM: &api.RestoreNewVM{Name: "risen"}}); r.Status != api.JobStateSucceeded {
		t.Fatalf("restore ended %s: %+v", r.Status, r.Error)
	}
	s.same("the VM of the image that the copy did not know", s.sums("risen"), disks)
	if third := s.backUp(); third.ChangeDetection == api.ChangeDetectionFull {
		t.Error("the backup after the recovery read everything, want it built upon the image before")
	}
}

// inHalfADay is an hour of the day that does not come while a test runs.
func inHalfADay() string { return time.Now().UTC().Add(12 * time.Hour).Format("15:00") }

// TestARebuildKnowsAllButWhatTheDatabaseAloneKnew: there is no copy of the
// database. What an image does not say of itself is named here, field by field.
//
// seed:K18
func TestARebuildKnowsAllButWhatTheDatabaseAloneKnew(t *testing.T) {
	t.Parallel()
	s := newRecoverable(t)
	image := s.backUp()
	s.dress(image.ID)
	want := s.told(image.ID)
	s.stop()
	must(t, os.RemoveAll(s.data))

	if _, err := server.Recover(s.ctx, server.Recovery{Sheet: s.sheet, Data: s.data}); backup.CodeOf(err) != backup.NotFound || !strings.Contains(err.Error(), "kura catalog rebuild") {
		t.Errorf("recovery where no copy is: %v, want the other way named", err)
	}
	defer s.serve(server.Config{Data: t.TempDir(), RetentionProfile: backup.ProfileGeneral})()
	s.vm = s.world.vm(s.vcenter("tokyo").ID, "vm01")
	password := s.sheet[strings.Index(s.sheet, "password: ")+len("password: "):]
	password, _, _ = strings.Cut(password, "\n")
	made, err := s.api.CreateRepositoryWithResponse(s.ctx, nil, api.Repository{Name: "site", Kind: "filesystem", Settings: s.repository.Settings, Password: password})
	s.ok(made, err)
	took, err := s.api.TakeOverRepositoryWithResponse(s.ctx, made.JSON201.ID, nil)
	s.ok(took, err)
	j, err := s.api.RebuildCatalogueWithResponse(s.ctx, made.JSON201.ID, nil)
	s.ok(j, err)
	if job := s.jobDone(j.JSON202.ID); job.State != api.JobStateSucceeded {
		t.Fatalf("the rebuild ended %s: %+v", job.State, job.Error)
	}
	got := s.told(image.ID)
	s.sameFields(got, want,
		"virtual_machine", "vcenter_id", "run_id", "job_id", // ids of the database that is gone
		"held", "holds", "expires_at", "verified_at") // holds, extensions and verifications
	if vm := got["virtual_machine"].(map[string]any); vm["id"] != s.vm.ID || vm["instance_uuid"] != s.vm.InstanceUUID {
		t.Errorf("the image is of %v, want the VM that has the instance UUID %s", vm, s.vm.InstanceUUID)
	}
	if next := s.backUp(); next.ChangeDetection == api.ChangeDetectionFull {
		t.Error("the backup after the rebuild read everything, want it built upon the image of before")
	}
}
