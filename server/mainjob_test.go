package server_test

import (
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestMainJob is what kura is for: a group by tag and a schedule, one run, an
// image per member, a restore to a new VM and one in place, every byte compared.
//
// seed:N1 seed:N4 seed:N6 seed:N7 seed:N8 seed:N9 seed:N28 seed:N42 seed:N49
// seed:A1 seed:A2 seed:A11 seed:A32 seed:W12 seed:W15 seed:W26 seed:K16
func TestMainJob(t *testing.T) {
	w := newWorld(t, lab.Config{VMs: 6, DiskSize: 16 << 20}, server.Config{})
	v := w.vcenter("lab")
	g, err := w.api.CreateBackupGroupWithResponse(w.ctx, nil, api.BackupGroup{Name: "gold",
		Selector: &api.Selector{VCenterID: v.ID, Tags: []api.Tag{{Category: "backup", Name: "gold"}}}})
	w.ok(g, err)
	s, err := w.api.CreateBackupScheduleWithResponse(w.ctx, nil, api.BackupSchedule{Name: "nightly", GroupID: g.JSON201.ID,
		StartTime: time.Now().UTC().Add(12 * time.Hour).Format("15:00"), TimeZone: "UTC", Daily: &api.Daily{}, RetentionDays: 7}) // an hour that does not come now
	w.ok(s, err)
	if s.JSON201.Seats != 2 {
		t.Errorf("the schedule books %d seats, want 2: every third of 6 VMs is gold", s.JSON201.Seats)
	}
	before := map[string]map[int32]string{}
	for _, vm := range w.lab.VMs() {
		before[vm.Name] = w.sums(vm.Name)
	}

	started, err := w.api.RunBackupScheduleWithResponse(w.ctx, s.JSON201.ID, nil)
	w.ok(started, err)
	run := w.finish(started.JSON202.ID)
	if run.State != api.RunStateSucceeded || len(run.Jobs) != 2 {
		t.Fatalf("run ended %s with %d jobs, want succeeded with 2", run.State, len(run.Jobs))
	}
	w.noLeftovers()
	for _, j := range run.Jobs {
		i := w.image(j.ImageID)
		name := i.VirtualMachine.Name
		if i.Status != api.ImageStatusGood || i.Sizes.Read == 0 || i.Sizes.Stored == 0 || i.Sizes.Provisioned != int64(len(i.Disks))*16<<20 {
			t.Errorf("image of %s: %s with sizes %+v", name, i.Status, i.Sizes)
		}
		if want := i.StartedAt.AddDate(0, 0, 7); !i.ExpiresAt.Equal(want) {
			t.Errorf("image of %s expires %s, want %s: 7 days from its start", name, i.ExpiresAt, want)
		}
		w.restoreBoth(i, before[name])
	}
}

// restoreBoth restores the image as a new VM, overwrites the original's disks
// as its guest would, and restores it in place.
func (w *world) restoreBoth(i api.BackupImage, want map[int32]string) {
	w.Helper()
	name := i.VirtualMachine.Name
	r := w.restore(api.Restore{ImageID: i.ID, NewVM: &api.RestoreNewVM{Name: name + "-copy"}})
	if r.Status != api.JobStateSucceeded {
		w.Fatalf("restore of %s as a new VM: %s %+v", name, r.Status, r.Error)
	}
	w.same("new VM of "+name, w.sums(name+"-copy"), want)
	copied, original := w.machine(name+"-copy"), w.machine(name)
	if copied.InstanceUUID == original.InstanceUUID || copied.Moid == original.Moid || r.RestoredVM.MOID != copied.Moid {
		w.Errorf("the new VM %+v is not told apart from %+v (%+v)", copied, original, r.RestoredVM)
	}
	if copied.PowerState != "poweredOff" {
		w.Errorf("the new VM is %s, want off: nobody asked for power_on", copied.PowerState)
	}

	for key := range want {
		if err := w.lab.GuestWriteRandom(name, key, 3<<20, 1<<20, 77); err != nil {
			w.Fatal(err)
		}
	}
	if got := w.sums(name); got[2000] == want[2000] {
		w.Fatal("the guest's write changed nothing")
	}
	c, err := w.api.CreateRestoreWithResponse(w.ctx, nil, api.Restore{ImageID: i.ID, InPlace: &api.RestoreInPlace{}})
	if code := api.CodeOf(api.Err(c, err)); code != api.ErrorCodeVMRunning {
		w.Fatalf("restore onto the running VM: got code %q, want vm_running", code)
	}
	r = w.restore(api.Restore{ImageID: i.ID, InPlace: &api.RestoreInPlace{PowerOff: true}})
	if r.Status != api.JobStateSucceeded {
		w.Fatalf("restore of %s in place: %s %+v", name, r.Status, r.Error)
	}
	w.same(name+" in place", w.sums(name), want)
	after := w.machine(name)
	if after.Moid != original.Moid || after.InstanceUUID != original.InstanceUUID || after.PowerState != "poweredOff" {
		w.Errorf("in place: got %+v, want the same VM as %+v, powered off", after, original)
	}
	w.noLeftovers()
}

// TestSecondBackupStoresLittle: unchanged data is stored once.
//
// seed:W6 seed:W8
func TestSecondBackupStoresLittle(t *testing.T) {
	w := newWorld(t, lab.Config{VMs: 1, DiskSize: 64 << 20}, server.Config{})
	vm := w.vm(w.vcenter("lab").ID, "vm01")
	first, second := w.backup(vm.ID), w.backup(vm.ID)
	if limit := first.Sizes.Stored / 100; second.Sizes.Stored > limit {
		t.Errorf("the unchanged backup stored %d bytes, want at most %d: 1 %% of %d", second.Sizes.Stored, limit, first.Sizes.Stored)
	}
}

// TestGuestWritesDuringBackup: the image is the disk at the snapshot's instant,
// whatever the guest writes meanwhile.
//
// seed:N6 seed:N56
func TestGuestWritesDuringBackup(t *testing.T) {
	w := newWorld(t, lab.Config{VMs: 1, DiskSize: 64 << 20}, server.Config{})
	vm := w.vm(w.vcenter("lab").ID, "vm01")
	stop, err := w.lab.KeepWriting("vm01", time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	// The removal is slow, so that the test can read what the snapshot froze.
	if err := w.lab.Arm(lab.Fault{Kind: "task_slow", Method: "RemoveSnapshot_Task", Delay: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	run := w.startBackup(vm.ID)
	atSnapshot := map[int32]string{}
	w.until("the snapshot", func() bool {
		for _, d := range w.machine("vm01").Disks {
			sum, err := w.lab.SnapshotSHA256(w.ctx, "vm01", d.Key)
			if err != nil {
				return false
			}
			atSnapshot[d.Key] = sum
		}
		return true
	})
	done := w.finish(run)
	stop()
	if done.State != api.RunStateSucceeded {
		t.Fatalf("backup ended %s: %+v", done.State, done.Jobs[0].Error)
	}
	image := w.image(done.Jobs[0].ImageID)
	r := w.restore(api.Restore{ImageID: image.ID, NewVM: &api.RestoreNewVM{Name: "then"}})
	if r.Status != api.JobStateSucceeded {
		t.Fatalf("restore: %+v", r.Error)
	}
	w.same("image of a busy VM", w.sums("then"), atSnapshot)
	if now := w.sums("vm01"); now[2000] == atSnapshot[2000] {
		t.Error("the guest wrote nothing during the backup: the test shows nothing")
	}
}
