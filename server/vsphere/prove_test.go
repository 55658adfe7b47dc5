package vsphere_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// size reads a size of a proof from the environment; tests run small.
func size(t *testing.T, key string, small int) int {
	t.Helper()
	text := os.Getenv(key)
	if text == "" {
		return small
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return n
}

// heap tells the memory in use while fn runs, the lab's before it left out.
func heap(fn func()) (peak uint64) {
	read := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC()
	before := read()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				peak = max(peak, read())
			}
		}
	})
	fn()
	close(stop)
	wg.Wait()
	if peak < before {
		return 0
	}
	return peak - before
}

// cpu is the time that this process has had of a processor.
func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// figure prints a measurement, and adds it to the file that KURA_BENCH_OUT names.
func figure(t *testing.T, name string, value float64, unit string) {
	t.Helper()
	t.Logf("%-40s %10.3f %s", name, value, unit)
	out := os.Getenv("KURA_BENCH_OUT")
	if out == "" {
		return
	}
	f, err := os.OpenFile(out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, `{"name": %q, "value": %g, "unit": %q}`+"\n", "vsphere/"+name, value, unit)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// KURA_PROVE_VMS=10000 is the full size.
func TestTheInventoryOfManyVMsIsReadAndFollowedInTime(t *testing.T) {
	n := size(t, "KURA_PROVE_VMS", 300)
	full := n >= 10_000 // smaller ones run beside other tests, where a clock tells little
	began := time.Now()
	r := setup(t, lab.Config{VMs: n, Hosts: 8, Datastores: 4, DiskSize: 1 << 20, Fill: 0.001})
	figure(t, fmt.Sprintf("lab of %d VMs", n), time.Since(began).Seconds(), "s")

	var first backup.InventoryChange
	began = time.Now()
	peak := heap(func() {
		var err error
		first, err = r.session.Inventory(t.Context(), "")
		r.ok(err)
	})
	took := time.Since(began)
	figure(t, fmt.Sprintf("first inventory of %d VMs", n), took.Seconds(), "s")
	figure(t, "memory of it, the lab's part included", float64(peak)/(1<<20), "MiB")
	if len(first.VMs) != n {
		t.Fatalf("%d VMs, want %d", len(first.VMs), n)
	}
	if full && (took > 30*time.Second || peak > 500<<20) {
		t.Errorf("first inventory took %s and %d MiB, want at most 30 s and 500 MiB", took, peak>>20)
	}
	version := first.Version
	for i := range 3 {
		vm := fmt.Sprintf("vm%02d", i+1)
		r.ok(r.lab.SetPower(t.Context(), vm, false))
		before := cpu().Seconds()
		began = time.Now()
		change, err := r.session.Inventory(t.Context(), version)
		r.ok(err)
		took := time.Since(began)
		figure(t, "CPU of it, the lab's part included", cpu().Seconds()-before, "s")
		figure(t, "update after one change", took.Seconds(), "s")
		if change.Full || len(change.VMs) != 1 || change.VMs[0].Name != vm {
			t.Errorf("update = full %v, %d VMs, want %s", change.Full, len(change.VMs), vm)
		}
		if full && took > time.Second {
			t.Errorf("an update took %s, want at most 1 s", took)
		}
		version = change.Version
	}
}

// tally counts a stream without keeping it.
type tally struct {
	mu    sync.Mutex
	bytes int64
}

func (t *tally) WriteAt(p []byte, _ int64) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes += int64(len(p))
	return len(p), nil
}

// KURA_PROVE_DISK_MIB=20480 is the full size.
func TestALargeThinDiskIsStreamedInLittleMemory(t *testing.T) {
	mib := size(t, "KURA_PROVE_DISK_MIB", 256)
	r := setup(t, lab.Config{VMs: 1, DiskSize: int64(mib) << 20, Fill: 0.15})
	snap, err := r.session.CreateSnapshot(t.Context(), r.draft("vm01", "j1"))
	r.ok(err)
	var read int64
	began := time.Now()
	peak := heap(func() {
		src, err := r.session.ReadDisks(t.Context(), snap, backup.ReadDraft{Keys: []int32{snap.Disks[0].Key}})
		r.ok(err)
		read, err = src.ReadDisk(t.Context(), snap.Disks[0].Key, new(tally))
		r.ok(err)
		r.ok(src.Close(t.Context()))
	})
	took := time.Since(began).Seconds()
	figure(t, fmt.Sprintf("export of a disk of %d MiB", mib), float64(read)/(1<<20)/took, "MiB/s of data")
	figure(t, "memory of it, the lab's part included", float64(peak)/(1<<20), "MiB")
	if peak > 64<<20 {
		t.Errorf("an export took %d MiB of memory, want at most 64", peak>>20)
	}
	r.importLarge(snap, mib)
	if read == 0 || read > snap.Disks[0].Capacity/2 {
		t.Errorf("read %d bytes of a disk of %d that is thin", read, snap.Disks[0].Capacity)
	}
}

// importLarge makes a VM of a disk of the same size that no file holds.
func (r *rig) importLarge(snap backup.Snapshot, mib int) {
	r.Helper()
	d := snap.Disks[0]
	img := &striped{image: image{files: map[string][]byte{}}, capacity: d.Capacity}
	img.manifest.Machine = snap.Config
	img.manifest.Image.Disks = []backup.ImageDisk{{Key: d.Key, Label: d.Label, Capacity: d.Capacity}}
	var vm backup.RestoredVM
	began := time.Now()
	peak := heap(func() {
		var err error
		vm, _, err = r.session.ImportVM(r.Context(), backup.ImportDraft{Marker: marker("r1"), NewVM: backup.RestoreNewVM{Name: "large"}}, img, func(int64) {})
		r.ok(err)
	})
	took := time.Since(began).Seconds()
	figure(r.T, fmt.Sprintf("import of a disk of %d MiB", mib), float64(d.Capacity/stripe*stripeData)/(1<<20)/took, "MiB/s of data")
	figure(r.T, "memory of it, the lab's part included", float64(peak)/(1<<20), "MiB")
	if peak > 64<<20 {
		r.Errorf("an import took %d MiB of memory, want at most 64", peak>>20)
	}
	h := sha256.New()
	_, err := io.Copy(h, io.NewSectionReader(stripes(d.Capacity), 0, d.Capacity))
	r.ok(err)
	if got, want := r.guestSum(vm.MOID, 0), hex.EncodeToString(h.Sum(nil)); got != want {
		r.Errorf("the large disk has the checksum %s, want %s", got, want)
	}
}

// striped is an image of one disk whose bytes are reckoned, not kept.
type striped struct {
	image
	capacity int64
}

func (s *striped) Disk(context.Context, int32) (backup.DiskReader, error) {
	return stripes(s.capacity), nil
}

const (
	stripe     = 8 << 20 // every so many bytes ...
	stripeData = 1 << 20 // ... hold so many that are not zero
)

// stripes is such a disk of so many bytes.
type stripes int64

func (s stripes) Capacity() int64 { return int64(s) }
func (s stripes) Close() error    { return nil }

func (s stripes) Next(off int64) (start, n int64) {
	if off%stripe >= stripeData {
		off = off/stripe*stripe + stripe
	}
	if off >= int64(s) {
		return off, 0
	}
	return off, min(off/stripe*stripe+stripeData, int64(s)) - off
}

func (s stripes) ReadAt(p []byte, off int64) (int, error) {
	const unit = 4096
	done := 0
	for done < len(p) && off+int64(done) < int64(s) {
		at := off + int64(done)
		k := min(int(unit-at%unit), len(p)-done, int(int64(s)-at))
		clear(p[done : done+k])
		if at%stripe < stripeData {
			block := make([]byte, unit)
			lab.Noise(uint64(at/unit), block)
			copy(p[done:done+k], block[at%unit:])
		}
		done += k
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}
