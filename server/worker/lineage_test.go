package worker_test

import (
	"context"
	"sync"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

// doubted is a database that is old until a test says otherwise.
type doubted struct {
	mu    sync.Mutex
	old   *backup.OldDatabase // guarded by mu, as what follows
	asked int
}

func (d *doubted) Old(context.Context) (*backup.OldDatabase, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	return d.old, nil
}

func (d *doubted) Check(ctx context.Context, _ bool) (*backup.OldDatabase, error) { return d.Old(ctx) }

func (d *doubted) times() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

func (d *doubted) adopt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.old = nil
}

// TestAnOldDatabaseBeginsAndRemovesNothing: what it takes for a left-over may be
// what the newest database's server works on.
func TestAnOldDatabaseBeginsAndRemovesNothing(t *testing.T) {
	h := newHouse(t)
	h.addSnapshot(marker("unknown", 1))
	id := h.ask(h.vm)
	d := &doubted{old: &backup.OldDatabase{FoundAt: start}}
	h.start(often, func(c *worker.Config) { c.Lineage = d })
	h.until("a hundred looks at the database", func() bool { return d.times() > 100 })
	if calls := h.vsphere.called("Connect"); len(calls) != 0 || h.job(id).State != backup.JobQueued {
		t.Errorf("the vcenter was called %q and the job is %s, want neither swept nor begun", calls, h.job(id).State)
	}
	d.adopt()
	if j := h.ended(id); j.State != backup.JobSucceeded {
		t.Errorf("after the adoption the job is %s: %s", j.State, j.Error)
	}
	h.until("the left-over to be removed", func() bool { return len(h.vsphere.snapshotsOf(h.vm.MOID)) == 0 })
}
