package server_test

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const maxLines = 400

func TestEveryPackageSaysWhatItIsAndWhatItIsNot(t *testing.T) {
	doc := map[string]string{}
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		comment := ""
		if f.ast.Doc != nil && !f.generated() {
			comment = f.ast.Doc.Text()
		}
		doc[f.room] += comment
		if f.generated() && doc[f.room] == "" && generatedOnly(t, f.room) {
			doc[f.room] = "not written by hand"
		}
	}
	limits := regexp.MustCompile(`(?i)\b(no|not|nor|never|nothing|none|neither|only|without)\b`)
	for room, comment := range doc {
		switch {
		case comment == "":
			t.Errorf("package in %s has no comment", room)
		case !limits.MatchString(comment):
			t.Errorf("package comment of %s does not say what the package leaves to others: %q", room, comment)
		}
	}
}

func generatedOnly(t *testing.T, room string) bool {
	t.Helper()
	return !slices.ContainsFunc(sources(t), func(f source) bool {
		return f.room == room && !f.test && !f.generated()
	})
}

func TestNoFileIsLongerThanOneCanRead(t *testing.T) {
	for _, f := range sources(t) {
		if n := strings.Count(f.text, "\n"); !f.test && !f.generated() && n > maxLines {
			t.Errorf("%s has %d lines, want at most %d", f.path, n, maxLines)
		}
	}
}

func TestNoTestSkipsItself(t *testing.T) {
	for _, f := range sources(t) {
		if !f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
				t.Errorf("%s: %s: what a test needs and lacks is a failure", f.path, sel.Sel.Name)
			}
			return true
		})
	}
}

// The words are put together here, so that this file does not hold them.
var (
	unfinished = regexp.MustCompile(`\b(` + strings.Join([]string{
		"TO" + "DO", "FIX" + "ME", "X" + "XX", "not imple" + "mented", "place" + "holder", "st" + "ub",
	}, "|") + `)\b`)
	machinePath = regexp.MustCompile(`(^|[^A-Za-z0-9_.])/(wo` + `rk|fa` + `rm|ro` + `ot)/`)
	hosts       = regexp.MustCompile(strings.Join([]string{
		`proxy\.gol` + `ang\.org`, `sum\.gol` + `ang\.org`, `deb\.deb` + `ian\.org`, `registry\.np` + `mjs\.org`,
	}, "|"))
)

func TestNothingIsLeftUnfinishedAndNoMachineIsNamed(t *testing.T) {
	for _, path := range files(t) {
		ext := filepath.Ext(path)
		if ext == ".sum" || ext == ".png" || ext == ".svg" || filepath.Base(path) == "LICENSE" {
			continue
		}
		for i, line := range strings.Split(read(t, path), "\n") {
			if m := unfinished.FindString(line); m != "" && (ext == ".go" || ext == ".md") {
				t.Errorf("%s:%d: unfinished: %q", path, i+1, m)
			}
			if m := machinePath.FindString(line) + hosts.FindString(line); m != "" {
				t.Errorf("%s:%d: names a machine or a host: %q", path, i+1, m)
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)\s]*)?\)`)

func TestEveryLinkInAPageLeadsSomewhere(t *testing.T) {
	for _, path := range files(t) {
		if filepath.Ext(path) != ".md" || strings.HasPrefix(path, "docs/") && !strings.HasPrefix(path, "docs/dev/") {
			continue // the provider's pages link as their registry wants it
		}
		for _, m := range link.FindAllStringSubmatch(read(t, path), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}
}
