package provider

import (
	"context"
	"errors"
	"slices"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var _ datasource.DataSourceWithConfigure = (*usageDataSource)(nil)

type usageDataSource struct{ dataSourceConnection }

func (d *usageDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "kura_usage"
}

func (d *usageDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "How long images were there and how large their disks are: to charge for them, and for `check` blocks that warn of growth.\n\n" +
			"An image counts in UTC hours, both ends rounded outward, from the start of its backup until it ends or is deleted: 24 hours from 00:10 are 25. " +
			"One that waits past its date for a newer one is not counted meanwhile; one that is gone stays in the account, for 13 months. " +
			"Failed backups count nothing. An image that several schedules share is its maker's.",
		Attributes: map[string]schema.Attribute{
			"from": schema.StringAttribute{
				Optional: true, CustomType: timetypes.RFC3339Type{},
				MarkdownDescription: "Hours from this time on, RFC 3339, rounded down to the hour. Left out, it is the beginning of the running month in UTC.",
			},
			"to": schema.StringAttribute{
				Optional: true, CustomType: timetypes.RFC3339Type{},
				MarkdownDescription: "Hours before this time, RFC 3339, rounded up to the hour. Left out, it is now. Hours to come are not counted.",
			},
			"group_by": schema.StringAttribute{
				Optional: true, Computed: true,
				MarkdownDescription: "What it is told for: `vm`, `schedule`, `group`, `repository`, `day` or `month`, those of UTC. Default `vm`.",
				Validators:          []validator.String{stringvalidator.OneOf("vm", "schedule", "group", "repository", "day", "month")},
			},
			"starts_at": schema.StringAttribute{Computed: true, MarkdownDescription: "The first hour that was looked at, RFC 3339."},
			"ends_at":   schema.StringAttribute{Computed: true, MarkdownDescription: "The end of the last one."},
			"items": schema.ListNestedAttribute{
				Computed: true, MarkdownDescription: "Most usage first; days and months in their order.",
				NestedObject: schema.NestedAttributeObject{Attributes: usageItemAttributes()},
			},
			"total": schema.SingleNestedAttribute{
				Computed: true, MarkdownDescription: "All images, each once, also where it was there on several days.", Attributes: usageSumAttributes(),
			},
			"vanished": schema.SingleNestedAttribute{
				Computed: true, MarkdownDescription: "The part of it that is of virtual machines which have left their vcenter.", Attributes: usageSumAttributes(),
			},
		},
	}
}

func usageSumAttributes() map[string]schema.Attribute {
	number := func(description string) schema.Int64Attribute {
		return schema.Int64Attribute{Computed: true, MarkdownDescription: description}
	}
	return map[string]schema.Attribute{
		"images":            number("Images that were there in at least one of the hours."),
		"image_hours":       number("Hours of all of them."),
		"gib_hours":         schema.Float64Attribute{Computed: true, MarkdownDescription: "GiB of provisioned disks times hours, summed over the images."},
		"provisioned_bytes": number("Size of the images' disks, each image once, however long it was there."),
		"read_bytes":        number("What was read of them."),
		"changed_bytes":     number("Of the blocks that differed from the image before."),
		"stored_bytes":      number("What the repository grew by: compressed, and only what no other image had."),
		"savings":           schema.Float64Attribute{Computed: true, MarkdownDescription: "The part of the provisioned bytes that did not have to be stored, `0.9` = nine tenths."},
	}
}

func usageItemAttributes() map[string]schema.Attribute {
	text := func(description string) schema.StringAttribute {
		return schema.StringAttribute{Computed: true, MarkdownDescription: description}
	}
	all := usageSumAttributes()
	all["id"] = text("Id of the virtual machine, schedule, group or repository; null = of none: made by hand, or of no group.")
	all["name"] = text("Its name; null where it has none any more.")
	all["vanished"] = schema.BoolAttribute{Computed: true, MarkdownDescription: "The virtual machine has left its vcenter."}
	all["starts_at"] = text("Beginning of the day or month, as far as it was asked for, RFC 3339 in UTC.")
	all["ends_at"] = text("Its end.")
	return all
}

func (d *usageDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var m usageModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() || !d.ready(&resp.Diagnostics) {
		return
	}
	p := m.params(&resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	u, err := found(d.conn.client.GetUsageWithResponse(ctx, &p))
	if err != nil {
		refusal{conn: d.conn, fallback: m.fault(err)}.add(&resp.Diagnostics, err)
		return
	}
	m.take(ctx, u, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

func (m usageModel) params(diags *diag.Diagnostics) api.GetUsageParams {
	p := api.GetUsageParams{GroupBy: textOf[api.UsageGroupBy](m.GroupBy)}
	if !m.From.IsNull() {
		p.From = instantOf(m.From, diags)
	}
	if !m.To.IsNull() {
		p.To = instantOf(m.To, diags)
	}
	return p
}

// fault is the attribute that the server refused.
func (m usageModel) fault(err error) path.Path {
	p, ok := errors.AsType[*api.Problem](err)
	if ok && slices.Contains([]string{"from", "to"}, p.Field) {
		return path.Root(p.Field)
	}
	return path.Root("group_by")
}
