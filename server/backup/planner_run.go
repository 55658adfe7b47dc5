package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// RunOptions is what a run-now is asked for, where it has no schedule (seed A20).
type RunOptions struct {
	RetentionDays int // 0 = never; checked against the profile's one_time choices
	RepositoryID  string
	Consistency   Consistency
	Full          bool // read everything (seed W4)
	Labels        map[string]string
}

const defaultAttempts = 3

func newJob(now time.Time, k JobKind) Job {
	return Job{ID: NewID(now), Project: DefaultProject, Kind: k, State: JobQueued, Due: now, MaxAttempts: defaultAttempts, CreatedAt: now}
}

// A job needs a server that reaches its vcenter and its repository.
func reachVCenter(v VCenter) string             { return "vcenter:" + v.Name }
func reachRepository(r RepositoryRecord) string { return "repository:" + r.Name }

// RunSchedule backs up what the schedule covers, now, as the schedule says. It
// needs no seat but obeys the running limits (seed A57). Errors: NotFound.
func (p *Planner) RunSchedule(ctx context.Context, id string) (Run, error) {
	return p.start(ctx, func(tx Tx) (*runPlan, error) {
		s, err := tx.Schedule(ctx, id)
		if err != nil {
			return nil, err
		}
		return planRun(ctx, tx, s)
	})
}

// BackupGroup backs up the group's members now. Errors: NotFound, Invalid.
func (p *Planner) BackupGroup(ctx context.Context, id string, o RunOptions) (Run, error) {
	return p.start(ctx, func(tx Tx) (*runPlan, error) {
		if _, err := tx.Group(ctx, id); err != nil {
			return nil, err
		}
		return p.planNow(ctx, tx, Schedule{GroupID: id}, o)
	})
}

// BackupVM backs up one VM now. Errors: NotFound, VMGone, Invalid.
func (p *Planner) BackupVM(ctx context.Context, id string, o RunOptions) (Run, error) {
	return p.start(ctx, func(tx Tx) (*runPlan, error) {
		vm, err := tx.Machine(ctx, id)
		if err != nil {
			return nil, err
		}
		if vm.Gone() {
			return nil, Errorf(VMGone, "", "VM %q left its vcenter on %s, so it cannot be backed up.", vm.Name, vm.GoneAt.Format(time.DateOnly))
		}
		return p.planNow(ctx, tx, Schedule{VMID: id}, o)
	})
}

func (p *Planner) start(ctx context.Context, plan func(Tx) (*runPlan, error)) (Run, error) {
	var run Run
	err := p.Store.Update(ctx, func(tx Tx) error {
		r, err := plan(tx)
		if err != nil {
			return err
		}
		if _, err := tx.InsertRun(ctx, r.run, r.jobs); err != nil {
			return err
		}
		run, err = tx.Run(ctx, r.run.ID)
		return err
	})
	if err == nil {
		p.wake()
	}
	return run, err
}

// planNow makes a schedule of run options, for one run.
func (p *Planner) planNow(ctx context.Context, tx Tx, s Schedule, o RunOptions) (*runPlan, error) {
	if err := p.profile().Check("retention_days", OneTime, o.RetentionDays); err != nil {
		return nil, err
	}
	s.RetentionDays, s.RepositoryID, s.Consistency, s.Labels = o.RetentionDays, o.RepositoryID, o.Consistency, o.Labels
	s = s.Defaulted()
	if err := s.validChoices(); err != nil {
		return nil, err
	}
	if err := checkOffline(ctx, tx, s); err != nil {
		return nil, err
	}
	if err := p.repository(ctx, tx, &s); err != nil {
		return nil, err
	}
	r, err := planRun(ctx, tx, s)
	if err == nil && o.Full {
		err = r.full()
	}
	return r, err
}

// runPlan is a run with its jobs before they are stored.
type runPlan struct {
	run  Run
	jobs []Job
}

// planRun makes a run of s by hand: it has no seat and no slot.
func planRun(ctx context.Context, tx Tx, s Schedule) (*runPlan, error) {
	b, err := jobsOf(ctx, tx, s, inventories{})
	if err != nil {
		return nil, err
	}
	return b.run(tx.Now(), Occurrence{}), nil
}

// jobsOf resolves what s backs up now, for one run or several.
func jobsOf(ctx context.Context, tx Tx, s Schedule, inv inventories) (*jobBuilder, error) {
	b := &jobBuilder{schedule: s, vcenters: map[string]VCenter{}}
	var err error
	if s.GroupID == "" {
		var vm VirtualMachine
		if vm, err = tx.Machine(ctx, s.VMID); err != nil {
			return nil, err
		}
		b.vms = []VirtualMachine{vm}
	} else {
		if b.group, err = tx.Group(ctx, s.GroupID); err != nil {
			return nil, err
		}
		if b.vms, err = inv.members(ctx, tx, b.group); err != nil {
			return nil, err
		}
		if err := look(ctx, tx, b.group, b.vms, ""); err != nil {
			return nil, err
		}
	}
	if b.repo, err = tx.Repository(ctx, s.RepositoryID); err != nil {
		return nil, at("repository", err)
	}
	for _, vm := range b.vms {
		if _, ok := b.vcenters[vm.VCenterID]; ok {
			continue
		}
		if b.vcenters[vm.VCenterID], err = tx.VCenter(ctx, vm.VCenterID); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (r *runPlan) full() error {
	for i := range r.jobs {
		if r.jobs[i].Kind != KindBackup {
			continue
		}
		var spec BackupSpec
		if err := json.Unmarshal(r.jobs[i].Spec, &spec); err != nil {
			return fmt.Errorf("spec of job %s: %w", r.jobs[i].ID, err)
		}
		spec.Full = true
		r.jobs[i].Spec, _ = json.Marshal(spec) // plain values: cannot fail
	}
	return nil
}

// jobBuilder makes the jobs of runs.
type jobBuilder struct {
	schedule Schedule
	group    Group
	vms      []VirtualMachine
	repo     RepositoryRecord
	vcenters map[string]VCenter // of the vms
}

// run makes the run of an occurrence, or one by hand where that is zero: one
// job per VM, each with what it needs and what it counts against. A VM that is
// gone gets a job that says so (seed N61).
func (b *jobBuilder) run(now time.Time, o Occurrence) *runPlan {
	s := b.schedule
	r := &runPlan{run: Run{ID: NewID(now), Project: DefaultProject, ScheduleID: s.ID, GroupID: s.GroupID, Trigger: TriggerManual, CreatedAt: now}}
	for _, vm := range b.vms {
		r.jobs = append(r.jobs, b.job(now, r.run.ID, vm, o))
	}
	if o.Start.IsZero() {
		r.seatless(func(Job) bool { return true }, len(r.jobs))
		b.freeze(r, now)
		r.settle(now)
		return r
	}
	switch {
	case o.Clock == Gap: // it lands on an hour in which it has none (see seatIndex.each)
		r.seatless(func(Job) bool { return true }, len(r.jobs))
	case b.group.Selector != nil:
		of := b.group.Selector.VCenterID
		r.seatless(func(j Job) bool { return j.VCenterID == of }, b.unbooked())
	}
	r.schedule(s, o.Start, now)
	b.freeze(r, now)
	r.settle(now)
	return r
}

// unbooked is how many members the schedule has no seats for.
func (b *jobBuilder) unbooked() int {
	n := -b.schedule.Seats
	for _, vm := range b.vms {
		if !vm.Gone() {
			n++
		}
	}
	return n
}

// seatless marks up to n jobs as such that have no seat: those of the VMs that
// came last, whose ids are the greatest.
func (r *runPlan) seatless(may func(Job) bool, n int) {
	for i := len(r.jobs) - 1; i >= 0 && n > 0; i-- {
		if j := &r.jobs[i]; j.State == JobQueued && may(*j) {
			j.Unbooked = true
			n--
		}
	}
}

func (b *jobBuilder) job(now time.Time, runID string, vm VirtualMachine, o Occurrence) Job {
	v := b.vcenters[vm.VCenterID]
	j := newJob(now, KindBackup)
	j.RunID, j.VCenterID, j.VMID, j.VMName = runID, vm.VCenterID, vm.ID, vm.Name
	j.Spec, _ = json.Marshal(b.spec(now, v, vm, o)) // plain values: cannot fail
	_, j.Messages = v.tagLabels(vm)
	if vm.Gone() {
		j.State, j.EndedAt = JobSkipped, now
		j.ErrorCode, j.Error = VMGone, fmt.Sprintf("VM %q is no longer in vcenter %s.", vm.Name, v.Name)
		return j
	}
	j.Needs = []string{reachVCenter(v), reachRepository(b.repo)}
	// What has no seat (runs by hand, grown groups, days that daylight saving
	// moved) waits while as many backups run as an hour has seats.
	j.Keys = append(keysOf(v, vm), JobKey{Name: "seats:" + v.ID, Weight: 1, Max: v.SlotCapacity})
	if b.group.MaxParallel > 0 {
		j.Keys = append(j.Keys, JobKey{Name: "run:" + runID, Weight: 1, Max: b.group.MaxParallel})
	}
	return j
}

func (b *jobBuilder) spec(now time.Time, v VCenter, vm VirtualMachine, o Occurrence) BackupSpec {
	s := b.schedule
	day := o.Slot.Date
	if o.Start.IsZero() {
		day = DateOf(now)
		if loc, err := s.Recurrence.Location(); err == nil {
			day = DateOf(now.In(loc))
		}
	}
	labels, _ := v.tagLabels(vm)
	for _, more := range []map[string]string{b.group.Labels, s.Labels} {
		for k, val := range more {
			labels[k] = val
		}
	}
	return BackupSpec{ScheduleID: s.ID, GroupID: s.GroupID, Consistency: s.Consistency, Disks: s.Disks, Unprotect: s.Unprotectable,
		RepositoryID: b.repo.ID, Retention: s.RetentionOn(day), Lock: s.Lock, Slot: o.Start, Labels: labels, CopyTo: s.CopyTo}
}

// keysOf lists what a job on vm counts against while it runs. A VM with more
// disks than a limit takes the whole limit, so that it can run at all.
func keysOf(v VCenter, vm VirtualMachine) []JobKey {
	l := v.Limits.Defaulted()
	disks := max(1, len(vm.Disks))
	keys := []JobKey{
		{Name: "vm:" + vm.ID, Weight: 1, Max: 1},
		{Name: "vcenter:" + v.ID, Weight: min(disks, l.Disks), Max: l.Disks},
	}
	if vm.Host != "" {
		keys = append(keys, JobKey{Name: "host:" + v.ID + "/" + vm.Host, Weight: min(disks, l.DisksPerHost), Max: l.DisksPerHost})
	}
	for _, ds := range vm.Datastores {
		keys = append(keys, JobKey{Name: "datastore:" + v.ID + "/" + ds, Weight: 1, Max: l.JobsPerDatastore})
	}
	return keys
}

// LimitText says in a user's words which limit the key of that name counts
// against.
func LimitText(name string) string {
	kind, of, _ := strings.Cut(name, ":")
	_, thing, _ := strings.Cut(of, "/")
	switch kind {
	case "vm":
		return "one job per VM"
	case "vcenter":
		return "disks in flight of the vcenter (limits.disks)"
	case "host":
		return "disks in flight on host " + thing + " (limits.disks_per_host)"
	case "datastore":
		return "jobs on datastore " + thing + " (limits.jobs_per_datastore)"
	case "seats":
		return "running backups of the vcenter (slot_capacity)"
	case "copy", "copy-from", "copy-to":
		return "copies at a time of one VM, or of one repository"
	case "run":
		return "members of the group at a time (max_parallel)"
	}
	return name
}

// Reaches says whether a server with these reach labels reaches the vcenter;
// nil labels reach everything.
func Reaches(labels []string, v VCenter) bool {
	return labels == nil || slices.Contains(labels, reachVCenter(v))
}

// ReachesRepository says whether such a server reaches the repository.
func ReachesRepository(labels []string, r RepositoryRecord) bool {
	return labels == nil || slices.Contains(labels, reachRepository(r))
}
