package provider

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework-validators/boolvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/datasourcevalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var (
	_ datasource.DataSourceWithConfigure        = (*imageDataSource)(nil)
	_ datasource.DataSourceWithConfigValidators = (*imageDataSource)(nil)
)

type imageDataSource struct{ dataSourceConnection }

type imageLookupModel struct {
	ID                 types.String      `tfsdk:"id"`
	MostRecent         types.Bool        `tfsdk:"most_recent"`
	NearestTo          timetypes.RFC3339 `tfsdk:"nearest_to"`
	Direction          types.String      `tfsdk:"direction"`
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
	Image              types.Object      `tfsdk:"image"`
}

func (m imageLookupModel) filter() imageFilter {
	return imageFilter{
		VirtualMachineID: m.VirtualMachineID, VirtualMachineName: m.VirtualMachineName, GroupID: m.GroupID, ScheduleID: m.ScheduleID, RunID: m.RunID,
		VCenterID: m.VCenterID, Repository: m.Repository, Status: m.Status, CreatedAfter: m.CreatedAfter, CreatedBefore: m.CreatedBefore, Labels: m.Labels,
	}
}

// The sides of nearest_to.
const (
	before = "before"
	after  = "after"
)

func (d *imageDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "kura_backup_image"
}

func (d *imageDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	attributes := filterAttributes()
	attributes["id"] = schema.StringAttribute{
		Optional: true, Computed: true, MarkdownDescription: "Id of the image: given, it looks up that one; otherwise it is that of the image found.",
		Validators: []validator.String{stringvalidator.LengthBetween(1, 128)},
	}
	attributes["most_recent"] = schema.BoolAttribute{
		Optional: true, MarkdownDescription: "`true` = the newest of the images that the filters choose. Without it, and without `nearest_to`, they must choose exactly one.",
		Validators: []validator.Bool{boolvalidator.ConflictsWith(path.MatchRoot("nearest_to"), path.MatchRoot("id"))},
	}
	attributes["nearest_to"] = schema.StringAttribute{
		Optional: true, CustomType: timetypes.RFC3339Type{},
		MarkdownDescription: "Of the images that the filters choose, the one whose `point_in_time` is nearest to this time, RFC 3339, on the side that `direction` names.",
		Validators:          []validator.String{stringvalidator.ConflictsWith(path.MatchRoot("id"))},
	}
	attributes["direction"] = schema.StringAttribute{
		Optional: true, MarkdownDescription: "`before` = the last image at or before `nearest_to`; `after` = the first one at or after it. Default `before`.",
		Validators: []validator.String{stringvalidator.OneOf(before, after), stringvalidator.AlsoRequires(path.MatchRoot("nearest_to"))},
	}
	attributes["image"] = schema.SingleNestedAttribute{Computed: true, MarkdownDescription: "The image.", Attributes: imageAttributes()}
	resp.Schema = schema.Schema{
		MarkdownDescription: "One image: by its id, the newest, or the nearest to a time. Unless `status` says otherwise, only images that can be restored (`good` or `partial`) are looked at. " +
			"It is an error when there is none; to ask whether there is one, use `kura_backup_images`.",
		Attributes: attributes,
	}
}

func (d *imageDataSource) ConfigValidators(context.Context) []datasource.ConfigValidator {
	var all []datasource.ConfigValidator
	for _, name := range sorted(filterAttributes()) {
		all = append(all, datasourcevalidator.Conflicting(path.MatchRoot("id"), path.MatchRoot(name)))
	}
	return all
}

func (d *imageDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var m imageLookupModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() || !d.ready(&resp.Diagnostics) {
		return
	}
	i, ok := d.find(ctx, m, &resp.Diagnostics)
	if !ok || resp.Diagnostics.HasError() {
		return
	}
	image := imageOf(ctx, i, &resp.Diagnostics)
	m.ID, m.Image = image.ID, object(ctx, &image, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// find returns the image that m asks for; it has told why when there is none.
func (d *imageDataSource) find(ctx context.Context, m imageLookupModel, diags *diag.Diagnostics) (api.BackupImage, bool) {
	if !m.ID.IsNull() {
		i, err := found(d.conn.client.GetBackupImageWithResponse(ctx, m.ID.ValueString()))
		if err != nil {
			d.refusal("id").add(diags, err)
		}
		return i, err == nil
	}
	params := m.filter().wire(ctx, diags)
	at := time.Time{}
	if !m.NearestTo.IsNull() {
		t, more := m.NearestTo.ValueRFC3339Time()
		diags.Append(more...)
		at = t
	}
	if diags.HasError() {
		return api.BackupImage{}, false
	}
	images, count, err := chosen(d.conn.images(ctx, params), m, at)
	switch {
	case err != nil:
		d.refusal("image").add(diags, err)
	case count == 0:
		diags.AddAttributeError(path.Root("image"), "No image was found", fmt.Sprintf(
			"%s, and found none.\nA look-up of one image needs one that can be restored.\n"+
				"Widen the filters, or make a backup: kura vm backup NAME --wait, kura schedule run NAME --wait. Where there may be none yet, use the data source kura_backup_images and look at length(images).",
			m.asked()))
	case count > 1 && !m.MostRecent.ValueBool() && at.IsZero():
		diags.AddAttributeError(path.Root("most_recent"), "More than one image was found", fmt.Sprintf(
			"%s, and found more than one.\nA look-up of one image must choose exactly one.\nSet most_recent = true, or nearest_to, or narrow the filters.", m.asked()))
	default:
		return images, true
	}
	return api.BackupImage{}, false
}

// chosen picks the image that m asks for out of all, which come newest first,
// and counts those it had to choose from.
func chosen(all iter.Seq2[api.BackupImage, error], m imageLookupModel, at time.Time) (pick api.BackupImage, count int, err error) {
	for i, err := range all {
		if err != nil {
			return pick, count, err
		}
		if m.Status.IsNull() && i.Status != api.ImageStatusGood && i.Status != api.ImageStatusPartial {
			continue
		}
		switch {
		case at.IsZero():
			if count++; count == 1 {
				pick = i
			}
			if m.MostRecent.ValueBool() || count > 1 {
				return pick, count, nil
			}
		case m.Direction.ValueString() == after:
			if i.PointInTime.Before(at) {
				return pick, count, nil
			}
			pick, count = i, count+1
		case !i.PointInTime.After(at):
			return i, 1, nil
		}
	}
	return pick, count, nil
}

// asked says what was looked for.
func (m imageLookupModel) asked() string {
	var filters []string
	for _, f := range []struct {
		name  string
		value types.String
	}{
		{"virtual_machine_id", m.VirtualMachineID}, {"virtual_machine_name", m.VirtualMachineName}, {"group_id", m.GroupID}, {"schedule_id", m.ScheduleID},
		{"run_id", m.RunID}, {"vcenter_id", m.VCenterID}, {"repository", m.Repository}, {"status", m.Status},
		{"created_after", m.CreatedAfter.StringValue}, {"created_before", m.CreatedBefore.StringValue}, {"nearest_to", m.NearestTo.StringValue}, {"direction", m.Direction},
	} {
		if !f.value.IsNull() {
			filters = append(filters, f.name+" = "+f.value.String())
		}
	}
	if !m.Labels.IsNull() {
		filters = append(filters, "labels = "+m.Labels.String())
	}
	if len(filters) == 0 {
		return "Looked among all images"
	}
	return "Looked for images with " + strings.Join(filters, ", ")
}

func (d *imageDataSource) refusal(attribute string) refusal {
	return refusal{conn: d.conn, fallback: path.Root(attribute), advice: map[api.ErrorCode]string{
		api.ErrorCodeNotFound: "It may have expired. List what is there: kura image list, or the data source kura_backup_images.",
	}}
}
