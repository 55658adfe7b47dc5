package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// debt is a VM that a job has shut down, or is about to: it must be on again,
// whatever becomes of the job. It stands in the job's checkpoint before the
// guest is asked, and goes when the VM was seen on after that.
type debt struct {
	VCenterID string    `json:"vcenter_id"`
	MOID      string    `json:"moid"`
	Name      string    `json:"name"`
	Since     time.Time `json:"since"`
	BootedAt  time.Time `json:"booted_at,omitzero"` // when it was asked: one that was booted since is on again
	Forced    bool      `json:"forced,omitempty"`   // the guest did not shut down: its power was cut, or is about to be
}

// What became of a debt.
type payment int

const (
	paid payment = iota
	paidNow
	owed // the guest is perhaps still shutting down
)

// debtTime is how long a guest is expected to go on shutting down after all:
// one that is still on then never will.
const debtTime = 24 * time.Hour

// powerTime is how long a VM may take to be powered on, with all tries.
const powerTime = 2 * time.Minute

// repay powers the VM on, unless somebody has done so already.
func (d debt) repay(ctx context.Context, s backup.VSphereSession, now time.Time) (payment, error) {
	p, err := s.Power(ctx, d.MOID)
	switch {
	case backup.CodeOf(err) == backup.VMGone:
		return paid, nil
	case err != nil:
		return owed, err
	case p.State == backup.PoweredOff:
		if err := s.SetPower(ctx, d.MOID, true); err != nil && backup.CodeOf(err) != backup.VMGone {
			return owed, err
		}
		return paidNow, nil
	case p.State == backup.PoweredOn && p.BootedAt.Equal(d.BootedAt) && now.Sub(d.Since) < debtTime:
		return owed, nil
	}
	return paid, nil
}

// offline takes the snapshot while the VM is off, and powers it on at once if
// it was on. That snapshot serves all attempts of the job, so that none but the
// first shuts the guest down.
func (b *backupJob) offline(ctx context.Context, d backup.SnapshotDraft) (backup.Snapshot, error) {
	octx, cancel := b.handingOver(ctx)
	defer cancel()
	forced, err := b.shutDown(octx)
	if err != nil {
		return backup.Snapshot{}, err
	}
	failpoint.Hit("offline.shut_down")
	b.begin(ctx, "making the snapshot")
	s, err := b.createSnapshot(octx, d)
	if err != nil {
		return s, err
	}
	failpoint.Hit("offline.snapshot_made")
	p, err := b.session.Power(octx, b.vm.MOID)
	if err != nil {
		return s, err
	}
	if p.State != backup.PoweredOff {
		return s, backup.Errorf(backup.VMBusy, "consistency", "Somebody powered VM %q on while its snapshot was made, so that is not of a VM that was off.", b.vm.Name)
	}
	b.image.Consistency = backup.ConsistencyOffline
	if forced {
		b.image.Consistency = backup.ConsistencyCrash
	}
	if len(b.note.PowerOn) > 0 {
		b.note.Frozen = &frozen{Name: s.Name, At: s.CreatedAt, Consistency: b.image.Consistency, Own: true}
		if err := b.remember(octx); err != nil {
			return s, err
		}
		failpoint.Hit("offline.snapshot_noted")
	}
	b.repay(ctx)
	return s, nil
}

// handingOver returns a context that goes on for HandTime after the server was
// told to stop: a snapshot that takes no longer need not cost a shutdown more.
// Whatever else stops the job ends it at once.
func (w *Worker) handingOver(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), errShutdown) {
			_ = pause(out, w.HandTime) // out ends sooner when nobody needs it any more
		}
		cancel(context.Cause(ctx))
	})
	return out, func() { unhook(); cancel(nil) }
}

// retake lets go of the snapshot that an earlier attempt made while the VM was
// off, where somebody has removed it since. Then the guest is shut down again.
func (b *backupJob) retake() {
	if f := b.note.Frozen; f != nil && f.Own && !slices.Contains(b.machine.SnapshotNames, f.Name) {
		b.say("The snapshot that was made while the VM was off is gone, so the guest is shut down for another.")
		b.note.Frozen = nil
	}
}

// shutDown sees to it that the VM is off. forced says that its guest did not
// take part. What was off already stays off, and is owed nothing.
func (b *backupJob) shutDown(ctx context.Context) (forced bool, err error) {
	b.begin(ctx, "shutting the guest down")
	p, err := b.tools(ctx)
	if err != nil {
		return false, err
	}
	if p.State == backup.Suspended {
		return false, backup.Errorf(backup.PreflightFailed, "consistency", "VM %q is suspended, so its guest cannot be shut down. Resume it or power it off.", b.vm.Name)
	}
	if p.State == backup.PoweredOff {
		return len(b.note.PowerOn) > 0 && b.note.PowerOn[0].Forced, nil // an earlier attempt's work, or nobody's
	}
	if !b.asked(p) {
		b.note.PowerOn = []debt{{VCenterID: b.vcenter.ID, MOID: b.vm.MOID, Name: b.vm.Name, Since: b.Now(), BootedAt: p.BootedAt}}
		if err := b.remember(ctx); err != nil {
			return false, err
		}
	}
	failpoint.Hit("offline.intended")
	wctx, cancel := context.WithTimeout(ctx, b.ShutdownTime)
	defer cancel()
	err = b.goDown(wctx)
	switch {
	case err == nil:
		return false, nil
	case ctx.Err() != nil:
		return false, err
	case refused(err):
		return false, errors.Join(err, b.settled(ctx))
	case wctx.Err() == nil:
		return false, err
	}
	return true, b.cutPower(ctx)
}

// asked says whether an earlier attempt has asked this very guest to shut down.
func (b *backupJob) asked(p backup.Power) bool {
	return len(b.note.PowerOn) > 0 && b.note.PowerOn[0].BootedAt.Equal(p.BootedAt)
}

// goDown asks the guest to shut down and waits until the VM is off. A guest
// whose Tools have ended is on its way: it is waited for, and not asked again.
func (b *backupJob) goDown(ctx context.Context) error {
	for {
		p, err := b.session.Power(ctx, b.vm.MOID)
		switch {
		case err != nil || p.State != backup.PoweredOn:
			return err
		case p.Tools:
			return b.session.ShutDownGuest(ctx, b.vm.MOID)
		}
		if err := pause(ctx, b.Poll); err != nil {
			return err
		}
	}
}

// refused says that the guest was not asked to shut down. Where the answer got
// lost it may have been.
func refused(err error) bool {
	switch backup.CodeOf(err) {
	case "", backup.Internal, backup.VCenterUnreachable, backup.Unavailable:
		return false
	}
	return true
}

// tools reads how the VM stands. A guest that has only just been booted is
// waited for until its Tools run: without them it cannot be asked.
func (b *backupJob) tools(ctx context.Context) (backup.Power, error) {
	for began := b.Now(); ; {
		p, err := b.session.Power(ctx, b.vm.MOID)
		if err != nil || p.State != backup.PoweredOn || p.Tools || b.asked(p) {
			return p, err
		}
		if b.Now().Sub(p.BootedAt) > b.ShutdownTime || b.Now().Sub(began) > b.ShutdownTime {
			return p, backup.Errorf(backup.PreflightFailed, "consistency", "The guest of VM %q cannot be shut down: VMware Tools do not run in it. Start them, or use crash.", b.vm.Name)
		}
		if err := pause(ctx, b.Poll); err != nil {
			return p, err
		}
	}
}

// cutPower powers a VM off whose guest did not shut down in time (seed N64).
func (b *backupJob) cutPower(ctx context.Context) error {
	b.say("The guest did not shut down within %s and was powered off, so the image is crash-consistent.", b.ShutdownTime)
	b.note.PowerOn[0].Forced = true
	if err := b.remember(ctx); err != nil {
		return err
	}
	return b.session.SetPower(ctx, b.vm.MOID, false)
}

// settled notes that nothing is owed any more.
func (b *backupJob) settled(ctx context.Context) error {
	b.note.PowerOn = nil
	return b.remember(ctx)
}

// repay powers on what this job has shut down, also when it was stopped. What
// it cannot do the sweep goes on trying.
func (b *backupJob) repay(ctx context.Context) {
	if len(b.note.PowerOn) == 0 || b.session == nil || lost(ctx, nil) {
		return
	}
	b.begin(ctx, "powering on")
	rctx, cancel := b.outlive(ctx)
	defer cancel()
	rctx, release := context.WithTimeout(rctx, powerTime)
	defer release()
	var how payment
	err := retry(rctx, b.Poll, func() (err error) {
		how, err = b.note.PowerOn[0].repay(rctx, b.session, b.Now())
		return err
	})
	switch {
	case err == nil && how == owed && errors.Is(context.Cause(ctx), errShutdown):
		return // the next attempt waits for it
	case err == nil && how == owed:
		err = errShuttingDown // that may take minutes: the next attempt or a sweep sees to it
	case err == nil:
		failpoint.Hit("offline.powered_on")
		err = b.settled(rctx)
	}
	if err != nil {
		b.log.ErrorContext(rctx, "VM not powered on yet", "error", err)
		b.say("The VM could not be powered on yet (%s); the server keeps trying.", because(err))
	}
}

var errShuttingDown = backup.Errorf(backup.VMBusy, "", "Its guest is still shutting down.")

// retry calls fn until it works or ctx ends, with pauses that grow.
func retry(ctx context.Context, wait time.Duration, fn func() error) error {
	for {
		err := fn()
		if err == nil || pause(ctx, wait) != nil {
			return err
		}
		wait = min(2*wait, 15*time.Second)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// repayAll powers on what jobs have shut down that no server works on: those
// that are over, that wait for their next try, and whose server is dead.
func (w *Worker) repayAll(ctx context.Context) error {
	owing, err := w.Store.Owing(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, j := range owing {
		if err := w.repayFor(ctx, j); err != nil {
			errs = append(errs, fmt.Errorf("power on what job %s has shut down: %w", j.ID, err))
		}
	}
	return errors.Join(errs...)
}

// takeUpTime is how long a server leaves a VM off whose job may be claimed any
// moment: the job goes on with it, and needs no second shutdown.
const takeUpTime = 20 * time.Second

// takenUp says whether the job is about to go on: it was handed over, or waits
// since before this server began, only a moment ago.
func (w *Worker) takenUp(j backup.Job) bool {
	moment := func(since time.Time) bool {
		d := w.Now().Sub(since)
		return d >= 0 && d < takeUpTime
	}
	return !j.State.Final() && (moment(w.began) || j.State == backup.JobQueued && moment(j.Due))
}

func (w *Worker) repayFor(ctx context.Context, j backup.Job) error {
	if w.takenUp(j) {
		return nil
	}
	var note checkpoint
	if err := json.Unmarshal(j.Checkpoint, &note); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	message := ""
	for _, d := range note.PowerOn {
		var v backup.VCenter
		err := w.Store.View(ctx, func(tx backup.Tx) (err error) {
			v, err = tx.VCenter(ctx, d.VCenterID)
			return err
		})
		if backup.CodeOf(err) == backup.NotFound {
			continue // Kura may not touch it any more
		}
		if err != nil {
			return err
		}
		if !backup.Reaches(w.Reach, v) {
			return nil // another server's
		}
		s, err := w.VSphere.Connect(ctx, v)
		if err != nil {
			return err
		}
		pctx, cancel := context.WithTimeout(ctx, powerTime)
		how, err := d.repay(pctx, s, w.Now())
		cancel()
		if err != nil || how == owed {
			return err
		}
		if how == paidNow {
			w.Log.InfoContext(ctx, "VM powered on that a job had shut down", "job", j.ID, "vm", d.Name)
			message = fmt.Sprintf("VM %q was powered on at %s.", d.Name, w.Now().UTC().Format("15:04:05 UTC"))
		}
	}
	failpoint.Hit("sweep.powered_on")
	return w.Store.Repaid(ctx, j, message)
}
