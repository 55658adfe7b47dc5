// Command testsum runs a "go test -json" command, shows what failed in full
// and the rest as one line per package, and ends with the number of tests. A
// skipped test counts as a failure: what a test needs and lacks must be seen.
//
// It does not decide which tests run, and it never repeats one.
//
//	testsum go test -json ./...
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

const slowest = 5

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: testsum go test -json ...")
		os.Exit(2)
	}
	code, err := run(context.Background(), os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
	}
	os.Exit(code)
}

// run gives back the exit status of args, or 1 when go test was content but a
// test was skipped or none ran.
func run(ctx context.Context, args []string, out io.Writer) (int, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 1, fmt.Errorf("open a pipe to %s: %w", args[0], err)
	}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start %s: %w", args[0], err)
	}
	s := summary{out: out, output: map[string][]string{}, failures: map[string]int{}}
	if err := s.read(events); err != nil {
		return 1, errors.Join(err, cmd.Wait())
	}
	err = cmd.Wait()
	s.close()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 1, fmt.Errorf("wait for %s: %w", args[0], err)
	}
	if s.failed > 0 || len(s.skipped) > 0 || s.passed == 0 {
		return 1, nil
	}
	return 0, nil
}

// event is one line of "go test -json".
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Elapsed    float64
	Output     string
}

type timing struct {
	name    string
	seconds float64
}

type summary struct {
	out      io.Writer
	output   map[string][]string // what each running test has printed
	passed   int
	failed   int
	failures map[string]int // failed tests of each package
	skipped  []string
	slow     []timing
}

func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			s.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test events: %w", err)
		}
	}
}

// line takes one line; what is no event (a panic of the runtime) is shown.
func (s *summary) line(line string) {
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		fmt.Fprint(s.out, line)
		return
	}
	switch e.Action {
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "output":
		s.output[key(e)] = append(s.output[key(e)], e.Output)
	case "pass", "fail", "skip":
		if e.Test != "" {
			s.test(e)
			return
		}
		s.pack(e)
	}
}

func key(e event) string { return e.Package + "\x00" + e.Test }

func (s *summary) test(e event) {
	switch e.Action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
		s.failures[e.Package]++
		s.show(e)
	case "skip":
		s.skipped = append(s.skipped, e.Package+" "+e.Test)
		s.show(e)
	}
	if !strings.Contains(e.Test, "/") {
		s.slow = append(s.slow, timing{e.Package + " " + e.Test, e.Elapsed})
	}
	delete(s.output, key(e))
}

// pack closes a package. One that failed without a failed test (it did not
// build, it panicked, it ran out of time) counts as one failure, and what its
// unfinished tests printed is shown.
func (s *summary) pack(e event) {
	for k, lines := range s.output {
		if pkg, test, _ := strings.Cut(k, "\x00"); pkg == e.Package && test != "" {
			if e.Action == "fail" {
				fmt.Fprint(s.out, strings.Join(lines, ""))
			}
			delete(s.output, k)
		}
	}
	if e.Action == "fail" && s.failures[e.Package] == 0 {
		s.failed++
	}
	for _, line := range s.output[key(e)] {
		if e.Action == "fail" || strings.HasPrefix(line, "ok ") {
			fmt.Fprint(s.out, line)
		}
	}
	delete(s.output, key(e))
}

func (s *summary) show(e event) {
	fmt.Fprint(s.out, strings.Join(s.output[key(e)], ""))
}

func (s *summary) close() {
	slices.SortFunc(s.slow, func(a, b timing) int { return int((b.seconds - a.seconds) * 1000) })
	if len(s.slow) > 0 {
		fmt.Fprintln(s.out, "\nslowest:")
	}
	for _, t := range s.slow[:min(slowest, len(s.slow))] {
		fmt.Fprintf(s.out, "  %8s  %s\n", time.Duration(t.seconds*float64(time.Second)).Round(10*time.Millisecond), t.name)
	}
	for _, name := range s.skipped {
		fmt.Fprintln(s.out, "skipped:", name)
	}
	fmt.Fprintf(s.out, "\n%d passed, %d failed", s.passed, s.failed)
	if n := len(s.skipped); n > 0 {
		fmt.Fprintf(s.out, ", %d skipped", n)
	}
	fmt.Fprintln(s.out)
}
