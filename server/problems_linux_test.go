package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// updateDocs is the variable that makes the test write the page instead of
// comparing it.
const updateDocs = "KURA_UPDATE_DOCS"

// refusal is a request that a server must refuse in words.
type refusal struct {
	what, method, path, body string
	token                    string // "" = the operator's
}

// TestProblemsAreAsThePageSays sends what users get wrong to a real server and
// compares the answers with docs/dev/problems.md.
func TestProblemsAreAsThePageSays(t *testing.T) {
	l := newLab(t, lab.Config{VMs: 1, DiskSize: 8 << 20})
	p := spawn(t, child{SmallMiB: 24})
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, p.url, p.tokenFile())}
	viewer, err := w.api.CreateTokenWithResponse(w.ctx, api.Token{Name: "pull-requests", Role: api.RoleBackup})
	w.ok(viewer, err)
	fill := 0.9
	if _, err := l.AddVM(w.ctx, lab.VMSpec{Name: "large", Disks: []int64{96 << 20}, Fill: &fill}); err != nil {
		t.Fatal(err)
	}
	v := w.vcenter("lab")
	image := w.backup(w.vm(v.ID, "vm01").ID)
	held, err := w.api.HoldBackupImageWithResponse(w.ctx, image.ID, nil, api.ImageHold{Reason: "audit"})
	w.ok(held, err)

	var page bytes.Buffer
	page.WriteString(problemsHead)
	vcenter := func(endpoint, password, thumbprint string) string {
		return fmt.Sprintf(`{"name":"second","endpoint":%q,"username":%q,"password":%q,"thumbprint":%q}`, endpoint, l.User(), password, thumbprint)
	}
	for _, r := range []refusal{
		{"wrong token", "GET", "/v1/backup-images", "", "kura_wrong"},
		{"a role that may not", "DELETE", "/v1/backup-images/" + image.ID, "", viewer.JSON201.Text},
		{"unknown field", "POST", "/v1/backup-groups", `{"name":"g","vms":["vm01"]}`, ""},
		{"body of 10 MB", "POST", "/v1/backup-groups", `{"name":"` + strings.Repeat("x", 10<<20) + `"}`, ""},
		{"VM that does not exist", "POST", "/v1/virtual-machines/01JDZK3Q8X4T9V2M6B7N5C1R0Z:backup", `{"retention_days":1}`, ""},
		{"group that does not exist", "POST", "/v1/backup-schedules", `{"name":"s","group_id":"01JDZK3Q8X4T9V2M6B7N5C1R0Z","daily":{},"start_time":"02:00","retention_days":7}`, ""},
		{"retention that the profile lacks", "POST", "/v1/backup-schedules", `{"name":"s","virtual_machine_id":"` + w.vm(v.ID, "vm01").ID + `","daily":{},"start_time":"02:00","retention_days":30}`, ""},
		{"vCenter that refuses the password", "POST", "/v1/vcenters", vcenter(l.Endpoint(), "wrong", l.Thumbprint()), ""},
		{"vCenter with another certificate", "POST", "/v1/vcenters", vcenter(l.Endpoint(), l.Password(), strings.Repeat("AB:", 31)+"AB"), ""},
		{"vCenter that does not answer", "POST", "/v1/vcenters", vcenter("https://127.0.0.1:1", l.Password(), ""), ""},
		{"image that is held", "DELETE", "/v1/backup-images/" + image.ID, "", ""},
		{"extension that the profile lacks", "PATCH", "/v1/backup-images/" + image.ID, `{"retention_days":366}`, ""},
		{"copy to where the image is", "POST", "/v1/backup-images/" + image.ID + "/copies", `{"repository":"default"}`, ""},
		{"copies in the schedule's own repository", "POST", "/v1/backup-schedules", `{"name":"s","virtual_machine_id":"` + w.vm(v.ID, "vm01").ID + `","daily":{},"start_time":"02:00","retention_days":7,"copy_to":[{"repository":"default","retention_days":7}]}`, ""},
		{"restore onto a running VM", "POST", "/v1/restores", `{"image_id":"` + image.ID + `","in_place":{}}`, ""},
		{"path that is none", "GET", "/v1/backups", "", ""},
	} {
		page.WriteString(w.row(p, r))
	}
	run := w.finish(w.startBackup(w.vm(v.ID, "large").ID))
	e := run.Jobs[0].Error
	if e == nil {
		t.Fatalf("the backup to a full disk ended %s", run.State)
	}
	fmt.Fprintf(&page, "| full repository disk | `POST /v1/virtual-machines/{id}:backup`, then `GET /v1/jobs/{id}` | job `failed` | `%s` | | %s |\n", e.Code, w.steady(p, e.Message))

	file := filepath.Join("..", "docs", "dev", "problems.md")
	if os.Getenv(updateDocs) != "" {
		if err := os.WriteFile(file, page.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := page.String(); got != string(want) {
		t.Errorf("%s is out of date; %s=1 go test ./server -run TestProblems writes it anew. Got\n%s", file, updateDocs, got)
	}
}

const problemsHead = `# Requests and answers

What a server answers to what users get wrong: each row was asked of a running server by a test
(` + "`server/problems_linux_test.go`" + `), and the test fails when an answer changes. Answers are
` + "`application/problem+json`" + ` (RFC 9457) and carry a ` + "`request_id`" + ` that the server's log knows.

| what | request | status | code | field | detail |
|---|---|---|---|---|---|
`

// row sends the request and returns its line of the table.
func (w *world) row(p *process, r refusal) string {
	w.Helper()
	if r.token == "" {
		b, err := os.ReadFile(p.tokenFile())
		if err != nil {
			w.Fatal(err)
		}
		r.token = strings.TrimSpace(string(b))
	}
	req, err := http.NewRequestWithContext(w.ctx, r.method, p.url+r.path, strings.NewReader(r.body))
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	var problem api.Problem
	if err := json.Unmarshal(b, &problem); err != nil || problem.RequestID == "" || resp.Header.Get("Content-Type") != "application/problem+json" {
		w.Errorf("%s: the answer is no problem: %s %s", r.what, resp.Header.Get("Content-Type"), b)
	}
	return fmt.Sprintf("| %s | `%s %s` | %d | `%s` | %s | %s |\n", r.what, r.method, w.steady(p, r.path), resp.StatusCode, problem.Code, problem.Field, w.steady(p, problem.Detail))
}

var ids = regexp.MustCompile(`\b[0-9A-HJKMNP-TV-Z]{26}\b`)

// steady puts names in place of what differs from run to run.
func (w *world) steady(p *process, s string) string {
	s = strings.ReplaceAll(s, p.conf.Data, "DATA")
	s = strings.ReplaceAll(s, w.lab.Endpoint(), "https://vcenter.example.com")
	s = strings.ReplaceAll(s, w.lab.URL().Host, "vcenter.example.com")
	s = strings.ReplaceAll(s, w.lab.Thumbprint(), "(its SHA-256)")
	s = regexp.MustCompile(`\b\d+ bytes free`).ReplaceAllString(s, "N bytes free")
	return ids.ReplaceAllString(s, "{id}")
}
