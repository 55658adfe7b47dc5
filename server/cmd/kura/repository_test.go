package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

func TestRepositoriesAreMadeAndTakenOver(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	made := `{"id":"` + groupA + `","name":"vault","kind":"sftp","settings":{"host":"vault.example.com","private_key":"***"},"compression":"s2","verify_days":30,"owned_by":"theirs","created_at":"2026-11-23T09:00:00Z"}`
	f.on("POST /v1/repositories", reply{status: http.StatusCreated, body: made})
	r := f.kura("repository", "create", "vault", "--kind", "sftp", "--set", "host=vault.example.com", "--set", "path=/srv/a;b",
		"--set", "private_key=@"+write("key", "KEY\n"), "--password-file", write("password", "hush\n"))
	if r.status != 0 || !strings.Contains(r.out, "owned by:        theirs\n") || strings.Contains(r.out+r.errout, "hush") {
		t.Errorf("status %d, stdout %s, stderr %s; want whose it is and no password", r.status, r.out, r.errout)
	}
	sent := f.asked[len(f.asked)-1].body
	for _, want := range []string{`"host":"vault.example.com"`, `"path":"/srv/a;b"`, `"private_key":"KEY\n"`, `"password":"hush"`} {
		if !strings.Contains(sent, want) {
			t.Errorf("sent %s, want %s", sent, want)
		}
	}
	if r := f.kura("repository", "create", "vault", "--set", "path=@"+filepath.Join(dir, "none")); r.status == 0 || !strings.Contains(r.errout, "cannot be read") {
		t.Errorf("a file that is not there: status %d, stderr %s", r.status, r.errout)
	}

	f.on("GET /v1/repositories?name=vault", items(made))
	f.on("POST /v1/repositories/"+groupA+":recovery-sheet", ok(`{"text":"the sheet\n"}`))
	f.kura("repository", "recovery-sheet", "vault", "--age-recipient", "age1xyz").want(t, 0, "the sheet\n",
		"Whoever reads this sheet can read every image: keep it where secrets are kept, away from the server and the storage.\n")
	if sent := f.asked[len(f.asked)-1].body; !strings.Contains(sent, `"age_recipient":"age1xyz"`) {
		t.Errorf("sent %s, want the recipient", sent)
	}

	f.on("POST /v1/repositories/"+groupA+":takeover", ok(strings.Replace(made, "theirs", "ours", 1)))
	if r := f.kura("repository", "takeover", "vault"); r.status == 0 || !strings.Contains(r.errout, "--yes") {
		t.Errorf("without --yes: status %d, stderr %s, want to be asked", r.status, r.errout)
	}
	if r := f.kura("repository", "takeover", "vault", "--yes"); r.status != 0 || !strings.Contains(r.out, "owned by:        ours\n") {
		t.Errorf("status %d, stdout %s, want the new owner", r.status, r.out)
	}
}

func TestRepositoriesAreChangedAndForgotten(t *testing.T) {
	f := newFake(t)
	was := `{"id":"` + groupA + `","name":"vault","kind":"sftp","settings":{"host":"vault.example.com","path":"/srv","private_key":"***","known_hosts":"x"},"compression":"s2","verify_days":30,"owned_by":"ours","created_at":"2026-11-23T09:00:00Z"}`
	f.on("GET /v1/repositories?name=vault", items(was))
	f.on("GET /v1/repositories/"+groupA, reply{status: http.StatusOK, body: was, etag: `"7"`})
	f.on("PATCH /v1/repositories/"+groupA, ok(strings.Replace(was, `"vault"`, `"safe"`, 1)))
	r := f.kura("repository", "update", "vault", "--rename", "safe", "--set", "path=/srv/b", "--unset", "known_hosts", "--verify-days", "7", "--no-read-only", "--default")
	if r.status != 0 || !strings.Contains(r.out, "name:            safe\n") {
		t.Errorf("status %d, stdout %s, stderr %s; want the repository with its new name", r.status, r.out, r.errout)
	}
	sent := f.asked[len(f.asked)-1]
	var change api.RepositoryChange
	if err := json.Unmarshal([]byte(sent.body), &change); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"host": "vault.example.com", "path": "/srv/b", "private_key": "***"}
	if !maps.Equal(change.Settings, want) || *change.VerifyDays != 7 || *change.ReadOnly || !*change.Default || change.Compression != nil {
		t.Errorf("sent %s, want the other settings as they are and no more than what was asked for", sent.body)
	}
	if sent.header.Get("If-Match") != `"7"` {
		t.Errorf("If-Match = %q, want the version that was read", sent.header.Get("If-Match"))
	}

	f.on("POST /v1/repositories/"+groupA+":change-password", ok(strings.Replace(was, `"created_at"`, `"warnings":["The recovery sheet is out of date."],"created_at"`, 1)))
	if r := f.kura("repository", "change-password", "vault"); r.status != 0 || !strings.Contains(r.out, "warning:         The recovery sheet is out of date.\n") {
		t.Errorf("status %d, stdout %s, stderr %s; want what to see to", r.status, r.out, r.errout)
	}

	f.on("DELETE /v1/repositories/"+groupA+"?forget_images=true", reply{status: http.StatusNoContent})
	if r := f.kura("repository", "delete", "vault", "--forget-images"); r.status == 0 || !strings.Contains(r.errout, "--yes") {
		t.Errorf("without --yes: status %d, stderr %s, want to be asked", r.status, r.errout)
	}
	f.kura("repository", "delete", "vault", "--forget-images", "--yes").want(t, 0, "", "The repository vault is forgotten; what it holds stays where it is.\n")
}

func TestTheCatalogueOfARepositoryIsRebuilt(t *testing.T) {
	f := newFake(t)
	const rebuild = "01JDZK3Q8X4T9V2M6B7N5C1R1C"
	vault := `{"id":"` + groupA + `","name":"vault","kind":"filesystem","settings":{"path":"/mnt"},"created_at":"2026-11-23T09:00:00Z"}`
	job := `{"id":"` + rebuild + `","kind":"catalogue","state":"succeeded","messages":["3 images are listed now that were not; 0 were."],"attempt":1,"max_attempts":3,"due_at":"2026-11-23T09:00:00Z","created_at":"2026-11-23T09:00:00Z","ended_at":"2026-11-23T09:00:01Z","progress":{"done":0,"total":0,"bytes_per_second":0}}`
	f.on("GET /v1/repositories?name=vault", items(vault))
	f.on("POST /v1/repositories/"+groupA+":rebuild-catalogue?prune=true", reply{status: http.StatusAccepted, body: job})
	if r := f.kura("catalog", "rebuild", "vault", "--prune"); r.status != 0 || !strings.Contains(r.out, rebuild) {
		t.Errorf("status %d, stdout %s, stderr %s; want the job", r.status, r.out, r.errout)
	}
	f.on("POST /v1/repositories/"+groupA+":rebuild-catalogue?prune=false", reply{status: http.StatusAccepted, body: job})
	if r := f.kura("catalog", "rebuild", "vault"); r.status != 0 || !strings.Contains(r.out, rebuild) {
		t.Errorf("without --prune: status %d, stdout %s, stderr %s; want the job", r.status, r.out, r.errout)
	}
}
