package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

var _ datasource.DataSourceWithConfigure = (*serverDataSource)(nil)

type serverDataSource struct{ dataSourceConnection }

type serverModel struct {
	Version          types.String `tfsdk:"version"`
	APIVersion       types.String `tfsdk:"api_version"`
	InstallationID   types.String `tfsdk:"installation_id"`
	RetentionProfile types.String `tfsdk:"retention_profile"`
	RetentionChoices types.Object `tfsdk:"retention_choices"`
}

type choicesModel struct {
	OneTime types.List `tfsdk:"one_time"`
	Daily   types.List `tfsdk:"daily"`
	Weekly  types.List `tfsdk:"weekly"`
	Monthly types.List `tfsdk:"monthly"`
}

func (choicesModel) types() map[string]attr.Type {
	days := types.ListType{ElemType: types.Int64Type}
	return map[string]attr.Type{"one_time": days, "daily": days, "weekly": days, "monthly": days}
}

func (d *serverDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "kura_server"
}

func (d *serverDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	text := func(description string) schema.StringAttribute {
		return schema.StringAttribute{Computed: true, MarkdownDescription: description}
	}
	days := func(kind string) schema.ListAttribute {
		return schema.ListAttribute{Computed: true, ElementType: types.Int64Type, MarkdownDescription: "For `" + kind + "` schedules."}
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "The server that the provider talks to, and which retentions it allows.",
		Attributes: map[string]schema.Attribute{
			"version":           text("Version of the server."),
			"api_version":       text("Version of its API."),
			"installation_id":   text("Id of the installation, which is in the name of each of its snapshots."),
			"retention_profile": text("`standard` or `general`."),
			"retention_choices": schema.SingleNestedAttribute{
				Computed: true, MarkdownDescription: "The values that `retention_days` of a schedule may have; an empty list = any.",
				Attributes: map[string]schema.Attribute{"one_time": days("one_time"), "daily": days("daily"), "weekly": days("weekly"), "monthly": days("monthly")},
			},
		},
	}
}

func (d *serverDataSource) Read(ctx context.Context, _ datasource.ReadRequest, resp *datasource.ReadResponse) {
	if !d.ready(&resp.Diagnostics) {
		return
	}
	s, err := found(d.conn.client.GetServerWithResponse(ctx))
	if err != nil {
		refusal{conn: d.conn, fallback: path.Root("version")}.add(&resp.Diagnostics, err)
		return
	}
	c := s.RetentionChoices
	choices := choicesModel{
		OneTime: numbers(ctx, c.OneTime, &resp.Diagnostics), Daily: numbers(ctx, c.Daily, &resp.Diagnostics),
		Weekly: numbers(ctx, c.Weekly, &resp.Diagnostics), Monthly: numbers(ctx, c.Monthly, &resp.Diagnostics),
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, serverModel{
		Version: types.StringValue(s.Version), APIVersion: types.StringValue(s.APIVersion), InstallationID: types.StringValue(s.InstallationID),
		RetentionProfile: types.StringValue(string(s.RetentionProfile)), RetentionChoices: object(ctx, &choices, &resp.Diagnostics),
	})...)
}

func numbers(ctx context.Context, v []int, diags *diag.Diagnostics) types.List {
	if v == nil {
		v = []int{}
	}
	l, more := types.ListValueFrom(ctx, types.Int64Type, v)
	diags.Append(more...)
	return l
}
