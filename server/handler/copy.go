package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func copyOut(c backup.Copy, repositories names) api.ImageCopy {
	return api.ImageCopy{
		ID: c.ID, Repository: repositories.of(c.RepositoryID), Status: api.ImageCopyStatus(c.Status), ExpiresAt: utc(c.ExpiresAt),
		JobID: c.JobID, Message: c.Message, CopiedAt: utc(c.CopiedAt),
	}
}

// imagesOut tells images with how their copies stand, which takes one more
// question for all of them.
func imagesOut(ctx context.Context, tx backup.Tx, found []backup.Image) ([]api.BackupImage, error) {
	repositories, err := repositoryNames(ctx, tx)
	if err != nil {
		return nil, err
	}
	var originals []string
	for _, i := range found {
		if i.CopyOf == "" {
			originals = append(originals, i.ID)
		}
	}
	copies, err := backup.CopiesOf(ctx, tx, originals)
	if err != nil {
		return nil, err
	}
	return each(found, func(i backup.Image) api.BackupImage {
		out := imageOut(i, repositories, tx.Now())
		out.CopyOf = i.CopyOf
		if all := copies[i.ID]; len(all) > 0 {
			out.Copies = each(all, func(c backup.Copy) api.ImageCopy { return copyOut(c, repositories) })
		}
		return out
	}), nil
}

// ListImageCopies implements the operation.
func (h *handler) ListImageCopies(ctx context.Context, q api.ListImageCopiesRequestObject) (api.ListImageCopiesResponseObject, error) {
	all, err := h.Planner.Copies(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	var list api.ImageCopyList
	err = h.Store.View(ctx, func(tx backup.Tx) error {
		repositories, err := repositoryNames(ctx, tx)
		list.Items = each(all, func(c backup.Copy) api.ImageCopy { return copyOut(c, repositories) })
		return err
	})
	return api.ListImageCopies200JSONResponse(list), err
}

// CopyBackupImage implements the operation.
func (h *handler) CopyBackupImage(ctx context.Context, q api.CopyBackupImageRequestObject) (api.CopyBackupImageResponseObject, error) {
	j, err := h.Planner.CopyImage(ctx, backup.CopyRequest{ImageID: q.ID, Repository: q.Body.Repository, RetentionDays: q.Body.RetentionDays})
	return api.CopyBackupImage202JSONResponse{JobAcceptedJSONResponse: jobAccepted(j)}, err
}

func copyTargetIn(t api.CopyTarget) backup.CopyTarget {
	return backup.CopyTarget{RepositoryID: t.Repository, RetentionDays: t.RetentionDays}
}
