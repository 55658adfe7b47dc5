package store

import (
	"context"
	"fmt"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var usages = noun{"usage", "entry in the account of usage"}

func usageColumns(e *backup.UsageEntry) columns {
	return columns{
		{"image_id", &e.ImageID},
		{"vm_id", &e.VMID},
		{"vm_name", &e.VMName},
		{"schedule_id", &e.ScheduleID},
		{"group_id", &e.GroupID},
		{"repository_id", &e.RepositoryID},
		{"provisioned", &e.Sizes.Provisioned},
		{"bytes_read", &e.Sizes.Read},
		{"bytes_changed", &e.Sizes.Changed},
		{"bytes_stored", &e.Sizes.Stored},
		{"since", millis{&e.Since}},
		{"until", millis{&e.Until}},
		{"gaps", asJSON{&e.Gaps}},
	}
}

// account keeps the account of usage beside the image, whoever changes that.
// deleted says that the image goes.
func (t *tx) account(ctx context.Context, i backup.Image, deleted bool) error {
	var e backup.UsageEntry
	c := usageColumns(&e)
	found, err := t.row(ctx, "SELECT "+c.names("")+" FROM usage WHERE project = $1 AND image_id = $2", []any{t.project, i.ID}, c.dest()...)
	if err != nil {
		return fmt.Errorf("usage of image %s: %w", i.ID, err)
	}
	switch {
	case !found && deleted:
		return nil
	case !found:
		var ok bool
		if e, ok = backup.NewUsage(i, t.now); !ok {
			return nil
		}
		all := append(columns{{"project", &t.project}}, c...)
		return t.insert(ctx, usages, all, fmt.Errorf("usage of image %s is there already", i.ID))
	}
	until := e.Until
	if deleted {
		e = e.Deleted(t.now)
	} else {
		e = e.Follow(i, t.now)
	}
	if e.Until.Equal(until) {
		return nil
	}
	if _, err := t.exec(ctx, "UPDATE usage SET until = $1, gaps = $2 WHERE project = $3 AND image_id = $4", e.Until, asJSON{&e.Gaps}, t.project, i.ID); err != nil {
		return fmt.Errorf("usage of image %s: %w", i.ID, err)
	}
	return nil
}

// EachUsage calls each for every image that counts between the two instants.
func (t *tx) EachUsage(ctx context.Context, from, to time.Time, each func(backup.UsageEntry) error) error {
	var sample backup.UsageEntry
	err := t.rows(ctx, "SELECT "+usageColumns(&sample).names("")+" FROM usage WHERE project = $1 AND until > $2 AND since < $3",
		[]any{t.project, from, to}, func(scan func(...any) error) error {
			var e backup.UsageEntry
			if err := scan(usageColumns(&e).dest()...); err != nil {
				return err
			}
			return each(e)
		})
	if err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	return nil
}

// ForgetUsage takes out what ended by that instant. An image that is still
// there, waiting for a newer one, keeps its entry: it may yet be given more time.
func (t *tx) ForgetUsage(ctx context.Context, before time.Time) error {
	if _, err := t.exec(ctx, "DELETE FROM usage WHERE project = $1 AND until <= $2 AND NOT EXISTS (SELECT 1 FROM image WHERE id = image_id)", t.project, before); err != nil {
		return fmt.Errorf("forget usage: %w", err)
	}
	return nil
}
