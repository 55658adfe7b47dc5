package backup_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// dispatch makes runs of what is due and fails when there are not want of them.
func (h *house) dispatch(want int) {
	h.Helper()
	if made, err := h.Dispatch(h.ctx); err != nil || made != want {
		h.Errorf("dispatch made %d runs (%v), want %d", made, err, want)
	}
}

func TestASlotGetsOneRunWhoeverDispatches(t *testing.T) {
	const schedules, servers = 6, 4
	h := newHouse(t, schedules)
	woken := make(chan struct{}, 100)
	h.Wake = func() { woken <- struct{}{} }
	vms := h.addVMs(h.vcenter.ID, schedules)
	for _, vm := range vms {
		s := nightly(vm.Name, 13)
		s.VMID = vm.ID
		h.add(s)
	}
	h.dispatch(0)
	h.clock.set(noon.Add(61 * time.Minute))
	var mu sync.Mutex
	made := 0
	var wg sync.WaitGroup
	for range servers {
		wg.Go(func() {
			n, err := h.Dispatch(h.ctx)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			made += n
		})
	}
	wg.Wait()
	if made != schedules || len(woken) == 0 {
		t.Errorf("%d runs were made and the worker was woken %d times, want %d and once at least", made, len(woken), schedules)
	}
	runs := h.runs("")
	if len(runs) != schedules {
		t.Fatalf("%d runs, want one for each of %d schedules", len(runs), schedules)
	}
	for _, r := range runs {
		if !r.Slot.Equal(noon.Add(time.Hour)) || r.Trigger != backup.TriggerSchedule || len(r.Jobs) != 1 {
			t.Errorf("run %+v, want one job in the slot of 13:00", r)
		}
	}
	h.dispatch(0)
	for i, mark := range h.state().marks {
		if !mark.Equal(h.clock.Now()) {
			t.Errorf("schedule %d is dispatched up to %s, want now: the next look begins there", i, mark)
		}
	}
}

// seed:N27 seed:N58
func TestARunIsSpreadOverItsWindow(t *testing.T) {
	h := newHouse(t, 10)
	s := nightly("s", 13)
	s.GroupID, s.WindowHours, s.MaxDelayHours = h.addGroup("g", h.addVMs(h.vcenter.ID, 20)).ID, 2, 3
	s = h.add(s)
	h.clock.set(noon.Add(time.Hour))
	h.dispatch(1)
	start := noon.Add(time.Hour)
	perHour := map[int]int{}
	var last time.Time
	for _, j := range h.runs(s.ID)[0].Jobs {
		perHour[j.Due.Hour()]++
		if j.Due.Before(start) || j.Due.Minute() >= 50 || !j.WindowEnd.Equal(start.Add(2*time.Hour)) || !j.Deadline.Equal(start.Add(5*time.Hour)) {
			t.Errorf("job due %s, window until %s, deadline %s", j.Due, j.WindowEnd, j.Deadline)
		}
		if j.Due.Equal(last) {
			t.Errorf("two jobs are due at %s, want them spread", j.Due)
		}
		last = j.Due
	}
	if perHour[13] != 10 || perHour[14] != 10 {
		t.Errorf("jobs per hour %v, want 10 in each of two", perHour)
	}
}

// TestSchedulesOfSingleVMsAreSpreadOverTheirHour: they do not all begin at
// minute 0, each begins at the same minute every day, and those of one VM begin
// together.
//
// seed:N58
func TestSchedulesOfSingleVMsAreSpreadOverTheirHour(t *testing.T) {
	h := newHouse(t, 50)
	vms := h.addVMs(h.vcenter.ID, 40)
	for i, vm := range append(vms, vms[0]) {
		s := nightly(fmt.Sprintf("s%d", i), 13)
		s.VMID, s.MaxDelayHours = vm.ID, 48
		h.add(s)
	}
	h.clock.pass(25 * time.Hour) // 13:00 of the second day
	h.dispatch(82)
	minutes := map[string]map[time.Duration]bool{}
	quarters := map[int]int{}
	for _, j := range read(h, func(tx backup.Tx) ([]backup.Job, error) {
		jobs, _, err := tx.Jobs(h.ctx, backup.JobFilter{Kind: backup.KindBackup, Page: backup.Page{Limit: 100}})
		return jobs, err
	}) {
		into := j.Due.Sub(j.Due.Truncate(time.Hour))
		if minutes[j.VMID] == nil {
			minutes[j.VMID] = map[time.Duration]bool{}
		}
		minutes[j.VMID][into] = true
		quarters[int(into/(10*time.Minute))]++
		if into >= 50*time.Minute {
			t.Errorf("a job is due %s into its hour, want the first 50 minutes", into)
		}
	}
	for vm, at := range minutes {
		if len(at) != 1 {
			t.Errorf("VM %s is due at %d minutes of the hour, want one", vm, len(at))
		}
	}
	if len(quarters) < 4 {
		t.Errorf("jobs per ten minutes: %v, want them spread", quarters)
	}
}

func TestAfterADowntimeEveryOccurrenceHasItsRun(t *testing.T) {
	h := newHouse(t, 10)
	s := nightly("s", 13)
	s.VMID = h.addVMs(h.vcenter.ID, 1)[0].ID
	s = h.add(s)
	h.clock.pass(73 * time.Hour) // 13:00 on the fourth day
	h.dispatch(4)
	if n := must(h.db.Expire(h.ctx))(t); n != 0 {
		t.Errorf("%d jobs waited for their deadline, want those of the days before over already", n)
	}
	runs := h.runs(s.ID)
	for i, r := range runs {
		j := r.Jobs[0]
		if want := noon.Add(time.Duration(1+24*i) * time.Hour); !r.Slot.Equal(want) {
			t.Errorf("run %d is of %s, want %s", i, r.Slot, want)
		}
		if i < 3 && (r.State != backup.RunMissed || j.State != backup.JobMissed || j.EndedAt.IsZero() || r.EndedAt.IsZero() ||
			!strings.Contains(j.Error, "could not start by") || !strings.Contains(j.Error, "No server was up")) {
			t.Errorf("run of %s is %s, its job %s (%q), want missed with the reason", r.Slot, r.State, j.State, j.Error)
		}
	}
	if len(runs) != 4 || runs[3].State != backup.RunQueued {
		t.Fatalf("runs %+v, want the last of four waiting", runs)
	}
	h.clock.pass(50 * time.Minute)
	if j := h.claim(); j == nil || j.RunID != runs[3].ID || j.LateBy() != 0 {
		t.Errorf("claimed %+v, want the job of today, in time", j)
	}
}

func TestAJobThatStartsAfterItsWindowSaysByHowMuch(t *testing.T) {
	h := newHouse(t, 10)
	s := nightly("s", 13)
	s.VMID = h.addVMs(h.vcenter.ID, 1)[0].ID
	h.add(s)
	h.clock.pass(3*time.Hour + 30*time.Minute) // the window ended at 14:00
	h.dispatch(1)
	if j := h.claim(); j == nil || j.LateBy() != 90*time.Minute {
		t.Errorf("claimed %+v, want it 90 minutes late", j)
	}
}

// seed:N19 seed:N20 seed:A61
func TestADisabledScheduleDoesNotRunAndMakesUpForNothing(t *testing.T) {
	h := newHouse(t, 10)
	s := nightly("s", 13)
	s.VMID, s.Enabled = h.addVMs(h.vcenter.ID, 1)[0].ID, false
	s = h.add(s)
	h.clock.pass(50 * time.Hour)
	h.dispatch(0)
	s.Enabled = true
	s = h.change(s)
	h.dispatch(0)
	if runs := h.runs(s.ID); len(runs) != 0 {
		t.Errorf("%d runs of the days when it was disabled, want none", len(runs))
	}
	h.clock.pass(24 * time.Hour)
	h.dispatch(1)
}

func TestAScheduleMadeInItsOwnSlotRunsInIt(t *testing.T) {
	h := newHouse(t, 10)
	h.clock.set(noon.Add(40 * time.Minute))
	for name, hour := range map[string]int{"this hour": 12, "the hour before": 11} {
		s := nightly(name, hour)
		s.VMID = h.addVMs(h.vcenter.ID, 1)[0].ID
		h.add(s)
	}
	h.dispatch(1)
}

// broken is a store in which one schedule's group cannot be read.
type broken struct {
	backup.Store
	group string
}

type brokenTx struct {
	backup.Tx
	group string
}

var errBroken = errors.New("broken")

func (b broken) Update(ctx context.Context, fn func(backup.Tx) error) error {
	return b.Store.Update(ctx, func(tx backup.Tx) error { return fn(brokenTx{tx, b.group}) })
}

func (b brokenTx) Group(ctx context.Context, id string) (backup.Group, error) {
	if id == b.group {
		return backup.Group{}, errBroken
	}
	return b.Tx.Group(ctx, id)
}

func TestOneScheduleThatFailsKeepsNoOtherWaiting(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 3)
	var all []backup.Schedule
	for _, vm := range vms {
		s := nightly(vm.Name, 13)
		s.GroupID = h.addGroup(vm.Name, []backup.VirtualMachine{vm}).ID
		all = append(all, h.add(s))
	}
	h.clock.pass(time.Hour)
	h.Store = broken{h.db, all[1].GroupID}
	made, err := h.Dispatch(h.ctx)
	if made != 2 || !errors.Is(err, errBroken) || !strings.Contains(err.Error(), all[1].Name) {
		t.Errorf("dispatch made %d runs (%v), want 2 and the error of %s", made, err, all[1].Name)
	}
	h.Store = h.db
	h.dispatch(1)
}

// seed:N61 seed:N45 seed:H9
func TestAMemberThatIsGoneGetsAJobThatSaysSo(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 3)
	s := nightly("s", 13)
	s.GroupID = h.addGroup("g", vms).ID
	s = h.add(s)
	h.leave(vms[1])
	run := must(h.RunSchedule(h.ctx, s.ID))(t)
	states := map[string]backup.JobState{}
	for _, j := range run.Jobs {
		states[j.VMName] = j.State
		if j.State == backup.JobSkipped && (j.ErrorCode != backup.VMGone || !strings.Contains(j.Error, vms[1].Name) || j.EndedAt.IsZero()) {
			t.Errorf("skipped job %+v, want the reason and the end", j)
		}
	}
	if states[vms[0].Name] != backup.JobQueued || states[vms[1].Name] != backup.JobSkipped || run.State != backup.RunRunning {
		t.Errorf("run is %s with %v, want the VM that is gone skipped only", run.State, states)
	}
	h.leave(vms...)
	h.clock.pass(time.Hour)
	h.dispatch(1)
	runs := h.runs(s.ID)
	if last := runs[len(runs)-1]; last.State != backup.RunSucceeded || last.EndedAt.IsZero() {
		t.Errorf("run of VMs that are all gone: %+v, want it ended", last)
	}
}

// seed:A57
func TestARunNowOfAnEmptyGroupIsOverAtOnce(t *testing.T) {
	h := newHouse(t, 10)
	g := must(h.CreateGroup(h.ctx, backup.Group{Name: "g", Selector: &backup.Selector{VCenterID: h.vcenter.ID, NameRegex: "^none"}}))(t)
	s := nightly("s", 2)
	s.GroupID = g.ID
	s = h.add(s)
	run := must(h.RunSchedule(h.ctx, s.ID))(t)
	if run.State != backup.RunSucceeded || run.EndedAt.IsZero() || run.Message == "" || len(run.Jobs) != 0 || run.Trigger != backup.TriggerManual {
		t.Errorf("run %+v, want it succeeded with a message", run)
	}
	for range 2 { // run-now is not bound to a slot
		must(h.RunSchedule(h.ctx, s.ID))(t)
	}
	if n := len(h.runs(s.ID)); n != 3 {
		t.Errorf("%d runs, want 3", n)
	}
}

// seed:A18 seed:A19 seed:A20 seed:N31 seed:W4
func TestARunNowIsCheckedAndCarriesWhatItWasAskedFor(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	g := h.addGroup("g", vms)
	for _, days := range []int{0, 2, 30} {
		_, err := h.BackupGroup(h.ctx, g.ID, backup.RunOptions{RetentionDays: days})
		refused(t, err, backup.Invalid, "retention_days")
	}
	_, err := h.BackupVM(h.ctx, vms[0].ID, backup.RunOptions{RetentionDays: 31, Consistency: "none"})
	refused(t, err, backup.Invalid, "consistency")
	_, err = h.BackupVM(h.ctx, vms[0].ID, backup.RunOptions{RetentionDays: 31, RepositoryID: "none"})
	refused(t, err, backup.NotFound, "repository")
	_, err = h.BackupVM(h.ctx, "none", backup.RunOptions{RetentionDays: 31})
	refused(t, err, backup.NotFound, "")
	_, err = h.BackupGroup(h.ctx, "none", backup.RunOptions{RetentionDays: 31})
	refused(t, err, backup.NotFound, "")

	run := must(h.BackupGroup(h.ctx, g.ID, backup.RunOptions{RetentionDays: 366, Consistency: backup.ConsistencyApp, Full: true, RepositoryID: "default", Labels: map[string]string{"for": "patch"}}))(t)
	if len(run.Jobs) != 2 || run.State != backup.RunQueued || run.GroupID != g.ID || run.Trigger != backup.TriggerManual {
		t.Fatalf("run %+v, want two jobs that wait", run)
	}
	for _, j := range run.Jobs {
		spec := string(j.Spec)
		for _, part := range []string{`"retention_days":366`, `"consistency":"app"`, `"full":true`, `"for":"patch"`, h.repository.ID} {
			if !strings.Contains(spec, part) {
				t.Errorf("spec %s lacks %s", spec, part)
			}
		}
		if !slices.Contains(j.Needs, "vcenter:a") || !slices.Contains(j.Needs, "repository:default") || !j.Deadline.IsZero() {
			t.Errorf("job needs %v with deadline %s, want its vcenter and repository and no deadline", j.Needs, j.Deadline)
		}
	}
	h.leave(vms[0])
	_, err = h.BackupVM(h.ctx, vms[0].ID, backup.RunOptions{RetentionDays: 31})
	refused(t, err, backup.VMGone, "")
	h.Profile = backup.ProfileGeneral
	must(h.BackupVM(h.ctx, vms[1].ID, backup.RunOptions{RetentionDays: 0}))(t)
}

// seed:W17 seed:W18 seed:W19
func TestMappedTagsBecomeLabels(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	vms[0].Tags = []backup.Tag{{Category: "OS", Name: "Windows"}}
	h.save(vms)
	h.vcenter.TagMappings = []backup.TagMapping{{Category: "OS", Tag: "Windows", Key: "OS-Windows", Value: "Windows"}}
	h.vcenter = must(h.UpdateVCenter(h.ctx, h.vcenter))(t)
	for i, want := range []bool{true, false} {
		run := must(h.BackupVM(h.ctx, vms[i].ID, backup.RunOptions{RetentionDays: 1}))(t)
		if got := strings.Contains(string(run.Jobs[0].Spec), `"OS-Windows":"Windows"`); got != want {
			t.Errorf("job of %s carries the label: %t, want %t", vms[i].Name, got, want)
		}
	}
}

// TestRunsByHandWaitForTheCapacity: a run-now needs no seat, but no more
// backups of a vcenter run at a time than an hour has seats.
//
// seed:N29 seed:A57
func TestRunsByHandWaitForTheCapacity(t *testing.T) {
	h := newHouse(t, 2)
	g := h.addGroup("three", h.addVMs(h.vcenter.ID, 3))
	if run := must(h.BackupGroup(h.ctx, g.ID, backup.RunOptions{RetentionDays: 1}))(t); len(run.Jobs) != 3 {
		t.Fatalf("the run has %d jobs, want 3", len(run.Jobs))
	}
	first, second := h.claim(), h.claim()
	if first == nil || second == nil {
		t.Fatal("a vcenter with two seats runs fewer than two backups")
	}
	if third := h.claim(); third != nil {
		t.Fatalf("job %s started as the third on a vcenter with two seats", third.ID)
	}
	h.finish(first, backup.Ending{State: backup.JobSucceeded})
	if h.claim() == nil {
		t.Error("the third backup did not start when there was room")
	}
}
