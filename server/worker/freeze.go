package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// freezer makes the snapshots of a consistent run's members at once.
type freezer struct {
	*attempt
	spec    backup.FreezeSpec
	members []*member
}

// member is the backup of one VM, which waits for the freezer.
type member struct {
	*backupJob
	err error // why it has no snapshot
}

// freeze makes the snapshots of all members of a run. Nothing is resumed:
// another attempt removes what this one made and begins anew, so that all are
// of one instant.
func (a *attempt) freeze(ctx context.Context) (ending, error) {
	f := &freezer{attempt: a}
	if err := json.Unmarshal(a.job.Spec, &f.spec); err != nil {
		return ending{}, fmt.Errorf("spec: %w", err)
	}
	if err := f.open(ctx); err != nil {
		return ending{}, err
	}
	a.begin(ctx, "checking the members")
	f.each(func(m *member) error { return m.prepare(ctx) })
	if err := f.refuse(ctx); err != nil {
		return ending{}, err
	}
	if err := f.intend(ctx); err != nil {
		return ending{}, err
	}
	failpoint.Hit("freeze.intended")
	f.each(func(m *member) error { return m.track(ctx) })
	a.begin(ctx, "making the snapshots")
	f.each(func(m *member) error { return m.snapshot(ctx) })
	failpoint.Hit("freeze.snapshots_made")
	err := ctx.Err()
	if err == nil {
		err = f.refuse(ctx)
	}
	if err != nil {
		f.remove(ctx)
		return ending{}, err
	}
	return f.done(ctx), nil
}

// open reads the members that still wait.
func (f *freezer) open(ctx context.Context) error {
	f.begin(ctx, "connecting")
	return f.Store.View(ctx, func(tx backup.Tx) error {
		f.members = nil
		run, err := tx.Run(ctx, f.job.RunID)
		if err != nil {
			return err
		}
		for _, j := range run.Jobs {
			if j.WaitsFor != f.job.ID || j.State != backup.JobQueued {
				continue
			}
			m, err := f.member(ctx, tx, j)
			if err != nil {
				return fmt.Errorf("member %q: %w", j.VMName, err)
			}
			f.members = append(f.members, m)
		}
		return nil
	})
}

// member is a backup job that is not this server's yet: it has a voice, but no lease.
func (f *freezer) member(ctx context.Context, tx backup.Tx, j backup.Job) (*member, error) {
	j.Attempt = f.job.Attempt // what is made for it carries its name and this attempt
	m := &member{backupJob: &backupJob{attempt: &attempt{Worker: f.Worker, job: &j, log: f.log.With("member", j.VMName)}}}
	if err := json.Unmarshal(j.Spec, &m.spec); err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	if len(j.Checkpoint) > 0 {
		if err := json.Unmarshal(j.Checkpoint, &m.note); err != nil {
			return nil, fmt.Errorf("checkpoint: %w", err)
		}
	}
	var err error
	if m.vcenter, err = tx.VCenter(ctx, j.VCenterID); err != nil {
		return nil, err
	}
	if m.vm, err = tx.Machine(ctx, j.VMID); err != nil {
		return nil, err
	}
	m.base, err = tx.LastImage(ctx, j.VMID, m.spec.RepositoryID)
	if backup.CodeOf(err) == backup.NotFound {
		err = nil
	}
	return m, err
}

// each calls fn at once for all members that nothing has gone wrong with.
func (f *freezer) each(fn func(*member) error) {
	var wg sync.WaitGroup
	for _, m := range f.members {
		if m.err == nil {
			wg.Go(func() { m.err = m.guarded(fn) })
		}
	}
	wg.Wait()
}

// guarded keeps a panic about one member from ending the server.
func (m *member) guarded(fn func(*member) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return fn(m)
}

// prepare does all of a backup that comes before its snapshot.
func (m *member) prepare(ctx context.Context) error {
	if m.vm.Gone() {
		return backup.Errorf(backup.VMGone, "", "VM %q is no longer in vcenter %s.", m.vm.Name, m.vcenter.Name)
	}
	var err error
	if m.session, err = m.VSphere.Connect(ctx, m.vcenter); err != nil {
		return err
	}
	if err := m.clear(ctx); err != nil {
		return err
	}
	m.note.Frozen = nil
	if m.machine, err = m.session.Machine(ctx, m.vm.MOID); err != nil {
		return err
	}
	if m.spec.Consistency == backup.ConsistencyOffline {
		return backup.Errorf(backup.PreflightFailed, "consistency", "The group is consistent, and offline backups shut guests down one by one. Use app or crash.")
	}
	return m.preflight()
}

// refuse ends the whole run where a member's failure is to do that.
func (f *freezer) refuse(ctx context.Context) error {
	var bad []*member
	for _, m := range f.members {
		if m.err != nil {
			bad = append(bad, m)
			f.log.WarnContext(ctx, "member without a snapshot", "member", m.vm.Name, "error", m.err)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	if len(bad) == len(f.members) && backup.CodeOf(bad[0].err).Transient() {
		return bad[0].err // it may pass: the vcenter is away, say
	}
	if f.spec.OnMemberFailure != backup.MemberFail {
		return nil
	}
	code, names := backup.CodeOf(bad[0].err), make([]string, len(bad))
	for i, m := range bad {
		names[i] = fmt.Sprintf("%q", m.vm.Name)
		if !backup.CodeOf(m.err).Transient() {
			code = backup.CodeOf(m.err)
		}
	}
	if code == "" {
		code = backup.Internal
	}
	return backup.Errorf(code, "", "No member was backed up, as on_member_failure = \"fail\" asks: there is no snapshot of %s. The first reason: %s.",
		strings.Join(names, ", "), because(bad[0].err)).Because(bad[0].err)
}

// intend writes down which snapshots are going to be made, before any is.
func (f *freezer) intend(ctx context.Context) error {
	var there []*member
	err := f.Store.Update(ctx, func(tx backup.Tx) error {
		there = nil
		if err := f.fence(ctx, tx); err != nil {
			return err
		}
		for _, m := range f.members {
			if m.err != nil {
				there = append(there, m)
				continue
			}
			waits, err := m.tell(ctx, tx, f.job, backup.WaitingNote{})
			if err != nil {
				return err
			}
			if waits {
				there = append(there, m)
			}
		}
		return nil
	})
	f.members = there
	return err
}

// tell stores what the member must know. It says whether the member still waits.
func (m *member) tell(ctx context.Context, tx backup.Tx, leader *backup.Job, n backup.WaitingNote) (bool, error) {
	if m.note.Frozen == nil {
		name := m.marker()
		m.note.Frozen, m.note.MOID = &frozen{Name: name}, m.vm.MOID
		m.note.Markers = append(slices.Clone(m.note.Markers), name)
	}
	b, err := json.Marshal(m.note)
	if err != nil {
		return false, fmt.Errorf("checkpoint: %w", err)
	}
	n.Leader, n.JobID, n.Checkpoint, n.KeptAttempt = leader.ID, m.job.ID, b, leader.Attempt
	return tx.NoteWaiting(ctx, n)
}

// remove takes the snapshots away that will not be read. What it has no time
// for is a sweep's work: these jobs are over, or begin anew.
func (f *freezer) remove(ctx context.Context) {
	if lost(ctx, nil) {
		return
	}
	f.begin(ctx, "removing the snapshots")
	rctx, cancel := f.outlive(ctx)
	defer cancel()
	rctx, release := context.WithTimeout(rctx, removeTime)
	defer release()
	var wg sync.WaitGroup
	for _, m := range f.members {
		if m.session == nil || m.note.Frozen == nil || m.hung {
			continue
		}
		wg.Go(func() {
			if err := m.session.RemoveSnapshot(rctx, m.vm.MOID, m.note.Frozen.Name); err != nil {
				m.log.WarnContext(rctx, "snapshot not removed", "error", err)
			}
		})
	}
	wg.Wait()
}

// done hands the snapshots over to the members, and ends those that have none.
func (f *freezer) done(ctx context.Context) ending {
	var first, last time.Time
	good := 0
	for _, m := range f.members {
		if m.err != nil {
			continue
		}
		at := m.snap.CreatedAt
		m.note.Frozen.At, m.note.Frozen.Consistency = at, m.image.Consistency
		if good++; good == 1 || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	spread := max(last.Sub(first), time.Millisecond)
	e := ending{state: backup.JobSucceeded}
	switch {
	case len(f.members) == 0:
		e.state, e.message = backup.JobSkipped, "No member waits for its snapshot any more."
	case good == 0:
		e.state, e.message = backup.JobFailed, "No member's snapshot could be made: each member says why."
	default:
		f.say("Snapshots of %d of %d VMs were made within %.1f s.", good, len(f.members), spread.Seconds())
	}
	e.also = func(tx backup.Tx) error {
		if good > 0 {
			if err := tx.SetSpread(ctx, f.job.RunID, spread); err != nil {
				return err
			}
		}
		for _, m := range f.members {
			if err := m.settle(ctx, tx, f.job); err != nil {
				return fmt.Errorf("member %s: %w", m.job.ID, err)
			}
		}
		return nil
	}
	return e
}

// settle tells the member that it may begin, or why it may not.
func (m *member) settle(ctx context.Context, tx backup.Tx, leader *backup.Job) error {
	if m.err == nil {
		_, err := m.tell(ctx, tx, leader, backup.WaitingNote{Begun: true, Messages: m.messages})
		return err
	}
	e := backup.Ending{State: backup.JobFailed, Code: backup.CodeOf(m.err), Error: "Internal error: see the server's log for this job.", Messages: m.messages}
	if known := backup.AsError(m.err); known != nil {
		e.Error = known.Message
	}
	switch {
	case e.Code == backup.VMGone:
		e.State = backup.JobSkipped
	case errors.Is(m.err, context.DeadlineExceeded) && e.Code == "":
		e.Code = backup.Unavailable
	}
	return tx.EndJob(ctx, m.job.ID, e)
}
