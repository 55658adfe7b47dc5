package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type groupModel struct {
	ID                       types.String   `tfsdk:"id"`
	Name                     types.String   `tfsdk:"name"`
	Description              types.String   `tfsdk:"description"`
	VirtualMachineIDs        types.Set      `tfsdk:"virtual_machine_ids"`
	Selector                 types.Object   `tfsdk:"selector"`
	ExcludeVirtualMachineIDs types.Set      `tfsdk:"exclude_virtual_machine_ids"`
	ReservedSeats            types.Int64    `tfsdk:"reserved_seats"`
	MaxParallel              types.Int64    `tfsdk:"max_parallel"`
	Consistent               types.Bool     `tfsdk:"consistent"`
	OnMemberFailure          types.String   `tfsdk:"on_member_failure"`
	Labels                   types.Map      `tfsdk:"labels"`
	DeletionProtection       types.Bool     `tfsdk:"deletion_protection"`
	CreatedAt                types.String   `tfsdk:"created_at"`
	Timeouts                 timeouts.Value `tfsdk:"timeouts"`
}

type selectorModel struct {
	VCenterID    types.String `tfsdk:"vcenter_id"`
	Tags         types.Set    `tfsdk:"tags"`
	Folder       types.String `tfsdk:"folder"`
	Recursive    types.Bool   `tfsdk:"recursive"`
	ResourcePool types.String `tfsdk:"resource_pool"`
	NameRegex    types.String `tfsdk:"name_regex"`
}

func (selectorModel) types() map[string]attr.Type {
	return map[string]attr.Type{
		"vcenter_id": types.StringType, "folder": types.StringType, "recursive": types.BoolType,
		"resource_pool": types.StringType, "name_regex": types.StringType,
		"tags": types.SetType{ElemType: types.ObjectType{AttrTypes: tagModel{}.types()}},
	}
}

// tagModel is a vSphere tag.
type tagModel struct {
	Category types.String `tfsdk:"category"`
	Name     types.String `tfsdk:"name"`
}

func (tagModel) types() map[string]attr.Type {
	return map[string]attr.Type{"category": types.StringType, "name": types.StringType}
}

func tagsOf(ctx context.Context, from types.Set, diags *diag.Diagnostics) []api.Tag {
	var out []api.Tag
	for _, t := range items[tagModel](ctx, from, diags) {
		out = append(out, api.Tag{Category: t.Category.ValueString(), Name: t.Name.ValueString()})
	}
	return out
}

func tagModels(tags []api.Tag) []tagModel {
	var out []tagModel
	for _, t := range tags {
		out = append(out, tagModel{Category: types.StringValue(t.Category), Name: types.StringValue(t.Name)})
	}
	return out
}

// wire is the group as the API wants it.
func (m groupModel) wire(ctx context.Context, diags *diag.Diagnostics) api.BackupGroup {
	g := api.BackupGroup{
		Name:                     m.Name.ValueString(),
		Description:              m.Description.ValueString(),
		VirtualMachineIDs:        items[string](ctx, m.VirtualMachineIDs, diags),
		ExcludeVirtualMachineIDs: items[string](ctx, m.ExcludeVirtualMachineIDs, diags),
		ReservedSeats:            int(m.ReservedSeats.ValueInt64()),
		MaxParallel:              int(m.MaxParallel.ValueInt64()),
		Consistent:               m.Consistent.ValueBool(),
		OnMemberFailure:          api.MemberFailure(m.OnMemberFailure.ValueString()),
		Labels:                   texts(ctx, m.Labels, diags),
		DeletionProtection:       m.DeletionProtection.ValueBool(),
	}
	if s := read[selectorModel](ctx, m.Selector, diags); s != nil {
		g.Selector = &api.Selector{
			VCenterID: s.VCenterID.ValueString(), Tags: tagsOf(ctx, s.Tags, diags),
			Folder: s.Folder.ValueString(), Recursive: s.Recursive.ValueBool(),
			ResourcePool: s.ResourcePool.ValueString(), NameRegex: s.NameRegex.ValueString(),
		}
	}
	return g
}

// take brings what the server answered into the model.
func (m *groupModel) take(ctx context.Context, g api.BackupGroup, diags *diag.Diagnostics) {
	m.ID = types.StringValue(g.ID)
	m.Name = types.StringValue(g.Name)
	m.Description = keepText(m.Description, g.Description)
	m.VirtualMachineIDs = keepSet(ctx, m.VirtualMachineIDs, types.StringType, g.VirtualMachineIDs, diags)
	m.ExcludeVirtualMachineIDs = keepSet(ctx, m.ExcludeVirtualMachineIDs, types.StringType, g.ExcludeVirtualMachineIDs, diags)
	m.ReservedSeats = types.Int64Value(int64(g.ReservedSeats))
	m.MaxParallel = types.Int64Value(int64(g.MaxParallel))
	m.Consistent = types.BoolValue(g.Consistent)
	m.OnMemberFailure = types.StringValue(string(g.OnMemberFailure))
	m.Labels = keepStrings(ctx, m.Labels, g.Labels, diags)
	m.DeletionProtection = types.BoolValue(g.DeletionProtection)
	m.CreatedAt = instant(g.CreatedAt)

	prior := read[selectorModel](ctx, m.Selector, diags)
	if g.Selector == nil {
		m.Selector = types.ObjectNull(selectorModel{}.types())
		return
	}
	if prior == nil {
		prior = &selectorModel{}
	}
	m.Selector = object(ctx, &selectorModel{
		VCenterID:    types.StringValue(g.Selector.VCenterID),
		Tags:         keepObjects(ctx, prior.Tags, tagModels(g.Selector.Tags), diags),
		Folder:       keepText(prior.Folder, g.Selector.Folder),
		Recursive:    keepBool(prior.Recursive, g.Selector.Recursive),
		ResourcePool: keepText(prior.ResourcePool, g.Selector.ResourcePool),
		NameRegex:    keepText(prior.NameRegex, g.Selector.NameRegex),
	}, diags)
}

func (m *groupModel) id() types.String         { return m.ID }
func (m *groupModel) timeouts() timeouts.Value { return m.Timeouts }
