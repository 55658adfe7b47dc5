package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// ModifyPlan refuses restores that nobody asked for, and runs the server's
// pre-flight for those that this plan would start.
func (r *restoreResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if req.Plan.Raw.IsNull() {
		return
	}
	var m restoreModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	var old *restoreModel
	if !req.State.Raw.IsNull() {
		old = &restoreModel{}
		resp.Diagnostics.Append(req.State.Get(ctx, old)...)
		if resp.Diagnostics.HasError() || !m.differs(*old) {
			return
		}
		m.refuseUnasked(ctx, *old, &resp.Diagnostics)
	}
	if resp.Diagnostics.HasError() || !r.reachable() || !req.Config.Raw.IsFullyKnown() {
		return
	}
	body := m.wire(ctx, &resp.Diagnostics)
	key := m.key(ctx, body, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	refused := r.refusal(req.Plan.Schema.(schema.Schema), m)
	if r.conn.serverErr != nil {
		refused.add(&resp.Diagnostics, r.conn.serverErr)
		return
	}
	// Core shows the warnings of the first of a replacement's two plan calls
	// only, so the pre-flight must not wait for the second.
	result, err := found(r.conn.client.CheckRestoreWithResponse(ctx, &api.CheckRestoreParams{IdempotencyKey: key}, body))
	if err != nil {
		refused.add(&resp.Diagnostics, err)
		return
	}
	if len(result.Warnings) > 0 { // as one: core folds warnings of the same summary
		resp.Diagnostics.AddAttributeWarning(m.target(), "This apply restores a machine", strings.Join(result.Warnings, "\n"))
	}
}

// differs says whether going from old to m runs a restore.
func (m restoreModel) differs(old restoreModel) bool {
	return !m.ImageID.Equal(old.ImageID) || !m.Triggers.Equal(old.Triggers) || m.retargets(old)
}

func (m restoreModel) retargets(old restoreModel) bool {
	return !m.InPlace.Equal(old.InPlace) || !m.NewVM.Equal(old.NewVM) || !m.Disk.Equal(old.Disk)
}

// overwrites says whether the restore destroys what is there.
func (m restoreModel) overwrites(ctx context.Context, diags *diag.Diagnostics) bool {
	if !m.InPlace.IsNull() {
		return true
	}
	d := read[diskModel](ctx, m.Disk, diags)
	return d != nil && d.Mode.ValueString() != string(api.DiskRestoreModeAttach)
}

// refuseUnasked keeps a restore that overwrites from running because its image
// or target moved: the user says so through triggers.
func (m restoreModel) refuseUnasked(ctx context.Context, old restoreModel, diags *diag.Diagnostics) {
	if !m.overwrites(ctx, diags) || m.Triggers.IsUnknown() || !m.Triggers.Equal(old.Triggers) {
		return
	}
	at, what := path.Root("image_id"), fmt.Sprintf("image_id changes from %s to %s", old.ImageID, m.ImageID)
	switch {
	case m.ImageID.IsUnknown():
		what = fmt.Sprintf("image_id was %s and is known only at apply", old.ImageID)
	case m.ImageID.Equal(old.ImageID):
		at, what = m.target(), "the target changes"
	}
	diags.AddAttributeError(at, "Restore would overwrite unasked", fmt.Sprintf(
		"%s while triggers stay as they are, and this restore overwrites a virtual machine.\n"+
			"An image that is looked up (most_recent) moves with every backup; it must not overwrite a machine by itself.\n"+
			"To restore again, change a trigger: triggers = { run = \"2\" }. To keep what was restored, pin image_id = %s, or: lifecycle { ignore_changes = [image_id] }.",
		what, old.ImageID))
}

// target is the attribute that says what is restored to.
func (m restoreModel) target() path.Path {
	switch {
	case !m.InPlace.IsNull():
		return path.Root("in_place")
	case !m.NewVM.IsNull():
		return path.Root("new_vm")
	}
	return path.Root("disk")
}
