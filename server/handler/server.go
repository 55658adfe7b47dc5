package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// GetServer implements the operation.
func (h *handler) GetServer(ctx context.Context, _ api.GetServerRequestObject) (api.GetServerResponseObject, error) {
	choices := func(k backup.RecurrenceKind) []int { return append([]int{}, h.Profile.Choices(k)...) }
	out := api.GetServer200JSONResponse{
		Version: h.Version, APIVersion: api.Version, InstallationID: h.Installation, Time: h.Now().UTC(),
		RetentionProfile: api.RetentionProfile(h.Profile),
		RetentionChoices: api.RetentionChoices{
			OneTime: choices(backup.OneTime), Daily: choices(backup.Daily), Weekly: choices(backup.Weekly), Monthly: choices(backup.Monthly),
		},
	}
	err := h.Store.View(ctx, func(tx backup.Tx) error {
		old, err := backup.FindOldDatabase(ctx, tx)
		if err == nil && old != nil {
			out.OldDatabase = &api.OldDatabase{FoundAt: utc(old.FoundAt), Repository: old.Repository, WrittenAt: utc(old.WrittenAt), Message: old.Message()}
		}
		return err
	})
	return out, err
}

// AdoptDatabase implements the operation.
func (h *handler) AdoptDatabase(ctx context.Context, _ api.AdoptDatabaseRequestObject) (api.AdoptDatabaseResponseObject, error) {
	a, err := h.Planner.AdoptDatabase(ctx)
	return api.AdoptDatabase200JSONResponse{
		EndedJobs: a.Ended, PassedOccurrences: a.Skipped, Jobs: append([]string{}, a.Jobs...), Messages: append([]string{}, a.Messages...),
	}, err
}
