package handler_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
)

const nobody = "01JDZK3Q8X4T9V2M6B7N5C1R9Z" // an id that nothing has

// Every operation of the contract is called with every role and without a
// token, with the contract's own example as the body.
func TestEachRoleMayDoExactlyWhatTheContractSays(t *testing.T) {
	r := newRig(t)
	doc, err := api.GetSpec()
	r.must(err)
	called := 0
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			c := call{method: method, path: strings.ReplaceAll(path, "{id}", nobody)}
			if op.RequestBody != nil {
				media := op.RequestBody.Value.Content.Get("application/json")
				c.body = media.Example
				for _, e := range media.Examples {
					c.body = e.Value.Value
				}
			}
			a := r.do(c)
			if a.status != http.StatusUnauthorized || a.problem.Code != api.ErrorCodeUnauthenticated || a.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s without a token: %d %s, WWW-Authenticate %q; want 401 unauthenticated with it", op.OperationID, a.status, a.problem.Code, a.header.Get("WWW-Authenticate"))
			}
			for _, role := range auth.Roles() {
				called++
				c.role = role
				a := r.do(c)
				may := slices.Contains(op.Extensions["x-roles"].([]any), any(string(role)))
				if forbidden := a.status == http.StatusForbidden && a.problem.Code == api.ErrorCodeForbidden; forbidden == may {
					t.Errorf("%s as %s: %d %s, want allowed = %t", op.OperationID, role, a.status, a.problem.Code, may)
				}
				if a.status == http.StatusUnauthorized || a.status >= 500 {
					t.Errorf("%s as %s: %d: %s", op.OperationID, role, a.status, a.body)
				}
				if a.header.Get("X-Request-Id") == "" || a.header.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%s as %s: the answer lacks its request id or its security headers", op.OperationID, role)
				}
			}
			// The log tells who called and never what they are let in by.
			for _, token := range r.tokens {
				if strings.Contains(r.log.String(), token) {
					t.Fatalf("%s: a token is in the log", op.OperationID)
				}
			}
		}
	}
	if called < 150 {
		t.Errorf("%d calls, want every operation four times", called)
	}
}

func TestARoleCancelsTheJobsThatItMayStart(t *testing.T) {
	r := newRig(t)
	run := into[api.Run](r, r.do(call{method: "POST", path: "/v1/virtual-machines/" + r.vms[0].ID + ":backup", role: auth.Backup, body: api.BackupOptions{RetentionDays: 1}}), 202)
	path := "/v1/jobs/" + run.Jobs[0].ID + ":cancel"
	for _, c := range []struct {
		role auth.Role
		want int
	}{{auth.Viewer, 403}, {auth.Restorer, 403}, {auth.Backup, 202}, {auth.Operator, 202}} {
		if a := r.do(call{method: "POST", path: path, role: c.role}); a.status != c.want {
			t.Errorf("cancel of a backup as %s: %d, want %d: %s", c.role, a.status, c.want, a.body)
		}
	}
	job := into[api.Job](r, r.do(call{method: "GET", path: "/v1/jobs/" + run.Jobs[0].ID, role: auth.Viewer}), 200)
	if job.State != api.JobStateCancelled {
		t.Errorf("state = %s, want cancelled", job.State)
	}
}

func TestARevokedTokenIsRefusedFromTheNextRequestOn(t *testing.T) {
	r := newRig(t)
	made := into[api.Token](r, r.do(call{method: "POST", path: "/v1/tokens", role: auth.Operator, body: api.Token{Name: "ci", Role: api.RoleViewer}}), 201)
	if made.Text == "" || made.ID == "" {
		t.Fatalf("token = %+v, want its text and id", made)
	}
	get := call{method: "GET", path: "/v1/server", token: made.Text}
	if a := r.do(get); a.status != 200 {
		t.Fatalf("new token: %d, want 200", a.status)
	}
	list := r.do(call{method: "GET", path: "/v1/tokens", role: auth.Operator})
	if strings.Contains(string(list.body), made.Text) || strings.Contains(string(list.body), auth.Hash(made.Text)) {
		t.Error("the list of tokens shows a text or a hash")
	}
	if a := r.do(call{method: "DELETE", path: "/v1/tokens/" + made.ID, role: auth.Operator}); a.status != 204 {
		t.Fatalf("revoke: %d, want 204: %s", a.status, a.body)
	}
	if a := r.do(get); a.status != 401 {
		t.Errorf("revoked token: %d, want 401", a.status)
	}
}

func TestTooManyWrongTokensAreSlowedDown(t *testing.T) {
	r := newRig(t)
	var a answer
	for range 30 {
		a = r.do(call{method: "GET", path: "/v1/server", token: auth.NewText().Reveal()})
	}
	if a.status != 429 || a.problem.Code != api.ErrorCodeRateLimited || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s, Retry-After %q; want 429 rate_limited with it", a.status, a.problem.Code, a.header.Get("Retry-After"))
	}
	if a := r.do(call{method: "GET", path: "/v1/server", role: auth.Viewer}); a.status != 200 {
		t.Errorf("a good token meanwhile: %d, want 200", a.status)
	}
}
