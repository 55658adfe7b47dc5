package worker

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// delete takes an image out of its repository and then out of the catalogue.
func (a *attempt) delete(ctx context.Context) (ending, error) {
	a.begin(ctx, "deleting the image")
	var image backup.Image
	var record backup.RepositoryRecord
	err := a.Store.View(ctx, func(tx backup.Tx) (err error) {
		if image, err = tx.Image(ctx, a.job.ImageID); err != nil {
			return err
		}
		record, err = tx.Repository(ctx, image.RepositoryID)
		return err
	})
	if backup.CodeOf(err) == backup.NotFound {
		return ending{state: backup.JobSucceeded}, nil // an earlier attempt did it
	}
	if err != nil {
		return ending{}, err
	}
	repo, err := a.Repositories.Repository(ctx, record)
	if err != nil {
		return ending{}, err
	}
	if err := repo.Delete(ctx, image.Ref); err != nil {
		return ending{}, fmt.Errorf("delete image %s: %w", image.ID, err)
	}
	ctx = context.WithoutCancel(ctx)
	return ending{state: backup.JobSucceeded, also: func(tx backup.Tx) error { return tx.DeleteImage(ctx, image.ID) }}, nil
}
