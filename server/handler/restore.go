package handler

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func restoreIn(r api.Restore) backup.Restore {
	out := backup.Restore{Project: backup.DefaultProject, ImageID: r.ImageID, Description: r.Description}
	if p := r.InPlace; p != nil {
		out.InPlace = &backup.RestoreInPlace{PowerOff: p.PowerOff, PowerOn: p.PowerOn, Safety: backup.SafetyQuick}
		if p.Safety != "" {
			out.InPlace.Safety = backup.Safety(p.Safety)
		}
	}
	if n := r.NewVM; n != nil {
		out.NewVM = &backup.RestoreNewVM{
			Name: n.Name, VCenterID: n.VCenterID, Datacenter: n.Datacenter, Folder: n.Folder, Datastore: n.Datastore, StoragePolicy: n.StoragePolicy,
			Cluster: n.Cluster, Host: n.Host, ResourcePool: n.ResourcePool, NetworkMappings: n.NetworkMappings,
			PowerOn: n.PowerOn, PreserveIdentity: n.PreserveIdentity, AsTemplate: n.AsTemplate,
		}
	}
	if d := r.Disk; d != nil {
		out.Disk = &backup.RestoreDisk{SourceKey: d.SourceDiskKey, SourceLabel: d.SourceDiskLabel, VMID: d.VirtualMachineID, Mode: backup.DiskMode(d.Mode), Datastore: d.Datastore}
	}
	return out
}

func restoreOut(r backup.Restore) api.Restore {
	out := api.Restore{
		ID: r.ID, ImageID: r.ImageID, Description: r.Description, JobID: r.JobID, Status: api.JobState(r.State),
		Error: jobError(r.ErrorCode, r.Error), Messages: r.Messages, BytesRestored: r.Bytes,
		CreatedAt: utc(r.CreatedAt), StartedAt: utc(r.StartedAt), CompletedAt: utc(r.CompletedAt),
	}
	if p := r.InPlace; p != nil {
		out.InPlace = &api.RestoreInPlace{PowerOff: p.PowerOff, PowerOn: p.PowerOn, Safety: api.Safety(p.Safety)}
	}
	if n := r.NewVM; n != nil {
		out.NewVM = &api.RestoreNewVM{
			Name: n.Name, VCenterID: n.VCenterID, Datacenter: n.Datacenter, Folder: n.Folder, Datastore: n.Datastore, StoragePolicy: n.StoragePolicy,
			Cluster: n.Cluster, Host: n.Host, ResourcePool: n.ResourcePool, NetworkMappings: n.NetworkMappings,
			PowerOn: n.PowerOn, PreserveIdentity: n.PreserveIdentity, AsTemplate: n.AsTemplate,
		}
	}
	if d := r.Disk; d != nil {
		out.Disk = &api.RestoreDisk{SourceDiskKey: d.SourceKey, SourceDiskLabel: d.SourceLabel, VirtualMachineID: d.VMID, Mode: api.DiskRestoreMode(d.Mode), Datastore: d.Datastore}
	}
	if r.Result != (backup.RestoredVM{}) {
		vm := api.RestoredVM{MOID: r.Result.MOID, InstanceUUID: r.Result.InstanceUUID, BIOSUUID: r.Result.BIOSUUID, Name: r.Result.Name}
		out.RestoredVM = &vm
	}
	return out
}

// ListRestores implements the operation.
func (h *handler) ListRestores(ctx context.Context, q api.ListRestoresRequestObject) (api.ListRestoresResponseObject, error) {
	var list api.RestoreList
	err := h.Store.View(ctx, func(tx backup.Tx) error {
		found, next, err := tx.Restores(ctx, pageOf(q.Params.Limit, q.Params.Cursor))
		list.Items, list.NextCursor = each(found, restoreOut), next
		return err
	})
	return api.ListRestores200JSONResponse(list), err
}

// CreateRestore implements the operation. Its Idempotency-Key is the restore's
// own token: the planner joins what runs, and what succeeded untold is told.
func (h *handler) CreateRestore(ctx context.Context, q api.CreateRestoreRequestObject) (api.CreateRestoreResponseObject, error) {
	r := restoreIn(*q.Body)
	r.Token = q.Params.IdempotencyKey
	r, err := h.Planner.CreateRestore(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := h.deliver(ctx, r, q.Params.IdempotencyKey); err != nil {
		return nil, err
	}
	return api.CreateRestore201JSONResponse{Body: restoreOut(r), Headers: api.CreateRestore201ResponseHeaders{Location: "/v1/restores/" + r.ID}}, nil
}

// deliver notes that a success is told to the one who asked for it, so that
// the same token starts anew from now on.
func (h *handler) deliver(ctx context.Context, r backup.Restore, token string) error {
	if token == "" || r.Token != token || r.State != backup.JobSucceeded || r.Delivered {
		return nil
	}
	return h.Store.Update(ctx, func(tx backup.Tx) error {
		now, err := tx.Restore(ctx, r.ID)
		if err != nil || now.Delivered {
			return err
		}
		now.Delivered = true
		return tx.UpdateRestore(ctx, now)
	})
}

// CheckRestore implements the operation.
func (h *handler) CheckRestore(ctx context.Context, q api.CheckRestoreRequestObject) (api.CheckRestoreResponseObject, error) {
	r := restoreIn(*q.Body)
	r.Token = q.Params.IdempotencyKey
	warnings, err := h.Planner.CheckRestore(ctx, r)
	return api.CheckRestore200JSONResponse{Warnings: append([]string{}, warnings...)}, err
}

// GetRestore implements the operation.
func (h *handler) GetRestore(ctx context.Context, q api.GetRestoreRequestObject) (api.GetRestoreResponseObject, error) {
	var r backup.Restore
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		r, err = tx.Restore(ctx, q.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return api.GetRestore200JSONResponse(restoreOut(r)), h.deliver(ctx, r, q.Params.IdempotencyKey)
}

// DeleteRestore implements the operation.
func (h *handler) DeleteRestore(ctx context.Context, q api.DeleteRestoreRequestObject) (api.DeleteRestoreResponseObject, error) {
	if q.Params.DeleteRestoredVM {
		if err := h.Planner.DeleteRestoredVM(ctx, q.ID); err != nil {
			return nil, err
		}
	}
	return api.DeleteRestore204Response{}, h.Planner.DeleteRestore(ctx, q.ID)
}
