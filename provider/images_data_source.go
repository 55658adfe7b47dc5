package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

var _ datasource.DataSourceWithConfigure = (*imagesDataSource)(nil)

type imagesDataSource struct{ dataSourceConnection }

type imagesModel struct {
	VirtualMachineID   types.String      `tfsdk:"virtual_machine_id"`
	VirtualMachineName types.String      `tfsdk:"virtual_machine_name"`
	GroupID            types.String      `tfsdk:"group_id"`
	ScheduleID         types.String      `tfsdk:"schedule_id"`
	RunID              types.String      `tfsdk:"run_id"`
	VCenterID          types.String      `tfsdk:"vcenter_id"`
	Repository         types.String      `tfsdk:"repository"`
	Status             types.String      `tfsdk:"status"`
	CreatedAfter       timetypes.RFC3339 `tfsdk:"created_after"`
	CreatedBefore      timetypes.RFC3339 `tfsdk:"created_before"`
	Labels             types.Map         `tfsdk:"labels"`
	Limit              types.Int64       `tfsdk:"limit"`
	Images             types.List        `tfsdk:"images"`
}

func (m imagesModel) filter() imageFilter {
	return imageFilter{
		VirtualMachineID: m.VirtualMachineID, VirtualMachineName: m.VirtualMachineName, GroupID: m.GroupID, ScheduleID: m.ScheduleID, RunID: m.RunID,
		VCenterID: m.VCenterID, Repository: m.Repository, Status: m.Status, CreatedAfter: m.CreatedAfter, CreatedBefore: m.CreatedBefore, Labels: m.Labels,
	}
}

func (d *imagesDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "kura_backup_images"
}

func (d *imagesDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	attributes := filterAttributes()
	attributes["limit"] = schema.Int64Attribute{
		Optional: true, MarkdownDescription: "How many images at most, the newest ones. Left out: all.",
		Validators: []validator.Int64{int64validator.AtLeast(1)},
	}
	attributes["images"] = schema.ListNestedAttribute{
		Computed: true, MarkdownDescription: "The images, newest first by `point_in_time`.",
		NestedObject: schema.NestedAttributeObject{Attributes: imageAttributes()},
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "The images that all given filters choose, newest first. It is no error when there is none.",
		Attributes:          attributes,
	}
}

func (d *imagesDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var m imagesModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() || !d.ready(&resp.Diagnostics) {
		return
	}
	params := m.filter().wire(ctx, &resp.Diagnostics)
	limit := int(m.Limit.ValueInt64())
	params.Limit = min(max(limit, 0), 1000)
	var images []imageModel
	for i, err := range d.conn.images(ctx, params) {
		if err != nil {
			refusal{conn: d.conn, fallback: path.Root("images")}.add(&resp.Diagnostics, err)
			return
		}
		if images = append(images, imageOf(ctx, i, &resp.Diagnostics)); len(images) == limit {
			break
		}
	}
	m.Images = rows(ctx, images, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}
