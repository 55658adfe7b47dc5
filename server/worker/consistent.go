package worker

import (
	"context"
	"strings"

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
