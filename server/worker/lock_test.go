package worker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

// newLockedHouse has a repository whose storage locks for a week.
func newLockedHouse(t *testing.T) *house {
	t.Helper()
	h := newHouse(t)
	h.repository.lockedFrom = start
	h.record.Settings = map[string]string{"lock_mode": "compliance", "lock_days": "7"}
	h.update(func(tx backup.Tx) error { return tx.UpdateRepository(h.ctx, &h.record) })
	return h
}

// lockings are those of single images.
func (h *house) lockings() (all []backup.Locking) {
	h.repository.imagesMu.Lock()
	defer h.repository.imagesMu.Unlock()
	for _, l := range h.repository.lockings {
		if l.Ref != "" {
			all = append(all, l)
		}
	}
	return all
}

func (h *house) upkeepOf() backup.Upkeep {
	h.Helper()
	return read(h, func(tx backup.Tx) (backup.Upkeep, error) { return tx.Upkeep(h.ctx, h.record.ID) })
}

// lockJobs lists the extensions that were asked for, newest first.
func (h *house) lockJobs() []backup.Job {
	h.Helper()
	return read(h, func(tx backup.Tx) ([]backup.Job, error) {
		all, _, err := tx.Jobs(h.ctx, backup.JobFilter{Kind: backup.KindLock, Page: backup.Page{Limit: 100}})
		return all, err
	})
}

// locksFrom makes lockings say that they began then.
func (r *fakeRepository) locksFrom(t time.Time) {
	r.imagesMu.Lock()
	defer r.imagesMu.Unlock()
	r.lockedFrom = t
}

var aWeek = start.AddDate(0, 0, 7)

func TestABackupIsLockedInTheStorageBeforeItSucceeds(t *testing.T) { // seed:A33
	h := newLockedHouse(t)
	defer h.start()()
	locking := h.repository.hold(t, "Lock", 1)
	id := h.ask(h.vm)
	h.wait("the locking", locking.reached)
	if j := h.job(id); j.State != backup.JobRunning || len(h.images()) != 0 {
		t.Errorf("before the lock is in force the job is %s with %d images listed", j.State, len(h.images()))
	}
	locking.release()
	if j := h.ended(id); j.State != backup.JobSucceeded {
		t.Fatalf("job is %s: %s", j.State, j.Error)
	}
	first := h.images()[0]
	if !first.StorageLockedUntil.Equal(aWeek) {
		t.Errorf("image is locked by the storage until %s, want %s", first.StorageLockedUntil, aWeek)
	}
	h.clock.pass(time.Hour)
	h.ended(h.ask(h.vm))
	all := h.lockings()
	if len(all) != 2 || all[1].Base != first.Ref || !all[1].BaseUntil.Equal(aWeek) {
		t.Errorf("lockings = %+v, want the second to know until when its base is locked", all)
	}
}

func TestALockedSchedulesJobIsTriedAgainWithTheImageThatIsThere(t *testing.T) {
	h := newLockedHouse(t)
	h.repository.fail("Lock", 1, unreachable)
	defer h.start()()
	id := h.ask(h.vm, func(s *backup.Schedule) { s.Lock = true })
	h.waiting(id, 1)
	h.clock.pass(15 * time.Second)
	if j := h.ended(id); j.State != backup.JobSucceeded || j.Failures != 1 {
		t.Errorf("job is %s after %d failures, want it succeeded after one: %s", j.State, j.Failures, j.Error)
	}
	if h.repository.commits != 1 {
		t.Errorf("%d images were committed, want the one", h.repository.commits)
	}
	if i := h.images(); len(i) != 1 || !i[0].StorageLockedUntil.Equal(aWeek) {
		t.Errorf("images = %+v, want the one, locked", i)
	}
}

func TestAnImageThatCannotBeLockedIsListedWithAWarning(t *testing.T) {
	for name, c := range map[string]struct {
		lock bool
		want backup.JobState
	}{"of a locked schedule": {true, backup.JobFailed}, "of another": {false, backup.JobSucceeded}} {
		t.Run(name, func(t *testing.T) {
			h := newLockedHouse(t)
			h.repository.fail("Lock", 100, unreachable)
			h.repository.fail("LockAll", 100, unreachable) // the daily extension, which may come at once
			defer h.start()()
			id := h.ask(h.vm, func(s *backup.Schedule) { s.Lock = c.lock })
			for failures := 1; c.lock && failures < 3; failures++ {
				h.waiting(id, failures)
				h.clock.pass(time.Minute)
			}
			j := h.ended(id)
			if j.State != c.want || !strings.Contains(strings.Join(j.Messages, " "), "could not be locked") {
				t.Errorf("job is %s %q, want %s and why", j.State, j.Messages, c.want)
			}
			i := h.images()
			if len(i) != 1 || i[0].Status != backup.ImageGood || !strings.Contains(i[0].Message, "could not be locked") || !i[0].StorageLockedUntil.IsZero() {
				t.Errorf("images = %+v, want the one with a warning", i)
			}
			if left := h.vsphere.snapshotsOf(h.vm.MOID); len(left) != 0 {
				t.Errorf("snapshots left: %v", left)
			}
		})
	}
}

func TestNothingIsLockedWhereTheStorageDoesNotLock(t *testing.T) {
	h := newHouse(t)
	defer h.start(func(c *worker.Config) { c.Upkeep = 5 * time.Millisecond })()
	h.ended(h.ask(h.vm, func(s *backup.Schedule) { s.Lock = true }))
	if all := h.lockings(); len(all) != 0 {
		t.Errorf("lockings = %+v, want none", all)
	}
}

func TestTheLocksOfARepositoryAreExtendedEachDay(t *testing.T) {
	h := newLockedHouse(t)
	h.repository.fail("LockAll", 100, backup.Errorf(backup.Conflict, "", "Not now."))
	defer h.start()()
	h.ended(h.ask(h.vm))
	lock := func(after time.Duration) *backup.Job {
		h.Helper()
		h.clock.pass(after)
		if _, err := h.planner.PlanUpkeep(h.ctx); err != nil {
			t.Fatal(err)
		}
		jobs := h.lockJobs()
		if len(jobs) == 0 {
			return nil
		}
		j := h.ended(jobs[0].ID)
		return &j
	}
	if j := lock(0); j == nil || j.State != backup.JobFailed {
		t.Fatalf("first extension = %+v, want it asked for at once, and failed", j)
	}
	if u := h.upkeepOf(); !u.Locked.At.IsZero() {
		t.Errorf("a failed extension is kept as %+v", u.Locked)
	}
	h.repository.fail("LockAll", 0, nil)
	lock(30 * time.Minute)
	if n := len(h.lockJobs()); n != 1 {
		t.Errorf("%d jobs half an hour after a failure, want the one", n)
	}
	h.repository.locksFrom(h.clock.Now())
	j := lock(30 * time.Minute)
	if n := len(h.lockJobs()); n != 2 || j.State != backup.JobSucceeded || !strings.Contains(strings.Join(j.Messages, " "), "3 requests") {
		t.Errorf("%d jobs, the last %s %q; want a second one that tells what it cost", n, j.State, j.Messages)
	}
	u, i := h.upkeepOf(), h.images()[0]
	if u.Locked.Calls != 3 || u.Locked.Days != 7 || !i.StorageLockedUntil.Equal(u.Locked.Until) {
		t.Errorf("kept %+v, image locked until %s", u.Locked, i.StorageLockedUntil)
	}
	lock(23 * time.Hour)
	if n := len(h.lockJobs()); n != 2 {
		t.Errorf("%d jobs within a day, want no further one", n)
	}
	lock(time.Hour)
	if n := len(h.lockJobs()); n != 3 {
		t.Errorf("%d jobs after a day, want a third", n)
	}
	h.record.Settings["lock_days"] = "30"
	h.update(func(tx backup.Tx) error {
		r, err := tx.Repository(h.ctx, h.record.ID)
		if err != nil {
			return err
		}
		r.Settings = h.record.Settings
		return tx.UpdateRepository(h.ctx, &r)
	})
	lock(time.Hour)
	if n := len(h.lockJobs()); n != 4 {
		t.Errorf("%d jobs after the period was changed, want one at once", n)
	}
}

// TestALockedScheduleThatSharesAnImageHasItLocked: another's schedule made the
// image while the storage could not lock it, and succeeded with a warning.
func TestALockedScheduleThatSharesAnImageHasItLocked(t *testing.T) {
	h := newLockedHouse(t)
	plain := h.keep("plain", everyDay, 7)
	h.repository.fail("Lock", 1, unreachable)
	h.repository.fail("LockAll", 100, unreachable) // the daily extension, which may come at once
	stop := h.start(quick)
	h.clock.pass(allDue)
	h.backups(1)
	stop()
	if i := h.images(); len(i) != 1 || !i[0].StorageLockedUntil.IsZero() {
		t.Fatalf("images = %+v, want one that is not locked", i)
	}
	locked := h.keep("locked", everyDay, 7, lock)
	h.update(func(tx backup.Tx) error { return tx.SetDueMark(h.ctx, locked.ID, start) })
	h.start(quick)
	if i := h.oneForAll(h.backups(2), plain, locked); !i.StorageLockedUntil.Equal(aWeek) {
		t.Errorf("the storage locks the shared image until %s, want %s", i.StorageLockedUntil, aWeek)
	}
}
