package backup_test

import (
	"maps"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestSettingsAreToldWithoutSecrets(t *testing.T) {
	r := backup.RepositoryRecord{Settings: map[string]string{
		"bucket": "images", "access_key_id": "env:AWS_ACCESS_KEY_ID", "secret_access_key": "hush",
		"session_token": "hush", "private_key": "file:/etc/kura/key",
	}}
	want := map[string]string{
		"bucket": "images", "access_key_id": "env:AWS_ACCESS_KEY_ID", "secret_access_key": "***",
		"session_token": "***", "private_key": "file:/etc/kura/key",
	}
	if got := r.PublicSettings(); !maps.Equal(got, want) {
		t.Errorf("PublicSettings() = %v, want %v", got, want)
	}
	if r.Settings["secret_access_key"] != "hush" {
		t.Error("PublicSettings() changed the record")
	}
}
