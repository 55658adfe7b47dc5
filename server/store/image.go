package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var images = noun{"image", "image"}

func imageColumns(i *backup.Image) columns {
	return columns{
		{"id", &i.ID},
		{"project", &i.Project},
		{"vcenter_id", &i.VCenterID},
		{"vm_id", &i.VMID},
		{"vm_name", &i.VMName},
		{"vm_moid", &i.VMMOID},
		{"vm_instance_uuid", &i.VMInstanceUUID},
		{"schedule_id", &i.ScheduleID},
		{"group_id", &i.GroupID},
		{"run_id", &i.RunID},
		{"job_id", &i.JobID},
		{"repository_id", &i.RepositoryID},
		{"copy_of", &i.CopyOf},
		{"started_at", millis{&i.StartedAt}},
		{"ended_at", millis{&i.EndedAt}},
		{"point_in_time", millis{&i.PointInTime}},
		{"expires_at", millis{&i.ExpiresAt}},
		{"locked_until", millis{&i.LockedUntil}},
		{"status", &i.Status},
		{"consistency", &i.Consistency},
		{"change_detection", &i.ChangeDetection},
		{"message", &i.Message},
		{"disks", asJSON{&i.Disks}},
		{"provisioned", &i.Sizes.Provisioned},
		{"bytes_read", &i.Sizes.Read},
		{"bytes_changed", &i.Sizes.Changed},
		{"bytes_stored", &i.Sizes.Stored},
		{"verified_at", millis{&i.VerifiedAt}},
		{"full_compare_at", millis{&i.FullCompareAt}},
		{"labels", asJSON{&i.Labels}},
		{"ref", &i.Ref},
		{"held_until", millis{&i.HeldUntil}},
		{"extended_until", millis{&i.ExtendedUntil}},
		{"storage_locked_until", millis{&i.StorageLockedUntil}},
	}
}

func (t *tx) Image(ctx context.Context, id string) (backup.Image, error) {
	return get(ctx, t, images, id, imageColumns)
}

func (t *tx) Images(ctx context.Context, f backup.ImageFilter) ([]backup.Image, string, error) {
	q := query{from: "image", since: "point_in_time"}
	q.where("project = ?", t.project)
	q.equal("vm_id", f.VMID)
	q.equal("vm_name", f.VMName)
	for _, c := range []column{{"group_id", f.GroupID}, {"schedule_id", f.ScheduleID}, {"run_id", f.RunID}} {
		if err := t.shared(ctx, &q, c.name, c.at.(string)); err != nil {
			return nil, "", err
		}
	}
	q.equal("vcenter_id", f.VCenterID)
	q.equal("repository_id", f.RepositoryID)
	switch f.Copies {
	case backup.CopiesAll:
	case backup.CopiesNone:
		q.where("copy_of = ''")
	case backup.CopiesAlone:
		// Not NOT EXISTS, for which PostgreSQL would read the whole table first.
		q.where("(copy_of = '' OR COALESCE((SELECT o.status FROM image o WHERE o.id = image.copy_of), 'expired') = 'expired')")
	}
	q.equal("status", string(f.Status))
	if !f.CreatedAfter.IsZero() {
		q.where("point_in_time >= ?", f.CreatedAfter)
	}
	if !f.CreatedBefore.IsZero() {
		q.where("point_in_time < ?", f.CreatedBefore)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Labels)) {
		if err := t.labelled(ctx, &q, name, f.Labels[name]); err != nil {
			return nil, "", err
		}
	}
	return list(ctx, t, q, f.Page, imageColumns)
}

// shared adds the condition that the image is of that schedule, group or run,
// as its maker's or as one that it shares. Few share any: the others are
// answered by their index alone.
func (t *tx) shared(ctx context.Context, q *query, column, value string) error {
	if value == "" {
		return nil
	}
	var id string
	found, err := t.row(ctx, "SELECT image_id FROM image_share WHERE "+column+" = $1 LIMIT 1", []any{value}, &id)
	switch {
	case err != nil:
		return fmt.Errorf("shares of images: %w", err)
	case found:
		q.where("("+column+" = ? OR id IN (SELECT image_id FROM image_share WHERE "+column+" = ?))", value, value)
	default:
		q.equal(column, value)
	}
	return nil
}

// labelCommon is the number of images from which a label is common.
const labelCommon = 2000

// labelled adds the condition that the image has the label. The images of a
// rare one are looked up by it; for a common one images are asked in the order
// of the list until the page is full.
func (t *tx) labelled(ctx context.Context, q *query, name, value string) error {
	var n int
	_, err := t.row(ctx, "SELECT COUNT(*) FROM (SELECT 1 FROM image_label WHERE name = $1 AND value = $2 LIMIT "+strconv.Itoa(labelCommon)+") AS few",
		[]any{name, value}, &n)
	if err != nil {
		return fmt.Errorf("images with the label %s: %w", name, err)
	}
	if n < labelCommon {
		q.where("id IN (SELECT image_id FROM image_label WHERE name = ? AND value = ?)", name, value)
		return nil
	}
	// Not EXISTS, of which PostgreSQL would make a join in another order.
	q.where("(SELECT COUNT(*) FROM image_label l WHERE l.image_id = image.id AND l.name = ? AND l.value = ?) > 0", name, value)
	return nil
}

func (t *tx) InsertImage(ctx context.Context, i backup.Image) error {
	if i.ID == "" {
		return errors.New("insert image: it has no id")
	}
	i.Project = t.project
	taken := backup.Errorf(backup.Conflict, "", "There is an image with id %q already.", i.ID)
	if err := t.insert(ctx, images, imageColumns(&i), taken); err != nil {
		return err
	}
	if err := t.account(ctx, i, false); err != nil {
		return err
	}
	return t.label(ctx, i)
}

func (t *tx) UpdateImage(ctx context.Context, i backup.Image) error {
	if err := t.change(ctx, images, imageColumns(&i).without("id", "project", "held_until", "storage_locked_until"), i.ID); err != nil {
		return err
	}
	if _, err := t.exec(ctx, "DELETE FROM image_label WHERE image_id = $1", i.ID); err != nil {
		return fmt.Errorf("labels of image %s: %w", i.ID, err)
	}
	if err := t.account(ctx, i, false); err != nil {
		return err
	}
	return t.label(ctx, i)
}

// label stores the labels once more, so that images are found by them.
func (t *tx) label(ctx context.Context, i backup.Image) error {
	var rows []columns
	for name, val := range i.Labels {
		rows = append(rows, columns{{"image_id", &i.ID}, {"name", &name}, {"value", &val}})
	}
	return t.insertMany(ctx, noun{table: "image_label"}, rows)
}

func (t *tx) DeleteImage(ctx context.Context, id string) error {
	if err := t.remove(ctx, images, id); err != nil {
		return err
	}
	return t.account(ctx, backup.Image{ID: id}, true)
}

func (t *tx) LastImage(ctx context.Context, vmID, repositoryID string) (backup.Image, error) {
	none := backup.Errorf(backup.NotFound, "", "There is no image of virtual machine %q in repository %q.", vmID, repositoryID)
	return first(ctx, t, images, "project = $1 AND vm_id = $2 AND repository_id = $3 AND status IN ('good', 'partial') ORDER BY point_in_time DESC, id DESC LIMIT 1",
		[]any{t.project, vmID, repositoryID}, none, imageColumns)
}

func shareColumns(s *backup.ImageShare) columns {
	return columns{
		{"image_id", &s.ImageID},
		{"job_id", &s.JobID},
		{"schedule_id", &s.ScheduleID},
		{"group_id", &s.GroupID},
		{"run_id", &s.RunID},
		{"expires_at", millis{&s.ExpiresAt}},
		{"locked_until", millis{&s.LockedUntil}},
	}
}

func (t *tx) ImageShares(ctx context.Context, imageID string) ([]backup.ImageShare, error) {
	var all []backup.ImageShare
	var sample backup.ImageShare
	err := t.rows(ctx, "SELECT "+shareColumns(&sample).names("")+` FROM image_share WHERE image_id = $1
		ORDER BY job_id = (SELECT job_id FROM image WHERE id = $2) DESC, job_id`, []any{imageID, imageID}, func(scan func(...any) error) error {
		var s backup.ImageShare
		if err := scan(shareColumns(&s).dest()...); err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("shares of image %s: %w", imageID, err)
	}
	return all, nil
}

func (t *tx) SaveImageShare(ctx context.Context, s backup.ImageShare) error {
	c := shareColumns(&s)
	if _, err := t.exec(ctx, "INSERT INTO image_share ("+c.names("")+") VALUES ("+c.marks(1)+`) ON CONFLICT (image_id, job_id)
		DO UPDATE SET expires_at = excluded.expires_at, locked_until = excluded.locked_until`, c.dest()...); err != nil {
		return fmt.Errorf("share of image %s: %w", s.ImageID, err)
	}
	return nil
}
