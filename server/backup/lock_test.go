package backup_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// lockFor gives the house's repository an object lock of so many days.
func (h *house) lockFor(days string) {
	h.Helper()
	h.update(func(tx backup.Tx) error {
		r, err := tx.Repository(h.ctx, h.repository.ID)
		if err != nil {
			return err
		}
		r.Settings = map[string]string{"lock_mode": "compliance", "lock_days": days}
		h.repository = r
		return tx.UpdateRepository(h.ctx, &r)
	})
}

func TestALockedScheduleSaysWhatItsRepositoryKeepsOfTheLock(t *testing.T) { // seed:A33
	h := newHouse(t, 10)
	h.Profile = backup.ProfileGeneral
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	for name, c := range map[string]struct {
		days     string // of the repository's lock; "" = none
		lock     bool
		keeps    int
		extended int
		want     string
	}{
		"no lock asked for":                {"", false, 7, 0, ""},
		"no object lock":                   {"", true, 7, 0, "no object lock"},
		"a shorter one":                    {"5", true, 7, 0, "locks for 5 days, and images are kept for 7"},
		"as long":                          {"7", true, 7, 0, ""},
		"shorter than the longest":         {"7", true, 7, 31, "kept for 31"},
		"images that never expire":         {"7", true, 0, 0, "never expire"},
		"some images that never expire":    {"7", true, 7, -1, "never expire"},
		"longer than all, and none locked": {"40", false, 0, 0, ""},
	} {
		s := nightly(name, 3)
		s.VMID, s.Lock, s.RetentionDays = vm.ID, c.lock, c.keeps
		if c.extended != 0 {
			s.Extended = []backup.ExtendedRetention{{Weekdays: []time.Weekday{time.Sunday}, RetentionDays: max(0, c.extended)}}
		}
		h.lockFor(c.days)
		if c.days == "" {
			h.update(func(tx backup.Tx) error {
				r, err := tx.Repository(h.ctx, h.repository.ID)
				if err != nil {
					return err
				}
				r.Settings = map[string]string{}
				return tx.UpdateRepository(h.ctx, &r)
			})
		}
		checked, warnings, err := h.CheckSchedule(h.ctx, s, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := strings.Join(warnings, " "); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: warnings %q, want %q", name, got, c.want)
		}
		again, err := h.ScheduleWarnings(h.ctx, checked)
		if err != nil || strings.Join(again, " ") != strings.Join(warnings, " ") {
			t.Errorf("%s: of the stored one %q (%v), want the same", name, again, err)
		}
	}
}

func TestALateExtensionOfTheStoragesLocksIsAWarning(t *testing.T) {
	r := backup.RepositoryRecord{Name: "vault", Settings: map[string]string{"lock_mode": "compliance", "lock_days": "7"}}
	r.CreatedAt = noon
	done := backup.Upkeep{Locked: backup.StorageLocked{At: noon, Until: noon.Add(7 * aDay), Days: 7}}
	for name, c := range map[string]struct {
		upkeep backup.Upkeep
		after  time.Duration
		change func(*backup.RepositoryRecord)
		want   string
	}{
		"new":                 {backup.Upkeep{}, aDay, nil, ""},
		"never extended":      {backup.Upkeep{}, 37 * time.Hour, nil, "never extended"},
		"extended yesterday":  {done, 36 * time.Hour, nil, ""},
		"extended before":     {done, 37 * time.Hour, nil, "2026-11-23 12:00 UTC"},
		"of another":          {done, 37 * time.Hour, func(r *backup.RepositoryRecord) { r.ReadOnly = true }, ""},
		"without object lock": {done, 37 * time.Hour, func(r *backup.RepositoryRecord) { r.Settings = nil }, ""},
	} {
		r := r
		r.Settings = maps.Clone(r.Settings)
		if c.change != nil {
			c.change(&r)
		}
		got := c.upkeep.LockWarning(r, noon.Add(c.after))
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: warning %q, want %q", name, got, c.want)
		}
	}
}

// A job that waits with a lock is not ended by an image that the storage could
// not lock: it tries that itself.
func TestAWaitingLockedScheduleTakesNoImageThatTheStorageDidNotLock(t *testing.T) {
	for name, c := range map[string]struct {
		lock   bool
		locked time.Time
		want   backup.JobState
	}{
		"locked, image not":    {true, time.Time{}, backup.JobQueued},
		"locked, image too":    {true, noon.AddDate(0, 0, 7), backup.JobSucceeded},
		"neither is locked":    {false, time.Time{}, backup.JobSucceeded},
		"only image is locked": {false, noon.AddDate(0, 0, 7), backup.JobSucceeded},
	} {
		h := newHouse(t, 10)
		h.lockFor("7")
		vm := h.addVMs(h.vcenter.ID, 1)[0]
		plain := nightly("plain", 13)
		plain.VMID = vm.ID
		h.add(plain)
		waits := nightly("waits", 13)
		waits.VMID, waits.Lock = vm.ID, c.lock
		waits = h.add(waits)
		h.update(func(tx backup.Tx) error { return tx.SetDueMark(h.ctx, waits.ID, noon.Add(3*time.Hour)) }) // not before the other's job runs
		h.clock.pass(119 * time.Minute)
		h.dispatch(1)
		made := h.claim()
		if made == nil {
			t.Fatalf("%s: no job can be claimed", name)
		}
		h.update(func(tx backup.Tx) error { return tx.SetDueMark(h.ctx, waits.ID, noon) })
		h.dispatch(1)
		i := backup.Image{ID: backup.NewID(h.clock.Now()), JobID: made.ID, RunID: made.RunID, VCenterID: vm.VCenterID, VMID: vm.ID, RepositoryID: h.repository.ID,
			Status: backup.ImageGood, StartedAt: h.clock.Now(), PointInTime: h.clock.Now(), StorageLockedUntil: c.locked}
		h.update(func(tx backup.Tx) error {
			if err := tx.InsertImage(h.ctx, i); err != nil {
				return err
			}
			return backup.ShareWithWaiting(h.ctx, tx, *made, i)
		})
		jobs := read(h, func(tx backup.Tx) ([]backup.Job, error) {
			all, _, err := tx.Jobs(h.ctx, backup.JobFilter{Kind: backup.KindBackup, Page: backup.Page{Limit: 10}})
			return all, err
		})
		for _, j := range jobs {
			if j.ID != made.ID && j.State != c.want {
				t.Errorf("%s: the waiting job is %s, want %s", name, j.State, c.want)
			}
		}
		if len(jobs) != 2 {
			t.Errorf("%s: %d jobs, want two", name, len(jobs))
		}
	}
}
