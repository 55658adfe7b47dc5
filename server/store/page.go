package store

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// The sizes of a page.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// query is a list that is being asked for: its conditions, its order, its page.
type query struct {
	from  string // tables; the first one's columns are what is listed
	since string // the time column that it is ordered by, newest first; "" = by id, oldest first
	all   bool   // Limit 0 means everything
	conds []string
	args  []any
}

// where adds a condition in which each ? stands for the next argument.
func (q *query) where(cond string, args ...any) {
	for _, a := range args {
		q.args = append(q.args, a)
		cond = strings.Replace(cond, "?", "$"+strconv.Itoa(len(q.args)), 1)
	}
	q.conds = append(q.conds, cond)
}

// equal adds the condition that the column has the value, unless that is "".
func (q *query) equal(column, value string) {
	if value != "" {
		q.where(column+" = ?", value)
	}
}

// conditions joins them for a WHERE.
func (q *query) conditions() string { return strings.Join(q.conds, " AND ") }

// in adds the condition that the column has one of the values.
func (q *query) in(column string, values []string) {
	marks := make([]string, len(values))
	args := make([]any, len(values))
	for i, v := range values {
		marks[i], args[i] = "?", v
	}
	q.where(column+" IN ("+strings.Join(marks, ", ")+")", args...)
}

// list reads one page. of maps a row; its column "id" and the one named by
// q.since make the cursor.
func list[T any](ctx context.Context, t *tx, q query, p backup.Page, of func(*T) columns) ([]T, string, error) {
	limit, err := q.page(p)
	if err != nil {
		return nil, "", err
	}
	var sample T
	text := "SELECT " + of(&sample).names("") + " FROM " + q.from + " WHERE " + strings.Join(q.conds, " AND ")
	if q.since == "" {
		text += " ORDER BY id"
	} else {
		text += " ORDER BY " + q.since + " DESC, id DESC"
	}
	if limit > 0 {
		text += " LIMIT " + strconv.Itoa(limit+1) // one more, to see whether there are more
	}
	var all []T
	err = t.rows(ctx, text, q.args, func(scan func(...any) error) error {
		var v T
		if err := scan(of(&v).dest()...); err != nil {
			return err
		}
		all = append(all, v)
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("list of %s: %w", q.from, err)
	}
	if limit == 0 || len(all) <= limit {
		return all, "", nil
	}
	all = all[:limit]
	return all, q.cursor(of(&all[limit-1])), nil
}

// page checks what is asked for, adds where the page starts, and returns its
// size, 0 for everything.
func (q *query) page(p backup.Page) (int, error) {
	limit := p.Limit
	switch {
	case limit < 0 || limit > maxLimit:
		return 0, backup.Errorf(backup.Invalid, "limit", "limit must be 1 to %d, got %d.", maxLimit, limit)
	case limit == 0 && !q.all:
		limit = defaultLimit
	}
	if p.Cursor == "" {
		return limit, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	at, id, ok := strings.Cut(string(raw), "/")
	if err != nil || !ok || id == "" || (at == "") != (q.since == "") {
		return 0, badCursor(p.Cursor)
	}
	if q.since == "" {
		q.where("id > ?", id)
		return limit, nil
	}
	ms, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return 0, badCursor(p.Cursor)
	}
	q.where("("+q.since+", id) < (?, ?)", ms, id)
	return limit, nil
}

func badCursor(c string) error {
	return backup.Errorf(backup.Invalid, "cursor", "%q is no cursor of this list. Take next_cursor of the page before, or leave it out to start from the beginning.", c)
}

// cursor says where a page ended: "<milliseconds>/<id>", or "/<id>".
func (q *query) cursor(last columns) string {
	text := "/" + fmt.Sprint(value(last.only("id")[0].at))
	if q.since != "" {
		ms, _ := last.only(q.since)[0].at.(millis).Value() // cannot fail
		text = fmt.Sprint(ms) + text
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}
