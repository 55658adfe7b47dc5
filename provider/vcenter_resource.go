package provider

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var (
	_ resource.ResourceWithConfigure   = (*vcenterResource)(nil)
	_ resource.ResourceWithIdentity    = (*vcenterResource)(nil)
	_ resource.ResourceWithImportState = (*vcenterResource)(nil)
	_ resource.ResourceWithModifyPlan  = (*vcenterResource)(nil)
)

type vcenterResource struct{ resourceConnection }

// firstSync is how long Create waits for the inventory, if nothing else is said.
const firstSync = 15 * time.Minute

func (r *vcenterResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "kura_vcenter"
}

func (r *vcenterResource) IdentitySchema(_ context.Context, _ resource.IdentitySchemaRequest, resp *resource.IdentitySchemaResponse) {
	resp.IdentitySchema = identitySchema("vcenter")
}

func (r *vcenterResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "A vSphere endpoint (vCenter, or one ESXi host) whose virtual machines are protected. " +
			"Making it waits until its inventory has been read, so that groups and look-ups of the same apply see its machines.\n\n" +
			"Destroying it is refused while groups, schedules or images name it.",
		Attributes: map[string]schema.Attribute{
			"id":   idAttribute(),
			"name": nameAttribute("vcenter"),
			"endpoint": schema.StringAttribute{
				Required: true, MarkdownDescription: "`https://host` or `https://host:port`; `/sdk` may follow.",
				Validators: []validator.String{stringvalidator.RegexMatches(regexp.MustCompile(`^https://[^/@\s]+(/sdk)?/?$`), "must be https://host or https://host:port, without user and path")},
			},
			"username": schema.StringAttribute{
				Required: true, MarkdownDescription: "User that reads the inventory, makes snapshots and restores.",
				Validators: []validator.String{stringvalidator.UTF8LengthBetween(1, 256)},
			},
			"password_wo": schema.StringAttribute{
				Optional: true, Sensitive: true, WriteOnly: true,
				MarkdownDescription: "Password of that user. Needed to make the vcenter. It is never stored in plan or state; change `password_wo_version` to send a new one.",
				Validators:          []validator.String{stringvalidator.UTF8LengthBetween(1, 1024)},
			},
			"password_wo_version": schema.Int64Attribute{
				Optional: true, MarkdownDescription: "Any number. When it changes, `password_wo` is sent again.",
			},
			"thumbprint": schema.StringAttribute{
				Optional: true, MarkdownDescription: "SHA-256 of the endpoint's certificate in hex, with or without colons. Without it the certificate is checked against `ca_certificate`, or the server's authorities.",
				Validators: []validator.String{
					stringvalidator.RegexMatches(regexp.MustCompile(`^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$`), "must be the 64 hex digits of a SHA-256, colons allowed"),
					stringvalidator.ConflictsWith(path.MatchRoot("ca_certificate")),
				},
			},
			"ca_certificate": schema.StringAttribute{
				Optional: true, MarkdownDescription: "Authority of the endpoint's certificate, PEM.",
				Validators: []validator.String{stringvalidator.LengthBetween(1, 65536)},
			},
			"time_zone": schema.StringAttribute{
				Optional: true, Computed: true, Default: stringdefault.StaticString("UTC"),
				MarkdownDescription: "IANA time zone that schedules take when they name none. Default `UTC`.",
				Validators:          []validator.String{timeZone{}},
			},
			"slot_capacity": numberAttribute(10, "Seats of one hour: how many backups may be running in it.", int64validator.Between(1, 10000)),
			"limits":        limitsAttribute(),
			"transport":     choiceAttribute("auto", "How disks are read and written: `nfc` over HTTPS from the hosts, `hotadd` through the VM in which the server runs, `nbd` through a program of yours. `auto` lets the server choose.", "auto", "nfc", "hotadd", "nbd"),
			"tag_mappings":  tagMappingsAttribute(),
			"instance_uuid": schema.StringAttribute{
				Computed: true, MarkdownDescription: "The vCenter's own instance UUID.",
				PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
			},
			"created_at": createdAtAttribute(),
			"timeouts": timeoutsAttribute(ctx, timeouts.Opts{
				Create: true, CreateDescription: "Includes the first reading of the inventory. Default `15m`.",
				Update: true, UpdateDescription: "Default `5m`.",
				Delete: true, DeleteDescription: "Default `5m`.",
			}),
		},
	}
}

func limitsAttribute() schema.Attribute {
	return schema.SingleNestedAttribute{
		Optional: true, Computed: true, Default: objectdefault.StaticValue(defaultLimits()),
		MarkdownDescription: "What may run at once on this vcenter.",
		Attributes: map[string]schema.Attribute{
			"disks_per_host":     numberAttribute(defaultDisksPerHost, "Disks in flight per ESXi host.", int64validator.Between(1, 48)),
			"disks":              numberAttribute(defaultDisks, "Disks in flight in all.", int64validator.Between(1, 52)),
			"jobs_per_datastore": numberAttribute(defaultJobsPerDatastore, "Jobs per datastore.", int64validator.Between(1, 1000)),
			"restores_per_pool":  numberAttribute(defaultRestoresPerPool, "Restores per resource pool.", int64validator.Between(1, 1000)),
			"bytes_per_second":   numberAttribute(0, "Bytes per second of all jobs of all servers together; 0 = unlimited. The servers that move disks of the vcenter at the moment have equal shares.", int64validator.AtLeast(0)),
		},
	}
}

func tagMappingsAttribute() schema.Attribute {
	part := func(description string, low int) schema.StringAttribute {
		return schema.StringAttribute{
			Required: true, MarkdownDescription: description,
			Validators: []validator.String{stringvalidator.UTF8LengthBetween(low, 256)},
		}
	}
	return schema.SetNestedAttribute{
		Optional: true, MarkdownDescription: "Labels for the images of machines that carry a vSphere tag, at most 10. " +
			"Where two of them give one label different values, the tag that is first by category and name holds, and the job says so. Labels of the group hold over these, those of the schedule over both.",
		Validators: []validator.Set{setvalidator.SizeAtMost(10)},
		NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
			"category": part("Category of the vSphere tag.", 1),
			"tag":      part("Name of the vSphere tag.", 1),
			"key":      part("Key of the label.", 1),
			"value":    part("Value of the label.", 0),
		}},
	}
}

// ModifyPlan refuses a vcenter that cannot be made for want of a password.
func (r *vcenterResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if !req.State.Raw.IsNull() || req.Plan.Raw.IsNull() {
		return
	}
	var password types.String
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root("password_wo"), &password)...)
	if password.IsNull() && !resp.Diagnostics.HasError() {
		resp.Diagnostics.AddAttributeError(path.Root("password_wo"), "Password is missing",
			"A new vcenter needs the password of its user, for the server logs in to read the inventory.\nSet password_wo = var.vcenter_password. It is stored in neither plan nor state.")
	}
}

func (r *vcenterResource) refusal(s schema.Schema) refusal {
	return refusal{
		conn: r.conn, schema: &s, fallback: path.Root("endpoint"),
		renamed: map[string]string{"password": "password_wo"},
		advice: map[api.ErrorCode]string{
			api.ErrorCodeConflict:      "Choose another name, or import the vcenter that is there: terraform import kura_vcenter.NAME name/<name>",
			api.ErrorCodeInUse:         "Destroy its groups and schedules first. Images end by their retention, or by: kura image delete",
			api.ErrorCodeVcenterDenied: "Check username and password_wo; change password_wo_version to send a new password.",
		},
	}
}

func (r *vcenterResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m vcenterModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	ctx, cancel := within(ctx, m.Timeouts.Create, firstSync, &resp.Diagnostics)
	defer cancel()
	body := m.wire(ctx, &resp.Diagnostics)
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root("password_wo"), &m.PasswordWO)...)
	if resp.Diagnostics.HasError() {
		return
	}
	body.Password = m.PasswordWO.ValueString()
	m.PasswordWO = types.StringNull()
	refused := r.refusal(req.Plan.Schema.(schema.Schema))
	v, err := made(r.conn.client.CreateVCenterWithResponse(ctx, &api.CreateVCenterParams{IdempotencyKey: newKey()}, body))
	if err != nil {
		refused.add(&resp.Diagnostics, err)
		return
	}
	store(ctx, &m, v, &resp.State, resp.Identity, &resp.Diagnostics) // it exists from here on, whatever becomes of the wait
	if resp.Diagnostics.HasError() {
		return
	}
	v, err = r.conn.awaitInventory(ctx, v)
	if err != nil {
		refused.add(&resp.Diagnostics, err)
		return
	}
	store(ctx, &m, v, &resp.State, resp.Identity, &resp.Diagnostics)
}

func (r *vcenterResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	readObject[vcenterModel](ctx, r.resourceConnection, r.refusal, req, resp, func(ctx context.Context, id string) (api.VCenter, error) {
		return found(r.conn.client.GetVCenterWithResponse(ctx, id))
	})
}

func (r *vcenterResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	diags := &resp.Diagnostics
	updateObject(ctx, r.refusal, req, resp, func(ctx context.Context, m *vcenterModel) (v api.VCenter, err error) {
		var version types.Int64
		var password types.String
		diags.Append(req.State.GetAttribute(ctx, path.Root("password_wo_version"), &version)...)
		diags.Append(req.Config.GetAttribute(ctx, path.Root("password_wo"), &password)...)
		body := m.wire(ctx, diags)
		if diags.HasError() {
			return v, nil
		}
		if !m.PasswordWOVersion.Equal(version) {
			body.Password = password.ValueString()
		}
		v, err = found(r.conn.client.UpdateVCenterWithResponse(ctx, m.ID.ValueString(), &api.UpdateVCenterParams{}, body))
		if err == nil && len(v.Warnings) > 0 { // the change is made; as one, for core folds warnings of the same summary
			diags.AddAttributeWarning(path.Root("slot_capacity"), "Hours hold too many seats", strings.Join(v.Warnings, "\n"))
		}
		return v, err
	})
}

func (r *vcenterResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	deleteObject(ctx, r.refusal, req, resp, func(ctx context.Context, m *vcenterModel) error {
		return gone(r.conn.client.DeleteVCenterWithResponse(ctx, m.ID.ValueString()))
	})
}

func (r *vcenterResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	importObject(ctx, r.resourceConnection, "vcenter", func(name string) ([]string, error) {
		page, err := found(r.conn.client.ListVCentersWithResponse(ctx, &api.ListVCentersParams{Name: name}))
		var ids []string
		for _, v := range page.Items {
			ids = append(ids, v.ID)
		}
		return ids, err
	}, req, resp)
}
