package repository_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/encryption"
	"github.com/kopia/kopia/repo/hashing"

	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// BenchmarkDefaults packs several kinds of data on one core, without storing
// them, with the defaults and with each of them replaced by what else kopia has.
// The table of docs/dev/defaults.md comes from it:
//
//	go test -run '^$' -bench '^BenchmarkDefaults$' -benchtime 3x -cpu 1 ./server/repository
func BenchmarkDefaults(b *testing.B) {
	kinds := kindsOfData(b, 32*mib)
	preset := repository.Formula{
		Hashing: repository.DefaultHashing, Encryption: repository.DefaultEncryption,
		Compression: repository.DefaultCompression, Splitter: "FIXED-256K", Block: 256 * kib,
	}
	for _, name := range hashing.SupportedAlgorithms() {
		f := preset
		f.Hashing, f.Compression = name, ""
		packAll(b, "hash="+name, f, kinds)
	}
	for _, name := range encryption.SupportedAlgorithms(false) {
		f := preset
		f.Encryption, f.Compression = name, ""
		packAll(b, "encryption="+name, f, kinds)
	}
	names := []string{""}
	for _, name := range slices.Sorted(maps.Keys(compression.ByName)) {
		slow := strings.Contains(string(name), "best-compression") || strings.Contains(string(name), "gzip") // minutes for what zstd does in seconds
		if compression.IsSupported(name) && !compression.IsDeprecated[name] && !slow {
			names = append(names, string(name))
		}
	}
	for _, name := range names {
		f := preset
		f.Compression = name
		packAll(b, "compression="+cmp.Or(name, "none"), f, kinds)
	}
	for _, k := range []int{128, 256, 512, 1024, 2048, 4096} {
		f := preset
		f.Block, f.Splitter = k*kib, fmt.Sprintf("FIXED-%dK", k)
		if k >= 1024 {
			f.Splitter = fmt.Sprintf("FIXED-%dM", k/1024)
		}
		packAll(b, fmt.Sprintf("block=%dKiB", k), f, kinds)
	}
}

func packAll(b *testing.B, name string, f repository.Formula, kinds map[string][]byte) {
	b.Helper()
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		b.Run(name+"/"+kind, func(b *testing.B) {
			data := kinds[kind]
			var stored, packed int64
			var cpu time.Duration
			for b.Loop() {
				b.StopTimer()
				p := must(repository.NewPacker(b.Context(), b.TempDir(), f))(b)
				before := cpuTime(b)
				b.StartTimer()
				stored = must(p.Pack(b.Context(), data))(b)
				b.StopTimer()
				cpu, packed = cpu+cpuTime(b)-before, packed+int64(len(data))
				must(0, p.Close(b.Context()))(b)
				b.StartTimer()
			}
			b.ReportMetric(float64(packed)/mib/cpu.Seconds(), "MiB/CPU-s")
			b.ReportMetric(float64(stored)/float64(len(data)), "stored/size")
		})
	}
}

// kindsOfData are so many bytes of what disks hold.
func kindsOfData(b *testing.B, size int) map[string][]byte {
	b.Helper()
	root := strings.TrimSpace(string(must(exec.CommandContext(b.Context(), "go", "env", "GOROOT").Output())(b)))
	random := make([]byte, size)
	r := rng(1)
	for i := 0; i < size; i += 8 {
		binary.LittleEndian.PutUint64(random[i:], r.Uint64())
	}
	return map[string][]byte{
		"text":     filesBelow(b, filepath.Join(root, "src"), size),
		"binaries": filesBelow(b, filepath.Join(root, "pkg"), size),
		"database": databasePages(size),
		"random":   random,
		"zero":     make([]byte, size),
	}
}

// filesBelow gives the files below a folder one after the other, as a file
// system lays them out in sectors.
func filesBelow(b *testing.B, dir string, size int) []byte {
	b.Helper()
	all := make([]byte, 0, size)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || len(all) >= size {
			return err
		}
		text, err := os.ReadFile(path)
		all = append(all, text...)
		all = append(all, make([]byte, -len(all)&4095)...)
		return err
	})
	must(0, err)(b)
	return all[:min(size, len(all))]
}

// databasePages gives pages of 8 KiB as databases keep rows in them: a head, a
// list of where the rows begin, room, and rows of ids, times, amounts and names.
func databasePages(size int) []byte {
	const page = 8 * kib
	all := make([]byte, size)
	r := rng(2)
	id, at := uint64(1), uint64(1_760_000_000_000)
	for off := 0; off < size; off += page {
		p := all[off : off+page]
		binary.LittleEndian.PutUint64(p, uint64(off)*3)
		var from int
		to := page
		for slots := 24; ; slots += 4 {
			row := fmt.Appendf(nil, "customer-%d\x00%s\x00", r.IntN(50_000), []string{"open", "paid", "sent", "returned"}[r.IntN(4)])
			need := 40 + len(row)
			if from = slots + 4; to-need < from+page/8 {
				break
			}
			to -= need
			at += uint64(r.IntN(60_000))
			for i, v := range []uint64{id, at, uint64(r.IntN(100_000)), r.Uint64() >> 40, uint64(r.IntN(9))} {
				binary.LittleEndian.PutUint64(p[to+8*i:], v)
			}
			copy(p[to+40:], row)
			binary.LittleEndian.PutUint16(p[slots:], uint16(to))
			id++
		}
		binary.LittleEndian.PutUint16(p[12:], uint16(from))
	}
	return all
}
