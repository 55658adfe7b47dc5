package repository_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

// site is a folder with a repository in it, and an installation that uses it.
type site struct {
	t   testing.TB
	dir string
	rs  *repository.Repositories
	rec backup.RepositoryRecord
	backup.Repository
}

func record(path string) backup.RepositoryRecord {
	return backup.RepositoryRecord{
		Meta: backup.Meta{ID: "repo-1"}, Name: "default", Kind: repository.KindFilesystem,
		Settings: map[string]string{"path": path}, Password: repository.NewPassword(),
	}
}

func newRepositories(t testing.TB, installation string) *repository.Repositories {
	rs := repository.New(repository.Config{Installation: installation, Dir: t.TempDir()})
	rs.Hasty()
	t.Cleanup(func() {
		if err := rs.Close(context.Background()); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return rs
}

func newSite(t testing.TB, change ...func(*backup.RepositoryRecord)) *site {
	t.Helper()
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "repository"), rs: newRepositories(t, "installation-1")}
	s.rec = record(s.dir)
	plain := s.rec
	for _, c := range change {
		c(&s.rec)
	}
	if s.rec.Kind == plain.Kind && s.rec.Password == plain.Password && maps.Equal(s.rec.Settings, plain.Settings) {
		s.copyEmpty()
	} else {
		s.rec.UniqueID = must(s.rs.Create(t.Context(), s.rec))(t)
	}
	s.Repository = must(s.rs.Repository(t.Context(), s.rec))(t)
	return s
}

// ownKey gives a site another key and another id than those of other sites.
func ownKey(r *backup.RepositoryRecord) { r.Password = repository.NewPassword() }

// empty is the folder of an empty repository and its record. It is made once:
// its key is derived twice for that, a second each where races are looked for.
var empty = sync.OnceValues(func() (rec backup.RepositoryRecord, err error) {
	if emptyDir, err = os.MkdirTemp("", "kura-empty-"); err != nil {
		return rec, err
	}
	rec = record(filepath.Join(emptyDir, "repository"))
	rs := repository.New(repository.Config{Installation: "installation-1", Dir: filepath.Join(emptyDir, "config")})
	rec.UniqueID, err = rs.Create(context.Background(), rec)
	return rec, errors.Join(err, rs.Close(context.Background()))
})

var emptyDir string // of empty, once it is made

// copyEmpty makes the site's repository a copy of the empty one.
func (s *site) copyEmpty() {
	s.t.Helper()
	from := must(empty())(s.t)
	must(0, os.CopyFS(s.dir, os.DirFS(from.Settings["path"])))(s.t)
	s.rec.Password, s.rec.UniqueID = from.Password, from.UniqueID
}

// runTests runs the tests and removes what they share.
func runTests(m *testing.M) int {
	defer func() { _ = os.RemoveAll(emptyDir) }()
	habits := map[string]string{
		"test.parallel": fmt.Sprint(2 * runtime.GOMAXPROCS(0)), // many wait for a storage that is slow on purpose
		"rapid.checks":  "30",                                  // everyday runs add up
	}
	if os.Getenv("KURA_TORTURE") == "full" {
		habits["rapid.checks"] = "100"
	}
	for name, value := range habits {
		if err := flag.Set(name, value); err != nil { // before the command line is read
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// again opens the repository as another process would.
func (s *site) again() backup.Repository {
	s.t.Helper()
	return must(newRepositories(s.t, "installation-1").Repository(s.t.Context(), s.rec))(s.t)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func draft(id string) backup.ImageDraft {
	return backup.ImageDraft{
		ImageID: id, VCenterUUID: "vcenter-uuid", InstanceUUID: "vm-uuid", VMName: "vm01",
		PointInTime: time.Date(2026, 3, 1, 2, 3, 4, 0, time.UTC),
	}
}

// disk is a disk's bytes and the ranges of it that are sent.
type disk struct {
	backup.DiskDraft
	bytes  []byte
	ranges [][2]int64 // from, to
}

// sparse makes a disk of random bytes in random ranges of 64 KiB, some of
// which are zero.
func sparse(rng *rand.Rand, key int32, capacity int64) *disk {
	d := &disk{DiskDraft: backup.DiskDraft{Key: key, Label: "Hard disk", Capacity: capacity}, bytes: make([]byte, capacity)}
	const grain = 64 * kib
	for off := int64(0); off < capacity; {
		n := min(int64(1+rng.IntN(40))*grain, capacity-off)
		switch rng.IntN(4) {
		case 0: // not sent
		case 1: // sent as zeroes
			d.ranges = append(d.ranges, [2]int64{off, off + n})
		default:
			fill(rng, d.bytes[off:off+n])
			d.ranges = append(d.ranges, [2]int64{off, off + n})
		}
		off += n
	}
	return d
}

// fill writes random bytes, half of which can be compressed.
func fill(rng *rand.Rand, b []byte) {
	for i := 0; i+8 <= len(b); i += 8 {
		v := rng.Uint64()
		if i/4096%2 == 0 {
			v &= 0x0f0f
		}
		binary.LittleEndian.PutUint64(b[i:], v)
	}
}

// send writes the disk's ranges in pieces.
func (d *disk) send(w io.WriterAt, piece int64) error {
	for _, r := range d.ranges {
		for off := r[0]; off < r[1]; off += piece {
			if _, err := w.WriteAt(d.bytes[off:min(off+piece, r[1])], off); err != nil {
				return err
			}
		}
	}
	return nil
}

// take makes an image of disks and returns its ref and manifest.
func take(t testing.TB, r backup.Repository, d backup.ImageDraft, disks ...*disk) (string, backup.Manifest) {
	t.Helper()
	ctx := t.Context()
	w := must(r.Begin(ctx, d))(t)
	for _, k := range disks {
		dw := must(w.Disk(ctx, k.DiskDraft))(t)
		if err := k.send(dw, 256*kib); err != nil {
			t.Fatalf("WriteAt() = %v", err)
		}
		must(dw.Close(ctx))(t)
	}
	m := backup.Manifest{Image: backup.Image{ID: d.ImageID, PointInTime: d.PointInTime, Status: backup.ImageGood}}
	ref := must(w.Commit(ctx, m))(t).Ref
	return ref, must(r.Image(ctx, ref))(t).Manifest()
}

// compare reads a disk of an image in three ways and compares it.
func compare(t testing.TB, r backup.Repository, ref string, want *disk) {
	t.Helper()
	ctx := t.Context()
	i := must(r.Image(ctx, ref))(t)
	d := must(i.Disk(ctx, want.Key))(t)
	defer func() {
		if err := errors.Join(d.Close(), i.Close()); err != nil {
			t.Errorf("Close() = %v", err)
		}
	}()
	if d.Capacity() != want.Capacity {
		t.Fatalf("Capacity() = %d, want %d", d.Capacity(), want.Capacity)
	}
	got := make([]byte, want.Capacity)
	for off := int64(0); ; {
		start, n := d.Next(off)
		if n == 0 {
			break
		}
		if _, err := d.ReadAt(got[start:start+n], start); err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("ReadAt(%d, %d) = %v", n, start, err)
		}
		off = start + n
	}
	sameBytes(t, "used ranges", got, want.bytes)
	clear(got)
	if _, err := io.ReadFull(io.NewSectionReader(d, 0, want.Capacity), got); err != nil {
		t.Fatalf("read in order: %v", err)
	}
	sameBytes(t, "in order", got, want.bytes)
}

func sameBytes(t testing.TB, how string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %#x, want %#x", how, i, got[i], want[i])
		}
	}
	t.Fatalf("%s: %d bytes, want %d", how, len(got), len(want))
}

func wantCode(t testing.TB, what string, err error, want backup.Code) {
	t.Helper()
	if got := backup.CodeOf(err); got != want {
		t.Errorf("%s = %v (%s), want %s", what, err, got, want)
	}
}

// folder returns how many bytes and files lie below dir, by the part of their
// names that part returns.
func folder(t testing.TB, dir string, of func(name string) bool) (size int64, files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !of(d.Name()) {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			size += fi.Size()
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size, files
}

func anyFile(string) bool { return true }

func isPack(name string) bool {
	// Packs of disk data lie below a folder "p"; their own names have lost that letter.
	return strings.HasSuffix(name, ".f") && !strings.Contains(name, "kopia") && !strings.Contains(name, "kura")
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

func removeAll(t testing.TB, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}
