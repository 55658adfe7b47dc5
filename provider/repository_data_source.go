package provider

import (
	"context"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework-validators/datasourcevalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var (
	_ datasource.DataSourceWithConfigure        = (*repositoryDataSource)(nil)
	_ datasource.DataSourceWithConfigValidators = (*repositoryDataSource)(nil)
)

type repositoryDataSource struct{ dataSourceConnection }

type repositoryFacts struct {
	ID          types.String `tfsdk:"id"`
	Name        types.String `tfsdk:"name"`
	Kind        types.String `tfsdk:"kind"`
	Settings    types.Map    `tfsdk:"settings"`
	Compression types.String `tfsdk:"compression"`
	Standard    types.Bool   `tfsdk:"default"`
	ReadOnly    types.Bool   `tfsdk:"read_only"`
	ImageCount  types.Int64  `tfsdk:"image_count"`
	StoredBytes types.Int64  `tfsdk:"stored_bytes"`
	FreeBytes   types.Int64  `tfsdk:"free_bytes"`
	CheckedAt   types.String `tfsdk:"checked_at"`
	CheckError  types.String `tfsdk:"check_error"`
}

func (d *repositoryDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "kura_repository"
}

func (d *repositoryDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	text := func(description string) schema.StringAttribute {
		return schema.StringAttribute{Computed: true, MarkdownDescription: description}
	}
	key := func(description string) schema.StringAttribute {
		return schema.StringAttribute{
			Optional: true, Computed: true, MarkdownDescription: description,
			Validators: []validator.String{stringvalidator.LengthBetween(1, 128)},
		}
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "A repository, where images are kept: by its name or its id.",
		Attributes: map[string]schema.Attribute{
			"id":           key("Id of the repository."),
			"name":         key("Name of the repository."),
			"kind":         text("Kind of storage, such as `filesystem`."),
			"settings":     schema.MapAttribute{Computed: true, ElementType: types.StringType, MarkdownDescription: "Where it lies, without secrets."},
			"compression":  text("How it compresses."),
			"default":      schema.BoolAttribute{Computed: true, MarkdownDescription: "It is taken where a schedule names none."},
			"read_only":    schema.BoolAttribute{Computed: true, MarkdownDescription: "Another installation owns it."},
			"image_count":  schema.Int64Attribute{Computed: true, MarkdownDescription: "Images in it."},
			"stored_bytes": schema.Int64Attribute{Computed: true, MarkdownDescription: "Bytes that it takes, as of `checked_at`."},
			"free_bytes":   schema.Int64Attribute{Computed: true, MarkdownDescription: "Free bytes of the storage, as of `checked_at`, where they are known."},
			"checked_at":   text("When it was last looked at, RFC 3339."),
			"check_error":  text("Why the last look failed."),
		},
	}
}

func (d *repositoryDataSource) ConfigValidators(context.Context) []datasource.ConfigValidator {
	return []datasource.ConfigValidator{datasourcevalidator.ExactlyOneOf(path.MatchRoot("id"), path.MatchRoot("name"))}
}

func (d *repositoryDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var m repositoryFacts
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() || !d.ready(&resp.Diagnostics) {
		return
	}
	r, err := d.find(ctx, m)
	if err != nil {
		refusal{conn: d.conn, fallback: path.Root("name")}.add(&resp.Diagnostics, err)
		return
	}
	m.ID, m.Name, m.Kind = types.StringValue(r.ID), types.StringValue(r.Name), types.StringValue(r.Kind)
	m.Settings = keepStrings(ctx, types.MapValueMust(types.StringType, nil), r.Settings, &resp.Diagnostics)
	m.Compression, m.Standard, m.ReadOnly = text(r.Compression), types.BoolValue(r.Default), types.BoolValue(r.ReadOnly)
	m.ImageCount, m.StoredBytes = types.Int64Value(int64(r.ImageCount)), types.Int64Value(r.StoredBytes)
	m.FreeBytes = types.Int64PointerValue(r.FreeBytes)
	m.CheckedAt, m.CheckError = instant(r.CheckedAt), text(r.CheckError)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

func (d *repositoryDataSource) find(ctx context.Context, m repositoryFacts) (api.Repository, error) {
	if !m.ID.IsNull() {
		return found(d.conn.client.GetRepositoryWithResponse(ctx, m.ID.ValueString()))
	}
	page, err := found(d.conn.client.ListRepositoriesWithResponse(ctx, &api.ListRepositoriesParams{Name: m.Name.ValueString()}))
	if err == nil && len(page.Items) == 0 {
		err = &api.Problem{
			Title: "No repository of that name", Code: api.ErrorCodeNotFound,
			Detail: fmt.Sprintf("The server has no repository named %s.\nList them: kura repository list.", m.Name),
		}
	}
	if err != nil {
		return api.Repository{}, err
	}
	return page.Items[0], nil
}
