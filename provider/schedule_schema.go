package provider

import (
	"context"
	"maps"

	"github.com/hashicorp/terraform-plugin-framework-validators/boolvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

func (r *scheduleResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	attributes := scheduleWhat()
	maps.Copy(attributes, scheduleWhen())
	maps.Copy(attributes, scheduleHow())
	attributes["timeouts"] = timeoutsAttribute(ctx, changeTimeouts)
	resp.Schema = schema.Schema{
		MarkdownDescription: "When and how a group or a virtual machine is backed up. A plan already tells whether the hour has room: " +
			"what would be refused is refused there, with hours and days that are free.\n\n" +
			"Every change is made in place, also from daily to weekly. Destroying a schedule deletes no image.\n\n" +
			"Seats move within one apply: what one schedule gives up by its change, its destruction or `enabled = false`, another one takes, and schedules of full hours change places. " +
			"Terraform must handle those schedules at the same time for it (`-parallelism`, 10 if nothing else is said); with `-parallelism=1` put such moves into two applies.",
		Attributes: attributes,
	}
}

// scheduleWhat are the attributes that say what is backed up.
func scheduleWhat() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"id":          idAttribute(),
		"name":        nameAttribute("schedule"),
		"description": descriptionAttribute(),
		"enabled":     switchAttribute(true, "A disabled schedule does not run and gives its seats back; enabling it books them again."),
		"group_id": schema.StringAttribute{
			Optional: true, MarkdownDescription: "Id of the group that is backed up. Exactly one of `group_id` and `virtual_machine_id`.",
			Validators: []validator.String{stringvalidator.LengthBetween(1, 128)},
		},
		"virtual_machine_id": schema.StringAttribute{
			Optional: true, MarkdownDescription: "Id of the virtual machine that is backed up.",
			Validators: []validator.String{stringvalidator.LengthBetween(1, 128)},
		},
		"backup_type":         imageTypeAttribute(),
		"labels":              labelsAttribute(),
		"deletion_protection": switchAttribute(false, "The server refuses to delete the schedule."),
		"seats":               schema.Int64Attribute{Computed: true, MarkdownDescription: "Seats that are booked in each of its start hours together."},
		"unbooked_seats": schema.Int64Attribute{
			Computed:            true,
			MarkdownDescription: "Machines by which the group has grown and for which the hours had no room: they start only while fewer backups run than the hour has seats.",
		},
		"created_at": createdAtAttribute(),
	}
}

// scheduleWhen are the attributes that say when it is backed up.
func scheduleWhen() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"start_time": schema.StringAttribute{
			Optional: true, Computed: true, Validators: []validator.String{startTime()},
			MarkdownDescription: "Hour in which backups start, `HH:00` in `time_zone`. The minute is the server's choice. Left out, the server picks the hour with the most room, and keeps it.",
			PlanModifiers:       []planmodifier.String{keepStartTime{}},
		},
		"start_window": startWindowAttribute(),
		"time_zone": schema.StringAttribute{
			Optional: true, Computed: true, Validators: []validator.String{timeZone{}},
			MarkdownDescription: "IANA time zone of hours and days, such as `Asia/Tokyo`. Left out, it is the vcenter's at first, and stays.",
			PlanModifiers:       []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
		},
		"one_time": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "One run. Exactly one of `one_time`, `daily`, `weekly` and `monthly`.",
			Attributes: map[string]schema.Attribute{
				"date": schema.StringAttribute{Required: true, MarkdownDescription: "Day, `YYYY-MM-DD`.", Validators: []validator.String{date{}}},
			},
		},
		"daily": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "Every day; `{}` starts at once.",
			Attributes: map[string]schema.Attribute{
				"start_date": schema.StringAttribute{Optional: true, MarkdownDescription: "First day, `YYYY-MM-DD`.", Validators: []validator.String{date{}}},
			},
		},
		"weekly": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "On days of the week.",
			Attributes: map[string]schema.Attribute{"days_of_week": daysOfWeekAttribute(true)},
		},
		"monthly":         monthlyAttribute(),
		"window_hours":    numberAttribute(1, "Consecutive hours, from `start_time` on, over which the machines may start.", int64validator.Between(1, 24)),
		"duration_hours":  numberAttribute(1, "Hours for which a machine takes a seat from its start on.", int64validator.Between(1, 24)),
		"max_delay_hours": numberAttribute(6, "How long after its window a backup may still start; 0 = never late.", int64validator.Between(0, 168)),
	}
}

// scheduleHow are the attributes that say how it is backed up and kept.
func scheduleHow() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"retention_days": schema.Int64Attribute{
			Required: true, Validators: []validator.Int64{int64validator.Between(0, 65536)},
			MarkdownDescription: "Days for which images are kept, from the start of the backup. The standard retention profile allows 1, 31 or 366 for `one_time`, 1 to 8 for `daily`, " +
				"7, 14, ... 56 for `weekly` and 31, 62, ... 248 for `monthly`; the general one any number from 1 to 65536, or 0 for never.",
		},
		"extended_retention":                 extendedRetentionAttribute(),
		"apply_retention_to_existing_images": switchAttribute(false, "A changed retention also reaches the images that are there."),
		"lock":                               switchAttribute(false, "Nobody can delete its images before they expire."),
		"consistency": choiceAttribute("crash", "`app` quiesces the guest and falls back to `crash` with a message, `app_required` fails instead, `offline` shuts the guest down for the snapshot.",
			string(api.ConsistencyCrash), string(api.ConsistencyApp), string(api.ConsistencyAppRequired), string(api.ConsistencyOffline)),
		"disks": disksAttribute(),
		"unprotectable_disks": choiceAttribute("fail", "What to do with disks that vSphere cannot snapshot: `fail`, or `skip` them with a message on the image.",
			string(api.UnprotectableDisksFail), string(api.UnprotectableDisksSkip)),
		"repository": schema.StringAttribute{
			Optional: true, Computed: true, MarkdownDescription: "Name of the repository that gets the images. Left out, it is the server's default.",
			Validators:    []validator.String{stringvalidator.UTF8LengthBetween(1, 128)},
			PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
		},
		"copy_to": copyToAttribute(),
	}
}

func imageTypeAttribute() schema.Attribute {
	a := choiceAttribute("image", "What is backed up: only `image`, the whole machine.")
	a.Validators = []validator.String{imageOnly{}}
	return a
}

func startWindowAttribute() schema.Attribute {
	hour := func(standard, description string) schema.StringAttribute {
		return schema.StringAttribute{
			Optional: true, Computed: true, Default: stringdefault.StaticString(standard),
			MarkdownDescription: description + " Default `" + standard + "`.", Validators: []validator.String{startTime()},
		}
	}
	return schema.SingleNestedAttribute{
		Optional: true, MarkdownDescription: "Hours among which the server picks where `start_time` is left out.",
		Attributes: map[string]schema.Attribute{
			"earliest": hour(firstHour, "First hour, `HH:00`."),
			"latest":   hour(lastHour, "Last hour, `HH:00`."),
		},
	}
}

// daysOfWeekAttribute is required where it is the only way to name days.
func daysOfWeekAttribute(required bool) schema.Attribute {
	return schema.SetAttribute{
		Required: required, Optional: !required, ElementType: types.StringType, MarkdownDescription: "Days of the week: `sunday` to `saturday`.",
		Validators: []validator.Set{setvalidator.SizeAtLeast(1), setvalidator.ValueStringsAre(stringvalidator.OneOf(daysOfWeek...))},
	}
}

// The words of days and weeks, in their order.
var (
	daysOfWeek   = []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}
	weeksOfMonth = []string{"first", "second", "third", "fourth", "fifth", "last"}
)

func daysOfMonthAttribute() schema.Attribute {
	return schema.SetAttribute{
		Optional: true, ElementType: types.Int64Type, MarkdownDescription: "Days of the month, 1 to 31.",
		Validators: []validator.Set{setvalidator.SizeAtLeast(1), setvalidator.ValueInt64sAre(int64validator.Between(1, 31))},
	}
}

func lastDayAttribute() schema.Attribute {
	return schema.BoolAttribute{
		Optional: true, MarkdownDescription: "`true` = the last day of the month.",
		Validators: []validator.Bool{boolvalidator.Equals(true)},
	}
}

func weekDayAttribute() schema.Attribute {
	return schema.SingleNestedAttribute{
		Optional: true, MarkdownDescription: "A weekday of the month, such as the second Wednesday.",
		Attributes: map[string]schema.Attribute{
			"week_of_month": schema.StringAttribute{
				Required: true, MarkdownDescription: "`first` to `fifth`, or `last`. A month without a fifth one has no run.",
				Validators: []validator.String{stringvalidator.OneOf(weeksOfMonth...)},
			},
			"day_of_week": schema.StringAttribute{
				Required: true, MarkdownDescription: "`sunday` to `saturday`.", Validators: []validator.String{stringvalidator.OneOf(daysOfWeek...)},
			},
		},
	}
}

func monthlyAttribute() schema.Attribute {
	return schema.SingleNestedAttribute{
		Optional: true, MarkdownDescription: "On days of the month: exactly one of `days_of_month`, `last_day` and `week_day_of_month`.",
		Validators: []validator.Object{oneForm{"days_of_month", "last_day", "week_day_of_month"}},
		Attributes: map[string]schema.Attribute{
			"days_of_month":     daysOfMonthAttribute(),
			"last_day":          lastDayAttribute(),
			"week_day_of_month": weekDayAttribute(),
			"short_months": schema.StringAttribute{
				Optional: true, Computed: true, MarkdownDescription: "What a month that lacks the day does: `skip` (no run) or `last_day`. Goes with `days_of_month`, where its default is `skip`.",
				PlanModifiers: []planmodifier.String{shortMonths{}},
				Validators: []validator.String{
					stringvalidator.OneOf(string(api.ShortMonthsSkip), string(api.ShortMonthsLastDay)),
					stringvalidator.AlsoRequires(path.MatchRelative().AtParent().AtName("days_of_month")),
				},
			},
		},
	}
}

func extendedRetentionAttribute() schema.Attribute {
	return schema.SetNestedAttribute{
		Optional: true, MarkdownDescription: "Keeps the images of some days longer, so that one image a night serves the daily, the weekly and the monthly line. Each names its days by exactly one of `days_of_week`, `days_of_month`, `last_day` and `week_day_of_month`.",
		Validators: []validator.Set{setvalidator.SizeAtMost(32)},
		NestedObject: schema.NestedAttributeObject{
			Validators: []validator.Object{oneForm{"days_of_week", "days_of_month", "last_day", "week_day_of_month"}},
			Attributes: map[string]schema.Attribute{
				"days_of_week":      daysOfWeekAttribute(false),
				"days_of_month":     daysOfMonthAttribute(),
				"last_day":          lastDayAttribute(),
				"week_day_of_month": weekDayAttribute(),
				"retention_days": schema.Int64Attribute{
					Required: true, MarkdownDescription: "Days for which those images are kept, more than the schedule's `retention_days`; 0 = never (general profile).",
					Validators: []validator.Int64{int64validator.Between(0, 65536)},
				},
			},
		},
	}
}

func disksAttribute() schema.Attribute {
	labels := func(description, other string) schema.SetAttribute {
		return schema.SetAttribute{
			Optional: true, ElementType: types.StringType, MarkdownDescription: description,
			Validators: []validator.Set{
				setvalidator.SizeBetween(1, 256), setvalidator.ValueStringsAre(stringvalidator.UTF8LengthBetween(1, 256)),
				setvalidator.ConflictsWith(path.MatchRelative().AtParent().AtName(other)),
			},
		}
	}
	return schema.SingleNestedAttribute{
		Optional: true, MarkdownDescription: "Which disks are backed up. Left out: all, also those attached later.",
		Attributes: map[string]schema.Attribute{
			"include_labels": labels("Only disks with these labels, such as `Hard disk 1`.", "exclude_labels"),
			"exclude_labels": labels("All disks but those with these labels.", "include_labels"),
		},
	}
}
