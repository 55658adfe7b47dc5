package handler

import (
	"strconv"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

const defaultLimit = 100

func pageOf(limit api.Limit, cursor api.Cursor) backup.Page {
	if limit == 0 {
		limit = defaultLimit
	}
	return backup.Page{Limit: limit, Cursor: cursor}
}

// etag is the strong entity tag of an object's version.
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// versionOf reads an If-Match; 0 = any version. A tag that this server never
// gave matches nothing.
func versionOf(ifMatch string) int64 {
	if ifMatch == "" || ifMatch == "*" {
		return 0
	}
	v, err := strconv.ParseInt(strings.Trim(ifMatch, `"`), 10, 64)
	if err != nil || v < 1 || etag(v) != ifMatch {
		return -1
	}
	return v
}

// lastYear is the last one of times that callers may name: what is reckoned
// from them, or is told in another zone, must still have four digits, or no
// answer could be written.
const lastYear = 9900

// tellable refuses a time that cannot be told again; zero is none.
func tellable(field string, t time.Time) error {
	if year := t.UTC().Year(); year < 1 || year > lastYear {
		return backup.Errorf(backup.Invalid, field, "%s must lie in the years 1 to %d, got %s.", field, lastYear, t.Format("2006-01-02T15:04:05Z07:00"))
	}
	return nil
}

// one makes a list of what was looked up by its name: no such name is an empty list.
func one[T any](item T, err error) ([]T, error) {
	switch backup.CodeOf(err) {
	case "":
		return []T{item}, nil
	case backup.NotFound:
		return nil, nil
	}
	return nil, err
}

// each converts a list; an empty one is [] in JSON, not null.
func each[A, B any](in []A, convert func(A) B) []B {
	out := make([]B, len(in))
	for i, a := range in {
		out[i] = convert(a)
	}
	return out
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}
