package server_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// oddName is a name that no file and no path could have.
const oddName = `ERP/東京 \ "a" 🦊🗻 %2f..`

// TestAGroupOfFortyOutlivesItsWorstMembers: of 40 VMs one's snapshot never
// ends, one vanishes while the run goes on, one has an independent disk, one
// cannot be quiesced and one has a name of emoji and slashes.
//
// seed:H9 seed:N61 seed:N7 seed:H10 seed:H3 seed:N70
func TestAGroupOfFortyOutlivesItsWorstMembers(t *testing.T) {
	for name, c := range map[string]struct {
		consistent bool
		times      float64 // as long as the lab took to begin, a snapshot may take
	}{
		"one by one":   {false, 5},
		"all together": {true, 15}, // all at once take longer
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			l := newLab(t, lab.Config{VMs: 39, DiskSize: 1 << 20})
			// What a machine takes for the VMs tells what it may take for their snapshots.
			patience := time.Duration(min(max(1, c.times*time.Since(began).Seconds()), 120) * float64(time.Second))
			s := start(t, server.Config{Slots: 16, SnapshotTimeout: patience})
			w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.URL(), s.OperatorTokenFile())}
			w.spoil()
			v := w.vcenter("a")
			g, err := w.api.CreateBackupGroupWithResponse(w.ctx, nil, api.BackupGroup{Name: "all", Consistent: c.consistent, Selector: &api.Selector{VCenterID: v.ID, NameRegex: "."}})
			w.ok(g, err)
			b, err := w.api.BackupGroupWithResponse(w.ctx, g.JSON201.ID, nil, api.BackupOptions{RetentionDays: 31, Consistency: api.ConsistencyApp})
			w.ok(b, err)
			gone := w.vanish(b.JSON202.ID)
			run := w.finish(b.JSON202.ID)
			w.wantForty(run, gone)
			if (run.SpreadSeconds > 0) != c.consistent {
				t.Errorf("the spread of the snapshots is %g s", run.SpreadSeconds)
			}
			t.Logf("run took %s with %s for a snapshot, spread %.2f s", run.EndedAt.Sub(run.CreatedAt).Round(time.Millisecond), patience.Round(time.Millisecond), run.SpreadSeconds)
			w.lab.ClearFaults()
			w.noLeftovers()
		})
	}
}

// spoil makes the members odd that are so from the start.
func (w *world) spoil() {
	w.Helper()
	if _, err := w.lab.AddVM(w.ctx, lab.VMSpec{Name: oddName}); err != nil {
		w.Fatal(err)
	}
	if err := w.lab.MakeIndependent("vm05", 0); err != nil {
		w.Fatal(err)
	}
	for _, f := range []lab.Fault{
		{Kind: "task_slow", VM: "vm07", Method: "CreateSnapshot_Task", Count: -1, Delay: time.Hour},
		{Kind: "quiesce_fail", VM: "vm09", Count: -1},
	} {
		if err := w.lab.Arm(f); err != nil {
			w.Fatal(err)
		}
	}
}

// vanish deletes a VM whose turn has not come once others have theirs, and
// returns its name.
func (w *world) vanish(runID string) (name string) {
	w.Helper()
	w.until("a first image", func() bool {
		r, err := w.api.GetRunWithResponse(w.ctx, runID)
		w.ok(r, err)
		jobs := r.JSON200.Jobs
		if !slices.ContainsFunc(jobs, func(j api.Job) bool { return j.ImageID != "" }) {
			return false
		}
		for _, j := range slices.Backward(jobs) {
			if j.State == api.JobStateQueued && j.VirtualMachine != nil && strings.HasPrefix(j.VirtualMachine.Name, "vm") && j.Attempt == 0 {
				name = j.VirtualMachine.Name
				break
			}
		}
		if name == "" {
			w.Fatal("no member waits for its turn: the test shows nothing")
		}
		return true
	})
	if err := w.lab.RemoveVM(w.ctx, name); err != nil {
		w.Fatal(err)
	}
	return name
}

// wantForty checks what the history tells of each member.
func (w *world) wantForty(run api.Run, gone string) {
	w.Helper()
	want := map[string]struct {
		state api.JobState
		text  string
	}{
		"vm05": {api.JobStateFailed, "cannot be backed up"},
		"vm07": {api.JobStateFailed, "vSphere did not make a snapshot"},
		"vm09": {api.JobStateSucceeded, "could not be quiesced"},
		gone:   {api.JobStateSkipped, "not in the inventory"},
	}
	images, members := 0, 0
	for _, j := range run.Jobs {
		if j.VirtualMachine == nil {
			continue
		}
		members++
		text := strings.Join(j.Messages, " ")
		if j.Error != nil {
			text += j.Error.Message
		}
		if j.ImageID != "" {
			images++
		}
		odd, isOdd := want[j.VirtualMachine.Name]
		switch {
		case isOdd && (j.State != odd.state || !strings.Contains(text, odd.text)):
			w.Errorf("%s is %s: %s, want %s: ...%s...", j.VirtualMachine.Name, j.State, text, odd.state, odd.text)
		case !isOdd && j.State != api.JobStateSucceeded:
			w.Errorf("%s is %s: %s", j.VirtualMachine.Name, j.State, text)
		}
	}
	if run.State != api.RunStatePartial || members != 40 || images != 37 {
		w.Errorf("run is %s with %d images of %d members, want it partial with 37 of 40", run.State, images, members)
	}
}
