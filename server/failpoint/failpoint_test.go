//go:build failpoints && unix

package failpoint_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

const childOf = "KURA_FAILPOINT_CHILD"

// TestMain makes the test binary come to three places where it is asked to.
func TestMain(m *testing.M) {
	if os.Getenv(childOf) == "" {
		os.Exit(m.Run())
	}
	for range 3 {
		if !failpoint.Without("guard") {
			failpoint.Hit("guarded")
		}
		failpoint.Hit("place")
	}
}

func TestAProcessEndsAtTheTimeAndPlaceThatWereNamed(t *testing.T) {
	for name, c := range map[string]struct {
		file, order, passed string
		signal              syscall.Signal
	}{
		"nothing is asked":         {passed: "guarded place guarded place guarded place"},
		"kill":                     {file: "place", order: "kill", passed: "guarded place place_kill", signal: syscall.SIGKILL},
		"kill at the second time":  {file: "place", order: "kill 2\n", passed: "guarded place guarded place place_kill", signal: syscall.SIGKILL},
		"a safeguard is left out":  {file: "without-guard", passed: "place place place"},
		"a place that is not come": {file: "elsewhere", order: "kill", passed: "guarded place guarded place guarded place"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.order), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childOf+"=1", failpoint.Dir+"="+dir)
			err := cmd.Run()
			var exit *exec.ExitError
			if c.signal == 0 && err != nil || c.signal != 0 && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != c.signal) {
				t.Errorf("the process ended with %v, want signal %d", err, c.signal)
			}
			b, err := os.ReadFile(filepath.Join(dir, "passed"))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(strings.TrimSpace(strings.ReplaceAll(string(b), " ", "_")), "\n", " ")
			if got != c.passed {
				t.Errorf("it came to %q, want %q", got, c.passed)
			}
			if _, err := os.Stat(filepath.Join(dir, "place")); err == nil {
				t.Error("the order stands after it was carried out")
			}
		})
	}
}
