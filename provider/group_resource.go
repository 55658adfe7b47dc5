package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/boolvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/resourcevalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/setvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var (
	_ resource.ResourceWithConfigure        = (*groupResource)(nil)
	_ resource.ResourceWithConfigValidators = (*groupResource)(nil)
	_ resource.ResourceWithIdentity         = (*groupResource)(nil)
	_ resource.ResourceWithImportState      = (*groupResource)(nil)
	_ resource.ResourceWithModifyPlan       = (*groupResource)(nil)
	_ resource.ResourceWithValidateConfig   = (*groupResource)(nil)
)

type groupResource struct{ resourceConnection }

func (r *groupResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "kura_backup_group"
}

func (r *groupResource) IdentitySchema(_ context.Context, _ resource.IdentitySchemaRequest, resp *resource.IdentitySchemaResponse) {
	resp.IdentitySchema = identitySchema("group")
}

func (r *groupResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	ids := []validator.Set{setvalidator.SizeBetween(0, 10000), setvalidator.ValueStringsAre(stringvalidator.LengthBetween(1, 128))}
	resp.Schema = schema.Schema{
		MarkdownDescription: "A named set of virtual machines: listed ones, selected ones, or both, less exclusions. " +
			"A selector is resolved anew at every run, so that machines which appear later are backed up too.\n\n" +
			"Destroying a group deletes no image. It is refused while schedules are on the group.",
		Attributes: map[string]schema.Attribute{
			"id":          idAttribute(),
			"name":        nameAttribute("group"),
			"description": descriptionAttribute(),
			"virtual_machine_ids": schema.SetAttribute{
				Optional: true, ElementType: types.StringType, Validators: ids,
				MarkdownDescription: "Ids of the machines of the group, as `kura_virtual_machines` gives them.",
			},
			"selector": selectorAttribute(),
			"exclude_virtual_machine_ids": schema.SetAttribute{
				Optional: true, ElementType: types.StringType, Validators: ids,
				MarkdownDescription: "Ids of machines that are left out, even if listed or selected.",
			},
			"reserved_seats": numberAttribute(0, "Seats that the schedules of the group book for its selector, so that it may grow; 0 = as many as it has members now.",
				int64validator.Between(0, 100000)),
			"max_parallel": numberAttribute(0, "Backups of one run at a time; 0 = as the vcenter's limits allow.",
				int64validator.Between(0, 100000)),
			"consistent": switchAttribute(false, "The snapshots of all members are made together, before the first member is read. Such a group has at most 99 members, and `offline` backups do not go with it."),
			"on_member_failure": choiceAttribute("leave_out", "What becomes of a consistent group's run when a member's snapshot cannot be made: with `leave_out` that member fails and the others are backed up, with `fail` none is.",
				string(api.MemberFailureLeaveOut), string(api.MemberFailureFail)),
			"labels":              labelsAttribute(),
			"deletion_protection": switchAttribute(false, "The server refuses to delete the group."),
			"created_at":          createdAtAttribute(),
			"timeouts":            timeoutsAttribute(ctx, changeTimeouts),
		},
	}
}

func selectorAttribute() schema.Attribute {
	some := []validator.String{stringvalidator.UTF8LengthBetween(1, 1024)}
	return schema.SingleNestedAttribute{
		Optional:            true,
		MarkdownDescription: "Chooses machines of one vcenter. All conditions that are given must hold; without any, all of its machines are chosen. Templates never are.",
		Attributes: map[string]schema.Attribute{
			"vcenter_id": schema.StringAttribute{
				Required: true, MarkdownDescription: "Id of the vcenter.",
				Validators: []validator.String{stringvalidator.LengthBetween(1, 128)},
			},
			"tags": schema.SetNestedAttribute{
				Optional: true, MarkdownDescription: "vSphere tags; a machine must carry all of them.",
				Validators: []validator.Set{setvalidator.SizeBetween(0, 100)},
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
					"category": schema.StringAttribute{
						Required: true, MarkdownDescription: "Category of the tag.",
						Validators: []validator.String{stringvalidator.UTF8LengthBetween(1, 256)},
					},
					"name": schema.StringAttribute{
						Required: true, MarkdownDescription: "Name of the tag.",
						Validators: []validator.String{stringvalidator.UTF8LengthBetween(1, 256)},
					},
				}},
			},
			"folder": schema.StringAttribute{
				Optional: true, Validators: some,
				MarkdownDescription: "Inventory path of a folder, such as `/DC0/vm/prod`. As in vSphere's own paths, a slash, a backslash or a percent sign in a name is written `%2f`, `%5c` or `%25`.",
			},
			"recursive": schema.BoolAttribute{
				Optional: true, MarkdownDescription: "Sub-folders of `folder` too. Default `false`.",
				Validators: []validator.Bool{boolvalidator.AlsoRequires(path.MatchRelative().AtParent().AtName("folder"))},
			},
			"resource_pool": schema.StringAttribute{
				Optional: true, MarkdownDescription: "Inventory path of a resource pool, written as that of a folder. Pools in it count too.", Validators: some,
			},
			"name_regex": schema.StringAttribute{
				Optional: true, MarkdownDescription: "Regular expression in the syntax of Go (RE2) that matches anywhere in the name as vSphere shows it: `^` and `$` tie it to start and end, `(?i)` ignores case.",
				Validators: append([]validator.String{nameRegex{}}, some...),
			},
		},
	}
}

func (r *groupResource) ConfigValidators(context.Context) []resource.ConfigValidator {
	return []resource.ConfigValidator{
		resourcevalidator.AtLeastOneOf(path.MatchRoot("virtual_machine_ids"), path.MatchRoot("selector")),
	}
}

// ValidateConfig applies the domain's own rules to what is known.
func (r *groupResource) ValidateConfig(ctx context.Context, req resource.ValidateConfigRequest, resp *resource.ValidateConfigResponse) {
	var m groupModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() || m.Consistent.IsUnknown() {
		return
	}
	g := backup.Group{Name: "group", Consistent: m.Consistent.ValueBool(), OnMemberFailure: backup.MemberFailure(m.OnMemberFailure.ValueString()), VirtualMachineIDs: []string{"any"}}
	if err := g.Validate(); err != nil {
		resp.Diagnostics.AddAttributeError(path.Root("on_member_failure"), "Only a consistent group can fail as a whole", domainText(err))
	}
}

// mostChanges is how many changes of members a plan names one by one.
const mostChanges = 20

// ModifyPlan tells who has joined and left since the group's last run: a
// selector changes that without any change of the configuration.
func (r *groupResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if req.State.Raw.IsNull() || req.Plan.Raw.IsNull() || !r.reachable() {
		return
	}
	var id types.String
	resp.Diagnostics.Append(req.State.GetAttribute(ctx, path.Root("id"), &id)...)
	if resp.Diagnostics.HasError() {
		return
	}
	list, err := found(r.conn.client.ListBackupGroupChangesWithResponse(ctx, id.ValueString(), &api.ListBackupGroupChangesParams{SinceLastRun: true, Limit: mostChanges}))
	if err != nil || list.LastRunAt.IsZero() || len(list.Items) == 0 {
		return // what went wrong is told by who needs the answer
	}
	names := make([]string, len(list.Items))
	for i, c := range list.Items {
		names[i] = fmt.Sprintf("%s %s (%s)", c.VirtualMachine.Name, c.Change, c.Cause)
	}
	more := ""
	if list.NextCursor != "" {
		more = ", and more"
	}
	resp.Diagnostics.AddAttributeWarning(path.Root("selector"), "Members of the group have changed",
		fmt.Sprintf("Since the last run of this group, at %s: %s%s.\nMembers are resolved at every run, so that the next one backs up those of that time.\nFor all changes: kura group members NAME --changes",
			list.LastRunAt.UTC().Format("2006-01-02 15:04 UTC"), strings.Join(names, ", "), more))
}

func (r *groupResource) refusal(s schema.Schema) refusal {
	return refusal{conn: r.conn, schema: &s, fallback: path.Root("name"), advice: map[api.ErrorCode]string{
		api.ErrorCodeConflict: "Choose another name, or import the group that has it: terraform import kura_backup_group.NAME name/<name>",
		api.ErrorCodeInUse:    "Destroy the schedules that are on the group first, or with it in one apply.",
	}}
}

func (r *groupResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	createObject(ctx, r.refusal, req, resp, func(ctx context.Context, m *groupModel) (api.BackupGroup, error) {
		body := m.wire(ctx, &resp.Diagnostics)
		if resp.Diagnostics.HasError() {
			return api.BackupGroup{}, nil
		}
		return made(r.conn.client.CreateBackupGroupWithResponse(ctx, &api.CreateBackupGroupParams{IdempotencyKey: newKey()}, body))
	})
}

func (r *groupResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	readObject[groupModel](ctx, r.resourceConnection, r.refusal, req, resp, func(ctx context.Context, id string) (api.BackupGroup, error) {
		return found(r.conn.client.GetBackupGroupWithResponse(ctx, id))
	})
}

func (r *groupResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	updateObject(ctx, r.refusal, req, resp, func(ctx context.Context, m *groupModel) (api.BackupGroup, error) {
		body := m.wire(ctx, &resp.Diagnostics)
		if resp.Diagnostics.HasError() {
			return api.BackupGroup{}, nil
		}
		return found(r.conn.client.UpdateBackupGroupWithResponse(ctx, m.ID.ValueString(), &api.UpdateBackupGroupParams{}, body))
	})
}

func (r *groupResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	deleteObject(ctx, r.refusal, req, resp, func(ctx context.Context, m *groupModel) error {
		return gone(r.conn.client.DeleteBackupGroupWithResponse(ctx, m.ID.ValueString()))
	})
}

func (r *groupResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	importObject(ctx, r.resourceConnection, "group", func(name string) ([]string, error) {
		page, err := found(r.conn.client.ListBackupGroupsWithResponse(ctx, &api.ListBackupGroupsParams{Name: name}))
		var ids []string
		for _, g := range page.Items {
			ids = append(ids, g.ID)
		}
		return ids, err
	}, req, resp)
}
