package handler_test

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/handler"
)

// What one decoder reads otherwise than another is refused: else what is
// checked is not what is done.
func TestABodyThatCanBeReadInTwoWaysIsRefused(t *testing.T) {
	r := newRig(t)
	const vcenter = `"name":"v","endpoint":"https://v","username":"u","password":"p"`
	for name, c := range map[string]struct{ body, field, detail string }{
		"limits twice, the first beyond them": {`{` + vcenter + `,"limits":{"disks_per_host":1000},"limits":{}}`, "limits", "twice"},
		"twice, one of them escaped":          {`{` + vcenter + `,"limits":{"disks":1},"l\u0069mits":{}}`, "limits", "twice"},
		"twice deep down":                     {`{` + vcenter + `,"tag_mappings":[{"category":"c","tag":"t","key":"k","value":"v"},{"category":"c","category":"d","tag":"t","key":"k","value":"v"}]}`, "tag_mappings.1.category", "twice"},
		"a zero byte":                         {`{` + vcenter + `,"time_zone":"U\u0000TC"}`, "time_zone", "zero byte"},
		"a zero byte in a name":               {`{` + vcenter + `,"time\u0000zone":"UTC"}`, "timezone", "zero byte"},
		"no UTF-8":                            {"{" + vcenter + ",\"time_zone\":\"\xff\"}", "", "UTF-8"},
		"a time that does not exist":          {`{` + vcenter + `,"created_at":"2026-02-30T00:00:00Z"}`, "created_at", "2026-02-30"},
		"a time of another form twice":        {`{"name":"created_at","endpoint":"https://v","username":"2026-02-30T00:00:00Z","created_at":"2026-02-30T00:00:00Z"}`, "username", "2026-02-30"},
	} {
		for _, kind := range []string{"application/json", "APPLICATION/JSON", "application/json;;"} {
			a := r.do(call{method: "POST", path: "/v1/vcenters", role: auth.Operator, body: c.body, header: map[string]string{"Content-Type": kind}})
			if a.status != 400 || a.problem.Field != c.field || !strings.Contains(a.problem.Detail, c.detail) {
				t.Errorf("%s as %s: %d %s; want 400 for %q, ...%s...", name, kind, a.status, a.body, c.field, c.detail)
			}
		}
	}
	if n := len(into[api.VCenterList](r, r.do(call{method: "GET", path: "/v1/vcenters", role: auth.Viewer}), 200).Items); n != 1 {
		t.Errorf("%d vcenters, want the one that was there", n)
	}
}

// A time that is near the end of those that RFC 3339 can tell gives no answer
// that cannot be written.
func TestATimeAtTheEndOfTimeIsRefused(t *testing.T) {
	r := newRig(t)
	s := r.schedule(nightly("s", r.vms[0].ID))
	const last, west, first = "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"
	for _, c := range []struct{ path, field, at string }{
		{"/v1/backup-schedules/" + s.ID + "/occurrences?from=", "from", last},
		{"/v1/backup-schedules/" + s.ID + "/occurrences.ics?from=", "from", last},
		{"/v1/backup-schedules/" + s.ID + "/occurrences?from=", "from", first},
		{"/v1/usage?from=", "from", west},
		{"/v1/usage.csv?to=", "to", west},
	} {
		a := r.do(call{method: "GET", path: c.path + url.QueryEscape(c.at), role: auth.Viewer})
		if a.status != 400 || a.problem.Field != c.field {
			t.Errorf("GET %s%s: %d %s; want 400 for %s", c.path, c.at, a.status, a.body, c.field)
		}
	}
	a := r.do(call{method: "POST", path: "/v1/tokens", role: auth.Operator, body: `{"name":"t","role":"viewer","expires_at":"` + west + `"}`})
	if a.status != 400 || a.problem.Field != "expires_at" {
		t.Errorf("a token until %s: %d %s; want 400", west, a.status, a.body)
	}
	if a := r.do(call{method: "GET", path: "/v1/tokens", role: auth.Operator}); a.status != 200 {
		t.Errorf("the list of tokens after it: %d %s", a.status, a.body)
	}
}

func TestAKeyForOneQueryIsNotForAnother(t *testing.T) {
	r := newRig(t)
	i := r.image(r.vms[0], nil)
	verify := call{method: "POST", path: "/v1/backup-images/" + i.ID + ":verify?sha256=false", role: auth.Operator, header: map[string]string{"Idempotency-Key": "k"}}
	if a := r.do(verify); a.status != 202 {
		t.Fatalf("verify: %d %s", a.status, a.body)
	}
	verify.path = "/v1/backup-images/" + i.ID + ":verify?sha256=true"
	if a := r.do(verify); a.status != 409 || a.problem.Code != api.ErrorCodeConflict {
		t.Errorf("the key with another query: %d %s, want 409 conflict", a.status, a.body)
	}
}

func TestAHeaderThatIsThereTwiceIsNamed(t *testing.T) {
	r := newRig(t)
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPut, r.url+"/v1/vcenters/"+r.vcenter.ID, strings.NewReader(`{"name":"v","endpoint":"https://v","username":"u"}`))
	r.must(err)
	q.Header = http.Header{"Authorization": {"Bearer " + r.tokens[auth.Operator]}, "Content-Type": {"application/json"}, "If-Match": {`"1"`, `"2"`}}
	resp, err := http.DefaultClient.Do(q)
	r.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	r.must(err)
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), `"field":"If-Match"`) {
		t.Errorf("%d %s, want 400 for If-Match", resp.StatusCode, text)
	}
}

// slowly opens a connection and sends a request's head, and what it has of the body.
func (r *rig) slowly(head, body string) *bufio.Reader {
	r.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	r.must(err)
	r.t.Cleanup(func() { _ = c.Close() })
	r.must(c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = fmt.Fprintf(c, "%s\r\nHost: kura\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n%s", head, body)
	r.must(err)
	return bufio.NewReader(c)
}

// Nobody holds a connection by sending a body that never ends.
func TestABodyThatDoesNotComeIsWaitedForNoLonger(t *testing.T) {
	r := newRigWith(t, func(c *handler.Config) { c.Patience = 50 * time.Millisecond })
	for name, c := range map[string]struct {
		head   string
		status int
	}{
		"with a token": {"POST /v1/backup-groups HTTP/1.1\r\nAuthorization: Bearer " + r.tokens[auth.Operator], 400},
		"without one":  {"POST /v1/backup-groups HTTP/1.1", 401},
	} {
		in := r.slowly(c.head, `{"name":`)
		resp, err := http.ReadResponse(in, nil)
		r.must(err)
		text, err := io.ReadAll(resp.Body)
		r.must(err)
		if resp.StatusCode != c.status || !resp.Close {
			t.Errorf("%s: %d %s, closed: %t; want %d and an end", name, resp.StatusCode, text, resp.Close, c.status)
		}
		if _, err := in.ReadByte(); err == nil {
			t.Errorf("%s: the connection goes on", name)
		}
	}
}

// Names of vSphere may hold anything: what is exported of them stays one cell,
// one line, and no formula.
func TestHostileNamesStayWhereTheyAreExported(t *testing.T) {
	r := newRig(t)
	names := []string{"=1+1", "\t@SUM(1)", "-2", "a\r\nDTSTART:19700101T000000Z", `a";b,c\n`, "\x1b[2J", "\u2028x", strings.Repeat("🙈", 80)}
	for i, name := range names {
		vm := r.vms[0]
		vm.ID, vm.MOID, vm.InstanceUUID, vm.Name = "", fmt.Sprint("hostile-", i), fmt.Sprintf("60159b1c-0000-0000-0000-%012d", i), name
		all := []backup.VirtualMachine{vm}
		r.must(r.db.Update(t.Context(), func(tx backup.Tx) error { return tx.SaveMachines(t.Context(), all) }))
		r.image(all[0], nil)
		if i > 3 {
			continue // there is room for three schedules an hour
		}
		s := nightly(fmt.Sprint("s", i), all[0].ID)
		s.StartTime = fmt.Sprintf("%02d:00", i)
		made := r.schedule(s)
		ics := string(r.do(call{method: "GET", path: "/v1/backup-schedules/" + made.ID + "/occurrences.ics?count=3", role: auth.Viewer}).body)
		if strings.Count(ics, "\r\nDTSTART") != 3 || strings.ContainsAny(strings.ReplaceAll(ics, "\r\n", ""), "\r\n\x1b") {
			t.Errorf("the calendar of %q is\n%q", name, ics)
		}
	}
	r.clock.pass(2 * time.Hour)
	a := r.do(call{method: "GET", path: "/v1/usage.csv", role: auth.Viewer})
	table, err := csv.NewReader(bytes.NewReader(a.body)).ReadAll()
	r.must(err)
	if len(table) != len(names)+1 {
		t.Errorf("%d lines of usage, want a head and %d: %s", len(table), len(names), a.body)
	}
	for _, line := range table[1:] {
		if strings.ContainsAny(line[2], "\r\n\t\x1b") || strings.ContainsAny(line[2][:1], "=+-@") {
			t.Errorf("a spreadsheet gets %q", line[2])
		}
	}
}
