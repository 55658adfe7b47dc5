package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
