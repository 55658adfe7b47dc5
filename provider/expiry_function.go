package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/function"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var _ function.Function = computeExpiry{}

// computeExpiry tells until when an image is kept.
type computeExpiry struct{}

// longestRetention is the most days that any retention profile allows.
const longestRetention = 65536

func (computeExpiry) Metadata(_ context.Context, _ function.MetadataRequest, resp *function.MetadataResponse) {
	resp.Name = "compute_expiry"
}

func (computeExpiry) Definition(_ context.Context, _ function.DefinitionRequest, resp *function.DefinitionResponse) {
	resp.Definition = function.Definition{
		Summary: "Until when an image is kept",
		MarkdownDescription: "The instant at which an image expires: whole days of 24 hours from the start of its backup, RFC 3339 with the offset that was given. " +
			"Null for 0 days, which keep it for ever.",
		Parameters: []function.Parameter{
			function.StringParameter{Name: "started_at", MarkdownDescription: "When the backup started, RFC 3339."},
			function.Int64Parameter{Name: "retention_days", MarkdownDescription: fmt.Sprintf("Days for which the image is kept, 0 to %d.", longestRetention)},
		},
		Return: function.StringReturn{},
	}
}

func (computeExpiry) Run(ctx context.Context, req function.RunRequest, resp *function.RunResponse) {
	var started string
	var days int64
	if resp.Error = req.Arguments.Get(ctx, &started, &days); resp.Error != nil {
		return
	}
	t, err := time.Parse(time.RFC3339, started)
	if err != nil {
		resp.Error = function.NewArgumentFuncError(0, fmt.Sprintf("started_at is written as 2026-12-01T02:00:00+09:00, got %q.", started))
		return
	}
	if days < 0 || days > longestRetention {
		resp.Error = function.NewArgumentFuncError(1, fmt.Sprintf("retention_days must be 0 to %d, got %d.", longestRetention, days))
		return
	}
	expires := types.StringNull()
	if e := backup.ExpiresAt(t, int(days)); !e.IsZero() {
		expires = types.StringValue(e.Format(time.RFC3339))
	}
	resp.Error = resp.Result.Set(ctx, expires)
}
