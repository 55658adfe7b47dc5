package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const page = `# Behaviours
| id | what Kura does | carries |
|---|---|---|
| N1 | Takes an image. | Y |
| N2 | Names the site. | A |
| N3 | Sells a licence. | N |
| K1 | Runs by hand. | + |
`

// word is put together so that this file holds no mark of its own.
const word = "se" + "ed:"

func TestIDsReadsListsAndRanges(t *testing.T) {
	for line, want := range map[string][]string{
		"// " + word + "N36":                        {"N36"},
		"// " + word + "N36, K2 and " + word + "W1": {"N36", "K2", "W1"},
		"// " + word + "N31-N33":                    {"N31", "N32", "N33"},
		"// " + word + "N33-N31":                    {"N33-N31"},
		"// " + word + "N1-K3":                      {"N1-K3"},
		"// the seed of a generator":                nil,
	} {
		if got := ids(line); !slices.Equal(got, want) {
			t.Errorf("ids(%q) = %q, want %q", line, got, want)
		}
	}
}

func TestLedgerCountsWhatApplies(t *testing.T) {
	out, ok := ledgerOf(t, map[string]string{
		"a_test.go":       "// " + word + "N1",
		"docs/page.md":    word + "N2",
		"server/other.go": "// " + word + "K1 counts only in tests and pages",
	})
	if !ok {
		t.Errorf("run = false, want true\n%s", out)
	}
	for _, want := range []string{
		"N                 3      2       1        2",
		"K                 1      1       0        0",
		"all               4      3       1        2",
		"not covered of K: K1",
		"a_test.go:1",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

func TestAMarkOfAnUnknownBehaviourIsRefused(t *testing.T) {
	out, ok := ledgerOf(t, map[string]string{"a_test.go": "// " + word + "N99"})
	if ok || !strings.Contains(out, "unknown behaviour N99 at a_test.go:1") {
		t.Errorf("run = %v, want false and the place\n%s", ok, out)
	}
}

func TestAListThatCannotBeReadIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"twice":          page + "| N1 | Again. | Y |\n",
		"unknown letter": page + "| N9 | Something. | Q |\n",
	} {
		root := t.TempDir()
		write(t, root, list, text)
		if _, err := run(root, "table", &bytes.Buffer{}); err == nil {
			t.Errorf("%s: run gave no error", name)
		}
	}
}

func TestTheRealListHoldsAllBehaviours(t *testing.T) {
	all, err := readList("../..")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, b := range all {
		got[b.ID[:1]]++
	}
	for source, want := range map[string]int{"N": 91, "K": 18, "A": 67, "H": 15, "W": 31} {
		if got[source] != want {
			t.Errorf("%s has %d behaviours, want %d", source, got[source], want)
		}
	}
}

func ledgerOf(t *testing.T, files map[string]string) (string, bool) {
	t.Helper()
	root := t.TempDir()
	write(t, root, list, page)
	for path, text := range files {
		write(t, root, path, text)
	}
	var out bytes.Buffer
	ok, err := run(root, "table", &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), ok
}

func write(t *testing.T, root, path, text string) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
