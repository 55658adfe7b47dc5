package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// GetServer implements the operation.
func (h *handler) GetServer(context.Context, api.GetServerRequestObject) (api.GetServerResponseObject, error) {
	choices := func(k backup.RecurrenceKind) []int { return append([]int{}, h.Profile.Choices(k)...) }
	return api.GetServer200JSONResponse{
		Version: h.Version, APIVersion: api.Version, InstallationID: h.Installation, Time: h.Now().UTC(),
		RetentionProfile: api.RetentionProfile(h.Profile),
		RetentionChoices: api.RetentionChoices{
			OneTime: choices(backup.OneTime), Daily: choices(backup.Daily), Weekly: choices(backup.Weekly), Monthly: choices(backup.Monthly),
		},
	}, nil
}
