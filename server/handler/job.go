package handler

import (
	"context"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func jobOut(j backup.Job) api.Job {
	out := api.Job{
		ID: j.ID, RunID: j.RunID, Kind: api.JobKind(j.Kind), VCenterID: j.VCenterID, ImageID: j.ImageID, RestoreID: j.RestoreID,
		State: api.JobState(j.State), Step: j.Step,
		Progress: api.Progress{Done: j.Done, Total: j.Total, BytesPerSecond: j.Rate},
		Attempt:  j.Attempt, MaxAttempts: j.MaxAttempts, CancelRequested: j.Cancel, LateBySeconds: int64(j.LateBy() / time.Second),
		DueAt: utc(j.Due), CreatedAt: utc(j.CreatedAt), StartedAt: utc(j.StartedAt), EndedAt: utc(j.EndedAt),
		Error: jobError(j.ErrorCode, j.Error), Messages: append([]string{}, j.Messages...),
	}
	if j.VMID != "" {
		out.VirtualMachine = &api.VirtualMachineRef{ID: j.VMID, Name: j.VMName}
	}
	if left := j.Total - j.Done; j.State == backup.JobRunning && j.Rate > 0 && left > 0 {
		out.Progress.EtaSeconds = (left + j.Rate - 1) / j.Rate
	}
	return out
}

func jobError(code backup.Code, message string) *api.JobError {
	if code == "" && message == "" {
		return nil
	}
	if code == "" {
		code = backup.Internal
	}
	return &api.JobError{Code: api.ErrorCode(code), Message: message}
}

func jobAccepted(j backup.Job) api.JobAcceptedJSONResponse {
	return api.JobAcceptedJSONResponse{Body: jobOut(j), Headers: api.JobAcceptedResponseHeaders{Location: "/v1/jobs/" + j.ID}}
}

func (h *handler) job(ctx context.Context, id string) (j backup.Job, err error) {
	err = h.Store.View(ctx, func(tx backup.Tx) (err error) {
		j, err = tx.Job(ctx, id)
		return err
	})
	return j, err
}

// ListJobs implements the operation.
func (h *handler) ListJobs(ctx context.Context, q api.ListJobsRequestObject) (api.ListJobsResponseObject, error) {
	p := q.Params
	f := backup.JobFilter{
		Kind: backup.JobKind(p.Kind), State: backup.JobState(p.State), Active: p.Active, VMID: p.VirtualMachineID, RunID: p.RunID,
		VCenterID: p.VCenterID, After: p.CreatedAfter, Page: pageOf(p.Limit, p.Cursor),
	}
	var list api.JobList
	err := h.Store.View(ctx, func(tx backup.Tx) error {
		found, next, err := tx.Jobs(ctx, f)
		list.Items, list.NextCursor = each(found, jobOut), next
		return err
	})
	return api.ListJobs200JSONResponse(list), err
}

// GetJob implements the operation.
func (h *handler) GetJob(ctx context.Context, q api.GetJobRequestObject) (api.GetJobResponseObject, error) {
	j, err := h.job(ctx, q.ID)
	return api.GetJob200JSONResponse(jobOut(j)), err
}

// CancelJob implements the operation. Which jobs a role may cancel depends on
// their kind, so that the table of operations cannot tell alone.
func (h *handler) CancelJob(ctx context.Context, q api.CancelJobRequestObject) (api.CancelJobResponseObject, error) {
	j, err := h.job(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if role := auth.From(ctx).Role; !role.MayCancel(string(j.Kind)) {
		return nil, backup.Errorf(backup.Forbidden, "", "The role %s may not cancel %s jobs.", role, j.Kind)
	}
	j, err = h.Planner.CancelJob(ctx, q.ID)
	return api.CancelJob202JSONResponse{JobAcceptedJSONResponse: jobAccepted(j)}, err
}
