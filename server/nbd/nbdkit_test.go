package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/nbd"
)

// kit is a running nbdkit.
type kit struct {
	*testing.T
	network, address string
	process          *exec.Cmd
}

// start runs nbdkit on a socket that listens already, so that nobody has to
// wait until it does.
func start(t *testing.T, network string, args ...string) *kit {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s") // no longer than a socket's path may be
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), network, address)
	ok(t, err)
	defer l.Close()
	f, err := l.(interface{ File() (*os.File, error) }).File()
	ok(t, err)
	defer f.Close()
	if u, is := l.(*net.UnixListener); is {
		u.SetUnlinkOnClose(false)
	}
	k := &kit{T: t, network: network, address: l.Addr().String()}
	k.process = exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec nbdkit -f "$@"`, "sh"}, args...)...)
	k.process.ExtraFiles = []*os.File{f}
	var errs bytes.Buffer
	k.process.Stderr = &errs
	if err := k.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = k.process.Process.Kill()
		_ = k.process.Wait()
		if t.Failed() {
			t.Logf("nbdkit: %s", &errs)
		}
	})
	return k
}

func (k *kit) dial() *nbd.Conn {
	k.Helper()
	c, err := nbd.Dial(k.Context(), k.network, k.address, nbd.Config{Stall: 20 * time.Second})
	ok(k.T, err)
	k.Cleanup(func() { ok(k.T, c.Close()) })
	return c
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// written is a file with random bytes.
func written(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	ok(t, os.WriteFile(path, content, 0o600))
	return path
}

func TestBytesComeBackAsTheyWereWritten(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		c := start(t, network, "memory", "100M").dial()
		if c.Size() != 100<<20 || c.ReadOnly() || !c.CanExtents() {
			t.Fatalf("size = %d, read-only = %t, extents = %t", c.Size(), c.ReadOnly(), c.CanExtents())
		}
		want := random(40 << 20) // more than one request takes
		_, err := c.WriteAt(want, 5000)
		ok(t, err)
		n, err := c.WriteThrough(want[:1000], 60<<20)
		ok(t, err)
		ok(t, c.WriteZeroes(1<<20, 2<<20))
		ok(t, c.Flush())
		clear(want[1<<20-5000 : 3<<20-5000])
		got := make([]byte, len(want))
		_, err = c.ReadAt(got, 5000)
		ok(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: other bytes came back", network)
		}
		tail := make([]byte, 1000)
		_, err = c.ReadAt(tail, 60<<20)
		ok(t, err)
		if n != 1000 || !bytes.Equal(tail, want[:1000]) {
			t.Errorf("%s: other bytes came back of what was written through", network)
		}
	}
}

func TestReadingBehindTheEndIsTheEnd(t *testing.T) {
	c := start(t, "unix", "memory", "1M").dial()
	_, err := c.WriteAt([]byte("end"), 1<<20-3)
	ok(t, err)
	p := make([]byte, 10)
	if n, err := c.ReadAt(p, 1<<20-3); n != 3 || !errors.Is(err, io.EOF) || string(p[:3]) != "end" {
		t.Errorf("read over the end = %d, %v, %q", n, err, p[:n])
	}
	if n, err := c.ReadAt(p, 2<<20); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read behind the end = %d, %v", n, err)
	}
	if all, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size())); err != nil || len(all) != 1<<20 {
		t.Errorf("all = %d bytes, %v", len(all), err)
	}
	if _, err := c.WriteAt(p, 1<<20-3); code(err) != nbd.NoSpace {
		t.Errorf("write over the end = %v", err)
	}
}

func code(err error) nbd.Code {
	if e, ok := errors.AsType[*nbd.Error](err); ok {
		return e.Code
	}
	return 0
}

func TestBlocksOfTheServerAreKeptTo(t *testing.T) {
	c := start(t, "unix", "--filter=blocksize-policy", "memory", "1M", "blocksize-minimum=512", "blocksize-preferred=4096",
		"blocksize-maximum=65536", "blocksize-error-policy=error").dial()
	want := random(1 << 20)
	_, err := c.WriteAt(want, 0) // in requests of 64 KiB
	ok(t, err)
	got := make([]byte, 200_001)
	_, err = c.ReadAt(got, 77)
	ok(t, err)
	if !bytes.Equal(got, want[77:77+len(got)]) {
		t.Error("an odd range brought other bytes")
	}
	if _, err := c.WriteAt(want[:100], 0); code(err) != nbd.InvalidValue {
		t.Errorf("write of a part of a block = %v", err)
	}
	if all, err := c.Extents(77, 1000); err != nil || len(all) != 1 || all[0] != (nbd.Extent{Off: 77, N: 1000}) {
		t.Errorf("extents = %v, %v", all, err)
	}
}

func TestManyRequestsAreInFlightTogether(t *testing.T) {
	want := random(64 << 10)
	c := start(t, "unix", "--filter=delay", "file", written(t, want), "rdelay=300ms").dial()
	began := time.Now()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			got := make([]byte, 8<<10)
			if _, err := c.ReadAt(got, int64(i)*8<<10); err != nil || !bytes.Equal(got, want[i*8<<10:(i+1)*8<<10]) {
				t.Errorf("piece %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("eight reads of 300 ms took %s, so they were not in flight together", took)
	}
}

func TestARefusedRequestNamesItsPlaceAndLeavesTheRestAlone(t *testing.T) {
	want := random(1 << 20)
	errorNow := filepath.Join(t.TempDir(), "now")
	c := start(t, "unix", "--filter=error", "file", written(t, want), "error-pread=EIO", "error-pread-rate=100%", "error-pread-file="+errorNow,
		"error-pwrite=ENOSPC", "error-pwrite-rate=100%", "error-pwrite-file="+errorNow).dial()
	got := make([]byte, 4096)
	_, err := c.ReadAt(got, 8192)
	ok(t, err)
	ok(t, os.WriteFile(errorNow, nil, 0o600))
	_, err = c.ReadAt(got, 8192)
	if e, is := errors.AsType[*nbd.Error](err); !is || e.Code != nbd.InputOutput || e.Off != 8192 || e.N != 4096 {
		t.Errorf("error = %v, want one that names 4096 bytes at 8192", err)
	}
	if _, err := c.WriteAt(got, 0); code(err) != nbd.NoSpace {
		t.Errorf("error = %v, want no space", err)
	}
	ok(t, os.Remove(errorNow))
	_, err = c.ReadAt(got, 8192)
	ok(t, err)
	if !bytes.Equal(got, want[8192:8192+4096]) {
		t.Error("after an error other bytes come")
	}
}

// data lists what is not zero of a range.
func data(t *testing.T, c *nbd.Conn, off, end int64) (found []nbd.Extent) {
	t.Helper()
	for off < end {
		all, err := c.Extents(off, end-off)
		ok(t, err)
		for _, e := range all {
			if e.Off != off {
				t.Fatalf("extents go on at %d, want %d", e.Off, off)
			}
			if off += e.N; !e.Zero {
				found = append(found, e)
			}
		}
	}
	return found
}

func TestA62TiBDiskIsAsGoodAsASmallOne(t *testing.T) {
	c := start(t, "unix", "memory", "62T").dial()
	want, got := random(4096), make([]byte, 4096)
	for _, off := range []int64{0, 5<<40 + 4096, c.Size() - 4096} {
		_, err := c.WriteAt(want, off)
		ok(t, err)
		clear(got)
		_, err = c.ReadAt(got, off)
		ok(t, err)
		found := data(t, c, max(0, off-8<<30), min(off+8<<30, c.Size())) // more than a request can ask about
		if !bytes.Equal(got, want) || len(found) != 1 || found[0].Off > off || found[0].Off+found[0].N < off+4096 || found[0].N > 1<<20 {
			t.Errorf("at %d: data = %v", off, found)
		}
	}
}

func TestAHoleOf62TiBCostsLessThanASecondATiB(t *testing.T) {
	c := start(t, "unix", "null", "62T").dial()
	began := time.Now()
	if found := data(t, c, 0, c.Size()); found != nil {
		t.Errorf("data = %v", found)
	}
	if took := time.Since(began); took > 62*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestAServerThatDiesEndsAllThatWait(t *testing.T) {
	k := start(t, "unix", "--filter=delay", "memory", "1M", "rdelay=60")
	c := k.dial()
	failed := make(chan error, 4)
	for range cap(failed) {
		go func() {
			_, err := c.ReadAt(make([]byte, 512), 0)
			failed <- err
		}()
	}
	ok(t, c.WriteZeroes(0, 4096)) // it has taken requests
	ok(t, k.process.Process.Signal(syscall.SIGKILL))
	for range cap(failed) {
		if err := <-failed; !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("error = %v, want one of the connection", err)
		}
	}
	if _, err := c.ReadAt(make([]byte, 512), 0); err == nil {
		t.Error("a dead connection reads")
	}
}

func TestAServerThatNeverAnswersIsGivenUp(t *testing.T) {
	k := start(t, "unix", "--filter=delay", "memory", "1M", "rdelay=600")
	c, err := nbd.Dial(t.Context(), k.network, k.address, nbd.Config{Stall: 50 * time.Millisecond})
	ok(t, err)
	if _, err := c.ReadAt(make([]byte, 512), 0); !errors.Is(err, nbd.ErrStall) {
		t.Errorf("error = %v, want a stall", err)
	}
	ok(t, c.Close())
}

func TestAbortLetsGoOfWhatWaits(t *testing.T) {
	c := start(t, "unix", "--filter=delay", "memory", "1M", "rdelay=600").dial()
	failed := make(chan error)
	go func() {
		_, err := c.ReadAt(make([]byte, 512), 0)
		failed <- err
	}()
	ok(t, c.WriteZeroes(0, 4096))
	enough := errors.New("enough")
	c.Abort(enough)
	if err := <-failed; !errors.Is(err, enough) {
		t.Errorf("error = %v, want the cause", err)
	}
}

func TestAReadOnlyExportTakesNoWrites(t *testing.T) {
	c := start(t, "unix", "-r", "memory", "1M").dial()
	for op, err := range map[string]error{"write": second(c.WriteAt([]byte{1}, 0)), "zeroes": c.WriteZeroes(0, 512), "through": second(c.WriteThrough([]byte{1}, 0))} {
		if code(err) != nbd.NotPermitted {
			t.Errorf("%s = %v", op, err)
		}
	}
	ok(t, c.Flush())
}

func second(_ int, err error) error { return err }

func TestAServerWithoutStructuredRepliesIsReadToo(t *testing.T) {
	want := random(100_000)
	c := start(t, "unix", "--no-sr", "file", written(t, want)).dial()
	got := make([]byte, len(want))
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read: %v", err)
	}
	if c.CanExtents() {
		t.Error("it cannot tell extents")
	}
	if _, err := c.Extents(0, 512); err == nil {
		t.Error("extents came from nowhere")
	}
}

func TestOnlyThisMachineIsSpokenTo(t *testing.T) {
	for _, address := range []string{"192.0.2.1:10809", "example.com:10809", "nonsense"} {
		if _, err := nbd.Dial(t.Context(), "tcp", address, nbd.Config{}); err == nil {
			t.Errorf("%s is spoken to", address)
		}
	}
}

func TestAHandshakeLastsAsLongAsItsContext(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	ok(t, err)
	defer l.Close() // nobody accepts
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := nbd.Dial(ctx, "tcp", l.Addr().String(), nbd.Config{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v", err)
	}
}

func TestAServerThatWantsMoreThanIsSpokenSaysWhat(t *testing.T) {
	k := start(t, "unix", "--tls=require", "--tls-psk="+written(t, []byte("alice:00112233445566778899aabbccddeeff\n")), "memory", "1M")
	_, err := nbd.Dial(t.Context(), k.network, k.address, nbd.Config{})
	if err == nil || !bytes.Contains([]byte(fmt.Sprint(err)), []byte("wants TLS")) {
		t.Errorf("error = %v, want one about TLS", err)
	}
}
