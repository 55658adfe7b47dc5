package handler_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// second registers another repository.
func (r *rig) second(name string, readOnly bool) backup.RepositoryRecord {
	r.t.Helper()
	ctx := context.Background()
	repo := backup.RepositoryRecord{Name: name, Kind: "filesystem", Settings: map[string]string{"path": "/srv/" + name}, Password: "p", ReadOnly: readOnly}
	r.must(r.db.Update(ctx, func(tx backup.Tx) error { return tx.InsertRepository(ctx, &repo) }))
	return repo
}

// copied ends a copy job as a worker does.
func (r *rig) copied(j api.Job) backup.Image {
	r.t.Helper()
	ctx := context.Background()
	var c backup.Image
	lease := r.claim(j.ID)
	r.must(r.db.Finish(ctx, lease, backup.Ending{State: backup.JobSucceeded}, func(tx backup.Tx) error {
		job, err := tx.Job(ctx, j.ID)
		if err != nil {
			return err
		}
		var spec backup.CopySpec
		if err := json.Unmarshal(job.Spec, &spec); err != nil {
			return err
		}
		source, err := tx.Image(ctx, spec.SourceID)
		if err != nil {
			return err
		}
		c = backup.NewCopy(source, spec)
		c.ID, c.JobID, c.EndedAt, c.Ref = backup.NewID(tx.Now()), j.ID, tx.Now(), "r2"
		return tx.InsertImage(ctx, c)
	}))
	return c
}

// listed are the ids of the images that a list has.
func (r *rig) listed(query string) string {
	r.t.Helper()
	var all []string
	for _, i := range into[api.BackupImageList](r, r.do(call{method: "GET", path: "/v1/backup-images" + query, role: auth.Viewer}), 200).Items {
		all = append(all, i.ID)
	}
	return strings.Join(all, " ")
}

// seed:K2 seed:A46
func TestAnImageIsCopiedAndTellsSo(t *testing.T) {
	r := newRig(t)
	i := r.image(r.vms[0], func(i *backup.Image) { i.ExpiresAt = r.clock.Now().Add(48 * time.Hour) })
	r.second("second", false)
	path := "/v1/backup-images/" + i.ID
	copies := func() []api.ImageCopy {
		return into[api.ImageCopyList](r, r.do(call{method: "GET", path: path + "/copies", role: auth.Viewer}), 200).Items
	}
	if got := copies(); len(got) != 0 {
		t.Errorf("copies before: %+v", got)
	}
	ask := call{method: "POST", path: path + "/copies", role: auth.Backup, body: `{"repository":"second","retention_days":31}`}
	j := into[api.Job](r, r.do(ask), 202)
	if again := into[api.Job](r, r.do(ask), 202); j.Kind != api.JobKindCopy || again.ID != j.ID {
		t.Errorf("asked twice: jobs %s and %s of kind %s, want one that copies", j.ID, again.ID, j.Kind)
	}
	if got := copies(); len(got) != 1 || got[0].Status != api.ImageCopyStatusWaiting || got[0].Repository != "second" || got[0].JobID != j.ID || got[0].ID != "" {
		t.Errorf("copies that wait: %+v", got)
	}
	if a := r.do(call{method: "DELETE", path: path, role: auth.Operator}); a.status != 409 || a.problem.Code != api.ErrorCodeInUse || !strings.Contains(a.problem.Detail, j.ID) {
		t.Errorf("delete while it is copied: %d %s %q, want in_use with the job", a.status, a.problem.Code, a.problem.Detail)
	}
	r.clock.pass(time.Second)
	c := r.copied(j)
	got := into[api.BackupImage](r, r.do(call{method: "GET", path: path, role: auth.Viewer}), 200)
	if len(got.Copies) != 1 || got.Copies[0].ID != c.ID || got.Copies[0].Status != api.ImageCopyStatusGood || !got.Copies[0].ExpiresAt.Equal(i.StartedAt.Add(31*24*time.Hour)) || got.CopyOf != "" {
		t.Errorf("the image tells of the copies %+v", got.Copies)
	}
	if got := into[api.BackupImage](r, r.do(call{method: "GET", path: "/v1/backup-images/" + c.ID, role: auth.Viewer}), 200); got.CopyOf != i.ID || got.Repository != "second" || len(got.Copies) != 0 {
		t.Errorf("the copy tells %+v", got)
	}
	for query, want := range map[string]string{"": i.ID, "?copies=true": c.ID + " " + i.ID, "?copies=false": i.ID, "?repository=second": c.ID, "?repository=default": i.ID} {
		if got := r.listed(query); got != want {
			t.Errorf("list %q = %s, want %s", query, got, want)
		}
	}
	if a := r.do(ask); a.status != 409 || a.problem.Code != api.ErrorCodeConflict || !strings.Contains(a.problem.Detail, c.ID) {
		t.Errorf("copy of what is there: %d %s %q, want a conflict that names it", a.status, a.problem.Code, a.problem.Detail)
	}
	if a := r.do(call{method: "DELETE", path: path, role: auth.Operator}); a.status != 204 {
		t.Fatalf("delete: %d %s", a.status, a.body)
	}
	if got := r.listed(""); got != c.ID+" "+i.ID { // until it is gone it is listed as expired
		t.Errorf("list without the original = %s, want the copy %s in it", got, c.ID)
	}
}

func TestAScheduleTellsWhereItsImagesAreCopied(t *testing.T) {
	r := newRig(t)
	r.second("second", false)
	s := into[api.BackupSchedule](r, r.do(call{method: "POST", path: "/v1/backup-schedules", role: auth.Backup,
		body: `{"name":"s","virtual_machine_id":"` + r.vms[0].ID + `","daily":{},"start_time":"04:00","retention_days":7,"copy_to":[{"repository":"second","retention_days":8}]}`}), 201)
	if len(s.CopyTo) != 1 || s.CopyTo[0] != (api.CopyTarget{Repository: "second", RetentionDays: 8}) {
		t.Errorf("made with copy_to %+v", s.CopyTo)
	}
	got := into[api.BackupSchedule](r, r.do(call{method: "GET", path: "/v1/backup-schedules/" + s.ID, role: auth.Viewer}), 200)
	if len(got.CopyTo) != 1 || got.CopyTo[0].Repository != "second" {
		t.Errorf("read with copy_to %+v", got.CopyTo)
	}
}

func TestACopyThatCannotBeIsRefused(t *testing.T) {
	r := newRig(t)
	r.second("second", false)
	r.second("others", true)
	i := r.image(r.vms[0], nil)
	damaged := r.image(r.vms[1], func(i *backup.Image) { i.Status = backup.ImageDamaged })
	copies := "/v1/backup-images/" + i.ID + "/copies"
	schedule := func(copyTo string) string {
		return `{"name":"s","virtual_machine_id":"` + r.vms[0].ID + `","daily":{},"start_time":"04:00","retention_days":7,"copy_to":` + copyTo + `}`
	}
	for name, c := range map[string]struct {
		path, body string
		status     int
		code       api.ErrorCode
		field      string
	}{
		"no repository":             {copies, `{}`, 400, api.ErrorCodeInvalid, "repository"},
		"an unknown one":            {copies, `{"repository":"none"}`, 422, api.ErrorCodeNotFound, "repository"},
		"its own":                   {copies, `{"repository":"default"}`, 409, api.ErrorCodeConflict, "repository"},
		"a read-only one":           {copies, `{"repository":"others"}`, 400, api.ErrorCodeInvalid, "repository"},
		"another profile's days":    {copies, `{"repository":"second","retention_days":7}`, 400, api.ErrorCodeInvalid, "retention_days"},
		"no image":                  {"/v1/backup-images/" + nobody + "/copies", `{"repository":"second"}`, 404, api.ErrorCodeNotFound, ""},
		"a damaged image":           {"/v1/backup-images/" + damaged.ID + "/copies", `{"repository":"second"}`, 422, api.ErrorCodeRepositoryDamaged, ""},
		"a schedule to its own":     {"/v1/backup-schedules", schedule(`[{"repository":"default","retention_days":7}]`), 400, api.ErrorCodeInvalid, "copy_to.repository"},
		"a schedule to one twice":   {"/v1/backup-schedules", schedule(`[{"repository":"second","retention_days":7},{"repository":"second","retention_days":8}]`), 400, api.ErrorCodeInvalid, "copy_to.repository"},
		"a schedule for many days":  {"/v1/backup-schedules", schedule(`[{"repository":"second","retention_days":31}]`), 400, api.ErrorCodeInvalid, "copy_to.retention_days"},
		"a schedule without a name": {"/v1/backup-schedules", schedule(`[{"retention_days":7}]`), 400, api.ErrorCodeInvalid, "copy_to"},
	} {
		a := r.do(call{method: "POST", path: c.path, role: auth.Operator, body: c.body})
		if a.status != c.status || a.problem.Code != c.code || !strings.HasPrefix(a.problem.Field, c.field) || c.field == "" && a.problem.Field != "" {
			t.Errorf("%s: %d %s %q (%s), want %d %s %q", name, a.status, a.problem.Code, a.problem.Field, a.problem.Detail, c.status, c.code, c.field)
		}
	}
}
