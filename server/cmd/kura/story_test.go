package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// house is a lab and a real server that the command line started.
type house struct {
	*testing.T
	lab *lab.Lab
	env map[string]string
}

// newHouse runs kura serve until the test ends. A relative data folder is one
// that the server must make absolute by itself.
func newHouse(t *testing.T, c lab.Config) *house {
	t.Helper()
	c.Dir = t.TempDir()
	l, err := lab.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	t.Chdir(t.TempDir())
	h := &house{T: t, lab: l, env: map[string]string{"KURA_LISTEN": "127.0.0.1:0", "KURA_LOG_FORMAT": "json"}}
	r, w := io.Pipe()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan result, 1)
	go func() {
		var errout strings.Builder
		s := &session{stdout: w, stderr: &errout, now: time.Now}
		status := s.run(ctx, []string{"serve", "--data", "data"}, func(name string) string { return h.env[name] })
		_ = w.Close()
		ended <- result{status: status, errout: errout.String()}
	}()
	t.Cleanup(func() {
		stop()
		select {
		case r := <-ended:
			if r.status != 0 {
				t.Errorf("serve ended with status %d: %s", r.status, r.errout)
			}
		case <-time.After(time.Minute):
			t.Error("serve did not end within a minute of its signal")
		}
	})
	lines := bufio.NewScanner(r)
	token := ""
	for token == "" && lines.Scan() {
		if _, url, ok := strings.Cut(lines.Text(), " listens at "); ok {
			h.env["KURA_ENDPOINT"] = url
		}
		_, token, _ = strings.Cut(lines.Text(), "token is in ")
	}
	if h.env["KURA_ENDPOINT"] == "" || !filepath.IsAbs(token) {
		t.Fatalf("serve told neither where it listens nor where the token is: %q %q", h.env["KURA_ENDPOINT"], token)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	h.env["KURA_TOKEN_FILE"] = token
	return h
}

// kura runs a command with the clock and fails the test unless it ends with
// the status.
func (h *house) kura(status int, args ...string) result {
	h.Helper()
	var out, errout strings.Builder
	s := &session{stdin: strings.NewReader(h.lab.Password()), stdout: &out, stderr: &errout, now: time.Now, poll: 20 * time.Millisecond, patience: time.Minute}
	r := result{status: s.run(h.Context(), args, func(name string) string { return h.env[name] })}
	r.out, r.errout = out.String(), errout.String()
	if r.status != status {
		h.Fatalf("kura %s ended with status %d, want %d\n%s%s", strings.Join(args, " "), r.status, status, r.out, r.errout)
	}
	return r
}

// list returns the items of a list command.
func list[T any](h *house, args ...string) []T {
	h.Helper()
	var l struct {
		Items []T `json:"items"`
	}
	if err := json.Unmarshal([]byte(h.kura(0, append(args, "-o", "json")...).out), &l); err != nil {
		h.Fatal(err)
	}
	return l.Items
}

func (h *house) sums(vm string) string {
	h.Helper()
	m, err := h.lab.VM(vm)
	if err != nil {
		h.Fatal(err)
	}
	text := ""
	for _, d := range m.Disks {
		sum, err := h.lab.DiskSHA256(h.Context(), vm, d.Key)
		if err != nil {
			h.Fatal(err)
		}
		text += fmt.Sprintf("%d:%s ", d.Key, sum)
	}
	return text
}

func TestAPortThatIsTakenEndsServeWithTheReason(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := kura(t.Context(), nil, "", "serve", "--data", t.TempDir(), "--listen", l.Addr().String())
	if r.status != 1 || !strings.Contains(r.errout, "address already in use") {
		t.Errorf("status %d, stderr %s, want 1 and why", r.status, r.errout)
	}
}

// TestTheMainJobFromTheCommandLine adds a vcenter, backs a VM with a hard name
// up, restores it as a new VM and in place, and deletes the image; each by a
// command, against a real server and the lab.
//
// seed:N9 seed:N39 seed:N42 seed:N43 seed:N66 seed:A19
func TestTheMainJobFromTheCommandLine(t *testing.T) {
	h := newHouse(t, lab.Config{VMs: 3, DiskSize: 16 << 20})
	const name = "蔵 🚚 &<#1>"
	if _, err := h.lab.AddVM(h.Context(), lab.VMSpec{Name: name}); err != nil {
		t.Fatal(err)
	}
	h.kura(0, "vcenter", "create", "lab", h.lab.Endpoint(), "--username", h.lab.User(), "--thumbprint", h.lab.Thumbprint(), "--wait")
	if vms := list[api.VirtualMachine](h, "vm", "list", "--vcenter", "lab"); len(vms) != 4 {
		t.Fatalf("vm list has %d VMs, want 4", len(vms))
	}
	h.kura(0, "vcenter", "sync", "lab", "--wait")

	before := h.sums(name)
	r := h.kura(0, "vm", "backup", name, "--wait")
	if !strings.Contains(r.out, "state:    succeeded\n") || !strings.Contains(r.errout, "backup of "+name+": succeeded") {
		t.Errorf("vm backup printed\n%s%s", r.out, r.errout)
	}
	images := list[api.BackupImage](h, "image", "list", "--vm", name, "--status", "good")
	if len(images) != 1 {
		t.Fatalf("image list has %d images, want 1", len(images))
	}
	id := images[0].ID
	h.kura(0, "restore", "create", "--image", id, "--new-vm", "copy", "--wait")
	if got := h.sums("copy"); got != before {
		t.Errorf("the new VM holds %s, want %s", got, before)
	}

	m, err := h.lab.VM(name)
	if err != nil {
		t.Fatal(err)
	}
	if r := h.kura(0, "image", "verify", id, "--wait"); !strings.Contains(r.errout, "succeeded") {
		t.Errorf("image verify printed\n%s%s", r.out, r.errout)
	}
	if r := h.kura(0, "image", "show", id); !strings.Contains(r.out, "verified:") {
		t.Errorf("a verified image is shown as\n%s", r.out)
	}
	if r := h.kura(0, "repository", "maintain", "default", "--dry-run", "--wait"); !strings.Contains(r.out, "Nothing was changed.") {
		t.Errorf("repository maintain printed\n%s%s", r.out, r.errout)
	}
	if r := h.kura(0, "image", "expired"); !strings.Contains(r.out+r.errout, "No images.") {
		t.Errorf("image expired printed %s%s, want none", r.out, r.errout)
	}
	if err := h.lab.SetPower(h.Context(), name, true); err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Disks {
		if err := h.lab.GuestWriteRandom(name, d.Key, 1<<20, 1<<20, 7); err != nil {
			t.Fatal(err)
		}
	}
	h.kura(0, "vcenter", "sync", "lab", "--wait")
	if r := h.kura(1, "restore", "create", "--image", id, "--in-place", "--wait"); !strings.Contains(r.errout, "Code: vm_running") {
		t.Errorf("a restore over a running VM printed %s, want vm_running", r.errout)
	}
	if r := h.kura(0, "restore", "create", "--image", id, "--in-place", "--power-off", "--wait"); !strings.Contains(strings.ToLower(r.errout), "password") {
		t.Errorf("the restore in place warned %q, want of the old passwords", r.errout)
	}
	if got := h.sums(name); got != before {
		t.Errorf("the VM restored in place holds %s, want %s", got, before)
	}
	if r := h.kura(0, "job", "list", "--kind", "backup"); !strings.HasPrefix(r.out, "START TIME") || !strings.Contains(r.out, name) {
		t.Errorf("job list printed %s", r.out)
	}
	if restores := list[api.Restore](h, "restore", "list"); len(restores) != 2 {
		t.Errorf("restore list has %d restores, want 2", len(restores))
	}
	h.kura(0, "image", "delete", id)
	if images := list[api.BackupImage](h, "image", "list", "--vm", name, "--status", "good"); len(images) != 0 {
		t.Errorf("image list has %d good images after the only one was deleted", len(images))
	}
}

// farHour is an hour in Tokyo that is half a day away, so that no slot begins
// while a test runs.
func farHour(t *testing.T) time.Time {
	t.Helper()
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	return time.Now().In(tokyo).Add(12 * time.Hour)
}

// lookAhead sees that the map of the hours, the calendar and the schedule tell
// of the same slots, as far as seats are counted. The schedule holds three
// seats in the hour of start, in UTC, which is the vcenter's zone.
func (h *house) lookAhead(schedule string, start time.Time) {
	h.Helper()
	events := strings.Count(h.kura(0, "schedule", "occurrences", schedule, "--count", "1000", "-o", "ics").out, start.Format("T150000Z@kura\r\n"))
	held := 0
	for _, slot := range list[api.Timeslot](h, "timeslots", "--days", "400", "--who") {
		if slot.Used == 0 {
			continue
		}
		if held++; slot.Used != 3 || slot.StartsAt.Hour() != start.Hour() || len(slot.Schedules) != 1 || slot.Schedules[0].Name != schedule {
			h.Errorf("slot %+v, want the three seats of %s at %s", slot, schedule, start.Format("15:00"))
		}
	}
	if held < 399 || events < 399 || events > 400 {
		h.Errorf("%d hours are held and %d are in the calendar, want those of 400 days", held, events)
	}
	if r := h.kura(0, "timeslots", "--days", "3"); strings.Contains(r.out, "\x1b") || !strings.Contains(r.out, "  7") || strings.Count(r.out, "*10") < 2 {
		h.Errorf("timeslots printed\n%s\nwant the 7 seats that are left and the days' best", r.out)
	}
	if r := h.kura(0, "schedule", "show", schedule); !strings.Contains(r.out, "measured:             3 backups, median ") {
		h.Errorf("schedule show printed\n%s\nwant how long the backups took", r.out)
	}
}

// TestSchedulesAndTokensFromTheCommandLine runs a group's schedule, asks for a
// check that is refused, and calls with a token that may only look.
func TestSchedulesAndTokensFromTheCommandLine(t *testing.T) {
	h := newHouse(t, lab.Config{VMs: 3, DiskSize: 4 << 20})
	h.kura(0, "vcenter", "create", "lab", h.lab.Endpoint(), "--username", h.lab.User(), "--thumbprint", h.lab.Thumbprint(), "--wait")
	vcenters := list[api.VCenter](h, "vcenter", "list")
	token, err := os.ReadFile(h.env["KURA_TOKEN_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	c, err := api.New(api.Config{Endpoint: h.env["KURA_ENDPOINT"], Token: strings.TrimSpace(string(token))})
	if err != nil {
		t.Fatal(err)
	}
	g, err := c.CreateBackupGroupWithResponse(h.Context(), nil, api.BackupGroup{Name: "all", Selector: &api.Selector{VCenterID: vcenters[0].ID}})
	if err := api.Err(g, err); err != nil {
		t.Fatal(err)
	}
	start := farHour(t)
	s, err := c.CreateBackupScheduleWithResponse(h.Context(), nil, api.BackupSchedule{Name: "nightly", GroupID: g.JSON201.ID, StartTime: start.Format("15:00"), TimeZone: "Asia/Tokyo", Daily: &api.Daily{}, RetentionDays: 8})
	if err := api.Err(s, err); err != nil {
		t.Fatal(err)
	}
	if members := list[api.VirtualMachine](h, "group", "members", "all"); len(members) != 3 {
		t.Errorf("group members has %d VMs, want 3", len(members))
	}
	if r := h.kura(0, "schedule", "occurrences", "nightly", "--count", "3"); strings.Count(r.out, slot(start)) != 3 {
		t.Errorf("schedule occurrences printed %s, want three slots %s", r.out, slot(start))
	}
	h.kura(0, "schedule", "run", "nightly", "--wait")
	if images := list[api.BackupImage](h, "image", "list", "--schedule", "nightly"); len(images) != 3 {
		t.Errorf("image list has %d images, want 3", len(images))
	}
	if runs := list[api.Run](h, "run", "list", "--schedule", "nightly", "--last", "1d"); len(runs) != 1 {
		t.Errorf("run list has %d runs, want 1", len(runs))
	}

	h.lookAhead("nightly", start.UTC())

	file := filepath.Join(t.TempDir(), "schedule.yaml")
	for text, status := range map[string]int{
		"{name: a, group: all, start_time: 03:00, monthly: {days_of_month: [31]}, retention_days: 62}": 0,
		"{name: b, group: all, start_time: 03:00, daily: {}, retention_days: 9}":                       1,
		"{name: c, group: all, start_time: 03:00, daily: {}, retention_days: 8, colour: red}":          1,
		"{name: d, group: nobody, start_time: 03:00, daily: {}, retention_days: 8}":                    1,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		h.kura(status, "schedule", "check", file)
	}

	h.env["KURA_TOKEN_FILE"] = ""
	for role, status := range map[string]int{"viewer": 1, "restorer": 1, "backup": 0} {
		h.env["KURA_TOKEN"] = strings.TrimSpace(string(token))
		var made api.Token
		if err := json.Unmarshal([]byte(h.kura(0, "token", "create", "of-"+role, "--role", role, "-o", "json").out), &made); err != nil {
			t.Fatal(err)
		}
		h.env["KURA_TOKEN"] = made.Text
		h.kura(0, "vm", "list")
		h.kura(status, "vm", "backup", "vm01", "--wait")
		h.env["KURA_TOKEN"] = strings.TrimSpace(string(token))
		h.kura(0, "token", "revoke", "of-"+role)
		h.env["KURA_TOKEN"] = made.Text
		if r := h.kura(1, "vm", "list"); !strings.Contains(r.errout, "Code: unauthenticated") {
			t.Errorf("a revoked token got %s", r.errout)
		}
	}
}
