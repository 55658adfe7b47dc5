package handler_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// places are where repositories lie: one whose password is "theirs" is another
// installation's.
type places struct{}

// Create implements [backup.RepositoryMaker].
func (places) Create(_ context.Context, r backup.RepositoryRecord) (string, error) {
	if r.Settings["bucket"] == "" && r.Settings["path"] == "" {
		return "", backup.Errorf(backup.Invalid, "settings.bucket", "The setting %q is missing.", "bucket")
	}
	return "unique-" + r.ID, nil
}

// Attach implements [backup.RepositoryMaker].
func (places) Attach(_ context.Context, r backup.RepositoryRecord) (string, string, error) {
	if r.Password.Reveal() == "theirs" {
		return "unique", "another-installation", nil
	}
	return "unique", "", nil
}

// Check implements [backup.RepositoryMaker].
func (places) Check(r backup.RepositoryRecord) error {
	if r.Compression == "lz4" {
		return backup.Errorf(backup.Invalid, "compression", "There is no compression %q.", r.Compression)
	}
	return nil
}

// Probe implements [backup.RepositoryMaker]. At /mnt/other lies another one.
func (places) Probe(_ context.Context, r backup.RepositoryRecord) (string, string, error) {
	if r.Settings["path"] == "/mnt/other" {
		return "other", "", nil
	}
	return r.UniqueID, "", nil
}

// SetLock implements [backup.RepositoryMaker].
func (places) SetLock(context.Context, backup.RepositoryRecord) error { return nil }

// ChangePassword implements [backup.RepositoryMaker].
func (places) ChangePassword(context.Context, backup.RepositoryRecord) error { return nil }

// TakeOver implements [backup.RepositoryMaker].
func (places) TakeOver(context.Context, backup.RepositoryRecord) (string, error) {
	return "another-installation", nil
}

// RecoverySheet implements [backup.RepositoryMaker].
func (places) RecoverySheet(r backup.RepositoryRecord, recipient string) (backup.Secret, error) {
	return "password: " + r.Password + " for " + backup.Secret(recipient), nil
}

func TestARecoverySheetIsGivenToOperatorsAloneAndNotLogged(t *testing.T) {
	r := newRig(t)
	body := `{"name":"theirs","kind":"filesystem","settings":{"path":"/mnt/theirs"},"password":"hush-hush"}`
	made := into[api.Repository](r, r.do(call{method: "POST", path: "/v1/repositories", role: auth.Operator, body: body}), 201)
	path := "/v1/repositories/" + made.ID + ":recovery-sheet"
	sheet := into[api.RecoverySheet](r, r.do(call{method: "POST", path: path, role: auth.Operator, body: `{"age_recipient":"age1xyz"}`}), 200)
	if sheet.Text != "password: hush-hush for age1xyz" {
		t.Errorf("sheet = %q", sheet.Text)
	}
	if !strings.Contains(r.log.String(), "recovery sheet given out") || strings.Contains(r.log.String(), "hush-hush") {
		t.Errorf("the log does not tell of the sheet, or holds what it says: %s", r.log)
	}
	for _, role := range []auth.Role{auth.Viewer, auth.Backup, auth.Restorer} {
		if a := r.do(call{method: "POST", path: path, role: role, body: `{}`}); a.status != 403 {
			t.Errorf("a sheet for %s: %d, want 403", role, a.status)
		}
	}
}

func TestARepositoryIsMadeAndToldWithoutItsSecrets(t *testing.T) {
	r := newRig(t)
	body := `{"name":"offsite","kind":"s3","settings":{"endpoint":"s3.example.com","bucket":"images","access_key_id":"env:AWS_ACCESS_KEY_ID","secret_access_key":"hush"}}`
	a := r.do(call{method: "POST", path: "/v1/repositories", role: auth.Operator, body: body})
	made := into[api.Repository](r, a, 201)
	if made.Compression != "s2" || made.VerifyDays != 30 || made.OwnedBy != "01JDZK3Q8X4T9V2M6B7N5C1R0A" || a.header.Get("Location") != "/v1/repositories/"+made.ID {
		t.Errorf("repository = %+v at %q, want the defaults and its place", made, a.header.Get("Location"))
	}
	got := r.do(call{method: "GET", path: "/v1/repositories/" + made.ID, role: auth.Viewer})
	if made.Settings["secret_access_key"] != "***" || strings.Contains(string(got.body), "hush") {
		t.Errorf("GET = %s, want the key hidden", got.body)
	}
	if strings.Contains(r.log.String(), "hush") {
		t.Error("the log holds the key")
	}
	if a := r.do(call{method: "POST", path: "/v1/repositories", role: auth.Operator, body: body}); a.status != 409 || a.problem.Field != "name" {
		t.Errorf("the same name again: %d %s", a.status, a.body)
	}
	bad := strings.Replace(strings.Replace(body, "offsite", "other", 1), `"bucket":"images",`, "", 1)
	if a := r.do(call{method: "POST", path: "/v1/repositories", role: auth.Operator, body: bad}); a.status != 400 || a.problem.Field != "settings.bucket" {
		t.Errorf("without a bucket: %d %s", a.status, a.body)
	}
}

func TestARepositoryIsAttachedAndTakenOver(t *testing.T) {
	r := newRig(t)
	body := `{"name":"theirs","kind":"filesystem","settings":{"path":"/mnt/theirs"},"password":"theirs"}`
	made := into[api.Repository](r, r.do(call{method: "POST", path: "/v1/repositories", role: auth.Operator, body: body}), 201)
	if made.OwnedBy != "another-installation" {
		t.Errorf("owned_by = %q, want the other installation", made.OwnedBy)
	}
	path := "/v1/repositories/" + made.ID + ":takeover"
	taken := into[api.Repository](r, r.do(call{method: "POST", path: path, role: auth.Operator}), 200)
	if taken.OwnedBy != "01JDZK3Q8X4T9V2M6B7N5C1R0A" {
		t.Errorf("owned_by = %q, want this installation", taken.OwnedBy)
	}
	if a := r.do(call{method: "POST", path: "/v1/repositories/" + nobody + ":takeover", role: auth.Operator}); a.status != 404 {
		t.Errorf("taking over what is not there: %d %s", a.status, a.body)
	}
}

func TestARepositoryIsChangedGivenAPasswordAndForgotten(t *testing.T) {
	r := newRig(t)
	body := `{"name":"nas","kind":"filesystem","settings":{"path":"/mnt/nas"}}`
	a := r.do(call{method: "POST", path: "/v1/repositories", role: auth.Operator, body: body})
	made := into[api.Repository](r, a, 201)
	if len(made.Warnings) != 1 || !strings.Contains(made.Warnings[0], "recovery-sheet") {
		t.Errorf("warnings = %q, want the sheet that was never given out", made.Warnings)
	}
	path := "/v1/repositories/" + made.ID
	patch := func(body, match string) answer {
		return r.do(call{method: "PATCH", path: path, role: auth.Operator, header: map[string]string{"If-Match": match}, body: body})
	}
	a = patch(`{"verify_days":7,"settings":{"path":"/mnt/moved"}}`, a.header.Get("ETag"))
	changed := into[api.Repository](r, a, 200)
	if changed.VerifyDays != 7 || changed.Settings["path"] != "/mnt/moved" || changed.Name != "nas" {
		t.Errorf("changed = %+v, want what was asked for and all else as it was", changed)
	}
	if a := patch(`{"verify_days":8}`, `"1"`); a.status != 412 || a.problem.Code != "stale" {
		t.Errorf("with an old ETag: %d %s", a.status, a.body)
	}
	for body, want := range map[string]string{
		`{"kind":"s3"}`:                      "400 kind",
		`{"default":false}`:                  "200 ",
		`{"compression":"lz4"}`:              "400 compression",
		`{"settings":{"path":"/mnt/other"}}`: "409 settings",
		`{"verify_days":0}`:                  "400 verify_days",
		`{"owned_by":"me"}`:                  "400 owned_by",
		`{"default":true,"read_only":true}`:  "409 read_only",
		`{"settings":{"private_key":"***"}}`: "400 settings.private_key",
	} {
		a := patch(body, "*")
		if got := fmt.Sprint(a.status, " ", a.problem.Field); got != want {
			t.Errorf("PATCH %s = %s, want %s (%s)", body, got, want, a.body)
		}
	}

	sheet := r.do(call{method: "POST", path: path + ":recovery-sheet", role: auth.Operator, body: `{}`})
	before := into[api.RecoverySheet](r, sheet, 200).Text
	told := into[api.Repository](r, r.do(call{method: "GET", path: path, role: auth.Viewer}), 200)
	if len(told.Warnings) != 0 || told.RecoverySheetAt.IsZero() {
		t.Errorf("with a sheet: warnings %q, given out at %v", told.Warnings, told.RecoverySheetAt)
	}
	renewed := into[api.Repository](r, r.do(call{method: "POST", path: path + ":change-password", role: auth.Operator}), 200)
	if len(renewed.Warnings) != 1 || !strings.Contains(renewed.Warnings[0], "out of date") || !renewed.RecoverySheetAt.IsZero() {
		t.Errorf("after a change of password: warnings %q, sheet of %v; want it out of date", renewed.Warnings, renewed.RecoverySheetAt)
	}
	after := into[api.RecoverySheet](r, r.do(call{method: "POST", path: path + ":recovery-sheet", role: auth.Operator, body: `{}`}), 200).Text
	if before == after {
		t.Error("the sheets before and after hold the same password")
	}

	if a := r.do(call{method: "DELETE", path: path + "?forget_images=true", role: auth.Operator}); a.status != 204 {
		t.Errorf("DELETE = %d %s", a.status, a.body)
	}
	if a := r.do(call{method: "GET", path: path, role: auth.Viewer}); a.status != 404 {
		t.Errorf("GET of a forgotten repository = %d", a.status)
	}
}
