package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
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
	clock, err := h.Planner.Clock(ctx)
	if err != nil {
		return nil, err
	}
	out.Clock = clockStateOut(clock)
	err = h.Store.View(ctx, func(tx backup.Tx) error {
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

// ConfirmClock implements the operation.
func (h *handler) ConfirmClock(ctx context.Context, q api.ConfirmClockRequestObject) (api.ConfirmClockResponseObject, error) {
	clock, err := h.Planner.ConfirmClock(ctx, q.Body.Time)
	if err != nil {
		return nil, err
	}
	h.Log.WarnContext(ctx, "clock confirmed", "time", clock.Now, "by", auth.From(ctx).Name)
	return api.ConfirmClock200JSONResponse(clockStateOut(clock)), nil
}

func clockStateOut(s backup.ClockState) api.Clock {
	return api.Clock{Time: s.Now.UTC(), Trusted: s.Trusted, Expected: utc(s.Expected), HeldUntil: utc(s.HeldUntil), Warning: s.Warning()}
}
