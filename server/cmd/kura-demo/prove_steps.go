package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// image is what the measurement needs of an image.
type image struct {
	ID    string `json:"id"`
	Sizes struct {
		Read   int64 `json:"read"`
		Stored int64 `json:"stored"`
	} `json:"sizes"`
}

func (p *prover) images(ctx context.Context) ([]image, error) {
	var list struct {
		Items []image `json:"items"`
	}
	err := p.kura(ctx, &list, "image", "list", "--vm", bigVM)
	return list.Items, err
}

// backups makes a full image and one of the unchanged disk.
func (p *prover) backups(ctx context.Context) error {
	for i, took := range []*float64{&p.f.FullSeconds, &p.f.SecondSeconds} {
		started := time.Now()
		if err := p.kura(ctx, nil, "vm", "backup", bigVM, "--wait"); err != nil {
			return err
		}
		*took = time.Since(started).Seconds()
		all, err := p.images(ctx)
		if err != nil {
			return err
		}
		if len(all) != i+1 {
			return fmt.Errorf("%d images, want %d", len(all), i+1)
		}
		newest := all[0].Sizes
		if i == 0 {
			p.f.FullReadBytes, p.f.FullStoredBytes = newest.Read, newest.Stored
			continue
		}
		p.f.SecondStoredBytes = newest.Stored
		p.f.SecondShare = float64(newest.Stored) / float64(p.f.FullStoredBytes)
	}
	return nil
}

// restore makes a new VM of the first image and compares every byte.
func (p *prover) restore(ctx context.Context) error {
	all, err := p.images(ctx)
	if err != nil {
		return err
	}
	started := time.Now()
	if err := p.kura(ctx, nil, "restore", "create", "--image", all[len(all)-1].ID, "--new-vm", "copy", "--wait"); err != nil {
		return err
	}
	p.f.RestoreSeconds = time.Since(started).Seconds()
	return p.compare(ctx, "copy")
}

func (p *prover) compare(ctx context.Context, vm string) error {
	sum, err := p.lab.DiskSHA256(ctx, vm, 0)
	if err != nil {
		return err
	}
	if sum != p.f.SHA256 {
		return fmt.Errorf("the disk of %s is %s, want %s", vm, sum, p.f.SHA256)
	}
	return nil
}

// strike starts a job, kills the server while a stream stands still in the
// middle of its bytes, starts it again and waits until the job has ended.
func (p *prover) strike(ctx context.Context, args ...string) (string, error) {
	if err := p.lab.Arm(lab.Fault{Kind: "stream_stall", After: 256 << 20, Delay: time.Hour, Count: -1}); err != nil {
		return "", err
	}
	var started struct {
		ID string `json:"id"`
	}
	if err := p.kura(ctx, &started, args...); err != nil {
		return "", err
	}
	if err := p.midway(ctx); err != nil {
		return "", err
	}
	p.kill()
	p.lab.ClearFaults()
	if err := p.serve(ctx); err != nil {
		return "", err
	}
	kind := args[0]
	if kind == "vm" {
		kind = "run"
	}
	var state struct {
		State  string `json:"state"`
		Status string `json:"status"`
	}
	for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if err := p.kura(ctx, &state, kind, "show", started.ID); err != nil {
			return "", err
		}
		if s := state.State + state.Status; s != "queued" && s != "running" {
			return s, nil
		}
	}
	return "", fmt.Errorf("%s did not end within ten minutes of the restart", strings.Join(args, " "))
}

// midway waits until the running job has moved some bytes.
func (p *prover) midway(ctx context.Context) error {
	var jobs struct {
		Items []struct {
			State    string `json:"state"`
			Kind     string `json:"kind"`
			Progress struct {
				Done int64 `json:"done"`
			} `json:"progress"`
		} `json:"items"`
	}
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err := p.kura(ctx, &jobs, "job", "list"); err != nil {
			return err
		}
		for _, j := range jobs.Items {
			if j.State == "running" && j.Kind != "sync" && j.Progress.Done > 64<<20 {
				return nil
			}
		}
	}
	return errors.New("no bytes flowed within five minutes")
}

func (p *prover) killInBackup(ctx context.Context) (err error) {
	// The same bytes once more, so that vSphere says the disk has changed: an idle one is not sent.
	if err := p.lab.GuestWriteRandom(bigVM, 0, 0, 1<<20, 0); err != nil {
		return err
	}
	if p.f.KillBackup, err = p.strike(ctx, "vm", "backup", bigVM); err != nil {
		return err
	}
	if err := p.noSnapshots(); err != nil {
		return err
	}
	all, err := p.images(ctx)
	if err == nil && len(all) != 3 {
		err = fmt.Errorf("%d images after the killed backup, want 3", len(all))
	}
	return err
}

// noSnapshots waits, as long as leases of a killed server may live, until the
// vCenter holds nothing of kura's.
func (p *prover) noSnapshots() error {
	var left []string
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
		left = nil
		for _, vm := range p.lab.VMs() {
			left = append(left, vm.Snapshots...)
			if strings.HasPrefix(vm.Name, "kura:") {
				left = append(left, vm.Name)
			}
		}
		if len(left) == 0 {
			return nil
		}
	}
	return fmt.Errorf("left in the vCenter: %s", strings.Join(left, ", "))
}

func (p *prover) killInRestore(ctx context.Context) error {
	all, err := p.images(ctx)
	if err != nil {
		return err
	}
	if p.f.KillRestore, err = p.strike(ctx, "restore", "create", "--image", all[0].ID, "--new-vm", "copy2"); err != nil {
		return err
	}
	if err := p.noSnapshots(); err != nil {
		return err
	}
	return p.compare(ctx, "copy2")
}

// report prints the figures and fails when an aim is missed.
func (p *prover) report() error {
	p.kill()
	f := p.f
	mib := func(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
	for _, row := range [][2]string{
		{"disk", fmt.Sprintf("%d GiB thin, %d GiB of data", f.CapacityGiB, f.DataGiB)},
		{"full backup", fmt.Sprintf("%.1f s, read %s, stored %s", f.FullSeconds, mib(f.FullReadBytes), mib(f.FullStoredBytes))},
		{"second, unchanged", fmt.Sprintf("%.1f s, stored %s (%.3f %%)", f.SecondSeconds, mib(f.SecondStoredBytes), f.SecondShare*100)},
		{"restore to a new VM", fmt.Sprintf("%.1f s, every byte equal", f.RestoreSeconds)},
		{"peak memory of the server", mib(f.PeakMemoryBytes)},
		{"kill -9 in a backup", f.KillBackup + ", no snapshot left, no half image"},
		{"kill -9 in a restore", f.KillRestore + ", every byte equal, no staging VM left"},
	} {
		fmt.Fprintf(p.out, "%-27s %s\n", row[0], row[1])
	}
	if p.Out != "" {
		b, err := json.MarshalIndent(f, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(p.Out, append(b, '\n'), 0o600); err != nil {
			return err
		}
	}
	var missed []string
	if f.SecondShare >= maxShare {
		missed = append(missed, "the second backup stored too much")
	}
	if f.PeakMemoryBytes > maxMemory {
		missed = append(missed, "the server held more than "+mib(maxMemory))
	}
	if f.KillBackup != "succeeded" || f.KillRestore != "succeeded" {
		missed = append(missed, "a killed job did not succeed")
	}
	if len(missed) > 0 {
		return errors.New(strings.Join(missed, "; "))
	}
	return nil
}
