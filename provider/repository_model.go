package provider

import (
	"context"
	"maps"
	"strconv"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type repositoryModel struct {
	ID                types.String   `tfsdk:"id"`
	Name              types.String   `tfsdk:"name"`
	Filesystem        types.Object   `tfsdk:"filesystem"`
	S3                types.Object   `tfsdk:"s3"`
	SFTP              types.Object   `tfsdk:"sftp"`
	WebDAV            types.Object   `tfsdk:"webdav"`
	PasswordWO        types.String   `tfsdk:"password_wo"`
	PasswordWOVersion types.Int64    `tfsdk:"password_wo_version"`
	Compression       types.String   `tfsdk:"compression"`
	VerifyDays        types.Int64    `tfsdk:"verify_days"`
	Default           types.Bool     `tfsdk:"default"`
	ReadOnly          types.Bool     `tfsdk:"read_only"`
	ForgetImages      types.Bool     `tfsdk:"forget_images_on_destroy"`
	CreatedAt         types.String   `tfsdk:"created_at"`
	Timeouts          timeouts.Value `tfsdk:"timeouts"`
}

var repositoryKinds = []string{"filesystem", "s3", "sftp", "webdav"}

// storageFields are the attributes of the kinds of storage, and how the API
// calls them. Each is a text, but for tls, port, and object_lock, which are two
// settings.
var storageFields = []struct {
	attribute, setting string
	secret             bool
}{
	{attribute: "path", setting: "path"},
	{attribute: "endpoint", setting: "endpoint"},
	{attribute: "bucket", setting: "bucket"},
	{attribute: "prefix", setting: "prefix"},
	{attribute: "region", setting: "region"},
	{attribute: "ca_certificate", setting: "ca_certificate"},
	{attribute: "tls", setting: "tls"},
	{attribute: "object_lock", setting: "lock_mode"},
	{attribute: "object_lock", setting: "lock_days"},
	{attribute: "host", setting: "host"},
	{attribute: "port", setting: "port"},
	{attribute: "user", setting: "user"},
	{attribute: "known_hosts", setting: "known_hosts"},
	{attribute: "url", setting: "url"},
	{attribute: "username", setting: "username"},
	{attribute: "access_key_wo", setting: "access_key_id", secret: true},
	{attribute: "secret_key_wo", setting: "secret_access_key", secret: true},
	{attribute: "private_key_wo", setting: "private_key", secret: true},
	{attribute: "http_password_wo", setting: "http_password", secret: true},
}

// withoutAttributes leaves of a repository's settings those that no attribute
// gives anew.
func withoutAttributes(settings map[string]string) map[string]string {
	left := maps.Clone(settings)
	for _, f := range storageFields {
		if !f.secret {
			delete(left, f.setting)
		}
	}
	return left
}

// storage is the kind that is configured, and its place in the model.
func (m *repositoryModel) storage() (kind string, at *types.Object) {
	all := map[string]*types.Object{"filesystem": &m.Filesystem, "s3": &m.S3, "sftp": &m.SFTP, "webdav": &m.WebDAV}
	for _, kind := range repositoryKinds {
		if !all[kind].IsNull() {
			return kind, all[kind]
		}
	}
	return "", nil
}

// settings are those of the storage that are secret or are not.
func (m *repositoryModel) settings(ctx context.Context, secret bool, diags *diag.Diagnostics) map[string]string {
	out := map[string]string{}
	_, at := m.storage()
	if at == nil {
		return out
	}
	values := at.Attributes()
	for _, f := range storageFields {
		if f.secret != secret {
			continue
		}
		switch v := values[f.attribute].(type) {
		case types.String:
			if !v.IsNull() {
				out[f.setting] = v.ValueString()
			}
		case types.Int64:
			out[f.setting] = strconv.FormatInt(v.ValueInt64(), 10)
		case types.Bool:
			out[f.setting] = strconv.FormatBool(v.ValueBool())
		case types.Object:
			if l := read[objectLockModel](ctx, v, diags); l != nil {
				out["lock_mode"], out["lock_days"] = l.Mode.ValueString(), strconv.FormatInt(l.Days.ValueInt64(), 10)
			}
		}
	}
	return out
}

// secrets are in the configuration alone.
func (m *repositoryModel) secrets(ctx context.Context, diags *diag.Diagnostics) map[string]string {
	return m.settings(ctx, true, diags)
}

// secretsVersion is the number that tells when to send the secrets anew.
func (m *repositoryModel) secretsVersion() types.Int64 {
	if _, at := m.storage(); at != nil {
		if v, ok := at.Attributes()["secrets_wo_version"].(types.Int64); ok {
			return v
		}
	}
	return types.Int64Null()
}

type objectLockModel struct {
	Mode types.String `tfsdk:"mode"`
	Days types.Int64  `tfsdk:"days"`
}

func (objectLockModel) types() map[string]attr.Type {
	return map[string]attr.Type{"mode": types.StringType, "days": types.Int64Type}
}

// wire is the repository as the API wants it, without its secrets.
func (m *repositoryModel) wire(ctx context.Context, diags *diag.Diagnostics) api.Repository {
	kind, _ := m.storage()
	return api.Repository{
		Name: m.Name.ValueString(), Kind: kind, Settings: m.settings(ctx, false, diags),
		Compression: m.Compression.ValueString(), VerifyDays: int(m.VerifyDays.ValueInt64()), ReadOnly: m.ReadOnly.ValueBool(),
	}
}

// take brings what the server answered into the model.
func (m *repositoryModel) take(ctx context.Context, r api.Repository, diags *diag.Diagnostics) {
	m.ID, m.Name, m.CreatedAt = types.StringValue(r.ID), types.StringValue(r.Name), instant(r.CreatedAt)
	m.Compression, m.VerifyDays = types.StringValue(r.Compression), types.Int64Value(int64(r.VerifyDays))
	m.Default, m.ReadOnly = types.BoolValue(r.Default), types.BoolValue(r.ReadOnly)
	m.PasswordWO = types.StringNull()
	if m.ForgetImages.IsNull() || m.ForgetImages.IsUnknown() {
		m.ForgetImages = types.BoolValue(false)
	}
	prior := map[string]types.Object{"filesystem": m.Filesystem, "s3": m.S3, "sftp": m.SFTP, "webdav": m.WebDAV}
	at := map[string]*types.Object{"filesystem": &m.Filesystem, "s3": &m.S3, "sftp": &m.SFTP, "webdav": &m.WebDAV}
	for _, kind := range repositoryKinds {
		*at[kind] = types.ObjectNull(storageTypes[kind])
	}
	if to := at[r.Kind]; to != nil {
		*to = takeStorage(ctx, storageTypes[r.Kind], prior[r.Kind], r.Settings, diags)
	}
}

// storageTypes are the attributes of each kind of storage.
var storageTypes = map[string]map[string]attr.Type{
	"filesystem": {"path": types.StringType},
	"s3": {
		"endpoint": types.StringType, "bucket": types.StringType, "prefix": types.StringType, "region": types.StringType,
		"ca_certificate": types.StringType, "tls": types.BoolType, "access_key_wo": types.StringType, "secret_key_wo": types.StringType,
		"secrets_wo_version": types.Int64Type, "object_lock": types.ObjectType{AttrTypes: objectLockModel{}.types()},
	},
	"sftp": {
		"host": types.StringType, "port": types.Int64Type, "user": types.StringType, "path": types.StringType, "known_hosts": types.StringType,
		"private_key_wo": types.StringType, "secrets_wo_version": types.Int64Type,
	},
	"webdav": {
		"url": types.StringType, "username": types.StringType, "ca_certificate": types.StringType,
		"http_password_wo": types.StringType, "secrets_wo_version": types.Int64Type,
	},
}

// takeStorage makes a kind's attributes of the server's settings. Secrets are
// in no state; their version is Terraform's own.
func takeStorage(ctx context.Context, kinds map[string]attr.Type, prior types.Object, settings map[string]string, diags *diag.Diagnostics) types.Object {
	values := map[string]attr.Value{}
	before := prior.Attributes()
	if v, ok := before["secrets_wo_version"].(types.Int64); ok {
		values["secrets_wo_version"] = v
	} else if kinds["secrets_wo_version"] != nil {
		values["secrets_wo_version"] = types.Int64Null()
	}
	for _, f := range storageFields {
		given := settings[f.setting]
		switch kinds[f.attribute].(type) {
		case basetypes.StringType:
			was, _ := before[f.attribute].(types.String)
			if values[f.attribute] = keepText(was, given); f.secret {
				values[f.attribute] = types.StringNull()
			}
		case basetypes.Int64Type:
			n, err := strconv.ParseInt(given, 10, 64)
			if err != nil {
				n = 22 // the port is left out where it is the standard one
			}
			values[f.attribute] = types.Int64Value(n)
		case basetypes.BoolType:
			values[f.attribute] = types.BoolValue(given != "false")
		case basetypes.ObjectType:
			var lock *objectLockModel
			if days, err := strconv.ParseInt(settings["lock_days"], 10, 64); err == nil {
				lock = &objectLockModel{Mode: types.StringValue(settings["lock_mode"]), Days: types.Int64Value(days)}
			}
			values[f.attribute] = object(ctx, lock, diags)
		}
	}
	o, more := types.ObjectValue(kinds, values)
	diags.Append(more...)
	return o
}

func (m *repositoryModel) id() types.String         { return m.ID }
func (m *repositoryModel) timeouts() timeouts.Value { return m.Timeouts }
