package worker_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:N4
func TestOneDiskOfAnImageIsPutBack(t *testing.T) {
	for _, mode := range []backup.DiskMode{backup.DiskReplace, backup.DiskAttach} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			image, want := h.backedUp()
			d := image.Disks[1]
			r := h.restore(backup.Restore{ImageID: image.ID, Disk: &backup.RestoreDisk{SourceKey: d.Key, VMID: h.vm.ID, Mode: mode}})
			h.vsphere.fail("RestoreDisk", 1, unreachable)
			h.start()
			h.waiting(r.JobID, 1)
			h.clock.pass(15 * time.Second)
			j := h.ended(r.JobID)
			done := h.restoreNow(r.ID)
			if j.State != backup.JobSucceeded || j.Attempt != 2 || done.Bytes != d.Capacity || j.Total != d.Capacity || done.Result.MOID != h.vm.MOID {
				t.Fatalf("restore %+v of job %s (%s), want it succeeded with the disk's bytes", done, j.State, j.Error)
			}
			asked := h.vsphere.called("RestoreDisk")
			if len(asked) != 2 || !strings.Contains(asked[1], marker(r.JobID, 2)) {
				t.Errorf("asked %q, want each attempt under its own name", asked)
			}
			got := h.content(h.vm.MOID)
			key := d.Key
			if mode == backup.DiskAttach {
				key = 9000
			}
			if len(got) != len(want)+int(key/9000) || !bytes.Equal(got[key], want[d.Key]) {
				t.Errorf("the VM has %d disks, or disk %d differs from the image's %d", len(got), key, d.Key)
			}
			if other := image.Disks[0].Key; bytes.Equal(got[other], want[other]) {
				t.Errorf("disk %d was put back too", other)
			}
		})
	}
}
