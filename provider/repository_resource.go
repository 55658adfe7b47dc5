package provider

import (
	"context"
	"maps"

	"github.com/hashicorp/terraform-plugin-framework-validators/resourcevalidator"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var (
	_ resource.ResourceWithConfigure        = (*repositoryResource)(nil)
	_ resource.ResourceWithConfigValidators = (*repositoryResource)(nil)
	_ resource.ResourceWithIdentity         = (*repositoryResource)(nil)
	_ resource.ResourceWithImportState      = (*repositoryResource)(nil)
)

type repositoryResource struct{ resourceConnection }

func (r *repositoryResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "kura_repository"
}

func (r *repositoryResource) IdentitySchema(_ context.Context, _ resource.IdentitySchemaRequest, resp *resource.IdentitySchemaResponse) {
	resp.IdentitySchema = identitySchema("repository")
}

func (r *repositoryResource) ConfigValidators(context.Context) []resource.ConfigValidator {
	var kinds []path.Expression
	for _, kind := range repositoryKinds {
		kinds = append(kinds, path.MatchRoot(kind))
	}
	return []resource.ConfigValidator{resourcevalidator.ExactlyOneOf(kinds...)}
}

// refuser knows the kind of storage, once there is one: the API names its
// settings by their names alone.
func (r *repositoryResource) refuser(body *api.Repository) refuser {
	return func(s schema.Schema) refusal {
		renamed := map[string]string{"password": "password_wo", "kind": body.Kind, "settings": body.Kind}
		for _, f := range storageFields {
			renamed["settings."+f.setting] = body.Kind + "." + f.attribute
		}
		return refusal{conn: r.conn, schema: &s, fallback: path.Root("name"), renamed: renamed, advice: map[api.ErrorCode]string{
			api.ErrorCodeConflict: "To attach the one that lies there, give its password: password_wo = var.password, which its recovery sheet has. One that is registered already is imported: terraform import kura_repository.NAME name/<name>",
			api.ErrorCodeInUse:    "Give its schedules another repository and let its images end first, or apply forget_images_on_destroy = true: their data stay in the storage.",
		}}
	}
}

func (r *repositoryResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var body api.Repository
	diags := &resp.Diagnostics
	createObject(ctx, r.refuser(&body), req, resp, func(ctx context.Context, m *repositoryModel) (done api.Repository, err error) {
		var config repositoryModel
		diags.Append(req.Config.Get(ctx, &config)...)
		body = m.wire(ctx, diags)
		maps.Copy(body.Settings, config.secrets(ctx, diags))
		body.Password = config.PasswordWO.ValueString()
		if diags.HasError() {
			return done, nil
		}
		done, err = made(r.conn.client.CreateRepositoryWithResponse(ctx, &api.CreateRepositoryParams{IdempotencyKey: newKey()}, body))
		if err != nil || !m.Default.ValueBool() || done.Default {
			return done, err
		}
		store(ctx, m, done, &resp.State, resp.Identity, diags) // it exists from here on
		return found(r.conn.client.UpdateRepositoryWithResponse(ctx, done.ID, &api.UpdateRepositoryParams{}, api.RepositoryChange{Default: new(true)}))
	})
}

func (r *repositoryResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	readObject[repositoryModel](ctx, r.resourceConnection, r.refuser(new(api.Repository)), req, resp, func(ctx context.Context, id string) (api.Repository, error) {
		return found(r.conn.client.GetRepositoryWithResponse(ctx, id))
	})
}

// Update sends all settings: those that Terraform does not keep, the secrets
// among them, stay what they are unless their version has changed.
func (r *repositoryResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var body api.Repository
	diags := &resp.Diagnostics
	updateObject(ctx, r.refuser(&body), req, resp, func(ctx context.Context, m *repositoryModel) (done api.Repository, err error) {
		var config, before repositoryModel
		diags.Append(req.Config.Get(ctx, &config)...)
		diags.Append(req.State.Get(ctx, &before)...)
		body = m.wire(ctx, diags)
		if diags.HasError() {
			return done, nil
		}
		now, err := found(r.conn.client.GetRepositoryWithResponse(ctx, m.ID.ValueString()))
		if err != nil {
			return done, err
		}
		settings := withoutAttributes(now.Settings)
		maps.Copy(settings, body.Settings)
		if !m.secretsVersion().Equal(before.secretsVersion()) {
			maps.Copy(settings, config.secrets(ctx, diags))
		}
		if diags.HasError() {
			return done, nil
		}
		change := api.RepositoryChange{Name: &body.Name, Compression: &body.Compression, VerifyDays: &body.VerifyDays, ReadOnly: &body.ReadOnly, Settings: settings}
		if !m.Default.IsUnknown() {
			change.Default = m.Default.ValueBoolPointer()
		}
		return found(r.conn.client.UpdateRepositoryWithResponse(ctx, m.ID.ValueString(), &api.UpdateRepositoryParams{}, change))
	})
}

// Delete takes the registration out and touches nothing in the storage.
func (r *repositoryResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	deleteObject(ctx, r.refuser(new(api.Repository)), req, resp, func(ctx context.Context, m *repositoryModel) error {
		return gone(r.conn.client.DeleteRepositoryWithResponse(ctx, m.ID.ValueString(), &api.DeleteRepositoryParams{ForgetImages: m.ForgetImages.ValueBool()}))
	})
}

func (r *repositoryResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	importObject(ctx, r.resourceConnection, "repository", func(name string) ([]string, error) {
		page, err := found(r.conn.client.ListRepositoriesWithResponse(ctx, &api.ListRepositoriesParams{Name: name}))
		var ids []string
		for _, v := range page.Items {
			ids = append(ids, v.ID)
		}
		return ids, err
	}, req, resp)
}
