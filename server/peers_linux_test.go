package server_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// BenchmarkPeers gives the same disk to restic, to the stock kopia program and
// to Kura's repository: a first image, one of the unchanged disk, one after
// scattered writes to 2 % of it, and a restore that is compared byte for byte.
// Each step is a process of its own, so that its CPU time and memory can be
// told. Only storage is compared; vSphere has no part in it.
//
// "make peers" runs it. KURA_PEERS names the folder of the peers' programs,
// KURA_PEERS_MIB the disk's size; figures go to the file KURA_BENCH_OUT too.
func BenchmarkPeers(b *testing.B) {
	if step := os.Getenv("KURA_PEERS_STEP"); step != "" {
		kuraStep(b, step)
		return
	}
	programs := os.Getenv("KURA_PEERS")
	if programs == "" {
		b.Fatal("KURA_PEERS does not name the folder of restic and kopia; run make peers")
	}
	mib, err := strconv.Atoi(cmp.Or(os.Getenv("KURA_PEERS_MIB"), "2048"))
	if err != nil || mib < 16 {
		b.Fatalf("KURA_PEERS_MIB = %q, want a number of at least 16", os.Getenv("KURA_PEERS_MIB"))
	}
	for b.Loop() {
		var all []peerFigures
		for _, p := range []peer{restic(programs), kopia(programs), kura()} {
			all = append(all, runPeer(b, p, mib))
		}
		printFigures(b, mib, all)
	}
}

// peer is a program that keeps disks: how to call it for each step.
type peer struct {
	name    string
	env     []string
	create  func(dir string) [][]string
	backup  func(dir string) []string
	restore func(dir, id string) []string
	id      func(out []byte) string // the last image's, from what backup printed
}

const disk = "disk.img"

func restic(programs string) peer {
	call := func(dir string, args ...string) []string {
		return append([]string{filepath.Join(programs, "restic"), "--quiet", "--no-cache", "--repo", filepath.Join(dir, "repo")}, args...)
	}
	return peer{
		name: "restic 0.18.1", env: []string{"RESTIC_PASSWORD=peer"},
		create: func(dir string) [][]string { return [][]string{call(dir, "init")} },
		backup: func(dir string) []string { return call(dir, "backup", "--force", filepath.Join(dir, "source")) },
		restore: func(dir, _ string) []string {
			return call(dir, "restore", "latest:"+filepath.Join(dir, "source"), "--target", filepath.Join(dir, "target"))
		},
		id: func([]byte) string { return "latest" },
	}
}

func kopia(programs string) peer {
	call := func(dir string, args ...string) []string {
		return append([]string{filepath.Join(programs, "kopia"), "--config-file", filepath.Join(dir, "kopia.config"), "--log-level=error",
			"--log-dir", filepath.Join(dir, "log"), "--no-progress"}, args...)
	}
	return peer{
		name: "kopia 0.23.1, s2", env: []string{"KOPIA_PASSWORD=peer", "KOPIA_CHECK_FOR_UPDATES=false"},
		create: func(dir string) [][]string {
			return [][]string{
				call(dir, "repository", "create", "filesystem", "--path", filepath.Join(dir, "repo"), "--cache-directory", filepath.Join(dir, "cache")),
				call(dir, "policy", "set", "--global", "--compression=s2-default"),
			}
		},
		backup: func(dir string) []string {
			return call(dir, "snapshot", "create", "--json", "--force-hash=100", filepath.Join(dir, "source"))
		},
		restore: func(dir, id string) []string {
			return call(dir, "snapshot", "restore", id, filepath.Join(dir, "target"))
		},
		id: func(out []byte) string {
			var s struct{ ID string }
			if err := json.Unmarshal(out, &s); err != nil {
				return ""
			}
			return s.ID
		},
	}
}

func kura() peer {
	call := func(dir, step string) []string {
		return []string{"/usr/bin/env", "KURA_PEERS_STEP=" + step, "KURA_PEERS_DIR=" + dir,
			os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkPeers$", "-test.benchtime=1x"}
	}
	return peer{
		name:    "kura, s2",
		create:  func(dir string) [][]string { return [][]string{call(dir, "create")} },
		backup:  func(dir string) []string { return call(dir, "backup") },
		restore: func(dir, _ string) []string { return call(dir, "restore") },
		id:      func([]byte) string { return "last" },
	}
}

// stepFigures is what one step cost.
type stepFigures struct {
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	MemoryMiB  int64   `json:"memory_mib"`
	StoredMiB  float64 `json:"stored_mib"` // what the repository grew by
}

type peerFigures struct {
	Peer      string      `json:"peer"`
	Full      stepFigures `json:"full"`
	Unchanged stepFigures `json:"unchanged"`
	Changed   stepFigures `json:"changed"`
	Restore   stepFigures `json:"restore"`
}

// runPeer takes one peer through all steps in a folder of its own.
func runPeer(b *testing.B, p peer, mib int) peerFigures {
	b.Helper()
	dir := b.TempDir()
	source := filepath.Join(dir, "source", disk)
	makeDisk(b, source, mib)
	for _, args := range p.create(dir) {
		p.run(b, dir, args)
	}
	f := peerFigures{Peer: p.name}
	f.Full, _ = p.run(b, dir, p.backup(dir))
	f.Unchanged, _ = p.run(b, dir, p.backup(dir))
	scatter(b, source, mib)
	var out []byte
	f.Changed, out = p.run(b, dir, p.backup(dir))
	id := p.id(out)
	if id == "" {
		b.Fatalf("%s did not tell the id of its image: %s", p.name, out)
	}
	f.Restore, _ = p.run(b, dir, p.restore(dir, id))
	if got, want := sum(b, filepath.Join(dir, "target", disk)), sum(b, source); got != want {
		b.Fatalf("%s restored a disk of SHA-256 %s, want %s", p.name, got, want)
	}
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
	return f
}

func (p peer) run(b *testing.B, dir string, args []string) (stepFigures, []byte) {
	b.Helper()
	before := folderSize(b, filepath.Join(dir, "repo"))
	var out, errs bytes.Buffer
	c := exec.CommandContext(b.Context(), args[0], args[1:]...)
	c.Env = append(os.Environ(), p.env...)
	c.Dir, c.Stdout, c.Stderr = dir, &out, &errs
	start := time.Now()
	if err := c.Run(); err != nil {
		b.Fatalf("%s: %q: %v\n%s%s", p.name, args, err, &out, &errs)
	}
	f := stepFigures{
		Seconds:    time.Since(start).Seconds(),
		CPUSeconds: (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds(),
		StoredMiB:  float64(folderSize(b, filepath.Join(dir, "repo"))-before) / (1 << 20),
	}
	if usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		f.MemoryMiB = usage.Maxrss >> 10
	}
	return f, out.Bytes()
}

func printFigures(b *testing.B, mib int, all []peerFigures) {
	b.Helper()
	fmt.Printf("\n%d MiB: 30 %% zero, 45 %% text, 25 %% random. Seconds / CPU seconds / memory MiB / stored MiB\n\n", mib)
	fmt.Printf("%-18s %-28s %-28s %-28s %-28s\n", "", "full", "unchanged", "2 % changed", "restore")
	for _, f := range all {
		fmt.Printf("%-18s", f.Peer)
		for _, s := range []stepFigures{f.Full, f.Unchanged, f.Changed, f.Restore} {
			fmt.Printf(" %-28s", fmt.Sprintf("%.1f / %.1f / %d / %.0f", s.Seconds, s.CPUSeconds, s.MemoryMiB, s.StoredMiB))
		}
		fmt.Println()
	}
	if path := os.Getenv("KURA_BENCH_OUT"); path != "" {
		text, err := json.MarshalIndent(map[string]any{"disk_mib": mib, "peers": all}, "", "  ")
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
			b.Fatal(err)
		}
	}
}

// makeDisk writes the same disk for every peer.
func makeDisk(b *testing.B, path string, mib int) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		b.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{1})
	block := make([]byte, 1<<20)
	for i := range mib {
		switch n := i % 20; {
		case n < 6:
			continue // stays a hole
		case n < 15:
			fillText(block, r)
		default:
			_, _ = r.Read(block) // never fails
		}
		if _, err := f.WriteAt(block, int64(i)<<20); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(int64(mib)<<20), f.Close()); err != nil {
		b.Fatal(err)
	}
}

// fillText fills p with lines that a compressor can make something of.
func fillText(p []byte, r *rand.ChaCha8) {
	for n := 0; n < len(p); {
		v := r.Uint64()
		n += copy(p[n:], fmt.Sprintf("%016x level=info component=%d message=done\n", v, v%97))
	}
}

// scatter writes random 64 KiB pieces over 2 % of the disk.
func scatter(b *testing.B, path string, mib int) {
	b.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	fill := rand.NewChaCha8([32]byte{2})
	where := rand.New(fill)
	piece := make([]byte, 64<<10)
	for range mib * 16 / 50 {
		_, _ = fill.Read(piece) // never fails
		if _, err := f.WriteAt(piece, int64(where.IntN(mib*16))<<16); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
}

func sum(b *testing.B, path string) string {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		b.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func folderSize(b *testing.B, dir string) int64 {
	b.Helper()
	var total int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		total += info.Size()
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.Fatal(err)
	}
	return total
}

// kuraStep is one step of Kura's repository, in a process of its own.
func kuraStep(b *testing.B, step string) {
	dir := os.Getenv("KURA_PEERS_DIR")
	rec := backup.RepositoryRecord{Name: "peer", Kind: repository.KindFilesystem, Compression: "s2", Password: "peer",
		Settings: map[string]string{"path": filepath.Join(dir, "repo")}}
	rec.ID = "peer"
	all := repository.New(repository.Config{Installation: "peer", Dir: filepath.Join(dir, "cache")})
	var err error
	switch step {
	case "create":
		_, err = all.Create(b.Context(), rec)
	case "backup":
		err = kuraBackup(b, all, rec, dir)
	case "restore":
		err = kuraRestore(b, all, rec, dir)
	default:
		err = fmt.Errorf("no step %q", step)
	}
	if err := errors.Join(err, all.Close(b.Context())); err != nil {
		b.Fatal(err)
	}
}

// kuraBackup reads the whole disk, as a vSphere export does, and compares it
// with the last image.
func kuraBackup(b *testing.B, all *repository.Repositories, rec backup.RepositoryRecord, dir string) error {
	ctx := b.Context()
	r, err := all.Repository(ctx, rec)
	if err != nil {
		return err
	}
	last, err := os.ReadFile(filepath.Join(dir, "last"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.Open(filepath.Join(dir, "source", disk))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	now := time.Now()
	w, err := r.Begin(ctx, backup.ImageDraft{ImageID: backup.NewID(now), VCenterUUID: "peer", InstanceUUID: "peer", VMName: "peer", PointInTime: now, BaseRef: string(last)})
	if err != nil {
		return err
	}
	defer w.Abort(ctx)
	d, err := w.Disk(ctx, backup.DiskDraft{Key: 2000, Label: "Hard disk 1", Capacity: info.Size(), UUID: "peer"})
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(io.NewOffsetWriter(d, 0), struct{ io.Reader }{f}, make([]byte, 1<<20)); err != nil {
		return err
	}
	written, err := d.Close(ctx)
	if err != nil {
		return err
	}
	image, err := w.Commit(ctx, backup.Manifest{FormatVersion: backup.ManifestVersion, Image: backup.Image{StartedAt: now, PointInTime: now, Disks: []backup.ImageDisk{written}}})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "last"), []byte(image.Ref), 0o600)
}

func kuraRestore(b *testing.B, all *repository.Repositories, rec backup.RepositoryRecord, dir string) (err error) {
	ctx := b.Context()
	r, err := all.Repository(ctx, rec)
	if err != nil {
		return err
	}
	last, err := os.ReadFile(filepath.Join(dir, "last"))
	if err != nil {
		return err
	}
	image, err := r.Image(ctx, string(last))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	d, err := image.Disk(ctx, 2000)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := os.MkdirAll(filepath.Join(dir, "target"), 0o700); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "target", disk))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 1<<20)
	for start, n := d.Next(0); n > 0; start, n = d.Next(start + n) {
		if _, err := io.CopyBuffer(io.NewOffsetWriter(f, start), struct{ io.Reader }{io.NewSectionReader(d, start, n)}, buf); err != nil {
			return err
		}
	}
	return errors.Join(f.Truncate(d.Capacity()), f.Sync())
}
