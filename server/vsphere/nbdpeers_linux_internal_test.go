package vsphere

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/kura-backup/terraform-provider-kura/server/nbd"
)

// BenchmarkPeers reads the same export of an nbdkit with Kura, nbdcopy and
// qemu-img convert, each to nowhere: a file that is all data, one of which a
// thousandth is, and the first one over a link that takes 5 ms for each request.
//
// "make peers-nbd" runs it. KURA_PEERS_MIB is the data's size, KURA_PEERS_ROUNDS
// how often all is done; the figures go to the file KURA_BENCH_OUT too.
func BenchmarkPeers(b *testing.B) {
	size, rounds := int64(setting(b, "KURA_PEERS_MIB", 4096))<<20, setting(b, "KURA_PEERS_ROUNDS", 3)
	dir := b.TempDir()
	for b.Loop() {
		full, sparse := filepath.Join(dir, "full"), filepath.Join(dir, "sparse")
		fill(b, full, size, size)
		fill(b, sparse, size<<10, size>>2)
		var all []nbdFigures
		for _, c := range []struct {
			name   string
			data   int64
			kit    []string
			export int64
		}{
			{"all data", size, []string{"file", full}, size},
			{"a hole of " + strconv.Itoa(int(size>>30)) + " TiB with data", size >> 2, []string{"file", sparse}, size << 10},
			{"5 ms a request", size, []string{"--filter=delay", "file", full, "rdelay=5ms"}, size},
		} {
			socket := serveFile(b, dir, c.kit...)
			for n := range rounds {
				uri := "nbd+unix:///?socket=" + socket
				f := nbdFigures{What: c.name, Round: n + 1, MiB: c.data >> 20}
				f.Kura, f.KuraCPU = readBySelf(b, socket)
				f.Nbdcopy, f.NbdcopyCPU = readByPeer(b, "nbdcopy", uri, "null:")
				f.QemuImg, f.QemuImgCPU = readByPeer(b, "qemu-img", "convert", "-n", "-f", "raw", "--target-image-opts", uri, fmt.Sprintf("driver=null-co,size=%d", c.export))
				all = append(all, f)
			}
		}
		tell(b, all)
	}
}

// nbdFigures are the seconds of one round, and the CPU seconds of the reader alone.
type nbdFigures struct {
	What                            string
	Round                           int
	MiB                             int64
	Kura, Nbdcopy, QemuImg          float64
	KuraCPU, NbdcopyCPU, QemuImgCPU float64
}

func setting(b *testing.B, name string, preset int) int {
	b.Helper()
	text, set := os.LookupEnv(name)
	if !set {
		return preset
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("%s = %q, want a number of at least 1", name, text)
	}
	return n
}

// fill makes a file with data in pieces of a MiB that lie evenly in it.
func fill(b *testing.B, path string, size, data int64) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	random, p := rand.NewChaCha8([32]byte{1}), make([]byte, 1<<20)
	pieces := data >> 20
	for i := range pieces {
		_, _ = random.Read(p) // never fails
		if _, err := f.WriteAt(p, size/pieces*i>>20<<20); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(size), f.Sync(), f.Close()); err != nil {
		b.Fatal(err)
	}
}

func serveFile(b *testing.B, dir string, args ...string) (socket string) {
	b.Helper()
	socket = filepath.Join(dir, "s"+strconv.Itoa(len(args))+filepath.Base(args[1]))
	kit := exec.CommandContext(b.Context(), "nbdkit", append([]string{"-f", "-r", "-U", socket}, args...)...)
	kit.Stderr = os.Stderr
	if err := kit.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = kit.Process.Kill()
		_ = kit.Wait()
	})
	for end := time.Now().Add(20 * time.Second); ; {
		if c, err := nbd.Dial(b.Context(), "unix", socket, nbd.Config{}); err == nil {
			_ = c.Close()
			return socket
		}
		if time.Now().After(end) {
			b.Fatal("nbdkit does not listen")
		}
	}
}

type nowhere struct{ total int64 }

func (n *nowhere) WriteAt(p []byte, _ int64) (int, error) {
	n.total += int64(len(p))
	return len(p), nil
}

var _ io.WriterAt = (*nowhere)(nil)

// readBySelf reads as a backup does.
func readBySelf(b *testing.B, socket string) (seconds, cpu float64) {
	b.Helper()
	s := &Session{config: Config{}.defaulted(), speed: rate.NewLimiter(rate.Inf, burst)}
	began, before := time.Now(), ownCPU(b)
	conn, err := nbd.Dial(b.Context(), "unix", socket, nbd.Config{})
	if err != nil {
		b.Fatal(err)
	}
	known := &allocation{conn: conn}
	_, err = s.sendAreas(b.Context(), &nbdDevice{Conn: conn}, writeDisk{Label: "disk", Capacity: conn.Size()}, known.of(whole(conn.Size())), &nowhere{})
	if err := errors.Join(err, known.err, conn.Close()); err != nil {
		b.Fatal(err)
	}
	return time.Since(began).Seconds(), ownCPU(b) - before
}

func ownCPU(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func readByPeer(b *testing.B, args ...string) (seconds, cpu float64) {
	b.Helper()
	began := time.Now()
	c := exec.CommandContext(b.Context(), args[0], args[1:]...)
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%s", args, err, out)
	}
	return time.Since(began).Seconds(), (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
}

// tell prints the figures, and the medians of the rounds' ratios.
func tell(b *testing.B, all []nbdFigures) {
	b.Helper()
	fmt.Printf("\n%-32s %5s %20s %20s %20s\n", "seconds / CPU seconds", "round", "kura", "nbdcopy", "qemu-img convert")
	ratios := map[string][2][]float64{}
	for _, f := range all {
		fmt.Printf("%-32s %5d %13.2f / %4.2f %13.2f / %4.2f %13.2f / %4.2f\n", f.What, f.Round, f.Kura, f.KuraCPU, f.Nbdcopy, f.NbdcopyCPU, f.QemuImg, f.QemuImgCPU)
		r := ratios[f.What]
		r[0], r[1] = append(r[0], f.Nbdcopy/f.Kura), append(r[1], f.QemuImg/f.Kura)
		ratios[f.What] = r
	}
	for i, f := range all {
		if i > 0 && all[i-1].What == f.What {
			continue
		}
		what, r := f.What, ratios[f.What]
		slices.Sort(r[0])
		slices.Sort(r[1])
		fmt.Printf("%-32s %.2f of nbdcopy's rate, %.2f of qemu-img's\n", what, r[0][len(r[0])/2], r[1][len(r[1])/2])
	}
	if path := os.Getenv("KURA_BENCH_OUT"); path != "" {
		text, err := json.MarshalIndent(all, "", "  ")
		if err == nil {
			err = os.WriteFile(path, append(text, '\n'), 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
