package provider

import (
	"context"
	"iter"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// imageModel is what both look-ups of images tell of one.
type imageModel struct {
	ID                types.String `tfsdk:"id"`
	VirtualMachine    types.Object `tfsdk:"virtual_machine"`
	VCenterID         types.String `tfsdk:"vcenter_id"`
	ScheduleID        types.String `tfsdk:"schedule_id"`
	GroupID           types.String `tfsdk:"group_id"`
	RunID             types.String `tfsdk:"run_id"`
	StartedAt         types.String `tfsdk:"started_at"`
	EndedAt           types.String `tfsdk:"ended_at"`
	PointInTime       types.String `tfsdk:"point_in_time"`
	ExpiresAt         types.String `tfsdk:"expires_at"`
	LockedUntil       types.String `tfsdk:"locked_until"`
	Held              types.Bool   `tfsdk:"held"`
	HeldUntil         types.String `tfsdk:"held_until"`
	StorageLocked     types.String `tfsdk:"storage_locked_until"`
	Status            types.String `tfsdk:"status"`
	Consistency       types.String `tfsdk:"consistency"`
	ChangeDetection   types.String `tfsdk:"change_detection"`
	Message           types.String `tfsdk:"message"`
	Disks             types.List   `tfsdk:"disks"`
	Sizes             types.Object `tfsdk:"sizes"`
	VerifiedAt        types.String `tfsdk:"verified_at"`
	LastFullCompareAt types.String `tfsdk:"last_full_compare_at"`
	Repository        types.String `tfsdk:"repository"`
	CopyOf            types.String `tfsdk:"copy_of"`
	Labels            types.Map    `tfsdk:"labels"`
}

func (imageModel) types() map[string]attr.Type {
	out := map[string]attr.Type{
		"virtual_machine": types.ObjectType{AttrTypes: imageVMModel{}.types()},
		"disks":           types.ListType{ElemType: types.ObjectType{AttrTypes: imageDiskModel{}.types()}},
		"sizes":           types.ObjectType{AttrTypes: sizesModel{}.types()},
		"labels":          types.MapType{ElemType: types.StringType},
		"held":            types.BoolType,
	}
	for name := range imageTexts {
		out[name] = types.StringType
	}
	return out
}

type imageVMModel struct {
	ID           types.String `tfsdk:"id"`
	Name         types.String `tfsdk:"name"`
	MOID         types.String `tfsdk:"moid"`
	InstanceUUID types.String `tfsdk:"instance_uuid"`
}

func (imageVMModel) types() map[string]attr.Type {
	return map[string]attr.Type{"id": types.StringType, "name": types.StringType, "moid": types.StringType, "instance_uuid": types.StringType}
}

type imageDiskModel struct {
	Key           types.Int64  `tfsdk:"key"`
	Label         types.String `tfsdk:"label"`
	Capacity      types.Int64  `tfsdk:"capacity"`
	Read          types.Int64  `tfsdk:"read"`
	Changed       types.Int64  `tfsdk:"changed"`
	Stored        types.Int64  `tfsdk:"stored"`
	SHA256        types.String `tfsdk:"sha256"`
	Detection     types.String `tfsdk:"change_detection"`
	ComparedAt    types.String `tfsdk:"last_full_compare_at"`
	SkippedReason types.String `tfsdk:"skipped_reason"`
	Damaged       types.Bool   `tfsdk:"damaged"`
}

func (imageDiskModel) types() map[string]attr.Type {
	return map[string]attr.Type{
		"key": types.Int64Type, "label": types.StringType, "capacity": types.Int64Type, "read": types.Int64Type, "changed": types.Int64Type, "stored": types.Int64Type,
		"sha256": types.StringType, "change_detection": types.StringType, "last_full_compare_at": types.StringType, "skipped_reason": types.StringType, "damaged": types.BoolType,
	}
}

type sizesModel struct {
	Provisioned types.Int64 `tfsdk:"provisioned"`
	Read        types.Int64 `tfsdk:"read"`
	Changed     types.Int64 `tfsdk:"changed"`
	Stored      types.Int64 `tfsdk:"stored"`
}

func (sizesModel) types() map[string]attr.Type {
	return map[string]attr.Type{"provisioned": types.Int64Type, "read": types.Int64Type, "changed": types.Int64Type, "stored": types.Int64Type}
}

// imageTexts are the attributes of an image that are plain text.
var imageTexts = map[string]string{
	"id":                   "Id of the image.",
	"vcenter_id":           "Id of the vcenter of the machine.",
	"schedule_id":          "Id of the schedule that made it.",
	"group_id":             "Id of the group it was made with.",
	"run_id":               "Id of the run it was made in.",
	"started_at":           "When its backup started, RFC 3339; retention runs from here.",
	"ended_at":             "When its backup ended, RFC 3339.",
	"point_in_time":        "The instant whose state the disks have, RFC 3339.",
	"expires_at":           "When it is deleted, RFC 3339; null = never.",
	"locked_until":         "Until when nobody can delete it, RFC 3339.",
	"held_until":           "When its last hold ends, RFC 3339; null while `held` = until that is released.",
	"storage_locked_until": "Until then the storage itself refuses to delete what the image needs, RFC 3339; null in a repository without object lock.",
	"status":               "`good`, `partial` (disks were skipped), `damaged` or `expired`.",
	"consistency":          "What was reached: `crash`, `app`, `app_required` or `offline`.",
	"change_detection":     "How changes were found: `cbt`, `compare` or `full`; of its disks, the way that read the most.",
	"message":              "What is worth knowing about the backup.",
	"verified_at":          "When it was last verified, RFC 3339.",
	"last_full_compare_at": "When all of its disks had last been read in full, RFC 3339.",
	"repository":           "Name of the repository that holds it.",
	"copy_of":              "Id of the image that this is a copy of, in another repository. Copies are found with `repository`, or where the original is gone.",
}

func imageAttributes() map[string]schema.Attribute {
	text := func(description string) schema.StringAttribute {
		return schema.StringAttribute{Computed: true, MarkdownDescription: description}
	}
	number := func(description string) schema.Int64Attribute {
		return schema.Int64Attribute{Computed: true, MarkdownDescription: description}
	}
	out := map[string]schema.Attribute{
		"virtual_machine": schema.SingleNestedAttribute{
			Computed: true, MarkdownDescription: "The machine as it was when the image was made.",
			Attributes: map[string]schema.Attribute{
				"id": text("Id of the machine."), "name": text("Name."), "moid": text("Managed object id."), "instance_uuid": text("Instance UUID."),
			},
		},
		"disks": schema.ListNestedAttribute{
			Computed: true, MarkdownDescription: "Its disks.",
			NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
				"key": number("Device key."), "label": text("Label."), "capacity": number("Bytes of the disk."), "read": number("Bytes taken from the source."),
				"changed": number("Bytes of the blocks that differ from the image before; in a first image, that are not zero."),
				"stored":  number("Bytes that the repository grew by."), "sha256": text("SHA-256 of the whole disk, where it is known."), "skipped_reason": text("Why the disk is not in the image."),
				"change_detection": text("How the changes of this disk were found: `cbt`, `compare` or `full`."), "last_full_compare_at": text("When all of this disk had last been read, RFC 3339."),
				"damaged": schema.BoolAttribute{Computed: true, MarkdownDescription: "Some of it cannot be read any more."},
			}},
		},
		"sizes": schema.SingleNestedAttribute{
			Computed: true, MarkdownDescription: "Its sizes in bytes.",
			Attributes: map[string]schema.Attribute{
				"provisioned": number("Of the disks."), "read": number("Taken from the source."),
				"changed": number("Of the blocks that differ from the image before; in a first image, that are not zero."), "stored": number("That the repository grew by."),
			},
		},
		"labels": schema.MapAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "Its labels."},
		"held":   schema.BoolAttribute{Computed: true, MarkdownDescription: "Whether a hold keeps it, whatever its retention says."},
	}
	for name, description := range imageTexts {
		out[name] = text(description)
	}
	return out
}

func imageOf(ctx context.Context, i api.BackupImage, diags *diag.Diagnostics) imageModel {
	disks := []imageDiskModel{}
	for _, d := range i.Disks {
		disks = append(disks, imageDiskModel{
			Key: types.Int64Value(int64(d.Key)), Label: types.StringValue(d.Label), Capacity: types.Int64Value(d.Capacity),
			Read: types.Int64Value(d.Read), Changed: types.Int64Value(d.Changed), Stored: types.Int64Value(d.Stored), SHA256: text(d.SHA256), SkippedReason: text(d.SkippedReason),
			Detection: text(string(d.ChangeDetection)), ComparedAt: instant(d.LastFullCompareAt), Damaged: types.BoolValue(d.Damaged),
		})
	}
	labels, more := types.MapValueFrom(ctx, types.StringType, i.Labels)
	diags.Append(more...)
	return imageModel{
		ID: types.StringValue(i.ID), VCenterID: types.StringValue(i.VCenterID), ScheduleID: text(i.ScheduleID), GroupID: text(i.GroupID), RunID: text(i.RunID),
		VirtualMachine: object(ctx, &imageVMModel{
			ID: types.StringValue(i.VirtualMachine.ID), Name: types.StringValue(i.VirtualMachine.Name),
			MOID: text(i.VirtualMachine.MOID), InstanceUUID: text(i.VirtualMachine.InstanceUUID),
		}, diags),
		StartedAt: instant(i.StartedAt), EndedAt: instant(i.EndedAt), PointInTime: instant(i.PointInTime),
		ExpiresAt: instant(i.ExpiresAt), LockedUntil: instant(i.LockedUntil), Held: types.BoolValue(i.Held), HeldUntil: instant(i.HeldUntil),
		StorageLocked: instant(i.StorageLockedUntil), VerifiedAt: instant(i.VerifiedAt), LastFullCompareAt: instant(i.LastFullCompareAt),
		Status: types.StringValue(string(i.Status)), Consistency: types.StringValue(string(i.Consistency)), ChangeDetection: types.StringValue(string(i.ChangeDetection)),
		Message: text(i.Message), Disks: rows(ctx, disks, diags), Repository: types.StringValue(i.Repository), CopyOf: text(i.CopyOf), Labels: labels,
		Sizes: object(ctx, &sizesModel{
			Provisioned: types.Int64Value(i.Sizes.Provisioned), Read: types.Int64Value(i.Sizes.Read), Changed: types.Int64Value(i.Sizes.Changed), Stored: types.Int64Value(i.Sizes.Stored),
		}, diags),
	}
}

// imageFilter is how both look-ups choose images.
type imageFilter struct {
	VirtualMachineID   types.String
	VirtualMachineName types.String
	GroupID            types.String
	ScheduleID         types.String
	RunID              types.String
	VCenterID          types.String
	Repository         types.String
	Status             types.String
	CreatedAfter       timetypes.RFC3339
	CreatedBefore      timetypes.RFC3339
	Labels             types.Map
}

// wire is the filter as the API wants it.
func (f imageFilter) wire(ctx context.Context, diags *diag.Diagnostics) api.ListBackupImagesParams {
	p := api.ListBackupImagesParams{
		VirtualMachineID: f.VirtualMachineID.ValueString(), VirtualMachineName: f.VirtualMachineName.ValueString(),
		GroupID: f.GroupID.ValueString(), ScheduleID: f.ScheduleID.ValueString(), RunID: f.RunID.ValueString(), VCenterID: f.VCenterID.ValueString(),
		Repository: f.Repository.ValueString(), Status: textOf[api.ImageStatus](f.Status),
	}
	if !f.CreatedAfter.IsNull() {
		t, more := f.CreatedAfter.ValueRFC3339Time()
		diags.Append(more...)
		p.CreatedAfter = t
	}
	if !f.CreatedBefore.IsNull() {
		t, more := f.CreatedBefore.ValueRFC3339Time()
		diags.Append(more...)
		p.CreatedBefore = t
	}
	labels := texts(ctx, f.Labels, diags)
	for _, key := range sorted(labels) {
		p.Label = append(p.Label, key+"="+labels[key])
	}
	return p
}

// images yields the images that p chooses, newest first.
func (c *connection) images(ctx context.Context, p api.ListBackupImagesParams) iter.Seq2[api.BackupImage, error] {
	return api.All(func(cursor string) ([]api.BackupImage, string, error) {
		p.Cursor = cursor
		page, err := found(c.client.ListBackupImagesWithResponse(ctx, &p))
		return page.Items, page.NextCursor, err
	})
}

// filterAttributes are the attributes that choose images.
func filterAttributes() map[string]schema.Attribute {
	text := func(description string) schema.StringAttribute {
		return schema.StringAttribute{Optional: true, MarkdownDescription: description, Validators: []validator.String{stringvalidator.LengthAtLeast(1)}}
	}
	moment := func(description string) schema.StringAttribute {
		return schema.StringAttribute{Optional: true, CustomType: timetypes.RFC3339Type{}, MarkdownDescription: description}
	}
	return map[string]schema.Attribute{
		"virtual_machine_id":   text("Only images of the machine with this id."),
		"virtual_machine_name": text("Only images of machines that had this name."),
		"group_id":             text("Only images made with this group."),
		"schedule_id":          text("Only images made by this schedule."),
		"run_id":               text("Only images made in this run."),
		"vcenter_id":           text("Only images of machines of this vcenter."),
		"repository":           text("Only images in the repository of this name or id."),
		"status": schema.StringAttribute{
			Optional: true, MarkdownDescription: "Only images of this status: `good`, `partial`, `damaged` or `expired`.",
			Validators: []validator.String{stringvalidator.OneOf("good", "partial", "damaged", "expired")},
		},
		"created_after":  moment("Only images made at or after this time, RFC 3339."),
		"created_before": moment("Only images made before this time, RFC 3339."),
		"labels":         schema.MapAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: "Only images with all of these labels."},
	}
}
