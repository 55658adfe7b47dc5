package handler_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// TestUpkeepIsAskedFor: a collection and a reading are jobs; asking again finds
// the one that waits; what is not there is refused.
func TestUpkeepIsAskedFor(t *testing.T) {
	r := newRig(t)
	i := r.image(r.vms[0], nil)
	for path, c := range map[string]struct {
		role auth.Role
		kind api.JobKind
		body any
	}{
		"/v1/backup-images/" + i.ID + ":verify":            {auth.Backup, api.JobKindVerify, nil},
		"/v1/repositories/" + i.RepositoryID + ":maintain": {auth.Operator, api.JobKindCollect, api.Maintenance{DryRun: true}},
	} {
		first := into[api.Job](r, r.do(call{method: "POST", path: path, role: c.role, body: c.body}), 202)
		again := into[api.Job](r, r.do(call{method: "POST", path: path, role: c.role, body: c.body}), 202)
		if first.Kind != c.kind || first.State != api.JobStateQueued || again.ID != first.ID {
			t.Errorf("%s: %s job %s (%s), then %s; want one that waits", path, first.Kind, first.ID, first.State, again.ID)
		}
	}
	for _, path := range []string{"/v1/backup-images/nothing:verify", "/v1/repositories/nothing:maintain"} {
		if a := r.do(call{method: "POST", path: path, role: auth.Operator}); a.status != 404 {
			t.Errorf("%s: %d, want 404", path, a.status)
		}
	}
}

// TestTheDryRunOfExpirySaysWhatStaysAndWhy: the last image of a VM that is still
// backed up stays, that of another VM goes, and a locked one is not over yet.
//
// seed:A38
func TestTheDryRunOfExpirySaysWhatStaysAndWhy(t *testing.T) {
	r := newRig(t)
	over := r.clock.Now().Add(-time.Hour)
	goes := r.image(r.vms[0], func(i *backup.Image) { i.ExpiresAt = over })
	r.schedule(nightly("covers", r.vms[1].ID))
	stays := r.image(r.vms[1], func(i *backup.Image) { i.ExpiresAt = over })
	r.image(r.vms[2], func(i *backup.Image) { i.ExpiresAt, i.LockedUntil = over, r.clock.Now().Add(time.Hour) })
	list := into[api.ExpiredImageList](r, r.do(call{method: "GET", path: "/v1/backup-images:expired", role: auth.Viewer}), 200)
	why := map[string]string{}
	for _, i := range list.Items {
		why[i.ID] = i.Stays
	}
	if len(why) != 2 || why[goes.ID] != "" || !strings.Contains(why[stays.ID], "last good image") {
		t.Errorf("over are %v, want %s to go and %s to stay as the last good one", why, goes.ID, stays.ID)
	}
}
