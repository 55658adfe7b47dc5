package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const sector = 4 << 10

// sourceDisk is the disk that all peers get: of twenty parts six are zero, nine
// are files, five are random.
type sourceDisk struct {
	b       *testing.B
	dir     string
	mib     int
	files   int64 // bytes of files; the rest of their part are lines of a log
	fill    *rand.ChaCha8
	changed []extent // since it was reset
}

// extent is a range of the disk.
type extent struct {
	Off int64 `json:"off"`
	N   int64 `json:"n"`
}

// pattern makes the extents of changes to a disk.
type pattern func(r *rand.Rand, mib int) []extent

// patternA: 252 extents of 64 KiB to 2 MiB for 8 GiB, small ones more often.
func patternA(r *rand.Rand, mib int) (all []extent) {
	for range max(1, 252*mib/8192) {
		n := int64(64<<10*math.Pow(32, r.Float64())) &^ (sector - 1)
		all = append(all, extent{r.Int64N((int64(mib)<<20-n)/sector) * sector, n})
	}
	return all
}

// patternB: 2,622 extents of 64 KiB for 8 GiB.
func patternB(r *rand.Rand, mib int) (all []extent) {
	for range max(1, 2622*mib/8192) {
		all = append(all, extent{r.Int64N(int64(mib)*16) << 16, 64 << 10})
	}
	return all
}

func makeSource(b *testing.B, dir string, mib int) *sourceDisk {
	b.Helper()
	s := &sourceDisk{b: b, dir: dir, mib: mib}
	s.check(os.MkdirAll(filepath.Join(dir, "source"), 0o700))
	f, err := os.Create(s.path("base.img"))
	s.check(err)
	packed := newFilePack(b)
	random := rand.NewChaCha8([32]byte{1})
	unit := max(1, mib/512) // MiB: runs are as long on a small disk as on a large one, in proportion
	block := make([]byte, 1<<20)
	for i := range mib {
		switch n := i / unit % 20; {
		case n < 6:
			continue // stays a hole
		case n < 15:
			packed.read(block)
		default:
			_, _ = random.Read(block) // never fails
		}
		_, err := f.WriteAt(block, int64(i)<<20)
		s.check(err)
	}
	s.check(errors.Join(f.Truncate(int64(mib)<<20), f.Close()))
	s.files = packed.taken
	s.check(exec.CommandContext(b.Context(), "cp", "--sparse=always", s.path("base.img"), s.path("source/"+disk)).Run())
	return s
}

func (s *sourceDisk) path(name string) string { return filepath.Join(s.dir, name) }

func (s *sourceDisk) check(err error) {
	s.b.Helper()
	if err != nil {
		s.b.Fatal(err)
	}
}

// reset undoes the changes; what follows is random in the same way again.
func (s *sourceDisk) reset() {
	s.b.Helper()
	base, err := os.Open(s.path("base.img"))
	s.check(err)
	defer base.Close()
	s.write(s.changed, func(p []byte, off int64) {
		_, err := base.ReadAt(p, off)
		s.check(err)
	})
	s.changed = nil
	s.fill = rand.NewChaCha8([32]byte{2})
}

// change writes new bytes over the extents of a pattern, random ones and lines
// by turns, and tells Kura which they are.
func (s *sourceDisk) change(p pattern) {
	s.b.Helper()
	extents := p(rand.New(s.fill), s.mib)
	n := 0
	s.write(extents, func(p []byte, _ int64) {
		if n++; n%2 == 0 {
			fillLines(p, s.fill)
		} else {
			_, _ = s.fill.Read(p) // never fails
		}
	})
	s.changed = append(s.changed, extents...)
	text, err := json.Marshal(extents)
	s.check(err)
	s.check(os.WriteFile(s.path("extents.json"), text, 0o600))
}

func (s *sourceDisk) write(extents []extent, fill func(p []byte, off int64)) {
	s.b.Helper()
	f, err := os.OpenFile(s.path("source/"+disk), os.O_WRONLY, 0)
	s.check(err)
	for _, e := range extents {
		p := make([]byte, e.N)
		fill(p, e.Off)
		_, err := f.WriteAt(p, e.Off)
		s.check(err)
	}
	s.check(f.Close())
}

// warm reads the disk into the page cache.
func (s *sourceDisk) warm() {
	s.b.Helper()
	f, err := os.Open(s.path("source/" + disk))
	s.check(err)
	_, err = io.Copy(io.Discard, struct{ io.Reader }{f})
	s.check(errors.Join(err, f.Close()))
}

// compare compares what was restored with the disk.
func (s *sourceDisk) compare(path, who string) {
	s.b.Helper()
	got, err := os.Open(path)
	s.check(err)
	defer got.Close()
	want, err := os.Open(s.path("source/" + disk))
	s.check(err)
	defer want.Close()
	a, c := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := io.ReadFull(want, c)
		m, gerr := io.ReadFull(got, a)
		if m != n || !bytes.Equal(a[:m], c[:n]) {
			s.b.Fatalf("%s restored other bytes than the disk's within the MiB at %d", who, off)
		}
		if off += int64(n); err != nil || gerr != nil {
			if errors.Is(err, io.EOF) && errors.Is(gerr, io.EOF) && off == int64(s.mib)<<20 {
				return
			}
			s.b.Fatalf("%s restored a disk of %d bytes, want %d: %v", who, off, int64(s.mib)<<20, errors.Join(err, gerr))
		}
	}
}

// filePack gives the files of the Go toolchain and of its modules one after the
// other, each beginning at a sector as in a file system. Where they do not
// suffice it gives lines of a log.
type filePack struct {
	b     *testing.B
	paths []string
	cur   *os.File
	lines *rand.ChaCha8
	taken int64
}

func newFilePack(b *testing.B) *filePack {
	b.Helper()
	p := &filePack{b: b, lines: rand.NewChaCha8([32]byte{3})}
	out, err := exec.CommandContext(b.Context(), "go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		b.Fatal(err)
	}
	for _, root := range strings.Fields(string(out)) {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				p.paths = append(p.paths, path)
			}
			return nil // what cannot be read is left out
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return p
}

// read fills block.
func (p *filePack) read(block []byte) {
	p.b.Helper()
	for n := 0; n < len(block); {
		if p.cur == nil && !p.open() {
			fillLines(block[n:], p.lines)
			return
		}
		c, err := io.ReadFull(p.cur, block[n:])
		n, p.taken = n+c, p.taken+int64(c)
		if err == nil {
			return
		}
		_ = p.cur.Close() // it was only read
		p.cur = nil
		end := min((n+sector-1)&^(sector-1), len(block))
		clear(block[n:end])
		n = end
	}
}

// open opens the next file that can be read.
func (p *filePack) open() bool {
	for len(p.paths) > 0 && p.cur == nil {
		f, err := os.Open(p.paths[0])
		p.paths = p.paths[1:]
		if err == nil {
			p.cur = f
		}
	}
	return p.cur != nil
}

// fillLines fills p with lines that a compressor can make something of.
func fillLines(p []byte, r *rand.ChaCha8) {
	for n := 0; n < len(p); {
		v := r.Uint64()
		n += copy(p[n:], fmt.Sprintf("%016x level=info component=%d message=done\n", v, v%97))
	}
}
