package backup

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// FuzzNames: what is taken as a name shows as it is, on one line, wherever it
// is shown, and what is refused is refused for a reason that can be acted on.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"erp", "夜間", "שלום", "👩‍💻", " x", "a\x00b", "\x1b[2J", "\u009b31m", "\u202eevil", "\u2028", "\xff", strings.Repeat("🙈", 128), strings.Repeat("x", 129)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		err := ValidName(name)
		if err != nil {
			if e := AsError(err); e == nil || e.Code != Invalid || e.Field != "name" || !strings.HasSuffix(e.Message, ".") {
				t.Errorf("%q: %v, want what is invalid", name, err)
			}
			return
		}
		turns := func(r rune) bool {
			return unicode.Is(unicode.Bidi_Control, r) && !strings.ContainsRune("\u061c\u200e\u200f", r)
		}
		if n := utf8.RuneCountInString(name); n < 1 || n > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) ||
			strings.ContainsFunc(name, turns) || len(strings.Fields(name)) == 0 || strings.ContainsAny(name, "\u2028\u2029") {
			t.Errorf("%q is taken for a name", name)
		}
		v := VCenter{Name: name, Endpoint: "https://" + name, Username: "u", TimeZone: "UTC"}.Defaulted()
		if err := v.Validate(); err != nil && AsError(err).Field != "endpoint" {
			t.Errorf("a vcenter named %q: %v", name, err)
		}
	})
}

// FuzzZonesAndDates: a zone that is taken begins its hours at whole minutes, and
// a date that is read is written as it was.
func FuzzZonesAndDates(f *testing.F) {
	for _, zone := range []string{"UTC", "Asia/Tokyo", "Asia//Tokyo", "./UTC", "posix/UTC", "right/UTC", "../UTC", "/etc/passwd", "localtime", "Local", "", "\x00", "America/Argentina/Buenos_Aires"} {
		f.Add(zone, "2026-12-01")
	}
	f.Add("UTC", "0000-02-30")
	f.Add("UTC", "9999-12-31")
	f.Fuzz(func(t *testing.T, zone, day string) {
		loc, err := Recurrence{TimeZone: zone}.Location()
		switch e := AsError(err); {
		case err != nil && (e == nil || e.Code != Invalid || e.Field != "time_zone"):
			t.Errorf("zone %q: %v", zone, err)
		case err == nil && (strings.Contains(zone, "//") || strings.HasPrefix(zone, "posix/") || zone == "localtime"):
			t.Errorf("zone %q is another's or this machine's", zone)
		}
		d, err := ParseDate("date", day)
		if err != nil {
			if e := AsError(err); e == nil || e.Code != Invalid || e.Field != "date" {
				t.Errorf("date %q: %v", day, err)
			}
			return
		}
		if d.String() != day {
			t.Errorf("date %q is written %q", day, d)
		}
		if loc == nil {
			return
		}
		for hour := range 24 {
			start, _ := Slot{d, hour}.Instant(loc)
			if start.Second() != 0 && d.Year > 1980 {
				t.Errorf("%s %02d:00 %s begins at %s", d, hour, zone, start)
			}
		}
		r := Recurrence{Kind: OneTime, Date: d, TimeZone: zone}
		if got := r.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 2); len(got) > 1 {
			t.Errorf("once on %s in %s: %v", day, zone, got)
		}
	})
}

// FuzzMappings: of mappings that are taken, each label is given by one whose tag
// the VM carries, in whatever order they stand.
func FuzzMappings(f *testing.F) {
	f.Add("c", "t", "k", "v", "c", "u", "k", "w")
	f.Add("c", "t", "k", "v", "c", "t", "k", "w")
	f.Add("", "t", "k", "", "c", "=", "\x00", "\n")
	f.Fuzz(func(t *testing.T, c1, t1, k1, v1, c2, t2, k2, v2 string) {
		all := []TagMapping{{Category: c1, Tag: t1, Key: k1, Value: v1}, {Category: c2, Tag: t2, Key: k2, Value: v2}}
		if err := validMappings(all); err != nil {
			if e := AsError(err); e == nil || e.Code != Invalid || e.Field != "tag_mappings" {
				t.Errorf("%+v: %v", all, err)
			}
			return
		}
		vm := VirtualMachine{Tags: []Tag{{Category: c1, Name: t1}, {Category: c2, Name: t2}}}
		labels, _ := VCenter{TagMappings: all}.tagLabels(vm)
		slices.Reverse(all)
		turned, _ := VCenter{TagMappings: all}.tagLabels(vm)
		for k, v := range labels {
			if turned[k] != v || !slices.ContainsFunc(all, func(m TagMapping) bool { return m.Key == k && m.Value == v }) {
				t.Errorf("%+v gives %q and, turned, %q", all, labels, turned)
			}
		}
		if none, _ := (VCenter{TagMappings: all}).tagLabels(VirtualMachine{}); len(none) > 0 {
			t.Errorf("a VM without tags gets %q", none)
		}
	})
}

// FuzzSelectors: a selector that is taken chooses without failing, and one that
// is refused says which part of it is wrong.
func FuzzSelectors(f *testing.F) {
	f.Add("^vm[0-9]+$", "/DC0/vm/prod", "vm01", "/DC0/vm/prod/a%2fb", true)
	f.Add("(a{1000}){1000}", "", "\x1b[2J", "//", false)
	f.Add("(?i)", "/", "", "/DC0/../DC0", true)
	f.Fuzz(func(t *testing.T, regex, folder, name, path string, recursive bool) {
		if len(regex) > 1024 { // as the contract has it
			return
		}
		g := Group{Name: "g", Selector: &Selector{VCenterID: "v", NameRegex: regex, Folder: folder, Recursive: recursive}}
		if err := g.Validate(); err != nil {
			if e := AsError(err); e == nil || e.Code != Invalid || !strings.HasPrefix(e.Field, "selector.") {
				t.Errorf("%q: %v", regex, err)
			}
			return
		}
		vms := []VirtualMachine{{ID: "1", VCenterID: "v", Name: name, Folder: path}, {ID: "2", VCenterID: "other", Name: name, Folder: path}}
		chosen, err := g.Members(vms)
		if err != nil || slices.ContainsFunc(chosen, func(vm VirtualMachine) bool { return vm.VCenterID != "v" }) {
			t.Errorf("%q in %q chooses %v, %v", regex, folder, chosen, err)
		}
	})
}
