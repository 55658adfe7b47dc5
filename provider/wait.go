package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-log/tflog"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// The pauses between two looks at something that runs.
const (
	firstPause   = 500 * time.Millisecond
	longestPause = 3 * time.Second
)

// pacing waits ever longer, from firstPause to longestPause.
type pacing struct{ next time.Duration }

// wait returns false when ctx ends first.
func (p *pacing) wait(ctx context.Context) bool {
	p.next = min(max(p.next*3/2, firstPause), longestPause)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(p.next):
		return true
	}
}

// outlives says whether err may pass while one waits: the server restarts, or a
// proxy before it has nobody to ask.
func outlives(err error) bool {
	code := api.CodeOf(err)
	return api.Unreachable(err) || code == api.ErrorCodeUnavailable || code == api.ErrorCodeRateLimited
}

// awaitInventory waits until the inventory of v has been read.
func (c *connection) awaitInventory(ctx context.Context, v api.VCenter) (api.VCenter, error) {
	var pace pacing
	for {
		switch v.SyncState {
		case api.SyncStateReady:
			return v, nil
		case api.SyncStateFailed:
			if again, err := c.syncing(ctx, v.ID); err == nil && !again {
				return v, &api.Problem{
					Title: "Inventory cannot be read", Code: api.ErrorCodeVcenterUnreachable, Field: "endpoint",
					Detail: fmt.Sprintf("vcenter %q was added, but its inventory could not be read: %s\nMake it reachable for the server; Terraform then makes it anew.", v.Name, v.SyncError),
				}
			}
		}
		tflog.Info(ctx, "waiting for the inventory", map[string]any{"vcenter": v.Name, "state": string(v.SyncState)})
		if !pace.wait(ctx) {
			return v, &api.Problem{
				Title: "Inventory is not read yet", Code: api.ErrorCodeVcenterUnreachable, Field: "endpoint",
				Detail: fmt.Sprintf("vcenter %q was added, but reading its inventory did not end in time. Raise timeouts = { create = \"30m\" }.", v.Name),
			}
		}
		now, err := found(c.client.GetVCenterWithResponse(ctx, v.ID))
		switch {
		case err == nil:
			v = now
		case ctx.Err() == nil && !outlives(err):
			return v, err
		}
	}
}

// syncing says whether a try to read the inventory is still to come.
func (c *connection) syncing(ctx context.Context, id string) (bool, error) {
	page, err := found(c.client.ListJobsWithResponse(ctx, &api.ListJobsParams{Kind: api.JobKindSync, VCenterID: id, Active: true, Limit: 1}))
	return len(page.Items) > 0, err
}
