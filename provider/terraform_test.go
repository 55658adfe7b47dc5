package provider_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// program runs terraform with the provider as a program of its own, for what
// the test framework does not show: warnings, interrupts, a state that is kept.
type program struct {
	t   *testing.T
	dir string
	env []string
}

// binary builds the provider once, into a folder that ends with the tests.
var binary = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(os.Getenv("KURA_TEST_DIR"), "bin")
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "terraform-provider-kura"), "..").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the provider: %w\n%s", err, out)
	}
	return dir, nil
})

// newProgram writes the configuration into a folder of its own.
func newProgram(t *testing.T, config string) *program {
	t.Helper()
	dir, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, dir: t.TempDir()}
	rc := filepath.Join(p.dir, "terraform.rc")
	settings := fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"hashicorp/kura\" = %q\n    \"kura-backup/kura\" = %q\n  }\n  direct {}\n}\n", dir, dir)
	if err := os.WriteFile(rc, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	p.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+rc, "TF_IN_AUTOMATION=1")
	p.write(config)
	return p
}

func (p *program) write(config string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "main.tf"), []byte(config), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// run returns what terraform printed, and why it failed.
func (p *program) run(args ...string) (string, error) {
	p.t.Helper()
	cmd := p.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func (p *program) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), os.Getenv("TF_ACC_TERRAFORM_PATH"), args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	return cmd
}

// ok runs terraform and fails the test when it fails.
func (p *program) ok(args ...string) string {
	p.t.Helper()
	out, err := p.run(args...)
	if err != nil {
		p.t.Fatalf("terraform %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// apply applies what is written.
func (p *program) apply() string {
	p.t.Helper()
	return p.ok("apply", "-no-color", "-input=false", "-auto-approve")
}

// refused applies what is written, which must fail.
func (p *program) refused(args ...string) string {
	p.t.Helper()
	if len(args) == 0 {
		args = []string{"apply", "-no-color", "-input=false", "-auto-approve"}
	}
	out, err := p.run(args...)
	if err == nil {
		p.t.Fatalf("terraform %s succeeded:\n%s", strings.Join(args, " "), out)
	}
	return out
}

// state lists what the state holds.
func (p *program) state() []string {
	p.t.Helper()
	out, err := p.run("state", "list")
	if err != nil && !strings.Contains(out, "No state file") {
		p.t.Fatalf("terraform state list: %v\n%s", err, out)
	}
	if err != nil {
		return nil
	}
	return strings.Fields(out)
}

// planWarnings returns what a plan prints of a configuration that it accepts.
func planWarnings(t *testing.T, config string) string {
	t.Helper()
	return newProgram(t, config).ok("plan", "-no-color", "-input=false")
}

// diagnostic is an error or a warning as terraform's JSON output has it.
type diagnostic struct {
	Severity string `json:"severity"`
	Summary  string `json:"summary"`
	Detail   string `json:"detail"`
	Address  string `json:"address"`
	Snippet  struct {
		Code string `json:"code"`
	} `json:"snippet"`
}

// diagnostics runs a plan or an apply of what is written and returns what it
// warns of and why it failed, which it may.
func (p *program) diagnostics(command string, args ...string) (all []diagnostic, err error) {
	p.t.Helper()
	out, err := p.run(append([]string{command, "-json", "-input=false"}, args...)...)
	for line := range strings.Lines(out) {
		var message struct {
			Diagnostic *diagnostic `json:"diagnostic"`
		}
		if json.Unmarshal([]byte(line), &message) == nil && message.Diagnostic != nil && message.Diagnostic.Address != "" {
			all = append(all, *message.Diagnostic)
		}
	}
	return all, err
}

// refusals are the errors of a plan, which must have some, by resource.
func (p *program) refusals(args ...string) map[string]diagnostic {
	p.t.Helper()
	all, err := p.diagnostics("plan", args...)
	out := map[string]diagnostic{}
	for _, d := range all {
		if d.Severity == "error" {
			out[d.Address] = d
		}
	}
	if err == nil || len(out) == 0 {
		p.t.Fatalf("the plan is accepted: %v, with %+v", err, all)
	}
	return out
}
