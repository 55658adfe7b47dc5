package handler_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"pgregory.net/rapid"
)

// drawing makes requests of the contract's operations: such as it asks for, and
// such as it does not.
type drawing struct {
	t   *rapid.T
	by  *rand.Rand          // rapid's own numbers lean to the small ones
	ids map[string][]string // of objects that were there, by the first part of their path
}

func (d drawing) chance(percent int) bool {
	return d.by.IntN(100) < percent
}

func (d drawing) upTo(n int) int { return d.by.IntN(n + 1) }

func choose[T any](d drawing, of ...T) T { return of[d.by.IntN(len(of))] }

// strange are texts that somebody got wrong somewhere before.
var strange = []string{
	"", " ", "a", "..", "../../etc/passwd", "%2f", "%00", "\x00", "a\x00b", "-rf", "CON", "nul.txt", "a/b", `a\b`, "a:run", "?x=1#y",
	"\n", "a\r\nb: c", "\x1b[2J\x1b]0;x\a", "\u009b31m", "'; DROP TABLE job; --", `"><script>alert(1)</script>`, "=1+1", "${HOME}", "{{.}}", "%s%n%d",
	"\u202eevil", "שלום", "مرحبا", "\ufeff", "\ufffd", "\u2028", "e\u0301", strings.Repeat("🙈", 80), strings.Repeat("x", 128), strings.Repeat("x", 129),
	strings.Repeat("蔵", 255), strings.Repeat("(", 500), "0", "-1", "1e999", "true", "null", "NaN", "9223372036854775808",
}

var times = []string{
	"2026-12-01T02:00:00Z", "2026-12-24T02:00:00+09:00", "2027-06-01T00:00:00.123456789Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00",
	"1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00", "9995-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-12-01T23:59:60Z",
	"2026-12-01T24:00:00Z", "2026-12-01T00:00:00+99:99", "2026-12-01", "tomorrow",
}

// known maps a property's name to what it names.
var known = map[string]string{
	"vcenter_id": "vcenters", "to": "vcenters", "virtual_machine_id": "virtual-machines", "virtual_machine_ids": "virtual-machines",
	"exclude_virtual_machine_ids": "virtual-machines", "group_id": "backup-groups", "schedule_id": "backup-schedules", "run_id": "runs",
	"image_id": "backup-images", "repository": "repositories", "hold_id": "holds",
}

// id is one of an object of that kind, of another kind, or of nothing.
func (d drawing) id(kind string) string {
	if all := d.ids[kind]; len(all) > 0 && d.chance(92) {
		return choose(d, all...)
	}
	if d.chance(50) {
		return choose(d, strange...)
	}
	return choose(d, nobody, d.ids["virtual-machines"][0], strings.Repeat("0", 26))
}

// sensible are values of properties whose form the contract does not tell.
var sensible = map[string][]string{
	"time_zone": {"Asia/Tokyo", "UTC", "America/St_Johns", "Africa/Casablanca", "Asia//Tokyo", "right/UTC", "../UTC", "Local", "Mars/Base"},
	"date":      {"2026-12-24", "2027-02-28", "0000-00-00", "0000-01-01", "9999-12-31", "2026-02-30"}, "start_date": {"2026-12-24", "9999-12-31", "0000-01-01"},
	"endpoint": {"https://vc.example.com", "https://vc.example.com:443/sdk", "http://x", "https://", "https://[::1", "file:///etc/passwd", "https://a@b"},
	"kind":     {"filesystem", "s3", "sftp", "webdav"}, "compression": {"s2", "none", "zstd-fastest", "lz4"}, "path": {"/srv/kura", "relative", "/"},
	"name_regex": {"^vm", "(", "(a{1000}){1000}", "[[:foo:]]"}, "folder": {"/DC0/vm/prod", "/", "/DC0/vm/%2f"}, "moid": {"vm-1"},
	"age_recipient": {"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kudvg5nd3q8syhr", "age1", "ssh-rsa x"},
}

// text is a string for a property or a parameter.
func (d drawing) text(s *openapi3.Schema, name string) string {
	switch {
	case d.chance(2):
		return choose(d, strange...)
	case s.Format == "date-time":
		return times[d.upTo(1+d.upTo(1)*(len(times)-2))]
	case s.Pattern == "^([01][0-9]|2[0-3]):00$":
		return fmt.Sprintf("%02d:00", d.upTo(23))
	case known[name] != "":
		return d.id(known[name])
	case sensible[name] != nil:
		return sensible[name][d.upTo(d.upTo(1)*(len(sensible[name])-1))]
	case s.Pattern != "":
		return choose(d, "tier=gold", "=", "a=b=c")
	case name == "cursor":
		return choose(d, "xyz", "LzAx", "MTc5OTk5OTk5OTk5OS8wMQ", "OTk5OTk5OTk5OTk5OTk5OTk5OTkvMA", "2026-12-01T00:00:00Z/2026-12-02T00:00:00Z", "Lw")
	case name == "name":
		return choose(d, "a", "夜間", strings.Repeat("🙈", 80), "x y", fmt.Sprint("n", d.upTo(1_000_000)))
	}
	word := strings.Repeat("w", int(min(max(1, s.MinLength), 64))) //nolint:gosec // as the line says
	return word + choose(d, "", "e", "\n", "\"", "<b>", "é")
}

// value fits the schema, mostly.
func (d drawing) value(s *openapi3.Schema, name string) any {
	if len(s.AllOf) == 1 {
		s = s.AllOf[0].Value
	}
	switch {
	case len(s.Enum) > 0:
		return choose(d, s.Enum...)
	case s.Type.Is("object"):
		return d.object(s)
	case s.Type.Is("array"):
		return d.array(s, name)
	case s.Type.Is("boolean"):
		return d.chance(50)
	case s.Type.Is("integer"), s.Type.Is("number"):
		return d.integer(s, name)
	}
	return d.text(s, name)
}

func (d drawing) array(s *openapi3.Schema, name string) any {
	list := []any{}
	for range int(s.MinItems) + d.upTo(2) { //nolint:gosec // a handful
		v := d.value(s.Items.Value, name)
		if !s.UniqueItems || !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

func (d drawing) integer(s *openapi3.Schema, name string) any {
	if name == "retention_days" {
		return choose(d, 1, 1, 7, 31, 0, 8, 366, 65536)
	}
	low, high := int64(0), int64(1)<<53
	if s.Min != nil {
		low = int64(*s.Min)
	}
	if s.Max != nil {
		high = int64(*s.Max)
	}
	return choose(d, low, low, low+1, min(high, low+8), high)
}

// alternatives are properties of which an object has one.
var alternatives = [][]string{
	{"one_time", "daily", "weekly", "monthly"}, {"group_id", "virtual_machine_id"}, {"days_of_month", "last_day", "week_day_of_month", "days_of_week"},
	{"in_place", "new_vm", "disk"}, {"source_disk_key", "source_disk_label"}, {"expires_at", "retention_days"}, {"start_time", "start_window"},
	{"thumbprint", "ca_certificate"}, {"cluster", "host", "resource_pool"}, {"include_labels", "exclude_labels"}, {"virtual_machine_ids", "selector"},
}

func (d drawing) object(s *openapi3.Schema) any {
	o := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name].Value
		if slices.Contains(s.Required, name) || d.chance(25) && (!p.ReadOnly || d.chance(10)) {
			o[name] = d.value(p, name)
		}
	}
	for _, set := range alternatives {
		d.oneOf(o, s, set)
	}
	if more := s.AdditionalProperties.Schema; more != nil {
		for range d.upTo(2) {
			o[choose(d, "path", "tier", "", "=", "VM Network", "url", "a")] = d.value(more.Value, "path")
		}
	}
	return o
}

// oneOf leaves one of the set in o, where the schema has at least two of them.
func (d drawing) oneOf(o map[string]any, s *openapi3.Schema, set []string) {
	var here []string
	for _, name := range set {
		if s.Properties[name] != nil {
			here = append(here, name)
		}
	}
	if len(here) < 2 || d.chance(3) {
		return
	}
	one := choose(d, here...)
	for _, name := range here {
		if name != one && !slices.Contains(s.Required, name) {
			delete(o, name)
		}
	}
	if o[one] == nil {
		o[one] = d.value(s.Properties[one].Value, one)
	}
}

// wrong puts something that does not belong there somewhere into v.
func (d drawing) wrong(v any) any {
	switch v := v.(type) {
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		switch at := d.upTo(3); {
		case at == 0 || len(names) == 0:
			v[choose(d, "extra", "Name", "id ", "", "__proto__", strings.Repeat("k", 300))] = d.any()
		case at == 1:
			delete(v, choose(d, names...))
		default:
			name := choose(d, names...)
			v[name] = d.wrong(v[name])
		}
		return v
	case []any:
		if len(v) > 0 && d.chance(60) {
			i := d.upTo(len(v) - 1)
			v[i] = d.wrong(v[i])
			return v
		}
		return append(v, d.any())
	}
	return d.any()
}

// any is a value of any type.
func (d drawing) any() any {
	return choose[any](d, nil, true, 0, -1, 1.5, 1e30, json.Number("1e400"), json.Number("-9223372036854775809"), []any{}, map[string]any{}, []any{nil, []any{[]any{}}},
		choose(d, strange...), strings.Repeat("x", 70_000), slices.Repeat([]any{1}, 300))
}

// body is the text of a request, and whether it is one JSON object.
func (d drawing) body(s *openapi3.Schema) string {
	v := d.value(s, "")
	for d.chance(18) {
		v = d.wrong(v)
	}
	b, err := json.Marshal(v)
	if err != nil {
		d.t.Fatalf("draw a body: %v", err)
	}
	text := string(b)
	if d.chance(94) {
		return text
	}
	switch d.upTo(8) {
	case 0:
		return text[:d.upTo(len(text)-1)]
	case 1: // the first property twice
		return strings.Replace(text, "{", `{"name":"twice","name":"more",`, 1)
	case 2:
		return strings.Replace(text, `"`, "\"\xff", 1)
	case 3:
		return text + text
	case 4:
		return strings.Repeat(`{"a":`, 11_000)
	case 5:
		return strings.Repeat(`[`, 900) + strings.Repeat(`]`, 900)
	case 6:
		return strings.Repeat(" ", 1<<20) + text
	case 7:
		return "\ufeff" + text
	}
	return choose(d, "", "null", "[]", "1", `"x"`, "{}", "<a/>", "a=b")
}

// path fills in the ids of an operation's path.
func (d drawing) path(template string) string {
	kind, _, _ := strings.Cut(strings.TrimPrefix(template, "/v1/"), "/")
	id := url.PathEscape(d.id(kind))
	if d.chance(2) {
		id = choose(d, "a%2fb", "%2e%2e", "%00", "a;b", "a%3arun", strings.Repeat("x", 5000))
	}
	return strings.NewReplacer("{id}", id, "{hold_id}", url.PathEscape(d.id("holds"))).Replace(template)
}
