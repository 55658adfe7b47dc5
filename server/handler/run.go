package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func runOut(r backup.Run) api.Run {
	out := api.Run{
		ID: r.ID, ScheduleID: r.ScheduleID, GroupID: r.GroupID, Trigger: api.RunTrigger(r.Trigger), SlotAt: utc(r.Slot),
		State: api.RunState(r.State), Message: r.Message, CreatedAt: utc(r.CreatedAt), EndedAt: utc(r.EndedAt),
		SpreadSeconds: r.Spread.Seconds(),
	}
	if len(r.Jobs) > 0 {
		out.Jobs = each(r.Jobs, jobOut)
	}
	return out
}

func runAccepted(r backup.Run) api.RunAcceptedJSONResponse {
	return api.RunAcceptedJSONResponse{Body: runOut(r), Headers: api.RunAcceptedResponseHeaders{Location: "/v1/runs/" + r.ID}}
}

// ListRuns implements the operation.
func (h *handler) ListRuns(ctx context.Context, q api.ListRunsRequestObject) (api.ListRunsResponseObject, error) {
	p := q.Params
	f := backup.RunFilter{ScheduleID: p.ScheduleID, GroupID: p.GroupID, State: backup.RunState(p.State), Page: pageOf(p.Limit, p.Cursor)}
	var list api.RunList
	err := h.Store.View(ctx, func(tx backup.Tx) error {
		found, next, err := tx.Runs(ctx, f)
		list.Items, list.NextCursor = each(found, runOut), next
		return err
	})
	return api.ListRuns200JSONResponse(list), err
}

// GetRun implements the operation.
func (h *handler) GetRun(ctx context.Context, q api.GetRunRequestObject) (api.GetRunResponseObject, error) {
	var out api.Run
	err := h.Store.View(ctx, func(tx backup.Tx) error {
		r, err := tx.Run(ctx, q.ID)
		if err != nil {
			return err
		}
		joined, left, err := backup.RunChanges(ctx, tx, r)
		out = runOut(r)
		out.Joined, out.Left = each(joined, changeOut), each(left, changeOut)
		return err
	})
	return api.GetRun200JSONResponse(out), err
}
