package provider

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type copyModel struct {
	Repository    types.String `tfsdk:"repository"`
	RetentionDays types.Int64  `tfsdk:"retention_days"`
}

func (copyModel) types() map[string]attr.Type {
	return map[string]attr.Type{"repository": types.StringType, "retention_days": types.Int64Type}
}

func copyToAttribute() schema.Attribute {
	return schema.SetNestedAttribute{
		Optional: true,
		MarkdownDescription: "Other repositories that each new image is copied to, up to three. A copy can be restored from its repository alone; of a locked image it is locked, too. " +
			"A change reaches later images only.",
		Validators: []validator.Set{setvalidator.SizeBetween(1, 3), eachOnce{}},
		NestedObject: schema.NestedAttributeObject{
			Attributes: map[string]schema.Attribute{
				"repository": schema.StringAttribute{
					Required: true, MarkdownDescription: "Name of the repository; not the schedule's own.",
					Validators: []validator.String{stringvalidator.UTF8LengthBetween(1, 128)},
				},
				"retention_days": schema.Int64Attribute{
					Required: true, MarkdownDescription: "Days for which the copy is kept, from the start of the backup; the same choices as the schedule's `retention_days`.",
					Validators: []validator.Int64{int64validator.Between(0, 65536)},
				},
			},
		},
	}
}

// eachOnce refuses two copies in one repository, and one in the schedule's own.
type eachOnce struct{}

func (eachOnce) Description(context.Context) string {
	return "names each repository once, and not the schedule's own"
}
func (v eachOnce) MarkdownDescription(c context.Context) string { return v.Description(c) }

func (eachOnce) ValidateSet(ctx context.Context, req validator.SetRequest, resp *validator.SetResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	var own types.String
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root("repository"), &own)...)
	var seen []string
	for _, e := range req.ConfigValue.Elements() {
		o, known := e.(types.Object)
		if !known || o.IsUnknown() {
			continue
		}
		c := read[copyModel](ctx, o, &resp.Diagnostics)
		if c == nil || c.Repository.IsUnknown() {
			continue
		}
		name := c.Repository.ValueString()
		switch {
		case slices.Contains(seen, name):
			resp.Diagnostics.AddAttributeError(req.Path, "Repository is named twice", fmt.Sprintf("copy_to names the repository %q twice.\nName each once, with the longer retention.", name))
		case !own.IsNull() && own.ValueString() == name:
			resp.Diagnostics.AddAttributeError(req.Path, "Repository is the schedule's own", fmt.Sprintf("The images are made in the repository %q.\nName others in copy_to.", name))
		}
		seen = append(seen, name)
	}
}

// copiesOf are the copies as the API wants them.
func copiesOf(ctx context.Context, s types.Set, diags *diag.Diagnostics) (all []api.CopyTarget) {
	for _, c := range items[copyModel](ctx, s, diags) {
		all = append(all, api.CopyTarget{Repository: c.Repository.ValueString(), RetentionDays: int(c.RetentionDays.ValueInt64())})
	}
	return all
}

func (m *scheduleModel) takeCopies(ctx context.Context, all []api.CopyTarget, diags *diag.Diagnostics) {
	var copies []copyModel
	for _, c := range all {
		copies = append(copies, copyModel{Repository: types.StringValue(c.Repository), RetentionDays: types.Int64Value(int64(c.RetentionDays))})
	}
	m.CopyTo = keepObjects(ctx, m.CopyTo, copies, diags)
}

// namesOf refuses repositories that are named by their ids: the server answers
// names, so an id would differ in every plan.
func namesOf(want, got []api.CopyTarget, diags *diag.Diagnostics) {
	for i := range min(len(want), len(got)) { // the server keeps their order
		if w, g := want[i].Repository, got[i].Repository; w != g {
			diags.AddAttributeError(path.Root("copy_to"), "Repository is named by its name", fmt.Sprintf(
				"%q is the repository %q.\nThe server answers the repositories of copies by name, so an id would differ in every plan.\nSet repository = %q.", w, g, g))
		}
	}
}
