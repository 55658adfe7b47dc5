package worker

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// delete takes an image out of its repository and then out of the catalogue.
func (a *attempt) delete(ctx context.Context) (ending, error) {
	a.begin(ctx, "deleting the image")
	image, record, err := a.storedImage(ctx)
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
	failpoint.Hit("delete.deleting")
	if err := repo.Delete(ctx, image.Ref); err != nil {
		return ending{}, fmt.Errorf("delete image %s: %w", image.ID, err)
	}
	failpoint.Hit("delete.deleted")
	ctx = context.WithoutCancel(ctx)
	return ending{state: backup.JobSucceeded, also: func(tx backup.Tx) error { return tx.DeleteImage(ctx, image.ID) }}, nil
}

// storedImage reads the job's image, and the repository that it is in.
func (a *attempt) storedImage(ctx context.Context) (i backup.Image, r backup.RepositoryRecord, err error) {
	err = a.Store.View(ctx, func(tx backup.Tx) (err error) {
		if i, err = tx.Image(ctx, a.job.ImageID); err != nil {
			return err
		}
		r, err = tx.Repository(ctx, i.RepositoryID)
		return err
	})
	return i, r, err
}
