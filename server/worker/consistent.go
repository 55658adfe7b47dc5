package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// createSnapshot makes a snapshot, for as long as vSphere may take for one.
func (b *backupJob) createSnapshot(ctx context.Context, d backup.SnapshotDraft) (backup.Snapshot, error) {
	sctx, cancel := context.WithTimeout(ctx, b.SnapshotTime)
	defer cancel()
	s, err := b.session.CreateSnapshot(sctx, d)
	if err != nil && sctx.Err() != nil && ctx.Err() == nil {
		b.hung = true
		return s, backup.Errorf(backup.VMBusy, "", "vSphere did not make a snapshot of VM %q within %s. Look at the VM's tasks.", b.vm.Name, b.SnapshotTime).Because(err)
	}
	return s, err
}

// quiesced makes a snapshot in which the guest takes part, or one in which it
// does not, where that will do. vSphere leaves a guest out without saying so
// when no Tools run in it (seed H3, H4, H14).
func (b *backupJob) quiesced(ctx context.Context, d backup.SnapshotDraft) (backup.Snapshot, error) {
	p, err := b.session.Power(ctx, b.vm.MOID)
	if err != nil {
		return backup.Snapshot{}, err
	}
	refusal := backup.Errorf(backup.PreflightFailed, "consistency", "The guest of VM %q could not be quiesced: VMware Tools do not run in it.", b.vm.Name)
	if p.Tools {
		s, err := b.createSnapshot(ctx, d)
		if err == nil && s.Quiesced {
			b.image.Consistency = backup.ConsistencyApp
			return s, nil
		}
		if err == nil {
			refusal = backup.Errorf(backup.PreflightFailed, "consistency", "The guest of VM %q was not quiesced: vSphere made the snapshot without it. Look at VMware Tools.", b.vm.Name)
			if b.spec.Consistency == backup.ConsistencyApp {
				b.fellBack(refusal)
				return s, nil
			}
			return s, refusal
		}
		if refusal = backup.AsError(err); backup.CodeOf(err) != backup.PreflightFailed {
			return s, err
		}
	}
	if b.spec.Consistency != backup.ConsistencyApp {
		return backup.Snapshot{}, refusal
	}
	b.fellBack(refusal)
	d.Quiesce = false
	return b.createSnapshot(ctx, d)
}

// fellBack says that the image is not what was asked for (seed H8).
func (b *backupJob) fellBack(why *backup.Error) {
	b.say("The guest could not be quiesced (%s), so the image is crash-consistent.", strings.TrimSuffix(why.Message, "."))
}

// frozen is a snapshot that every attempt reads: one that a freeze job made for
// this one, together with those of the other members, or one that cost a
// shutdown of the guest.
type frozen struct {
	Name        string             `json:"name"`
	At          time.Time          `json:"at,omitzero"` // by the vcenter's clock; zero = it was going to be made
	Consistency backup.Consistency `json:"consistency,omitempty"`
	Own         bool               `json:"own,omitempty"` // an attempt of this job made it, while the VM was off
}

// snapshotName is the name of the snapshot that the job reads.
func (b *backupJob) snapshotName() string {
	if b.note.Frozen != nil {
		return b.note.Frozen.Name
	}
	return b.marker()
}

// check refuses what could not work. What stands in the way of a snapshot was
// looked at before that was made for the job.
func (b *backupJob) check() error {
	if b.note.Frozen != nil {
		return b.checkDisks()
	}
	return b.preflight()
}

// keeps says whether the snapshot stays for the job's next attempt.
func (b *backupJob) keeps(ctx context.Context, err error) bool {
	if err == nil || b.note.Frozen == nil || errors.Is(context.Cause(ctx), errCancelled) || errors.Is(err, errFull) {
		return false
	}
	return errors.Is(context.Cause(ctx), errShutdown) || backup.CodeOf(err).Transient()
}

// trackFrozen looks at changed block tracking without beginning it anew: that
// takes a snapshot of its own.
func (b *backupJob) trackFrozen(ctx context.Context) (err error) {
	if b.tracking, err = b.session.TrackChanges(ctx, b.vm.MOID); err != nil {
		return fmt.Errorf("changed block tracking: %w", err)
	}
	return nil
}

// longWait is after how long a snapshot that waited for its turn is worth a message.
const longWait = 4 * time.Hour

// takeFrozen takes the snapshot that was made for the job. Where somebody has
// removed that, a new one is made, and the image says that it is apart.
func (b *backupJob) takeFrozen(ctx context.Context) error {
	f := b.note.Frozen
	b.begin(ctx, "taking up the snapshot")
	if waited := b.Now().Sub(f.At); waited > longWait {
		b.say("The snapshot waited %s for its turn to be read, and grew meanwhile.", waited.Truncate(time.Minute))
	}
	d := backup.SnapshotDraft{MOID: b.vm.MOID, Name: f.Name, Description: frozenText, Quiesce: b.app() && b.machine.PowerState == backup.PoweredOn}
	s, err := b.createSnapshot(ctx, d)
	if err != nil {
		return fmt.Errorf("create snapshot: %w", err)
	}
	b.snap, b.image.Consistency = s, f.Consistency
	if s.CreatedAt.Equal(f.At) {
		return nil
	}
	if f.Own {
		b.note.Frozen = nil
		return errors.Join(b.remember(ctx), backup.Errorf(backup.VMBusy, "consistency", "Somebody removed the snapshot of VM %q that was made while it was off.", b.vm.Name))
	}
	b.image.Consistency = backup.ConsistencyCrash
	if s.Quiesced {
		b.image.Consistency = backup.ConsistencyApp
	}
	if b.spec.Consistency == backup.ConsistencyAppRequired && !s.Quiesced {
		return backup.Errorf(backup.PreflightFailed, "consistency", "The snapshot of VM %q that was made with its group is gone, and the guest could not be quiesced for another.", b.vm.Name)
	}
	b.apart = fmt.Sprintf("The snapshot that was made together with those of the group is gone. This image is of %s, apart from the others.", s.CreatedAt.UTC().Format("2006-01-02 15:04:05 UTC"))
	b.say("%s", b.apart)
	return nil
}

const frozenText = "Made by kura for one backup of a consistent group; it is removed when that ends."

// app says whether the guest is to take part.
func (b *backupJob) app() bool {
	return b.spec.Consistency == backup.ConsistencyApp || b.spec.Consistency == backup.ConsistencyAppRequired
}
