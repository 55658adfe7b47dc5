package handler

import (
	"context"
	"fmt"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func vcenterIn(v api.VCenter) backup.VCenter {
	out := backup.VCenter{
		Name: v.Name, Endpoint: v.Endpoint, Username: v.Username, Password: backup.Secret(v.Password), Thumbprint: v.Thumbprint,
		CACertificate: v.CACertificate, TimeZone: v.TimeZone, SlotCapacity: v.SlotCapacity, Transport: backup.Transport(v.Transport),
	}
	out.Project = backup.DefaultProject
	if l := v.Limits; l != nil {
		out.Limits = backup.Limits{DisksPerHost: l.DisksPerHost, Disks: l.Disks, JobsPerDatastore: l.JobsPerDatastore, RestoresPerPool: l.RestoresPerPool, BytesPerSecond: l.BytesPerSecond}
	}
	for _, m := range v.TagMappings {
		out.TagMappings = append(out.TagMappings, backup.TagMapping{Category: m.Category, Tag: m.Tag, Key: m.Key, Value: m.Value})
	}
	return out
}

// vcenterOut leaves the password out: it is never told.
func vcenterOut(v backup.VCenter) api.VCenter {
	l := v.Limits.Defaulted()
	out := api.VCenter{
		ID: v.ID, Name: v.Name, Endpoint: v.Endpoint, Username: v.Username, Thumbprint: v.Thumbprint, CACertificate: v.CACertificate,
		TimeZone: v.TimeZone, SlotCapacity: v.SlotCapacity,
		Limits:       &api.VCenterLimits{DisksPerHost: l.DisksPerHost, Disks: l.Disks, JobsPerDatastore: l.JobsPerDatastore, RestoresPerPool: l.RestoresPerPool, BytesPerSecond: l.BytesPerSecond},
		Transport:    api.Transport(v.Transport),
		InstanceUUID: v.InstanceUUID, APIVersion: v.APIVersion, SyncState: api.SyncState(v.SyncState), SyncError: v.SyncError,
		InventorySyncedAt: utc(v.SyncedAt), CreatedAt: utc(v.CreatedAt), UpdatedAt: utc(v.UpdatedAt),
	}
	if len(v.TagMappings) > 0 {
		out.TagMappings = each(v.TagMappings, func(m backup.TagMapping) api.TagMapping {
			return api.TagMapping{Category: m.Category, Tag: m.Tag, Key: m.Key, Value: m.Value}
		})
	}
	return out
}

// ListVCenters implements the operation.
func (h *handler) ListVCenters(ctx context.Context, q api.ListVCentersRequestObject) (api.ListVCentersResponseObject, error) {
	var list api.VCenterList
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		var found []backup.VCenter
		if q.Params.Name != "" {
			found, err = one(tx.VCenterByName(ctx, q.Params.Name))
		} else {
			found, list.NextCursor, err = tx.VCenters(ctx, pageOf(q.Params.Limit, q.Params.Cursor))
		}
		list.Items = each(found, vcenterOut)
		return err
	})
	return api.ListVCenters200JSONResponse(list), err
}

// CreateVCenter implements the operation.
func (h *handler) CreateVCenter(ctx context.Context, q api.CreateVCenterRequestObject) (api.CreateVCenterResponseObject, error) {
	v, err := h.Planner.CreateVCenter(ctx, vcenterIn(*q.Body))
	if err != nil {
		return nil, err
	}
	out := vcenterOut(v)
	out.Warnings = h.vcenterWarnings(ctx, v)
	return api.CreateVCenter201JSONResponse{VCenterCreatedJSONResponse: api.VCenterCreatedJSONResponse{
		Body: out, Headers: api.VCenterCreatedResponseHeaders{ETag: etag(v.Version), Location: "/v1/vcenters/" + v.ID},
	}}, nil
}

// vcenterWarnings tells what to know of a vcenter that was just stored. It
// never fails: the change is made, and an error would say that it is not.
func (h *handler) vcenterWarnings(ctx context.Context, v backup.VCenter) []string {
	o, err := h.Planner.OverBooked(ctx, v.ID)
	if err != nil {
		h.Log.WarnContext(ctx, "over-booked hours not counted", "vcenter", v.Name, "error", err)
		return nil
	}
	if o.Hours == 0 {
		return nil
	}
	loc, err := (backup.Recurrence{TimeZone: v.TimeZone}).Location()
	if err != nil {
		loc = time.UTC
	}
	hours := "1 hour holds"
	if o.Hours > 1 {
		hours = fmt.Sprintf("%d hours hold", o.Hours)
	}
	return []string{fmt.Sprintf("%s more seats than slot_capacity = %d, the first at %s, the fullest with %d seats. "+
		"Nothing is dropped: what is too much waits in the queue until the hour's running backups are below the capacity. List them with GET /v1/timeslots.",
		hours, v.SlotCapacity, o.First.In(loc).Format(time.RFC3339), o.Most)}
}

// GetVCenter implements the operation.
func (h *handler) GetVCenter(ctx context.Context, q api.GetVCenterRequestObject) (api.GetVCenterResponseObject, error) {
	var v backup.VCenter
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		v, err = tx.VCenter(ctx, q.ID)
		return err
	})
	return api.GetVCenter200JSONResponse{VCenterOKJSONResponse: vcenterOK(v)}, err
}

func vcenterOK(v backup.VCenter) api.VCenterOKJSONResponse {
	return api.VCenterOKJSONResponse{Body: vcenterOut(v), Headers: api.VCenterOKResponseHeaders{ETag: etag(v.Version)}}
}

// UpdateVCenter implements the operation.
func (h *handler) UpdateVCenter(ctx context.Context, q api.UpdateVCenterRequestObject) (api.UpdateVCenterResponseObject, error) {
	v := vcenterIn(*q.Body)
	v.ID, v.Version = q.ID, versionOf(q.Params.IfMatch)
	v, err := h.Planner.UpdateVCenter(ctx, v)
	if err != nil {
		return nil, err
	}
	out := vcenterOK(v)
	out.Body.Warnings = h.vcenterWarnings(ctx, v)
	return api.UpdateVCenter200JSONResponse{VCenterOKJSONResponse: out}, nil
}

// DeleteVCenter implements the operation.
func (h *handler) DeleteVCenter(ctx context.Context, q api.DeleteVCenterRequestObject) (api.DeleteVCenterResponseObject, error) {
	return api.DeleteVCenter204Response{}, h.Planner.DeleteVCenter(ctx, q.ID)
}

// SyncVCenter implements the operation.
func (h *handler) SyncVCenter(ctx context.Context, q api.SyncVCenterRequestObject) (api.SyncVCenterResponseObject, error) {
	j, err := h.Planner.SyncVCenter(ctx, q.ID)
	return api.SyncVCenter202JSONResponse{JobAcceptedJSONResponse: jobAccepted(j)}, err
}
