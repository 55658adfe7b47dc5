package store

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// GoodImages tells of the newest good image of each VM, copies included.
func (t *tx) GoodImages(ctx context.Context, vcenterID string) (map[string]backup.GoodImage, error) {
	out := map[string]backup.GoodImage{}
	err := t.rows(ctx, "SELECT vm_id, MAX(point_in_time), MAX(verified_at) FROM image WHERE project = $1 AND vcenter_id = $2 AND status = 'good' GROUP BY vm_id", []any{t.project, vcenterID}, func(scan func(...any) error) error {
		var id string
		var g backup.GoodImage
		if err := scan(&id, millis{&g.At}, millis{&g.VerifiedAt}); err != nil {
			return err
		}
		out[id] = g
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("good images of vcenter %s: %w", vcenterID, err)
	}
	return out, nil
}
