package worker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

var (
	calm = backup.DatastoreLoad{Capacity: 1 << 40, Free: 1 << 39, Latency: 2 * time.Millisecond}
	slow = backup.DatastoreLoad{Capacity: 1 << 40, Free: 1 << 39, Latency: 80 * time.Millisecond}
	full = backup.DatastoreLoad{Capacity: 1 << 40, Free: 1 << 30, Latency: 2 * time.Millisecond}
)

// loads are what the fake vcenter tells from now on, the last one for ever.
func (h *house) loads(all ...backup.DatastoreLoad) {
	h.vsphere.vmsMu.Lock()
	defer h.vsphere.vmsMu.Unlock()
	h.vsphere.loads = append([]backup.DatastoreLoad{all[0]}, all...)
}

// watchful looks at datastores all the time and wants them to answer within 20 ms.
func watchful(pause time.Duration) func(*worker.Config) {
	return func(c *worker.Config) {
		c.LookEvery, c.Backoff = time.Millisecond, time.Millisecond
		c.Load = backup.LoadLimits{MaxLatency: 20 * time.Millisecond, MaxPause: pause}
	}
}

// seed:N57
func TestABackupGivesADatastoreUpThatFillsAndLeavesNoSnapshot(t *testing.T) {
	h := newHouse(t)
	h.loads(calm, full)
	h.vsphere.hold(t, "ReadDisk", -1) // as long as nobody stops it
	h.start(watchful(time.Minute))
	j := h.waiting(h.ask(h.vm), 1)
	if j.ErrorCode != backup.NoSpace || !strings.Contains(j.Error, `"ds1" has 1.0 GiB free`) || !strings.Contains(j.Error, "given up") {
		t.Errorf("job is %s, %s: %s; want it given up for want of space", j.State, j.ErrorCode, j.Error)
	}
	if left := h.vsphere.snapshotsOf(h.vm.MOID); len(left) > 0 || len(h.images()) > 0 {
		t.Errorf("snapshots %q and %d images are left, want none", left, len(h.images()))
	}
}

// seed:N57 seed:N82 seed:K15
func TestTheReadingPausesWhileADatastoreIsSlow(t *testing.T) {
	h := newHouse(t)
	h.loads(calm)
	held := h.vsphere.hold(t, "ReadDisk", 1)
	h.start(watchful(time.Hour))
	id := h.ask(h.vm)
	<-held.reached
	h.loads(slow)
	h.until("pause", func() bool { return h.job(id).Step == "waiting for a slow datastore" })
	held.release()
	h.loads(calm)
	j := h.ended(id)
	if j.State != backup.JobSucceeded || len(j.Messages) != 1 || !strings.HasPrefix(j.Messages[0], "The reading paused for ") {
		t.Errorf("job is %s, %q; want it succeeded, and that it paused", j.State, j.Messages)
	}
}

func TestAReadingGoesOnAfterTheLongestPause(t *testing.T) {
	h := newHouse(t)
	h.loads(calm)
	held := h.vsphere.hold(t, "ReadDisk", 1)
	h.start(watchful(20 * time.Millisecond))
	id := h.ask(h.vm)
	<-held.reached
	h.loads(slow)
	h.until("going on", func() bool { return len(h.job(id).Messages) > 0 })
	held.release()
	j := h.ended(id)
	if j.State != backup.JobSucceeded || len(j.Messages) != 1 || !strings.Contains(j.Messages[0], "went on, although datastore \"ds1\" answers in 80ms") {
		t.Errorf("job is %s, %q; want it succeeded, and that it went on", j.State, j.Messages)
	}
}

// seed:N82
func TestNoBackupBeginsOnADatastoreThatStaysSlow(t *testing.T) {
	h := newHouse(t)
	h.loads(slow)
	h.start(watchful(time.Millisecond))
	j := h.waiting(h.ask(h.vm), 1)
	if j.ErrorCode != backup.Unavailable || !strings.Contains(j.Error, "did not begin") {
		t.Errorf("job is %s, %s: %s; want it refused", j.State, j.ErrorCode, j.Error)
	}
	if made := h.vsphere.called("CreateSnapshot"); len(made) > 0 {
		t.Errorf("%q, want no snapshot", made)
	}
}

func TestADatastoreIsFullByWhicheverOfTheTwoLimitsIsLess(t *testing.T) {
	for name, c := range map[string]struct {
		limits backup.LoadLimits
		load   backup.DatastoreLoad
		want   bool
	}{
		"11 GiB of a large one":        {backup.LoadLimits{}, backup.DatastoreLoad{Capacity: 1 << 44, Free: 11 << 30}, false},
		"9 GiB of a large one":         {backup.LoadLimits{}, backup.DatastoreLoad{Capacity: 1 << 44, Free: 9 << 30}, true},
		"6 GiB of 100":                 {backup.LoadLimits{}, backup.DatastoreLoad{Capacity: 100 << 30, Free: 6 << 30}, false},
		"4 GiB of 100":                 {backup.LoadLimits{}, backup.DatastoreLoad{Capacity: 100 << 30, Free: 4 << 30}, true},
		"nothing, where none is asked": {backup.LoadLimits{MinFree: -1}, backup.DatastoreLoad{Capacity: 100 << 30}, false},
		"what is not known":            {backup.LoadLimits{}, backup.DatastoreLoad{}, false},
	} {
		if got := c.limits.Defaulted().Full("ds", c.load) != nil; got != c.want {
			t.Errorf("%s: full = %t, want %t", name, got, c.want)
		}
	}
}
