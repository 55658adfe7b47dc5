package server_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

// The year begins so that 29 February lies in it.
var (
	yearBegin = time.Date(2027, 6, 1, 0, 57, 0, 0, time.UTC)
	yearEnd   = time.Date(2028, 6, 2, 0, 57, 0, 0, time.UTC)
	// Nothing runs from downAt to upAt, and whoever ran a job then is gone.
	downAt = time.Date(2028, 1, 12, 6, 30, 0, 0, time.UTC)
	upAt   = downAt.Add(24 * time.Hour)
)

// planned is a schedule of the year, and what is done to it.
type planned struct {
	backup.Recurrence
	vms, window, delay int
	to                 time.Time // until then it is enabled; zero = to the end
	again              time.Time // from then on it is enabled again
	gone               time.Time // the first VM leaves
	fails              bool      // the first try of each job
	long               bool      // its job runs for two hours

	id, name string
	vm       []backup.VirtualMachine
}

// enabled says whether an occurrence of p at t is to run.
func (p *planned) enabled(t time.Time) bool {
	return (p.to.IsZero() || t.Before(p.to)) || !p.again.IsZero() && t.After(p.again)
}

func on(kind backup.RecurrenceKind, zone string, hour int, set func(*backup.Recurrence)) backup.Recurrence {
	r := backup.Recurrence{Kind: kind, TimeZone: zone, Hour: hour}
	if set != nil {
		set(&r)
	}
	return r
}

// yearOfSchedules holds what is hard about a calendar, in four zones whose
// clocks change in both halves of the year.
func yearOfSchedules() map[string]*planned {
	days := func(days ...int) func(*backup.Recurrence) {
		return func(r *backup.Recurrence) { r.MonthDays = days }
	}
	nth := func(n int, d time.Weekday) func(*backup.Recurrence) {
		return func(r *backup.Recurrence) { r.Nth, r.Weekday = n, d }
	}
	weekly := func(days ...time.Weekday) func(*backup.Recurrence) {
		return func(r *backup.Recurrence) { r.Weekdays = days }
	}
	date := func(y int, m time.Month, d int) func(*backup.Recurrence) {
		return func(r *backup.Recurrence) { r.Date = backup.Date{Year: y, Month: m, Day: d} }
	}
	const ny, berlin, santiago, howe = "America/New_York", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe"
	all := map[string]*planned{
		// each of these hours is skipped on one day of the year
		"every night in New York":  {Recurrence: on(backup.Daily, ny, 2, nil)},
		"every night in Berlin":    {Recurrence: on(backup.Daily, berlin, 2, nil)}, // and occurs twice on another
		"every night in Santiago":  {Recurrence: on(backup.Daily, santiago, 0, nil)},
		"every night on Lord Howe": {Recurrence: on(backup.Daily, howe, 2, nil), delay: -1},
		// and these occur twice
		"Sundays in New York":     {Recurrence: on(backup.Weekly, ny, 1, weekly(time.Sunday))},
		"Saturdays in Santiago":   {Recurrence: on(backup.Weekly, santiago, 23, weekly(time.Saturday))},
		"Sundays on Lord Howe":    {Recurrence: on(backup.Weekly, howe, 1, weekly(time.Sunday))},
		"the 31st":                {Recurrence: on(backup.Monthly, ny, 22, days(31))},
		"the 31st or the last":    {Recurrence: on(backup.Monthly, santiago, 22, func(r *backup.Recurrence) { r.MonthDays, r.ShortLast = []int{31}, true })},
		"the 29th and 30th":       {Recurrence: on(backup.Monthly, howe, 12, days(29, 30))},
		"the last day":            {Recurrence: on(backup.Monthly, berlin, 23, func(r *backup.Recurrence) { r.LastDay = true })},
		"fifth Wednesday":         {Recurrence: on(backup.Monthly, ny, 5, nth(5, time.Wednesday))},
		"fifth Sunday":            {Recurrence: on(backup.Monthly, berlin, 2, nth(5, time.Sunday))},
		"last Sunday":             {Recurrence: on(backup.Monthly, berlin, 2, nth(backup.Last, time.Sunday))},
		"first Sunday":            {Recurrence: on(backup.Monthly, howe, 2, nth(1, time.Sunday))},
		"last Friday":             {Recurrence: on(backup.Monthly, santiago, 9, nth(backup.Last, time.Friday))},
		"once on the leap day":    {Recurrence: on(backup.OneTime, ny, 12, date(2028, 2, 29))},
		"once in a skipped hour":  {Recurrence: on(backup.OneTime, berlin, 2, date(2028, 3, 26))},
		"once, cut off by a fall": {Recurrence: on(backup.OneTime, berlin, 6, date(2028, 1, 12)), long: true},
		"a window of three hours": {Recurrence: on(backup.Weekly, berlin, 18, weekly(time.Tuesday)), vms: 4, window: 3},
		"Wednesdays, late or not": {Recurrence: on(backup.Weekly, berlin, 8, weekly(time.Wednesday)), delay: 48},
		"a VM that leaves":        {Recurrence: on(backup.Weekly, santiago, 6, weekly(time.Monday)), gone: time.Date(2027, 12, 3, 12, 0, 0, 0, time.UTC)},
		"a member that leaves":    {Recurrence: on(backup.Weekly, ny, 6, weekly(time.Thursday)), vms: 2, gone: time.Date(2028, 2, 1, 12, 0, 0, 0, time.UTC)},
		"disabled for a while": {Recurrence: on(backup.Weekly, howe, 20, weekly(time.Monday, time.Friday)),
			to: time.Date(2027, 9, 15, 12, 0, 0, 0, time.UTC), again: time.Date(2027, 11, 16, 12, 0, 0, 0, time.UTC)},
		"fails at first": {Recurrence: on(backup.Weekly, berlin, 4, weekly(time.Friday)), fails: true},
	}
	for name, p := range all {
		p.name, p.vms, p.window = name, max(1, p.vms), max(1, p.window)
		switch p.delay {
		case 0:
			p.delay = 6
		case -1: // never late
			p.delay = 0
		}
	}
	return all
}

// calendarYear is a server without vSphere: its worker does nothing, but when
// it should.
type calendarYear struct {
	*testing.T
	ctx     context.Context
	clock   *rushClock
	db      *store.DB
	planner *backup.Planner
	all     map[string]*planned
	byID    map[string]*planned
	running []running
	steps   int
}

type running struct {
	job  backup.Job
	ends time.Time
}

func newYear(t *testing.T) *calendarYear {
	y := &calendarYear{T: t, ctx: t.Context(), clock: &rushClock{now: yearBegin}, all: yearOfSchedules(), byID: map[string]*planned{}}
	db, err := store.Open(y.ctx, store.Config{DSN: "sqlite:" + filepath.Join(t.TempDir(), "kura.db"), Key: bytes.Repeat([]byte{7}, 32), Now: y.clock.Now, Migrate: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	y.db, y.planner = db, &backup.Planner{Store: db}
	v, err := y.planner.CreateVCenter(y.ctx, backup.VCenter{Name: "v", Endpoint: "https://v.example", Username: "kura", Password: "p", SlotCapacity: 10})
	if err != nil {
		t.Fatal(err)
	}
	y.update(func(tx backup.Tx) error {
		return tx.InsertRepository(y.ctx, &backup.RepositoryRecord{Name: "default", Kind: "filesystem", Password: "secret", Default: true})
	})
	for name, p := range y.all {
		for i := range p.vms {
			p.vm = append(p.vm, backup.VirtualMachine{VCenterID: v.ID, InstanceUUID: fmt.Sprint(name, i), MOID: fmt.Sprint(name, i), Name: fmt.Sprint(name, i)})
		}
		y.update(func(tx backup.Tx) error { return tx.SaveMachines(y.ctx, p.vm) })
		y.create(p)
	}
	return y
}

func (y *calendarYear) update(fn func(backup.Tx) error) {
	y.Helper()
	if err := y.db.Update(y.ctx, fn); err != nil {
		y.Fatal(err)
	}
}

func (y *calendarYear) create(p *planned) {
	y.Helper()
	s := backup.Schedule{Name: p.name, Enabled: true, LatestHour: 23, Recurrence: p.Recurrence, WindowHours: p.window, MaxDelayHours: p.delay,
		RetentionDays: map[backup.RecurrenceKind]int{backup.OneTime: 31, backup.Daily: 7, backup.Weekly: 14, backup.Monthly: 31}[p.Kind]}
	if len(p.vm) == 1 {
		s.VMID = p.vm[0].ID
	} else {
		g := backup.Group{Name: p.name}
		for _, vm := range p.vm {
			g.VirtualMachineIDs = append(g.VirtualMachineIDs, vm.ID)
		}
		g, err := y.planner.CreateGroup(y.ctx, g)
		if err != nil {
			y.Fatal(err)
		}
		s.GroupID = g.ID
	}
	s, err := y.planner.CreateSchedule(y.ctx, s)
	if err != nil {
		y.Fatal(err)
	}
	p.id, y.byID[s.ID] = s.ID, p
}

// enable turns a schedule on or off.
func (y *calendarYear) enable(p *planned, enabled bool) {
	y.Helper()
	var s backup.Schedule
	err := y.db.View(y.ctx, func(tx backup.Tx) (err error) {
		s, err = tx.Schedule(y.ctx, p.id)
		return err
	})
	if err == nil {
		s.Enabled = enabled
		_, err = y.planner.UpdateSchedule(y.ctx, s)
	}
	if err != nil {
		y.Fatalf("enable %q: %v", p.name, err)
	}
}

func (y *calendarYear) leave(vm backup.VirtualMachine) {
	y.update(func(tx backup.Tx) error { return tx.MarkGone(y.ctx, vm.VCenterID, []string{vm.MOID}, false) })
}

// occurrences walks over the year's quarter hours and lists what begins in it.
func occurrences(zones map[string]*[24][]beginning, p *planned) (out []beginning) {
	for _, b := range zones[p.TimeZone][p.Hour] {
		if b.at.After(yearBegin) && b.at.Before(yearEnd) && falls(p.Recurrence, b.day) && p.enabled(b.at) {
			out = append(out, b)
		}
	}
	return out
}

// TestAYearOfSchedules lets a year pass on a fake clock: in the end every
// occurrence that a walk over the zones' clocks finds has one run, and each job
// is told to have succeeded, been late, been skipped or missed, and why.
//
// seed:N22 seed:N36 seed:N37 seed:N58 seed:N61 seed:N19 seed:N20
func TestAYearOfSchedules(t *testing.T) {
	y := newYear(t)
	zones := newAuditor(t, yearBegin.Add(-5*24*time.Hour), yearEnd, "America/New_York", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe").zones
	want, skipped := map[*planned][]beginning{}, map[string]int{}
	agenda := map[time.Time][]func(){}
	look := func(at time.Time) { agenda[at] = append(agenda[at], func() {}) }
	for _, p := range y.all {
		want[p] = occurrences(zones, p)
		for _, b := range want[p] {
			if b.gap {
				skipped[p.TimeZone]++
			}
			if p.vms == 1 { // due by minute 50, over ten minutes later
				look(b.at)
				look(b.at.Add(50 * time.Minute))
				look(b.at.Add(time.Hour))
				continue
			}
			for wait := time.Duration(0); wait <= time.Duration(p.window)*time.Hour+10*time.Minute; wait += 10 * time.Minute {
				look(b.at.Add(wait))
			}
		}
		if !p.to.IsZero() {
			agenda[p.to] = append(agenda[p.to], func() { y.enable(p, false) })
			agenda[p.again] = append(agenda[p.again], func() { y.enable(p, true) })
		}
		if !p.gone.IsZero() {
			agenda[p.gone] = append(agenda[p.gone], func() { y.leave(p.vm[0]) })
		}
	}
	for i := range 20 {
		look(upAt.Add(time.Duration(i) * 10 * time.Minute))
	}
	if len(skipped) != 4 {
		t.Fatalf("hours that daylight saving skips: %v, want some in four zones", skipped)
	}
	begun := time.Now()
	for _, at := range slices.SortedFunc(keys(agenda), time.Time.Compare) {
		if !at.Before(downAt) && at.Before(upAt) {
			y.running = nil // their worker is gone; the leases run out
			continue
		}
		y.clock.pass(at.Sub(y.clock.Now()))
		for _, do := range agenda[at] {
			do()
		}
		y.step()
	}
	y.account(want)
	t.Logf("a year in %s, %d steps", time.Since(begun).Round(time.Millisecond), y.steps)
}

func keys[K comparable, V any](m map[K]V) func(yield func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// step does what a server does at one moment.
func (y *calendarYear) step() {
	y.Helper()
	y.steps++
	now := y.clock.Now()
	y.running = slices.DeleteFunc(y.running, func(r running) bool {
		if now.Before(r.ends) {
			return false
		}
		y.finish(r.job)
		return true
	})
	if _, err := y.planner.Dispatch(y.ctx); err != nil {
		y.Fatalf("dispatch at %s: %v", now, err)
	}
	if _, err := y.db.Expire(y.ctx); err != nil {
		y.Fatalf("expire at %s: %v", now, err)
	}
	for {
		j, err := y.db.Claim(y.ctx, backup.Claim{Owner: "server", Lease: 3 * time.Hour, Kinds: []backup.JobKind{backup.KindBackup}})
		if err != nil {
			y.Fatalf("claim at %s: %v", now, err)
		}
		if j == nil {
			return
		}
		ends := now.Add(10 * time.Minute)
		if y.plannedOf(*j).long && j.Attempt == 1 {
			ends = now.Add(2 * time.Hour)
		}
		y.running = append(y.running, running{*j, ends})
	}
}

func (y *calendarYear) plannedOf(j backup.Job) *planned {
	y.Helper()
	for _, p := range y.all {
		if slices.ContainsFunc(p.vm, func(vm backup.VirtualMachine) bool { return vm.ID == j.VMID }) {
			return p
		}
	}
	y.Fatalf("job %s is about a VM of no schedule", j.ID)
	return nil
}

func (y *calendarYear) finish(j backup.Job) {
	y.Helper()
	e := backup.Ending{State: backup.JobSucceeded}
	if y.plannedOf(j).fails && j.Failures == 0 {
		e = backup.Ending{State: backup.JobQueued, Failed: true, Due: y.clock.Now(), Code: backup.VCenterUnreachable, Error: "It did not answer."}
	}
	if err := y.db.Finish(y.ctx, backup.Lease{JobID: j.ID, Owner: "server", Attempt: j.Attempt}, e, nil); err != nil {
		y.Fatalf("finish at %s: %v", y.clock.Now(), err)
	}
}

// account compares the runs with what was to come.
func (y *calendarYear) account(want map[*planned][]beginning) {
	y.Helper()
	runs, jobs := y.history()
	states := map[backup.JobState]int{}
	late, total := 0, 0
	for _, p := range y.all {
		of := runs[p.id]
		total += len(of)
		slices.SortFunc(of, func(a, b backup.Run) int { return a.Slot.Compare(b.Slot) })
		var got, slots []string
		for _, r := range of {
			got = append(got, r.Slot.UTC().Format(time.DateTime))
		}
		for _, b := range want[p] {
			slots = append(slots, b.at.Format(time.DateTime))
		}
		if !slices.Equal(got, slots) {
			y.Errorf("%q (%s) has %d runs, want %d:\n got %q\nwant %q", p.name, p.Describe(), len(got), len(slots), got, slots)
			continue
		}
		for _, r := range of {
			if len(jobs[r.ID]) != p.vms || r.Trigger != backup.TriggerSchedule || r.State == backup.RunQueued || r.State == backup.RunRunning {
				y.Errorf("%q at %s is %s with %d jobs, want it over with %d", p.name, r.Slot, r.State, len(jobs[r.ID]), p.vms)
			}
			for _, j := range jobs[r.ID] {
				states[j.State]++
				if j.LateBy() > 0 {
					late++
				}
				if why := p.wrong(r.Slot, j); why != "" {
					y.Errorf("%q at %s: job of %s is %s (%q), started %s, late by %s: %s", p.name, r.Slot, j.VMName, j.State, j.Error, j.StartedAt, j.LateBy(), why)
				}
			}
		}
	}
	y.Logf("%d runs, jobs %v, %d of them late", total, states, late)
	if states[backup.JobSucceeded] < 1500 || states[backup.JobSkipped] < 20 || states[backup.JobMissed] < 2 || late < 2 {
		y.Errorf("jobs %v, %d late: want some of each", states, late)
	}
}

// wrong says what of a job's end is not as it should be.
func (p *planned) wrong(slot time.Time, j backup.Job) string {
	hours := func(n int) time.Duration { return time.Duration(n) * time.Hour }
	windowEnd := slot.Add(hours(p.window))
	down := !slot.Before(downAt) && slot.Before(upAt)
	switch {
	case !p.gone.IsZero() && slot.After(p.gone) && j.VMID == p.vm[0].ID:
		if j.State != backup.JobSkipped || j.ErrorCode != backup.VMGone || !strings.Contains(j.Error, j.VMName) {
			return "want it skipped, for the VM is gone"
		}
	case down && upAt.After(windowEnd.Add(hours(p.delay))):
		if j.State != backup.JobMissed || j.ErrorCode == "" || !strings.Contains(j.Error, "could not start by") {
			return "want it missed, with the reason"
		}
	case j.State != backup.JobSucceeded:
		return "want it succeeded"
	case down:
		if !j.StartedAt.Equal(upAt) || j.LateBy() != upAt.Sub(windowEnd) {
			return fmt.Sprintf("want it started at %s, late by %s", upAt, upAt.Sub(windowEnd))
		}
	case j.StartedAt.Before(slot) || !j.StartedAt.Before(windowEnd) || j.LateBy() != 0:
		return "want it started in its window"
	case p.window == 1 && p.vms == 1 && j.StartedAt.After(slot.Add(50*time.Minute)):
		return "want it started in the first 50 minutes of its slot"
	case p.fails && (j.Failures != 1 || j.Attempt != 2), p.long && j.Attempt != 2:
		return fmt.Sprintf("attempt %d after %d failures, want the second", j.Attempt, j.Failures)
	}
	return ""
}

// history reads all runs by schedule, and their jobs by run.
func (y *calendarYear) history() (runs map[string][]backup.Run, jobs map[string][]backup.Job) {
	y.Helper()
	runs, jobs = map[string][]backup.Run{}, map[string][]backup.Job{}
	err := y.db.View(y.ctx, func(tx backup.Tx) error {
		for page := (backup.Page{Limit: 1000}); ; {
			some, next, err := tx.Runs(y.ctx, backup.RunFilter{Page: page})
			if err != nil {
				return err
			}
			for _, r := range some {
				runs[r.ScheduleID] = append(runs[r.ScheduleID], r)
			}
			if page.Cursor = next; next == "" {
				break
			}
		}
		for page := (backup.Page{Limit: 1000}); ; {
			some, next, err := tx.Jobs(y.ctx, backup.JobFilter{Kind: backup.KindBackup, Page: page})
			if err != nil {
				return err
			}
			for _, j := range some {
				jobs[j.RunID] = append(jobs[j.RunID], j)
			}
			if page.Cursor = next; next == "" {
				return nil
			}
		}
	})
	if err != nil {
		y.Fatal(err)
	}
	return runs, jobs
}
