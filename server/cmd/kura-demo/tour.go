package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// tourCmd walks the main job with the programs that users have.
type tourCmd struct {
	Terraform string `default:"terraform" help:"The terraform binary."`
	Kura      string `default:"bin/kura" help:"The kura binary."`
	Plugins   string `default:"build/plugins" help:"Folder that the provider was installed into, as make install lays it out."`
	Example   string `default:"examples/demo" help:"Folder of the Terraform configuration."`
	Keep      bool   `help:"Leave everything running at the end, until Ctrl-C."`
}

// tour is one walk.
type tour struct {
	tourCmd
	*house
	out   io.Writer
	work  string // where terraform runs
	env   []string
	steps int
}

// restoredVM is the VM that the example restores.
const restoredVM = "vm06" // it has two disks

// Run walks, and fails unless every byte came back.
func (c *tourCmd) Run(ctx context.Context, out io.Writer) (err error) {
	dir, remove, err := folder("")
	if err != nil {
		return err
	}
	defer remove()
	logs, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return err
	}
	defer func() { _ = logs.Close() }() // it goes with its folder
	started := time.Now()
	h, err := openHouse(ctx, dir, lab.Config{VMs: 6}, server.Config{Listen: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(logs, nil)), Poll: 200 * time.Millisecond}, false)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := h.Close(); err == nil {
			err = cerr
		}
	}()
	t := &tour{tourCmd: *c, house: h, out: out, work: filepath.Join(dir, "terraform")}
	if err := t.walk(ctx); err != nil {
		if log, rerr := os.ReadFile(logs.Name()); rerr == nil {
			fmt.Fprintf(out, "\nthe server's log:\n%s", log)
		}
		return err
	}
	fmt.Fprintf(out, "\nEverything held, in %s.\n", time.Since(started).Round(100*time.Millisecond))
	if c.Keep {
		return t.keep(ctx)
	}
	return nil
}

func (t *tour) walk(ctx context.Context) error {
	if err := t.prepare(); err != nil {
		return err
	}
	t.say("A simulated vCenter with %d VMs runs at %s, a kura server at %s.", len(t.lab.VMs()), t.lab.Endpoint(), t.server.URL())
	if err := t.terraform(ctx, "init", "-input=false", "-no-color"); err != nil {
		return err
	}
	t.say("terraform apply: a vcenter, a group by tag, a schedule.")
	if err := t.apply(ctx, "backup"); err != nil {
		return err
	}
	original, err := t.sums(ctx, restoredVM)
	if err != nil {
		return err
	}
	t.say("kura schedule run demo --wait: snapshot, read, store, remove the snapshot.")
	if err := t.run(ctx, t.Kura, "schedule", "run", "demo", "--wait"); err != nil {
		return err
	}
	image, err := t.image(ctx)
	if err != nil {
		return err
	}
	t.say("terraform apply: look the image up and restore it to a new VM.")
	if err := t.apply(ctx, "new_vm"); err != nil {
		return err
	}
	copied, err := t.sums(ctx, restoredVM+"-restored")
	if err != nil {
		return err
	}
	t.say("The guest of %s overwrites its disks; terraform apply restores it in place.", restoredVM)
	if err := t.scribble(ctx, original); err != nil {
		return err
	}
	if err := t.apply(ctx, "in_place"); err != nil {
		return err
	}
	inPlace, err := t.sums(ctx, restoredVM)
	if err != nil {
		return err
	}
	return t.compare(original, image, copied, inPlace)
}

func (t *tour) say(format string, args ...any) {
	t.steps++
	fmt.Fprintf(t.out, "\n%d. %s\n", t.steps, fmt.Sprintf(format, args...))
}

// prepare lays out Terraform's working folder and its environment.
func (t *tour) prepare() error {
	r, err := t.ready()
	if err != nil {
		return err
	}
	if err := os.CopyFS(t.work, os.DirFS(t.Example)); err != nil {
		return fmt.Errorf("copy %s: %w", t.Example, err)
	}
	plugins, err := filepath.Abs(t.Plugins)
	if err != nil {
		return err
	}
	if t.Kura, err = filepath.Abs(t.Kura); err != nil {
		return err
	}
	rc := filepath.Join(t.dir, "terraform.rc")
	text := fmt.Sprintf("provider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", plugins)
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		return err
	}
	t.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+rc, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1",
		"KURA_ENDPOINT="+r.Endpoint, "KURA_TOKEN="+r.Token, "TF_VAR_endpoint="+r.VCenter.Endpoint, "TF_VAR_username="+r.VCenter.Username,
		"TF_VAR_start_time="+time.Now().UTC().Add(20*time.Hour).Format("15:00"), // in Tokyo 11 hours from now: the tour runs it by hand
		"TF_VAR_password="+r.VCenter.Password, "TF_VAR_thumbprint="+r.VCenter.Thumbprint, "TF_VAR_virtual_machine="+restoredVM)
	return nil
}

func (t *tour) apply(ctx context.Context, stage string) error {
	return t.terraform(ctx, "apply", "-auto-approve", "-input=false", "-no-color", "-compact-warnings", "-var", "stage="+stage)
}

func (t *tour) terraform(ctx context.Context, args ...string) error {
	return t.run(ctx, t.Terraform, args...)
}

// run runs a program and shows what it prints, indented.
func (t *tour) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = t.work, t.env
	b, err := cmd.CombinedOutput()
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if keep(line) || err != nil {
			fmt.Fprintf(t.out, "   %s\n", line)
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(program), args[0], err)
	}
	return nil
}

// keep says which of a program's lines are worth showing when all goes well:
// what was done, not the plan that is already in the configuration.
func keep(line string) bool {
	return slices.ContainsFunc([]string{"Apply complete", "Creation complete", "Terraform has been successfully", "succeeded", "kura_"},
		func(s string) bool { return strings.Contains(line, s) }) && !strings.Contains(line, "will be") && !strings.Contains(line, "resource \"") &&
		!strings.Contains(line, "Refreshing") && !strings.Contains(line, "Still ") && !strings.Contains(line, "Read") && !strings.Contains(line, "Creating...")
}

// sums are the SHA-256 of a VM's disks, by device key.
func (t *tour) sums(ctx context.Context, vm string) (map[int32]string, error) {
	out := map[int32]string{}
	for _, v := range t.lab.VMs() {
		if v.Name != vm {
			continue
		}
		for _, d := range v.Disks {
			sum, err := t.lab.DiskSHA256(ctx, vm, d.Key)
			if err != nil {
				return nil, err
			}
			out[d.Key] = sum
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the vCenter has no VM %q with disks", vm)
	}
	return out, nil
}

// image finds the image as a user would, and reads it whole.
func (t *tour) image(ctx context.Context) (map[int32]string, error) {
	var list struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"items"`
	}
	cmd := exec.CommandContext(ctx, t.Kura, "image", "list", "--vm", restoredVM, "-o", "json")
	cmd.Env, cmd.Stderr = t.env, t.out
	b, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("kura image list: %w", err)
	}
	if len(list.Items) != 1 {
		return nil, fmt.Errorf("%d images of %s, want 1", len(list.Items), restoredVM)
	}
	return t.server.ImageSums(ctx, list.Items[0].ID)
}

// scribble writes over the disks as the guest would.
func (t *tour) scribble(ctx context.Context, disks map[int32]string) error {
	for key, before := range disks {
		if err := t.lab.GuestWriteRandom(restoredVM, key, 1<<20, 8<<20, 42); err != nil {
			return err
		}
		after, err := t.lab.DiskSHA256(ctx, restoredVM, key)
		if err != nil {
			return err
		}
		if after == before {
			return fmt.Errorf("disk %d did not change", key)
		}
	}
	return nil
}

// compare prints the sums side by side and fails when one differs.
func (t *tour) compare(original, image, copied, inPlace map[int32]string) error {
	t.say("SHA-256 of each disk:")
	bad := 0
	for _, key := range slices.Sorted(maps.Keys(original)) {
		for _, c := range []struct {
			what string
			sum  string
		}{{"original", original[key]}, {"image", image[key]}, {"new VM", copied[key]}, {"in place", inPlace[key]}} {
			mark := "="
			if c.sum != original[key] {
				mark = "DIFFERS"
				bad++
			}
			fmt.Fprintf(t.out, "   disk %d  %-9s %s %s\n", key, c.what, c.sum, mark)
		}
	}
	if bad > 0 || len(copied) != len(original) {
		return fmt.Errorf("%d of the sums differ", bad)
	}
	return nil
}
