package provider

import (
	"context"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var (
	_ ephemeral.EphemeralResourceWithConfigure = (*tokenEphemeral)(nil)
	_ ephemeral.EphemeralResourceWithClose     = (*tokenEphemeral)(nil)
)

type tokenEphemeral struct{ conn *connection }

type tokenModel struct {
	Name      types.String `tfsdk:"name"`
	Role      types.String `tfsdk:"role"`
	Lifetime  types.String `tfsdk:"lifetime"`
	ID        types.String `tfsdk:"id"`
	Token     types.String `tfsdk:"token"`
	ExpiresAt types.String `tfsdk:"expires_at"`
}

// tokenLifetime is how long a token is valid, if nothing else is said.
const tokenLifetime = time.Hour

// tokenID is where Open leaves for Close which token to revoke.
const tokenID = "token_id"

func (e *tokenEphemeral) Metadata(_ context.Context, _ ephemeral.MetadataRequest, resp *ephemeral.MetadataResponse) {
	resp.TypeName = "kura_access_token"
}

func (e *tokenEphemeral) Schema(_ context.Context, _ ephemeral.SchemaRequest, resp *ephemeral.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "A token that lives as long as the run: made when it is needed, revoked when the run ends, and in neither plan nor state. " +
			"For what a run calls on its own, such as the `kura` command, with a role of its own. Needs Terraform 1.10, and a provider token of the role `operator`.",
		Attributes: map[string]schema.Attribute{
			"role": schema.StringAttribute{
				Required: true, MarkdownDescription: "What it may do: `viewer`, `backup`, `restorer` or `operator`.",
				Validators: []validator.String{stringvalidator.OneOf("viewer", "backup", "restorer", "operator")},
			},
			"name": schema.StringAttribute{
				Optional: true, MarkdownDescription: "What the server lists it by, followed by a random part. Default `terraform`.",
				Validators: []validator.String{stringvalidator.UTF8LengthBetween(1, 100)},
			},
			"lifetime": schema.StringAttribute{
				Optional: true, MarkdownDescription: "How long it is valid when the run cannot revoke it, such as `30m`. At least a minute. Default `1h`.",
				Validators: []validator.String{duration{}},
			},
			"id":         schema.StringAttribute{Computed: true, MarkdownDescription: "Id of the token."},
			"token":      schema.StringAttribute{Computed: true, Sensitive: true, MarkdownDescription: "The token itself."},
			"expires_at": schema.StringAttribute{Computed: true, MarkdownDescription: "When it is valid no more, RFC 3339."},
		},
	}
}

func (e *tokenEphemeral) Configure(_ context.Context, req ephemeral.ConfigureRequest, _ *ephemeral.ConfigureResponse) {
	e.conn, _ = req.ProviderData.(*connection)
}

// Open makes the token.
func (e *tokenEphemeral) Open(ctx context.Context, req ephemeral.OpenRequest, resp *ephemeral.OpenResponse) {
	var m tokenModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if ready := (&dataSourceConnection{e.conn}).ready(&resp.Diagnostics); !ready || resp.Diagnostics.HasError() {
		return
	}
	life := tokenLifetime
	if !m.Lifetime.IsNull() {
		var err error
		if life, err = time.ParseDuration(m.Lifetime.ValueString()); err != nil || life < time.Minute {
			resp.Diagnostics.AddAttributeError(path.Root("lifetime"), "Lifetime is too short", "A token lives for a minute at least, got "+m.Lifetime.String()+".\nSet lifetime = \"30m\".")
			return
		}
	}
	name := "terraform"
	if !m.Name.IsNull() {
		name = m.Name.ValueString()
	}
	t, err := made(e.conn.client.CreateTokenWithResponse(ctx, api.Token{
		Name: name + "-" + strings.ToLower(newKey()[:8]), Role: textOf[api.Role](m.Role), ExpiresAt: time.Now().Add(life).UTC().Truncate(time.Second),
	}))
	if err != nil {
		refusal{conn: e.conn, fallback: path.Root("role")}.add(&resp.Diagnostics, err)
		return
	}
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, tokenID, []byte(`"`+t.ID+`"`))...)
	m.ID, m.Token, m.ExpiresAt = types.StringValue(t.ID), types.StringValue(t.Text), instant(t.ExpiresAt)
	resp.Diagnostics.Append(resp.Result.Set(ctx, m)...)
}

// Close revokes it.
func (e *tokenEphemeral) Close(ctx context.Context, req ephemeral.CloseRequest, resp *ephemeral.CloseResponse) {
	id, diags := req.Private.GetKey(ctx, tokenID)
	resp.Diagnostics.Append(diags...)
	if len(id) == 0 || e.conn == nil || e.conn.pending {
		return
	}
	if err := gone(e.conn.client.RevokeTokenWithResponse(ctx, strings.Trim(string(id), `"`))); err != nil {
		refusal{conn: e.conn}.warn(&resp.Diagnostics, err) // it ends by itself
	}
}
