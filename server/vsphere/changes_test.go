package vsphere_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// first is the key of a VM's first disk.
const first = 2000

// shot makes a snapshot as a job does.
func (r *rig) shot(vm, job string) backup.Snapshot {
	r.Helper()
	s, err := r.session.CreateSnapshot(r.Context(), backup.SnapshotDraft{MOID: r.lab.Moid(vm), Name: marker(job)})
	r.ok(err)
	return s
}

func (r *rig) unsnap(vm, job string) {
	r.Helper()
	r.ok(r.session.RemoveSnapshot(r.Context(), r.lab.Moid(vm), marker(job)))
}

func (r *rig) diskOf(s backup.Snapshot, key int32) backup.DiskDraft {
	r.Helper()
	for _, d := range s.Disks {
		if d.Key == key {
			return d
		}
	}
	r.Fatalf("the snapshot has no disk %d", key)
	return backup.DiskDraft{}
}

// changed lists the areas that have changed since a change id, in MiB.
func (r *rig) changed(s backup.Snapshot, since string) (string, error) {
	r.Helper()
	var all []string
	err := r.session.ChangedAreas(r.Context(), s, first, since, func(e backup.Extent) error {
		all = append(all, fmt.Sprintf("%g+%g", float64(e.Off)/(1<<20), float64(e.N)/(1<<20)))
		return nil
	})
	return strings.Join(all, " "), err
}

// tracked switches tracking on, takes a snapshot of vm01, has the guest write
// at the whole MiB, and takes another snapshot.
func (r *rig) tracked(at ...int64) (second backup.Snapshot, since string) {
	r.Helper()
	_, err := r.session.TrackChanges(r.Context(), r.lab.Moid("vm01"))
	r.ok(err)
	since = r.diskOf(r.shot("vm01", "one"), first).ChangeID
	r.unsnap("vm01", "one")
	for _, mib := range at {
		r.ok(r.lab.GuestWriteRandom("vm01", first, mib<<20, 1000, uint64(mib)))
	}
	return r.shot("vm01", "two"), since
}

// seed:A4 change tracking is switched on by itself.
func TestTrackingIsSwitchedOnWhereNoSnapshotStands(t *testing.T) {
	r := setup(t, small())
	moid := r.lab.Moid("vm01")
	if id := r.diskOf(r.shot("vm01", "before"), first).ChangeID; id != "" {
		t.Fatalf("a new VM has the change id %q: its tracking should be off", id)
	}
	got, err := r.session.TrackChanges(t.Context(), moid)
	if err != nil || got.On || !strings.Contains(got.Reason, `the snapshot "`+marker("before")+`"`) {
		t.Errorf("with a snapshot: %+v, %v; want a reason that names it", got, err)
	}
	if got, err := r.session.ResetTracking(t.Context(), moid, marker("x")); err != nil || got.On || got.Reason == "" {
		t.Errorf("a reset with a snapshot: %+v, %v; want a reason", got, err)
	}
	r.unsnap("vm01", "before")
	if got, err = r.session.TrackChanges(t.Context(), moid); err != nil || got != (backup.Tracking{On: true, Fresh: true}) {
		t.Errorf("without: %+v, %v; want it fresh", got, err)
	}
	if got, err = r.session.TrackChanges(t.Context(), moid); err != nil || got != (backup.Tracking{On: true}) {
		t.Errorf("once more: %+v, %v; want it on", got, err)
	}
	d := r.diskOf(r.shot("vm01", "after"), first)
	if d.ChangeID == "" || d.Doubt != nil || !strings.HasSuffix(d.File, ".vmdk") {
		t.Errorf("the next snapshot's disk is %+v, want a change id, a file and no doubt", d)
	}
}

func TestTrackingThatMayNotBeSwitchedOnIsAReasonAndNoFailure(t *testing.T) {
	r := setup(t, small())
	r.ok(r.lab.Arm(lab.Fault{Kind: "permission_denied", Method: "ReconfigVM_Task"}))
	got, err := r.session.TrackChanges(t.Context(), r.lab.Moid("vm01"))
	if err != nil || got.On || !strings.Contains(got.Reason, "lacks the privilege Lab.Denied") {
		t.Errorf("TrackChanges() = %+v, %v; want the privilege as the reason", got, err)
	}
	_, err = r.session.TrackChanges(t.Context(), "vm-0")
	wantCode(t, err, backup.VMGone)
}

func TestAResetBeginsANewEpochOfARunningVM(t *testing.T) {
	r := setup(t, small())
	second, since := r.tracked(1)
	r.unsnap("vm01", "two")
	got, err := r.session.ResetTracking(t.Context(), r.lab.Moid("vm01"), marker("two"))
	if err != nil || got != (backup.Tracking{On: true, Fresh: true}) {
		t.Fatalf("ResetTracking() = %+v, %v", got, err)
	}
	after := r.diskOf(r.shot("vm01", "three"), first).ChangeID
	if after == "" || backup.Epoch(after) == backup.Epoch(since) || backup.Epoch(since) != backup.Epoch(r.diskOf(second, first).ChangeID) {
		t.Errorf("change ids %q and, after the reset, %q: want another epoch", since, after)
	}
	if names, err := r.lab.Snapshots("vm01"); err != nil || len(names) != 1 {
		t.Errorf("snapshots %q, %v; want the test's own only", names, err)
	}
}

// seed:W6
func TestChangedAreasAreAskedForToTheEndOfTheDisk(t *testing.T) {
	cases := map[string]struct {
		fault lab.Fault
		want  string
		doubt backup.DoubtReason
	}{
		"as asked":                    {lab.Fault{}, "1+0.0625 3+0.0625 5+0.0625", ""},
		"pages of one area":           {lab.Fault{Kind: "cbt_truncate", Count: -1}, "1+0.0625 3+0.0625 5+0.0625", ""},
		"an empty page between":       {lab.Fault{Kind: "cbt_empty", Count: -1}, "1+0.0625 3+0.0625 5+0.0625", ""},
		"an area behind the end":      {lab.Fault{Kind: "cbt_beyond"}, "", backup.DoubtAnswer},
		"areas that go back":          {lab.Fault{Kind: "cbt_unordered"}, "", backup.DoubtAnswer},
		"a page of nothing":           {lab.Fault{Kind: "cbt_stuck"}, "", backup.DoubtAnswer},
		"a fault":                     {lab.Fault{Kind: "cbt_fault"}, "", backup.DoubtFault},
		"a missing privilege":         {lab.Fault{Kind: "permission_denied", Method: "QueryChangedDiskAreas"}, "", backup.DoubtDenied},
		"a fault, in the second page": {lab.Fault{Kind: "cbt_fault", After: 1}, "", backup.DoubtFault},
	}
	r := setup(t, lab.Config{VMs: 4, DiskSize: 8 << 20, MaxAreas: 2})
	second, since := r.tracked(1, 3, 5)
	for name, c := range cases {
		r.lab.ClearFaults()
		if c.fault.Kind != "" {
			r.ok(r.lab.Arm(c.fault))
		}
		got, err := r.changed(second, since)
		var doubt *backup.Doubt
		switch {
		case c.doubt == "" && (err != nil || got != c.want):
			t.Errorf("%s: areas %q, %v; want %q", name, got, err, c.want)
		case c.doubt != "" && (!errors.As(err, &doubt) || doubt.Reason != c.doubt || doubt.Text == ""):
			t.Errorf("%s: %v, want a doubt of the kind %q", name, err, c.doubt)
		}
	}
	r.lab.ClearFaults()
	if _, err := r.changed(second, "*"); err == nil {
		t.Error(`"*" was asked for`)
	}
	r.ok(r.lab.ResetChanges("vm01"))
	if _, err := r.changed(second, since); err == nil {
		t.Error("a change id of an epoch that is over was taken")
	}
}

func TestTrackingThatBeganOverASnapshotIsDoubtedWhileItStands(t *testing.T) {
	r := setup(t, small())
	r.snap("vm01", "standing")
	r.change("vm01", types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(true)})
	if d := r.diskOf(r.shot("vm01", "one"), first); d.ChangeID == "" || d.Doubt == nil || d.Doubt.Reason != backup.DoubtSnapshot || !strings.Contains(d.Doubt.Text, `"standing"`) {
		t.Errorf("the disk is %+v with the doubt %v, want one that names the snapshot", d, d.Doubt)
	}
	r.unsnap("vm01", "one")
	r.ok(r.session.RemoveSnapshot(t.Context(), r.lab.Moid("vm01"), "standing"))
	_, err := r.session.ResetTracking(t.Context(), r.lab.Moid("vm01"), marker("x"))
	r.ok(err)
	r.snap("vm01", "after")
	if d := r.diskOf(r.shot("vm01", "two"), first); d.ChangeID == "" || d.Doubt != nil {
		t.Errorf("with a snapshot that was made under tracking: %+v, %v; want no doubt", d, d.Doubt)
	}
}
