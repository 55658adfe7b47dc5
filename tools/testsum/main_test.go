package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRunKeepsTheExitStatusAndCounts(t *testing.T) {
	for name, c := range map[string]struct {
		test  string
		code  int
		last  string
		shows string
	}{
		"all pass":             {"func TestA(t *testing.T) { t.Run(\"b\", func(t *testing.T) {}) }", 0, "2 passed, 0 failed", "ok "},
		"one fails":            {"func TestA(t *testing.T) { t.Error(\"the reason\") }; func TestB(t *testing.T) {}", 1, "1 passed, 1 failed", "the reason"},
		"one skips":            {"func TestA(t *testing.T) { t.Sk" + "ip(\"no disk\") }; func TestB(t *testing.T) {}", 1, "1 passed, 0 failed, 1 skipped", "no disk"},
		"none runs":            {"func helper(t *testing.T) {}; var _ = helper", 1, "0 passed, 0 failed", ""},
		"it does not build":    {"func TestA(t *testing.T) { nothing() }", 1, "0 passed, 1 failed", "undefined: nothing"},
		"the program is ended": {"func TestA(t *testing.T) { panic(\"the cause\") }", 1, "0 passed, 1 failed", "the cause"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "go.mod"), "module x\n\ngo 1.26.0\n")
			write(t, filepath.Join(dir, "x_test.go"), "package x\n\nimport \"testing\"\n\n"+c.test+"\n")
			t.Chdir(dir)
			var out bytes.Buffer
			code, err := run(t.Context(), []string{"go", "test", "-json", "./..."}, &out)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if got := lines[len(lines)-1]; code != c.code || got != c.last {
				t.Errorf("run = %d, %q, want %d, %q\n%s", code, got, c.code, c.last, &out)
			}
			if !strings.Contains(out.String(), c.shows) {
				t.Errorf("output lacks %q:\n%s", c.shows, &out)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
