package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
)

// TestABackupIntoALockedBucket: a schedule with a lock into a repository with
// object lock. When the job has succeeded neither the server nor the storage
// deletes what the image is of, and the server tells what that costs.
//
// seed:A33
func TestABackupIntoALockedBucket(t *testing.T) {
	t.Parallel()
	bucket := s3test.New(t, true)
	bucket.Settings["lock_mode"], bucket.Settings["lock_days"] = "compliance", "7"
	l := newLab(t, lab.Config{VMs: 1, DiskSize: 8 << 20})
	s := start(t, server.Config{})
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.URL(), s.OperatorTokenFile())}
	r, err := w.api.CreateRepositoryWithResponse(w.ctx, nil, api.Repository{Name: "vault", Kind: "s3", Settings: bucket.Settings})
	w.ok(r, err)
	vm := w.vm(w.vcenter("lab").ID, "vm01")
	made, err := w.api.CreateBackupScheduleWithResponse(w.ctx, nil, api.BackupSchedule{Name: "locked", VirtualMachineID: vm.ID, Daily: &api.Daily{},
		StartTime: time.Now().UTC().Add(12 * time.Hour).Format("15:00"), TimeZone: "UTC", RetentionDays: 8, Lock: true, Repository: "vault"}) // an hour that does not come now
	w.ok(made, err)
	if got := strings.Join(made.JSON201.Warnings, " "); !strings.Contains(got, "locks for 7 days, and images are kept for 8") {
		t.Errorf("warnings = %q, want that the repository's lock is shorter", got)
	}
	started, err := w.api.RunBackupScheduleWithResponse(w.ctx, made.JSON201.ID, nil)
	w.ok(started, err)
	run := w.finish(started.JSON202.ID)
	if run.State != api.RunStateSucceeded {
		t.Fatalf("the backup ended %s: %+v", run.State, run.Jobs[0].Error)
	}
	image := w.image(run.Jobs[0].ImageID)
	if left := time.Until(image.StorageLockedUntil); left < 5*24*time.Hour || left > 7*24*time.Hour {
		t.Errorf("the storage locks the image until %s, want a week from now", image.StorageLockedUntil)
	}
	if a, err := w.api.DeleteBackupImageWithResponse(w.ctx, image.ID); err != nil || a.StatusCode() != 423 {
		t.Errorf("delete by an operator: %v %v, want it locked", a, err)
	}
	refused := 0
	for o := range bucket.Client.ListObjectsIter(w.ctx, bucket.Name, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		name := o.Key[strings.LastIndexByte(o.Key, '/')+1:]
		if !strings.HasPrefix(name, "p") && !strings.HasPrefix(name, "q") {
			continue
		}
		if err := bucket.Client.RemoveObject(w.ctx, bucket.Name, o.Key, minio.RemoveObjectOptions{VersionID: o.VersionID}); err == nil {
			t.Errorf("the storage deletes %s", o.Key)
		}
		refused++
	}
	if refused == 0 {
		t.Error("no pack was found: the test shows nothing")
	}
	metrics := scrape(t, s, "kura_repository_")
	for _, want := range []string{`kura_repository_storage_requests_total{repository="vault",request="PUT"} `, `kura_repository_lock_extended_timestamp_seconds{repository="vault"} `} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s:\n%s", want, metrics)
		}
	}
}
