package handler_test

import (
	"context"
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
