package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func holdOut(h backup.Hold) api.ImageHold {
	return api.ImageHold{ID: h.ID, ImageID: h.ImageID, Until: utc(h.Until), Reason: h.Reason, CreatedBy: h.CreatedBy, CreatedAt: utc(h.CreatedAt)}
}

// wholeImage tells all of a single image, its holds included.
func wholeImage(ctx context.Context, tx backup.Tx, i backup.Image) (api.BackupImage, error) {
	out, err := imagesOut(ctx, tx, []backup.Image{i})
	if err != nil {
		return api.BackupImage{}, err
	}
	holds, err := tx.ImageHolds(ctx, i.ID)
	out[0].Holds = each(holds, holdOut)
	return out[0], err
}

// ListImageHolds implements the operation.
func (h *handler) ListImageHolds(ctx context.Context, q api.ListImageHoldsRequestObject) (api.ListImageHoldsResponseObject, error) {
	var all []backup.Hold
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		if _, err = tx.Image(ctx, q.ID); err != nil {
			return err
		}
		all, err = tx.ImageHolds(ctx, q.ID)
		return err
	})
	return api.ListImageHolds200JSONResponse{Items: each(all, holdOut)}, err
}

// HoldBackupImage implements the operation.
func (h *handler) HoldBackupImage(ctx context.Context, q api.HoldBackupImageRequestObject) (api.HoldBackupImageResponseObject, error) {
	made, err := h.Planner.HoldImage(ctx, backup.Hold{ImageID: q.ID, Until: q.Body.Until, Reason: q.Body.Reason, CreatedBy: auth.From(ctx).Name})
	if err == nil {
		h.Log.InfoContext(ctx, "image held", "image", made.ImageID, "hold", made.ID, "until", made.Until, "by", made.CreatedBy)
	}
	return api.HoldBackupImage201JSONResponse(holdOut(made)), err
}

// ChangeImageHold implements the operation.
func (h *handler) ChangeImageHold(ctx context.Context, q api.ChangeImageHoldRequestObject) (api.ChangeImageHoldResponseObject, error) {
	changed, err := h.Planner.ChangeHold(ctx, q.ID, q.HoldID, q.Body.Until, q.Body.Reason)
	if err == nil {
		h.Log.InfoContext(ctx, "hold changed", "image", changed.ImageID, "hold", changed.ID, "until", changed.Until, "by", auth.From(ctx).Name)
	}
	return api.ChangeImageHold200JSONResponse(holdOut(changed)), err
}

// ReleaseImageHold implements the operation.
func (h *handler) ReleaseImageHold(ctx context.Context, q api.ReleaseImageHoldRequestObject) (api.ReleaseImageHoldResponseObject, error) {
	r, err := h.Planner.ReleaseHold(ctx, q.ID, q.HoldID)
	if err != nil {
		return nil, err
	}
	h.Log.InfoContext(ctx, "hold released", "image", q.ID, "hold", q.HoldID, "by", auth.From(ctx).Name)
	out := api.HoldReleased{ImageID: r.Image.ID, Held: r.Image.Held(h.Now()), ExpiresAt: utc(r.Image.ExpiresAt), Message: r.Message}
	if out.Held {
		out.HeldUntil = utc(r.Image.HoldEnd())
	}
	return api.ReleaseImageHold200JSONResponse(out), nil
}

// ExtendBackupImage implements the operation.
func (h *handler) ExtendBackupImage(ctx context.Context, q api.ExtendBackupImageRequestObject) (api.ExtendBackupImageResponseObject, error) {
	i, err := h.Planner.ExtendImage(ctx, q.ID, backup.Extension{ExpiresAt: q.Body.ExpiresAt, RetentionDays: q.Body.RetentionDays})
	if err != nil {
		return nil, err
	}
	var out api.BackupImage
	err = h.Store.View(ctx, func(tx backup.Tx) (err error) {
		out, err = wholeImage(ctx, tx, i)
		return err
	})
	return api.ExtendBackupImage200JSONResponse(out), err
}
