package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func groupIn(g api.BackupGroup) backup.Group {
	out := backup.Group{
		Name: g.Name, Description: g.Description, VirtualMachineIDs: g.VirtualMachineIDs, ExcludeIDs: g.ExcludeVirtualMachineIDs,
		ReservedSeats: g.ReservedSeats, MaxParallel: g.MaxParallel, Consistent: g.Consistent, OnMemberFailure: backup.MemberFailure(g.OnMemberFailure), Labels: g.Labels, DeletionProtection: g.DeletionProtection,
	}
	out.Project = backup.DefaultProject
	if s := g.Selector; s != nil {
		out.Selector = &backup.Selector{VCenterID: s.VCenterID, Folder: s.Folder, Recursive: s.Recursive, ResourcePool: s.ResourcePool, NameRegex: s.NameRegex}
		for _, t := range s.Tags {
			out.Selector.Tags = append(out.Selector.Tags, backup.Tag(t))
		}
	}
	return out
}

func groupOut(g backup.Group) api.BackupGroup {
	out := api.BackupGroup{
		ID: g.ID, Name: g.Name, Description: g.Description, VirtualMachineIDs: g.VirtualMachineIDs, ExcludeVirtualMachineIDs: g.ExcludeIDs,
		ReservedSeats: g.ReservedSeats, MaxParallel: g.MaxParallel, Consistent: g.Consistent, OnMemberFailure: api.MemberFailure(g.OnMemberFailure), Labels: g.Labels, DeletionProtection: g.DeletionProtection,
		CreatedAt: utc(g.CreatedAt), UpdatedAt: utc(g.UpdatedAt),
	}
	if s := g.Selector; s != nil {
		out.Selector = &api.Selector{VCenterID: s.VCenterID, Folder: s.Folder, Recursive: s.Recursive, ResourcePool: s.ResourcePool, NameRegex: s.NameRegex}
		if len(s.Tags) > 0 {
			out.Selector.Tags = each(s.Tags, func(t backup.Tag) api.Tag { return api.Tag(t) })
		}
	}
	return out
}

// ListBackupGroups implements the operation.
func (h *handler) ListBackupGroups(ctx context.Context, q api.ListBackupGroupsRequestObject) (api.ListBackupGroupsResponseObject, error) {
	var list api.BackupGroupList
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		var found []backup.Group
		if q.Params.Name != "" {
			found, err = one(tx.GroupByName(ctx, q.Params.Name))
		} else {
			found, list.NextCursor, err = tx.Groups(ctx, pageOf(q.Params.Limit, q.Params.Cursor))
		}
		list.Items = each(found, groupOut)
		return err
	})
	return api.ListBackupGroups200JSONResponse(list), err
}

// CreateBackupGroup implements the operation.
func (h *handler) CreateBackupGroup(ctx context.Context, q api.CreateBackupGroupRequestObject) (api.CreateBackupGroupResponseObject, error) {
	g, err := h.Planner.CreateGroup(ctx, groupIn(*q.Body))
	return api.CreateBackupGroup201JSONResponse{BackupGroupCreatedJSONResponse: api.BackupGroupCreatedJSONResponse{
		Body: groupOut(g), Headers: api.BackupGroupCreatedResponseHeaders{ETag: etag(g.Version), Location: "/v1/backup-groups/" + g.ID},
	}}, err
}

// GetBackupGroup implements the operation.
func (h *handler) GetBackupGroup(ctx context.Context, q api.GetBackupGroupRequestObject) (api.GetBackupGroupResponseObject, error) {
	var g backup.Group
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		g, err = tx.Group(ctx, q.ID)
		return err
	})
	return api.GetBackupGroup200JSONResponse{BackupGroupOKJSONResponse: groupOK(g)}, err
}

func groupOK(g backup.Group) api.BackupGroupOKJSONResponse {
	return api.BackupGroupOKJSONResponse{Body: groupOut(g), Headers: api.BackupGroupOKResponseHeaders{ETag: etag(g.Version)}}
}

// UpdateBackupGroup implements the operation.
func (h *handler) UpdateBackupGroup(ctx context.Context, q api.UpdateBackupGroupRequestObject) (api.UpdateBackupGroupResponseObject, error) {
	g := groupIn(*q.Body)
	g.ID, g.Version = q.ID, versionOf(q.Params.IfMatch)
	g, err := h.Planner.UpdateGroup(ctx, g)
	return api.UpdateBackupGroup200JSONResponse{BackupGroupOKJSONResponse: groupOK(g)}, err
}

// DeleteBackupGroup implements the operation.
func (h *handler) DeleteBackupGroup(ctx context.Context, q api.DeleteBackupGroupRequestObject) (api.DeleteBackupGroupResponseObject, error) {
	return api.DeleteBackupGroup204Response{}, h.Planner.DeleteGroup(ctx, q.ID)
}

// ListBackupGroupMembers implements the operation.
func (h *handler) ListBackupGroupMembers(ctx context.Context, q api.ListBackupGroupMembersRequestObject) (api.ListBackupGroupMembersResponseObject, error) {
	vms, err := h.Planner.GroupMembers(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	var out api.VirtualMachineListOKJSONResponse
	err = h.Store.View(ctx, func(tx backup.Tx) (err error) {
		out.Items, err = machinesOut(ctx, tx, vms)
		return err
	})
	return api.ListBackupGroupMembers200JSONResponse{VirtualMachineListOKJSONResponse: out}, err
}

// ListBackupGroupChanges implements the operation.
func (h *handler) ListBackupGroupChanges(ctx context.Context, q api.ListBackupGroupChangesRequestObject) (api.ListBackupGroupChangesResponseObject, error) {
	var out api.MemberChangeList
	err := h.Store.View(ctx, func(tx backup.Tx) error {
		if _, err := tx.Group(ctx, q.ID); err != nil {
			return err
		}
		last, err := backup.LastRun(ctx, tx, q.ID)
		if err != nil {
			return err
		}
		f := backup.MemberFilter{GroupID: q.ID, Page: pageOf(q.Params.Limit, q.Params.Cursor)}
		if q.Params.SinceLastRun {
			f.After = last
		}
		found, next, err := tx.MemberChanges(ctx, f)
		out = api.MemberChangeList{Items: each(found, changeOut), NextCursor: next, LastRunAt: utc(last)}
		return err
	})
	return api.ListBackupGroupChanges200JSONResponse(out), err
}

func changeOut(c backup.MemberChange) api.MemberChange {
	return api.MemberChange{VirtualMachine: api.VirtualMachineRef{ID: c.VMID, Name: c.VMName}, Change: api.MemberChangeChange(c.Change), Cause: c.Cause, At: utc(c.At)}
}

// BackupGroup implements the operation.
func (h *handler) BackupGroup(ctx context.Context, q api.BackupGroupRequestObject) (api.BackupGroupResponseObject, error) {
	r, err := h.Planner.BackupGroup(ctx, q.ID, optionsIn(*q.Body))
	return api.BackupGroup202JSONResponse{RunAcceptedJSONResponse: runAccepted(r)}, err
}

func optionsIn(o api.BackupOptions) backup.RunOptions {
	return backup.RunOptions{RetentionDays: o.RetentionDays, RepositoryID: o.Repository, Consistency: backup.Consistency(o.Consistency), Full: o.Full, Labels: o.Labels}
}
