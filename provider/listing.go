package provider

import (
	"context"
	"iter"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"
)

// column is one attribute that a look-up tells of an A.
type column[A any] struct {
	name, about string
	kind        attr.Type
	of          func(A) attr.Value
}

func textColumn[A any](name, about string, of func(A) string) column[A] {
	return column[A]{name, about, types.StringType, func(a A) attr.Value { return text(of(a)) }}
}

func timeColumn[A any](name, about string, of func(A) time.Time) column[A] {
	return column[A]{name, about + ", RFC 3339", types.StringType, func(a A) attr.Value { return instant(of(a)) }}
}

func numberColumn[A any](name, about string, of func(A) int64) column[A] {
	return column[A]{name, about, types.Int64Type, func(a A) attr.Value { return types.Int64Value(of(a)) }}
}

func switchColumn[A any](name, about string, of func(A) bool) column[A] {
	return column[A]{name, about, types.BoolType, func(a A) attr.Value { return types.BoolValue(of(a)) }}
}

func textsColumn[A any](name, about string, of func(A) []string) column[A] {
	return column[A]{name, about, types.ListType{ElemType: types.StringType}, func(a A) attr.Value {
		all := []attr.Value{}
		for _, v := range of(a) {
			all = append(all, types.StringValue(v))
		}
		return types.ListValueMust(types.StringType, all)
	}}
}

func labelsColumn[A any](of func(A) map[string]string) column[A] {
	return column[A]{"labels", "Its labels", types.MapType{ElemType: types.StringType}, func(a A) attr.Value {
		all := map[string]attr.Value{}
		for k, v := range of(a) {
			all[k] = types.StringValue(v)
		}
		return types.MapValueMust(types.StringType, all)
	}}
}

func (c column[A]) attribute() schema.Attribute {
	about := c.about + "."
	switch kind := c.kind.(type) {
	case basetypes.Int64Type:
		return schema.Int64Attribute{Computed: true, MarkdownDescription: about}
	case basetypes.BoolType:
		return schema.BoolAttribute{Computed: true, MarkdownDescription: about}
	case basetypes.ListType:
		return schema.ListAttribute{Computed: true, ElementType: kind.ElemType, MarkdownDescription: about}
	case basetypes.MapType:
		return schema.MapAttribute{Computed: true, ElementType: kind.ElemType, MarkdownDescription: about}
	}
	return schema.StringAttribute{Computed: true, MarkdownDescription: about}
}

type columns[A any] []column[A]

func (c columns[A]) attributes() map[string]schema.Attribute {
	out := map[string]schema.Attribute{}
	for _, one := range c {
		out[one.name] = one.attribute()
	}
	return out
}

func (c columns[A]) row(a A) (map[string]attr.Type, map[string]attr.Value) {
	kinds, values := map[string]attr.Type{}, map[string]attr.Value{}
	for _, one := range c {
		kinds[one.name], values[one.name] = one.kind, one.of(a)
	}
	return kinds, values
}

func (c columns[A]) list(all []A, diags *diag.Diagnostics) types.List {
	var none A
	kinds, _ := c.row(none)
	rows := []attr.Value{}
	for _, a := range all {
		_, values := c.row(a)
		rows = append(rows, types.ObjectValueMust(kinds, values))
	}
	l, more := types.ListValue(types.ObjectType{AttrTypes: kinds}, rows)
	diags.Append(more...)
	return l
}

// listing is a data source that lists the server's objects of kind A.
type listing[A any] struct {
	dataSourceConnection
	name, about string // of the data source
	rows        string // its attribute that holds the objects
	filters     map[string]schema.StringAttribute
	columns     columns[A]
	limit       int // objects at most; 0 = all
	all         func(ctx context.Context, c *connection, filter func(name string) string) iter.Seq2[A, error]
}

func (d *listing[A]) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = d.name
}

func (d *listing[A]) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	attributes := map[string]schema.Attribute{d.rows: schema.ListNestedAttribute{
		Computed: true, MarkdownDescription: "What was found; it is no error when that is nothing.",
		NestedObject: schema.NestedAttributeObject{Attributes: d.columns.attributes()},
	}}
	for name, a := range d.filters {
		a.Optional = true
		attributes[name] = a
	}
	resp.Schema = schema.Schema{MarkdownDescription: d.about, Attributes: attributes}
}

func (d *listing[A]) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	if !d.ready(&resp.Diagnostics) {
		return
	}
	given := map[string]types.String{}
	for name := range d.filters {
		var v types.String
		resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root(name), &v)...)
		resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root(name), v)...)
		given[name] = v
	}
	if resp.Diagnostics.HasError() {
		return
	}
	var all []A
	for a, err := range d.all(ctx, d.conn, func(name string) string { return given[name].ValueString() }) {
		if err != nil {
			refusal{conn: d.conn, fallback: path.Root(d.rows)}.add(&resp.Diagnostics, err)
			return
		}
		if all = append(all, a); len(all) == d.limit {
			break
		}
	}
	resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root(d.rows), d.columns.list(all, &resp.Diagnostics))...)
}
