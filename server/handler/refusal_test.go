package handler_test

import (
	"io"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
)

// What is refused says so in one form: a problem with a code to act on, the
// input at fault, and the request's id. seed:A49
func TestEachRefusalIsAProblemThatNamesWhatIsWrong(t *testing.T) {
	r := newRig(t)
	group := into[api.BackupGroup](r, r.do(call{method: "POST", path: "/v1/backup-groups", role: auth.Operator, body: api.BackupGroup{Name: "g", VirtualMachineIDs: []string{r.vms[0].ID}}}), 201)
	post := func(path string, body any) call {
		return call{method: "POST", path: path, role: auth.Operator, body: body}
	}
	get := func(path string) call { return call{method: "GET", path: path, role: auth.Operator} }
	const schedules = "/v1/backup-schedules"
	good := `"name":"s","group_id":"` + group.ID + `","retention_days":1`

	for name, c := range map[string]struct {
		call   call
		status int
		code   api.ErrorCode
		field  string
		detail string // a part of it
	}{
		"no token":                      {call{method: "GET", path: "/v1/server"}, 401, "unauthenticated", "", "token is needed"},
		"a wrong token":                 {call{method: "GET", path: "/v1/server", token: "kura_wrong"}, 401, "unauthenticated", "", "not known"},
		"a role too small":              {call{method: "DELETE", path: "/v1/backup-images/" + nobody, role: auth.Backup}, 403, "forbidden", "", `"backup" has the role backup`},
		"an unknown path":               {get("/v1/nothing"), 404, "not_found", "", "/v1/nothing"},
		"a path with a double slash":    {get("/v1//server"), 404, "not_found", "", ""},
		"an unknown path, no token":     {call{method: "GET", path: "/favicon.ico"}, 404, "not_found", "", ""},
		"a wrong method":                {call{method: "PATCH", path: "/v1/server", role: auth.Operator}, 405, "invalid", "", "PATCH"},
		"a verb that does not exist":    {post("/v1/backup-schedules/"+nobody+":explode", nil), 405, "invalid", "", ""},
		"an unknown id":                 {get("/v1/backup-groups/" + nobody), 404, "not_found", "", ""},
		"an id with a colon":            {get("/v1/backup-schedules/a:run"), 404, "not_found", "", "no colon"},
		"an id of another form":         {get("/v1/backup-groups/%00%ff"), 404, "not_found", "", ""},
		"a VM that does not exist":      {post("/v1/virtual-machines/"+nobody+":backup", `{"retention_days":1}`), 404, "not_found", "", ""},
		"an unknown group in a body":    {post(schedules, `{"name":"s","group_id":"`+nobody+`","retention_days":1,"daily":{}}`), 422, "not_found", "group_id", ""},
		"an unknown VM in a group":      {post("/v1/backup-groups", `{"name":"g2","virtual_machine_ids":["`+nobody+`"]}`), 422, "not_found", "virtual_machine_ids", ""},
		"an unknown repository":         {post(schedules, `{`+good+`,"daily":{},"repository":"tape"}`), 422, "not_found", "repository", ""},
		"a stale If-Match":              {call{method: "PUT", path: "/v1/backup-groups/" + group.ID, role: auth.Operator, header: map[string]string{"If-Match": `"9"`}, body: group}, 412, "stale", "", ""},
		"an If-Match of another form":   {call{method: "PUT", path: "/v1/backup-groups/" + group.ID, role: auth.Operator, header: map[string]string{"If-Match": `W/"1"`}, body: group}, 412, "stale", "", ""},
		"a taken name":                  {post("/v1/backup-groups", `{"name":"g","virtual_machine_ids":["`+r.vms[0].ID+`"]}`), 409, "conflict", "name", ""},
		"an unknown property":           {post(schedules, `{`+good+`,"daily":{},"retention":7}`), 400, "invalid", "retention", `"retention"`},
		"an unknown property deep down": {post(schedules, `{`+good+`,"weekly":{"days_of_week":["monday"],"week":1}}`), 400, "invalid", "weekly.week", ""},
		"a missing property":            {post(schedules, `{"name":"s"}`), 400, "invalid", "retention_days", "needed"},
		"a wrong word":                  {post(schedules, `{`+good+`,"weekly":{"days_of_week":["monday","fryday"]}}`), 400, "invalid", "weekly.days_of_week.1", `got "fryday"`},
		"a wrong type":                  {post(schedules, `{`+good+`,"daily":{},"window_hours":"two"}`), 400, "invalid", "window_hours", `a whole number, got "two"`},
		"a number too large":            {post(schedules, `{`+good+`,"daily":{},"window_hours":25}`), 400, "invalid", "window_hours", "at most 24, got 25"},
		"a fraction":                    {post(schedules, `{`+good+`,"daily":{},"window_hours":1.5}`), 400, "invalid", "window_hours", "a whole number, got 1.5"},
		// seed:N25
		"a half hour":                   {post(schedules, `{`+good+`,"daily":{},"start_time":"02:30"}`), 400, "invalid", "start_time", `form of 02:00, got "02:30"`},
		"a null":                        {post(schedules, `{`+good+`,"daily":null}`), 400, "invalid", "daily", ""},
		"two types at once":             {post(schedules, `{`+good+`,"daily":{},"monthly":{"last_day":true}}`), 400, "invalid", "one_time", "exactly one"},
		"a day that does not exist":     {post(schedules, `{`+good+`,"one_time":{"date":"2027-02-30"}}`), 400, "invalid", "one_time.date", "2027-02-30"},
		"a time zone that does not":     {post(schedules, `{`+good+`,"daily":{},"time_zone":"Asia/Tokio"}`), 400, "invalid", "time_zone", "Asia/Tokio"},
		"a retention outside the set":   {post(schedules, `{"name":"s","group_id":"`+group.ID+`","retention_days":9,"daily":{}}`), 400, "invalid", "retention_days", "got 9"},
		"a past date":                   {post(schedules, `{`+good+`,"one_time":{"date":"2026-11-30"},"start_time":"02:00"}`), 409, "slot_closed", "one_time.date", ""},
		"a wrong time":                  {post("/v1/tokens", `{"name":"x","role":"viewer","expires_at":"tomorrow"}`), 400, "invalid", "expires_at", "a time as in"},
		"a token that ends in the past": {post("/v1/tokens", `{"name":"x","role":"viewer","expires_at":"2020-01-01T00:00:00Z"}`), 400, "invalid", "expires_at", "2020"},
		"bad JSON":                      {post(schedules, `{"name":`), 400, "invalid", "", "not valid JSON"},
		"two objects":                   {post(schedules, `{`+good+`,"daily":{}}{}`), 400, "invalid", "", "not valid JSON"},
		"a list as the body":            {post(schedules, `[]`), 400, "invalid", "", "an object"},
		"no body":                       {post(schedules, nil), 400, "invalid", "", "needed"},
		"a body where none belongs":     {post("/v1/vcenters/"+r.vcenter.ID+":sync", `{"force":true}`), 400, "invalid", "", "no body"},
		"another media type":            {call{method: "POST", path: schedules, role: auth.Operator, header: map[string]string{"Content-Type": "text/plain"}, body: "x"}, 400, "invalid", "Content-Type", "application/json"},
		"a body of 10 MB":               {post(schedules, `{"name":"`+strings.Repeat("x", 10<<20)+`"}`), 413, "too_large", "", "1048576"},
		"10 MB of unknown length":       {post(schedules, endless(10<<20)), 413, "too_large", "", "1048576"},
		"10 MB with an Idempotency-Key": {call{method: "POST", path: schedules, role: auth.Operator, header: map[string]string{"Idempotency-Key": "k"}, body: endless(10 << 20)}, 413, "too_large", "", ""},
		"a bad cursor":                  {get("/v1/jobs?cursor=xyz"), 400, "invalid", "cursor", ""},
		"a limit of nothing":            {get("/v1/jobs?limit=0"), 400, "invalid", "limit", "at least 1, got 0"},
		"a limit that is no number":     {get("/v1/jobs?limit=ten"), 400, "invalid", "limit", ""},
		"a parameter that is not there": {get("/v1/jobs?vm=vm01"), 400, "invalid", "vm", "virtual_machine_id"},
		"a query that is none":          {get("/v1/jobs?a=1;b=2"), 400, "invalid", "", "query"},
		"a wrong word in a query":       {get("/v1/jobs?state=done"), 400, "invalid", "state", "succeeded"},
		"a label without its value":     {get("/v1/backup-images?label=gold"), 400, "invalid", "label.0", ""},
		"a vcenter without a password":  {post("/v1/vcenters", `{"name":"v2","endpoint":"https://vc2","username":"u"}`), 400, "invalid", "password", "needs a password"},
		"a vcenter in use":              {call{method: "DELETE", path: "/v1/vcenters/" + r.vcenter.ID, role: auth.Operator}, 409, "in_use", "", ""},
		"a restore of nothing":          {post("/v1/restores", `{"image_id":"`+nobody+`","new_vm":{"name":"x"}}`), 422, "not_found", "image_id", ""},
		"a restore to two places":       {post("/v1/restores:check", `{"image_id":"`+nobody+`","new_vm":{"name":"x"},"in_place":{}}`), 400, "invalid", "in_place", "exactly one"},
		"an Idempotency-Key too long":   {call{method: "POST", path: "/v1/vcenters/" + r.vcenter.ID + ":sync", role: auth.Operator, header: map[string]string{"Idempotency-Key": strings.Repeat("k", 300)}}, 400, "invalid", "Idempotency-Key", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := r.do(c.call)
			p := a.problem
			if a.status != c.status || p.Code != c.code || p.Field != c.field || !strings.Contains(p.Detail, c.detail) {
				t.Errorf("got %d %s, field %q: %s\nwant %d %s, field %q: ...%s...", a.status, p.Code, p.Field, a.body, c.status, c.code, c.field, c.detail)
			}
			if p.RequestID == "" || p.RequestID != a.header.Get("X-Request-Id") || p.Status != a.status || p.Title == "" || p.Type != "urn:kura:problem:"+string(c.code) {
				t.Errorf("the problem is not whole: %s", a.body)
			}
		})
	}
}

// endless gives n bytes without telling how many.
func endless(n int64) io.Reader {
	return struct{ io.Reader }{io.LimitReader(neverEnding('x'), n)}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func TestAPasswordIsNeitherToldNorLogged(t *testing.T) {
	r := newRig(t)
	for _, c := range []call{
		{method: "POST", path: "/v1/vcenters", role: auth.Operator, body: `{"name":"osaka","endpoint":"https://vc2.example.com","username":"u","password":"hush-hush-1"}`},
		{method: "POST", path: "/v1/vcenters", role: auth.Operator, body: `{"name":"bad","endpoint":"https://vc3.example.com","username":"u","password":["hush-hush-1"]}`},
		{method: "GET", path: "/v1/vcenters", role: auth.Operator},
		{method: "GET", path: "/v1/vcenters/" + r.vcenter.ID, role: auth.Operator},
	} {
		if a := r.do(c); strings.Contains(string(a.body), "hush-hush-1") || strings.Contains(string(a.body), "s3cret-pass") {
			t.Errorf("%s %s tells a password: %s", c.method, c.path, a.body)
		}
	}
	if strings.Contains(r.log.String(), "hush-hush-1") || strings.Contains(r.log.String(), "s3cret-pass") {
		t.Error("a password is in the log")
	}
}

func TestWhatStandsOutsideTheContractNeedsNoToken(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/metrics": "kura_up 1", "/openapi.yaml": "openapi: 3.0.3"} {
		if a := r.do(call{method: "GET", path: path}); a.status != 200 || !strings.HasPrefix(string(a.body), want) {
			t.Errorf("GET %s: %d %.40q, want 200 %q", path, a.status, a.body, want)
		}
	}
	r.ready = errDown
	a := r.do(call{method: "GET", path: "/readyz"})
	if a.status != 503 || a.problem.Code != api.ErrorCodeUnavailable || strings.Contains(string(a.body), errDown.Error()) {
		t.Errorf("not ready: %d %s, want 503 unavailable without the cause", a.status, a.body)
	}
	if !strings.Contains(r.log.String(), errDown.Error()) {
		t.Error("the cause is not in the log")
	}
	if a := r.do(call{method: "GET", path: "/healthz"}); a.status != 200 {
		t.Errorf("healthz of a server that is not ready: %d, want 200", a.status)
	}
}

func TestACallersRequestIDIsKeptWhenItIsSafe(t *testing.T) {
	r := newRig(t)
	for id, kept := range map[string]bool{"build-4711.2": true, "a": false, "x y z 1 2 3 4": false, strings.Repeat("a", 65): false} {
		a := r.do(call{method: "GET", path: "/v1/server", header: map[string]string{"X-Request-Id": id}})
		if got := a.header.Get("X-Request-Id"); (got == id) != kept || a.problem.RequestID != got {
			t.Errorf("X-Request-Id %q gave %q (problem %q), want kept = %t", id, got, a.problem.RequestID, kept)
		}
	}
}
