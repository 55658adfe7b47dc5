package store

import (
	"encoding/base64"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// FuzzCursors: a cursor that this store never gave is refused, or is a place in
// the list like any other.
func FuzzCursors(f *testing.F) {
	for _, c := range []string{"", "/id", "1790000000000/id", "/", "9999999999999999999999/id", "-1/\x00", "NaN/id"} {
		f.Add(base64.RawURLEncoding.EncodeToString([]byte(c)), 10, true)
		f.Add(c, -1, false)
	}
	f.Fuzz(func(t *testing.T, cursor string, limit int, history bool) {
		q := query{from: "job"}
		if history {
			q.since = "created_at"
		}
		n, err := q.page(backup.Page{Limit: limit, Cursor: cursor})
		if err != nil {
			if e := backup.AsError(err); e == nil || e.Code != backup.Invalid || e.Field != "cursor" && e.Field != "limit" {
				t.Errorf("%q: %v", cursor, err)
			}
			return
		}
		if n < 1 || n > maxLimit || len(q.conds) > 1 || (cursor == "") != (len(q.conds) == 0) {
			t.Errorf("%q gives %d and %q", cursor, n, q.conds)
		}
		for _, v := range values(q.args) {
			if text, ok := v.(string); ok && !utf8.ValidString(text) {
				t.Errorf("%q gives the database %q", cursor, text)
			}
		}
	})
}

// FuzzColumns: what stands in the database is read, or the row cannot be; what
// this store writes is read as it was.
func FuzzColumns(f *testing.F) {
	f.Add("[]", int64(0))
	f.Add("\"a\"\n\"b\"\n", int64(1))
	f.Add(`{"kind":"weekly","weekdays":[9]}`, int64(1)<<62)
	f.Add("a\x00\xff", int64(-1))
	f.Fuzz(func(t *testing.T, text string, n int64) {
		var all []string
		_ = lines{&all}.Scan(text) // it may be refused
		all = nil
		if err := (lines{&all}).Scan(toLines([]string{text, text})); err != nil || len(all) != 2 || all[0] != clean(text) {
			t.Errorf("%q is written as lines and read as %q, %v", text, all, err)
		}
		var r backup.Recurrence
		if err := (recurrence{&r}).Scan(text); err == nil && r.TimeZone != "" {
			_ = r.Describe()
			_ = r.Next(time.Unix(1_800_000_000, 0), 1)
		}
		var at time.Time
		if err := (millis{&at}).Scan(n); err != nil || epoch(at) != n {
			t.Errorf("%d is the time %s, %v", n, at, err)
		}
	})
}
