package handler

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// FuzzBodies: a body that is let through is read in one way only: the same into
// a map and, written anew without what it might hold twice, again.
func FuzzBodies(f *testing.F) {
	for _, b := range []string{`{"a":1,"a":2}`, `{"a":{"b":[{"c":1,"c":1}]}}`, `{"a":"\u0000"}`, `{"a\u0000":1}`, "\xff", `{}{}`, `[[[[`, `{"":{"":1}}`, `"x"`, `{"a":[1,{"b":"2026-02-30T00:00:00Z"}]}`, `{"\ud800":1,"\ud801":2}`} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := soundJSON(b)
		if e != nil {
			if e.Code != backup.Invalid || !strings.HasSuffix(e.Message, ".") || len(e.Field) > 130 || strings.Contains(e.Field+e.Message, "\x00") {
				t.Errorf("%q: %q, %q", b, e.Field, e.Message)
			}
			return
		}
		if !utf8.Valid(b) || !json.Valid(b) {
			t.Fatalf("%q is let through", b)
		}
		var loose any
		if err := json.Unmarshal(b, &loose); err != nil {
			return // a number that no float holds
		}
		var count func(any) int
		count = func(v any) (n int) {
			switch v := v.(type) {
			case map[string]any:
				for k, v := range v {
					n += 1 + count(v)
					if strings.Contains(k, "\x00") {
						t.Errorf("%q holds a zero byte", b)
					}
				}
			case []any:
				for _, v := range v {
					n += count(v)
				}
			}
			return n
		}
		text, err := json.Marshal(loose)
		var again any
		if err != nil || json.Unmarshal(text, &again) != nil || !reflect.DeepEqual(loose, again) || soundJSON(text) != nil {
			t.Errorf("%q is %s the second time, %v", b, text, err)
		}
		if names := bytes.Count(text, []byte(`":`)); names < count(loose) {
			t.Errorf("%q has %d names, of which %d are left", b, names, count(loose))
		}
		_ = placeOf(b, "2026-02-30T00:00:00Z")
	})
}

// FuzzWords: small texts of a request are taken for what they can be, and those
// of vSphere that are exported stay on their line.
func FuzzWords(f *testing.F) {
	for _, w := range []string{`"1"`, `W/"1"`, "*", `"9223372036854775808"`, `"01"`, "2026-12-01T00:00:00Z/2026-12-02T00:00:00Z", "/", "=1+1", "a\r\nb", "\x1b", strings.Repeat("蔵", 100)} {
		f.Add(w)
	}
	f.Fuzz(func(t *testing.T, w string) {
		if v := versionOf(w); v > 0 && etag(v) != w {
			t.Errorf("%q is the version %d", w, v)
		}
		from, to, err := timeslotRange(w)
		if e := backup.AsError(err); err != nil && (e == nil || e.Field != "cursor") {
			t.Errorf("%q: %v", w, err)
		}
		if err == nil && tellable("cursor", from) == nil && tellable("cursor", to) == nil {
			again, end, err := timeslotRange(timeslotCursor(from, to))
			if err != nil || !end.Equal(to) || again.Sub(from).Abs() >= time.Second {
				t.Errorf("%q is %s to %s and then %s to %s, %v", w, from, to, again, end, err)
			}
		}
		if line := oneLine(w); strings.ContainsFunc(line, unicode.IsControl) || !utf8.ValidString(line) {
			t.Errorf("%q is the line %q", w, line)
		}
		if cell := harmless(w); cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
			t.Errorf("%q is the cell %q", w, cell)
		}
		if short := clip(w); len(short) > 123 || utf8.ValidString(w) && !utf8.ValidString(short) {
			t.Errorf("%q is clipped to %q", w, short)
		}
		_ = sentence(w)
	})
}
