package handler_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:N43 seed:A33
func TestAHeldImageIsKeptListedAndGivenBack(t *testing.T) {
	r := newRig(t)
	i := r.image(r.vms[0], func(i *backup.Image) { i.ExpiresAt = r.clock.Now().Add(time.Hour) })
	path, holds := "/v1/backup-images/"+i.ID, "/v1/backup-images/"+i.ID+"/holds"
	get := func() api.BackupImage {
		return into[api.BackupImage](r, r.do(call{method: "GET", path: path, role: auth.Viewer}), 200)
	}
	if got := get(); got.Held || !got.HeldUntil.IsZero() || len(got.Holds) != 0 {
		t.Errorf("an image without holds: %+v", got)
	}
	until := r.clock.Now().Add(48 * time.Hour)
	key := map[string]string{"Idempotency-Key": "one"}
	short := into[api.ImageHold](r, r.do(call{method: "POST", path: holds, role: auth.Backup, header: key, body: api.ImageHold{Until: until, Reason: "audit"}}), 201)
	again := into[api.ImageHold](r, r.do(call{method: "POST", path: holds, role: auth.Backup, header: key, body: api.ImageHold{Until: until, Reason: "audit"}}), 201)
	if short.CreatedBy != "backup" || short.Reason != "audit" || !short.Until.Equal(until) || short.ImageID != i.ID || again.ID != short.ID {
		t.Errorf("hold = %+v, repeated %s; want one of the token backup", short, again.ID)
	}
	if got := get(); !got.Held || !got.HeldUntil.Equal(until) || len(got.Holds) != 1 {
		t.Errorf("held until an instant: %t %s, %d holds", got.Held, got.HeldUntil, len(got.Holds))
	}
	r.clock.pass(time.Second)
	forEver := into[api.ImageHold](r, r.do(call{method: "POST", path: holds, role: auth.Operator, body: api.ImageHold{}}), 201)
	got := get()
	if !got.Held || !got.HeldUntil.IsZero() || len(got.Holds) != 2 || !got.Holds[1].Until.IsZero() {
		t.Errorf("held until it is released: %t %s, holds %+v", got.Held, got.HeldUntil, got.Holds)
	}
	listed := into[api.BackupImageList](r, r.do(call{method: "GET", path: "/v1/backup-images", role: auth.Viewer}), 200)
	if len(listed.Items) != 1 || !listed.Items[0].Held || listed.Items[0].Holds != nil {
		t.Errorf("listed = %+v, want it held, without its holds", listed.Items)
	}
	if a := r.do(call{method: "DELETE", path: path, role: auth.Operator}); a.status != 423 || a.problem.Code != api.ErrorCodeLocked || !strings.Contains(a.problem.Detail, forEver.ID) {
		t.Errorf("delete of a held image: %d %s %q, want 423 locked with the hold's id", a.status, a.problem.Code, a.problem.Detail)
	}
	r.clock.pass(20 * time.Hour)
	gone := into[api.HoldReleased](r, r.do(call{method: "DELETE", path: holds + "/" + forEver.ID, role: auth.Operator}), 200)
	if !gone.Held || !gone.HeldUntil.Equal(until) || !strings.Contains(gone.Message, "Another hold") {
		t.Errorf("released = %+v, want the other hold to be told", gone)
	}
	gone = into[api.HoldReleased](r, r.do(call{method: "DELETE", path: holds + "/" + short.ID, role: auth.Operator}), 200)
	if gone.Held || !gone.ExpiresAt.Equal(i.ExpiresAt) || !strings.Contains(gone.Message, "next expiry") {
		t.Errorf("released = %+v, want that the next expiry takes it", gone)
	}
	left := into[api.ImageHoldList](r, r.do(call{method: "GET", path: holds, role: auth.Viewer}), 200)
	if len(left.Items) != 0 {
		t.Errorf("holds = %+v, want none", left.Items)
	}
	if a := r.do(call{method: "DELETE", path: path, role: auth.Operator}); a.status != 204 {
		t.Errorf("delete after the release: %d %s", a.status, a.body)
	}
}

func TestAHoldOrAnExtensionThatCannotBeIsRefused(t *testing.T) {
	r := newRig(t)
	i := r.image(r.vms[0], func(i *backup.Image) { i.ExpiresAt = r.clock.Now().Add(time.Hour) })
	path := "/v1/backup-images/" + i.ID
	for name, c := range map[string]struct {
		call
		status int
		code   api.ErrorCode
		field  string
	}{
		"a hold that is over":             {call{method: "POST", path: path + "/holds", body: api.ImageHold{Until: r.clock.Now()}}, 400, api.ErrorCodeInvalid, "until"},
		"a hold of no image":              {call{method: "POST", path: "/v1/backup-images/" + nobody + "/holds", body: api.ImageHold{}}, 404, api.ErrorCodeNotFound, ""},
		"holds of no image":               {call{method: "GET", path: "/v1/backup-images/" + nobody + "/holds"}, 404, api.ErrorCodeNotFound, ""},
		"a release of no hold":            {call{method: "DELETE", path: path + "/holds/" + nobody}, 404, api.ErrorCodeNotFound, ""},
		"an extension under standard":     {call{method: "PATCH", path: path, body: `{"retention_days":31}`}, 400, api.ErrorCodeInvalid, "retention_days"},
		"an extension by nothing known":   {call{method: "PATCH", path: path, body: `{"locked_until":"2030-01-01T00:00:00Z"}`}, 400, api.ErrorCodeInvalid, "locked_until"},
		"an extension of many days":       {call{method: "PATCH", path: path, body: `{"retention_days":65537}`}, 400, api.ErrorCodeInvalid, "retention_days"},
		"an extension of no image at all": {call{method: "PATCH", path: "/v1/backup-images/" + nobody, body: `{"retention_days":1}`}, 404, api.ErrorCodeNotFound, ""},
	} {
		c.role = auth.Operator
		if a := r.do(c.call); a.status != c.status || a.problem.Code != c.code || a.problem.Field != c.field {
			t.Errorf("%s: %d %s field %q (%s); want %d %s field %q", name, a.status, a.problem.Code, a.problem.Field, a.problem.Detail, c.status, c.code, c.field)
		}
	}
}

// seed:A37 seed:A43
func TestAnImageIsExtendedUnderTheGeneralProfile(t *testing.T) {
	r := newRig(t, func(p *backup.Planner) { p.Profile = backup.ProfileGeneral })
	i := r.image(r.vms[0], func(i *backup.Image) { i.ExpiresAt = r.clock.Now().Add(time.Hour) })
	path := "/v1/backup-images/" + i.ID
	got := into[api.BackupImage](r, r.do(call{method: "PATCH", path: path, role: auth.Operator, body: `{"retention_days":366}`}), 200)
	if want := i.StartedAt.Add(366 * 24 * time.Hour); !got.ExpiresAt.Equal(want) {
		t.Errorf("expires at %s, want %s", got.ExpiresAt, want)
	}
	if a := r.do(call{method: "PATCH", path: path, role: auth.Operator, body: api.ImageExtension{ExpiresAt: i.ExpiresAt}}); a.status != 400 || a.problem.Field != "expires_at" {
		t.Errorf("shortened: %d %s", a.status, a.body)
	}
	got = into[api.BackupImage](r, r.do(call{method: "PATCH", path: path, role: auth.Operator, body: `{"retention_days":0}`}), 200)
	if !got.ExpiresAt.IsZero() {
		t.Errorf("expires at %s, want never", got.ExpiresAt)
	}
}
