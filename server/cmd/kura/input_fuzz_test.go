package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/alecthomas/kong"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// FuzzConfig: a configuration file is refused, naming it, or holds nothing but
// values of keys that there are; so is a schedule's file.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"listen: 127.0.0.1:8480\nslot_capacity: 10\nreach: [vcenter:tokyo]\n", "lisen: x\n", "listen: {a: b}\n", "a: &a [*a,*a]\n", "? [a]\n: b\n", "listen: 1\nlisten: 2\n",
		"lease: 60s\n---\nlease: 1s\n", "slot_capacity: .inf\n", "slot_capacity: 0x7fffffffffffffffff\n", "listen: !!binary aGVsbG8=\n", "- a\n", "\x00", "{a: {b: {c: {d: ",
		"listen: !!int x\n", "data: 2026-12-01\n", "<<: *x\n",
	} {
		f.Add([]byte(text))
	}
	parser, err := kong.New(new(cli), kong.Vars{})
	if err != nil {
		f.Fatal(err)
	}
	var flags []*kong.Flag
	for _, n := range parser.Model.Children {
		if n.Name == "serve" {
			flags = n.Flags
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		config, err := parseConfig("kura.yaml", text, flags)
		if err != nil && !strings.HasPrefix(err.Error(), "kura.yaml: ") {
			t.Errorf("%q: %v, want the file named", text, err)
		}
		for k, v := range config {
			if _, nested := v.(map[string]any); nested || k == "" || k == configFlag {
				t.Errorf("%q sets %q to %v", text, k, v)
			}
		}
		if m, err := readMapping(text); err == nil && m == nil {
			t.Errorf("%q is a mapping of nothing", text)
		}
	})
}

// FuzzWords: what the command line takes for a time, a span, pairs or a heading
// is one, or wrong use.
func FuzzWords(f *testing.F) {
	for _, w := range []string{"7d", "36h", "-1d", "99999999999999999999d", "1e9h", "2026-12-01", "2026-12-01T02:00:00+09:00", "0000-00-00", "9999-12-31T23:59:59-23:59", "a=b=c", "=x", "tier=\x00"} {
		f.Add(w)
	}
	f.Fuzz(func(t *testing.T, word string) {
		var use wrongUse
		at, err := instant("before", word)
		if err != nil && !errors.As(err, &use) || err == nil && word != "" && at.Year() > 9999 {
			t.Errorf("%q is the time %s, %v", word, at, err)
		}
		d, err := span("for", word)
		if err != nil && !errors.As(err, &use) || err == nil && word != "" && d <= 0 {
			t.Errorf("%q is the span %s, %v", word, d, err)
		}
		m, err := pairs("label", []string{word})
		if err != nil && !errors.As(err, &use) || err == nil && len(m) != 1 {
			t.Errorf("%q is the pair %q, %v", word, m, err)
		}
	})
}

// FuzzShown: whatever a server tells, no terminal is told to do anything by it,
// and what programs read stays what it was.
func FuzzShown(f *testing.F) {
	for _, text := range []string{"erp", "夜間", "\x1b[2J", "\u009b31m", "\u202eevil", "a\r\nb", "\xff", "👩‍💻", "\u2028", "\U000e0001", `a\u001b`, strings.Repeat("🙈", 80)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var out, errout bytes.Buffer
		s := &session{stdout: &out, stderr: &errout, cli: &cli{Output: "table"}}
		r := record{}
		r.add("name", text)
		r.addTable("table", table{head: []string{"NAME", "B"}, rows: [][]string{{text, "b"}}})
		if err := r.print(&out); err != nil {
			t.Fatal(err)
		}
		s.say("%s is gone.", text)
		report(&errout, &api.Problem{Title: text, Detail: text, Code: api.ErrorCode(text), Field: text, RequestID: text})
		report(&errout, hinted{failf("No %s.", text), text})
		raw, err := json.Marshal(map[string]string{"name": text})
		if err != nil {
			t.Fatal(err)
		}
		var programs bytes.Buffer
		s.stdout = &programs
		if err := s.printJSON(json.RawMessage(raw)); err != nil {
			t.Fatal(err)
		}
		for _, shown := range []string{out.String(), errout.String(), programs.String()} {
			if strings.ContainsFunc(shown, func(r rune) bool { return r != '\n' && r != joiner && !unicode.IsPrint(r) }) {
				t.Errorf("%q is shown as %q", text, shown)
			}
		}
		var was, is map[string]string
		if err := errors.Join(json.Unmarshal(raw, &was), json.Unmarshal(programs.Bytes(), &is)); err != nil || was["name"] != is["name"] {
			t.Errorf("%q is told to programs as %s, %v", text, &programs, err)
		}
	})
}
