package server_test

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestAHugeDiskCostsWhatItHolds: a disk of 2,032 GiB, the largest that NTT
// allows (seed:N55), is backed up, backed up again after a change, and restored;
// a hole is neither read nor stored. KURA_PROVE_HUGE_MIB is what it holds: "make
// prove-vsphere" has 1,536 in it, and in one of 62 TiB, the largest of vSphere.
func TestAHugeDiskCostsWhatItHolds(t *testing.T) {
	mib, err := strconv.ParseInt(cmp.Or(os.Getenv("KURA_PROVE_HUGE_MIB"), "24"), 10, 64)
	if err != nil || mib < 2 {
		t.Fatalf("KURA_PROVE_HUGE_MIB = %q, want a number of at least 2", os.Getenv("KURA_PROVE_HUGE_MIB"))
	}
	capacities := []int64{mib << 20, 2032 << 30} // the first has no holes: what the data alone costs
	if mib >= 1024 {
		capacities = append(capacities, 62<<40)
	}
	w := newWorld(t, lab.Config{VMs: -1, DatastoreSize: 512 << 40}, server.Config{})
	for i, capacity := range capacities {
		w.hugeDisk(fmt.Sprintf("vm%d", i), capacity, mib)
	}
	v := w.vcenter("lab")
	var dense []time.Duration
	for i, capacity := range capacities {
		name := fmt.Sprintf("vm%d", i)
		took := w.hugeRound(name, w.vm(v.ID, name).ID, capacity, mib)
		if i == 0 {
			dense = took
			continue
		}
		for k, step := range []string{"first backup", "backup after a MiB was written", "restore to a new VM"} {
			t.Logf("%8.2f TiB: %-32s %6.1f s; without holes %5.1f s; holes %5.2f s a TiB", float64(capacity)/(1<<40), step,
				took[k].Seconds(), dense[k].Seconds(), (took[k]-dense[k]).Seconds()*(1<<40)/float64(capacity))
		}
	}
	w.noLeftovers()
}

// hugeDisk makes a VM whose disk holds so many MiB, spread over all of it.
func (w *world) hugeDisk(name string, capacity, mib int64) {
	w.Helper()
	none := 0.0
	vm, err := w.lab.AddVM(w.ctx, lab.VMSpec{Name: name, Disks: []int64{capacity}, Fill: &none})
	if err != nil {
		w.Fatal(err)
	}
	step := capacity / mib &^ (1<<20 - 1)
	for i := range mib {
		off := i * step
		if i == mib-1 {
			off = capacity - 1<<20 // the end of the disk, too
		}
		if err := w.lab.GuestWriteRandom(name, vm.Disks[0].Key, off, 1<<20, uint64(i)<<32); err != nil {
			w.Fatal(err)
		}
	}
}

// hugeRound backs a VM up, changes it, backs it up again, restores it, and
// returns how long each took.
func (w *world) hugeRound(name, vmID string, capacity, mib int64) (took []time.Duration) {
	w.Helper()
	timed := func(fn func()) {
		began := time.Now()
		fn()
		took = append(took, time.Since(began))
	}
	var image api.BackupImage
	made := func() {
		image = w.backup(vmID)
		if most := (mib + 8) << 20; image.Sizes.Read > most || image.Sizes.Provisioned != capacity {
			w.Errorf("%s: read %d bytes of %d, want at most %d of %d", name, image.Sizes.Read, image.Sizes.Provisioned, most, capacity)
		}
	}
	timed(made)
	if err := w.lab.GuestWriteRandom(name, w.machine(name).Disks[0].Key, capacity/2, 1<<20, 99); err != nil {
		w.Fatal(err)
	}
	timed(made)
	if image.Sizes.Stored > 10<<20 {
		w.Errorf("%s: a MiB of changes stored %d bytes", name, image.Sizes.Stored)
	}
	want := w.data(name)
	timed(func() {
		r := w.restore(api.Restore{ImageID: image.ID, NewVM: &api.RestoreNewVM{Name: name + "-copy"}})
		if r.Status != api.JobStateSucceeded {
			w.Fatalf("%s: restore: %+v", name, r.Error)
		}
	})
	if got := w.data(name + "-copy"); got != want {
		w.Errorf("%s: the restored disk is another: %s, want %s", name, got, want)
	}
	return took
}

// data is the checksum of what a VM's first disk holds.
func (w *world) data(vm string) string {
	w.Helper()
	sum, err := w.lab.DataSHA256(w.ctx, vm, w.machine(vm).Disks[0].Key)
	if err != nil {
		w.Fatal(err)
	}
	return sum
}
