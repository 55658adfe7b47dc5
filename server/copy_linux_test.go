package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// second makes another repository, with a key of its own.
func (w *world) second() (name, path string) {
	w.Helper()
	name, path = "second", filepath.Join(w.TempDir(), "second")
	r, err := w.api.CreateRepositoryWithResponse(w.ctx, nil, api.Repository{Name: name, Kind: "filesystem", Settings: map[string]string{"path": path}})
	w.ok(r, err)
	return name, path
}

// copies waits until no copy of the image is on its way, and lists them.
func (w *world) copies(id string) []api.ImageCopy {
	w.Helper()
	var all []api.ImageCopy
	w.until("the copies of image "+id, func() bool {
		r, err := w.api.ListImageCopiesWithResponse(w.ctx, id)
		w.ok(r, err)
		all = r.JSON200.Items
		for _, c := range all {
			if c.Status == api.ImageCopyStatusWaiting || c.Status == api.ImageCopyStatusCopying {
				return false
			}
		}
		return true
	})
	return all
}

// TestACopyIsRestoredWhenTheFirstRepositoryIsLost: a schedule copies, the first
// site burns down, and the VM comes back from the second, byte for byte.
//
// seed:K2 seed:K4 seed:A27 seed:A46
func TestACopyIsRestoredWhenTheFirstRepositoryIsLost(t *testing.T) {
	data := t.TempDir()
	w := newWorld(t, lab.Config{VMs: 1, DiskSize: 16 << 20}, server.Config{Data: data})
	v := w.vcenter("lab")
	name, _ := w.second()
	s, err := w.api.CreateBackupScheduleWithResponse(w.ctx, nil, api.BackupSchedule{Name: "copied", VirtualMachineID: w.vm(v.ID, "vm01").ID,
		StartTime: time.Now().UTC().Add(12 * time.Hour).Format("15:00"), TimeZone: "UTC", Daily: &api.Daily{}, RetentionDays: 7,
		CopyTo: []api.CopyTarget{{Repository: name, RetentionDays: 8}}})
	w.ok(s, err)
	var want map[int32]string
	var image api.BackupImage
	for n := range 2 { // the second one is incremental in both repositories
		if err := w.lab.GuestWriteRandom("vm01", 2000, int64(n)<<20, 1<<20, uint64(n)); err != nil {
			t.Fatal(err)
		}
		want = w.sums("vm01")
		started, err := w.api.RunBackupScheduleWithResponse(w.ctx, s.JSON201.ID, nil)
		w.ok(started, err)
		run := w.finish(started.JSON202.ID)
		if run.State != api.RunStateSucceeded {
			t.Fatalf("the run ended %s", run.State)
		}
		image = w.image(run.Jobs[0].ImageID)
		w.copies(image.ID)
	}
	copies := w.copies(image.ID)
	if len(copies) != 1 || copies[0].Status != api.ImageCopyStatusGood || copies[0].Repository != name {
		t.Fatalf("copies %+v, want a good one in %s", copies, name)
	}
	if c := w.image(copies[0].ID); c.CopyOf != image.ID || !c.ExpiresAt.Equal(image.StartedAt.AddDate(0, 0, 8)) || c.Sizes.Stored > image.Sizes.Provisioned/4 {
		t.Errorf("copy %+v, want one of %s for 8 days that stored what had changed", c, image.ID)
	}
	if err := os.RemoveAll(filepath.Join(data, "repository")); err != nil {
		t.Fatal(err)
	}
	r := w.restore(api.Restore{ImageID: copies[0].ID, NewVM: &api.RestoreNewVM{Name: "again"}})
	if r.Status != api.JobStateSucceeded {
		t.Fatalf("restore of the copy: %s %+v", r.Status, r.Error)
	}
	w.same("the new VM", w.sums("again"), want)
}

func TestCopiesThatWaitAreAMetric(t *testing.T) {
	l := newLab(t, lab.Config{VMs: 1, DiskSize: 8 << 20})
	s := start(t, server.Config{CopyRate: 1 << 20})
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.URL(), s.OperatorTokenFile())}
	image := w.backup(w.vm(w.vcenter("lab").ID, "vm01").ID)
	name, path := w.second()
	if got := scrape(t, s, "kura_copies_"); got != "" {
		t.Errorf("without copies the metrics are %q", got)
	}
	j, err := w.api.CopyBackupImageWithResponse(w.ctx, image.ID, nil, api.ImageCopyRequest{Repository: name})
	w.ok(j, err)
	got := scrape(t, s, "kura_copies_")
	for _, want := range []string{`kura_copies_waiting{repository="second"} 1`, `kura_copies_failed{repository="second"} 0`, `kura_copies_oldest_wait_seconds{repository="second"} `} {
		if !strings.Contains(got, want) {
			t.Errorf("metrics lack %s:\n%s", want, got)
		}
	}
	c, err := w.api.CancelJobWithResponse(w.ctx, j.JSON202.ID)
	w.ok(c, err)
	if copies := w.copies(image.ID); len(copies) != 1 || copies[0].Status != api.ImageCopyStatusFailed {
		t.Errorf("copies after a cancel: %+v, want one that is told as failed", copies)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Error(err)
	}
}

// TestKillsDuringACopyLeaveOne: after each kill -9 and new start the copy goes
// on, and in the end exactly one is there, whole.
//
// seed:N44
func TestKillsDuringACopyLeaveOne(t *testing.T) {
	l := newLab(t, lab.Config{VMs: 1, DiskSize: 16 << 20, LeaseTimeout: 10 * time.Second})
	p := spawn(t, child{CopyRate: 4 << 20, Lease: 2 * time.Second})
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, p.url, p.tokenFile())}
	want := w.sums("vm01")
	image := w.backup(w.vm(w.vcenter("lab").ID, "vm01").ID)
	name, _ := w.second()
	j, err := w.api.CopyBackupImageWithResponse(w.ctx, image.ID, nil, api.ImageCopyRequest{Repository: name})
	w.ok(j, err)
	for _, done := range []int64{1 << 20, 6 << 20} {
		w.until("the copy's progress", func() bool {
			j := w.job(j.JSON202.ID)
			if j.State.Final() {
				t.Fatalf("the copy ended %s: %+v", j.State, j.Error)
			}
			return j.State == api.JobStateRunning && j.Progress.Done >= done
		})
		p.kill()
		w.restart(p)
	}
	copies := w.copies(image.ID)
	if len(copies) != 1 || copies[0].Status != api.ImageCopyStatusGood {
		t.Fatalf("copies %+v, want one good one", copies)
	}
	all := true
	listed, err := w.api.ListBackupImagesWithResponse(w.ctx, &api.ListBackupImagesParams{Copies: &all, Limit: 1000})
	w.ok(listed, err)
	if n := len(listed.JSON200.Items); n != 2 {
		t.Errorf("%d images are listed, want the original and one copy", n)
	}
	r := w.restore(api.Restore{ImageID: copies[0].ID, NewVM: &api.RestoreNewVM{Name: "again"}})
	if r.Status != api.JobStateSucceeded {
		t.Fatalf("restore of the copy: %s %+v", r.Status, r.Error)
	}
	w.same("the new VM", w.sums("again"), want)
}

// TestACopyOutlivesItsSiteAndItsDatabase: what is left is the second repository
// and its recovery sheet.
//
// seed:K2 seed:K4
func TestACopyOutlivesItsSiteAndItsDatabase(t *testing.T) {
	t.Parallel()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "first")
	s, stop := passing(t, server.Config{Data: data, AgeRecipient: key.Recipient().String()})
	w := &world{T: t, ctx: t.Context(), lab: newLab(t, lab.Config{VMs: 1, DiskSize: 8 << 20}), api: client(t, s.URL(), s.OperatorTokenFile())}
	image, want := w.backup(w.vm(w.vcenter("tokyo").ID, "vm01").ID), w.sums("vm01")
	name, path := w.second()
	j, err := w.api.CopyBackupImageWithResponse(w.ctx, image.ID, nil, api.ImageCopyRequest{Repository: name})
	w.ok(j, err)
	copies := w.copies(image.ID)
	if len(copies) != 1 || copies[0].Status != api.ImageCopyStatusGood {
		t.Fatalf("copies %+v, want a good one", copies)
	}
	all, err := w.api.ListRepositoriesWithResponse(w.ctx, &api.ListRepositoriesParams{Name: name})
	w.ok(all, err)
	sheet, err := w.api.RecoverySheetWithResponse(w.ctx, all.JSON200.Items[0].ID, api.RecoverySheet{})
	w.ok(sheet, err)
	told := sheetOf(t, sheet.JSON200.Text, key)
	stop()
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}

	w.lab = newLab(t, lab.Config{VMs: 1, DiskSize: 8 << 20, Seed: 2})
	s = start(t, server.Config{})
	w.api = client(t, s.URL(), s.OperatorTokenFile())
	osaka := w.vcenter("osaka")
	attached, err := w.api.CreateRepositoryWithResponse(w.ctx, nil, api.Repository{Name: "rescued", Kind: told["kind"],
		Settings: map[string]string{"path": path}, Password: told["password"], ReadOnly: true})
	w.ok(attached, err)
	rebuilt, err := w.api.RebuildCatalogueWithResponse(w.ctx, attached.JSON201.ID, nil)
	w.ok(rebuilt, err)
	if job := w.jobDone(rebuilt.JSON202.ID); job.State != api.JobStateSucceeded {
		t.Fatalf("rebuild ended %+v", job)
	}
	if listed := w.images("vm01"); len(listed) != 1 || listed[0].ID != copies[0].ID || listed[0].CopyOf != image.ID {
		t.Fatalf("listed %+v, want the copy of %s", listed, image.ID)
	}
	r := w.restore(api.Restore{ImageID: copies[0].ID, NewVM: &api.RestoreNewVM{Name: "risen", VCenterID: osaka.ID}})
	if r.Status != api.JobStateSucceeded {
		t.Fatalf("restore ended %s: %+v", r.Status, r.Error)
	}
	w.same("the VM in the new site", w.sums("risen"), want)
}
