package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/datasourcevalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// lookup is a data source that tells of one object of kind A, by its id or by
// its name.
type lookup[A any] struct {
	dataSourceConnection
	noun, about string
	columns     columns[A] // id and name among them
	get         func(ctx context.Context, c *connection, id string) (A, error)
	named       func(ctx context.Context, c *connection, name string) ([]A, error)
}

func (d *lookup[A]) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "kura_backup_" + d.noun
}

func (d *lookup[A]) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	attributes := d.columns.attributes()
	for _, key := range []string{"id", "name"} {
		attributes[key] = schema.StringAttribute{
			Optional: true, Computed: true, MarkdownDescription: strings.ToUpper(key[:1]) + key[1:] + " of the " + d.noun + ".",
			Validators: []validator.String{stringvalidator.LengthBetween(1, 128)},
		}
	}
	resp.Schema = schema.Schema{MarkdownDescription: d.about, Attributes: attributes}
}

func (d *lookup[A]) ConfigValidators(context.Context) []datasource.ConfigValidator {
	return []datasource.ConfigValidator{datasourcevalidator.ExactlyOneOf(path.MatchRoot("id"), path.MatchRoot("name"))}
}

func (d *lookup[A]) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var id, name types.String
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root("id"), &id)...)
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root("name"), &name)...)
	if resp.Diagnostics.HasError() || !d.ready(&resp.Diagnostics) {
		return
	}
	a, err := d.find(ctx, id, name)
	if err != nil {
		refusal{conn: d.conn, fallback: path.Root("name")}.add(&resp.Diagnostics, err)
		return
	}
	_, values := d.columns.row(a)
	for name, value := range values {
		resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root(name), value)...)
	}
}

func (d *lookup[A]) find(ctx context.Context, id, name types.String) (A, error) {
	if !id.IsNull() {
		return d.get(ctx, d.conn, id.ValueString())
	}
	all, err := d.named(ctx, d.conn, name.ValueString())
	if err == nil && len(all) == 1 {
		return all[0], nil
	}
	var none A
	if err == nil {
		err = &api.Problem{
			Title: "No " + d.noun + " of that name", Code: api.ErrorCodeNotFound,
			Detail: fmt.Sprintf("The server has %d %ss named %s.\nList them: kura %s list.", len(all), d.noun, name, d.noun),
		}
	}
	return none, err
}
