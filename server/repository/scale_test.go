package repository_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// imagesEach is how many images a VM of a crowd has.
const imagesEach = 20

// crowdSize is how many images the figures are taken with. Here there are few,
// so that the measuring itself is tested; "make prove-repository" takes 100,000.
func crowdSize(t testing.TB) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("KURA_PROVE_IMAGES"), "100"))
	if err != nil || n < 5*imagesEach {
		t.Fatalf("KURA_PROVE_IMAGES = %q, want a number of at least %d", os.Getenv("KURA_PROVE_IMAGES"), 5*imagesEach)
	}
	return n
}

// crowd makes images of VMs in chains: day by day one image of each VM. A
// disk has 8 to 64 blocks, half of which are in use; three in four blocks of a
// first image are another VM's, too; then one or two blocks change each day.
type crowd struct {
	t     testing.TB
	vms   int
	disks []repository.CrowdDisk
	refs  []string // last image of each VM
	all   []string
}

func (c *crowd) fill(r backup.Repository, images int) {
	c.t.Helper()
	c.vms = images / imagesEach
	c.disks, c.refs = make([]repository.CrowdDisk, c.vms), make([]string, c.vms)
	c.all = make([]string, c.vms*imagesEach)
	w := must(repository.NewCrowd(c.t.Context(), r))(c.t)
	for day := range imagesEach {
		var g errgroup.Group
		const part = 250
		for from := 0; from < c.vms; from += part {
			if from%(4*part) == 0 { // as many in one index as sessions of a few hours make
				must(0, g.Wait())(c.t)
				must(0, w.Flush(c.t.Context()))(c.t)
			}
			g.Go(func() error { return c.day(w, day, from, min(from+part, c.vms)) })
		}
		must(0, g.Wait())(c.t)
		must(0, w.Flush(c.t.Context()))(c.t)
	}
	must(0, w.Close(c.t.Context()))(c.t)
}

func (c *crowd) day(w *repository.Crowd, day, from, to int) error {
	ctx, random := c.t.Context(), rng(uint64(day*c.vms+from))
	block := make([]byte, mib)
	for vm := from; vm < to; vm++ {
		d := &c.disks[vm]
		if day == 0 {
			d.Draft = backup.DiskDraft{Key: 2000, Label: "Hard disk 1", Capacity: int64(8+vm*7%57) * mib, UUID: fmt.Sprint("disk-", vm), ChangeID: "change"}
			for n := int64(0); n < d.Draft.Capacity/mib; n += 2 {
				same := random.Uint64N(uint64(100 + c.vms))
				if random.IntN(4) == 0 {
					same = random.Uint64()
				}
				text(block, same)
				if err := w.Store(ctx, d, n, block); err != nil {
					return err
				}
			}
		} else {
			for range 1 + random.IntN(2) {
				text(block, random.Uint64())
				if err := w.Store(ctx, d, random.Int64N(d.Draft.Capacity/mib), block); err != nil {
					return err
				}
			}
		}
		draft := crowdDraft(day, vm)
		ref, err := w.Take(ctx, draft, crowdManifest(draft), d)
		if err != nil {
			return err
		}
		c.refs[vm], c.all[day*c.vms+vm] = ref, ref
	}
	return nil
}

// text fills a block with what shrinks to a few KiB.
func text(b []byte, seed uint64) {
	clear(b)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range 512 {
		b[i*2048+int(seed%1024)] = byte(r.Uint32())
	}
}

func crowdDraft(day, vm int) backup.ImageDraft {
	return backup.ImageDraft{
		ImageID: fmt.Sprintf("01980000-0000-7000-%04d-%012d", day, vm), VCenterUUID: "5e1f5a52-95cb-4a9c-8d0f-0f4b1a2f3c4d",
		InstanceUUID: fmt.Sprintf("50160000-0000-0000-0000-%012d", vm), VMName: fmt.Sprintf("vm-%05d.example", vm),
		PointInTime: time.Date(2026, 1, 1+day, 0, 0, vm, 0, time.UTC),
	}
}

func crowdManifest(d backup.ImageDraft) backup.Manifest {
	config, _ := json.Marshal(map[string]any{"name": d.VMName, "hardware": strings.Repeat("device of the machine; ", 100), "uuid": d.InstanceUUID}) // plain values: cannot fail
	return backup.Manifest{Machine: config, Image: backup.Image{
		ID: d.ImageID, VMName: d.VMName, VMInstanceUUID: d.InstanceUUID, ScheduleID: "01980000-1111-7000-8000-000000000001",
		GroupID: "01980000-2222-7000-8000-000000000001", Status: backup.ImageGood,
		PointInTime: d.PointInTime, EndedAt: d.PointInTime.Add(time.Minute), ExpiresAt: d.PointInTime.AddDate(0, 1, 0),
	}}
}

// cost is what a step has cost.
type cost struct {
	Step     string  `json:"step"`
	Seconds  float64 `json:"s"`
	CPU      float64 `json:"cpu_s"`
	Peak     int64   `json:"peak_mib"`
	Requests string  `json:"requests,omitempty"`
	Note     string  `json:"note,omitempty"`
}

// measure runs a step and notes what it costs. Memory is the process's own peak.
func measure(t testing.TB, o *repository.Operations, step string, do func() string) (cost, int64) {
	t.Helper()
	debug.FreeOSMemory()
	// A file of the kernel's: 5 lets the peak begin anew.
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o600) // where it fails the peak is that of all steps before
	o.Take()
	cpu, begun := cpuTime(t), time.Now()
	c := cost{Step: step, Note: do()}
	c.Seconds, c.CPU = time.Since(begun).Seconds(), (cpuTime(t) - cpu).Seconds()
	requests := o.Sum()
	c.Requests, c.Peak = o.Take(), peakMiB(t)
	return c, requests
}

func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	must(0, syscall.Getrusage(syscall.RUSAGE_SELF, &u))(t)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func peakMiB(t testing.TB) int64 {
	b := must(os.ReadFile("/proc/self/status"))(t)
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	f := strings.Fields(rest)
	return must(strconv.ParseInt(f[0], 10, 64))(t) >> 10
}

// scale are the figures of a repository of one size.
type scale struct {
	Images int    `json:"images"`
	Held   int64  `json:"held_mib"` // by the process with the repository open, at the end
	Steps  []cost `json:"steps"`
}

// TestRepositoryFigures measures what a repository of very many images costs,
// and that what is done with one image does not depend on how many there are.
// Figures go to the file KURA_BENCH_OUT too.
func TestRepositoryFigures(t *testing.T) {
	n := crowdSize(t)
	sizes := []int{n}
	if n >= 10_000 {
		sizes = []int{n / 10, n * 3 / 10, n}
	}
	var all []scale
	for _, images := range sizes {
		t.Run(fmt.Sprint(images), func(t *testing.T) { all = append(all, measureScale(t, images)) })
	}
	if path := os.Getenv("KURA_BENCH_OUT"); path != "" {
		b := must(json.MarshalIndent(map[string]any{"repository": all}, "", "  "))(t)
		must(0, os.WriteFile(path, append(b, '\n'), 0o600))(t)
	}
}

func measureScale(t *testing.T, images int) scale {
	s := newSite(t)
	var o repository.Operations
	out := scale{Images: images}
	step := func(name string, do func() string) int64 {
		k, requests := measure(t, &o, name, do)
		out.Steps = append(out.Steps, k)
		t.Logf("%-34s %7.2f s %7.2f CPU-s %5d MiB  %-52s %s", k.Step, k.Seconds, k.CPU, k.Peak, k.Requests, k.Note)
		return requests
	}
	c := &crowd{t: t}
	step("generate", func() string { c.fill(s.Repository, images); return "" })
	must(0, s.rs.Close(t.Context()))(t)
	var ahead time.Duration
	var r backup.Repository
	var end func()
	open := func() { r, end = s.watchedUntil(&o, &ahead) }
	step("open", func() string { open(); return "" })
	step("first image: reads the manifests", func() string { must(r.Image(t.Context(), c.refs[0]))(t); return "" })
	few := func(name string, most int64, do func()) {
		if n := step(name, func() string { do(); return "" }); n > most {
			t.Errorf("%s among %d images took %d requests to the storage, want at most %d", name, images, n, most)
		}
	}
	few("next image", 4, func() { must(r.Image(t.Context(), c.refs[1]))(t) })
	d := solid(rng(1), 8)
	few("backup of 8 MiB", 60, func() { take(t, r, draft("one-more"), d) })
	few("its look at the packs", 40, func() { must(r.Verify(t.Context(), c.refs[2], backup.Verification{}))(t) })
	few("deletion", 40, func() { must(0, r.Delete(t.Context(), c.all[0]))(t) })
	few("restart: open and an image", 60+int64(images)/400, func() {
		end()
		open()
		must(r.Image(t.Context(), c.refs[3]))(t)
	})
	few("all manifests, for a new catalogue", 60+int64(images)/200, func() {
		if all := must(r.Images(t.Context()))(t); len(all) != images/imagesEach*imagesEach {
			t.Errorf("Images() = %d, want %d", len(all), images/imagesEach*imagesEach)
		}
	})
	collect := func() string {
		k := must(repository.CollectAtOnce(t.Context(), r, backup.Collection{}))(t)
		return fmt.Sprintf("%d marked, %d packs freed, %d MiB moved, %d index blobs", k.MarkedN, k.FreedPacks, k.Rewritten>>20, k.IndexBlobs)
	}
	step("collection that moves small packs", collect)
	few("collection that removes them", 200+int64(images)/100, func() { collect() })
	few("gathering of the index", 60, func() { gather(t, r) })
	few("next collection", 200+int64(images)/100, func() { collect() })
	out.Held = heldMiB()
	t.Logf("%d images, %d MiB held with the repository open", images, out.Held)
	compareCrowd(t, r, c)
	return out
}

// compareCrowd reads images after all that, the last of a VM and one before.
func compareCrowd(t *testing.T, r backup.Repository, c *crowd) {
	t.Helper()
	for _, ref := range []string{c.refs[0], c.refs[len(c.refs)-1], c.all[c.vms+1], c.all[1]} {
		if v := must(r.Verify(t.Context(), ref, backup.Verification{Read: true}))(t); v.Message != "" || v.Bytes == 0 {
			t.Errorf("Verify() = %+v, want all bytes read and whole", v)
		}
	}
}

// heldMiB is what the process's heap holds.
func heldMiB() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse >> 20)
}
