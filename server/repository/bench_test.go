package repository_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// benchSize is the size of the disk that benchmarks use, in MiB; KURA_BENCH_MIB
// sets another.
func benchSize(b *testing.B) int64 {
	b.Helper()
	text := os.Getenv("KURA_BENCH_MIB")
	if text == "" {
		return 256 * mib
	}
	return int64(must(strconv.Atoi(text))(b)) * mib
}

// benchDisk is a third zeroes, a third text of a kind, a third random.
func benchDisk(b *testing.B, size int64) *disk {
	b.Helper()
	d := &disk{DiskDraft: backup.DiskDraft{Key: 2000, Capacity: size}, bytes: make([]byte, size)}
	r := rng(1)
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = fmt.Appendf(nil, "%x ", r.Uint64()>>(r.IntN(50)))
	}
	for off := int64(0); off < size; off += mib {
		p := d.bytes[off : off+mib]
		switch off / (8 * mib) % 3 {
		case 1:
			for n := 0; n < len(p); {
				n += copy(p[n:], words[r.IntN(len(words))])
			}
		case 2:
			for i := 0; i < len(p); i += 8 {
				binary.LittleEndian.PutUint64(p[i:], r.Uint64())
			}
		default:
			continue
		}
		d.ranges = append(d.ranges, [2]int64{off, off + mib})
	}
	return d
}

// peak measures how far the process's memory rises while f runs.
func peak(b *testing.B, f func()) {
	b.Helper()
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // begins the high-water mark anew, where there is one
	base := memory("VmRSS:")
	f()
	if high := memory("VmHWM:"); high > 0 {
		b.ReportMetric(float64(high-base)/1024, "MiB-peak")
	}
}

// memory reads a line of the process's status in KiB; 0 where there is none.
func memory(name string) int {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

func BenchmarkWriteFull(b *testing.B) {
	size := benchSize(b)
	d := benchDisk(b, size)
	for _, compression := range []string{"none", "s2", "zstd-fastest"} {
		b.Run(compression, func(b *testing.B) {
			b.SetBytes(size)
			var stored int64
			peak(b, func() {
				for b.Loop() {
					b.StopTimer()
					s := newSite(b, func(r *backup.RepositoryRecord) { r.Compression = compression })
					b.StartTimer()
					_, m := take(b, s, draft("image-1"), d)
					stored = m.Image.Sizes.Stored
					b.StopTimer()
					removeAll(b, s.dir)
					b.StartTimer()
				}
			})
			b.ReportMetric(float64(stored)/float64(size), "stored/size")
		})
	}
}

func BenchmarkWriteUnchanged(b *testing.B) {
	size := benchSize(b)
	d := benchDisk(b, size)
	s := newSite(b)
	ref, _ := take(b, s, draft("image-0"), d)
	b.SetBytes(size)
	n := 0
	peak(b, func() {
		for b.Loop() {
			n++
			next := draft(fmt.Sprint("image-", n))
			next.BaseRef = ref
			take(b, s, next, d)
		}
	})
}

func BenchmarkRestore(b *testing.B) {
	size := benchSize(b)
	d := benchDisk(b, size)
	s := newSite(b)
	ref, _ := take(b, s, draft("image-1"), d)
	for _, readers := range []int{1, 2} {
		b.Run(fmt.Sprint("readers-", readers), func(b *testing.B) {
			b.SetBytes(size)
			peak(b, func() {
				for b.Loop() {
					readAll(b, s, ref, size, readers)
				}
			})
		})
	}
}

// readAll reads a disk with n readers, each of which has a part of it.
func readAll(b *testing.B, r backup.Repository, ref string, size int64, n int) {
	b.Helper()
	i := must(r.Image(b.Context(), ref))(b)
	var g errgroup.Group
	part := size / int64(n)
	for k := range int64(n) {
		g.Go(func() error {
			d, err := i.Disk(b.Context(), 2000)
			if err != nil {
				return err
			}
			defer d.Close()
			buf := make([]byte, 256*kib)
			for off := k * part; ; {
				start, n := d.Next(off)
				if n == 0 || start >= (k+1)*part {
					return nil
				}
				n = min(n, int64(len(buf)))
				if _, err := d.ReadAt(buf[:n], start); err != nil && !errors.Is(err, io.EOF) {
					return err
				}
				off = start + n
			}
		})
	}
	must(0, g.Wait())(b)
}
