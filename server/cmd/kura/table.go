package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// table is rows under a head. Empty cells are shown as a dash.
type table struct {
	head []string
	rows [][]string
}

func (t table) print(w io.Writer) error {
	lines := append([][]string{t.head}, t.rows...)
	widths := make([]int, len(t.head))
	for i, line := range lines {
		cells := make([]string, len(t.head))
		for c := range cells {
			cells[c] = clean(cmp.Or(line[c], "-"))
			widths[c] = max(widths[c], columns(cells[c]))
		}
		lines[i] = cells
	}
	var text strings.Builder
	for _, line := range lines {
		row := ""
		for c, cell := range line {
			row += cell + strings.Repeat(" ", widths[c]-columns(cell)+2)
		}
		text.WriteString(strings.TrimRight(row, " ") + "\n")
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// drop takes the column of that head out, if so.
func (t *table) drop(head string, so bool) {
	at := slices.Index(t.head, head)
	if !so || at < 0 {
		return
	}
	t.head = slices.Delete(t.head, at, at+1)
	for i, row := range t.rows {
		t.rows[i] = slices.Delete(row, at, at+1)
	}
}

// record is one object as lines of names and values; those without a value are
// left out. Tables may follow.
type record struct {
	fields [][2]string
	tables []titled
}

type titled struct {
	title string
	table table
}

func (r *record) add(name, value string) {
	if value != "" {
		r.fields = append(r.fields, [2]string{name, value})
	}
}

func (r *record) addTable(title string, t table) {
	if len(t.rows) > 0 {
		r.tables = append(r.tables, titled{title, t})
	}
}

func (r record) print(w io.Writer) error {
	longest := 0
	for _, f := range r.fields {
		longest = max(longest, len(f[0]))
	}
	var text strings.Builder
	for _, f := range r.fields {
		fmt.Fprintf(&text, "%-*s  %s\n", longest+1, f[0]+":", clean(f[1]))
	}
	for _, t := range r.tables {
		fmt.Fprintf(&text, "\n%s:\n", t.title)
		if err := t.table.print(&text); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

const joiner = '\u200d' // holds the parts of one emoji together

// clean makes text from elsewhere safe to print: what would move the cursor,
// colour or reorder the line is shown as its escape.
func clean(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case unicode.IsPrint(r) || r == joiner:
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// columns is how wide a terminal shows text.
func columns(text string) int {
	n := 0
	for _, r := range text {
		switch kind := width.LookupRune(r).Kind(); {
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case kind == width.EastAsianWide || kind == width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}

// when shows a time in UTC, "" the zero one.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// took shows how long something lasted that may still go on.
func took(start, end, now time.Time) string {
	if start.IsZero() {
		return ""
	}
	if end.IsZero() {
		end = now
	}
	return max(0, end.Sub(start)).Round(time.Second).String()
}

// size shows bytes for people.
func size(n int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.95 && unit < len(units)-1 { // what would be rounded to 1024.0
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %s", v, units[unit])
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
