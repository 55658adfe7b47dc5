package server_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// inProxy is a world whose server runs in a VM of the lab.
func inProxy(t *testing.T, lc lab.Config, proxy string) *world {
	t.Helper()
	l := newLab(t, lc)
	uuid, err := l.MakeProxy(proxy)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, server.Config{ProxyUUID: uuid, OpenDevice: func(ctx context.Context, uuid string, writable bool) (server.Device, error) {
		return l.OpenDevice(ctx, proxy, uuid, writable)
	}})
	return &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.URL(), s.OperatorTokenFile())}
}

// TestOverHotAddABackupReadsAndARestoreWritesOnlyWhatDiffers, in both patterns
// of change, and after a fault in the middle of writing.
//
// seed:W6 seed:N4 seed:N6
func TestOverHotAddABackupReadsAndARestoreWritesOnlyWhatDiffers(t *testing.T) {
	w := inProxy(t, lab.Config{VMs: 3, DiskSize: 48 << 20}, "vm03")
	v := w.vcenterWith(api.VCenter{Name: "lab", Transport: api.TransportAuto})
	vm := w.vm(v.ID, "vm01")
	first := w.backup(vm.ID)
	want := w.sums("vm01")
	if read, _ := w.lab.DeviceTraffic(); read != 0 {
		t.Errorf("the first backup read %d bytes of a device, want the stream, which leaves out holes", read)
	}
	key := w.machine("vm01").Disks[0].Key
	for name, places := range map[string]struct {
		at []int64
		n  int64
	}{
		"few, large":      {[]int64{4 << 20, 33 << 20}, 1 << 20},
		"many, scattered": {[]int64{1 << 20, 7 << 20, 13 << 20, 19 << 20, 25 << 20, 37 << 20, 46 << 20}, 64 << 10},
	} {
		before, _ := w.lab.DeviceTraffic()
		for _, off := range places.at {
			if err := w.lab.GuestWriteRandom("vm01", key, off, places.n, uint64(off)); err != nil {
				t.Fatal(err)
			}
		}
		i := w.backup(vm.ID)
		after, _ := w.lab.DeviceTraffic()
		changed := places.n * int64(len(places.at))
		// The areas, rounded to the repository's blocks, and the samples of what is said not to have changed.
		if limit := int64(len(places.at))*(places.n+512<<10) + 8<<20; i.ChangeDetection != api.ChangeDetectionCbt || after-before != i.Sizes.Read || i.Sizes.Read > limit {
			t.Errorf("%s: found by %s, %d bytes of %d that changed were read, %d of the device; want at most %d", name, i.ChangeDetection, i.Sizes.Read, changed, after-before, limit)
		}
	}
	if err := w.lab.Arm(lab.Fault{Kind: "device_write_fail", After: 2}); err != nil {
		t.Fatal(err)
	}
	r := w.restore(api.Restore{ImageID: first.ID, InPlace: &api.RestoreInPlace{PowerOff: true, PowerOn: true, Safety: api.SafetyNone}})
	if r.Status != api.JobStateSucceeded {
		t.Fatalf("restore: %s %+v", r.Status, r.Error)
	}
	w.same("what was restored in place", w.sums("vm01"), want)
	_, written := w.lab.DeviceTraffic()
	if whole := w.machine("vm01").Disks[0].Capacity; written == 0 || written > whole/4 {
		t.Errorf("%d bytes of a disk of %d were written", written, whole)
	}
	if !slices.ContainsFunc(r.Messages, func(m string) bool { return strings.HasPrefix(m, "Over hotadd") }) {
		t.Errorf("messages = %q", r.Messages)
	}
	next := w.backup(vm.ID)
	if next.ChangeDetection == api.ChangeDetectionCbt {
		t.Error("the first backup after a restore in place trusts a log that does not have it")
	}
	w.noLeftovers()
	w.same("the restored image's successor", w.sums("vm01"), want)
}
