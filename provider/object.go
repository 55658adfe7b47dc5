package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// What every resource does alike whose object the server keeps: an A of the API
// and an M, the model, which P points to.

type model[M, A any] interface {
	*M
	take(ctx context.Context, from A, diags *diag.Diagnostics)
	id() types.String
	timeouts() timeouts.Value
}

// refuser makes a refusal for a schema.
type refuser func(schema.Schema) refusal

// store brings what the server answered into the state.
func store[M, A any, P model[M, A]](ctx context.Context, m P, from A, state *tfsdk.State, identity *tfsdk.ResourceIdentity, diags *diag.Diagnostics) {
	m.take(ctx, from, diags)
	identify(ctx, identity, m.id(), diags)
	diags.Append(state.Set(ctx, m)...)
}

// readObject refreshes the state; an object that is gone leaves it.
func readObject[M, A any, P model[M, A]](ctx context.Context, c resourceConnection, refused refuser, req resource.ReadRequest, resp *resource.ReadResponse, get func(ctx context.Context, id string) (A, error)) {
	m := P(new(M))
	resp.Diagnostics.Append(req.State.Get(ctx, m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	identify(ctx, resp.Identity, m.id(), &resp.Diagnostics)
	if !c.reachable() {
		return // what is known stays
	}
	a, err := get(ctx, m.id().ValueString())
	if missing(err) {
		resp.State.RemoveResource(ctx)
		return
	}
	if err != nil {
		refused(req.State.Schema.(schema.Schema)).add(&resp.Diagnostics, err)
		return
	}
	store(ctx, m, a, &resp.State, resp.Identity, &resp.Diagnostics)
}

// change makes or changes an object within the resource's timeout.
func change[M, A any, P model[M, A]](ctx context.Context, timeout func(timeouts.Value) allowance, refused refuser, plan tfsdk.Plan, state *tfsdk.State, identity *tfsdk.ResourceIdentity, diags *diag.Diagnostics, do func(ctx context.Context, m P) (A, error)) {
	m := P(new(M))
	diags.Append(plan.Get(ctx, m)...)
	if diags.HasError() {
		return
	}
	ctx, cancel := within(ctx, timeout(m.timeouts()), requestTime, diags)
	defer cancel()
	a, err := do(ctx, m)
	if diags.HasError() {
		return
	}
	if err != nil {
		refused(plan.Schema.(schema.Schema)).add(diags, err)
		return
	}
	store(ctx, m, a, state, identity, diags)
}

// allowance is one of a resource's timeouts.
type allowance func(context.Context, time.Duration) (time.Duration, diag.Diagnostics)

func createObject[M, A any, P model[M, A]](ctx context.Context, refused refuser, req resource.CreateRequest, resp *resource.CreateResponse, do func(context.Context, P) (A, error)) {
	change(ctx, func(t timeouts.Value) allowance { return t.Create }, refused, req.Plan, &resp.State, resp.Identity, &resp.Diagnostics, do)
}

func updateObject[M, A any, P model[M, A]](ctx context.Context, refused refuser, req resource.UpdateRequest, resp *resource.UpdateResponse, do func(context.Context, P) (A, error)) {
	change(ctx, func(t timeouts.Value) allowance { return t.Update }, refused, req.Plan, &resp.State, resp.Identity, &resp.Diagnostics, do)
}

// deleteObject deletes what the state names; what is gone already is no error.
func deleteObject[M, A any, P model[M, A]](ctx context.Context, refused refuser, req resource.DeleteRequest, resp *resource.DeleteResponse, do func(context.Context, P) error) {
	m := P(new(M))
	resp.Diagnostics.Append(req.State.Get(ctx, m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := within(ctx, m.timeouts().Delete, requestTime, &resp.Diagnostics)
	defer cancel()
	if err := do(ctx, m); err != nil && !resp.Diagnostics.HasError() {
		refused(req.State.Schema.(schema.Schema)).add(&resp.Diagnostics, err)
	}
}
