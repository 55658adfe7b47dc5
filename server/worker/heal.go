package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// list lists a backup's image, asks for its copies, has the VM's damaged images
// looked at, which it may have healed, and gives it to the jobs that wait to
// make the same one.
func (b *backupJob) list(ctx context.Context, tx backup.Tx) error {
	if err := tx.InsertImage(ctx, b.image); err != nil {
		return err
	}
	if err := backup.PlanCopies(ctx, tx, *b.job, b.image); err != nil {
		return err
	}
	if err := backup.ReadDamaged(ctx, tx, b.image); err != nil {
		return err
	}
	return backup.ShareWithWaiting(ctx, tx, *b.job, b.image)
}

// tellHealed tells of blocks that were lost and that the backup has stored again.
func (b *backupJob) tellHealed(blocks int) {
	if blocks > 0 {
		b.say("%d blocks that were lost in the repository are stored again; the VM's damaged images are looked at next.", blocks)
	}
}

const (
	// hurtNotes is of how many images it is noted at a time that they are hurt.
	hurtNotes = 200
	// hurtNames is how many of them a job names.
	hurtNames = 20
)

// markHurt lists as damaged the images that need what was found to be lost. It
// is told by the job that found it.
func (a *attempt) markHurt(ctx context.Context, repositoryID string, hurt []backup.HurtImage) error {
	var names []string
	for some := range slices.Chunk(hurt, hurtNotes) {
		var news []backup.Image
		err := a.Store.Update(ctx, func(tx backup.Tx) (err error) {
			news, err = backup.MarkHurt(ctx, tx, repositoryID, some)
			return err
		})
		if err != nil {
			return fmt.Errorf("list hurt images as damaged: %w", err)
		}
		for _, i := range news {
			a.log.ErrorContext(ctx, "image is damaged", "image", i.ID, "disks", i.DamagedDisks())
			names = append(names, fmt.Sprintf("%s of VM %q (%s)", i.ID, i.VMName, strings.Join(i.DamagedDisks(), ", ")))
		}
	}
	if n := len(names); n > 0 {
		a.say("%d other images need blocks that are lost and are damaged, too: %s.", n, strings.Join(names[:min(n, hurtNames)], "; "))
	}
	return nil
}
