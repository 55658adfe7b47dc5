package handler

import (
	"context"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// imageOut tells an image as it is now.
func imageOut(i backup.Image, repositories names, now time.Time) api.BackupImage {
	labels := api.Labels{}
	for k, v := range i.Labels {
		labels[k] = v
	}
	out := api.BackupImage{
		ID:             i.ID,
		VirtualMachine: api.VirtualMachineRef{ID: i.VMID, Name: i.VMName, MOID: i.VMMOID, InstanceUUID: i.VMInstanceUUID},
		VCenterID:      i.VCenterID, ScheduleID: i.ScheduleID, GroupID: i.GroupID, RunID: i.RunID, JobID: i.JobID,
		StartedAt: utc(i.StartedAt), EndedAt: utc(i.EndedAt), PointInTime: utc(i.PointInTime), ExpiresAt: utc(i.ExpiresAt), LockedUntil: utc(i.LockedUntil),
		Status: api.ImageStatus(i.Status), Consistency: api.Consistency(i.Consistency), ChangeDetection: api.ChangeDetection(i.ChangeDetection), Message: i.Message,
		Disks: each(i.Disks, func(d backup.ImageDisk) api.ImageDisk {
			return api.ImageDisk{Key: d.Key, Label: d.Label, Capacity: d.Capacity, Read: d.Read, Changed: d.Changed, Stored: d.Stored, SHA256: d.SHA256, SkippedReason: d.SkippedReason,
				ChangeDetection: api.ChangeDetection(d.ChangeDetection), LastFullCompareAt: utc(d.FullCompareAt), Damaged: d.Damaged}
		}),
		Sizes:      api.ImageSizes{Provisioned: i.Sizes.Provisioned, Read: i.Sizes.Read, Changed: i.Sizes.Changed, Stored: i.Sizes.Stored},
		VerifiedAt: utc(i.VerifiedAt), LastFullCompareAt: utc(i.FullCompareAt), Repository: repositories.of(i.RepositoryID), Labels: labels,
		Held: i.Held(now), StorageLockedUntil: utc(i.StorageLockedUntil),
	}
	if out.Held {
		out.HeldUntil = utc(i.HoldEnd())
	}
	return out
}

// ListBackupImages implements the operation.
func (h *handler) ListBackupImages(ctx context.Context, q api.ListBackupImagesRequestObject) (api.ListBackupImagesResponseObject, error) {
	p := q.Params
	f := backup.ImageFilter{
		Project: backup.DefaultProject, VMID: p.VirtualMachineID, VMName: p.VirtualMachineName, GroupID: p.GroupID, ScheduleID: p.ScheduleID,
		RunID: p.RunID, VCenterID: p.VCenterID, Status: backup.ImageStatus(p.Status), CreatedAfter: p.CreatedAfter, CreatedBefore: p.CreatedBefore,
		Page: pageOf(p.Limit, p.Cursor),
	}
	for _, label := range p.Label {
		key, value, _ := strings.Cut(label, "=")
		if f.Labels == nil {
			f.Labels = map[string]string{}
		}
		f.Labels[key] = value
	}
	var list api.BackupImageList
	err := h.Store.View(ctx, func(tx backup.Tx) error {
		if p.Repository != "" {
			r, err := backup.FindRepository(ctx, tx, p.Repository)
			if err != nil {
				return fieldOf("repository", err)
			}
			f.RepositoryID = r.ID
		}
		if p.Repository == "" && (p.Copies == nil || !*p.Copies) {
			f.Copies = backup.CopiesAlone
		}
		found, next, err := tx.Images(ctx, f)
		if err != nil {
			return err
		}
		list.Items, err = imagesOut(ctx, tx, found)
		list.NextCursor = next
		return err
	})
	return api.ListBackupImages200JSONResponse(list), err
}

// fieldOf names the input that an error without a field is about.
func fieldOf(field string, err error) error {
	if e := backup.AsError(err); e != nil && e.Field == "" {
		c := *e
		c.Field = field
		return &c
	}
	return err
}

// GetBackupImage implements the operation.
func (h *handler) GetBackupImage(ctx context.Context, q api.GetBackupImageRequestObject) (api.GetBackupImageResponseObject, error) {
	var out api.BackupImage
	err := h.Store.View(ctx, func(tx backup.Tx) error {
		i, err := tx.Image(ctx, q.ID)
		if err != nil {
			return err
		}
		out, err = wholeImage(ctx, tx, i)
		return err
	})
	return api.GetBackupImage200JSONResponse(out), err
}

// DeleteBackupImage implements the operation.
func (h *handler) DeleteBackupImage(ctx context.Context, q api.DeleteBackupImageRequestObject) (api.DeleteBackupImageResponseObject, error) {
	_, err := h.Planner.DeleteImage(ctx, q.ID)
	return api.DeleteBackupImage204Response{}, err
}
