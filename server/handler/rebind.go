package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// RebindVCenter implements the operation.
func (h *handler) RebindVCenter(ctx context.Context, q api.RebindVCenterRequestObject) (api.RebindVCenterResponseObject, error) {
	ask := backup.Rebinding{FromID: q.ID, ToID: q.Body.To, Map: map[string]string{}, Selectors: q.Body.Selectors, DryRun: q.Body.DryRun}
	for _, pair := range q.Body.Map {
		if _, twice := ask.Map[pair.VirtualMachineID]; twice {
			return nil, backup.Errorf(backup.Invalid, "map", "The map names VM %q twice.", pair.VirtualMachineID)
		}
		ask.Map[pair.VirtualMachineID] = pair.MOID
	}
	r, err := h.Planner.RebindVCenter(ctx, ask)
	if err != nil {
		return nil, err
	}
	names := func(list []string) []string { return append([]string{}, list...) }
	return api.RebindVCenter200JSONResponse{
		DryRun: ask.DryRun, Moved: each(r.Moved, reboundOut), Left: each(r.Left, reboundOut),
		Schedules: names(r.Schedules), Groups: names(r.Groups), Selecting: names(r.Selecting), WithdrawnJobs: r.Withdrawn,
	}, nil
}

func reboundOut(b backup.Rebound) api.ReboundMachine {
	return api.ReboundMachine{
		VirtualMachine: api.VirtualMachineRef{ID: b.VM.ID, Name: b.VM.Name, MOID: b.VM.MOID, InstanceUUID: b.VM.InstanceUUID},
		ToMOID:         b.To.MOID, ToName: b.To.Name, RecognizedBy: b.By, Reason: b.Reason, Images: b.Images,
	}
}
