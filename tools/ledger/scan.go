package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	row   = regexp.MustCompile(`^\|\s*([A-Z]\d+)\s*\|\s*(.+?)\s*\|\s*(Y|A|N|\+|-)\s*\|$`)
	begun = regexp.MustCompile(`^\|\s*[A-Z]\d+\s*\|`)
	named = regexp.MustCompile(`seed:\s?([A-Z]\d+(?:(?:\s*,\s*|-)[A-Z]\d+)*)`)
)

// readList reads the table rows of the list of behaviours.
func readList(root string) ([]behaviour, error) {
	var all []behaviour
	seen := map[string]bool{}
	err := lines(filepath.Join(root, list), func(n int, text string) error {
		m := row.FindStringSubmatch(text)
		if m == nil {
			if begun.MatchString(text) {
				return fmt.Errorf("%s:%d: row cannot be read: %s", list, n, text)
			}
			return nil
		}
		if seen[m[1]] {
			return fmt.Errorf("%s:%d: %s stands twice", list, n, m[1])
		}
		seen[m[1]] = true
		all = append(all, behaviour{ID: m[1], Does: m[2], Carries: m[3], Tests: []string{}, Pages: []string{}})
		return nil
	})
	return all, err
}

// scan finds the marks in tests, hand-written pages and examples.
func scan(root string) ([]mark, error) {
	var all []mark
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".terraform", "node_modules", "bin", "build", "dist", "ledger"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		test := strings.HasSuffix(rel, "_test.go")
		page := strings.HasPrefix(rel, "docs/") || strings.HasPrefix(rel, "examples/") || strings.HasPrefix(rel, "templates/") || rel == "README.md"
		if rel == list || !test && !page || !d.Type().IsRegular() {
			return nil
		}
		return lines(path, func(n int, text string) error {
			for _, id := range ids(text) {
				all = append(all, mark{ID: id, Place: rel + ":" + strconv.Itoa(n), test: test})
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", root, err)
	}
	return all, nil
}

// ids gives the behaviours that one line names; N31-N33 are three.
func ids(line string) []string {
	var all []string
	for _, m := range named.FindAllStringSubmatch(line, -1) {
		for _, part := range strings.Split(m[1], ",") {
			from, to, ok := strings.Cut(strings.TrimSpace(part), "-")
			if !ok {
				all = append(all, from)
				continue
			}
			all = append(all, between(from, to)...)
		}
	}
	return all
}

// between spells a range out. One that makes no sense is given back as it
// stands, so that it is reported as unknown.
func between(from, to string) []string {
	a, errA := strconv.Atoi(from[1:])
	b, errB := strconv.Atoi(to[1:])
	if errA != nil || errB != nil || from[0] != to[0] || a > b {
		return []string{from + "-" + to}
	}
	var all []string
	for n := a; n <= b; n++ {
		all = append(all, from[:1]+strconv.Itoa(n))
	}
	return all
}

// lines calls do for each line of a file.
func lines(path string, do func(n int, text string) error) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if err := do(n, strings.TrimRight(line, "\r\n")); err != nil {
			return err
		}
	}
	return nil
}
