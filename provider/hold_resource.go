package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var (
	_ resource.ResourceWithConfigure   = (*holdResource)(nil)
	_ resource.ResourceWithIdentity    = (*holdResource)(nil)
	_ resource.ResourceWithImportState = (*holdResource)(nil)
)

type holdResource struct{ resourceConnection }

type holdModel struct {
	ID        types.String      `tfsdk:"id"`
	ImageID   types.String      `tfsdk:"image_id"`
	Until     timetypes.RFC3339 `tfsdk:"until"`
	Reason    types.String      `tfsdk:"reason"`
	CreatedBy types.String      `tfsdk:"created_by"`
	CreatedAt types.String      `tfsdk:"created_at"`
	Timeouts  timeouts.Value    `tfsdk:"timeouts"`
}

func (r *holdResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "kura_image_hold"
}

func (r *holdResource) IdentitySchema(_ context.Context, _ resource.IdentitySchemaRequest, resp *resource.IdentitySchemaResponse) {
	resp.IdentitySchema = identitySchema("hold, IMAGE_ID/HOLD_ID")
}

func (r *holdResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	kept := []planmodifier.String{stringplanmodifier.UseStateForUnknown()}
	resp.Schema = schema.Schema{
		MarkdownDescription: "Keeps one image, whatever its retention says, until an instant or until the hold is destroyed. " +
			"An image may have several holds: it stays until the last is over.\n\n" +
			"Destroying the hold gives the image back to its retention: one whose time is over goes with the next expiry, within minutes.",
		Attributes: map[string]schema.Attribute{
			"id": schema.StringAttribute{Computed: true, MarkdownDescription: "`IMAGE_ID/HOLD_ID`, by which it is imported.", PlanModifiers: kept},
			"image_id": schema.StringAttribute{
				Required: true, MarkdownDescription: "Id of the image. Another one makes another hold.",
				PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
				Validators:    []validator.String{stringvalidator.LengthBetween(1, 128)},
			},
			"until": schema.StringAttribute{
				Optional: true, CustomType: timetypes.RFC3339Type{},
				MarkdownDescription: "When the hold ends, RFC 3339. Without it, it lasts until it is destroyed.",
			},
			"reason": schema.StringAttribute{
				Optional: true, MarkdownDescription: "Why; told to whoever wants to delete the image. At most 1024 characters.",
				Validators: []validator.String{stringvalidator.UTF8LengthAtMost(1024)},
			},
			"created_by": schema.StringAttribute{Computed: true, MarkdownDescription: "Name of the token that made it.", PlanModifiers: kept},
			"created_at": createdAtAttribute(),
			"timeouts":   timeoutsAttribute(ctx, changeTimeouts),
		},
	}
}

func (r *holdResource) refusal(s schema.Schema) refusal {
	return refusal{conn: r.conn, schema: &s, fallback: path.Root("image_id"), advice: map[api.ErrorCode]string{
		api.ErrorCodeNotFound: "Look images up with the data source kura_backup_images; expired ones are gone.",
	}}
}

func (r *holdResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	createObject(ctx, r.refusal, req, resp, func(ctx context.Context, m *holdModel) (api.ImageHold, error) {
		body := m.wire(&resp.Diagnostics)
		if resp.Diagnostics.HasError() {
			return body, nil
		}
		return made(r.conn.client.HoldBackupImageWithResponse(ctx, m.ImageID.ValueString(), &api.HoldBackupImageParams{IdempotencyKey: newKey()}, body))
	})
}

func (r *holdResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	readObject[holdModel](ctx, r.resourceConnection, r.refusal, req, resp, r.find)
}

// find looks for a hold by IMAGE_ID/HOLD_ID among those of its image.
func (r *holdResource) find(ctx context.Context, id string) (api.ImageHold, error) {
	image, hold, ok := strings.Cut(id, "/")
	if !ok || image == "" || hold == "" {
		return api.ImageHold{}, &api.Problem{
			Title: "Import needs image and hold", Code: api.ErrorCodeInvalid, Field: "image_id",
			Detail: fmt.Sprintf("A hold is imported by IMAGE_ID/HOLD_ID, got %q.\nThe holds of an image: kura image show IMAGE_ID", id),
		}
	}
	all, err := found(r.conn.client.ListImageHoldsWithResponse(ctx, image))
	if err != nil {
		return api.ImageHold{}, err
	}
	for _, h := range all.Items {
		if h.ID == hold {
			return h, nil
		}
	}
	return api.ImageHold{}, gone404
}

func (r *holdResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	updateObject(ctx, r.refusal, req, resp, func(ctx context.Context, m *holdModel) (api.ImageHold, error) {
		body := m.wire(&resp.Diagnostics)
		if resp.Diagnostics.HasError() {
			return body, nil
		}
		return found(r.conn.client.ChangeImageHoldWithResponse(ctx, m.ImageID.ValueString(), m.holdID(), body))
	})
}

func (r *holdResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	deleteObject(ctx, r.refusal, req, resp, func(ctx context.Context, m *holdModel) error {
		return gone(r.conn.client.ReleaseImageHoldWithResponse(ctx, m.ImageID.ValueString(), m.holdID()))
	})
}

func (r *holdResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	importObject(ctx, r.resourceConnection, "hold", nil, req, resp)
}

func (m *holdModel) wire(diags *diag.Diagnostics) api.ImageHold {
	h := api.ImageHold{Reason: m.Reason.ValueString()}
	if !m.Until.IsNull() {
		h.Until = instantOf(m.Until, diags)
	}
	return h
}

func (m *holdModel) take(_ context.Context, h api.ImageHold, diags *diag.Diagnostics) {
	m.ID = types.StringValue(h.ImageID + "/" + h.ID)
	m.ImageID = types.StringValue(h.ImageID)
	switch {
	case h.Until.IsZero():
		m.Until = timetypes.NewRFC3339Null()
	case m.Until.IsNull() || m.Until.IsUnknown() || !instantOf(m.Until, diags).Equal(h.Until): // one instant may be written in several ways
		m.Until = timetypes.NewRFC3339TimeValue(h.Until)
	}
	m.Reason = keepText(m.Reason, h.Reason)
	m.CreatedBy, m.CreatedAt = types.StringValue(h.CreatedBy), instant(h.CreatedAt)
}

// holdID is the hold's own part of the id.
func (m *holdModel) holdID() string {
	_, id, _ := strings.Cut(m.ID.ValueString(), "/")
	return id
}

func (m *holdModel) id() types.String         { return m.ID }
func (m *holdModel) timeouts() timeouts.Value { return m.Timeouts }
