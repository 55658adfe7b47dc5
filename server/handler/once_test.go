package handler_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
)

func (r *rig) groups() []api.BackupGroup {
	r.t.Helper()
	return into[api.BackupGroupList](r, r.do(call{method: "GET", path: "/v1/backup-groups", role: auth.Viewer}), 200).Items
}

func TestARepeatedRequestIsDoneOnce(t *testing.T) {
	r := newRig(t)
	create := call{
		method: "POST", path: "/v1/backup-groups", role: auth.Backup, header: map[string]string{"Idempotency-Key": "plan-1"},
		body: api.BackupGroup{Name: "g", VirtualMachineIDs: []string{r.vms[0].ID}},
	}
	first, second := r.do(create), r.do(create)
	if first.status != 201 || second.status != 201 || !bytes.Equal(first.body, second.body) {
		t.Errorf("first %d %s\nthen %d %s\nwant 201 and the same", first.status, first.body, second.status, second.body)
	}
	for _, h := range []string{"ETag", "Location", "Content-Type"} {
		if a, b := first.header.Get(h), second.header.Get(h); a == "" || a != b {
			t.Errorf("%s: first %q, then %q, want the same", h, a, b)
		}
	}
	if second.header.Get("Idempotency-Replayed") != "true" {
		t.Error("the second answer does not say that it is a repetition")
	}
	if n := len(r.groups()); n != 1 {
		t.Errorf("%d groups, want 1", n)
	}
	other := create
	other.body = api.BackupGroup{Name: "another", VirtualMachineIDs: []string{r.vms[0].ID}}
	if a := r.do(other); a.status != 409 || a.problem.Code != api.ErrorCodeConflict {
		t.Errorf("the key with another body: %d %s, want 409 conflict", a.status, a.problem.Code)
	}
	r.clock.pass(25 * time.Hour)
	if a := r.do(create); a.status != 409 || a.problem.Field != "name" {
		t.Errorf("a day later: %d %q, want 409 for the name: the answer is not kept any more", a.status, a.problem.Field)
	}
}

func TestRepetitionsAtTheSameTimeAreDoneOnce(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	answers := make([]answer, 8)
	for i := range answers {
		wg.Go(func() {
			answers[i] = r.do(call{
				method: "POST", path: "/v1/virtual-machines/" + r.vms[0].ID + ":backup", role: auth.Backup,
				header: map[string]string{"Idempotency-Key": "run-1"}, body: api.BackupOptions{RetentionDays: 1},
			})
		})
	}
	wg.Wait()
	for _, a := range answers {
		if a.status != 202 || !bytes.Equal(a.body, answers[0].body) {
			t.Errorf("%d %s, want 202 and the same as %s", a.status, a.body, answers[0].body)
		}
	}
	if runs := into[api.RunList](r, r.do(call{method: "GET", path: "/v1/runs", role: auth.Viewer}), 200); len(runs.Items) != 1 {
		t.Errorf("%d runs, want 1", len(runs.Items))
	}
}

func TestARefusalIsNotKept(t *testing.T) {
	r := newRig(t)
	c := call{
		method: "POST", path: "/v1/backup-schedules", role: auth.Backup, header: map[string]string{"Idempotency-Key": "k"}, body: nightly("last", r.vms[3].ID),
	}
	var taken api.BackupSchedule
	for i := range 3 {
		taken = r.schedule(nightly(r.vms[i].Name, r.vms[i].ID))
	}
	if a := r.do(c); a.status != 409 {
		t.Fatalf("full slot: %d, want 409", a.status)
	}
	if a := r.do(call{method: "DELETE", path: "/v1/backup-schedules/" + taken.ID, role: auth.Operator}); a.status != 204 {
		t.Fatalf("delete: %d", a.status)
	}
	if a := r.do(c); a.status != 201 {
		t.Errorf("the same request once there is room: %d, want 201: %s", a.status, a.body)
	}
}

func TestATokensTextIsNotKept(t *testing.T) {
	r := newRig(t)
	c := call{method: "POST", path: "/v1/tokens", role: auth.Operator, header: map[string]string{"Idempotency-Key": "k"}, body: api.Token{Name: "ci", Role: api.RoleViewer}}
	if a := r.do(c); a.status != 201 {
		t.Fatalf("first: %d", a.status)
	}
	if a := r.do(c); a.status != 409 {
		t.Errorf("again: %d, want 409: its text must not be shown twice", a.status)
	}
}
