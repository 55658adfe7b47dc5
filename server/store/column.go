package store

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// column is one column of a row and where its value is in Go: a pointer to a
// string, a bool or an integer, or one of the codecs below.
type column struct {
	name string
	at   any
}

// columns maps a row to a Go value, in one place for reading and for writing.
type columns []column

// names lists the columns for a SELECT or INSERT, each with the prefix.
func (c columns) names(prefix string) string {
	all := make([]string, len(c))
	for i, col := range c {
		all[i] = prefix + col.name
	}
	return strings.Join(all, ", ")
}

// dest is where Scan puts the columns.
func (c columns) dest() []any {
	all := make([]any, len(c))
	for i, col := range c {
		all[i] = col.at
	}
	return all
}

// marks returns "$from, ..., $n" for an INSERT.
func (c columns) marks(from int) string {
	all := make([]string, len(c))
	for i := range c {
		all[i] = "$" + strconv.Itoa(from+i)
	}
	return strings.Join(all, ", ")
}

// sets returns "a = $from, b = ..." for an UPDATE.
func (c columns) sets(from int) string {
	all := make([]string, len(c))
	for i, col := range c {
		all[i] = col.name + " = $" + strconv.Itoa(from+i)
	}
	return strings.Join(all, ", ")
}

// without leaves columns out.
func (c columns) without(names ...string) columns {
	var rest columns
	for _, col := range c {
		if !has(names, col.name) {
			rest = append(rest, col)
		}
	}
	return rest
}

// only leaves all others out.
func (c columns) only(names ...string) columns {
	var rest columns
	for _, col := range c {
		if has(names, col.name) {
			rest = append(rest, col)
		}
	}
	return rest
}

func has(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

// values turns pointers and named types into what every driver takes.
func values(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = value(a)
	}
	return out
}

func value(a any) any {
	switch a := a.(type) {
	case driver.Valuer:
		return a
	case string:
		return clean(a)
	case time.Time:
		return epoch(a)
	}
	switch v := reflect.Indirect(reflect.ValueOf(a)); v.Kind() {
	case reflect.String:
		return clean(v.String())
	case reflect.Bool:
		return v.Bool()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int()
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return int64(v.Uint()) //nolint:gosec // 32 bits fit
	default:
		panic(fmt.Sprintf("store: a %T has no column type", a))
	}
}

// clean makes text that both databases take. Messages of other systems may be
// no UTF-8 or hold zero bytes.
func clean(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// epoch is a time as it is stored: milliseconds, 0 for the zero time.
func epoch(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromEpoch(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// millis is a time in a BIGINT column.
type millis struct{ t *time.Time }

func (m millis) Scan(src any) error {
	var n sql.NullInt64
	err := n.Scan(src)
	*m.t = fromEpoch(n.Int64)
	return err
}

func (m millis) Value() (driver.Value, error) { return epoch(*m.t), nil }

// spell is a duration in milliseconds.
type spell struct{ d *time.Duration }

func (s spell) Scan(src any) error {
	var n sql.NullInt64
	err := n.Scan(src)
	*s.d = time.Duration(n.Int64) * time.Millisecond
	return err
}

func (s spell) Value() (driver.Value, error) { return s.d.Milliseconds(), nil }

// asJSON is a value in a TEXT column, as JSON.
type asJSON struct{ v any }

func (j asJSON) Scan(src any) error {
	var s sql.NullString
	if err := s.Scan(src); err != nil || s.String == "" {
		return err
	}
	return json.Unmarshal([]byte(s.String), j.v)
}

func (j asJSON) Value() (driver.Value, error) {
	b, err := json.Marshal(j.v)
	return string(b), err
}

// rawJSON is JSON text of somebody else; nil is "".
type rawJSON struct{ v *json.RawMessage }

func (j rawJSON) Scan(src any) error {
	var s sql.NullString
	err := s.Scan(src)
	*j.v = nil
	if s.String != "" {
		*j.v = json.RawMessage(s.String)
	}
	return err
}

func (j rawJSON) Value() (driver.Value, error) { return clean(string(*j.v)), nil }

// lines is a list of texts that is only ever appended to: one JSON string per
// line.
type lines struct{ v *[]string }

func (l lines) Scan(src any) error {
	var s sql.NullString
	if err := s.Scan(src); err != nil {
		return err
	}
	*l.v = nil
	for line := range strings.Lines(s.String) {
		var text string
		if err := json.Unmarshal([]byte(line), &text); err != nil {
			return fmt.Errorf("list of messages: %w", err)
		}
		*l.v = append(*l.v, text)
	}
	return nil
}

func (l lines) Value() (driver.Value, error) { return toLines(*l.v), nil }

func toLines(texts []string) string {
	var b strings.Builder
	for _, t := range texts {
		line, _ := json.Marshal(clean(t)) // a string: cannot fail
		b.Write(line)
		b.WriteByte('\n')
	}
	return b.String()
}

// orNull is a reference to another row: "" is NULL.
type orNull struct{ v *string }

func (n orNull) Scan(src any) error {
	var s sql.NullString
	err := s.Scan(src)
	*n.v = s.String
	return err
}

func (n orNull) Value() (driver.Value, error) {
	if *n.v == "" {
		return nil, nil
	}
	return *n.v, nil
}

// sealed is a secret in a TEXT column. row is the id of its row, so the id
// stands before it in the list of columns.
type sealed struct {
	box           box
	table, column string
	row           *string
	secret        *backup.Secret
}

func (s sealed) Scan(src any) error {
	var text sql.NullString
	if err := text.Scan(src); err != nil {
		return err
	}
	plain, err := s.box.open(text.String, place(s.table, s.column, *s.row))
	if err != nil {
		return fmt.Errorf("%s of %s %s: %w", s.column, s.table, *s.row, err)
	}
	*s.secret = backup.Secret(plain)
	return nil
}

func (s sealed) Value() (driver.Value, error) {
	return s.box.seal(s.secret.Reveal(), place(s.table, s.column, *s.row)), nil
}
