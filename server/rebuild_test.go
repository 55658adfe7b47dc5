package server_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// passing starts a server that the test stops.
func passing(t *testing.T, c server.Config) (s *server.Server, stop func()) {
	t.Helper()
	s, err := server.New(t.Context(), quick(c))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run the server: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close the server: %v", err)
		}
	}
}

// sheetOf decrypts a recovery sheet and returns its lines "name: value".
func sheetOf(t *testing.T, text string, key *age.X25519Identity) map[string]string {
	t.Helper()
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(text)), key)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for line := range strings.Lines(string(plain)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			told[name] = value
		}
	}
	return told
}

// jobDone waits for the end of a job.
func (w *world) jobDone(id string) (job api.Job) {
	w.Helper()
	w.until("the end of job "+id, func() bool {
		g, err := w.api.GetJobWithResponse(w.ctx, id)
		w.ok(g, err)
		job = *g.JSON200
		return !job.EndedAt.IsZero()
	})
	return job
}

// TestARepositoryOutlivesItsInstallation: the first site is gone, its vCenter,
// server and database with it. What is left is the repository's folder and the
// recovery sheet in the safe.
//
// seed:K18
func TestARepositoryOutlivesItsInstallation(t *testing.T) {
	t.Parallel()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "site")
	data := filepath.Join(t.TempDir(), "first")
	first := newLab(t, lab.Config{VMs: 1, DiskSize: 8 << 20})
	s, stop := passing(t, server.Config{Data: data, AgeRecipient: key.Recipient().String()})
	w := &world{T: t, ctx: t.Context(), lab: first, api: client(t, s.URL(), s.OperatorTokenFile())}
	vm := w.vm(w.vcenter("tokyo").ID, "vm01")
	made, err := w.api.CreateRepositoryWithResponse(w.ctx, nil, api.Repository{Name: "site", Kind: "filesystem", Settings: map[string]string{"path": folder}})
	w.ok(made, err)
	b, err := w.api.BackupVirtualMachineWithResponse(w.ctx, vm.ID, nil, api.BackupOptions{RetentionDays: 1, Repository: "site", Labels: map[string]string{"tier": "gold"}})
	w.ok(b, err)
	run := w.finish(b.JSON202.ID)
	if run.State != api.RunStateSucceeded {
		t.Fatalf("backup ended %s", run.State)
	}
	image, want := w.image(run.Jobs[0].ImageID), w.sums("vm01")
	changed, err := w.api.ChangeRepositoryPasswordWithResponse(w.ctx, made.JSON201.ID, nil)
	w.ok(changed, err)
	sheet, err := w.api.RecoverySheetWithResponse(w.ctx, made.JSON201.ID, api.RecoverySheet{})
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
	attached, err := w.api.CreateRepositoryWithResponse(w.ctx, nil, api.Repository{Name: "from-the-sheet", Kind: told["kind"],
		Settings: map[string]string{"path": told["path"]}, Password: told["password"], ReadOnly: true})
	w.ok(attached, err)
	if warned := strings.Join(attached.JSON201.Warnings, " "); !strings.Contains(warned, "belongs to installation") {
		t.Errorf("warnings = %q, want whose it is", warned)
	}
	j, err := w.api.RebuildCatalogueWithResponse(w.ctx, attached.JSON201.ID, nil)
	w.ok(j, err)
	job := w.jobDone(j.JSON202.ID)
	if job.State != api.JobStateSucceeded || job.Kind != api.JobKindCatalogue || !strings.Contains(strings.Join(job.Messages, " "), "1 images are listed now") {
		t.Fatalf("rebuild ended %+v", job)
	}
	found := w.image(image.ID)
	if found.VirtualMachine.Name != "vm01" || found.VirtualMachine.InstanceUUID != vm.InstanceUUID || found.VirtualMachine.ID != "" || found.Repository != "from-the-sheet" ||
		found.Sizes != image.Sizes || !found.StartedAt.Equal(image.StartedAt) || !found.PointInTime.Equal(image.PointInTime) || found.Labels["tier"] != "gold" ||
		!found.ExpiresAt.After(image.ExpiresAt.AddDate(0, 0, 28)) {
		t.Errorf("rebuilt image is\n%+v, want it as it was:\n%+v", found, image)
	}
	c, err := w.api.CreateRestoreWithResponse(w.ctx, nil, api.Restore{ImageID: image.ID, NewVM: &api.RestoreNewVM{Name: "risen"}})
	if code := api.CodeOf(api.Err(c, err)); code != api.ErrorCodeInvalid {
		t.Errorf("restore without a vcenter: %s, want to be asked for one", code)
	}
	r := w.restore(api.Restore{ImageID: image.ID, NewVM: &api.RestoreNewVM{Name: "risen", VCenterID: osaka.ID}})
	if r.Status != api.JobStateSucceeded {
		t.Fatalf("restore ended %s: %+v", r.Status, r.Error)
	}
	w.same("the VM in the new site", w.sums("risen"), want)
	w.noLeftovers()
}
