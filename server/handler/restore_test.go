package handler_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func (r *rig) restore(key string, body api.Restore) api.Restore {
	r.t.Helper()
	c := call{method: "POST", path: "/v1/restores", role: auth.Restorer, body: body, header: map[string]string{}}
	if key != "" {
		c.header["Idempotency-Key"] = key
	}
	return into[api.Restore](r, r.do(c), 201)
}

func (r *rig) getRestore(id, key string) api.Restore {
	r.t.Helper()
	c := call{method: "GET", path: "/v1/restores/" + id, role: auth.Restorer, header: map[string]string{}}
	if key != "" {
		c.header["Idempotency-Key"] = key
	}
	return into[api.Restore](r, r.do(c), 200)
}

// The rules that keep one wish one restore: a running one is joined, a success
// nobody was told of is handed over, and after that the same wish is a new one.
func TestOneWishIsOneRestoreUntilItsSuccessIsTold(t *testing.T) {
	r := newRig(t)
	wish := api.Restore{ImageID: r.image(r.vms[0], nil).ID, NewVM: &api.RestoreNewVM{Name: "copy", NetworkMappings: map[string]string{"prod": "lab"}}}

	first := r.restore("wish", wish)
	if joined := r.restore("wish", wish); joined.ID != first.ID || joined.Status != api.JobStateQueued {
		t.Fatalf("while it waits: %s %s, want the first one %s", joined.ID, joined.Status, first.ID)
	}
	if diff := cmp.Diff(wish.NewVM, first.NewVM); diff != "" {
		t.Errorf("new_vm (-want +got):\n%s", diff)
	}
	lease := r.claim(first.JobID)
	if joined := r.restore("wish", wish); joined.ID != first.ID || joined.Status != api.JobStateRunning {
		t.Fatalf("while it runs: %s %s, want the first one %s", joined.ID, joined.Status, first.ID)
	}
	r.finish(lease, backup.JobSucceeded)

	// Whoever looks without the key is not the one who asked.
	if seen := r.getRestore(first.ID, ""); seen.Status != api.JobStateSucceeded {
		t.Fatalf("status = %s, want succeeded", seen.Status)
	}
	if seen := r.getRestore(first.ID, "another"); seen.Status != api.JobStateSucceeded {
		t.Fatalf("status = %s, want succeeded", seen.Status)
	}
	if told := r.restore("wish", wish); told.ID != first.ID || told.Status != api.JobStateSucceeded {
		t.Fatalf("a success nobody was told of: %s %s, want the first one %s", told.ID, told.Status, first.ID)
	}
	second := r.restore("wish", wish)
	if second.ID == first.ID || second.Status != api.JobStateQueued {
		t.Fatalf("after it was told: %s %s, want a new one", second.ID, second.Status)
	}

	// A caller that waits by looking is told as well.
	r.finish(r.claim(second.JobID), backup.JobSucceeded)
	if seen := r.getRestore(second.ID, "wish"); seen.Status != api.JobStateSucceeded {
		t.Fatalf("status = %s, want succeeded", seen.Status)
	}
	third := r.restore("wish", wish)
	if third.ID == second.ID {
		t.Fatal("after it was told by GET: the same restore, want a new one")
	}

	// A failure is never handed over: the same wish tries again.
	r.finish(r.claim(third.JobID), backup.JobFailed)
	if fourth := r.restore("wish", wish); fourth.ID == third.ID {
		t.Error("after a failure: the same restore, want a new one")
	}
	if a, b := r.restore("", wish), r.restore("", wish); a.ID == b.ID {
		t.Error("without a key: the same restore twice, want two")
	}
}

func TestARestoreWarnsBeforeItOverwrites(t *testing.T) {
	r := newRig(t)
	image := r.image(r.vms[0], nil)
	check := func(body api.Restore) answer {
		return r.do(call{method: "POST", path: "/v1/restores:check", role: auth.Viewer, body: body})
	}
	got := into[api.RestoreCheckResult](r, check(api.Restore{ImageID: image.ID, InPlace: &api.RestoreInPlace{}}), 200)
	if len(got.Warnings) == 0 { // seed:N66
		t.Error("no warning that the VM is overwritten")
	}
	if list := into[api.RestoreList](r, r.do(call{method: "GET", path: "/v1/restores", role: auth.Viewer}), 200); len(list.Items) != 0 {
		t.Errorf("%d restores after a check, want none", len(list.Items))
	}
	damaged := r.image(r.vms[1], func(i *backup.Image) { i.Status = backup.ImageDamaged })
	if a := check(api.Restore{ImageID: damaged.ID, NewVM: &api.RestoreNewVM{Name: "x"}}); a.status != 422 || a.problem.Code != api.ErrorCodeRepositoryDamaged {
		t.Errorf("a damaged image: %d %s, want 422 repository_damaged", a.status, a.problem.Code)
	}
}

func TestForgettingARestoreCancelsItsJob(t *testing.T) {
	r := newRig(t)
	made := r.restore("", api.Restore{ImageID: r.image(r.vms[0], nil).ID, InPlace: &api.RestoreInPlace{Safety: api.SafetyNone, PowerOn: true}})
	if made.InPlace == nil || made.InPlace.Safety != api.SafetyNone || !made.InPlace.PowerOn {
		t.Errorf("in_place = %+v, want as asked", made.InPlace)
	}
	if a := r.do(call{method: "DELETE", path: "/v1/restores/" + made.ID, role: auth.Restorer}); a.status != 204 {
		t.Fatalf("delete: %d: %s", a.status, a.body)
	}
	if a := r.do(call{method: "GET", path: "/v1/restores/" + made.ID, role: auth.Restorer}); a.status != 404 {
		t.Errorf("after it: %d, want 404", a.status)
	}
	if job := into[api.Job](r, r.do(call{method: "GET", path: "/v1/jobs/" + made.JobID, role: auth.Viewer}), 200); job.State != api.JobStateCancelled {
		t.Errorf("its job is %s, want cancelled", job.State)
	}
}
