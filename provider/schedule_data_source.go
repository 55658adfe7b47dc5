package provider

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// scheduleFacts is a schedule and, where it was asked for, its last run.
type scheduleFacts struct {
	api.BackupSchedule
	last api.Run
}

var scheduleColumns = columns[scheduleFacts]{
	textColumn("id", "Id of the schedule", func(s scheduleFacts) string { return s.ID }),
	textColumn("name", "Its name", func(s scheduleFacts) string { return s.Name }),
	textColumn("description", "Free text", func(s scheduleFacts) string { return s.Description }),
	switchColumn("enabled", "Whether it runs", func(s scheduleFacts) bool { return s.Enabled == nil || *s.Enabled }),
	textColumn("group_id", "Id of the group that it backs up", func(s scheduleFacts) string { return s.GroupID }),
	textColumn("virtual_machine_id", "Id of the machine that it backs up", func(s scheduleFacts) string { return s.VirtualMachineID }),
	textColumn("start_time", "Hour at which it starts", func(s scheduleFacts) string { return s.StartTime }),
	textColumn("time_zone", "IANA time zone of that hour", func(s scheduleFacts) string { return s.TimeZone }),
	textColumn("summary", "When it runs, as a sentence", func(s scheduleFacts) string { return s.Summary }),
	timeColumn("next_run_at", "When it runs next; null = never again", func(s scheduleFacts) time.Time { return s.NextRunAt }),
	numberColumn("retention_days", "Days for which its images are kept; 0 = for ever", func(s scheduleFacts) int64 { return int64(s.RetentionDays) }),
	textColumn("consistency", "What it asks for: `crash`, `app`, `app_required` or `offline`", func(s scheduleFacts) string { return string(s.Consistency) }),
	textColumn("repository", "Name of the repository of its images", func(s scheduleFacts) string { return s.Repository }),
	numberColumn("seats", "Seats that it has in each of its hours", func(s scheduleFacts) int64 { return int64(s.Seats) }),
	numberColumn("unbooked_seats", "Machines of its group that have no seat", func(s scheduleFacts) int64 { return int64(s.UnbookedSeats) }),
	labelsColumn(func(s scheduleFacts) map[string]string { return s.Labels }),
}

var lastRunColumns = columns[scheduleFacts]{
	textColumn("last_run_id", "Id of its newest run", func(s scheduleFacts) string { return s.last.ID }),
	textColumn("last_run_state", "How its newest run is or ended: `queued`, `running`, `succeeded`, `partial`, `failed` or `missed`", func(s scheduleFacts) string { return string(s.last.State) }),
	timeColumn("last_run_at", "When its newest run was made", func(s scheduleFacts) time.Time { return s.last.CreatedAt }),
}

func newScheduleDataSource() datasource.DataSource {
	return &lookup[scheduleFacts]{
		noun: "schedule", columns: slices.Concat(scheduleColumns, lastRunColumns),
		about: "A schedule with what changes by itself: its next run and how the last one ended. By its name or its id.",
		get: func(ctx context.Context, c *connection, id string) (scheduleFacts, error) {
			s, err := found(c.client.GetBackupScheduleWithResponse(ctx, id))
			if err != nil {
				return scheduleFacts{}, err
			}
			return c.withLastRun(ctx, s)
		},
		named: func(ctx context.Context, c *connection, name string) (all []scheduleFacts, err error) {
			page, err := found(c.client.ListBackupSchedulesWithResponse(ctx, &api.ListBackupSchedulesParams{Name: name}))
			if err != nil || len(page.Items) != 1 {
				return make([]scheduleFacts, len(page.Items)), err
			}
			s, err := c.withLastRun(ctx, page.Items[0])
			return []scheduleFacts{s}, err
		},
	}
}

func (c *connection) withLastRun(ctx context.Context, s api.BackupSchedule) (scheduleFacts, error) {
	runs, err := found(c.client.ListRunsWithResponse(ctx, &api.ListRunsParams{ScheduleID: s.ID, Limit: 1}))
	facts := scheduleFacts{BackupSchedule: s}
	if err == nil && len(runs.Items) > 0 {
		facts.last = runs.Items[0]
	}
	return facts, err
}

func newSchedulesDataSource() datasource.DataSource {
	return &listing[scheduleFacts]{
		name: "kura_backup_schedules", rows: "schedules", columns: scheduleColumns,
		about:   "The schedules that all given filters choose, oldest first.",
		filters: map[string]schema.StringAttribute{"group_id": filter("Only schedules of this group."), "virtual_machine_id": filter("Only schedules of this machine alone.")},
		all: func(ctx context.Context, c *connection, given func(string) string) iter.Seq2[scheduleFacts, error] {
			return api.All(func(cursor string) (all []scheduleFacts, next string, err error) {
				page, err := found(c.client.ListBackupSchedulesWithResponse(ctx, &api.ListBackupSchedulesParams{
					GroupID: given("group_id"), VirtualMachineID: given("virtual_machine_id"), Limit: 1000, Cursor: cursor,
				}))
				for _, s := range page.Items {
					all = append(all, scheduleFacts{BackupSchedule: s})
				}
				return all, page.NextCursor, err
			})
		},
	}
}

// filter is an optional attribute that chooses by an id.
func filter(about string) schema.StringAttribute {
	return schema.StringAttribute{MarkdownDescription: about, Validators: []validator.String{stringvalidator.LengthBetween(1, 128)}}
}

// choice is a filter that has few values.
func choice(about string, values ...string) schema.StringAttribute {
	return schema.StringAttribute{MarkdownDescription: about, Validators: []validator.String{stringvalidator.OneOf(values...)}}
}
