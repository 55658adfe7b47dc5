package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// proveCmd measures the main job in full size, with kura serve in a process of
// its own, so that its memory is its own and it can be killed.
type proveCmd struct {
	Kura     string `default:"bin/kura" help:"The kura binary."`
	Capacity int64  `default:"20" help:"Size of the thin disk, GiB."`
	Data     int64  `default:"3" help:"Data on it, GiB."`
	Dir      string `help:"Folder to work in; default a temporary one."`
	Out      string `env:"KURA_BENCH_OUT" help:"File for the figures as JSON."`
}

// figures is what was measured.
type figures struct {
	CapacityGiB       int64   `json:"capacity_gib"`
	DataGiB           int64   `json:"data_gib"`
	FullSeconds       float64 `json:"full_seconds"`
	FullReadBytes     int64   `json:"full_read_bytes"`
	FullStoredBytes   int64   `json:"full_stored_bytes"`
	SecondSeconds     float64 `json:"second_seconds"`
	SecondStoredBytes int64   `json:"second_stored_bytes"`
	SecondShare       float64 `json:"second_stored_share"`
	RestoreSeconds    float64 `json:"restore_seconds"`
	PeakMemoryBytes   int64   `json:"peak_memory_bytes"`
	SHA256            string  `json:"sha256"`
	KillBackup        string  `json:"kill_in_backup"`
	KillRestore       string  `json:"kill_in_restore"`
}

// prover is one measurement.
type prover struct {
	proveCmd
	lab    *lab.Lab
	out    io.Writer
	data   string
	server *exec.Cmd
	env    []string
	f      figures
}

const (
	bigVM     = "big"
	provePort = "127.0.0.1:18480"
	// The aims: a second, unchanged backup stores less than this share of the
	// first, and the server never holds more than this.
	maxShare  = 0.01
	maxMemory = 256 << 20
)

// Run measures, prints a table and fails when an aim is missed.
func (c *proveCmd) Run(ctx context.Context, out io.Writer) (err error) {
	dir, remove, err := folder(c.Dir)
	if err != nil {
		return err
	}
	defer remove()
	p := &prover{proveCmd: *c, out: out, data: filepath.Join(dir, "data"), f: figures{CapacityGiB: c.Capacity, DataGiB: c.Data}}
	if err := os.MkdirAll(filepath.Join(dir, "lab"), 0o700); err != nil {
		return err
	}
	if p.lab, err = lab.New(lab.Config{VMs: 1, Dir: filepath.Join(dir, "lab"), LeaseTimeout: 20 * time.Second}); err != nil {
		return err
	}
	defer func() {
		p.kill()
		err = errors.Join(err, p.lab.Close())
	}()
	for _, step := range []func(context.Context) error{p.fill, p.serve, p.adopt, p.backups, p.restore, p.killInBackup, p.killInRestore} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return p.report()
}

// fill makes the VM and writes its data in three places far apart.
func (p *prover) fill(context.Context) error {
	none := 0.0
	vm, err := p.lab.AddVM(context.Background(), lab.VMSpec{Name: bigVM, Disks: []int64{p.Capacity << 30}, Fill: &none})
	if err != nil {
		return err
	}
	part := p.Data << 30 / 3 &^ (1<<20 - 1)
	for i := range int64(3) {
		off := i * (p.Capacity << 30 / 3) &^ (1<<20 - 1)
		if err := p.lab.GuestWriteRandom(bigVM, vm.Disks[0].Key, off, part, uint64(i)*1_000_003); err != nil {
			return err
		}
	}
	p.f.SHA256, err = p.lab.DiskSHA256(context.Background(), bigVM, 0)
	return err
}

// serve starts kura serve and waits until it is ready.
func (p *prover) serve(ctx context.Context) error {
	p.server = exec.CommandContext(context.WithoutCancel(ctx), p.Kura, "serve", "--data", p.data, "--listen", provePort)
	log, err := os.OpenFile(filepath.Join(filepath.Dir(p.data), "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has it open itself
	p.server.Stdout, p.server.Stderr = log, log
	if err := p.server.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		token, err := os.ReadFile(filepath.Join(p.data, "operator.token"))
		if err != nil {
			continue
		}
		p.env = append(os.Environ(), "KURA_ENDPOINT=http://"+provePort, "KURA_TOKEN="+strings.TrimSpace(string(token)))
		if err := p.kura(ctx, nil, "version"); err == nil {
			return nil
		}
	}
	return fmt.Errorf("kura serve was not ready within a minute: see %s", log.Name())
}

// kill is kill -9 of the server; what it has used is noted first.
func (p *prover) kill() {
	if p.server == nil || p.server.ProcessState != nil {
		return
	}
	p.f.PeakMemoryBytes = max(p.f.PeakMemoryBytes, peakMemory(p.server.Process.Pid))
	_ = p.server.Process.Kill() // it may have ended by itself
	_ = p.server.Wait()
}

// peakMemory reads the most memory that a process has held, in bytes.
func peakMemory(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var kib int64
	for _, line := range strings.Split(string(b), "\n") {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, _ = fmt.Sscanf(strings.TrimSpace(text), "%d kB", &kib)
		}
	}
	return kib << 10
}

// kura runs the command line; with into, its answer is read as JSON.
func (p *prover) kura(ctx context.Context, into any, args ...string) error {
	if into != nil {
		args = append(args, "-o", "json")
	}
	cmd := exec.CommandContext(ctx, p.Kura, args...)
	cmd.Env = p.env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("kura %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

// adopt adds the lab as a vcenter.
func (p *prover) adopt(ctx context.Context) error {
	file := filepath.Join(filepath.Dir(p.data), "password")
	if err := os.WriteFile(file, []byte(p.lab.Password()), 0o600); err != nil {
		return err
	}
	return p.kura(ctx, nil, "vcenter", "create", "lab", p.lab.Endpoint(), "--username", p.lab.User(), "--password-file", file, "--thumbprint", p.lab.Thumbprint(), "--wait")
}
