package worker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

// The day on which every house's clock stands, a Monday, at 13:00.
var (
	everyDay   = backup.Recurrence{Kind: backup.Daily, TimeZone: "UTC", Hour: 13}
	everyWeek  = backup.Recurrence{Kind: backup.Weekly, TimeZone: "UTC", Hour: 13, Weekdays: []time.Weekday{time.Monday}}
	everyMonth = backup.Recurrence{Kind: backup.Monthly, TimeZone: "UTC", Hour: 13, MonthDays: []int{23}}
)

// keep stores a schedule of the VM.
func (h *house) keep(name string, r backup.Recurrence, days int, change ...func(*backup.Schedule)) backup.Schedule {
	h.Helper()
	s := backup.Schedule{Name: name, Enabled: true, VMID: h.vm.ID, RetentionDays: days, LatestHour: 23, Recurrence: r}
	for _, f := range change {
		f(&s)
	}
	s, err := h.planner.CreateSchedule(h.ctx, s)
	if err != nil {
		h.Fatal(err)
	}
	return s
}

// backups waits until n backups are over, and returns them.
func (h *house) backups(n int) []backup.Job {
	h.Helper()
	var all []backup.Job
	h.until("backups that are over", func() bool {
		all = read(h, func(tx backup.Tx) ([]backup.Job, error) {
			all, _, err := tx.Jobs(h.ctx, backup.JobFilter{Kind: backup.KindBackup, Page: backup.Page{Limit: 100}})
			return all, err
		})
		return len(all) == n && !slices.ContainsFunc(all, func(j backup.Job) bool { return !j.State.Final() })
	})
	return all
}

// foundBy lists the images that a look-up by schedule finds.
func (h *house) foundBy(f backup.ImageFilter) []string {
	h.Helper()
	f.Limit = 100
	var ids []string
	for _, i := range read(h, func(tx backup.Tx) ([]backup.Image, error) {
		all, _, err := tx.Images(h.ctx, f)
		return all, err
	}) {
		ids = append(ids, i.ID)
	}
	return ids
}

// oneForAll checks that all these schedules share one image.
func (h *house) oneForAll(jobs []backup.Job, schedules ...backup.Schedule) backup.Image {
	h.Helper()
	images := h.images()
	if len(images) != 1 || len(h.kept()) != 1 {
		h.Fatalf("%d images are listed and %d kept, want one for all", len(images), len(h.kept()))
	}
	id := images[0].ID
	for _, s := range schedules {
		if got := h.foundBy(backup.ImageFilter{ScheduleID: s.ID}); !slices.Equal(got, []string{id}) {
			h.Errorf("schedule %s finds the images %v, want %s", s.Name, got, id)
		}
	}
	sharers := 0
	for _, j := range jobs {
		if j.State != backup.JobSucceeded || j.ImageID != id {
			h.Errorf("job %s is %s (%s) with image %q, want it succeeded with %s", j.ID, j.State, j.Error, j.ImageID, id)
		}
		if got := h.foundBy(backup.ImageFilter{RunID: j.RunID}); !slices.Equal(got, []string{id}) {
			h.Errorf("run of job %s finds the images %v, want %s", j.ID, got, id)
		}
		if len(j.Messages) == 1 && strings.Contains(j.Messages[0], "Shares the image of schedule") {
			sharers++
		}
	}
	if sharers != len(schedules)-1 {
		h.Errorf("%d jobs say that they share an image, want all but the one that made it", sharers)
	}
	if left, made := h.vsphere.snapshotsOf(h.vm.MOID), h.vsphere.called("CreateSnapshot"); len(left) != 0 || len(made) != 1 {
		h.Errorf("snapshots %v are left of %q, want one made and none left", left, made)
	}
	return images[0]
}

func labelled(name, value string) func(*backup.Schedule) {
	return func(s *backup.Schedule) { s.Labels = map[string]string{name: value} }
}

func lock(s *backup.Schedule) { s.Lock = true }

// seed:A10
func TestSchedulesOfOneVMThatAreDueTogetherShareOneImage(t *testing.T) {
	h := newHouse(t)
	daily := h.keep("daily", everyDay, 7, labelled("line", "daily"), lock)
	weekly := h.keep("weekly", everyWeek, 14, labelled("audit", "yes"))
	monthly := h.keep("monthly", everyMonth, 31, labelled("line", "monthly"))
	h.start(quick)
	h.clock.pass(allDue)
	jobs := h.backups(3)
	i := h.oneForAll(jobs, daily, weekly, monthly)
	begun := start.Add(allDue)
	if !i.ExpiresAt.Equal(begun.AddDate(0, 0, 31)) || !i.LockedUntil.Equal(begun.AddDate(0, 0, 7)) {
		t.Errorf("the image ends %s and is locked until %s, want the monthly retention and the daily lock", i.ExpiresAt, i.LockedUntil)
	}
	if i.Labels["audit"] != "yes" || i.Labels["line"] == "" {
		t.Errorf("labels %v, want those of all", i.Labels)
	}
	h.clock.pass(24 * time.Hour) // Tuesday: the daily one is alone
	h.backups(4)
	if n := len(h.images()); n != 2 {
		t.Errorf("%d images after the next day, want one more", n)
	}
}

func TestAScheduleOfAGroupSharesItsMembersImages(t *testing.T) {
	h := newHouse(t)
	g, err := h.planner.CreateGroup(h.ctx, backup.Group{Name: "g", VirtualMachineIDs: []string{h.vm.ID}})
	if err != nil {
		t.Fatal(err)
	}
	daily := h.keep("daily", everyDay, 7)
	weekly := h.keep("weekly", everyWeek, 14, func(s *backup.Schedule) { s.VMID, s.GroupID = "", g.ID })
	h.start(quick)
	h.clock.pass(allDue)
	i := h.oneForAll(h.backups(2), daily, weekly)
	if got := h.foundBy(backup.ImageFilter{GroupID: g.ID}); !slices.Equal(got, []string{i.ID}) {
		t.Errorf("the group finds %v, want %s", got, i.ID)
	}
}

func TestWhatWantsAnotherImageMakesItsOwn(t *testing.T) {
	for name, change := range map[string]func(*backup.Schedule){
		"other disks":             func(s *backup.Schedule) { s.Disks.ExcludeLabels = []string{"Hard disk 2"} },
		"another consistency":     func(s *backup.Schedule) { s.Consistency = backup.ConsistencyApp },
		"what cannot be is left":  func(s *backup.Schedule) { s.Unprotectable = backup.UnprotectedSkip },
		"a slot that comes after": func(s *backup.Schedule) { s.Recurrence.Hour = 14 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.trackAll()
			h.keep("daily", everyDay, 7)
			h.keep("weekly", everyWeek, 14, change)
			h.start(quick)
			h.clock.pass(allDue)
			h.backups(len(h.due()))
			h.clock.pass(time.Hour)
			jobs := h.backups(2)
			if jobs[0].ImageID == jobs[1].ImageID || len(h.images()) != 2 || len(jobs[0].Messages)+len(jobs[1].Messages) != 0 {
				t.Errorf("images %q and %q (%d in all), want two", jobs[0].ImageID, jobs[1].ImageID, len(h.images()))
			}
		})
	}
}

// due are the enabled schedules of that hour of the house's clock.
func (h *house) due() (due []backup.Schedule) {
	h.Helper()
	for _, s := range read(h, func(tx backup.Tx) ([]backup.Schedule, error) {
		all, _, err := tx.Schedules(h.ctx, backup.ScheduleFilter{EnabledOnly: true})
		return all, err
	}) {
		if s.Recurrence.Hour == h.clock.Now().Hour() {
			due = append(due, s)
		}
	}
	return due
}

func TestARunByHandMakesItsOwnImage(t *testing.T) {
	h := newHouse(t)
	weekly := h.keep("weekly", everyWeek, 14)
	h.keep("daily", everyDay, 7)
	h.clock.pass(allDue)
	if _, err := h.planner.RunSchedule(h.ctx, weekly.ID); err != nil {
		t.Fatal(err)
	}
	h.start(quick)
	h.backups(3)
	if n := len(h.images()); n != 2 {
		t.Errorf("%d images, want one for both slots and one for the run by hand", n)
	}
}

// A backup that takes longer than its window keeps those that wait for it from
// being missed.
func TestWhatWaitsForItsImageIsNotMissed(t *testing.T) {
	h := newHouse(t)
	daily, weekly := h.keep("daily", everyDay, 7), h.keep("weekly", everyWeek, 14) // never late
	reading := h.vsphere.hold(t, "ReadDisks", 1)
	h.start(quick, func(c *worker.Config) { c.Lease = 24 * time.Hour })
	h.clock.pass(allDue)
	h.wait("the reading of disks", reading.reached)
	h.clock.pass(3 * time.Hour)
	if n, err := h.db.Expire(h.ctx); n != 0 || err != nil {
		t.Fatalf("Expire = %d, %v, want the waiting job left alone", n, err)
	}
	reading.release()
	for _, j := range h.backups(2) {
		if j.LateBy() != 0 {
			t.Errorf("job %s is %s late, want the instant of its image to count", j.ID, j.LateBy())
		}
	}
	h.oneForAll(h.backups(2), daily, weekly)
}

func TestWhatWaitedForAnImageThatFailedIsMissedWithTheReason(t *testing.T) {
	h := newHouse(t)
	h.keep("daily", everyDay, 7)
	h.keep("weekly", everyWeek, 14)
	reading := h.vsphere.hold(t, "ReadDisks", 1)
	h.vsphere.fail("ReadDisks", 1, backup.Errorf(backup.Invalid, "", "Broken."))
	h.start(quick, func(c *worker.Config) { c.Lease = 24 * time.Hour })
	h.clock.pass(allDue)
	h.wait("the reading of disks", reading.reached)
	h.clock.pass(3 * time.Hour)
	reading.release()
	jobs := h.backups(2)
	slices.SortFunc(jobs, func(a, b backup.Job) int { return strings.Compare(string(a.State), string(b.State)) })
	if jobs[0].State != backup.JobFailed || jobs[1].State != backup.JobMissed || !strings.Contains(jobs[1].Error, "Another backup of the VM ran then: job "+jobs[0].ID) {
		t.Errorf("jobs are %s and %s (%q), want the second missed because of the first", jobs[0].State, jobs[1].State, jobs[1].Error)
	}
}

// allBackups are the backups there are, over or not.
func (h *house) allBackups() []backup.Job {
	h.Helper()
	return read(h, func(tx backup.Tx) ([]backup.Job, error) {
		all, _, err := tx.Jobs(h.ctx, backup.JobFilter{Kind: backup.KindBackup, Page: backup.Page{Limit: 100}})
		return all, err
	})
}

// A server that dies after the image is committed and before that is stored
// leaves the sharing to the maker's next attempt.
func TestAServerThatDiesInBetweenLeavesOneSharedImage(t *testing.T) {
	h := newHouse(t)
	late := func(s *backup.Schedule) { s.MaxDelayHours = 6 }
	daily, weekly := h.keep("daily", everyDay, 7, late), h.keep("weekly", everyWeek, 14, late)
	h.clock.pass(allDue)
	if _, err := h.planner.Dispatch(h.ctx); err != nil {
		t.Fatal(err)
	}
	jobs := h.allBackups()
	for _, j := range jobs { // whichever is first
		h.store.fail("Finish/"+j.ID, 1, errDown)
	}
	h.start(quick)
	h.until("an end that is not stored", func() bool {
		return len(h.store.called("Finish/"+jobs[0].ID, "Finish/"+jobs[1].ID)) == 1
	})
	h.clock.pass(2 * time.Second) // the lease runs out
	if i := h.oneForAll(h.backups(2), daily, weekly); !i.ExpiresAt.Equal(i.StartedAt.AddDate(0, 0, 14)) {
		t.Errorf("the image ends %s, want 14 days after %s", i.ExpiresAt, i.StartedAt)
	}
}

func TestAJobThatSharesIsFinishedByTheNextAttempt(t *testing.T) {
	h := newHouse(t)
	daily := h.keep("daily", everyDay, 7)
	stop := h.start(quick)
	h.clock.pass(allDue)
	h.backups(1)
	stop()
	h.clock.pass(4 * time.Minute)
	weekly := h.keep("weekly", everyWeek, 14) // made in its own slot, in which the image is there already
	if _, err := h.planner.Dispatch(h.ctx); err != nil {
		t.Fatal(err)
	}
	id := h.allBackups()[0].ID // the newest
	h.store.fail("Finish/"+id, 1, errDown)
	h.start(quick)
	h.until("the end that is not stored", func() bool { return len(h.store.called("Finish/"+id)) == 1 })
	if got := h.foundBy(backup.ImageFilter{ScheduleID: weekly.ID}); len(got) != 0 {
		t.Errorf("the weekly schedule has the images %v before its job's end is stored", got)
	}
	h.clock.pass(2 * time.Second) // the lease runs out
	i := h.oneForAll(h.backups(2), daily, weekly)
	if j := h.job(id); j.Attempt != 2 || !j.StartedAt.Equal(i.StartedAt) || !i.ExpiresAt.Equal(i.StartedAt.AddDate(0, 0, 14)) {
		t.Errorf("job %+v with image %+v, want it shared at the second attempt and to count from the image's start", j, i)
	}
}
