package provider

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/resourcevalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var (
	_ resource.ResourceWithConfigure        = (*restoreResource)(nil)
	_ resource.ResourceWithConfigValidators = (*restoreResource)(nil)
	_ resource.ResourceWithIdentity         = (*restoreResource)(nil)
	_ resource.ResourceWithImportState      = (*restoreResource)(nil)
	_ resource.ResourceWithModifyPlan       = (*restoreResource)(nil)
)

type restoreResource struct{ resourceConnection }

// restoreTime is how long Create waits, if nothing else is said.
const restoreTime = 8 * time.Hour

func (r *restoreResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "kura_restore"
}

func (r *restoreResource) IdentitySchema(_ context.Context, _ resource.IdentitySchemaRequest, resp *resource.IdentitySchemaResponse) {
	resp.IdentitySchema = identitySchema("restore")
}

func (r *restoreResource) ConfigValidators(context.Context) []resource.ConfigValidator {
	return []resource.ConfigValidator{
		resourcevalidator.ExactlyOneOf(path.MatchRoot("in_place"), path.MatchRoot("new_vm"), path.MatchRoot("disk")),
	}
}

// advice on a machine that runs: only a restore of the whole may power it off.
func (m restoreModel) advice() string {
	if !m.Disk.IsNull() {
		return "Power the machine off before the apply, or put the disk beside the present one: mode = \"attach\""
	}
	return "Let the restore power it off: in_place = { power_off = true }"
}

func (r *restoreResource) refusal(s schema.Schema, m restoreModel) refusal {
	return refusal{conn: r.conn, schema: &s, fallback: path.Root("image_id"), advice: map[api.ErrorCode]string{
		api.ErrorCodeVMGone:    "Restore it as a new machine: new_vm = { name = \"restored\" }",
		api.ErrorCodeVMRunning: m.advice(),
		api.ErrorCodeVMBusy:    "Apply again when that job is over: kura job list",
		api.ErrorCodeNotFound:  "Look images up with the data source kura_backup_images; expired ones are gone.",
	}}
}

// Create starts the restore, or joins the one of the same configuration, and
// waits for its end. Only a restore that succeeded gets into the state: what
// failed or still runs must not be tainted, but be run or joined anew.
func (r *restoreResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m restoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	ctx, cancel := within(ctx, m.Timeouts.Create, restoreTime, &resp.Diagnostics)
	defer cancel()
	body := m.wire(ctx, &resp.Diagnostics)
	key := m.key(ctx, body, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	refused := r.refusal(req.Plan.Schema.(schema.Schema), m)
	restore, err := made(r.conn.client.CreateRestoreWithResponse(ctx, &api.CreateRestoreParams{IdempotencyKey: key}, body))
	if err != nil {
		refused.add(&resp.Diagnostics, err)
		return
	}
	id := restore.ID
	if restore, err = r.conn.awaitRestore(ctx, restore); err != nil {
		if ctx.Err() != nil {
			r.sayGoesOn(id, &resp.Diagnostics)
			return
		}
		refused.add(&resp.Diagnostics, err)
		return
	}
	if restore.Status != api.JobStateSucceeded {
		sayFailed(m, restore, &resp.Diagnostics)
		return
	}
	if len(restore.Messages) > 0 { // as one: core folds warnings of the same summary
		resp.Diagnostics.AddAttributeWarning(m.target(), "The restore succeeded and has this to say", strings.Join(restore.Messages, "\n"))
	}
	m.outcome(ctx, restore, &resp.Diagnostics)
	identify(ctx, resp.Identity, m.ID, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	// The success is handed over: from now on the same configuration, from
	// elsewhere, starts a restore of its own.
	if _, err := found(r.conn.client.GetRestoreWithResponse(ctx, id, &api.GetRestoreParams{IdempotencyKey: key})); err != nil {
		tflog.Warn(ctx, "the restore's success could not be acknowledged", map[string]any{"restore": id, "error": err.Error()})
	}
}

func (r *restoreResource) sayGoesOn(id string, diags *diag.Diagnostics) {
	diags.AddAttributeError(path.Root("image_id"), "Restore goes on without Terraform", fmt.Sprintf(
		"Restore %s did not end before this run's timeout or interruption. It was not cancelled and goes on in the server.\n"+
			"Nothing was stored, so that nothing is tainted.\n"+
			"Apply the same configuration again: it joins that restore, or takes its result. To wait longer: timeouts = { create = \"12h\" }. To stop it: kura job cancel.", id))
}

// sayFailed tells why a restore ended without success.
func sayFailed(m restoreModel, r api.Restore, diags *diag.Diagnostics) {
	why, code := "The job ended "+string(r.Status)+".", string(r.Status)
	if r.Error != nil {
		why, code = r.Error.Message, string(r.Error.Code)
	}
	summary := "Restore failed"
	if r.Status == api.JobStateCancelled {
		summary = "Restore was cancelled"
	}
	for _, message := range r.Messages {
		why += "\n" + message
	}
	diags.AddAttributeError(m.target(), summary, fmt.Sprintf(
		"%s\nNothing was stored: the next apply starts the restore anew.\nThe job tells more: kura job show %s\nCode %s, restore %s", why, r.JobID, code, r.ID))
}

// Read keeps a restore whose record the server has pruned: that must never
// plan a second one.
func (r *restoreResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var m restoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	identify(ctx, resp.Identity, m.ID, &resp.Diagnostics)
	if !r.reachable() {
		return // what is known stays
	}
	imported := m.ImageID.IsNull()
	restore, err := found(r.conn.client.GetRestoreWithResponse(ctx, m.ID.ValueString(), &api.GetRestoreParams{}))
	if missing(err) {
		if imported {
			resp.State.RemoveResource(ctx)
		}
		return
	}
	if err != nil {
		r.refusal(req.State.Schema.(schema.Schema), m).add(&resp.Diagnostics, err)
		return
	}
	if imported {
		m.asked(ctx, restore, &resp.Diagnostics)
	}
	if m.DeleteVM.IsNull() {
		m.DeleteVM = types.BoolValue(false)
	}
	m.outcome(ctx, restore, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// Update stores what runs nothing: description and timeouts.
func (r *restoreResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var m restoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	identify(ctx, resp.Identity, m.ID, &resp.Diagnostics)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

// Delete forgets the restore. It touches no virtual machine unless told to.
func (r *restoreResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m restoreModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	ctx, cancel := within(ctx, m.Timeouts.Delete, requestTime, &resp.Diagnostics)
	defer cancel()
	if resp.Diagnostics.HasError() {
		return
	}
	params := &api.DeleteRestoreParams{DeleteRestoredVM: m.DeleteVM.ValueBool()}
	switch err := api.Err(r.conn.client.DeleteRestoreWithResponse(ctx, m.ID.ValueString(), params)); {
	case missing(err) && m.DeleteVM.ValueBool():
		resp.Diagnostics.AddAttributeWarning(path.Root("delete_restored_vm_on_destroy"), "Restored machine stays", fmt.Sprintf(
			"The server no longer remembers restore %s, so it does not know which machine that made, and deleted none.\nDelete it in vSphere if it is still there: %s", m.ID.ValueString(), m.RestoredVM))
	case err != nil && !missing(err):
		refused := r.refusal(req.State.Schema.(schema.Schema), m)
		refused.advice[api.ErrorCodeVMRunning] = "Power the machine off first, or apply delete_restored_vm_on_destroy = false to keep it."
		refused.add(&resp.Diagnostics, err)
	}
}

func (r *restoreResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	importObject(ctx, r.resourceConnection, "restore", nil, req, resp)
}

// awaitRestore returns the restore when it is over. It outlives a server that
// restarts meanwhile.
func (c *connection) awaitRestore(ctx context.Context, r api.Restore) (api.Restore, error) {
	var pace pacing
	for !r.Status.Final() {
		c.logProgress(ctx, r)
		if !pace.wait(ctx) {
			return r, ctx.Err()
		}
		now, err := found(c.client.GetRestoreWithResponse(ctx, r.ID, &api.GetRestoreParams{}))
		switch {
		case err == nil:
			r = now
		case ctx.Err() != nil || !outlives(err):
			return r, err
		}
	}
	return r, nil
}

func (c *connection) logProgress(ctx context.Context, r api.Restore) {
	job, err := found(c.client.GetJobWithResponse(ctx, r.JobID))
	if err != nil {
		return // progress is a courtesy
	}
	tflog.Info(ctx, "restore progress", map[string]any{
		"restore": r.ID, "state": string(job.State), "step": job.Step, "done": job.Progress.Done, "total": job.Progress.Total,
		"bytes_per_second": job.Progress.BytesPerSecond, "eta_seconds": job.Progress.EtaSeconds,
	})
}
