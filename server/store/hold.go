package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var holds = noun{"image_hold", "hold"}

func holdColumns(h *backup.Hold, until *time.Time) columns {
	return columns{
		{"id", &h.ID},
		{"image_id", &h.ImageID},
		{"until", millis{until}},
		{"reason", &h.Reason},
		{"created_by", &h.CreatedBy},
		{"created_at", millis{&h.CreatedAt}},
	}
}

func (t *tx) holdsWhere(ctx context.Context, column, value string) ([]backup.Hold, error) {
	var all []backup.Hold
	var sample backup.Hold
	err := t.rows(ctx, "SELECT "+holdColumns(&sample, &sample.Until).names("")+" FROM image_hold WHERE "+column+` = $1
		AND image_id IN (SELECT id FROM image WHERE project = $2) ORDER BY created_at, id`, []any{value, t.project}, func(scan func(...any) error) error {
		var h backup.Hold
		if err := scan(holdColumns(&h, &h.Until).dest()...); err != nil {
			return err
		}
		if h.Until.Equal(backup.LockedUntil(time.Time{})) {
			h.Until = time.Time{}
		}
		all = append(all, h)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("holds: %w", err)
	}
	return all, nil
}

// ImageHolds lists the holds of an image, oldest first.
func (t *tx) ImageHolds(ctx context.Context, imageID string) ([]backup.Hold, error) {
	return t.holdsWhere(ctx, "image_id", imageID)
}

func (t *tx) Hold(ctx context.Context, id string) (backup.Hold, error) {
	all, err := t.holdsWhere(ctx, "id", id)
	if err == nil && len(all) == 0 {
		err = holds.missing(id)
	}
	if err != nil {
		return backup.Hold{}, err
	}
	return all[0], nil
}

func (t *tx) InsertHold(ctx context.Context, h backup.Hold) error {
	until := backup.LockedUntil(h.Until)
	taken := backup.Errorf(backup.Conflict, "", "There is a hold with id %q already.", h.ID)
	if err := t.insert(ctx, holds, holdColumns(&h, &until), taken); err != nil {
		return err
	}
	if err := t.madeFor(ctx, "hold", h.ID); err != nil {
		return err
	}
	return t.keepHeld(ctx, h.ImageID)
}

func (t *tx) DeleteHold(ctx context.Context, h backup.Hold) error {
	if _, err := t.exec(ctx, "DELETE FROM image_hold WHERE id = $1 AND image_id = $2", h.ID, h.ImageID); err != nil {
		return fmt.Errorf("delete hold %s: %w", h.ID, err)
	}
	return t.keepHeld(ctx, h.ImageID)
}

// keepHeld writes into an image until when its holds keep it, and lets the
// account of usage follow.
func (t *tx) keepHeld(ctx context.Context, imageID string) error {
	all, err := t.ImageHolds(ctx, imageID)
	if err != nil {
		return err
	}
	if _, err := t.exec(ctx, "UPDATE image SET held_until = $1 WHERE project = $2 AND id = $3", backup.LatestHold(all), t.project, imageID); err != nil {
		return fmt.Errorf("holds of image %s: %w", imageID, err)
	}
	i, err := t.Image(ctx, imageID)
	if err != nil {
		return err
	}
	return t.account(ctx, i, false)
}

// SetStorageLock notes until when the storage locks what images need.
func (t *tx) SetStorageLock(ctx context.Context, ids []string, until time.Time) error {
	for part := range slices.Chunk(ids, perStatement-2) {
		args := []any{until, t.project}
		marks := make([]string, len(part))
		for n, id := range part {
			args = append(args, id)
			marks[n] = "$" + strconv.Itoa(len(args))
		}
		if _, err := t.exec(ctx, "UPDATE image SET storage_locked_until = $1 WHERE project = $2 AND id IN ("+strings.Join(marks, ", ")+")", args...); err != nil {
			return fmt.Errorf("note the storage's lock of %d images: %w", len(part), err)
		}
	}
	return nil
}
