package worker_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

const day = 24 * time.Hour

// tracks has the vcenter tell those areas of the disks, and read areas if asked.
func (h *house) tracks(areas bool, told map[int32][]backup.Extent) {
	h.vsphere.tracking(func(t *fakeTracking) { t.on, t.areas, t.told, t.asked = true, areas, told, nil })
}

// poke has the guest write a byte, or zeroes over a range.
func (h *house) poke(vm backup.VirtualMachine, key int32, off, zeroes int) {
	h.vsphere.with(vm.MOID, func(m *fakeVM) {
		clear(m.disks[key][off : off+zeroes])
		if zeroes == 0 {
			m.disks[key][off]++
		}
	})
}

// imageOf waits for a backup's end and returns its image, which must be as the VM is.
func (h *house) imageOf(vm backup.VirtualMachine) (backup.Job, backup.Image) {
	h.Helper()
	want := h.content(vm.MOID)
	run, err := h.planner.BackupVM(h.ctx, vm.ID, backup.RunOptions{RetentionDays: 366})
	if err != nil {
		h.Fatal(err)
	}
	j := h.ended(run.Jobs[0].ID)
	if j.State != backup.JobSucceeded {
		h.Fatalf("the backup ended %s: %s", j.State, j.Error)
	}
	images := h.images()
	i := images[slices.IndexFunc(images, func(i backup.Image) bool { return i.ID == j.ImageID })]
	h.repository.imagesMu.Lock()
	defer h.repository.imagesMu.Unlock()
	for key, b := range want {
		if !bytes.Equal(h.repository.images[i.Ref].disks[key], b) {
			h.Errorf("disk %d of the image differs from the VM's", key)
		}
	}
	h.clock.pass(time.Minute)
	return j, i
}

func found(i backup.Image) string {
	var all []string
	for _, d := range i.Disks {
		all = append(all, string(d.ChangeDetection))
	}
	return strings.Join(all, " ")
}

// seed:W6
func TestOverAStreamAnIdleDiskIsNotReadAndAChangedOneIsComparedInFull(t *testing.T) {
	h := newHouse(t)
	h.tracks(false, nil)
	h.start()
	_, first := h.imageOf(h.vm)
	if found(first) != "full full" || first.ChangeDetection != backup.DetectFull || !first.FullCompareAt.Equal(start) {
		t.Errorf("first image: %s, together %s, last compared %s", found(first), first.ChangeDetection, first.FullCompareAt)
	}
	h.tracks(false, map[int32][]backup.Extent{2000: {{Off: 8192, N: 512}}})
	h.poke(h.vm, 2000, 8200, 0)
	before := len(h.vsphere.called("ReadDisk"))
	j, i := h.imageOf(h.vm)
	if reads := h.vsphere.called("ReadDisk")[before:]; len(reads) != 4 || !strings.HasPrefix(reads[0], "ReadDisk 2000") {
		t.Errorf("read %q, want the first disk only", reads)
	}
	idle, changed := i.Disks[slices.IndexFunc(i.Disks, func(d backup.ImageDisk) bool { return d.Key == 2001 })], i.Disks[slices.IndexFunc(i.Disks, func(d backup.ImageDisk) bool { return d.Key == 2000 })]
	if idle.ChangeDetection != backup.DetectCBT || idle.Read != 0 || !idle.FullCompareAt.Equal(start) {
		t.Errorf("the idle disk: %+v", idle)
	}
	if changed.ChangeDetection != backup.DetectCompare || changed.Read != 64<<10 || !changed.FullCompareAt.Equal(i.StartedAt) {
		t.Errorf("the changed disk: %+v", changed)
	}
	if i.ChangeDetection != backup.DetectCompare || !i.FullCompareAt.Equal(start) || len(j.Messages) != 0 {
		t.Errorf("the image: found by %s, last compared %s, messages %q", i.ChangeDetection, i.FullCompareAt, j.Messages)
	}
}

// seed:N4
func TestOnlyWhatHasChangedIsReadWhereAreasCanBe(t *testing.T) {
	h := newHouse(t)
	vm := h.addVM("large", 40<<20)
	h.start()
	h.tracks(true, nil)
	h.imageOf(vm)
	h.tracks(true, map[int32][]backup.Extent{2000: {{Off: 100, N: 10}, {Off: 3 << 20, N: 64 << 10}, {Off: 40<<20 - 1, N: 1}}})
	h.poke(vm, 2000, 105, 0)
	h.poke(vm, 2000, 3<<20+4096, 32<<10) // what becomes zero is left out by the source
	h.poke(vm, 2000, 40<<20-1, 0)
	before := len(h.vsphere.called("ReadDisk"))
	j, i := h.imageOf(vm)
	const changed, sampled = 4096 + 64<<10 + 4096, 8 << 20
	if d := i.Disks[0]; d.ChangeDetection != backup.DetectCBT || d.Read < changed || d.Read > changed+sampled || !d.FullCompareAt.Equal(start) || len(j.Messages) != 0 {
		t.Errorf("the disk: %+v, messages %q; want the changed blocks and a sample read", d, j.Messages)
	}
	if reads := h.vsphere.called("ReadDisk")[before:]; len(reads) != 0 {
		t.Errorf("read whole: %q", reads)
	}
	h.vsphere.tracking(func(f *fakeTracking) {
		var sample int64
		for _, e := range f.asked {
			if e.N > 64<<10 {
				sample += e.N
			}
		}
		if sample < 7<<20 {
			t.Errorf("%d bytes of what had not changed were sampled: %v", sample, f.asked)
		}
	})
}

// seed:W8 seed:H11
func TestASampleThatDiffersHasTheDiskReadInFullByTheSameJob(t *testing.T) {
	h := newHouse(t)
	vm := h.addVM("liar", 4<<20, 64<<10)
	var mu sync.Mutex
	var counted []backup.DoubtReason
	h.start(func(c *worker.Config) {
		c.OnDistrust = func(r backup.DoubtReason) {
			mu.Lock()
			defer mu.Unlock()
			counted = append(counted, r)
		}
	})
	h.tracks(true, nil)
	h.imageOf(vm)
	h.poke(vm, 2000, 3<<20, 0)
	j, i := h.imageOf(vm)
	if len(j.Messages) != 1 || !strings.HasPrefix(j.Messages[0], "CBT not usable (Hard disk 1: a sample showed") || !strings.Contains(j.Messages[0], "at 3145728); compared all blocks") {
		t.Errorf("messages %q", j.Messages)
	}
	lied := i.Disks[slices.IndexFunc(i.Disks, func(d backup.ImageDisk) bool { return d.Key == 2000 })]
	if lied.ChangeDetection != backup.DetectCompare || lied.TrackingDoubt != backup.DoubtLie || i.ChangeDetection != backup.DetectCompare {
		t.Errorf("the disk: %+v", lied)
	}
	j, _ = h.imageOf(vm)
	if resets := h.vsphere.called("ResetTracking"); len(resets) != 1 || resets[0] != "ResetTracking "+vm.MOID+" "+marker(j.ID, 1) {
		t.Errorf("resets %q, want one by the job after", resets)
	}
	_, i = h.imageOf(vm)
	mu.Lock()
	defer mu.Unlock()
	if got, want := fmt.Sprint(counted), "[lie before epoch]"; got != want || found(i) != "cbt cbt" {
		t.Errorf("distrusted for %s, want %s; at last found by %s", got, want, found(i))
	}
}

func TestABlockThatWasLeftOutIsFoundWhereAllIsStreamed(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.tracks(false, nil)
	h.imageOf(h.vm)
	h.tracks(false, map[int32][]backup.Extent{2000: {{N: 1}}})
	h.poke(h.vm, 2000, 0, 0)
	h.poke(h.vm, 2000, 5*fakeBlock, 0)
	j, i := h.imageOf(h.vm)
	if len(j.Messages) != 1 || !strings.Contains(j.Messages[0], "left out blocks that had changed (Hard disk 1: 1 of 4096 bytes each, the first at 20480)") {
		t.Errorf("messages %q", j.Messages)
	}
	if i.Disks[slices.IndexFunc(i.Disks, func(d backup.ImageDisk) bool { return d.Key == 2000 })].TrackingDoubt != backup.DoubtLie {
		t.Errorf("the image does not tell of the lie: %+v", i.Disks)
	}
}

func TestABaseThatCannotBeBuiltUponIsDroppedByTheSameJob(t *testing.T) {
	damaged := backup.Errorf(backup.RepositoryDamaged, "", "A block is missing.")
	removed := backup.Errorf(backup.Unavailable, "", "Blocks were removed meanwhile.")
	for point, err := range map[string]error{"CloseDisk": damaged, "Commit": removed} {
		t.Run(point, func(t *testing.T) {
			h := newHouse(t)
			h.start()
			h.tracks(false, nil)
			h.imageOf(h.vm)
			h.repository.fail(point, 1, err)
			j, i := h.imageOf(h.vm)
			if len(j.Messages) != 1 || !strings.HasPrefix(j.Messages[0], "The image before could not be built upon (") || j.Failures != 0 || found(i) != "full full" {
				t.Errorf("messages %q after %d failures, found by %s", j.Messages, j.Failures, found(i))
			}
			if got, want := h.repository.called("Begin"), []string{"Begin base=", "Begin base=ref-1", "Begin base="}; !slices.Equal(got, want) {
				t.Errorf("images were begun as %q, want %q", got, want)
			}
			if n := len(h.vsphere.called("CreateSnapshot")); n != 2 {
				t.Errorf("%d snapshots were made, want one for each job", n)
			}
		})
	}
}

func TestAnAttemptAfterADroppedBaseHasNoneEither(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.tracks(false, nil)
	h.imageOf(h.vm)
	h.repository.fail("Commit", 1, backup.Errorf(backup.Unavailable, "", "Blocks were removed meanwhile."))
	h.repository.mu.Lock()
	h.repository.faults["CloseDisk"] = []error{nil, nil, backup.Errorf(backup.RepositoryUnreachable, "", "It does not answer.")}
	h.repository.mu.Unlock()
	id := h.ask(h.vm)
	h.waiting(id, 1)
	h.clock.pass(time.Minute)
	h.ended(id)
	begun := h.repository.called("Begin")
	if want := []string{"Begin base=", "Begin base=ref-1", "Begin base=", "Begin base="}; !slices.Equal(begun, want) {
		t.Errorf("images were begun as %q, want %q", begun, want)
	}
}

func TestWhatVSphereDoesNotAnswerIsTriedAgain(t *testing.T) {
	h := newHouse(t)
	h.start()
	h.tracks(true, nil)
	h.imageOf(h.vm)
	h.vsphere.fail("ChangedAreas", 1, backup.Errorf(backup.VCenterUnreachable, "", "It does not answer."))
	id := h.ask(h.vm)
	h.waiting(id, 1)
	h.clock.pass(time.Minute)
	if j := h.ended(id); j.State != backup.JobSucceeded || strings.Contains(strings.Join(j.Messages, ""), "CBT") {
		t.Errorf("the job ended %s with %q", j.State, j.Messages)
	}
}

// Each disk is read in full again before 35 days are over, those of one night
// not all in one night, and within the budget as long as it holds.
func TestIdleDisksAreReadInFullBeforeTheirTimeIsOver(t *testing.T) {
	for name, budget := range map[string]int64{"without a budget": 0, "with one for a disk a day": 64 << 10, "with one for none": 1} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.tracks(false, nil)
			h.start(func(c *worker.Config) { c.CompareBudget = budget })
			h.imageOf(h.vm)
			compared := map[int32][]int{}
			for n := 1; n <= 40; n++ {
				h.clock.pass(day - time.Minute)
				j, i := h.imageOf(h.vm)
				for _, d := range i.Disks {
					if age := i.StartedAt.Sub(d.FullCompareAt); age > 35*day {
						t.Errorf("day %d: disk %d was last read %s ago", n, d.Key, age)
					}
					if d.ChangeDetection == backup.DetectCompare {
						compared[d.Key] = append(compared[d.Key], n)
					}
				}
				if reads := len(compared[2000]) + len(compared[2001]); reads > 0 && n < 28 || len(j.Messages) > 1 {
					t.Errorf("day %d: %d disks were read, messages %q", n, reads, j.Messages)
				}
			}
			t.Logf("compared on the days %v", compared)
			for key, days := range compared {
				if len(days) != 1 || budget == 1 && days[0] != 35 {
					t.Errorf("disk %d was compared on the days %v", key, days)
				}
			}
			if len(compared) != 2 {
				t.Errorf("compared %v, want both disks", compared)
			}
		})
	}
}
