package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// MaintainRepository implements the operation.
func (h *handler) MaintainRepository(ctx context.Context, q api.MaintainRepositoryRequestObject) (api.MaintainRepositoryResponseObject, error) {
	j, err := h.Planner.Collect(ctx, q.ID, q.Body != nil && q.Body.DryRun)
	return api.MaintainRepository202JSONResponse{JobAcceptedJSONResponse: jobAccepted(j)}, err
}

// VerifyBackupImage implements the operation.
func (h *handler) VerifyBackupImage(ctx context.Context, q api.VerifyBackupImageRequestObject) (api.VerifyBackupImageResponseObject, error) {
	verify := h.Planner.VerifyImage
	if q.Params.SHA256 {
		verify = h.Planner.HashImage
	}
	j, err := verify(ctx, q.ID)
	return api.VerifyBackupImage202JSONResponse{JobAcceptedJSONResponse: jobAccepted(j)}, err
}

// ListExpiredImages implements the operation.
func (h *handler) ListExpiredImages(ctx context.Context, _ api.ListExpiredImagesRequestObject) (api.ListExpiredImagesResponseObject, error) {
	all, err := h.Planner.ExpiryPlan(ctx)
	return api.ListExpiredImages200JSONResponse{Items: each(all, func(e backup.Expired) api.ExpiredImage {
		return api.ExpiredImage{ID: e.Image.ID, VirtualMachineName: e.Image.VMName, ExpiresAt: utc(e.Image.ExpiresAt), Stays: e.Stays}
	})}, err
}
