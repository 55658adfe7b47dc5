package provider

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type restoreModel struct {
	ID            types.String   `tfsdk:"id"`
	ImageID       types.String   `tfsdk:"image_id"`
	InPlace       types.Object   `tfsdk:"in_place"`
	NewVM         types.Object   `tfsdk:"new_vm"`
	Disk          types.Object   `tfsdk:"disk"`
	Triggers      types.Map      `tfsdk:"triggers"`
	Description   types.String   `tfsdk:"description"`
	DeleteVM      types.Bool     `tfsdk:"delete_restored_vm_on_destroy"`
	Status        types.String   `tfsdk:"status"`
	StartedAt     types.String   `tfsdk:"started_at"`
	CompletedAt   types.String   `tfsdk:"completed_at"`
	BytesRestored types.Int64    `tfsdk:"bytes_restored"`
	RestoredVM    types.Object   `tfsdk:"restored_vm"`
	Timeouts      timeouts.Value `tfsdk:"timeouts"`
}

type inPlaceModel struct {
	PowerOff types.Bool   `tfsdk:"power_off"`
	PowerOn  types.Bool   `tfsdk:"power_on"`
	Safety   types.String `tfsdk:"safety"`
}

func (inPlaceModel) types() map[string]attr.Type {
	return map[string]attr.Type{"power_off": types.BoolType, "power_on": types.BoolType, "safety": types.StringType}
}

type newVMModel struct {
	Name             types.String `tfsdk:"name"`
	VCenterID        types.String `tfsdk:"vcenter_id"`
	Datacenter       types.String `tfsdk:"datacenter"`
	Folder           types.String `tfsdk:"folder"`
	Datastore        types.String `tfsdk:"datastore"`
	StoragePolicy    types.String `tfsdk:"storage_policy"`
	Cluster          types.String `tfsdk:"cluster"`
	Host             types.String `tfsdk:"host"`
	ResourcePool     types.String `tfsdk:"resource_pool"`
	NetworkMappings  types.Map    `tfsdk:"network_mappings"`
	PowerOn          types.Bool   `tfsdk:"power_on"`
	PreserveIdentity types.Bool   `tfsdk:"preserve_identity"`
	AsTemplate       types.Bool   `tfsdk:"as_template"`
}

func (newVMModel) types() map[string]attr.Type {
	return map[string]attr.Type{
		"name": types.StringType, "vcenter_id": types.StringType, "datacenter": types.StringType, "folder": types.StringType,
		"datastore": types.StringType, "storage_policy": types.StringType, "cluster": types.StringType, "host": types.StringType,
		"resource_pool": types.StringType, "network_mappings": types.MapType{ElemType: types.StringType},
		"power_on": types.BoolType, "preserve_identity": types.BoolType, "as_template": types.BoolType,
	}
}

type diskModel struct {
	SourceDiskKey    types.Int64  `tfsdk:"source_disk_key"`
	SourceDiskLabel  types.String `tfsdk:"source_disk_label"`
	VirtualMachineID types.String `tfsdk:"virtual_machine_id"`
	Mode             types.String `tfsdk:"mode"`
	Datastore        types.String `tfsdk:"datastore"`
}

func (diskModel) types() map[string]attr.Type {
	return map[string]attr.Type{
		"source_disk_key": types.Int64Type, "source_disk_label": types.StringType, "virtual_machine_id": types.StringType,
		"mode": types.StringType, "datastore": types.StringType,
	}
}

type restoredVMModel struct {
	MOID         types.String `tfsdk:"moid"`
	InstanceUUID types.String `tfsdk:"instance_uuid"`
	BIOSUUID     types.String `tfsdk:"bios_uuid"`
	Name         types.String `tfsdk:"name"`
}

func (restoredVMModel) types() map[string]attr.Type {
	return map[string]attr.Type{"moid": types.StringType, "instance_uuid": types.StringType, "bios_uuid": types.StringType, "name": types.StringType}
}

// wire is the restore as the API wants it.
func (m restoreModel) wire(ctx context.Context, diags *diag.Diagnostics) api.Restore {
	r := api.Restore{ImageID: m.ImageID.ValueString(), Description: m.Description.ValueString()}
	if p := read[inPlaceModel](ctx, m.InPlace, diags); p != nil {
		r.InPlace = &api.RestoreInPlace{PowerOff: p.PowerOff.ValueBool(), PowerOn: p.PowerOn.ValueBool(), Safety: textOf[api.Safety](p.Safety)}
	}
	if n := read[newVMModel](ctx, m.NewVM, diags); n != nil {
		r.NewVM = &api.RestoreNewVM{
			Name: n.Name.ValueString(), VCenterID: n.VCenterID.ValueString(), Datacenter: n.Datacenter.ValueString(), Folder: n.Folder.ValueString(),
			Datastore: n.Datastore.ValueString(), StoragePolicy: n.StoragePolicy.ValueString(), Cluster: n.Cluster.ValueString(), Host: n.Host.ValueString(),
			ResourcePool: n.ResourcePool.ValueString(), NetworkMappings: texts(ctx, n.NetworkMappings, diags),
			PowerOn: n.PowerOn.ValueBool(), PreserveIdentity: n.PreserveIdentity.ValueBool(), AsTemplate: n.AsTemplate.ValueBool(),
		}
	}
	if d := read[diskModel](ctx, m.Disk, diags); d != nil {
		r.Disk = &api.RestoreDisk{
			SourceDiskKey: int32(d.SourceDiskKey.ValueInt64()), SourceDiskLabel: d.SourceDiskLabel.ValueString(), //nolint:gosec // the schema bounds the key
			VirtualMachineID: d.VirtualMachineID.ValueString(), Mode: textOf[api.DiskRestoreMode](d.Mode), Datastore: d.Datastore.ValueString(),
		}
	}
	return r
}

// key is the restore's idempotency token: the hash of what it does and of its
// triggers. A description does nothing, so it is left out.
func (m restoreModel) key(ctx context.Context, r api.Restore, diags *diag.Diagnostics) string {
	r.Description = ""
	text, err := json.Marshal(struct {
		Restore  api.Restore       `json:"restore"`
		Triggers map[string]string `json:"triggers"`
	}{r, texts(ctx, m.Triggers, diags)})
	if err != nil {
		diags.AddError("Restore cannot be told apart", fmt.Sprintf("Its configuration has no canonical text: %s", sentence(err)))
	}
	sum := sha256.Sum256(text)
	return "kura_restore:" + hex.EncodeToString(sum[:])
}

// outcome brings what the server computed into the model.
func (m *restoreModel) outcome(ctx context.Context, r api.Restore, diags *diag.Diagnostics) {
	m.ID = types.StringValue(r.ID)
	m.Status = types.StringValue(string(r.Status))
	m.StartedAt, m.CompletedAt = instant(r.StartedAt), instant(r.CompletedAt)
	m.BytesRestored = types.Int64Value(r.BytesRestored)
	var vm *restoredVMModel
	if r.RestoredVM != nil {
		vm = &restoredVMModel{
			MOID: types.StringValue(r.RestoredVM.MOID), InstanceUUID: types.StringValue(r.RestoredVM.InstanceUUID),
			BIOSUUID: types.StringValue(r.RestoredVM.BIOSUUID), Name: types.StringValue(r.RestoredVM.Name),
		}
	}
	m.RestoredVM = object(ctx, vm, diags)
}

// asked brings what the restore was asked for into the model, for an import.
func (m *restoreModel) asked(ctx context.Context, r api.Restore, diags *diag.Diagnostics) {
	m.ImageID = types.StringValue(r.ImageID)
	m.Description = text(r.Description)
	if p := r.InPlace; p != nil {
		m.InPlace = object(ctx, &inPlaceModel{PowerOff: types.BoolValue(p.PowerOff), PowerOn: types.BoolValue(p.PowerOn), Safety: types.StringValue(string(cmp.Or(p.Safety, api.SafetyQuick)))}, diags)
	}
	if n := r.NewVM; n != nil {
		m.NewVM = object(ctx, &newVMModel{
			Name: types.StringValue(n.Name), VCenterID: text(n.VCenterID), Datacenter: text(n.Datacenter), Folder: text(n.Folder),
			Datastore: text(n.Datastore), StoragePolicy: text(n.StoragePolicy), Cluster: text(n.Cluster), Host: text(n.Host), ResourcePool: text(n.ResourcePool),
			NetworkMappings: keepStrings(ctx, types.MapNull(types.StringType), n.NetworkMappings, diags),
			PowerOn:         types.BoolValue(n.PowerOn), PreserveIdentity: types.BoolValue(n.PreserveIdentity), AsTemplate: types.BoolValue(n.AsTemplate),
		}, diags)
	}
	if d := r.Disk; d != nil {
		m.Disk = object(ctx, &diskModel{
			SourceDiskKey: keepInt(types.Int64Null(), int(d.SourceDiskKey)), SourceDiskLabel: text(d.SourceDiskLabel),
			VirtualMachineID: types.StringValue(d.VirtualMachineID), Mode: types.StringValue(string(d.Mode)), Datastore: text(d.Datastore),
		}, diags)
	}
}
