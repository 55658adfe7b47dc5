package worker_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

// addRepository registers another repository.
func (h *house) addRepository(name string) backup.RepositoryRecord {
	h.Helper()
	r := backup.RepositoryRecord{Name: name, Kind: "filesystem", Password: "secret"}
	h.update(func(tx backup.Tx) error { return tx.InsertRepository(h.ctx, &r) })
	return r
}

// copyImage asks for a copy and returns its job.
func (h *house) copyImage(id string, to backup.RepositoryRecord) string {
	h.Helper()
	j, err := h.planner.CopyImage(h.ctx, backup.CopyRequest{ImageID: id, Repository: to.ID})
	if err != nil {
		h.Fatal(err)
	}
	return j.ID
}

// copies lists the images that are copies.
func (h *house) copies() []backup.Image {
	h.Helper()
	return slices.DeleteFunc(h.images(), func(i backup.Image) bool { return i.CopyOf == "" })
}

// copyable has an image of the VM, and a second repository. Its worker has ended.
func (h *house) copyable() (backup.Image, backup.RepositoryRecord) {
	h.Helper()
	stop := h.start()
	if j := h.ended(h.ask(h.vm)); j.State != backup.JobSucceeded {
		h.Fatalf("the backup is %s: %s", j.State, j.Error)
	}
	stop()
	h.clock.pass(time.Minute)
	return h.images()[0], h.addRepository("second")
}

func TestACopyIsTheWholeImageInAnotherRepository(t *testing.T) { // seed:K2 seed:K4
	h := newHouse(t)
	i, second := h.copyable()
	h.update(func(tx backup.Tx) error {
		i.Disks[0].SHA256, i.Disks[0].ChangeID, i.Labels = "sum", "52 d1/7", map[string]string{"tier": "gold"}
		i.FullCompareAt, i.VerifiedAt = start, start
		return tx.UpdateImage(h.ctx, i)
	})
	h.start()
	j := h.ended(h.copyImage(i.ID, second))
	if j.State != backup.JobSucceeded || j.Done != 128<<10 || j.Total != 128<<10 || j.ImageID != i.ID {
		t.Fatalf("job %+v, want all bytes copied", j)
	}
	c := h.copies()[0]
	if c.CopyOf != i.ID || c.ID == i.ID || c.RepositoryID != second.ID || c.JobID != j.ID || !c.EndedAt.Equal(h.clock.Now()) || !c.VerifiedAt.IsZero() || !c.ExpiresAt.Equal(i.ExpiresAt) {
		t.Errorf("copy %+v, want one of its own in the second repository", c)
	}
	if c.VMID != i.VMID || c.VMName != i.VMName || c.ScheduleID != i.ScheduleID || !c.StartedAt.Equal(i.StartedAt) || !c.PointInTime.Equal(i.PointInTime) || c.Status != i.Status ||
		c.Consistency != i.Consistency || c.ChangeDetection != i.ChangeDetection || !c.FullCompareAt.Equal(i.FullCompareAt) || c.Labels["tier"] != "gold" || c.Sizes.Provisioned != i.Sizes.Provisioned {
		t.Errorf("copy %+v differs from its original %+v", c, i)
	}
	if d := c.Disks[0]; d.SHA256 != "sum" || d.ChangeID != "52 d1/7" || d.Key != i.Disks[0].Key || d.Label != i.Disks[0].Label || d.Capacity != 64<<10 {
		t.Errorf("disk %+v, want it as in the original %+v", d, i.Disks[0])
	}
	h.repository.imagesMu.Lock()
	defer h.repository.imagesMu.Unlock()
	from, to := h.repository.images[i.Ref], h.repository.images[c.Ref]
	for key, want := range from.disks {
		if !bytes.Equal(to.disks[key], want) {
			t.Errorf("disk %d of the copy has other bytes", key)
		}
	}
	if string(to.files["vm.nvram"]) != "nvram of web" || string(to.manifest.Machine) != string(from.manifest.Machine) || to.manifest.VCenterUUID != from.manifest.VCenterUUID || to.manifest.Image.CopyOf != i.ID {
		t.Errorf("the copy holds %+v, %q", to.manifest, to.files)
	}
}

func TestTheImageOfAScheduleIsCopiedWhenItsBackupEnds(t *testing.T) { // seed:A27
	h := newHouse(t)
	second := h.addRepository("second")
	h.start()
	j := h.ended(h.ask(h.vm, func(s *backup.Schedule) { s.CopyTo = []backup.CopyTarget{{RepositoryID: second.ID, RetentionDays: 3}} }))
	h.until("the copy", func() bool { return len(h.copies()) == 1 })
	if c := h.copies()[0]; c.CopyOf != j.ImageID || !c.ExpiresAt.Equal(c.StartedAt.Add(72*time.Hour)) {
		t.Errorf("copy %+v, want one of image %s for three days", c, j.ImageID)
	}
}

func TestASecondCopySendsOnlyWhatHasChanged(t *testing.T) {
	h := newHouse(t)
	first, second := h.copyable()
	h.start()
	h.ended(h.copyImage(first.ID, second))
	h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { clear(vm.disks[2000][8<<10 : 12<<10]) })
	h.ended(h.ask(h.vm))
	next := h.images()[0]
	if j := h.ended(h.copyImage(next.ID, second)); j.State != backup.JobSucceeded || j.Done != 128<<10 {
		t.Fatalf("job %+v, want it succeeded and done", j)
	}
	c := slices.DeleteFunc(h.copies(), func(i backup.Image) bool { return i.CopyOf != next.ID })[0]
	if c.Disks[0].Read != 4<<10 || c.Disks[1].Read != 0 || c.Sizes.Read != 4<<10 {
		t.Errorf("%+v were read, want the 4 KiB that have changed", c.Disks)
	}
	h.repository.imagesMu.Lock()
	defer h.repository.imagesMu.Unlock()
	for key, want := range h.repository.images[next.Ref].disks {
		if !bytes.Equal(h.repository.images[c.Ref].disks[key], want) {
			t.Errorf("disk %d of the copy has other bytes", key)
		}
	}
}

func TestAFailureAtAnyStepOfACopyIsTriedAgain(t *testing.T) { // seed:N44
	for _, point := range []string{"Repository", "OpenImage", "Begin", "Disk", "CloseDisk", "File", "Commit", "Note"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			i, second := h.copyable()
			away := backup.Errorf(backup.RepositoryUnreachable, "", "The repository does not answer.")
			h.start()
			h.until("the measurement", func() bool { return len(h.repository.called("Space")) > 2 })
			h.repository.fail(point, 1, away)
			h.store.fail(point, 1, away)
			id := h.copyImage(i.ID, second)
			j := h.waiting(id, 1)
			if n := len(h.copies()); n != 0 || len(h.kept()) != 1 {
				t.Errorf("%d copies are listed and %d images kept, want none but the original", n, len(h.kept()))
			}
			h.clock.pass(j.Due.Sub(h.clock.Now()))
			if j := h.ended(id); j.State != backup.JobSucceeded || len(h.copies()) != 1 || len(h.kept()) != 2 {
				t.Errorf("job is %s with %d copies listed and %d images kept, want one copy", j.State, len(h.copies()), len(h.kept()))
			}
		})
	}
}

func TestACopyWhoseEndCannotBeStoredIsThereOnce(t *testing.T) {
	for name, c := range map[string]struct {
		noted   bool // the commit got into the checkpoint
		commits int
	}{"the commit was noted": {true, 1}, "it was not noted, too": {false, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			i, second := h.copyable()
			before := len(h.repository.called("Commit"))
			id := h.copyImage(i.ID, second)
			h.store.fail("Finish/"+id, 1, errDown)
			if !c.noted {
				h.repository.on("Commit", func() { h.store.fail("Note", 1, errDown) })
			}
			h.start()
			h.until("the end that is not stored", func() bool { return len(h.store.called("Finish/"+id)) == 1 })
			h.repository.on("Commit", nil)
			h.clock.pass(2 * time.Second) // the lease runs out
			j := h.ended(id)
			copies := h.copies()
			if j.State != backup.JobSucceeded || j.Attempt != 2 || j.Failures != 0 || len(copies) != 1 || len(h.kept()) != 2 {
				t.Fatalf("job is %s (%s) after %d attempts with %d copies and %d images kept, want one copy", j.State, j.Error, j.Attempt, len(copies), len(h.kept()))
			}
			if n := len(h.repository.called("Commit")) - before; n != c.commits {
				t.Errorf("%d commits, want %d", n, c.commits)
			}
			if _, there := h.repository.images[copies[0].Ref]; !there {
				t.Errorf("listed is %s, which is not there", copies[0].Ref)
			}
		})
	}
}

// TestACopyOfADeadServerIsMadeByAnother: it hangs at some step, another server
// takes the job over, and the first one ends.
func TestACopyOfADeadServerIsMadeByAnother(t *testing.T) {
	for _, point := range []string{"Begin", "CloseDisk", "Commit"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			i, second := h.copyable()
			id := h.copyImage(i.ID, second)
			held := h.repository.hold(t, point, 1)
			beats := h.store.hold(t, "Renew", -1)
			h.start(func(c *worker.Config) { c.Lease, c.Slots = 4*time.Second, 1 })
			h.wait(point, held.reached)
			h.wait("Renew", beats.reached)
			h.clock.pass(5 * time.Second)
			other := &faultyStore{DB: h.db}
			h.start(func(c *worker.Config) { c.Owner, c.Store = "server-2", other })
			j := h.ended(id)
			beats.release()
			held.release()
			if j.State != backup.JobSucceeded || j.Attempt != 2 || j.Owner != "server-2" || len(h.copies()) != 1 {
				t.Errorf("job %+v with %d copies, want one, made by the second server", j, len(h.copies()))
			}
		})
	}
}

func TestACopyThatIsNotWantedAnyMoreIsSkipped(t *testing.T) {
	h := newHouse(t)
	i, second := h.copyable()
	h.update(func(tx backup.Tx) error {
		i.ExpiresAt = h.clock.Now().Add(time.Hour)
		return tx.UpdateImage(h.ctx, i)
	})
	id := h.copyImage(i.ID, second)
	h.clock.pass(2 * time.Hour)
	h.start()
	if j := h.ended(id); j.State != backup.JobSkipped || !strings.Contains(j.Error, "over before") {
		t.Errorf("job is %s: %q, want it skipped, since its time is over", j.State, j.Error)
	}
}

func TestADamagedImageIsNotCopied(t *testing.T) {
	h := newHouse(t)
	i, second := h.copyable()
	id := h.copyImage(i.ID, second)
	h.update(func(tx backup.Tx) error {
		i.Status = backup.ImageDamaged
		return tx.UpdateImage(h.ctx, i)
	})
	h.start()
	if j := h.ended(id); j.State != backup.JobFailed || j.ErrorCode != backup.RepositoryDamaged {
		t.Errorf("job is %s (%s), want it failed: the image is damaged", j.State, j.ErrorCode)
	}
}

func TestACopyOfWhichSomethingIsMissingIsDamagedAtOnce(t *testing.T) {
	h := newHouse(t)
	i, second := h.copyable()
	h.found(broken)
	h.start()
	j := h.ended(h.copyImage(i.ID, second))
	if c := h.copies(); j.State != backup.JobFailed || j.ErrorCode != backup.RepositoryDamaged || len(c) != 1 || c[0].Status != backup.ImageDamaged {
		t.Errorf("job is %s (%s) with copies %+v, want a damaged one", j.State, j.ErrorCode, c)
	}
}

func TestACopyKeepsToItsRate(t *testing.T) {
	h := newHouse(t)
	i, second := h.copyable()
	h.start(func(c *worker.Config) { c.CopyRate = 256 << 10 })
	began := time.Now()
	if j := h.ended(h.copyImage(i.ID, second)); j.State != backup.JobSucceeded {
		t.Fatalf("job is %s: %s", j.State, j.Error)
	}
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("128 KiB took %s, want half a second at 256 KiB a second", took)
	}
}

func TestACopyIsLockedInItsStorageBeforeItsJobSucceeds(t *testing.T) { // seed:A33
	h := newHouse(t)
	i, second := h.copyable()
	second.Settings = map[string]string{"lock_mode": "compliance", "lock_days": "7"}
	h.update(func(tx backup.Tx) error {
		i.LockedUntil = i.ExpiresAt
		if err := tx.UpdateImage(h.ctx, i); err != nil {
			return err
		}
		return tx.UpdateRepository(h.ctx, &second)
	})
	h.repository.locksFrom(start)
	h.repository.fail("Lock", 1, unreachable)
	h.start()
	id := h.copyImage(i.ID, second)
	j := h.waiting(id, 1)
	if n := len(h.copies()); n != 0 {
		t.Errorf("%d copies are listed before they are locked, want none", n)
	}
	h.clock.pass(j.Due.Sub(h.clock.Now()))
	if j := h.ended(id); j.State != backup.JobSucceeded {
		t.Fatalf("job is %s: %s", j.State, j.Error)
	}
	if c := h.copies(); len(c) != 1 || !c[0].StorageLockedUntil.Equal(aWeek) || !c[0].LockedUntil.Equal(i.ExpiresAt) || len(h.kept()) != 2 {
		t.Errorf("copies %+v, want one that is locked by the server and its storage", c)
	}
}
