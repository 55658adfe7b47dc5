package backup_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// looks lets d pass hour by hour, each with a look at the clock.
func (h *house) looks(d time.Duration) {
	h.Helper()
	for ; d > 0; d -= time.Hour {
		h.clock.pass(time.Hour)
		must(h.Expire(h.ctx))(h.T)
	}
}

func TestAClockThatLeapsEndsNothingUntilItIsConfirmed(t *testing.T) { // seed:A33
	for name, c := range map[string]struct {
		leap    func(time.Time) time.Time
		trusted bool          // a leap that does no harm
		after   time.Duration // it is trusted by itself; 0 = it is not
	}{
		"an hour forward":   {leap: func(t time.Time) time.Time { return t.Add(time.Hour) }, trusted: true},
		"an hour back":      {leap: func(t time.Time) time.Time { return t.Add(-time.Hour) }, trusted: true},
		"a day forward":     {leap: func(t time.Time) time.Time { return t.Add(aDay) }, trusted: true},
		"a day back":        {leap: func(t time.Time) time.Time { return t.Add(-aDay) }, trusted: true},
		"two days forward":  {leap: func(t time.Time) time.Time { return t.Add(2 * aDay) }, after: aDay},
		"two days back":     {leap: func(t time.Time) time.Time { return t.Add(-2 * aDay) }},
		"ten years forward": {leap: func(t time.Time) time.Time { return t.AddDate(10, 0, 0) }},
		"ten years back":    {leap: func(t time.Time) time.Time { return t.AddDate(-10, 0, 0) }},
		"to 1971":           {leap: func(time.Time) time.Time { return time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC) }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, 10)
			h.looks(3 * time.Hour)
			h.clock.set(c.leap(h.clock.Now()))
			e := must(h.Expire(h.ctx))(t)
			if e.Clock.Trusted != c.trusted {
				t.Fatalf("after the leap the clock is %+v, want trusted = %t", e.Clock, c.trusted)
			}
			if c.trusted {
				return
			}
			h.looks(aDay - time.Hour)
			if s := must(h.Clock(h.ctx))(t); s.Trusted {
				t.Errorf("23 hours later the clock is %+v, want it not trusted", s)
			}
			h.looks(2 * time.Hour)
			if s := must(h.Clock(h.ctx))(t); s.Trusted != (c.after == aDay) {
				t.Errorf("25 hours later the clock is %+v, want trusted = %t", s, c.after == aDay)
			}
			h.looks(20 * aDay)
			if s := must(h.Clock(h.ctx))(t); s.Trusted != (c.after == aDay) {
				t.Errorf("three weeks later the clock is %+v, want trusted = %t", s, c.after == aDay)
			}
			must(h.ConfirmClock(h.ctx, h.clock.Now()))(t)
			if e := must(h.Expire(h.ctx))(t); !e.Clock.Trusted {
				t.Errorf("after it was confirmed the clock is %+v, want it trusted", e.Clock)
			}
		})
	}
}

func TestAClockIsConfirmedByOneThatAgreesOnly(t *testing.T) {
	h := newHouse(t, 10)
	h.looks(time.Hour)
	was := h.clock.Now()
	h.clock.set(was.AddDate(10, 0, 0))
	must(h.Expire(h.ctx))(t)
	_, err := h.ConfirmClock(h.ctx, was)
	refused(t, err, backup.Conflict, "time")
	if s := must(h.Clock(h.ctx))(t); s.Trusted || !s.Expected.Equal(was) || !strings.Contains(s.Warning(), "2026-11-23") || !strings.Contains(s.Warning(), "kura clock confirm") {
		t.Errorf("Clock() = %+v %q, want it not trusted, with what to do", s, s.Warning())
	}
}

func TestAClockThatLeapsOpensNoLocks(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	must(h.Expire(h.ctx))(t)
	i := h.addEnding(vm, 30*aDay, func(i *backup.Image) { i.LockedUntil = i.ExpiresAt })
	was := h.clock.Now()
	h.clock.set(was.AddDate(10, 0, 0))
	if _, err := h.DeleteImage(h.ctx, i.ID); backup.CodeOf(err) != backup.Locked { // before anybody looked
		t.Errorf("DeleteImage() at once = %v, want %s", err, backup.Locked)
	}
	if e := must(h.Expire(h.ctx))(t); e.Jobs != 0 || e.Clock.Trusted {
		t.Errorf("Expire() after a leap of ten years = %+v, want nothing", e)
	}
	if plan := must(h.ExpiryPlan(h.ctx))(t); len(plan) != 1 || !strings.Contains(plan[0].Stays, "leapt") {
		t.Errorf("ExpiryPlan() = %+v, want the reason", plan)
	}
	h.looks(40 * aDay) // nobody has seen it
	_, err := h.DeleteImage(h.ctx, i.ID)
	refused(t, err, backup.Locked, "")
	if n := must(h.PlanUpkeep(h.ctx))(t); n != 0 {
		t.Errorf("PlanUpkeep() asked for %d jobs, want no collection", n)
	}
	h.wantListed("after 40 days", i)
	h.clock.set(was.Add(40*aDay + time.Minute)) // the mistake was seen
	if e := must(h.Expire(h.ctx))(t); !e.Clock.Trusted {
		t.Errorf("with the right time the clock is %+v, want it trusted at once", e.Clock)
	}
	h.wantListed("at its end")
}

// slots counts the runs of a schedule by state.
func (h *house) slots(scheduleID string) map[backup.RunState]int {
	h.Helper()
	n := map[backup.RunState]int{}
	all := read(h, func(tx backup.Tx) ([]backup.Run, error) {
		all, _, err := tx.Runs(h.ctx, backup.RunFilter{ScheduleID: scheduleID, Page: backup.Page{Limit: 1000}})
		return all, err
	})
	for _, r := range all {
		n[r.State]++
	}
	return n
}

// night dispatches at noon and hands each due job to a server that succeeds.
func (h *house) night() (ran int) {
	h.Helper()
	must(h.Dispatch(h.ctx))(h.T)
	must(h.db.Expire(h.ctx))(h.T)
	for j := h.claimKind(backup.KindBackup); j != nil; j = h.claimKind(backup.KindBackup) {
		h.finish(j, backup.Ending{State: backup.JobSucceeded})
		ran++
	}
	return ran
}

func TestSchedulesFollowAClockThatLeaps(t *testing.T) {
	for name, leap := range map[string]func(time.Time) time.Time{
		"an hour forward":   func(t time.Time) time.Time { return t.Add(time.Hour) },
		"a day forward":     func(t time.Time) time.Time { return t.Add(aDay) },
		"three days":        func(t time.Time) time.Time { return t.Add(3 * aDay) },
		"ten years forward": func(t time.Time) time.Time { return t.AddDate(10, 0, 0) },
		"an hour back":      func(t time.Time) time.Time { return t.Add(-time.Hour) },
		"a day back":        func(t time.Time) time.Time { return t.Add(-aDay) },
		"ten years back":    func(t time.Time) time.Time { return t.AddDate(-10, 0, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, 10)
			vm := h.addVMs(h.vcenter.ID, 1)[0]
			s := must(h.CreateSchedule(h.ctx, backup.Schedule{Name: "nightly", VMID: vm.ID, Enabled: true, LatestHour: 23, WindowHours: 1, MaxDelayHours: 2, RetentionDays: 7,
				Recurrence: backup.Recurrence{Kind: backup.Daily, Hour: 13}}))(t)
			pass := func(hours int) (ran int) {
				for range hours {
					h.clock.pass(time.Hour)
					ran += h.night()
				}
				return ran
			}
			if n := pass(72); n != 3 {
				t.Fatalf("%d runs in three days, want 3", n)
			}
			was := h.clock.Now()
			h.clock.set(leap(was))
			during := h.night() + pass(2) // one late run at most
			if during > 1 {
				t.Errorf("%d runs just after the leap, want one at most", during)
			}
			if n := pass(72); n < 2 || n > 4 {
				t.Errorf("%d runs in three days of the wrong time, want one a day", n)
			}
			if n := h.slots(s.ID)[backup.RunMissed]; n > 101 {
				t.Errorf("%d runs are told as missed, want those of 100 days at most", n)
			}
			h.clock.set(was.Add(74 * time.Hour))
			if n := h.night(); n > 1 {
				t.Errorf("%d runs at the return, want one at most", n)
			}
			if n := pass(5 * 24); n < 4 || n > 5 {
				t.Errorf("%d runs in five days of the right time, want one a day", n)
			}
		})
	}
}

func TestALeaseAndADueOfTheFutureHoldUpNoJob(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 2)
	was := h.clock.Now()
	h.clock.set(was.AddDate(10, 0, 0))
	must(h.Dispatch(h.ctx))(t)
	for _, v := range vm {
		must(h.BackupVM(h.ctx, v.ID, backup.RunOptions{RetentionDays: 1}))(t)
	}
	dead := h.claim()
	tried := h.claim()
	h.finish(tried, backup.Ending{State: backup.JobQueued, Failed: true, Code: backup.VMBusy, Error: "Busy.", Due: h.clock.Now().Add(time.Minute)})
	h.clock.set(was.Add(time.Minute))
	must(h.Dispatch(h.ctx))(t)
	h.clock.pass(time.Second)
	got := map[string]bool{}
	for j := h.claimKind(backup.KindBackup); j != nil; j = h.claimKind(backup.KindBackup) {
		got[j.ID] = true
	}
	if !got[dead.ID] || !got[tried.ID] {
		t.Errorf("claimed %v, want %s, whose server is dead, and %s, which was to be tried again", got, dead.ID, tried.ID)
	}
}
