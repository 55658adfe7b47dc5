// Command ledger counts which of Kura's known behaviours are shown by a test,
// a page or an example. The list is docs/dev/behaviours.md; a mark is a comment
// such as
//
//	seed:N36  or  seed:N36, N58  or  seed:N31-N34
//
// It does not run a test and cannot tell whether one shows what its mark says.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

const list = "docs/dev/behaviours.md"

func main() {
	root := flag.String("root", ".", "root of the project")
	format := flag.String("o", "table", "output: table or json")
	flag.Parse()
	if *format != "table" && *format != "json" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ok, err := run(*root, *format, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ledger:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run prints the ledger and says whether every mark names a known behaviour.
func run(root, format string, out io.Writer) (bool, error) {
	behaviours, err := readList(root)
	if err != nil {
		return false, err
	}
	marks, err := scan(root)
	if err != nil {
		return false, err
	}
	l := join(behaviours, marks)
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(l); err != nil {
			return false, fmt.Errorf("write the ledger: %w", err)
		}
	} else {
		l.print(out)
	}
	return len(l.Unknown) == 0, nil
}

// behaviour is one row of the list with the places that name it.
type behaviour struct {
	ID      string   `json:"id"`
	Does    string   `json:"does"`
	Carries string   `json:"carries"`
	Tests   []string `json:"tests"`
	Pages   []string `json:"pages"`
}

// applies is false for rows that are kept only so that nobody asks again.
func (b behaviour) applies() bool { return b.Carries != "N" && b.Carries != "-" }

func (b behaviour) covered() bool { return len(b.Tests)+len(b.Pages) > 0 }

// mark is one naming of a behaviour.
type mark struct {
	ID    string `json:"id"`
	Place string `json:"place"` // file:line
	test  bool
}

// count is the sum of one source of behaviours.
type count struct {
	Source     string   `json:"source"`
	Behaviours int      `json:"behaviours"`
	Apply      int      `json:"apply"`
	Tested     int      `json:"tested"`  // of those that apply
	Covered    int      `json:"covered"` // by a test or a page
	Uncovered  []string `json:"uncovered"`
}

type ledger struct {
	Counts     []count     `json:"counts"`
	Total      count       `json:"total"`
	Behaviours []behaviour `json:"behaviours"`
	Unknown    []mark      `json:"unknown"`
}

func join(behaviours []behaviour, marks []mark) ledger {
	l := ledger{Behaviours: behaviours, Unknown: []mark{}, Total: count{Source: "all", Uncovered: []string{}}}
	index := map[string]int{}
	for i, b := range behaviours {
		index[b.ID] = i
	}
	for _, m := range marks {
		i, ok := index[m.ID]
		switch {
		case !ok:
			l.Unknown = append(l.Unknown, m)
		case m.test:
			l.Behaviours[i].Tests = append(l.Behaviours[i].Tests, m.Place)
		default:
			l.Behaviours[i].Pages = append(l.Behaviours[i].Pages, m.Place)
		}
	}
	for _, b := range l.Behaviours {
		l.add(b)
	}
	slices.SortStableFunc(l.Counts, func(a, b count) int { return cmp.Compare(b.Behaviours, a.Behaviours) })
	return l
}

func (l *ledger) add(b behaviour) {
	source := b.ID[:1]
	i := slices.IndexFunc(l.Counts, func(c count) bool { return c.Source == source })
	if i < 0 {
		i = len(l.Counts)
		l.Counts = append(l.Counts, count{Source: source, Uncovered: []string{}})
	}
	for _, c := range []*count{&l.Counts[i], &l.Total} {
		c.Behaviours++
		if !b.applies() {
			continue
		}
		c.Apply++
		if len(b.Tests) > 0 {
			c.Tested++
		}
		if b.covered() {
			c.Covered++
		} else {
			c.Uncovered = append(c.Uncovered, b.ID)
		}
	}
}

func (l ledger) print(out io.Writer) {
	for _, b := range l.Behaviours {
		if b.covered() {
			fmt.Fprintf(out, "%-4s %s\n     %s\n", b.ID, b.Does, strings.Join(slices.Concat(b.Tests, b.Pages), " "))
		}
	}
	fmt.Fprintf(out, "\n%-8s %10s %6s %7s %8s\n", "source", "behaviours", "apply", "tested", "covered")
	for _, c := range append(l.Counts, l.Total) {
		fmt.Fprintf(out, "%-8s %10d %6d %7d %8d\n", c.Source, c.Behaviours, c.Apply, c.Tested, c.Covered)
	}
	for _, c := range l.Counts {
		if len(c.Uncovered) > 0 {
			fmt.Fprintf(out, "\nnot covered of %s: %s\n", c.Source, strings.Join(c.Uncovered, " "))
		}
	}
	for _, m := range l.Unknown {
		fmt.Fprintf(out, "unknown behaviour %s at %s\n", m.ID, m.Place)
	}
}
