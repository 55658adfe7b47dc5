package vsphere_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// change writes a little into a disk that an image was made of, in two places.
func (r *rig) fewWrites(vm string, key int32) {
	r.Helper()
	r.ok(r.lab.GuestWriteRandom(vm, key, 1<<20+777, 5000, 11))
	r.ok(r.lab.GuestWriteRandom(vm, key, 5<<20, 128<<10, 12))
}

// level is a restore in place that powers the VM off and on.
func (r *rig) level(img *image, vm, job string, safety backup.Safety) ([]string, error) {
	r.Helper()
	_, messages, err := r.overwrite(img, vm, job, backup.RestoreInPlace{PowerOff: true, PowerOn: true, Safety: safety})
	return messages, err
}

// wantDisks fails unless the guest sees what the image holds.
func (r *rig) wantDisks(vm string, img *image) {
	r.Helper()
	for key, b := range img.disks {
		if r.guestSum(vm, key) != sum(b) {
			r.Errorf("disk %d of %s is not the image's", key, vm)
		}
	}
}

// seed:N4
func TestARestoreInPlaceOverHotAddWritesOnlyWhatDiffers(t *testing.T) {
	for _, safety := range []backup.Safety{backup.SafetyNone, backup.SafetyQuick} {
		t.Run(string(safety), func(t *testing.T) {
			r := withProxy(t, small())
			own, _ := r.proxyState()
			before := r.vm("vm02")
			img := r.take("vm02", "b1")
			for key := range img.disks {
				r.fewWrites("vm02", key)
			}
			messages, err := r.level(img, "vm02", "r1", safety)
			r.ok(err)
			if _, written := r.lab.DeviceTraffic(); written != int64(len(img.disks))*(3<<16) {
				t.Errorf("wrote %d bytes, want the three units of 64 KiB that differ on each of %d disks", written, len(img.disks))
			}
			r.wantDisks("vm02", img)
			r.wantBare(own)
			after := r.vm("vm02")
			if after.PowerState != "poweredOn" || after.InstanceUUID != before.InstanceUUID {
				t.Errorf("the VM is %s", after.PowerState)
			}
			if !strings.Contains(strings.Join(messages, " "), "Over hotadd") {
				t.Errorf("messages = %q", messages)
			}
			if note := r.annotation("vm02"); strings.Contains(note, "kura:") {
				t.Errorf("annotation = %q", note)
			}
			if safety == backup.SafetyNone {
				if len(after.Snapshots) != 0 || after.Disks[0].File != before.Disks[0].File {
					t.Errorf("snapshots %v and the file %s, want none and %s", after.Snapshots, after.Disks[0].File, before.Disks[0].File)
				}
				return
			}
			r.keptForADay("vm02", before, img)
		})
	}
}

// keptForADay looks at the snapshot that a quick restore leaves.
func (r *rig) keptForADay(vm string, before lab.VM, img *image) {
	r.Helper()
	if got := r.vm(vm).Snapshots; !slices.Equal(got, []string{marker("r1")}) {
		r.Fatalf("snapshots = %v", got)
	}
	_, err := r.session.Sweep(r.Context(), "inst", nobody)
	r.ok(err)
	if got := r.vm(vm).Snapshots; len(got) != 1 {
		r.Error("a sweep removed what is kept for a day")
	}
	*r.now = r.now.Add(25 * time.Hour)
	lines, err := r.session.Sweep(r.Context(), "inst", nobody)
	r.ok(err)
	if after := r.vm(vm); len(lines) != 1 || len(after.Snapshots) != 0 || after.Disks[0].File != before.Disks[0].File {
		r.Errorf("swept %q; snapshots %v, file %s, want %s", lines, after.Snapshots, after.Disks[0].File, before.Disks[0].File)
	}
	r.wantDisks(vm, img)
}

func (r *rig) annotation(vm string) string {
	r.Helper()
	return r.config(vm).Annotation
}

func TestARestoreOverOneThatIsStillKeptTakesItsPlace(t *testing.T) {
	r := withProxy(t, small())
	img := r.take("vm01", "b1")
	for _, job := range []string{"r1", "r2"} {
		r.fewWrites("vm01", 0)
		_, err := r.level(img, "vm01", job, backup.SafetyQuick)
		r.ok(err)
		r.wantDisks("vm01", img)
		if got := r.vm("vm01").Snapshots; !slices.Equal(got, []string{marker(job)}) {
			t.Errorf("after %s: snapshots %v", job, got)
		}
	}
}

// A restore that dies anywhere leaves the old VM, after its own undoing or
// after the next sweep, or the new one: nothing between. seed:N9
func TestARestoreOverHotAddThatDiesLeavesTheOldVMOrTheNew(t *testing.T) {
	for _, x := range []struct {
		name  string
		fault lab.Fault
	}{
		{"snapshot fails", lab.Fault{Kind: "snapshot_fail"}},
		{"read fails half way", lab.Fault{Kind: "device_fail", After: 4}},
		{"write fails half way", lab.Fault{Kind: "device_write_fail", After: 1}},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := withProxy(t, small())
			own, _ := r.proxyState()
			img := r.take("vm01", "b1")
			r.fewWrites("vm01", 0)
			old := r.guestSum("vm01", 0)
			note := r.annotation("vm01")
			r.ok(r.lab.Arm(x.fault))
			_, err := r.level(img, "vm01", "r1", backup.SafetyNone)
			if err == nil {
				t.Fatal("the restore passed for done")
			}
			r.lab.ClearFaults()
			_, err = r.session.Sweep(t.Context(), "inst", nobody)
			r.ok(err)
			v := r.vm("vm01")
			if r.guestSum("vm01", 0) != old || v.PowerState != "poweredOn" || len(v.Snapshots) != 0 || r.annotation("vm01") != note {
				t.Errorf("the VM is %s, has snapshots %v and the annotation %q, and its old disk: %v", v.PowerState, v.Snapshots, r.annotation("vm01"), r.guestSum("vm01", 0) == old)
			}
			r.wantBare(own)
			_, err = r.level(img, "vm01", "r2", backup.SafetyNone)
			r.ok(err)
			r.wantDisks("vm01", img)
		})
	}
}

func TestAKilledRestoreOverHotAddIsUndoneByTheSweep(t *testing.T) {
	r := withProxy(t, small())
	own, _ := r.proxyState()
	img := r.take("vm01", "b1")
	r.fewWrites("vm01", 0)
	old, note := r.guestSum("vm01", 0), r.annotation("vm01")
	writing, killed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(killed)
		// It stands still in the middle of writing, as a server that froze.
		_, _, err := r.session.OverwriteVM(t.Context(), backup.OverwriteDraft{
			Marker: marker("r1"), MOID: r.lab.Moid("vm01"), InPlace: backup.RestoreInPlace{PowerOff: true, Safety: backup.SafetyNone},
		}, img, func(n int64) {
			if n == 2<<20 { // behind the first place that differs
				close(writing)
				<-t.Context().Done()
			}
		})
		if err == nil {
			t.Error("the restore ended well after it was overtaken")
		}
	}()
	t.Cleanup(func() { <-killed })
	<-writing
	if now := r.annotation("vm01"); !strings.HasPrefix(now, "kura: the restore "+marker("r1")) || r.guestSum("vm01", 0) == old {
		t.Errorf("in the middle the annotation is %q", now)
	}
	s, err := connector(t, quick()).Connect(t.Context(), vcenter(r.lab)) // another server
	r.ok(err)
	change, err := s.Inventory(t.Context(), "")
	r.ok(err)
	if !slices.ContainsFunc(change.VMs, func(v backup.VirtualMachine) bool { return v.Name == "vm01" }) {
		t.Error("the VM is not in the inventory while it is written")
	}
	_, err = s.Sweep(t.Context(), "inst", nobody)
	r.ok(err)
	v := r.vm("vm01")
	if r.guestSum("vm01", 0) != old || v.PowerState != "poweredOn" || len(v.Snapshots) != 0 || r.annotation("vm01") != note {
		t.Errorf("the VM is %s, has snapshots %v and the annotation %q", v.PowerState, v.Snapshots, r.annotation("vm01"))
	}
	r.wantBare(own)
}

func TestWhatDoesNotFitTheVMsDisksIsSwappedInstead(t *testing.T) {
	r := withProxy(t, small())
	img := r.take("vm01", "b1")
	r.fewWrites("vm01", 0)
	r.enlarge("vm01", 16<<20)
	_, err := r.level(img, "vm01", "r1", backup.SafetyNone)
	r.ok(err)
	if _, written := r.lab.DeviceTraffic(); written != 0 {
		t.Errorf("%d bytes were written into a disk of another size", written)
	}
	r.wantDisks("vm01", img)
}

func TestTrackingBeginsAnewAfterDisksWereWrittenBehindItsBack(t *testing.T) {
	r := withProxy(t, small())
	moid := r.lab.Moid("vm01")
	_, err := r.session.TrackChanges(t.Context(), moid)
	r.ok(err)
	img := r.take("vm01", "b1") // its stun begins the log
	snap := r.snapshot("vm01", "b2")
	id := snap.Disks[0].ChangeID
	r.ok(r.session.RemoveSnapshot(t.Context(), moid, snap.Name))
	r.fewWrites("vm01", 0)
	_, err = r.level(img, "vm01", "r1", backup.SafetyNone)
	r.ok(err)
	again := r.snapshot("vm01", "b3")
	if id == "" || backup.Epoch(again.Disks[0].ChangeID) == backup.Epoch(id) {
		t.Errorf("the change id is %q, after %q: the log goes on as if nothing had been written", again.Disks[0].ChangeID, id)
	}
}

func TestAnAttemptAfterOneThatMadeTheVMWholeKeepsWhatItWas(t *testing.T) {
	r := withProxy(t, small())
	img := r.take("vm01", "b1")
	r.fewWrites("vm01", 0)
	_, err := r.level(img, "vm01", "r1", backup.SafetyQuick)
	r.ok(err) // and the server is killed before it can say so
	_, before := r.lab.DeviceTraffic()
	_, _, err = r.session.OverwriteVM(t.Context(), backup.OverwriteDraft{
		Marker: "kura:inst:r1:2", MOID: r.lab.Moid("vm01"), InPlace: backup.RestoreInPlace{PowerOn: true, Safety: backup.SafetyQuick},
	}, img, func(int64) {})
	r.ok(err)
	if _, after := r.lab.DeviceTraffic(); after != before || !slices.Equal(r.vm("vm01").Snapshots, []string{marker("r1")}) {
		t.Errorf("it wrote %d bytes, and the snapshots are %v, want that of the first attempt", after-before, r.vm("vm01").Snapshots)
	}
}

func TestADatastoreIsNotFilledByWhatDiffers(t *testing.T) {
	c := small()
	c.DatastoreSize = 16 << 20
	r := withProxy(t, c)
	img := r.take("vm01", "b1")
	r.scribble("vm01", 0, 9)
	old := r.guestSum("vm01", 0)
	_, err := r.level(img, "vm01", "r1", backup.SafetyNone)
	if e := wantCode(t, err, backup.NoSpace); !strings.Contains(e.Message, "differs than the datastore") {
		t.Errorf("message = %s", e.Message)
	}
	if v := r.vm("vm01"); r.guestSum("vm01", 0) != old || v.PowerState != "poweredOn" || len(v.Snapshots) != 0 {
		t.Errorf("the VM is %s with snapshots %v, and has its old disk: %v", v.PowerState, v.Snapshots, r.guestSum("vm01", 0) == old)
	}
}
