package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// session is what a command acts through: the server on one side, the
// terminal or the pipe on the other.
type session struct {
	cli            *cli
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
	poll           time.Duration // between two looks at a run
	patience       time.Duration // with a server that does not answer while one waits
	colour         bool          // stdout is a terminal that shows colours
	timeout        time.Duration // until an answer begins; 0 = the client's own

	client *api.ClientWithResponses // made at the first call
}

// pageSize is how many items a list asks for at a time.
const pageSize = 500

// server returns the client. It does not connect.
func (s *session) server() (*api.ClientWithResponses, error) {
	if s.client != nil {
		return s.client, nil
	}
	c := api.Config{Endpoint: s.cli.Endpoint, Token: s.cli.Token, UserAgent: "kura/" + version, MaxRetries: 3, Timeout: s.timeout}
	if s.cli.TokenFile != "" {
		text, err := os.ReadFile(s.cli.TokenFile)
		if err != nil {
			return nil, usef("The token file cannot be read: %v.", err)
		}
		c.Token = strings.TrimSpace(string(text))
	}
	if s.cli.CACertificate != "" {
		pem, err := os.ReadFile(s.cli.CACertificate)
		if err != nil {
			return nil, usef("The CA certificate cannot be read: %v.", err)
		}
		c.CACertificate = pem
	}
	client, err := api.New(c)
	if err != nil {
		return nil, usef("%v.", err)
	}
	s.client = client
	return client, nil
}

// newKey lets the client repeat a POST whose answer was lost.
func newKey() string { return rand.Text() }

// answer is what a call of the API returns.
type answer interface {
	api.Answer
	GetBody() []byte
}

// body returns the object that a call answered.
func body(a answer, err error) (json.RawMessage, error) {
	if err := api.Err(a, err); err != nil {
		return nil, err
	}
	return a.GetBody(), nil
}

func decode[T any](raw json.RawMessage) (T, error) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("read the server's answer: %w", err)
	}
	return v, nil
}

// collect returns the items of all pages, at most limit of them (0 = all).
func collect(limit int, page func(cursor string) (answer, error)) ([]json.RawMessage, error) {
	return collectWhile(func(json.RawMessage) bool { return true }, limit, page)
}

// collectWhile ends with the last item before the first one that is not wanted.
func collectWhile(wanted func(json.RawMessage) bool, limit int, page func(cursor string) (answer, error)) ([]json.RawMessage, error) {
	type list struct {
		Items      []json.RawMessage `json:"items"`
		NextCursor string            `json:"next_cursor"`
	}
	all := []json.RawMessage{}
	for item, err := range api.All(func(cursor string) ([]json.RawMessage, string, error) {
		raw, err := body(page(cursor))
		if err != nil {
			return nil, "", err
		}
		l, err := decode[list](raw)
		return l.Items, l.NextCursor, err
	}) {
		if err != nil {
			return nil, err
		}
		if !wanted(item) {
			break
		}
		if all = append(all, item); len(all) == limit {
			break
		}
	}
	return all, nil
}

// noun is a kind of object that has a name.
type noun struct {
	what string // such as "group"
	get  func(id string) (answer, error)
	list func(name, cursor string) (answer, error)
	hint string // when there is none
}

// object is what a name or an id led to.
type object struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	raw  json.RawMessage
}

var idPattern = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}$`)

// find looks an object up. What looks like an id is one, unless there is no
// such object: names may look like anything.
func find(n noun, ref string) (object, error) {
	if ref == "" {
		return object{}, usef("Name a %s, or give its id.", n.what)
	}
	if idPattern.MatchString(ref) {
		raw, err := body(n.get(ref))
		if err == nil {
			return newObject(raw)
		}
		if api.CodeOf(err) != api.ErrorCodeNotFound {
			return object{}, err
		}
	}
	all, err := named(n, ref)
	if err != nil {
		return object{}, err
	}
	return only(n.what, ref, n.hint, all)
}

// only returns the one of a name, which there may be none or several of.
func only(what, name, hint string, all []object) (object, error) {
	switch len(all) {
	case 0:
		return object{}, hinted{unknown(fmt.Sprintf("No %s is named %q.", what, name)), hint}
	case 1:
		return all[0], nil
	}
	ids := make([]string, len(all))
	for i, o := range all {
		ids[i] = o.ID
	}
	return object{}, hinted{failf("%s are named %q.", count(len(all), what), name), "Give the id of the one that is meant: " + strings.Join(ids, ", ") + "."}
}

// named returns the objects of exactly that name.
func named(n noun, name string) ([]object, error) {
	items, err := collect(0, func(cursor string) (answer, error) { return n.list(name, cursor) })
	if err != nil {
		return nil, err
	}
	var all []object
	for _, raw := range items {
		o, err := newObject(raw)
		if err != nil {
			return nil, err
		}
		if o.Name == name {
			all = append(all, o)
		}
	}
	return all, nil
}

func newObject(raw json.RawMessage) (object, error) {
	o, err := decode[object](raw)
	o.raw = raw
	return o, err
}

// names maps ids to names, for tables.
func names(items []json.RawMessage) map[string]string {
	m := map[string]string{}
	for _, raw := range items {
		if o, err := newObject(raw); err == nil {
			m[o.ID] = o.Name
		}
	}
	return m
}

// showAll prints a list: as a table of one row per item, or as JSON. A table
// whose rows begin with a name is sorted by it; a history stays as it is.
func showAll[T any](s *session, what string, items []json.RawMessage, head []string, row func(T) []string) error {
	if s.cli.Output == "json" {
		return s.printJSON(map[string][]json.RawMessage{"items": items})
	}
	t := table{head: head}
	for _, raw := range items {
		v, err := decode[T](raw)
		if err != nil {
			return err
		}
		t.rows = append(t.rows, row(v))
	}
	if len(items) == 0 {
		fmt.Fprintf(s.stderr, "No %s.\n", what)
		return nil
	}
	if head[0] == "NAME" {
		slices.SortStableFunc(t.rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	}
	return t.print(s.stdout)
}

// showOne prints an object: as lines of names and values, or as JSON.
func showOne[T any](s *session, raw json.RawMessage, tell func(T) record) error {
	if s.cli.Output == "json" {
		return s.printJSON(raw)
	}
	v, err := decode[T](raw)
	if err != nil {
		return err
	}
	return tell(v).print(s.stdout)
}

func (s *session) printJSON(v any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(s.stdout, harmlessJSON(text.String()))
	return err
}

// harmlessJSON writes what [clean] would not let through as JSON escapes: to a
// program it is the same text, to a terminal it is no command.
func harmlessJSON(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\n' || r == joiner || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// say prints a line about what was done, where people read it.
func (s *session) say(format string, args ...any) {
	w := s.stdout
	if s.cli.Output == "json" {
		w = s.stderr
	}
	fmt.Fprintln(w, clean(fmt.Sprintf(format, args...)))
}

// instant reads a time of the command line: RFC 3339, or a date that stands
// for its first second in UTC.
func instant(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usef("--%s is a time such as 2026-12-01T02:00:00Z or a date such as 2026-12-01, got %q.", flag, text)
}

// span reads a length of time such as 7d or 36h.
func span(flag, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 100000 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d, nil
	}
	return 0, usef("--%s is a length of time such as 7d or 36h, got %q.", flag, text)
}

// readFile reads a file that the command line names; - is stdin.
func (s *session) readFile(path string) ([]byte, error) {
	if path != "-" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, usef("%v.", err)
		}
		return text, nil
	}
	return io.ReadAll(io.LimitReader(s.stdin, 16<<20))
}

// errInterrupted is the answer to a signal while the server goes on.
var errInterrupted = errors.New("interrupted")

// ctxErr turns the end of ctx into one error, whatever was cut by it.
func ctxErr(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

// pairs reads KEY=VALUE flags.
func pairs(flag string, given []string) (map[string]string, error) {
	if len(given) == 0 {
		return nil, nil //nolint:nilnil // no pairs is no error
	}
	m := map[string]string{}
	for _, p := range given {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, usef("--%s is KEY=VALUE, got %q.", flag, p)
		}
		m[k] = v
	}
	return m, nil
}

// keys returns the keys of m in order.
func keys(m map[string]string) []string {
	all := make([]string, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}
