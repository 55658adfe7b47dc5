package handler

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// ListProtection implements the operation.
func (h *handler) ListProtection(ctx context.Context, q api.ListProtectionRequestObject) (api.ListProtectionResponseObject, error) {
	all, err := h.Planner.Coverage(ctx, q.Params.VCenterID)
	return api.ListProtection200JSONResponse{Items: each(all, protectionOut)}, err
}

func protectionOut(c backup.Coverage) api.VMProtection {
	p := c.VM.Protection(backup.DiskChoice{})
	reason := p.Whole
	if reason == "" && len(p.Unable) > 0 {
		reason = fmt.Sprintf("%s: %s", p.Unable[0].Label, p.Unable[0].Unprotectable)
	}
	return api.VMProtection{
		VirtualMachine: api.VirtualMachineRef{ID: c.VM.ID, Name: c.VM.Name, MOID: c.VM.MOID, InstanceUUID: c.VM.InstanceUUID},
		VCenterID:      c.VM.VCenterID, Protected: len(c.Schedules) > 0 && reason == "", UnprotectableReason: reason,
		Schedules:  each(c.Schedules, func(s backup.ScheduleRef) api.ScheduleRef { return api.ScheduleRef(s) }),
		LastGoodAt: utc(c.Good.At), LastVerifiedAt: utc(c.Good.VerifiedAt),
	}
}
