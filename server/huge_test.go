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
	capacities := []int64{2032 << 30}
	if mib >= 1024 {
		capacities = append(capacities, 62<<40)
	}
	w := newWorld(t, lab.Config{VMs: -1, DatastoreSize: 512 << 40}, server.Config{})
	for i, capacity := range capacities {
		w.hugeDisk(fmt.Sprintf("huge%d", i), capacity, mib)
	}
	v := w.vcenter("lab")
	for i, capacity := range capacities {
		name := fmt.Sprintf("huge%d", i)
		vm := w.vm(v.ID, name)
		first := w.timedBackup(name, "first backup", vm.ID, capacity, mib)
		if err := w.lab.GuestWriteRandom(name, w.machine(name).Disks[0].Key, capacity/2, 1<<20, 99); err != nil {
			t.Fatal(err)
		}
		second := w.timedBackup(name, "backup after a MiB was written", vm.ID, capacity, mib)
		if second.Sizes.Stored > 8<<20 {
			t.Errorf("%s: a MiB of changes stored %d bytes", name, second.Sizes.Stored)
		}
		if first.Sizes.Provisioned != capacity {
			t.Errorf("%s: provisioned %d, want %d", name, first.Sizes.Provisioned, capacity)
		}
		want := w.data(name)
		began := time.Now()
		r := w.restore(api.Restore{ImageID: second.ID, NewVM: &api.RestoreNewVM{Name: name + "-copy"}})
		if r.Status != api.JobStateSucceeded {
			t.Fatalf("%s: restore: %+v", name, r.Error)
		}
		w.tell(name, "restore to a new VM", capacity, time.Since(began))
		if got := w.data(name + "-copy"); got != want {
			t.Errorf("%s: the restored disk is another: %s, want %s", name, got, want)
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
			off = capacity - 1<<20 // the last byte of the disk, too
		}
		if err := w.lab.GuestWriteRandom(name, vm.Disks[0].Key, off, 1<<20, uint64(i)<<32); err != nil {
			w.Fatal(err)
		}
	}
}

func (w *world) timedBackup(name, what, vmID string, capacity, mib int64) api.BackupImage {
	w.Helper()
	began := time.Now()
	i := w.backup(vmID)
	w.tell(name, what, capacity, time.Since(began))
	if most := (mib + 8) << 20; i.Sizes.Read > most {
		w.Errorf("%s: %s read %d bytes, want at most %d", name, what, i.Sizes.Read, most)
	}
	return i
}

func (w *world) tell(name, what string, capacity int64, took time.Duration) {
	w.Helper()
	w.Logf("%s, %.2f TiB: %-32s %6.1f s, %.2f s a TiB", name, float64(capacity)/(1<<40), what, took.Seconds(), took.Seconds()*(1<<40)/float64(capacity))
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
