package provider

import (
	"context"
	"iter"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var jobColumns = columns[api.Job]{
	textColumn("id", "Id of the job", func(j api.Job) string { return j.ID }),
	textColumn("kind", "What it does, such as `backup`, `restore` or `verify`", func(j api.Job) string { return string(j.Kind) }),
	textColumn("state", "`queued`, `running`, `succeeded`, `failed`, `cancelled`, `skipped` or `missed`", func(j api.Job) string { return string(j.State) }),
	textColumn("virtual_machine_id", "Id of its machine", func(j api.Job) string {
		if j.VirtualMachine == nil {
			return ""
		}
		return j.VirtualMachine.ID
	}),
	textColumn("virtual_machine_name", "Name of its machine", func(j api.Job) string {
		if j.VirtualMachine == nil {
			return ""
		}
		return j.VirtualMachine.Name
	}),
	textColumn("vcenter_id", "Id of its vcenter", func(j api.Job) string { return j.VCenterID }),
	textColumn("run_id", "Id of its run", func(j api.Job) string { return j.RunID }),
	textColumn("image_id", "Id of the image that it made", func(j api.Job) string { return j.ImageID }),
	textColumn("restore_id", "Id of its restore", func(j api.Job) string { return j.RestoreID }),
	timeColumn("created_at", "When it was asked for", func(j api.Job) time.Time { return j.CreatedAt }),
	timeColumn("started_at", "When it started", func(j api.Job) time.Time { return j.StartedAt }),
	timeColumn("ended_at", "When it ended", func(j api.Job) time.Time { return j.EndedAt }),
	numberColumn("duration_seconds", "Seconds from its start to its end; 0 while it runs", func(j api.Job) int64 {
		if j.StartedAt.IsZero() || j.EndedAt.IsZero() {
			return 0
		}
		return int64(j.EndedAt.Sub(j.StartedAt).Seconds())
	}),
	numberColumn("late_by_seconds", "Seconds by which it started late", func(j api.Job) int64 { return j.LateBySeconds }),
	textColumn("error_code", "Why it failed, as a code", func(j api.Job) string {
		if j.Error == nil {
			return ""
		}
		return string(j.Error.Code)
	}),
	textColumn("error_message", "Why it failed", func(j api.Job) string {
		if j.Error == nil {
			return ""
		}
		return j.Error.Message
	}),
	textsColumn("messages", "What is worth knowing about it", func(j api.Job) []string { return j.Messages }),
}

// jobWindows are how far back the history is told.
var jobWindows = map[string]time.Duration{"1d": 24 * time.Hour, "7d": 7 * 24 * time.Hour, "30d": 30 * 24 * time.Hour}

func newJobsDataSource() datasource.DataSource {
	return &listing[api.Job]{
		name: "kura_backup_jobs", rows: "jobs", columns: jobColumns, limit: 10000,
		about: "The history of jobs, newest first: what ran, when, for how long, and why it failed. At most 10,000.",
		filters: map[string]schema.StringAttribute{
			"window":             choice("How far back: `1d`, `7d`, `30d` or `all`. Default `7d`.", "1d", "7d", "30d", "all"),
			"kind":               choice("Only jobs of this kind.", "backup", "restore", "verify", "copy", "delete", "collect", "sync", "lock", "catalogue", "freeze"),
			"state":              choice("Only jobs in this state.", "queued", "running", "succeeded", "failed", "cancelled", "skipped", "missed"),
			"virtual_machine_id": filter("Only jobs of this machine."),
			"vcenter_id":         filter("Only jobs of this vcenter."),
			"run_id":             filter("Only jobs of this run."),
		},
		all: func(ctx context.Context, c *connection, given func(string) string) iter.Seq2[api.Job, error] {
			p := api.ListJobsParams{
				Kind: api.JobKind(given("kind")), State: api.JobState(given("state")), RunID: given("run_id"),
				VirtualMachineID: given("virtual_machine_id"), VCenterID: given("vcenter_id"), Limit: 1000,
			}
			if window := given("window"); window != "all" {
				back, ok := jobWindows[window]
				if !ok {
					back = jobWindows["7d"]
				}
				p.CreatedAfter = time.Now().Add(-back)
			}
			return api.All(func(cursor string) ([]api.Job, string, error) {
				p.Cursor = cursor
				page, err := found(c.client.ListJobsWithResponse(ctx, &p))
				return page.Items, page.NextCursor, err
			})
		},
	}
}
