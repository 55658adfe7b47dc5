package server_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// The clock of a server leaps while it backs up, and comes back: the job ends
// well, the image is there and stays, locks stay closed, the metric tells it.
func TestAServerLivesThroughLeapsOfItsClock(t *testing.T) {
	t.Parallel()
	for name, leap := range map[string]time.Duration{"an hour": time.Hour, "a day": 24 * time.Hour, "ten years": 87660 * time.Hour, "ten years back": -87660 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ahead atomic.Int64
			l := newLab(t, lab.Config{VMs: 2, DiskSize: 16 << 20})
			s := start(t, server.Config{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
			w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.URL(), s.OperatorTokenFile())}
			v := w.vcenter("lab")
			first := w.backup(w.vm(v.ID, "vm01").ID)
			w.slow("stream", 3*time.Second)
			run := w.startBackup(w.vm(v.ID, "vm02").ID)
			r, err := w.api.GetRunWithResponse(w.ctx, run)
			w.ok(r, err)
			w.atStep(r.JSON200.Jobs[0].ID, "reading disks")
			ahead.Store(int64(leap))
			w.lab.ClearFaults()
			if done := w.finish(run); done.State != api.RunStateSucceeded {
				t.Errorf("the backup in which the clock leapt ended %s: %+v", done.State, done.Jobs[0].Error)
			}
			trusted := leap.Abs() < 24*time.Hour
			g, err := w.api.GetServerWithResponse(w.ctx)
			w.ok(g, err)
			if c := g.JSON200.Clock; c.Trusted != trusted || (c.Warning == "") != trusted {
				t.Errorf("the clock is told as %+v, want trusted = %t", c, trusted)
			}
			if got, want := scrape(t, s, "kura_clock_trusted"), map[bool]string{true: "kura_clock_trusted 1", false: "kura_clock_trusted 0"}[trusted]; got != want {
				t.Errorf("the metric is %q, want %q", got, want)
			}
			ahead.Store(0)
			w.finish(w.startBackup(w.vm(v.ID, "vm02").ID))
			if i := w.image(first.ID); i.Status != api.ImageStatusGood {
				t.Errorf("the image from before is %s, want it good", i.Status)
			}
			w.until("nothing left behind", func() bool { return len(w.machine("vm01").Snapshots)+len(w.machine("vm02").Snapshots) == 0 })
		})
	}
}
