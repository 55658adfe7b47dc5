package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What somebody gets wrong is told in one go: what it is, and what to do; the
// status tells whose fault it was.
func TestWhatIsWrongWithASettingIsTold(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	data := filepath.Join(dir, "data")
	serve := func(args ...string) []string { return append([]string{"serve", "--data", data}, args...) }
	config := func(name, text string) []string { return serve("--config", write(name, text)) }
	for name, c := range map[string]struct {
		args []string
		want string // a part of what is told
	}{
		"an unknown key":                {config("a.yaml", "slot_capcity: 5\n"), "unknown key slot_capcity; known are"},
		"a key twice":                   {config("b.yaml", "lease: 60s\nlease: 6s\n"), `"lease" is there twice`},
		"a mapping for a value":         {config("c.yaml", "listen: {host: a}\n"), "listen takes a value"},
		"a list for the file":           {config("d.yaml", "- listen\n"), "want a mapping"},
		"no YAML":                       {config("e.yaml", "listen: \"x\n"), "e.yaml"},
		"a folder for the file":         {serve("--config", dir), "is a directory"},
		"a word for a number":           {config("f.yaml", "slot_capacity: ten\n"), "slot-capacity"},
		"a number too large":            {serve("--slot-capacity", "99999999999999999999"), "slot-capacity"},
		"a span that is none":           {serve("--lease", "soon"), "lease"},
		"a lease of less than nothing":  {serve("--lease=-5s"), "lease must be more than 0"},
		"no lease":                      {serve("--lease=0s"), "lease must be more than 0"},
		"no jobs":                       {serve("--max-jobs", "0"), "the role api"},
		"less than no jobs":             {serve("--max-jobs=-1"), "max_jobs must be 1"},
		"GiB that are no bytes":         {serve("--datastore-min-free", "8589934592"), "datastore_min_free must be"},
		"less free than nothing":        {serve("--datastore-min-free=-1"), "datastore_min_free must be"},
		"MiB that are no bytes":         {serve("--copy-rate", "8796093022208"), "copy_rate must be"},
		"a database of another kind":    {serve("--database", "mysql://x"), "database is sqlite:PATH or postgres"},
		"a place that is none":          {serve("--listen", "8480"), "listen is host:port"},
		"a file for the data folder":    {[]string{"serve", "--data", write("file", "x")}, "is not a folder"},
		"half of TLS":                   {serve("--tls-key", "x"), "both tls_cert and tls_key"},
		"a role that is none":           {config("g.yaml", "role: queen\n"), "role"},
		"a recipient that is none":      {serve("--recovery-age-recipient", "age1x"), "age1"},
		"a program that is not there":   {serve("--nbd-command", "/does/not/exist"), "nbd_command"},
		"a token of two lines":          {[]string{"group", "list", "--token", "kura_a\nkura_b"}, "the token holds"},
		"a token file of another thing": {[]string{"group", "list", "--token-file", write("t", "not a token at all")}, "the token holds"},
		"a folder for the token file":   {[]string{"group", "list", "--token-file", dir}, "token file cannot be read"},
		"a certificate that is none":    {[]string{"group", "list", "--ca-certificate", write("ca", "x")}, "CA certificate"},
		"an endpoint without a scheme":  {[]string{"group", "list", "--endpoint", "kura:8480"}, "no http or https URL"},
		"a label without a value":       {[]string{"vm", "backup", "vm01", "--retention-days", "1", "--label", "gold"}, "label"},
	} {
		r := kura(t.Context(), nil, "", c.args...)
		if r.status != statusWrongUse || r.out != "" || !strings.Contains(r.errout, c.want) || !strings.HasPrefix(r.errout, "kura: ") {
			t.Errorf("%s: status %d, %q; want %d and ...%s...", name, r.status, r.errout, statusWrongUse, c.want)
		}
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a server that was never started has left its folder")
	}
}

// Somebody else answers where a kura server should.
func TestWhoAnswersAndIsNoServerIsTold(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"a web page": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "\n<!doctype html><title>Welcome</title>")
		},
		"no such page":     http.NotFound,
		"a broken gateway": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"a broken program": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<h1>oops</h1>", http.StatusInternalServerError)
		},
		"nothing": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		other := httptest.NewServer(h)
		asked := [][]string{{"group", "show", "gold"}, {"version"}, {"schedule", "run", "x"}}
		if name == "nothing" { // it is asked again a few times
			asked = asked[:1]
		}
		for _, args := range asked {
			r := kura(t.Context(), map[string]string{"KURA_ENDPOINT": other.URL, "KURA_TOKEN": "kura_x"}, "", args...)
			if r.status != statusUnreachable || !strings.Contains(strings.ToLower(r.errout), "endpoint") {
				t.Errorf("%s, kura %s: status %d, %q; want %d and the endpoint named", name, strings.Join(args, " "), r.status, r.errout, statusUnreachable)
			}
		}
		other.Close()
	}
}
