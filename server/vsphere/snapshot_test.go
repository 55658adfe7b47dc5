package vsphere_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

func (r *rig) snapshots(vm string) []string {
	r.Helper()
	list, err := r.lab.Snapshots(vm)
	r.ok(err)
	return list
}

func (r *rig) draft(vm, job string) backup.SnapshotDraft {
	return backup.SnapshotDraft{MOID: r.lab.Moid(vm), Name: marker(job), Description: "by a test"}
}

// seed:N6
func TestASnapshotTellsItsInstantAndItsDisks(t *testing.T) {
	r := setup(t, small())
	before := time.Now().Add(-time.Minute)
	snap, err := r.session.CreateSnapshot(t.Context(), r.draft("vm02", "j1"))
	r.ok(err)
	if snap.Name != marker("j1") || snap.Ref == "" || snap.CreatedAt.Before(before) {
		t.Errorf("snapshot = %+v", snap)
	}
	want := r.vm("vm02").Disks
	if len(snap.Disks) != len(want) {
		t.Fatalf("%d disks, want %d", len(snap.Disks), len(want))
	}
	for i, d := range snap.Disks {
		if d.Key != want[i].Key || d.Capacity != want[i].Capacity || d.UUID == "" || d.Label != want[i].Label {
			t.Errorf("disk %d = %+v, want %+v", i, d, want[i])
		}
	}
	if got := r.snapshots("vm02"); !slices.Equal(got, []string{marker("j1")}) {
		t.Errorf("snapshots = %v", got)
	}
	again, err := r.session.CreateSnapshot(t.Context(), r.draft("vm02", "j1"))
	r.ok(err)
	if again.Ref != snap.Ref || len(r.snapshots("vm02")) != 1 {
		t.Errorf("the same snapshot was made twice: %v", r.snapshots("vm02"))
	}
	r.ok(r.session.RemoveSnapshot(t.Context(), snap.MOID, snap.Name))
	r.ok(r.session.RemoveSnapshot(t.Context(), snap.MOID, snap.Name)) // none is no error
	if got := r.snapshots("vm02"); len(got) != 0 {
		t.Errorf("snapshots = %v, want none", got)
	}
}

func TestASnapshotWhoseMakerGaveUpIsFoundAgain(t *testing.T) {
	r := setup(t, small())
	r.ok(r.lab.Arm(lab.Fault{Kind: "task_slow", Method: "CreateSnapshot_Task", Delay: 400 * time.Millisecond}))
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := r.session.CreateSnapshot(ctx, r.draft("vm01", "j1")); err == nil {
		t.Fatal("a snapshot was made before its time")
	}
	t.Run("taken up", func(t *testing.T) {
		snap, err := r.session.CreateSnapshot(t.Context(), r.draft("vm01", "j1"))
		r.ok(err)
		if got := r.snapshots("vm01"); !slices.Equal(got, []string{snap.Name}) {
			t.Errorf("snapshots = %v, want one", got)
		}
	})
	t.Run("removed", func(t *testing.T) {
		r.ok(r.lab.Arm(lab.Fault{Kind: "task_slow", Method: "CreateSnapshot_Task", Delay: 400 * time.Millisecond}))
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		if _, err := r.session.CreateSnapshot(ctx, r.draft("vm03", "j2")); err == nil {
			t.Fatal("a snapshot was made before its time")
		}
		r.ok(r.session.RemoveSnapshot(t.Context(), r.lab.Moid("vm03"), marker("j2")))
		if got := r.snapshots("vm03"); len(got) != 0 {
			t.Errorf("snapshots = %v, want none", got)
		}
	})
}

// seed:H3 seed:H14
func TestAFailedQuiescingIsToldFromOtherFailures(t *testing.T) {
	r := setup(t, small())
	r.ok(r.lab.Arm(lab.Fault{Kind: "quiesce_fail"}))
	d := r.draft("vm01", "j1")
	d.Quiesce = true
	_, err := r.session.CreateSnapshot(t.Context(), d)
	wantCode(t, err, backup.PreflightFailed)
	d.Quiesce = false
	if _, err := r.session.CreateSnapshot(t.Context(), d); err != nil {
		t.Errorf("without quiescing: %v", err)
	}
	r.ok(r.lab.Arm(lab.Fault{Kind: "snapshot_fail"}))
	_, err = r.session.CreateSnapshot(t.Context(), r.draft("vm02", "j2"))
	if e := wantCode(t, err, backup.Internal); !strings.Contains(e.Message, "create a snapshot") {
		t.Errorf("message = %q", e.Message)
	}
	r.ok(r.lab.Arm(lab.Fault{Kind: "datastore_full"}))
	_, err = r.session.CreateSnapshot(t.Context(), r.draft("vm02", "j2"))
	wantCode(t, err, backup.NoSpace)
}

func TestAVMThatIsGoneIsSaidToBe(t *testing.T) {
	r := setup(t, small())
	moid := r.lab.Moid("vm01")
	r.ok(r.lab.RemoveVM(t.Context(), "vm01"))
	_, err := r.session.Machine(t.Context(), moid)
	wantCode(t, err, backup.VMGone)
	_, err = r.session.CreateSnapshot(t.Context(), backup.SnapshotDraft{MOID: moid, Name: marker("j")})
	wantCode(t, err, backup.VMGone)
	r.ok(r.session.RemoveSnapshot(t.Context(), moid, marker("j")))
}

func TestWhatARemovalLeavesBehindIsConsolidated(t *testing.T) {
	r := setup(t, small())
	snap, err := r.session.CreateSnapshot(t.Context(), r.draft("vm01", "j1"))
	r.ok(err)
	r.ok(r.lab.Arm(lab.Fault{Kind: "consolidation_needed"}))
	r.ok(r.lab.Arm(lab.Fault{Kind: "consolidate_fail", Count: 2}))
	r.ok(r.session.RemoveSnapshot(t.Context(), snap.MOID, snap.Name))
	m, err := r.session.Machine(t.Context(), snap.MOID)
	r.ok(err)
	if m.ConsolidationNeeded || len(m.SnapshotNames) != 0 {
		t.Errorf("after the removal: consolidation needed %v, snapshots %v", m.ConsolidationNeeded, m.SnapshotNames)
	}
	if armed := r.lab.Armed(); len(armed) != 0 {
		t.Errorf("nothing was consolidated: %v", armed)
	}
}
