package vsphere_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// overHotAdd restores "vm02" in place over hot-add.
func overHotAdd(safety backup.Safety) func(ctx context.Context, r *rig, s backup.VSphereSession, img *image, job, attempt int) error {
	return func(ctx context.Context, r *rig, s backup.VSphereSession, img *image, job, attempt int) error {
		_, _, err := s.OverwriteVM(ctx, backup.OverwriteDraft{
			Marker: fmt.Sprintf("kura:inst:job%d:%d", job, attempt), MOID: r.lab.Moid("vm02"), InPlace: backup.RestoreInPlace{PowerOff: true, Safety: safety},
		}, img, func(int64) {})
		return err
	}
}

// hotStage is a lab with a VM that is tracked and was backed up.
func hotStage(t *testing.T) (*rig, *image) {
	t.Helper()
	r := withProxy(t, lab.Config{VMs: 3, DiskSize: 2 << 20})
	_, err := r.session.TrackChanges(t.Context(), r.lab.Moid("vm02"))
	r.ok(err)
	return r, r.take("vm02", "b1")
}

// TestAServerThatDiesAtAnyStepOfARestoreOverHotAddLeavesTheOldVMOrTheNewOne, and
// nothing of other VMs on the proxy. What is kept for a day takes turns with nothing.
func TestAServerThatDiesAtAnyStepOfARestoreOverHotAddLeavesTheOldVMOrTheNewOne(t *testing.T) {
	t.Parallel()
	r, img := hotStage(t)
	own, _ := r.proxyState()
	ends := map[string]int{}
	for at := 1; ; at++ {
		safety := []backup.Safety{backup.SafetyNone, backup.SafetyQuick}[at%2]
		do := overHotAdd(safety)
		old := r.again("in place", at)
		ctx, dead := context.WithCancel(t.Context())
		w := &wire{at: at, dead: dead}
		err := do(ctx, r, r.over(w), img, at, 1)
		dead()
		if !w.struck() {
			r.ok(err)
			if safety == backup.SafetyNone { // which has the most steps
				break
			}
			continue
		}
		r.swept()
		stands := r.standsOverwritten(img, old)
		if stands != "old" && stands != "new" {
			t.Errorf("dead at step %d: %s", at, stands)
		}
		ends[stands]++
		r.wantBare(own)
		if err := do(t.Context(), r, r.session, img, at, 2); err != nil {
			t.Errorf("dead at step %d, stands %s: the next attempt fails: %v", at, stands, err)
		} else if stands := r.standsOverwritten(img, old); stands != "new" {
			t.Errorf("dead at step %d: after the next attempt: %s", at, stands)
		}
		r.swept()
	}
	if _, written := r.lab.DeviceTraffic(); ends["old"] < 5 || ends["new"] < 1 || written == 0 {
		t.Errorf("it ended %v times so, and %d bytes were written over hot-add", ends, written)
	}
}

// TestALostAnswerAtAnyStepOfARestoreOverHotAddIsNoHalfRestore: the server lives,
// but does not know whether what it asked for was done.
func TestALostAnswerAtAnyStepOfARestoreOverHotAddIsNoHalfRestore(t *testing.T) {
	t.Parallel()
	r, img := hotStage(t)
	own, _ := r.proxyState()
	do := overHotAdd(backup.SafetyNone)
	for at := 1; ; at++ {
		old := r.again("in place", at)
		w := &wire{at: at}
		err := do(t.Context(), r, r.over(w), img, at, 1)
		if !w.struck() {
			r.ok(err)
			return
		}
		r.swept()
		stands := r.standsOverwritten(img, old)
		if stands != "old" && stands != "new" || err == nil && stands != "new" {
			t.Errorf("answer %d (%s) lost, err %v: %s", at, w.lost, err, stands)
		}
		r.wantBare(own)
		if got := r.vm("vm02").Snapshots; len(got) > 0 {
			t.Errorf("answer %d (%s) lost: snapshots %v are left", at, w.lost, got)
		}
	}
}

// TestAServerThatDiesAtAnyStepOfABackupOverHotAddLeavesNothing that the next
// sweep does not find, and the next attempt works.
func TestAServerThatDiesAtAnyStepOfABackupOverHotAddLeavesNothing(t *testing.T) {
	t.Parallel()
	r := withProxy(t, lab.Config{VMs: 3, DiskSize: 2 << 20})
	own, _ := r.proxyState()
	want := r.sums("vm02")
	read := func(ctx context.Context, s backup.VSphereSession, job, attempt int) error {
		name := fmt.Sprintf("kura:inst:job%d:%d", job, attempt)
		snap, err := s.CreateSnapshot(ctx, backup.SnapshotDraft{MOID: r.lab.Moid("vm02"), Name: name})
		if err != nil {
			return err
		}
		draft := backup.ReadDraft{Transport: backup.TransportHotAdd, Areas: true}
		for _, d := range snap.Disks {
			draft.Keys = append(draft.Keys, d.Key)
		}
		src, err := s.ReadDisks(ctx, snap, draft)
		if err != nil {
			return err
		}
		for _, d := range snap.Disks {
			c := &canvas{b: make([]byte, d.Capacity)}
			if _, err := src.ReadDisk(ctx, d.Key, c); err != nil {
				return err
			}
			if sum(c.b) != want[d.Key] {
				t.Errorf("step %d, attempt %d: %s differs", job, attempt, d.Label)
			}
		}
		if err := src.Close(ctx); err != nil {
			return err
		}
		return s.RemoveSnapshot(ctx, snap.MOID, name)
	}
	for at := 1; ; at++ {
		ctx, dead := context.WithCancel(t.Context())
		w := &wire{at: at, dead: dead}
		err := read(ctx, r.over(w), at, 1)
		dead()
		if !w.struck() {
			r.ok(err)
			break
		}
		if at%2 == 0 { // else the next attempt comes before the sweep
			r.swept()
			r.wantBare(own)
		} else {
			r.ok(r.session.RemoveSnapshot(t.Context(), r.lab.Moid("vm02"), fmt.Sprintf("kura:inst:job%d:1", at)))
		}
		r.ok(read(t.Context(), r.session, at, 2))
		r.wantBare(own)
		if m := r.machine("vm02"); len(m.SnapshotNames) > 0 || m.ConsolidationNeeded {
			t.Errorf("dead at step %d: snapshots %v are left", at, m.SnapshotNames)
		}
	}
}
