package provider

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"
)

// The keep functions bring a server's value into a model. Where the server
// leaves out what is empty, they keep the way in which the configuration said
// so ("" or nothing at all), so that nothing differs that means the same.

func keepText(prior types.String, v string) types.String {
	if v == "" && (prior.IsNull() || prior.IsUnknown()) {
		return types.StringNull()
	}
	return types.StringValue(v)
}

func keepInt(prior types.Int64, v int) types.Int64 {
	if v == 0 && (prior.IsNull() || prior.IsUnknown()) {
		return types.Int64Null()
	}
	return types.Int64Value(int64(v))
}

func keepBool(prior types.Bool, v bool) types.Bool {
	if !v && (prior.IsNull() || prior.IsUnknown()) {
		return types.BoolNull()
	}
	return types.BoolValue(v)
}

func keepStrings(ctx context.Context, prior types.Map, v map[string]string, diags *diag.Diagnostics) types.Map {
	if len(v) == 0 && (prior.IsNull() || prior.IsUnknown()) {
		return types.MapNull(types.StringType)
	}
	if v == nil {
		v = map[string]string{}
	}
	m, d := types.MapValueFrom(ctx, types.StringType, v)
	diags.Append(d...)
	return m
}

// keepSet is for sets of values of one simple type.
func keepSet[T any](ctx context.Context, prior types.Set, of attr.Type, v []T, diags *diag.Diagnostics) types.Set {
	if len(v) == 0 && (prior.IsNull() || prior.IsUnknown()) {
		return types.SetNull(of)
	}
	if v == nil {
		v = []T{}
	}
	s, d := types.SetValueFrom(ctx, of, v)
	diags.Append(d...)
	return s
}

// items reads a set or a list; what is null or not known gives nil.
func items[T any](ctx context.Context, from collection, diags *diag.Diagnostics) []T {
	if from.IsNull() || from.IsUnknown() {
		return nil
	}
	var out []T
	diags.Append(from.ElementsAs(ctx, &out, false)...)
	return out
}

type collection interface {
	attr.Value
	ElementsAs(ctx context.Context, target any, allowUnhandled bool) diag.Diagnostics
}

// texts reads a map of strings; what is null or not known gives nil.
func texts(ctx context.Context, from types.Map, diags *diag.Diagnostics) map[string]string {
	if from.IsNull() || from.IsUnknown() || len(from.Elements()) == 0 {
		return nil
	}
	var out map[string]string
	diags.Append(from.ElementsAs(ctx, &out, false)...)
	return out
}

// shape is a struct that stands for a nested attribute.
type shape interface {
	types() map[string]attr.Type
}

// read returns the nested attribute as its struct, nil when it is null or not known.
func read[T shape](ctx context.Context, o types.Object, diags *diag.Diagnostics) *T {
	if o.IsNull() || o.IsUnknown() {
		return nil
	}
	var out T
	diags.Append(o.As(ctx, &out, basetypes.ObjectAsOptions{})...)
	return &out
}

// object is the reverse of read.
func object[T shape](ctx context.Context, v *T, diags *diag.Diagnostics) types.Object {
	var zero T
	if v == nil {
		return types.ObjectNull(zero.types())
	}
	o, d := types.ObjectValueFrom(ctx, zero.types(), v)
	diags.Append(d...)
	return o
}

// keepObjects is keepSet for nested attributes.
func keepObjects[T shape](ctx context.Context, prior types.Set, v []T, diags *diag.Diagnostics) types.Set {
	var zero T
	return keepSet(ctx, prior, types.ObjectType{AttrTypes: zero.types()}, v, diags)
}

// rows is a list of nested attributes; no items give an empty list.
func rows[T shape](ctx context.Context, v []T, diags *diag.Diagnostics) types.List {
	var zero T
	if v == nil {
		v = []T{}
	}
	l, d := types.ListValueFrom(ctx, types.ObjectType{AttrTypes: zero.types()}, v)
	diags.Append(d...)
	return l
}

// instant is a time as text, null for none.
func instant(t time.Time) types.String {
	if t.IsZero() {
		return types.StringNull()
	}
	return types.StringValue(t.Format(time.RFC3339))
}

// text is a string that may be absent.
func text(v string) types.String {
	if v == "" {
		return types.StringNull()
	}
	return types.StringValue(v)
}

func textOf[T ~string](v types.String) T { return T(v.ValueString()) }

func sorted[M ~map[string]V, V any](m M) []string { return slices.Sorted(maps.Keys(m)) }

// instantOf reads a time that is known and not null.
func instantOf(v timetypes.RFC3339, diags *diag.Diagnostics) time.Time {
	t, more := v.ValueRFC3339Time()
	diags.Append(more...)
	return t
}
