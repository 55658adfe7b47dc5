package server_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
)

// TestABackupToABadS3: every answer of the storage takes 200 ms and requests
// fail: refused with 500 and 503, cut off on their way, or with half an answer.
// Backup and restore succeed all the same, without a second try of the job, and
// every byte is right. One request in ten fails; with KURA_TORTURE=full one in a
// hundred, of a larger disk, and a second backup follows.
func TestABackupToABadS3(t *testing.T) {
	t.Parallel()
	size, every, backups := int64(16<<20), int64(10), []string{"full backup"}
	if os.Getenv("KURA_TORTURE") == "full" {
		size, every, backups = 2<<30, 100, append(backups, "backup after a MiB was written")
	}
	bucket := s3test.New(t, false)
	w := newWorld(t, lab.Config{VMs: 1, DiskSize: size}, server.Config{})
	r, err := w.api.CreateRepositoryWithResponse(w.ctx, nil, api.Repository{Name: "elsewhere", Kind: "s3", Settings: bucket.Settings})
	w.ok(r, err)
	vm := w.vm(w.vcenter("lab").ID, "vm01")
	if err := w.lab.GuestWriteRandom("vm01", 2000, 0, size/2, 3); err != nil {
		t.Fatal(err)
	}
	bucket.Delay.Store(int64(200 * time.Millisecond))
	bucket.FailEvery.Store(every)

	step := func(what string, do func()) {
		before, failed, begin := bucket.Count.Load(), bucket.Failed.Load(), time.Now()
		do()
		t.Logf("%s, disk of %d MiB: %s, %d requests, of which %d failed and were tried again",
			what, size>>20, time.Since(begin).Round(100*time.Millisecond), bucket.Count.Load()-before, bucket.Failed.Load()-failed)
	}
	backUp := func() (i api.BackupImage) {
		started, err := w.api.BackupVirtualMachineWithResponse(w.ctx, vm.ID, nil, api.BackupOptions{RetentionDays: 31, Repository: "elsewhere"})
		w.ok(started, err)
		run := w.finish(started.JSON202.ID)
		if run.State != api.RunStateSucceeded || run.Jobs[0].Attempt != 1 {
			t.Fatalf("the backup ended %s at attempt %d: %+v", run.State, run.Jobs[0].Attempt, run.Jobs[0].Error)
		}
		return w.image(run.Jobs[0].ImageID)
	}
	var images []api.BackupImage
	var sums []map[int32]string
	for n, what := range backups {
		if n > 0 {
			if err := w.lab.GuestWriteRandom("vm01", 2000, 3<<20, 1<<20, 5); err != nil {
				t.Fatal(err)
			}
		}
		sums = append(sums, w.sums("vm01"))
		step(what, func() { images = append(images, backUp()) })
	}
	for n, i := range images {
		name := fmt.Sprint("restored-", n)
		step("restore", func() {
			done := w.restore(api.Restore{ImageID: i.ID, NewVM: &api.RestoreNewVM{Name: name}})
			if done.Status != api.JobStateSucceeded {
				t.Fatalf("the restore ended %s: %+v", done.Status, done.Error)
			}
		})
		w.same(name, w.sums(name), sums[n])
	}
	bucket.Delay.Store(0)
	bucket.FailEvery.Store(0)
	t.Logf("of %d requests failed %d: %v", bucket.Count.Load(), bucket.Failed.Load(), bucket.Kinds())
	if bucket.Failed.Load() == 0 {
		t.Error("no request failed: the test shows nothing")
	}
	w.noLeftovers()
}
