package vmdk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/vmdk"
)

const mib = 1 << 20

// content is a disk of holes, random bytes and text, with something in its last bytes.
func content(size int64) []byte {
	raw := make([]byte, size)
	rnd := rand.NewChaCha8([32]byte{1})
	for at := int64(0); at < size; at += size/7 + 1 {
		n := min(size/19+1, size-at)
		_, _ = rnd.Read(raw[at : at+n])
		for i := at; i < at+n/2; i++ {
			raw[i] = "kura stores images "[raw[i]%19]
		}
	}
	copy(raw[max(size-7, 0):], "the end")
	return raw
}

func encode(t testing.TB, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := vmdk.NewWriter(&b, int64(len(raw)))
	if err != nil {
		t.Fatalf("NewWriter(%d): %v", len(raw), err)
	}
	for off := 0; off < len(raw); off += mib {
		if _, err := w.WriteAt(raw[off:min(off+mib, len(raw))], int64(off)); err != nil {
			t.Fatalf("WriteAt(%d): %v", off, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return b.Bytes()
}

// decode returns the whole disk; it is for disks that the test made itself.
func decode(r io.Reader) ([]byte, error) {
	v, err := vmdk.NewReader(r)
	if err != nil {
		return nil, err
	}
	out := make([]byte, v.Capacity())
	for {
		off, grain, err := v.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		copy(out[off:], grain)
	}
}

func qemu(t testing.TB, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Fatalf("qemu-img is missing; on Debian: apt-get install qemu-utils")
	}
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v\n%s", args, err, out)
	}
}

func file(t testing.TB, name string, b []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestQemuAndKuraReadEachOther(t *testing.T) {
	for name, raw := range map[string][]byte{
		"whole grains":                  content(64 * mib),
		"capacity no multiple of 64KiB": content(64*mib + 512*77),
		"one grain":                     content(vmdk.GrainSize),
		"one sector":                    content(512),
		"more than one grain table":     content(70*mib + vmdk.GrainSize),
		"no data at all":                make([]byte, 5*mib),
	} {
		t.Run(name, func(t *testing.T) {
			plain := file(t, "disk.raw", raw)
			ours := file(t, "ours.vmdk", encode(t, raw))
			qemu(t, "compare", "-f", "vmdk", "-F", "raw", ours, plain)
			qemu(t, "check", "-f", "vmdk", ours)

			if vmdk.IsZero(raw) {
				return // qemu-img, unlike vSphere, writes no end-of-stream marker for an empty disk
			}
			theirs := filepath.Join(t.TempDir(), "theirs.vmdk")
			qemu(t, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", plain, theirs)
			f, err := os.Open(theirs)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := decode(f)
			if err != nil {
				t.Fatalf("read what qemu-img wrote: %v", err)
			}
			// qemu-img rounds the capacity up to whole grains.
			if len(got) < len(raw) || !bytes.Equal(got[:len(raw)], raw) || !vmdk.IsZero(got[len(raw):]) {
				t.Errorf("what qemu-img wrote reads otherwise: %d bytes, want %d", len(got), len(raw))
			}
		})
	}
}

func TestASparseDiskAboveTwoTiBIsReadByQemu(t *testing.T) {
	const capacity = int64(5<<40) + 3*vmdk.GrainSize
	at := map[int64][]byte{}
	var b bytes.Buffer
	w, err := vmdk.NewWriter(&b, capacity)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 1 << 40, 2<<40 - vmdk.GrainSize, 2 << 40, capacity - vmdk.GrainSize} {
		at[off] = content(vmdk.GrainSize)
		at[off][0] = byte(off >> 38)
		if err := w.WriteGrain(off/vmdk.GrainSize, at[off]); err != nil {
			t.Fatalf("WriteGrain at %d: %v", off, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 2*mib {
		t.Errorf("five grains on 5 TiB take %d bytes, want little more than the directory", b.Len())
	}
	ours := file(t, "ours.vmdk", b.Bytes())
	for off, want := range at { // comparing 5 TiB of holes would take a minute
		one := filepath.Join(t.TempDir(), "grain")
		qemu(t, "dd", "-f", "vmdk", "-O", "raw", "bs=65536", "count="+fmt.Sprint(off/vmdk.GrainSize+1), "skip="+fmt.Sprint(off/vmdk.GrainSize), "if="+ours, "of="+one)
		got, err := os.ReadFile(one)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("qemu-img reads the grain at %d otherwise (%v)", off, err)
		}
	}
	qemu(t, "check", "-f", "vmdk", ours)

	r, err := vmdk.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	for off, grain, err := r.Next(); !errors.Is(err, io.EOF); off, grain, err = r.Next() {
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(at[off], grain) {
			t.Errorf("the grain at %d reads otherwise", off)
		}
		delete(at, off)
	}
	if len(at) != 0 {
		t.Errorf("%d grains did not come back", len(at))
	}
}

func TestA62TiBDiskWithOneGrainCostsItsDirectoryOnly(t *testing.T) {
	var b bytes.Buffer
	w, err := vmdk.NewWriter(&b, 62<<40)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteGrain(62<<40/vmdk.GrainSize-1, content(vmdk.GrainSize)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := vmdk.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	off, _, err := r.Next()
	if err != nil || off != 62<<40-vmdk.GrainSize {
		t.Errorf("Next() = %d, %v, want the last grain of the disk", off, err)
	}
	if _, _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last grain: %v, want io.EOF", err)
	}
}

func TestATruncatedStreamIsNeverAWholeDisk(t *testing.T) {
	whole := encode(t, content(8*mib))
	for _, n := range []int{0, 1, 511, 512, 4096, len(whole) / 2, len(whole) - 1024, len(whole) - 512, len(whole) - 1} {
		if _, err := decode(bytes.NewReader(whole[:n])); !errors.Is(err, vmdk.ErrTruncated) {
			t.Errorf("stream cut after %d of %d bytes: %v, want ErrTruncated", n, len(whole), err)
		}
	}
}

func TestDamageIsFound(t *testing.T) {
	whole := encode(t, content(2*mib))
	for _, at := range []int{0, 10, 77, 65536 + 3, 65536 + 40, 65536 + 30000} {
		bad := bytes.Clone(whole)
		bad[at] ^= 0x55
		if _, err := decode(bytes.NewReader(bad)); err == nil {
			t.Errorf("a stream with byte %d changed reads without an error", at)
		}
	}
}

func TestAGrainThatComesTwiceIsRefused(t *testing.T) {
	whole := encode(t, content(vmdk.GrainSize))
	const first = 65536
	size := int(whole[first+8]) | int(whole[first+9])<<8 | int(whole[first+10])<<16
	padded := (12 + size + 511) / 512 * 512
	twice := append(bytes.Clone(whole[:first+padded]), whole[first:]...)
	if _, err := decode(bytes.NewReader(twice)); !errors.Is(err, vmdk.ErrInvalid) {
		t.Errorf("the same grain twice: %v, want ErrInvalid", err)
	}
}

func TestTheWriterRefusesWhatCannotBeRight(t *testing.T) {
	for _, capacity := range []int64{-1, 0, 511, 1000, vmdk.MaxCapacity + 512} {
		if _, err := vmdk.NewWriter(io.Discard, capacity); err == nil {
			t.Errorf("NewWriter(%d) accepted the capacity", capacity)
		}
	}
	w, err := vmdk.NewWriter(io.Discard, 4*vmdk.GrainSize+512)
	if err != nil {
		t.Fatal(err)
	}
	full := content(vmdk.GrainSize)
	if err := w.WriteGrain(1, full); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"the same grain":      w.WriteGrain(1, full),
		"an earlier grain":    w.WriteGrain(0, full),
		"a negative grain":    w.WriteGrain(-1, full),
		"a short grain":       w.WriteGrain(2, full[:512]),
		"a long last grain":   w.WriteGrain(4, full),
		"beyond the end":      w.WriteGrain(5, full),
		"an unaligned offset": second(w.WriteAt(full, 2*vmdk.GrainSize+512)),
		"a ragged length":     second(w.WriteAt(full[:1000], 2*vmdk.GrainSize)),
	} {
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if err := w.WriteGrain(4, full[:512]); err != nil {
		t.Errorf("the short last grain: %v", err)
	}
}

func second[A any](_ A, err error) error { return err }

type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errors.New("peer is gone")
	}
	return len(p), nil
}

func TestAWriteErrorIsReportedByCloseToo(t *testing.T) {
	w, err := vmdk.NewWriter(&failing{left: 100 << 10}, 8*mib)
	if err != nil {
		t.Fatal(err)
	}
	raw := content(8 * mib)
	_, err = w.WriteAt(raw, 0)
	if cerr := w.Close(); err == nil && cerr == nil {
		t.Error("a broken connection went unnoticed")
	}
}

// short leaves out the descriptor, so that the fuzzer does not lose itself in its padding.
func short(stream []byte) []byte {
	const overhead = 64 // the header's field
	head := bytes.Clone(stream[:512])
	binary.LittleEndian.PutUint64(head[overhead:], 1)
	return append(head, stream[64<<10:]...)
}

func FuzzReader(f *testing.F) {
	whole := short(encode(f, append(bytes.Repeat([]byte("kura"), vmdk.GrainSize/4), make([]byte, 512)...)))
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(short(encode(f, make([]byte, 512))))
	f.Add([]byte("KDMV"))
	big := bytes.Clone(whole)
	copy(big[12:], []byte{0, 0, 0, 0, 0, 0, 0, 0x7f})
	f.Add(big)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := vmdk.NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		var sum int64
		for {
			off, grain, err := r.Next()
			if err != nil {
				return
			}
			sum += int64(len(grain))
			if off < 0 || off+int64(len(grain)) > r.Capacity() || sum > r.Capacity() {
				t.Fatalf("grain of %d bytes at %d on a disk of %d", len(grain), off, r.Capacity())
			}
		}
	})
}

func benchDisk() []byte {
	raw := make([]byte, 64*mib)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(raw)
	for i := range raw { // two thirds text, one third random
		if i/vmdk.GrainSize%3 != 0 {
			raw[i] = "kura stores images of virtual machines "[raw[i]%39]
		}
	}
	return raw
}

func BenchmarkWriter(b *testing.B) {
	raw := benchDisk()
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		w, err := vmdk.NewWriter(io.Discard, int64(len(raw)))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.WriteAt(raw, 0); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	raw := benchDisk()
	enc := encode(b, raw)
	b.SetBytes(int64(len(raw)))
	b.ReportMetric(float64(len(enc))/float64(len(raw)), "ratio")
	b.ReportAllocs()
	for b.Loop() {
		r, err := vmdk.NewReader(bytes.NewReader(enc))
		if err != nil {
			b.Fatal(err)
		}
		for _, _, err = r.Next(); err == nil; {
			_, _, err = r.Next()
		}
		if !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
	}
}
