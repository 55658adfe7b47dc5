package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/kura-backup/terraform-provider-kura/server"
)

func TestTheExitStatusTellsWhatKindOfEndItWas(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-groups", items(aGroup()))
	f.on("GET /v1/backup-groups?name=gold", items(aGroup()))
	f.on("GET /v1/backup-schedules", problem(http.StatusUnauthorized, "unauthenticated", "Who are you?", "The token opens nothing."))
	f.on("GET /v1/repositories", problem(http.StatusInternalServerError, "internal", "Internal error", "See the log."))
	f.on("GET /v1/vcenters", reply{status: http.StatusBadGateway, body: "<html>no server behind this proxy</html>"})
	gone := httptest.NewServer(nil)
	gone.Close()
	tls := httptest.NewUnstartedServer(nil)
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	t.Cleanup(tls.Close)
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"done":                            {[]string{"group", "list"}, 0},
		"help":                            {[]string{"vm", "backup", "--help"}, 0},
		"help without a command":          {[]string{"--help"}, 0},
		"refused":                         {[]string{"schedule", "list"}, 1},
		"failed":                          {[]string{"repository", "list"}, 1},
		"no command":                      {nil, 2},
		"a command without its verb":      {[]string{"vm"}, 2},
		"an unknown command":              {[]string{"vn", "list"}, 2},
		"an unknown flag":                 {[]string{"vm", "list", "--wrong"}, 2},
		"an argument that is missing":     {[]string{"vm", "show"}, 2},
		"an argument too much":            {[]string{"group", "list", "x"}, 2},
		"a format that is none":           {[]string{"group", "list", "-o", "xml"}, 2},
		"a state that is none":            {[]string{"job", "list", "--state", "asleep"}, 2},
		"a name where an id is wanted":    {[]string{"job", "show", "erp"}, 2},
		"an endpoint that is no URL":      {[]string{"group", "list", "--endpoint", "kura"}, 2},
		"a token file that is not there":  {[]string{"group", "list", "--token-file", "/does/not/exist"}, 2},
		"two tokens":                      {[]string{"group", "list", "--token", "a", "--token-file", "b"}, 2},
		"nobody listens":                  {[]string{"group", "list", "--endpoint", gone.URL}, 3},
		"a proxy without its server":      {[]string{"vcenter", "list"}, 3},
		"a certificate of somebody":       {[]string{"group", "list", "--endpoint", tls.URL}, 3},
		"serve without a data folder":     {[]string{"serve"}, 2},
		"serve with half of TLS":          {[]string{"serve", "--data", t.TempDir(), "--tls-cert", "x"}, 2},
		"serve with a config not there":   {[]string{"serve", "--config", "/does/not/exist"}, 2},
		"serve with a role that is none":  {[]string{"serve", "--role", "queen"}, 2},
		"serve with a capacity of a word": {[]string{"serve", "--slot-capacity", "ten"}, 2},
	} {
		r := f.kura(c.args...)
		if r.status != c.want {
			t.Errorf("%s: status %d, want %d; stderr %s", name, r.status, c.want, r.errout)
		}
		if (r.errout == "") != (c.want == 0) {
			t.Errorf("%s: status %d and stderr %q", name, r.status, r.errout)
		}
	}
}

// seed:N60
func TestAProblemIsToldWithItsRecommendations(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-schedules", reply{status: http.StatusConflict, body: `{"type":"urn:kura:problem:slot_full","title":"Timeslot is full","status":409,
		"detail":"02:00 Asia/Tokyo on 2026-12-01 holds 10 of 10 seats.","code":"slot_full","field":"start_time","request_id":"R1","recommendations":[
		{"kind":"same_day","start_time":"03:00","free_seats":2},{"kind":"same_slot","start_time":"02:00","date":"2026-12-02","free_seats":1},
		{"kind":"same_slot","start_time":"02:00","start_date":"2026-12-05","free_seats":0},{"kind":"same_slot","start_time":"02:00","days_of_week":["monday","friday"],"free_seats":3},
		{"kind":"same_slot","start_time":"02:00","days_of_month":[3],"free_seats":3},
		{"kind":"same_slot","start_time":"02:00","week_day_of_month":{"week_of_month":"third","day_of_week":"monday"},"free_seats":3}]}`})
	f.kura("schedule", "list").want(t, 1, "", `kura: Timeslot is full
  02:00 Asia/Tokyo on 2026-12-01 holds 10 of 10 seats.
  Free: 03:00 on the same day, 2 seats left after it.
  Free: 02:00 on 2026-12-02, 1 seat left after it.
  Free: 02:00 from 2026-12-05 on, 0 seats left after it.
  Free: 02:00 on monday, friday, 3 seats left after it.
  Free: 02:00 on day 3 of the month, 3 seats left after it.
  Free: 02:00 on the third monday of the month, 3 seats left after it.
  Code: slot_full   Field: start_time   Request: R1
`)
}

func TestAMessageFromElsewhereCannotMoveTheCursor(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-schedules", problem(http.StatusConflict, "conflict", `Bad \u001b[2J`, `a\u0007b\nc`))
	f.kura("schedule", "list").want(t, 1, "", "kura: Bad \\x1b[2J\n  a\\x07b\\x0ac\n  Code: conflict   Request: 01JDZK3Q8X4T9V2M6B7N5C1R0Z\n")
}

func TestATokenFileOnTheCommandLineStandsAboveTheVariable(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-groups", items())
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]struct {
		env  map[string]string
		args []string
	}{
		"from-file": {map[string]string{"KURA_TOKEN": "variable"}, []string{"--token-file", file}},
		"flag":      {map[string]string{"KURA_TOKEN_FILE": file}, []string{"--token", "flag"}},
		"variable":  {map[string]string{"KURA_TOKEN": "variable"}, nil},
	} {
		f.asked = nil
		c.env["KURA_ENDPOINT"] = f.url
		if r := kura(t.Context(), c.env, "", append(c.args, "group", "list")...); r.status != 0 {
			t.Errorf("status %d, stderr %s", r.status, r.errout)
		}
		if got := f.only("GET /v1/backup-groups").header.Get("Authorization"); got != "Bearer "+want {
			t.Errorf("authorization = %q, want %q", got, "Bearer "+want)
		}
	}
}

// parsed returns what serve would start with.
func parsed(t *testing.T, env map[string]string, args ...string) (server.Config, error) {
	t.Helper()
	s := &session{cli: new(cli), stdout: io.Discard, stderr: io.Discard}
	p, err := newParser(t.Context(), s, func(name string) string { return env[name] }, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Parse(append([]string{"serve"}, args...))
	return s.cli.Serve.config(s), err
}

func TestAFlagStandsAboveItsVariableAndAVariableAboveTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kura.yaml")
	if err := os.WriteFile(file, []byte("# a comment\ndata: /data\nslot_capacity: 30\nmax_jobs: 3\nlease: 90s\nreach: [\"vcenter:a,b\", repository:default]\nretention_profile: general\nlisten:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env          map[string]string
		args         []string
		wantCapacity int
	}{
		"the default":            {nil, []string{"--data", "/data"}, 10},
		"the file":               {nil, []string{"--config", file}, 30},
		"the file of a variable": {map[string]string{"KURA_CONFIG": file}, nil, 30},
		"the variable":           {map[string]string{"KURA_SLOT_CAPACITY": "20"}, []string{"--config", file}, 20},
		"the flag":               {map[string]string{"KURA_SLOT_CAPACITY": "20"}, []string{"--config", file, "--slot-capacity", "15"}, 15},
	} {
		got, err := parsed(t, c.env, c.args...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.SlotCapacity != c.wantCapacity {
			t.Errorf("%s: slot capacity = %d, want %d", name, got.SlotCapacity, c.wantCapacity)
		}
	}
	got, err := parsed(t, nil, "--config", file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Reach) != 2 || got.Reach[0] != "vcenter:a,b" || got.Slots != 3 || got.Lease != 90*time.Second || got.RetentionProfile != "general" || got.Data != "/data" ||
		got.Listen != "127.0.0.1:8480" || got.Database != "sqlite:/data/kura.db" {
		t.Errorf("config = %+v, want what the file says and the defaults of the rest", got)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("the server refuses it: %v", err)
	}
	if got, err := parsed(t, map[string]string{"KURA_REACH": "vcenter:a,repository:b"}); err != nil || len(got.Reach) != 2 {
		t.Errorf("reach = %v, %v, want both labels of the variable", got.Reach, err)
	}
}

func TestRecoverySheetsHaveARecipientOfTheServer(t *testing.T) {
	const key = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
	for text, right := range map[string]bool{key: true, "age1nobody": false} {
		got, err := parsed(t, map[string]string{"KURA_RECOVERY_AGE_RECIPIENT": text}, "--data", "/data")
		if err != nil || got.AgeRecipient != text {
			t.Fatalf("recipient = %q, %v, want that of the variable", got.AgeRecipient, err)
		}
		if err := got.Validate(); (err == nil) != right || !right && !strings.Contains(err.Error(), "age1nobody") {
			t.Errorf("Validate() with %q = %v", text, err)
		}
	}
}

func TestAConfigurationFileIsRefusedForWhatNobodyReads(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an unknown key":   {"slot_capcity: 3\nzz: 1\n", "unknown key slot_capcity, zz; known are compare_bytes_per_day, copy_rate, data, database, database_copies, datastore_min_free, key_file"},
		"a flag's name":    {"slot-capacity: 3\n", "unknown key slot-capacity"},
		"another file":     {"config: other.yaml\n", "unknown key config"},
		"a client's key":   {"endpoint: http://kura\n", "unknown key endpoint"},
		"a list":           {"- data\n", "want a mapping"},
		"a nested mapping": {"data: {a: b}\n", "key data takes a value"},
		"a key twice":      {"data: a\ndata: b\n", "twice"},
		"no YAML":          {"data: [\n", "yaml"},
		"a word":           {"slot_capacity: ten\n", "--slot-capacity"},
		"a role":           {"role: queen\n", "--role"},
		"an empty file":    {"", ""},
	} {
		file := filepath.Join(t.TempDir(), "kura.yaml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := parsed(t, nil, "--config", file)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error = %v, want %q", name, err, c.want)
		}
	}
}

func TestEveryCommandAndFlagIsExplainedAndEveryExampleIsRight(t *testing.T) {
	newest := func() (*kong.Kong, *bytes.Buffer) {
		var out bytes.Buffer
		p, err := newParser(t.Context(), &session{cli: new(cli), stdout: &out, stderr: &out}, func(string) string { return "" }, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		return p, &out
	}
	model, _ := newest()
	for _, leaf := range model.Model.Leaves(false) {
		if leaf.Help == "" {
			t.Errorf("%s has no help", leaf.FullPath())
		}
		for _, v := range append(leaf.Positional, flagValues(leaf)...) {
			if v.Help == "" {
				t.Errorf("%s: %s has no help", leaf.FullPath(), v.Name)
			}
		}
		for _, line := range strings.Split(leaf.Detail, "\n") {
			at := strings.Index(line, " kura ") // before it may stand variables and pipes
			if at < 0 || !strings.HasPrefix(line, "    ") {
				continue
			}
			p, _ := newest()
			ctx, err := kong.Trace(p, strings.Fields(line[at:])[1:])
			if err == nil {
				err = ctx.Error
			}
			if err != nil || ctx.Selected() == nil || ctx.Selected().Name != leaf.Name {
				t.Errorf("%s: the example %q is not one of it: %v", leaf.FullPath(), strings.TrimSpace(line), err)
			}
		}
	}
}

func flagValues(n *kong.Node) (all []*kong.Value) {
	for _, f := range n.Flags {
		all = append(all, f.Value)
	}
	return all
}

func TestTheProgramItselfRunsOnWhatMainGivesIt(t *testing.T) {
	var out, errout bytes.Buffer
	status := run(context.Background(), []string{"version", "--client"}, strings.NewReader(""), &out, &errout, func(string) string { return "" })
	if status != 0 || !strings.HasPrefix(out.String(), "PROGRAM") || errout.Len() > 0 {
		t.Errorf("status %d, stdout %q, stderr %q", status, out.String(), errout.String())
	}
}

func TestFiguresAreForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 64 << 30: "64.0 GiB", 1<<63 - 1: "8.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[string]int{"erp": 3, "蔵": 2, "🚚": 2, "e\u0301": 1, "": 0} {
		if got := columns(n); got != want {
			t.Errorf("columns(%q) = %d, want %d", n, got, want)
		}
	}
	for text, want := range map[string]string{"蔵 🚚é": "蔵 🚚é", "a\tb": `a\x09b`, "\x9b31m": `\x9b31m`, "\u0085": `\u0085`, "\ufffd": "\ufffd"} {
		if got := clean(text); got != want {
			t.Errorf("clean(%q) = %q, want %q", text, got, want)
		}
	}
	for want, n := range map[string]int{"1 repository": 1, "2 repositories": 2, "0 days": 0} {
		_, what, _ := strings.Cut(want, " ")
		what = map[string]string{"repository": "repository", "repositories": "repository", "days": "day"}[what]
		if got := count(n, what); got != want {
			t.Errorf("count(%d, %q) = %q, want %q", n, what, got, want)
		}
	}
}
