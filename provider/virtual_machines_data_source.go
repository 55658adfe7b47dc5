package provider

import (
	"context"
	"path"
	"regexp"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	attribute "github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var _ datasource.DataSourceWithConfigure = (*virtualMachinesDataSource)(nil)

type virtualMachinesDataSource struct{ dataSourceConnection }

type virtualMachinesModel struct {
	VCenterID       types.String `tfsdk:"vcenter_id"`
	Name            types.String `tfsdk:"name"`
	NameRegex       types.String `tfsdk:"name_regex"`
	Folder          types.String `tfsdk:"folder"`
	Tags            types.Set    `tfsdk:"tags"`
	IncludeGone     types.Bool   `tfsdk:"include_gone"`
	Unprotectable   types.Bool   `tfsdk:"unprotectable"`
	IDs             types.List   `tfsdk:"ids"`
	VirtualMachines types.List   `tfsdk:"virtual_machines"`
}

type virtualMachineModel struct {
	ID                types.String `tfsdk:"id"`
	VCenterID         types.String `tfsdk:"vcenter_id"`
	InstanceUUID      types.String `tfsdk:"instance_uuid"`
	BIOSUUID          types.String `tfsdk:"bios_uuid"`
	MOID              types.String `tfsdk:"moid"`
	Name              types.String `tfsdk:"name"`
	Folder            types.String `tfsdk:"folder"`
	ResourcePool      types.String `tfsdk:"resource_pool"`
	Host              types.String `tfsdk:"host"`
	PowerState        types.String `tfsdk:"power_state"`
	Template          types.Bool   `tfsdk:"template"`
	CPUs              types.Int64  `tfsdk:"cpus"`
	Memory            types.Int64  `tfsdk:"memory"`
	Disks             types.List   `tfsdk:"disks"`
	Datastores        types.List   `tfsdk:"datastores"`
	Tags              types.Set    `tfsdk:"tags"`
	Warnings          types.List   `tfsdk:"warnings"`
	GoneAt            types.String `tfsdk:"gone_at"`
	InventorySyncedAt types.String `tfsdk:"inventory_synced_at"`

	UnprotectableReason types.String `tfsdk:"unprotectable_reason"`
}

func (virtualMachineModel) types() map[string]attr.Type {
	texts := types.ListType{ElemType: types.StringType}
	out := map[string]attr.Type{
		"template": types.BoolType, "cpus": types.Int64Type, "memory": types.Int64Type, "datastores": texts, "warnings": texts,
		"disks": types.ListType{ElemType: types.ObjectType{AttrTypes: vmDiskModel{}.types()}},
		"tags":  types.SetType{ElemType: types.ObjectType{AttrTypes: tagModel{}.types()}},
	}
	for name := range virtualMachineTexts {
		out[name] = types.StringType
	}
	return out
}

type vmDiskModel struct {
	Key                 types.Int64  `tfsdk:"key"`
	Label               types.String `tfsdk:"label"`
	Capacity            types.Int64  `tfsdk:"capacity"`
	File                types.String `tfsdk:"file"`
	UnprotectableReason types.String `tfsdk:"unprotectable_reason"`
}

func (vmDiskModel) types() map[string]attr.Type {
	return map[string]attr.Type{
		"key": types.Int64Type, "label": types.StringType, "capacity": types.Int64Type, "file": types.StringType, "unprotectable_reason": types.StringType,
	}
}

// virtualMachineTexts are the attributes of a machine that are plain text.
var virtualMachineTexts = map[string]string{
	"id":                   "Id of the machine on the Kura server.",
	"vcenter_id":           "Id of its vcenter.",
	"instance_uuid":        "Instance UUID.",
	"bios_uuid":            "BIOS UUID.",
	"moid":                 "Managed object id, such as `vm-42`.",
	"name":                 "Name.",
	"folder":               "Inventory path of its folder.",
	"resource_pool":        "Inventory path of its resource pool.",
	"host":                 "ESXi host.",
	"power_state":          "`on`, `off` or `suspended`.",
	"unprotectable_reason": "Why no backup of it can be made at all; null = one can, at least of some disks.",
	"gone_at":              "When it left the inventory, RFC 3339.",
	"inventory_synced_at":  "When its vcenter's inventory was last read, RFC 3339.",
}

func (d *virtualMachinesDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "kura_virtual_machines"
}

func (d *virtualMachinesDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	opt := func(description string, valid ...validator.String) schema.StringAttribute {
		return schema.StringAttribute{
			Optional: true, MarkdownDescription: description, Validators: append(valid, stringvalidator.LengthAtLeast(1)),
		}
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "The virtual machines of the inventory that all given filters choose, as of the last reading of it.",
		Attributes: map[string]schema.Attribute{
			"vcenter_id": opt("Only machines of the vcenter with this id."),
			"name":       opt("Only machines of exactly this name."),
			"name_regex": opt("Only machines whose name this regular expression matches anywhere, in the syntax of Go.", nameRegex{}),
			"folder":     opt("Only machines in this folder or below it, by inventory path."),
			"tags": schema.SetNestedAttribute{
				Optional: true, MarkdownDescription: "Only machines that carry all of these vSphere tags.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
					"category": schema.StringAttribute{Required: true, MarkdownDescription: "Category of the tag."},
					"name":     schema.StringAttribute{Required: true, MarkdownDescription: "Name of the tag."},
				}},
			},
			"unprotectable": schema.BoolAttribute{Optional: true, MarkdownDescription: "Only machines of which something cannot be backed up. Default `false`."},
			"include_gone":  schema.BoolAttribute{Optional: true, MarkdownDescription: "Also machines that have left the inventory. Default `false`."},
			"ids":           schema.ListAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "Ids of the machines, in the order of `virtual_machines`."},
			"virtual_machines": schema.ListNestedAttribute{
				Computed: true, MarkdownDescription: "The machines.",
				NestedObject: schema.NestedAttributeObject{Attributes: virtualMachineAttributes()},
			},
		},
	}
}

func virtualMachineAttributes() map[string]schema.Attribute {
	text := func(description string) schema.StringAttribute {
		return schema.StringAttribute{Computed: true, MarkdownDescription: description}
	}
	out := map[string]schema.Attribute{
		"template":   schema.BoolAttribute{Computed: true, MarkdownDescription: "It is a template."},
		"cpus":       schema.Int64Attribute{Computed: true, MarkdownDescription: "Virtual CPUs."},
		"memory":     schema.Int64Attribute{Computed: true, MarkdownDescription: "Bytes of memory."},
		"datastores": schema.ListAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "Names of its datastores."},
		"warnings":   schema.ListAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "Why it, or a part of it, cannot be protected, and what else to know."},
		"disks": schema.ListNestedAttribute{
			Computed: true, MarkdownDescription: "Its disks.",
			NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
				"key":      schema.Int64Attribute{Computed: true, MarkdownDescription: "Device key."},
				"label":    text("Label, such as `Hard disk 1`."),
				"capacity": schema.Int64Attribute{Computed: true, MarkdownDescription: "Bytes."},
				"file":     text("Its file."), "unprotectable_reason": text("Why it cannot be backed up."),
			}},
		},
		"tags": schema.SetNestedAttribute{
			Computed: true, MarkdownDescription: "Its vSphere tags.",
			NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{"category": text("Category of the tag."), "name": text("Name of the tag.")}},
		},
	}
	for name, description := range virtualMachineTexts {
		out[name] = text(description)
	}
	return out
}

func (d *virtualMachinesDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var m virtualMachinesModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() || !d.ready(&resp.Diagnostics) {
		return
	}
	p := api.ListVirtualMachinesParams{VCenterID: m.VCenterID.ValueString(), Name: m.Name.ValueString(), IncludeGone: m.IncludeGone.ValueBool(), Unprotectable: m.Unprotectable.ValueBool(), Limit: 1000}
	for _, t := range tagsOf(ctx, m.Tags, &resp.Diagnostics) {
		p.Tag = append(p.Tag, t.Category+":"+t.Name)
	}
	ids, machines := []types.String{}, []virtualMachineModel{}
	for vm, err := range api.All(func(cursor string) ([]api.VirtualMachine, string, error) {
		p.Cursor = cursor
		page, err := found(d.conn.client.ListVirtualMachinesWithResponse(ctx, &p))
		return page.Items, page.NextCursor, err
	}) {
		if err != nil {
			refusal{conn: d.conn, fallback: attribute.Root("virtual_machines")}.add(&resp.Diagnostics, err)
			return
		}
		if m.matches(vm) {
			machines = append(machines, virtualMachineOf(ctx, vm, &resp.Diagnostics))
			ids = append(ids, types.StringValue(vm.ID))
		}
	}
	var more diag.Diagnostics
	m.IDs, more = types.ListValueFrom(ctx, types.StringType, ids)
	resp.Diagnostics.Append(more...)
	m.VirtualMachines = rows(ctx, machines, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// matches applies the filters that the API does not have.
func (m virtualMachinesModel) matches(vm api.VirtualMachine) bool {
	if want := m.Folder.ValueString(); want != "" {
		have := path.Clean("/" + vm.Folder)
		if want = path.Clean("/" + want); have != want && !strings.HasPrefix(have, want+"/") {
			return false
		}
	}
	matched, err := regexp.MatchString(m.NameRegex.ValueString(), vm.Name)
	return err == nil && matched
}

func virtualMachineOf(ctx context.Context, vm api.VirtualMachine, diags *diag.Diagnostics) virtualMachineModel {
	texts := func(v []string) types.List {
		if v == nil {
			v = []string{}
		}
		l, more := types.ListValueFrom(ctx, types.StringType, v)
		diags.Append(more...)
		return l
	}
	disks := []vmDiskModel{}
	for _, d := range vm.Disks {
		disks = append(disks, vmDiskModel{
			Key: types.Int64Value(int64(d.Key)), Label: types.StringValue(d.Label), Capacity: types.Int64Value(d.Capacity),
			File: types.StringValue(d.File), UnprotectableReason: text(d.UnprotectableReason),
		})
	}
	none := types.SetValueMust(types.ObjectType{AttrTypes: tagModel{}.types()}, nil)
	return virtualMachineModel{
		ID: types.StringValue(vm.ID), VCenterID: types.StringValue(vm.VCenterID), InstanceUUID: types.StringValue(vm.InstanceUUID), BIOSUUID: text(vm.BIOSUUID),
		MOID: types.StringValue(vm.MOID), Name: types.StringValue(vm.Name), Folder: text(vm.Folder), ResourcePool: text(vm.ResourcePool), Host: text(vm.Host),
		PowerState: types.StringValue(string(vm.PowerState)), Template: types.BoolValue(vm.Template),
		CPUs: types.Int64Value(int64(vm.CPUs)), Memory: types.Int64Value(vm.Memory), Disks: rows(ctx, disks, diags),
		Datastores: texts(vm.Datastores), Warnings: texts(vm.Warnings), Tags: keepObjects(ctx, none, tagModels(vm.Tags), diags),
		UnprotectableReason: text(vm.UnprotectableReason), GoneAt: instant(vm.GoneAt), InventorySyncedAt: instant(vm.InventorySyncedAt),
	}
}
