package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type usageModel struct {
	From     timetypes.RFC3339 `tfsdk:"from"`
	To       timetypes.RFC3339 `tfsdk:"to"`
	GroupBy  types.String      `tfsdk:"group_by"`
	StartsAt types.String      `tfsdk:"starts_at"`
	EndsAt   types.String      `tfsdk:"ends_at"`
	Items    types.List        `tfsdk:"items"`
	Total    types.Object      `tfsdk:"total"`
	Vanished types.Object      `tfsdk:"vanished"`
}

type usageSumModel struct {
	Images           types.Int64   `tfsdk:"images"`
	ImageHours       types.Int64   `tfsdk:"image_hours"`
	GiBHours         types.Float64 `tfsdk:"gib_hours"`
	ProvisionedBytes types.Int64   `tfsdk:"provisioned_bytes"`
	ReadBytes        types.Int64   `tfsdk:"read_bytes"`
	ChangedBytes     types.Int64   `tfsdk:"changed_bytes"`
	StoredBytes      types.Int64   `tfsdk:"stored_bytes"`
	Savings          types.Float64 `tfsdk:"savings"`
}

func (usageSumModel) types() map[string]attr.Type {
	return map[string]attr.Type{
		"images": types.Int64Type, "image_hours": types.Int64Type, "gib_hours": types.Float64Type,
		"provisioned_bytes": types.Int64Type, "read_bytes": types.Int64Type, "changed_bytes": types.Int64Type, "stored_bytes": types.Int64Type, "savings": types.Float64Type,
	}
}

type usageItemModel struct {
	ID       types.String `tfsdk:"id"`
	Name     types.String `tfsdk:"name"`
	Vanished types.Bool   `tfsdk:"vanished"`
	StartsAt types.String `tfsdk:"starts_at"`
	EndsAt   types.String `tfsdk:"ends_at"`
	usageSumModel
}

func (usageItemModel) types() map[string]attr.Type {
	all := usageSumModel{}.types()
	for name, of := range map[string]attr.Type{
		"id": types.StringType, "name": types.StringType, "vanished": types.BoolType, "starts_at": types.StringType, "ends_at": types.StringType,
	} {
		all[name] = of
	}
	return all
}

// take brings the server's answer into the model.
func (m *usageModel) take(ctx context.Context, u api.Usage, diags *diag.Diagnostics) {
	m.GroupBy = types.StringValue(string(u.GroupBy))
	m.StartsAt, m.EndsAt = instant(u.From), instant(u.To)
	list := make([]usageItemModel, len(u.Items))
	for n, i := range u.Items {
		list[n] = usageItemModel{ID: text(i.ID), Name: text(i.Name), Vanished: types.BoolValue(i.Vanished), StartsAt: instant(i.StartsAt), EndsAt: instant(i.EndsAt),
			usageSumModel: usageSumOf(api.UsageSum{Images: i.Images, ImageHours: i.ImageHours, GiBHours: i.GiBHours,
				ProvisionedBytes: i.ProvisionedBytes, ReadBytes: i.ReadBytes, ChangedBytes: i.ChangedBytes, StoredBytes: i.StoredBytes, Savings: i.Savings})}
	}
	m.Items = rows(ctx, list, diags)
	total, vanished := usageSumOf(u.Total), usageSumOf(u.Vanished)
	m.Total, m.Vanished = object(ctx, &total, diags), object(ctx, &vanished, diags)
}

func usageSumOf(u api.UsageSum) usageSumModel {
	return usageSumModel{
		Images: types.Int64Value(u.Images), ImageHours: types.Int64Value(u.ImageHours), GiBHours: types.Float64Value(u.GiBHours),
		ProvisionedBytes: types.Int64Value(u.ProvisionedBytes), ReadBytes: types.Int64Value(u.ReadBytes),
		ChangedBytes: types.Int64Value(u.ChangedBytes), StoredBytes: types.Int64Value(u.StoredBytes),
		Savings: types.Float64Value(u.Savings),
	}
}
