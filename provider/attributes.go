package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/mapvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// Attributes that several resources have in common.

func idAttribute() schema.StringAttribute {
	return schema.StringAttribute{
		Computed: true, MarkdownDescription: "Id that the server gave.",
		PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
	}
}

func createdAtAttribute() schema.StringAttribute {
	return schema.StringAttribute{
		Computed: true, MarkdownDescription: "When it was made, RFC 3339.",
		PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
	}
}

func nameAttribute(noun string) schema.StringAttribute {
	return schema.StringAttribute{
		Required: true, MarkdownDescription: "Name of the " + noun + ", unique on the server. It may be changed.",
		Validators: []validator.String{nameLength()},
	}
}

func descriptionAttribute() schema.StringAttribute {
	return schema.StringAttribute{
		Optional: true, MarkdownDescription: "Free text, at most 1024 characters.",
		Validators: []validator.String{stringvalidator.UTF8LengthAtMost(1024)},
	}
}

func labelsAttribute() schema.MapAttribute {
	return schema.MapAttribute{
		Optional: true, ElementType: types.StringType,
		MarkdownDescription: "Labels for your own order, at most 64. Keys hold no `=`.",
		Validators: []validator.Map{
			mapvalidator.SizeAtMost(64), mapvalidator.NoNullValues(),
			mapvalidator.KeysAre(stringvalidator.UTF8LengthBetween(1, 256)),
			mapvalidator.ValueStringsAre(stringvalidator.UTF8LengthAtMost(256)),
		},
	}
}

func switchAttribute(on bool, description string) schema.BoolAttribute {
	return schema.BoolAttribute{
		Optional: true, Computed: true, Default: booldefault.StaticBool(on),
		MarkdownDescription: fmt.Sprintf("%s Default `%t`.", description, on),
	}
}

func numberAttribute(standard int64, description string, valid validator.Int64) schema.Int64Attribute {
	return schema.Int64Attribute{
		Optional: true, Computed: true, Default: int64default.StaticInt64(standard),
		MarkdownDescription: fmt.Sprintf("%s Default `%d`.", description, standard),
		Validators:          []validator.Int64{valid},
	}
}

func choiceAttribute(standard, description string, choices ...string) schema.StringAttribute {
	return schema.StringAttribute{
		Optional: true, Computed: true, Default: stringdefault.StaticString(standard),
		MarkdownDescription: description + " Default `" + standard + "`.",
		Validators:          []validator.String{stringvalidator.OneOf(choices...)},
	}
}

// timeoutsAttribute names the operations that wait, with their defaults.
func timeoutsAttribute(ctx context.Context, opts timeouts.Opts) schema.Attribute {
	a := timeouts.Attributes(ctx, opts)
	if nested, ok := a.(schema.SingleNestedAttribute); ok {
		nested.MarkdownDescription = "How long the operations may take, as durations such as `90s` or `8h`."
		return nested
	}
	return a
}

// requestTime is how long operations may take that only ask the server.
const requestTime = 5 * time.Minute

var changeTimeouts = timeouts.Opts{
	Create: true, CreateDescription: "Default `5m`.",
	Update: true, UpdateDescription: "Default `5m`.",
	Delete: true, DeleteDescription: "Default `5m`.",
}

// within bounds ctx by one of the resource's timeouts.
func within(ctx context.Context, timeout func(context.Context, time.Duration) (time.Duration, diag.Diagnostics), standard time.Duration, diags *diag.Diagnostics) (context.Context, context.CancelFunc) {
	d, more := timeout(ctx, standard)
	diags.Append(more...)
	return context.WithTimeout(ctx, d)
}
