package provider

import (
	"context"
	"iter"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/datasource"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var restoreColumns = columns[api.Restore]{
	textColumn("id", "Id of the restore", func(r api.Restore) string { return r.ID }),
	textColumn("image_id", "Id of the image that it brings back", func(r api.Restore) string { return r.ImageID }),
	textColumn("kind", "`new_vm`, `in_place` or `disk`", func(r api.Restore) string {
		switch {
		case r.InPlace != nil:
			return "in_place"
		case r.Disk != nil:
			return "disk"
		}
		return "new_vm"
	}),
	textColumn("status", "State of its job", func(r api.Restore) string { return string(r.Status) }),
	textColumn("job_id", "Id of its job", func(r api.Restore) string { return r.JobID }),
	textColumn("description", "Free text", func(r api.Restore) string { return r.Description }),
	timeColumn("created_at", "When it was asked for", func(r api.Restore) time.Time { return r.CreatedAt }),
	timeColumn("started_at", "When it started", func(r api.Restore) time.Time { return r.StartedAt }),
	timeColumn("completed_at", "When it ended", func(r api.Restore) time.Time { return r.CompletedAt }),
	numberColumn("bytes_restored", "Bytes that it wrote", func(r api.Restore) int64 { return r.BytesRestored }),
	textColumn("restored_vm_name", "Name of the machine that it made or changed", func(r api.Restore) string {
		if r.RestoredVM == nil {
			return ""
		}
		return r.RestoredVM.Name
	}),
	textColumn("restored_vm_moid", "Managed object id of that machine", func(r api.Restore) string {
		if r.RestoredVM == nil {
			return ""
		}
		return r.RestoredVM.MOID
	}),
	textColumn("error_message", "Why it failed", func(r api.Restore) string {
		if r.Error == nil {
			return ""
		}
		return r.Error.Message
	}),
}

func newRestoresDataSource() datasource.DataSource {
	return &listing[api.Restore]{
		name: "kura_restores", rows: "restores", columns: restoreColumns, limit: 10000,
		about: "The restores that the server remembers, newest first. At most 10,000.",
		all: func(ctx context.Context, c *connection, _ func(string) string) iter.Seq2[api.Restore, error] {
			return api.All(func(cursor string) ([]api.Restore, string, error) {
				page, err := found(c.client.ListRestoresWithResponse(ctx, &api.ListRestoresParams{Limit: 1000, Cursor: cursor}))
				return page.Items, page.NextCursor, err
			})
		},
	}
}
