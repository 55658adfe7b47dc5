package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var _ datasource.DataSourceWithConfigure = (*protectionDataSource)(nil)

type protectionDataSource struct{ dataSourceConnection }

type protectionModel struct {
	VCenterID       types.String `tfsdk:"vcenter_id"`
	MaxAgeHours     types.Int64  `tfsdk:"max_age_hours"`
	AllProtected    types.Bool   `tfsdk:"all_protected"`
	Unprotected     types.List   `tfsdk:"unprotected"`
	Outdated        types.List   `tfsdk:"outdated"`
	VirtualMachines types.List   `tfsdk:"virtual_machines"`
}

var protectionColumns = columns[api.VMProtection]{
	textColumn("id", "Id of the machine", func(p api.VMProtection) string { return p.VirtualMachine.ID }),
	textColumn("name", "Its name", func(p api.VMProtection) string { return p.VirtualMachine.Name }),
	textColumn("vcenter_id", "Id of its vcenter", func(p api.VMProtection) string { return p.VCenterID }),
	switchColumn("protected", "An enabled schedule backs it up from now on, and nothing of it cannot be backed up", func(p api.VMProtection) bool { return p.Protected }),
	textsColumn("schedules", "Names of the enabled schedules that back it up", func(p api.VMProtection) (all []string) {
		for _, s := range p.Schedules {
			all = append(all, s.Name)
		}
		return all
	}),
	textColumn("unprotectable_reason", "Why it or a disk of it cannot be backed up", func(p api.VMProtection) string { return p.UnprotectableReason }),
	timeColumn("last_good_at", "Point in time of its newest good image; null = it has none", func(p api.VMProtection) time.Time { return p.LastGoodAt }),
	timeColumn("last_verified_at", "When a good image of it was last verified", func(p api.VMProtection) time.Time { return p.LastVerifiedAt }),
}

func (d *protectionDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "kura_protection"
}

func (d *protectionDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	names := func(about string) schema.Attribute {
		return schema.ListAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: about}
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "What protects each virtual machine, for `check` blocks and `terraform test`: a pipeline turns red when a machine has no schedule or no young image.",
		Attributes: map[string]schema.Attribute{
			"vcenter_id": schema.StringAttribute{
				Optional: true, MarkdownDescription: "Only machines of this vcenter. Left out: all.",
				Validators: []validator.String{stringvalidator.LengthBetween(1, 128)},
			},
			"max_age_hours": schema.Int64Attribute{
				Optional: true, MarkdownDescription: "How old the newest good image of a machine may be before it counts as outdated.",
				Validators: []validator.Int64{int64validator.AtLeast(1)},
			},
			"all_protected": schema.BoolAttribute{Computed: true, MarkdownDescription: "No machine is unprotected or outdated."},
			"unprotected":   names("Names of the machines that no enabled schedule backs up, or that cannot be backed up whole."),
			"outdated":      names("Names of the machines whose newest good image is older than `max_age_hours`, or that have none; empty without `max_age_hours`."),
			"virtual_machines": schema.ListNestedAttribute{
				Computed: true, MarkdownDescription: "All machines, by vcenter and name; templates are left out.",
				NestedObject: schema.NestedAttributeObject{Attributes: protectionColumns.attributes()},
			},
		},
	}
}

func (d *protectionDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var m protectionModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() || !d.ready(&resp.Diagnostics) {
		return
	}
	all, err := found(d.conn.client.ListProtectionWithResponse(ctx, &api.ListProtectionParams{VCenterID: m.VCenterID.ValueString()}))
	if err != nil {
		refusal{conn: d.conn, fallback: path.Root("vcenter_id")}.add(&resp.Diagnostics, err)
		return
	}
	oldest := time.Now().Add(-time.Duration(m.MaxAgeHours.ValueInt64()) * time.Hour)
	unprotected, outdated := []string{}, []string{}
	for _, p := range all.Items {
		if !p.Protected {
			unprotected = append(unprotected, p.VirtualMachine.Name)
		}
		if !m.MaxAgeHours.IsNull() && p.LastGoodAt.Before(oldest) {
			outdated = append(outdated, p.VirtualMachine.Name)
		}
	}
	m.AllProtected = types.BoolValue(len(unprotected)+len(outdated) == 0)
	for to, names := range map[*types.List][]string{&m.Unprotected: unprotected, &m.Outdated: outdated} {
		l, more := types.ListValueFrom(ctx, types.StringType, names)
		resp.Diagnostics.Append(more...)
		*to = l
	}
	m.VirtualMachines = protectionColumns.list(all.Items, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}
