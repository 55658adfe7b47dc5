package provider

import (
	"context"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type vcenterModel struct {
	ID                types.String   `tfsdk:"id"`
	Name              types.String   `tfsdk:"name"`
	Endpoint          types.String   `tfsdk:"endpoint"`
	Username          types.String   `tfsdk:"username"`
	PasswordWO        types.String   `tfsdk:"password_wo"`
	PasswordWOVersion types.Int64    `tfsdk:"password_wo_version"`
	Thumbprint        types.String   `tfsdk:"thumbprint"`
	CACertificate     types.String   `tfsdk:"ca_certificate"`
	TimeZone          types.String   `tfsdk:"time_zone"`
	SlotCapacity      types.Int64    `tfsdk:"slot_capacity"`
	Limits            types.Object   `tfsdk:"limits"`
	Transport         types.String   `tfsdk:"transport"`
	TagMappings       types.Set      `tfsdk:"tag_mappings"`
	InstanceUUID      types.String   `tfsdk:"instance_uuid"`
	CreatedAt         types.String   `tfsdk:"created_at"`
	Timeouts          timeouts.Value `tfsdk:"timeouts"`
}

type limitsModel struct {
	DisksPerHost     types.Int64 `tfsdk:"disks_per_host"`
	Disks            types.Int64 `tfsdk:"disks"`
	JobsPerDatastore types.Int64 `tfsdk:"jobs_per_datastore"`
	RestoresPerPool  types.Int64 `tfsdk:"restores_per_pool"`
	BytesPerSecond   types.Int64 `tfsdk:"bytes_per_second"`
}

func (limitsModel) types() map[string]attr.Type {
	return map[string]attr.Type{
		"disks_per_host": types.Int64Type, "disks": types.Int64Type, "jobs_per_datastore": types.Int64Type,
		"restores_per_pool": types.Int64Type, "bytes_per_second": types.Int64Type,
	}
}

// The limits that hold where none are given.
const (
	defaultDisksPerHost     = 20
	defaultDisks            = 52
	defaultJobsPerDatastore = 4
	defaultRestoresPerPool  = 1
)

func defaultLimits() types.Object {
	return types.ObjectValueMust(limitsModel{}.types(), map[string]attr.Value{
		"disks_per_host": types.Int64Value(defaultDisksPerHost), "disks": types.Int64Value(defaultDisks),
		"jobs_per_datastore": types.Int64Value(defaultJobsPerDatastore), "restores_per_pool": types.Int64Value(defaultRestoresPerPool),
		"bytes_per_second": types.Int64Value(0),
	})
}

type tagMappingModel struct {
	Category types.String `tfsdk:"category"`
	Tag      types.String `tfsdk:"tag"`
	Key      types.String `tfsdk:"key"`
	Value    types.String `tfsdk:"value"`
}

func (tagMappingModel) types() map[string]attr.Type {
	return map[string]attr.Type{"category": types.StringType, "tag": types.StringType, "key": types.StringType, "value": types.StringType}
}

// wire is the vcenter as the API wants it, without a password.
func (m vcenterModel) wire(ctx context.Context, diags *diag.Diagnostics) api.VCenter {
	v := api.VCenter{
		Name:          m.Name.ValueString(),
		Endpoint:      m.Endpoint.ValueString(),
		Username:      m.Username.ValueString(),
		Thumbprint:    m.Thumbprint.ValueString(),
		CACertificate: m.CACertificate.ValueString(),
		TimeZone:      m.TimeZone.ValueString(),
		SlotCapacity:  int(m.SlotCapacity.ValueInt64()),
		Transport:     api.Transport(m.Transport.ValueString()),
	}
	if l := read[limitsModel](ctx, m.Limits, diags); l != nil {
		v.Limits = &api.VCenterLimits{
			DisksPerHost: int(l.DisksPerHost.ValueInt64()), Disks: int(l.Disks.ValueInt64()),
			JobsPerDatastore: int(l.JobsPerDatastore.ValueInt64()), RestoresPerPool: int(l.RestoresPerPool.ValueInt64()),
			BytesPerSecond: l.BytesPerSecond.ValueInt64(),
		}
	}
	for _, t := range items[tagMappingModel](ctx, m.TagMappings, diags) {
		v.TagMappings = append(v.TagMappings, api.TagMapping{
			Category: t.Category.ValueString(), Tag: t.Tag.ValueString(), Key: t.Key.ValueString(), Value: t.Value.ValueString(),
		})
	}
	return v
}

// take brings what the server answered into the model.
func (m *vcenterModel) take(ctx context.Context, v api.VCenter, diags *diag.Diagnostics) {
	m.ID = types.StringValue(v.ID)
	m.Name = types.StringValue(v.Name)
	if bareEndpoint(m.Endpoint.ValueString()) != bareEndpoint(v.Endpoint) {
		m.Endpoint = types.StringValue(v.Endpoint)
	}
	m.Username = types.StringValue(v.Username)
	if bareHex(m.Thumbprint.ValueString()) != bareHex(v.Thumbprint) {
		m.Thumbprint = keepText(m.Thumbprint, v.Thumbprint)
	}
	if strings.TrimSpace(m.CACertificate.ValueString()) != strings.TrimSpace(v.CACertificate) {
		m.CACertificate = keepText(m.CACertificate, v.CACertificate)
	}
	m.TimeZone = types.StringValue(v.TimeZone)
	m.SlotCapacity = types.Int64Value(int64(v.SlotCapacity))
	if l := v.Limits; l != nil {
		m.Limits = object(ctx, &limitsModel{
			DisksPerHost: types.Int64Value(int64(l.DisksPerHost)), Disks: types.Int64Value(int64(l.Disks)),
			JobsPerDatastore: types.Int64Value(int64(l.JobsPerDatastore)), RestoresPerPool: types.Int64Value(int64(l.RestoresPerPool)),
			BytesPerSecond: types.Int64Value(l.BytesPerSecond),
		}, diags)
	}
	m.Transport = types.StringValue(string(v.Transport))
	var mappings []tagMappingModel
	for _, t := range v.TagMappings {
		mappings = append(mappings, tagMappingModel{
			Category: types.StringValue(t.Category), Tag: types.StringValue(t.Tag), Key: types.StringValue(t.Key), Value: types.StringValue(t.Value),
		})
	}
	m.TagMappings = keepObjects(ctx, m.TagMappings, mappings, diags)
	m.InstanceUUID = text(v.InstanceUUID)
	m.CreatedAt = instant(v.CreatedAt)
}

// bareEndpoint is an endpoint without what makes no difference.
func bareEndpoint(s string) string {
	s = strings.TrimSuffix(strings.ToLower(s), "/")
	return strings.TrimSuffix(s, "/sdk")
}

// bareHex is a thumbprint without what makes no difference.
func bareHex(s string) string {
	return strings.ToLower(strings.ReplaceAll(s, ":", ""))
}

func (m *vcenterModel) id() types.String         { return m.ID }
func (m *vcenterModel) timeouts() timeouts.Value { return m.Timeouts }
