package backup_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// watched is a store that notes what each Update did.
type watched struct {
	backup.Store
	updates, schedules atomic.Int64
	mostJobs           atomic.Int64
}

type watchedTx struct {
	backup.Tx
	w    *watched
	jobs int64
}

func (w *watched) Update(ctx context.Context, fn func(backup.Tx) error) error {
	w.updates.Add(1)
	return w.Store.Update(ctx, func(tx backup.Tx) error {
		t := &watchedTx{Tx: tx, w: w}
		err := fn(t)
		w.mostJobs.Store(max(w.mostJobs.Load(), t.jobs))
		return err
	})
}

func (w *watched) View(ctx context.Context, fn func(backup.Tx) error) error {
	return w.Store.View(ctx, func(tx backup.Tx) error { return fn(&watchedTx{Tx: tx, w: w}) })
}

func (t *watchedTx) InsertRun(ctx context.Context, r backup.Run, jobs []backup.Job) (bool, error) {
	t.jobs += int64(len(jobs))
	return t.Tx.InsertRun(ctx, r, jobs)
}

func (t *watchedTx) Schedule(ctx context.Context, id string) (backup.Schedule, error) {
	t.w.schedules.Add(1)
	return t.Tx.Schedule(ctx, id)
}

func (t *watchedTx) Schedules(ctx context.Context, f backup.ScheduleFilter) ([]backup.Schedule, string, error) {
	all, next, err := t.Tx.Schedules(ctx, f)
	t.w.schedules.Add(int64(len(all)))
	return all, next, err
}

func (h *house) watch() *watched {
	w := &watched{Store: h.db}
	h.Store = w
	return w
}

func TestAnIdleLookReadsNoSchedule(t *testing.T) {
	h := newHouse(t, 100)
	for i, vm := range h.addVMs(h.vcenter.ID, 20) {
		s := nightly(vm.Name, 13+i%10)
		s.VMID = vm.ID
		h.add(s)
	}
	w := h.watch()
	h.dispatch(0)
	if n, u := w.schedules.Load(), w.updates.Load(); n != 0 || u != 0 {
		t.Errorf("a look at noon read %d schedules in %d transactions that write, want none", n, u)
	}
	h.clock.pass(time.Hour)
	h.dispatch(2)
	if n := w.schedules.Load(); n != 2 {
		t.Errorf("a look at 13:00 read %d schedules, want the two that are due", n)
	}
}

// Whatever changes when a schedule is due, the next look knows.
func TestALookFollowsEveryChangeOfASchedule(t *testing.T) {
	h := newHouse(t, 100)
	vms := h.addVMs(h.vcenter.ID, 2)
	s := nightly("s", 14)
	s.VMID = vms[0].ID
	s = h.add(s)
	h.clock.pass(time.Hour)
	h.dispatch(0)
	s.Recurrence.Hour = 13
	s = h.change(s)
	h.dispatch(1)
	s.Recurrence = backup.Recurrence{Kind: backup.Weekly, TimeZone: "UTC", Hour: 13, Weekdays: []time.Weekday{time.Wednesday}}
	s.RetentionDays = 7
	s = h.change(s)
	h.clock.pass(24 * time.Hour) // Tuesday
	h.dispatch(0)
	h.clock.pass(24 * time.Hour)
	h.dispatch(1)
	once := nightly("once", 13)
	once.VMID, once.RetentionDays, once.Recurrence.Kind, once.Recurrence.Date = vms[1].ID, 31, backup.OneTime, backup.Date{Year: 2026, Month: 11, Day: 26}
	once = h.add(once)
	h.clock.pass(24 * time.Hour)
	h.dispatch(1)
	h.clock.pass(24 * time.Hour)
	h.dispatch(0)
	if n := len(h.runs(once.ID)); n != 1 {
		t.Errorf("a one-time schedule ran %d times", n)
	}
	if err := h.DeleteSchedule(h.ctx, s.ID); err != nil {
		t.Fatal(err)
	}
	h.clock.pass(7 * 24 * time.Hour)
	h.dispatch(0)
}

// A program that comes with other rules of a time zone finds its schedules due
// by these.
func TestANewProgramWorksOutAnewWhenSchedulesAreDue(t *testing.T) {
	h := newHouse(t, 100)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	s := nightly("s", 13)
	s.VMID = vm.ID
	s = h.add(s)
	due := func() []string {
		return read(h, func(tx backup.Tx) ([]string, error) { return tx.DueSchedules(h.ctx, noon.Add(time.Hour)) })
	}
	h.update(func(tx backup.Tx) error { // as by other rules
		c := s
		c.Recurrence.Hour = 20
		if err := tx.UpdateSchedule(h.ctx, &c, nil); err != nil {
			return err
		}
		if err := tx.SetDueMark(h.ctx, s.ID, noon); err != nil {
			return err
		}
		c.Recurrence.Hour = 13
		return tx.UpdateSchedule(h.ctx, &c, nil)
	})
	if got := due(); len(got) != 0 {
		t.Fatalf("due are %v, want the state in which none is", got)
	}
	if err := h.RenewDue(h.ctx); err != nil {
		t.Fatal(err)
	}
	if got := due(); len(got) != 1 {
		t.Errorf("due at 13:00 are %v, want the schedule", got)
	}
	h.clock.pass(time.Hour)
	h.dispatch(1)
}

func TestManyOccurrencesAreDispatchedInBoundedTransactions(t *testing.T) {
	h := newHouse(t, 1000)
	h.Profile = backup.ProfileGeneral
	vms := h.addVMs(h.vcenter.ID, 90)
	group := nightly("group", 13)
	group.GroupID = h.addGroup("g", vms[:40]).ID
	group = h.add(group)
	for _, vm := range vms {
		s := nightly(vm.Name, 13)
		s.VMID = vm.ID
		h.add(s)
	}
	w := h.watch()
	h.clock.set(noon.Add(60*24*time.Hour + 2*time.Hour)) // down for sixty days
	const days = 61
	h.dispatch(days * 91)
	if n := w.mostJobs.Load(); n == 0 || n > 540 {
		t.Errorf("one transaction made %d jobs, want hundreds at most", n)
	}
	runs := h.runs(group.ID)
	if len(runs) != days {
		t.Fatalf("%d runs of %d days", len(runs), days)
	}
	for i, r := range runs {
		if want := noon.Add(time.Hour).AddDate(0, 0, i); !r.Slot.Equal(want) || len(r.Jobs) != 40 {
			t.Errorf("run %d is of %s with %d jobs, want %s with one of each VM", i, r.Slot, len(r.Jobs), want)
		}
		missed := i < days-1
		if (r.State == backup.RunMissed) != missed {
			t.Errorf("run of %s is %s, want all missed but the last", r.Slot, r.State)
		}
	}
	h.dispatch(0)
}

// away is a database that answers reads only.
type away struct {
	backup.Store
	asked int
}

func (a *away) Update(context.Context, func(backup.Tx) error) error {
	a.asked++
	return backup.Errorf(backup.Unavailable, "", "The database does not answer.")
}

func TestADatabaseThatIsAwayIsNotAskedForEachSchedule(t *testing.T) {
	h := newHouse(t, 100)
	for _, vm := range h.addVMs(h.vcenter.ID, 3) {
		s := nightly(vm.Name, 13)
		s.VMID = vm.ID
		h.add(s)
	}
	h.clock.pass(time.Hour)
	a := &away{Store: h.db}
	h.Store = a
	if n, err := h.Dispatch(h.ctx); n != 0 || backup.CodeOf(err) != backup.Unavailable || a.asked != 1 {
		t.Errorf("dispatch made %d runs (%v) and asked %d times, want it to give up at once", n, err, a.asked)
	}
	h.Store = h.db
	h.dispatch(3)
}

// seed:N20 seed:A61
func TestADisabledOrDeletedScheduleTakesBackWhatHasNotBegun(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(h *house, s backup.Schedule)
		text string
	}{
		"disabled": {func(h *house, s backup.Schedule) { s.Enabled = false; h.change(s) }, "The schedule was disabled"},
		"deleted": {func(h *house, s backup.Schedule) {
			if err := h.DeleteSchedule(h.ctx, s.ID); err != nil {
				h.Fatal(err)
			}
		}, "The schedule was deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, 10)
			s := nightly("s", 13)
			vms := h.addVMs(h.vcenter.ID, 4)
			s.GroupID = h.addGroup("g", vms).ID
			s = h.add(s)
			other := nightly("other", 13)
			other.VMID = vms[3].ID
			other = h.add(other)
			h.clock.pass(time.Hour)
			h.dispatch(2)
			byHand := must(h.RunSchedule(h.ctx, s.ID))(t)
			h.clock.pass(30 * time.Minute)
			running, tried := h.claim(), h.claim()
			if running == nil || tried == nil || running.RunID == tried.RunID && running.ID == tried.ID {
				t.Fatal("want two jobs begun")
			}
			h.finish(tried, backup.Ending{State: backup.JobQueued, Failed: true, Code: backup.VMBusy, Error: "Busy.", Due: h.clock.Now().Add(time.Minute)})
			c.end(h, s)
			begun := map[string]backup.JobState{running.ID: backup.JobRunning, tried.ID: backup.JobQueued}
			for _, r := range h.runs(s.ID) {
				for _, j := range r.Jobs {
					want, ok := begun[j.ID]
					switch {
					case r.ID == byHand.ID && !ok:
						want = backup.JobQueued // someone asked for it by hand
					case !ok:
						want = backup.JobSkipped
					}
					if j.State != want || want == backup.JobSkipped && (!strings.Contains(j.Error, c.text) || j.ErrorCode != backup.Conflict || j.EndedAt.IsZero()) {
						t.Errorf("job %s of a run by %s is %s (%q), want %s", j.ID, r.Trigger, j.State, j.Error, want)
					}
				}
				if r.Trigger == backup.TriggerSchedule && (r.State != backup.RunRunning || !strings.Contains(r.Message, c.text)) {
					t.Errorf("run %+v, want it to go on with what has begun and to say why not with all", r)
				}
			}
			if r := h.runs(other.ID)[0]; r.Jobs[0].State.Final() {
				t.Errorf("another schedule's job is %s", r.Jobs[0].State)
			}
		})
	}
}
