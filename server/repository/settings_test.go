package repository_test

import (
	"encoding/base64"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"golang.org/x/crypto/ssh"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

func TestSettingsSayWhichIsWrong(t *testing.T) {
	t.Parallel()
	_, key := newKey(t)
	public, _ := newKey(t)
	good := map[string]map[string]string{
		repository.KindS3: {"endpoint": "s3.example.com", "bucket": "images", "access_key_id": "id", "secret_access_key": "key"},
		repository.KindSFTP: {
			"host": "backup.example.com", "user": "kura", "path": "/srv/kura", "private_key": key,
			"known_hosts": "backup.example.com " + public.Type() + " " + encoded(public),
		},
		repository.KindFilesystem: {"path": "/srv/kura"},
		repository.KindWebDAV:     {"url": "https://dav.example.com/kura", "username": "kura", "http_password": "env:KURA_REPOSITORY_DAV"},
	}
	for kind, settings := range good {
		if err := repository.Check(backup.RepositoryRecord{Kind: kind, Settings: settings}); err != nil {
			t.Errorf("Check() of a good %s = %v", kind, err)
		}
	}
	for _, c := range []struct{ kind, name, value string }{
		{repository.KindS3, "endpoint", "https://s3.example.com"},
		{repository.KindS3, "bucket", ""},
		{repository.KindS3, "access_key_id", "env:HOME"},
		{repository.KindS3, "secret_access_key", "file:secret"},
		{repository.KindS3, "prefix", "kura"},
		{repository.KindS3, "prefix", "/kura/"},
		{repository.KindS3, "tls", "no"},
		{repository.KindS3, "ca_certificate", "none"},
		{repository.KindS3, "lock_mode", "strict"},
		{repository.KindS3, "lock_days", "30"},
		{repository.KindS3, "path", "/srv"},
		{repository.KindSFTP, "host", "kura@backup"},
		{repository.KindSFTP, "port", "ssh"},
		{repository.KindSFTP, "path", "kura"},
		{repository.KindSFTP, "private_key", "secret"},
		{repository.KindSFTP, "known_hosts", ""},
		{repository.KindSFTP, "known_hosts", "# nobody"},
		{repository.KindSFTP, "known_hosts", "backup.example.com ssh-ed25519 nonsense"},
		{repository.KindFilesystem, "path", "kura"},
		{repository.KindFilesystem, "bucket", "images"},
		{repository.KindWebDAV, "url", "dav.example.com/kura"},
		{repository.KindWebDAV, "url", "ftp://dav.example.com/kura"},
		{repository.KindWebDAV, "url", "https://kura:secret@dav.example.com/kura"},
		{repository.KindWebDAV, "url", "https://dav.example.com/kura?to=all"},
		{repository.KindWebDAV, "http_password", "env:HOME"},
		{repository.KindWebDAV, "ca_certificate", "none"},
	} {
		settings := maps.Clone(good[c.kind])
		settings[c.name] = c.value
		err := repository.Check(backup.RepositoryRecord{Kind: c.kind, Settings: settings})
		field := "settings." + c.name
		if c.name == "lock_days" {
			field = "settings.lock_mode" // days alone are no lock
		}
		wantInvalid(t, c.kind+" with "+c.name+" "+c.value, err, field)
		if err != nil && strings.Contains(err.Error(), "PRIVATE KEY-") {
			t.Errorf("Check() = %v: holds the key", err)
		}
	}
}

func TestSecretsMayBeGivenByName(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := newBucket(t, false)
	file := filepath.Join(t.TempDir(), "key")
	must(0, os.WriteFile(file, []byte(s3User+"\n"), 0o600))(t)
	rec := record("")
	rec.Kind, rec.Settings = b.kind, maps.Clone(b.settings)
	rec.Settings["access_key_id"], rec.Settings["secret_access_key"] = "file:"+file, "env:KURA_REPOSITORY_SECRET"
	dir := t.TempDir()
	open := func(value string) (*repository.Repositories, error) {
		rs := repository.New(repository.Config{Installation: "installation-1", Dir: dir, LookupEnv: func(name string) (string, bool) {
			return value, name == "KURA_REPOSITORY_SECRET"
		}})
		t.Cleanup(func() { must(0, rs.Close(ctx))(t) })
		_, err := rs.Create(ctx, rec)
		return rs, err
	}
	_, err := open("")
	wantCode(t, "Create() without the variable", err, backup.RepositoryUnreachable)
	if err == nil || !strings.Contains(err.Error(), "KURA_REPOSITORY_SECRET") {
		t.Errorf("Create() = %v, want the variable named", err)
	}
	_, err = open("wrong")
	wantCode(t, "Create() with a wrong secret", err, backup.RepositoryUnreachable)
	if err == nil || !strings.Contains(err.Error(), "check secret_access_key") {
		t.Errorf("Create() = %v, want the setting to check", err)
	}
	rs, err := open(s3Pass)
	must(0, err)(t)
	take(t, must(rs.Repository(ctx, rec))(t), draft("image-1"), sparse(rng(1), 2000, mib))
	all := must(os.ReadDir(dir))(t)
	for _, e := range all {
		if text := must(os.ReadFile(filepath.Join(dir, e.Name())))(t); strings.Contains(string(text), s3Pass) || strings.Contains(string(text), s3User) {
			t.Errorf("%s holds a key of the storage", e.Name())
		}
	}
	if len(all) == 0 {
		t.Error("no configuration file was written, want one to look into")
	}
}

func TestAnSSHServerIsNotTrustedBlindly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := newSSHServer(t)
	s := siteAt(t, p)
	other, _ := newKey(t)
	address := "[127.0.0.1]:" + p.settings["port"]
	for want, known := range map[string]string{
		"somebody may stand in between": address + " " + other.Type() + " " + encoded(other),
		"do not name":                   "elsewhere " + other.Type() + " " + encoded(other),
	} {
		rec := s.rec
		rec.Settings = maps.Clone(p.settings)
		rec.Settings["known_hosts"] = known
		_, err := newRepositories(t, "installation-1").Repository(ctx, rec)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Repository() = %v, want %q", err, want)
		}
	}
	rec := s.rec
	rec.Settings = maps.Clone(p.settings)
	_, rec.Settings["private_key"] = newKey(t)
	_, err := newRepositories(t, "installation-1").Repository(ctx, rec)
	wantCode(t, "Repository() with another key", err, backup.RepositoryUnreachable)
	if err == nil || !strings.Contains(err.Error(), "authorized_keys") {
		t.Errorf("Repository() = %v, want what to do", err)
	}
}

func TestTLSIsCheckedAgainstTheCA(t *testing.T) {
	t.Parallel()
	b := newBucket(t, false)
	rec := record("")
	rec.Kind, rec.Settings = b.kind, maps.Clone(b.settings)
	delete(rec.Settings, "ca_certificate")
	_, err := newRepositories(t, "installation-1").Create(t.Context(), rec)
	wantCode(t, "Create() without the CA", err, backup.RepositoryUnreachable)
	if err == nil || !strings.Contains(err.Error(), "set ca_certificate") {
		t.Errorf("Create() = %v, want the setting named", err)
	}
}

func TestAnOccupiedPlaceIsRefused(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b, host := newBucket(t, false), newSSHServer(t)
	must(b.cli.PutObject(ctx, b.name, b.settings["prefix"]+"thesis/1.txt", strings.NewReader("text"), 4, minio.PutObjectOptions{}))(t)
	must(0, os.MkdirAll(host.settings["path"], 0o700))(t)
	must(0, os.WriteFile(filepath.Join(host.settings["path"], "thesis.txt"), nil, 0o600))(t)
	for _, p := range []peer{b.peer, host} {
		rec := record("")
		rec.Kind, rec.Settings = p.kind, p.settings
		_, err := newRepositories(t, "installation-1").Create(ctx, rec)
		wantCode(t, "Create() where other things lie", err, backup.Conflict)
		if err == nil || !strings.Contains(err.Error(), "thesis") {
			t.Errorf("Create() = %v, want what lies there", err)
		}
	}
	s := siteAt(t, newSSHServer(t))
	_, err := newRepositories(t, "installation-2").Create(ctx, s.rec)
	wantCode(t, "Create() on another's repository", err, backup.Conflict)
}

func encoded(k ssh.PublicKey) string { return base64.StdEncoding.EncodeToString(k.Marshal()) }

func TestAWebDAVServerThatRefusesSaysWhatToCheck(t *testing.T) {
	t.Parallel()
	p := newDAVServer(t)
	for name, c := range map[string]struct{ value, want string }{
		"http_password":  {"wrong", "check username and http_password"},
		"ca_certificate": {"", "set ca_certificate"},
	} {
		rec := record("")
		rec.Kind, rec.Settings = p.kind, maps.Clone(p.settings)
		rec.Settings[name] = c.value
		_, err := newRepositories(t, "installation-1").Create(t.Context(), rec)
		wantCode(t, "Create() with a wrong "+name, err, backup.RepositoryUnreachable)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), davPass) {
			t.Errorf("Create() with a wrong %s = %v, want %q", name, err, c.want)
		}
	}
}
