package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// MoveBackupSchedules implements the operation.
func (h *handler) MoveBackupSchedules(ctx context.Context, q api.MoveBackupSchedulesRequestObject) (api.MoveBackupSchedulesResponseObject, error) {
	all := make([]backup.Schedule, len(q.Body.Schedules))
	for i, m := range q.Body.Schedules {
		s, err := scheduleIn(m.Schedule)
		if err != nil {
			return nil, backup.Among(i, err)
		}
		s.ID = m.ID
		all[i] = s
	}
	all, err := h.Planner.UpdateSchedules(ctx, all)
	if err != nil {
		return nil, err
	}
	var list api.BackupScheduleList
	err = h.Store.View(ctx, func(tx backup.Tx) error {
		repositories, err := repositoryNames(ctx, tx)
		list.Items = each(all, func(s backup.Schedule) api.BackupSchedule { return h.scheduleOut(s, repositories) })
		return err
	})
	return api.MoveBackupSchedules200JSONResponse(list), err
}
