package vsphere_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// putDisk restores one disk of the image to the VM.
func (r *rig) putDisk(img *image, vm, job string, d backup.RestoreDisk) ([]string, error) {
	r.Helper()
	done, messages, err := r.session.RestoreDisk(r.Context(), backup.DiskRestoreDraft{Marker: marker(job), MOID: r.lab.Moid(vm), Disk: d}, img, func(int64) {})
	if err == nil && done.MOID != r.lab.Moid(vm) {
		r.Errorf("restored %+v, want %s", done, r.lab.Moid(vm))
	}
	return messages, err
}

func replace(label string) backup.RestoreDisk {
	return backup.RestoreDisk{SourceLabel: label, Mode: backup.DiskReplace}
}

func attach(key int32) backup.RestoreDisk {
	return backup.RestoreDisk{SourceKey: key, Mode: backup.DiskAttach}
}

// seed:N4 seed:N12
func TestOneDiskIsReplacedAndTheOthersStay(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	was, disks, old := r.identity("vm02"), r.vm("vm02").Disks, r.files("vm02")
	for _, d := range disks {
		r.scribble("vm02", d.Key, 3)
	}
	r.ok(r.lab.SetPower(t.Context(), "vm02", false))
	kept := r.guestSum("vm02", disks[0].Key)
	messages, err := r.putDisk(img, "vm02", "r1", replace(disks[1].Label))
	r.ok(err)
	if r.guestSum("vm02", disks[0].Key) != kept || r.guestSum("vm02", disks[1].Key) != sum(img.disks[disks[1].Key]) {
		t.Error("the wrong disk was replaced, or not by the image's")
	}
	if is := r.identity("vm02"); is != was {
		t.Errorf("the VM became\n%swant\n%s", is, was)
	}
	files := r.files("vm02")
	if files[0] != old[0] || files[1] == old[1] {
		t.Errorf("the disks lie in %v, were in %v", files, old)
	}
	if text := strings.Join(messages, " "); !strings.Contains(text, "kept") {
		t.Errorf("messages = %q, want where the old disk is", messages)
	}
	r.noTrace()
	*r.now = r.now.Add(25 * time.Hour)
	lines, err := r.session.Sweep(t.Context(), "inst", nobody)
	r.ok(err)
	if len(lines) != 1 || !strings.Contains(lines[0], old[1]) {
		t.Errorf("swept %q, want the replaced disk %s", lines, old[1])
	}
}

func TestADiskIsAttachedToARunningVMAsOneMore(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	before := r.vm("vm01").Disks
	_, err := r.session.CreateSnapshot(t.Context(), backup.SnapshotDraft{MOID: r.lab.Moid("vm01"), Name: "of others"})
	r.ok(err)
	files := r.files("vm01")
	home := r.machine("vm01").Datastores[0]
	for i, store := range []string{"", "LocalDS_0"} { // it lies on the other

		d := attach(img.manifest.Image.Disks[0].Key)
		d.Datastore = store
		messages, err := r.putDisk(img, "vm01", fmt.Sprint("r", i), d)
		r.ok(err)
		now := r.vm("vm01").Disks
		if len(now) != len(before)+i+1 {
			t.Fatalf("the VM has %d disks, want %d", len(now), len(before)+i+1)
		}
		got := now[len(now)-1]
		if r.guestSum("vm01", got.Key) != sum(img.disks[d.SourceKey]) {
			t.Error("the attached disk differs from the image's")
		}
		file := r.files("vm01")[len(now)-1]
		if text := strings.Join(messages, " "); !strings.Contains(text, got.Label) || !strings.Contains(text, file) || !strings.Contains(file, "["+cmp.Or(store, home)+"] vm01/") {
			t.Errorf("messages = %q, file %s, want it named, in the VM's folder", messages, file)
		}
	}
	if got := r.files("vm01"); !slices.Equal(got[:len(files)], files) || r.vm("vm01").PowerState != "poweredOn" {
		t.Errorf("the VM's own disks are %v, were %v", got, files)
	}
	if id := r.backingUUIDs("vm01"); len(slices.Compact(slices.Sorted(slices.Values(id)))) != len(id) || slices.Contains(id, img.manifest.Image.Disks[0].UUID) {
		t.Errorf("backing UUIDs are %v, want each of its own", id)
	}
	r.noTrace()
	lines, err := r.session.Sweep(t.Context(), "inst", nobody)
	r.ok(err)
	if len(lines) != 0 {
		t.Errorf("the restores left %v to the sweep", lines)
	}
}

// devices are the VM's virtual hardware.
func (r *rig) devices(vm string) object.VirtualDeviceList {
	r.Helper()
	c, err := govmomi.NewClient(r.Context(), r.lab.URL(), true)
	r.ok(err)
	defer func() { _ = c.Logout(context.WithoutCancel(r.Context())) }()
	list, err := object.NewVirtualMachine(c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: r.lab.Moid(vm)}).Device(r.Context())
	r.ok(err)
	return list
}

func (r *rig) backingUUIDs(vm string) (out []string) {
	r.Helper()
	for _, d := range r.devices(vm) {
		if disk, ok := d.(*types.VirtualDisk); ok {
			out = append(out, disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo).Uuid)
		}
	}
	return out
}

// TestADiskIsAttachedOnce is the attempt after one that was killed when all
// was done and nothing of it told.
func TestADiskIsAttachedOnce(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	d := attach(img.manifest.Image.Disks[1].Key)
	_, err := r.putDisk(img, "vm01", "r1", d)
	r.ok(err)
	n := len(r.vm("vm01").Disks)
	_, _, err = r.session.RestoreDisk(t.Context(), backup.DiskRestoreDraft{Marker: "kura:inst:r1:2", MOID: r.lab.Moid("vm01"), Disk: d}, img, func(int64) {
		t.Error("the second attempt sends the disk again")
	})
	r.ok(err)
	if now := len(r.vm("vm01").Disks); now != n {
		t.Errorf("after the second attempt the VM has %d disks, want %d", now, n)
	}
	_, err = r.putDisk(img, "vm01", "r2", d) // another restore of the same
	r.ok(err)
	if now := len(r.vm("vm01").Disks); now != n+1 {
		t.Errorf("after the second restore the VM has %d disks, want %d", now, n+1)
	}
}

func TestABusFullOfDisksGetsAnotherController(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	key := img.manifest.Image.Disks[0].Key
	var fill types.VirtualMachineConfigSpec
	taken := map[int32]bool{7: true}
	for _, d := range r.devices("vm01") {
		if disk, ok := d.(*types.VirtualDisk); ok {
			taken[*disk.UnitNumber] = true
		}
	}
	for unit := range int32(16) {
		if !taken[unit] {
			fill.DeviceChange = append(fill.DeviceChange, &types.VirtualDeviceConfigSpec{Operation: "add", FileOperation: "create", Device: &types.VirtualDisk{
				VirtualDevice: types.VirtualDevice{Key: -1 - unit, ControllerKey: 1000, UnitNumber: &unit, Backing: &types.VirtualDiskFlatVer2BackingInfo{
					VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: fmt.Sprintf("[%s] vm01/more%d.vmdk", r.machine("vm01").Datastores[0], unit)}, DiskMode: "persistent",
				}},
				CapacityInKB: 64,
			}})
		}
	}
	r.change("vm01", fill)
	n := len(r.vm("vm01").Disks)
	_, err := r.putDisk(img, "vm01", "r1", attach(key))
	r.ok(err)
	now := r.vm("vm01").Disks
	if len(now) != n+1 || r.guestSum("vm01", now[n].Key) != sum(img.disks[key]) {
		t.Errorf("the VM has %d disks, want one more than %d, as in the image", len(now), n)
	}
	var buses []int32
	for _, d := range r.devices("vm01") {
		if c, ok := d.(types.BaseVirtualSCSIController); ok {
			buses = append(buses, c.GetVirtualSCSIController().BusNumber)
		}
	}
	if !slices.Equal(buses, []int32{0, 1}) {
		t.Errorf("the VM has SCSI buses %v, want a second one", buses)
	}
}

func TestADiskThatMustNotBePutIsRefusedUntouched(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	label := img.manifest.Image.Disks[1].Label
	refused := func(want backup.Code, says string, vm string, d backup.RestoreDisk) {
		t.Helper()
		_, err := r.putDisk(img, vm, "r1", d)
		if e := wantCode(t, err, want); !strings.Contains(e.Message, says) {
			t.Errorf("message = %q, want %q in it", e.Message, says)
		}
	}
	refused(backup.VMRunning, "attach", "vm02", replace(label))
	refused(backup.Invalid, label, "vm02", replace("Hard disk 9"))
	refused(backup.Invalid, "key", "vm02", attach(77))
	elsewhere := attach(2000)
	elsewhere.Datastore = "nowhere"
	refused(backup.Invalid, "LocalDS_1", "vm02", elsewhere)
	r.ok(r.lab.SetPower(t.Context(), "vm02", false))
	r.ok(r.lab.SetPower(t.Context(), "vm01", false))
	refused(backup.PreflightFailed, "attach", "vm01", replace(label)) // it has one disk
	_, err := r.session.CreateSnapshot(t.Context(), backup.SnapshotDraft{MOID: r.lab.Moid("vm02"), Name: "before the update"})
	r.ok(err)
	files := r.files("vm02")
	refused(backup.PreflightFailed, "before the update", "vm02", replace(label))
	if now := r.files("vm02"); !slices.Equal(now, files) {
		t.Errorf("the disks are %v, were %v", now, files)
	}
	r.noTrace()
	moid := r.lab.Moid("vm03")
	r.ok(r.lab.RemoveVM(t.Context(), "vm03"))
	_, _, err = r.session.RestoreDisk(t.Context(), backup.DiskRestoreDraft{Marker: marker("r1"), MOID: moid, Disk: attach(2000)}, img, func(int64) {})
	wantCode(t, err, backup.VMGone)
}

func TestAFailedRestoreOfADiskLeavesTheVMAsItWas(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	r.ok(r.lab.SetPower(t.Context(), "vm02", false))
	r.scribble("vm02", 0, 3)
	before, files := r.guestSum("vm02", 0), r.files("vm02")
	for name, f := range map[string]lab.Fault{
		"upload cut":      {Kind: "upload_cut", After: 500_000},
		"staging refused": {Kind: "datastore_full", Method: "ImportVApp"},
		"note refused":    {Kind: "task_fail", Method: "ReconfigVM_Task", VM: "vm02"},
		"detach refused":  {Kind: "task_fail", Method: "ReconfigVM_Task", After: 1},
		"move refused":    {Kind: "task_fail", Method: "MoveVirtualDisk_Task"},
		"change refused":  {Kind: "task_fail", Method: "ReconfigVM_Task", VM: "vm02", After: 2},
	} {
		for mode, d := range map[string]backup.RestoreDisk{"replace": replace(img.manifest.Image.Disks[0].Label), "attach": attach(img.manifest.Image.Disks[0].Key)} {
			t.Run(name+", "+mode, func(t *testing.T) {
				r.ok(r.lab.Arm(f))
				if _, err := r.putDisk(img, "vm02", "r1", d); err == nil {
					t.Error("a failed restore passed for a good one")
				}
				if armed := r.lab.Armed(); len(armed) != 0 {
					t.Errorf("the fault did not strike: %v", armed)
					r.lab.ClearFaults()
				}
				if r.guestSum("vm02", 0) != before || !slices.Equal(r.files("vm02"), files) {
					t.Errorf("the VM is not as it was: %v", r.files("vm02"))
				}
				r.noTrace()
				lines, err := r.session.Sweep(t.Context(), "inst", nobody)
				r.ok(err)
				if len(lines) != 0 {
					t.Errorf("the restore left %v to the sweep", lines)
				}
			})
		}
	}
}

// TestAVMThatChangesWhileItsDisksComeIsLeftAlone: a restore of terabytes takes
// hours, in which somebody may do anything to the VM.
func TestAVMThatChangesWhileItsDisksComeIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(r *rig)
		want      backup.Code
	}{
		"started":          {func(r *rig) { r.ok(r.lab.SetPower(r.Context(), "vm02", true)) }, backup.VMRunning},
		"given a snapshot": {func(r *rig) { r.snap("vm02", "before the update") }, backup.PreflightFailed},
	} {
		t.Run(name, func(t *testing.T) {
			r := setup(t, small())
			img := r.take("vm02", "b1")
			r.ok(r.lab.SetPower(t.Context(), "vm02", false))
			r.scribble("vm02", 0, 3)
			before := r.guestSum("vm02", 0)
			var once sync.Once
			progress := func(int64) { once.Do(func() { c.meanwhile(r) }) }
			_, _, err := r.session.OverwriteVM(t.Context(), backup.OverwriteDraft{
				Marker: marker("r1"), MOID: r.lab.Moid("vm02"), InPlace: backup.RestoreInPlace{Safety: backup.SafetyQuick},
			}, img, progress)
			wantCode(t, err, c.want)
			if r.guestSum("vm02", 0) != before {
				t.Error("the VM was overwritten all the same")
			}
			r.noTrace()
			lines, err := r.session.Sweep(t.Context(), "inst", nobody)
			r.ok(err)
			if len(lines) != 0 {
				t.Errorf("the restore left %v to the sweep", lines)
			}
		})
	}
}
