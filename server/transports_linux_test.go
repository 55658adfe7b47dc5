package server_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// transportFigure is what one backup over one transport cost.
type transportFigure struct {
	Transport string  `json:"transport"`
	Step      string  `json:"step"`
	Detection string  `json:"change_detection"`
	Seconds   float64 `json:"seconds"`
	CPU       float64 `json:"cpu_seconds"` // of the server's process
	MemoryMiB float64 `json:"memory_mib"`  // its peak
	ReadMiB   float64 `json:"read_mib"`    // of the disk
	WireMiB   float64 `json:"wire_mib"`    // sent by the lab; 0 = not a network of ours
	StoredMiB float64 `json:"stored_mib"`
}

// changePatterns are two ways in which a hundredth of the data changes.
var changePatterns = []struct {
	name string
	size int64
}{{"few large changes", 2 << 20}, {"many scattered changes", 64 << 10}}

// TestWhatATransportCosts backs one thin disk up over each transport: whole,
// and after a hundredth of its data has changed in either way. Over hotadd and
// nbd no more is read than the blocks that the changes touch, and some samples.
// KURA_PROVE_DATA_MIB is what the disk holds, of 25 times that size: "make
// prove-vsphere" has 8192 in 200 GiB.
func TestWhatATransportCosts(t *testing.T) {
	mib, err := strconv.ParseInt(cmp.Or(os.Getenv("KURA_PROVE_DATA_MIB"), "64"), 10, 64)
	if err != nil || mib < 64 {
		t.Fatalf("KURA_PROVE_DATA_MIB = %q, want a number of at least 64", os.Getenv("KURA_PROVE_DATA_MIB"))
	}
	capacity := 25 * mib << 20
	l := newLab(t, lab.Config{VMs: 2, DiskSize: 8 << 20})
	proxy, err := l.MakeProxy("vm01")
	if err != nil {
		t.Fatal(err)
	}
	none := 0.0
	vm, err := l.AddVM(t.Context(), lab.VMSpec{Name: "thin", Disks: []int64{capacity}, Fill: &none})
	if err != nil {
		t.Fatal(err)
	}
	b := &transportBench{T: t, lab: l, key: vm.Disks[0].Key, capacity: capacity, data: mib << 20, proxy: proxy, dir: t.TempDir()}
	b.fill()
	var all []transportFigure
	for _, transport := range []api.Transport{api.TransportNfc, api.TransportHotadd, api.TransportNbd, api.TransportAuto} {
		all = append(all, b.measure(transport)...)
	}
	for _, f := range all {
		t.Logf("%-7s %-24s %-8s %7.2f s %7.2f CPU-s %5.0f MiB memory, read %9.2f MiB, wire %9.2f MiB, stored %9.2f MiB",
			f.Transport, f.Step, f.Detection, f.Seconds, f.CPU, f.MemoryMiB, f.ReadMiB, f.WireMiB, f.StoredMiB)
	}
	if path := os.Getenv("KURA_BENCH_OUT"); path != "" {
		text, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".transports", append(text, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// transportBench is a lab with one large thin disk in it.
type transportBench struct {
	*testing.T
	lab      *lab.Lab
	key      int32
	capacity int64
	data     int64  // bytes that the disk holds
	proxy    string // BIOS UUID of the VM in which servers run
	dir      string
	seed     uint64
}

// fill writes the disk's data, in pieces that are spread over it.
func (b *transportBench) fill() {
	b.Helper()
	const piece = 8 << 20
	for i := range b.data / piece {
		b.write(b.place(i), piece)
	}
}

// place is where the n-th 8 MiB of the data lie: a third of the disk is left empty in between.
func (b *transportBench) place(n int64) int64 {
	return n * (b.capacity / (b.data / (8 << 20))) &^ (1<<20 - 1)
}

func (b *transportBench) write(off, n int64) {
	b.Helper()
	b.seed += 1 << 40
	if err := b.lab.GuestWriteRandom("thin", b.key, off, n, b.seed); err != nil {
		b.Fatal(err)
	}
}

// change writes a hundredth of the data anew, in pieces of that size.
func (b *transportBench) change(size int64) (written int64) {
	b.Helper()
	pieces := max(b.data/100/size, 1)
	for i := range pieces {
		n := i * (b.data / (8 << 20)) / pieces
		b.write(b.place(n)+(i*(3<<20))%(8<<20-size)&^(4<<10-1), size)
		written += size
	}
	return written
}

// measure backs the disk up with a server of its own, so that each transport has an empty repository.
func (b *transportBench) measure(transport api.Transport) (all []transportFigure) {
	b.Helper()
	p := spawn(b.T, child{DeviceSocket: serveDevices(b.T, b.lab, "vm01"), ProxyUUID: b.proxy, NBDCommand: b.nbdCommand()})
	defer p.kill()
	w := &world{T: b.T, ctx: b.Context(), lab: b.lab, api: client(b.T, p.url, p.tokenFile())}
	v := w.vcenter("lab")
	vm := w.vm(v.ID, "thin").ID
	w.backup(w.vm(v.ID, "vm02").ID) // the first use of a repository is not what is measured
	w.transport(v, transport)
	all = append(all, b.step(p, w, vm, transport, "full"))
	for _, c := range changePatterns {
		written := b.change(c.size)
		f := b.step(p, w, vm, transport, c.name)
		if transport != api.TransportNfc {
			pieces := max(b.data/100/c.size, 1)
			most := float64(written+2*pieces*(256<<10))/(1<<20) + sampledMiB
			if f.ReadMiB > most || f.Detection != string(api.ChangeDetectionCbt) {
				b.Errorf("%s, %s: read %.2f MiB by %s, want at most %.2f by cbt", transport, c.name, f.ReadMiB, f.Detection, most)
			}
		}
		all = append(all, f)
	}
	b.compare(w, vm)
	return all
}

// transport sets the vcenter's.
func (w *world) transport(v api.VCenter, t api.Transport) {
	w.Helper()
	g, err := w.api.GetVCenterWithResponse(w.ctx, v.ID)
	w.ok(g, err)
	v = *g.JSON200
	v.Transport = t
	u, err := w.api.UpdateVCenterWithResponse(w.ctx, v.ID, nil, v)
	w.ok(u, err)
}

// sampledMiB is what a backup reads of a disk to see whether its changes were told rightly.
const sampledMiB = 8

// step measures one backup.
func (b *transportBench) step(p *process, w *world, vm string, transport api.Transport, step string) transportFigure {
	b.Helper()
	if transport == api.TransportNbd {
		b.spread()
	}
	cpu := p.cpu()
	p.forgetPeak()
	wire, began := b.lab.Traffic(), time.Now()
	i := w.backup(vm)
	const m = 1 << 20
	return transportFigure{Transport: string(transport), Step: step, Detection: string(i.ChangeDetection), Seconds: time.Since(began).Seconds(),
		CPU: (p.cpu() - cpu).Seconds(), MemoryMiB: float64(p.peak()) / m, ReadMiB: float64(i.Sizes.Read) / m,
		WireMiB: float64(b.lab.Traffic()-wire) / m, StoredMiB: float64(i.Sizes.Stored) / m}
}

// compare restores the newest image and compares the disks.
func (b *transportBench) compare(w *world, vm string) {
	b.Helper()
	images := w.images("thin")
	name := "copy of " + filepath.Base(b.TempDir())
	r := w.restore(api.Restore{ImageID: images[0].ID, NewVM: &api.RestoreNewVM{Name: name}})
	if r.Status != api.JobStateSucceeded {
		b.Fatalf("restore of %s: %+v", vm, r.Error)
	}
	want, got := w.data("thin"), w.data(name)
	if got != want {
		b.Errorf("the restored disk is another: %s, want %s", got, want)
	}
	if err := b.lab.RemoveVM(w.ctx, name); err != nil {
		b.Fatal(err)
	}
}

// spread writes the disk to the file that nbdkit serves.
func (b *transportBench) spread() {
	b.Helper()
	f, err := os.Create(filepath.Join(b.dir, strconv.Itoa(int(b.key))))
	if err != nil {
		b.Fatal(err)
	}
	if err := b.lab.CopyDisk(b.Context(), "thin", b.key, f); err != nil {
		b.Fatal(err)
	}
	if err := f.Truncate(b.capacity); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
}

// nbdCommand is a program that serves those files.
func (b *transportBench) nbdCommand() string {
	b.Helper()
	path := filepath.Join(b.dir, "serve")
	text := fmt.Sprintf("#!/bin/sh\nexec nbdkit -f --exit-with-parent -r -U \"$KURA_NBD_SOCKET\" file \"%s/$KURA_DISK_KEY\"\n", b.dir)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		b.Fatal(err)
	}
	return path
}
