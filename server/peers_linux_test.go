package server_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkPeers gives the same disk to restic, to the stock kopia program and
// to Kura's repository: a first image, one of the unchanged disk, one after
// each of two patterns of changes to 2 % of it, and a restore that is compared
// byte for byte. All read the whole disk again to find changes; Kura is told
// the changed extents too, as vSphere tells them. Each step is a process of its
// own, so that its CPU time and memory can be told. Only storage is compared;
// vSphere has no part in it.
//
// "make peers" runs it. KURA_PEERS names the folder of the peers' programs,
// KURA_PEERS_MIB the disk's size, KURA_PEERS_ROUNDS how often all is done; the
// medians go to the file KURA_BENCH_OUT too.
func BenchmarkPeers(b *testing.B) {
	if step := os.Getenv("KURA_PEERS_STEP"); step != "" {
		kuraStep(b, step)
		return
	}
	programs := os.Getenv("KURA_PEERS")
	if programs == "" {
		b.Fatal("KURA_PEERS does not name the folder of restic and kopia; run make peers")
	}
	mib, rounds := number(b, "KURA_PEERS_MIB", "8192", 64), number(b, "KURA_PEERS_ROUNDS", "3", 1)
	for b.Loop() {
		bench := newPeerBench(b, mib)
		var all []round
		for n := range rounds {
			r := round{}
			for _, p := range []peer{restic(programs), kopia(programs), kura("s2"), kura("zstd-fastest")} {
				r[p.name] = bench.run(p)
			}
			r[rawCopy] = figures{full: bench.raw("dd", "if=source/"+disk, "of=raw", "bs=1M", "conv=fsync", "status=none")}
			r[rawZstd] = figures{full: bench.raw("zstd", "-q", "-1", "-T2", "-o", "raw", "source/"+disk)}
			printRound(n+1, r)
			all = append(all, r)
		}
		report(b, bench, all)
	}
}

// number reads a setting.
func number(b *testing.B, name, preset string, least int) int {
	b.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), preset))
	if err != nil || n < least {
		b.Fatalf("%s = %q, want a number of at least %d", name, os.Getenv(name), least)
	}
	return n
}

const (
	disk = "disk.img"

	// What is measured.
	full      = "full"
	unchanged = "unchanged"
	extentsA  = "A by extents" // told what has changed
	extentsB  = "B by extents"
	rereadA   = "A by reading" // all is read again
	rereadB   = "B by reading"
	restored  = "restore"

	resticName = "restic 0.18.1"
	kopiaName  = "kopia 0.23.1, s2"
	kuraName   = "kura, "
	rawCopy    = "copy + fsync"
	rawZstd    = "zstd -1 -T2"
)

// peer is a program that keeps disks: how to call it for each step.
type peer struct {
	name    string
	env     []string
	create  func(dir string) [][]string
	backup  func(dir string) []string
	changed func(dir string) []string // nil = it cannot be told what has changed
	restore func(dir, id string) []string
	id      func(out []byte) string // the last image's, from what backup printed
}

func restic(programs string) peer {
	call := func(dir string, args ...string) []string {
		return append([]string{filepath.Join(programs, "restic"), "--quiet", "--no-cache", "--repo", filepath.Join(dir, "repo")}, args...)
	}
	return peer{
		name: resticName, env: []string{"RESTIC_PASSWORD=peer"},
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
		name: kopiaName, env: []string{"KOPIA_PASSWORD=peer", "KOPIA_CHECK_FOR_UPDATES=false"},
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

func kura(compression string) peer {
	call := func(dir, step string) []string {
		return []string{"/usr/bin/env", "KURA_PEERS_STEP=" + step, "KURA_PEERS_DIR=" + dir, "KURA_PEERS_COMPRESSION=" + compression,
			os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkPeers$", "-test.benchtime=1x"}
	}
	return peer{
		name:    kuraName + compression,
		create:  func(dir string) [][]string { return [][]string{call(dir, "create")} },
		backup:  func(dir string) []string { return call(dir, "backup") },
		changed: func(dir string) []string { return call(dir, "changed") },
		restore: func(dir, _ string) []string { return call(dir, "restore") },
		id:      func([]byte) string { return "last" },
	}
}

// stepFigures is what one step cost.
type stepFigures struct {
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	MemoryMiB  float64 `json:"memory_mib"`
	GrownMiB   float64 `json:"grown_mib"` // the repository
}

// figures are a peer's, by step; a round has all peers'.
type (
	figures map[string]stepFigures
	round   map[string]figures
)

// peerBench is the folder in which all happens, with the disk that all get.
type peerBench struct {
	b      *testing.B
	dir    string
	mib    int
	source *sourceDisk
}

func newPeerBench(b *testing.B, mib int) *peerBench {
	b.Helper()
	for _, program := range []string{"dd", "zstd"} {
		if _, err := exec.LookPath(program); err != nil {
			b.Fatalf("%v; install %s", err, program)
		}
	}
	dir := b.TempDir()
	return &peerBench{b, dir, mib, makeSource(b, dir, mib)}
}

// run takes one peer through all steps in a folder of its own.
func (r *peerBench) run(p peer) figures {
	b := r.b
	b.Helper()
	dir := r.dir
	r.source.reset()
	for _, args := range p.create(dir) {
		r.call(p, args, "repo")
	}
	f := figures{}
	f[full], _ = r.call(p, p.backup(dir), "repo")
	f[unchanged], _ = r.call(p, p.backup(dir), "repo")
	var out []byte
	for _, c := range []struct {
		step, told string
		pattern    pattern
	}{{rereadA, extentsA, patternA}, {rereadB, extentsB, patternB}} {
		r.source.change(c.pattern)
		f[c.step], out = r.call(p, p.backup(dir), "repo")
		if p.changed != nil {
			r.source.change(c.pattern)
			f[c.told], out = r.call(p, p.changed(dir), "repo")
		}
	}
	id := p.id(out)
	if id == "" {
		b.Fatalf("%s did not tell the id of its image: %s", p.name, out)
	}
	f[restored], _ = r.call(p, p.restore(dir, id), "target")
	r.source.compare(filepath.Join(dir, "target", disk), p.name)
	r.tidy("repo", "target", "cache", "log", "kopia.config", "last")
	return f
}

// raw measures what the machine can do at all.
func (r *peerBench) raw(args ...string) stepFigures {
	r.b.Helper()
	r.source.reset()
	f, _ := r.call(peer{name: args[0]}, args, "raw")
	r.tidy("raw")
	return f
}

func (r *peerBench) tidy(names ...string) {
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(r.dir, name)); err != nil {
			r.b.Fatal(err)
		}
	}
}

// call runs a step. Before it what was written is on the disk, the repository
// is not in the page cache, and the source is. The step has ended when what it
// has made is on the disk.
func (r *peerBench) call(p peer, args []string, makes string) (stepFigures, []byte) {
	r.b.Helper()
	r.source.warm()
	unix.Sync()
	r.evict("repo")
	forgetMemory()
	before := folderSize(r.b, filepath.Join(r.dir, makes))
	var out, errs bytes.Buffer
	c := exec.CommandContext(r.b.Context(), args[0], args[1:]...)
	c.Env = append(os.Environ(), p.env...)
	c.Dir, c.Stdout, c.Stderr = r.dir, &out, &errs
	start := time.Now()
	if err := c.Run(); err != nil {
		r.b.Fatalf("%s: %q: %v\n%s%s", p.name, args, err, &out, &errs)
	}
	r.eachFile(makes, func(f *os.File) error { return f.Sync() })
	f := stepFigures{
		Seconds:    time.Since(start).Seconds(),
		CPUSeconds: (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds(),
		GrownMiB:   float64(folderSize(r.b, filepath.Join(r.dir, makes))-before) / (1 << 20),
	}
	if usage, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		f.MemoryMiB = float64(usage.Maxrss >> 10)
	}
	return f, out.Bytes()
}

// forgetMemory makes this process small: Linux counts the memory of the process
// that starts a program as the program's.
func forgetMemory() {
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // begins the high-water mark anew, where there is one
}

// evict drops files from the page cache.
func (r *peerBench) evict(name string) {
	r.eachFile(name, func(f *os.File) error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) })
}

func (r *peerBench) eachFile(name string, do func(*os.File) error) {
	r.b.Helper()
	err := filepath.WalkDir(filepath.Join(r.dir, name), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(do(f), f.Close())
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.b.Fatal(err)
	}
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
