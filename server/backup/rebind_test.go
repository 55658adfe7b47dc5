package backup_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// ready says that the vcenter's inventory was read just now, or could not be.
func (h *house) ready(v backup.VCenter, state backup.SyncState) {
	h.Helper()
	v.SyncState, v.SyncedAt = state, h.clock.Now()
	h.update(func(tx backup.Tx) error { return tx.SaveSync(h.ctx, v) })
}

// rebuilt is a second vcenter that shows those VMs as new objects.
func (h *house) rebuilt(capacity int, vms ...backup.VirtualMachine) (backup.VCenter, []backup.VirtualMachine) {
	h.Helper()
	v := h.addVCenter("new", "UTC", capacity)
	var there []backup.VirtualMachine
	for _, vm := range vms {
		vm.ID, vm.VCenterID, vm.MOID, vm.Host = "", v.ID, "new-"+vm.MOID, "esx9"
		there = append(there, vm)
	}
	h.save(there)
	h.ready(v, backup.SyncReady)
	h.ready(h.vcenter, backup.SyncFailed)
	return v, there
}

func (h *house) machine(id string) backup.VirtualMachine {
	h.Helper()
	return read(h, func(tx backup.Tx) (backup.VirtualMachine, error) { return tx.Machine(h.ctx, id) })
}

// table writes a result as "vm01 -> new-vm-1 by instance UUID" and "vm02 stays: why".
func table(r backup.RebindResult) []string {
	var out []string
	for _, m := range r.Moved {
		out = append(out, fmt.Sprintf("%s -> %s by %s", m.VM.Name, m.To.MOID, m.By))
	}
	for _, l := range r.Left {
		out = append(out, fmt.Sprintf("%s stays: %s", l.VM.Name, l.Reason))
	}
	return out
}

func TestImagesSchedulesAndListsGoWithTheVMsToARebuiltVCenter(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 3)
	image := h.addImage(vms[0], "")
	single, listed := nightly("single", 2), nightly("listed", 3)
	single.VMID, listed.GroupID = vms[0].ID, h.addGroup("listed", vms[:2]).ID
	single = h.add(single)
	h.add(listed)
	to, there := h.rebuilt(10, vms...)
	of := h.addImage(there[1], "") // the new place has been backed up already
	both := must(h.CreateGroup(h.ctx, backup.Group{Name: "both", VirtualMachineIDs: []string{vms[1].ID, there[1].ID, there[2].ID}}))(t)
	ask := backup.Rebinding{FromID: h.vcenter.ID, ToID: to.ID, DryRun: true}
	dry := must(h.RebindVCenter(h.ctx, ask))(t)
	if h.machine(vms[0].ID).VCenterID != h.vcenter.ID || len(dry.Moved) != 3 || dry.Moved[0].Images != 1 {
		t.Fatalf("a dry run tells %q and moves the VM to %s", table(dry), h.machine(vms[0].ID).VCenterID)
	}
	ask.DryRun = false
	done := must(h.RebindVCenter(h.ctx, ask))(t)
	if want := []string{"vm01 -> new-vm-1 by instance UUID", "vm02 -> new-vm-2 by instance UUID", "vm03 -> new-vm-3 by instance UUID"}; !slices.Equal(table(done), want) || !slices.Equal(table(dry), want) {
		t.Errorf("it was said %q, and done %q, want %q", table(dry), table(done), want)
	}
	if !slices.Equal(done.Schedules, []string{"listed", "single"}) {
		t.Errorf("schedules booked anew = %q, want both", done.Schedules)
	}
	for i, vm := range vms {
		if got := h.machine(vm.ID); got.VCenterID != to.ID || got.MOID != there[i].MOID || got.Host != "esx9" || got.Gone() {
			t.Errorf("%s is now %+v, want it in its new place", vm.Name, got)
		}
	}
	for id, vm := range map[string]string{image.ID: vms[0].ID, of.ID: vms[1].ID} {
		if i := read(h, func(tx backup.Tx) (backup.Image, error) { return tx.Image(h.ctx, id) }); i.VMID != vm || i.VCenterID != to.ID {
			t.Errorf("image %s is of VM %s in %s, want %s in %s", id, i.VMID, i.VCenterID, vm, to.ID)
		}
	}
	if n := len(read(h, func(tx backup.Tx) ([]backup.Booking, error) { return tx.Booked(h.ctx, h.vcenter.ID) })); n != 0 {
		t.Errorf("%d schedules hold seats in the old vcenter still", n)
	}
	used := h.taken(to.ID)
	if used[tonight(2)] != 1 || used[tonight(3)] != 2 {
		t.Errorf("the new vcenter has %d and %d seats taken, want 1 and 2", used[tonight(2)], used[tonight(3)])
	}
	if got := must(h.GroupMembers(h.ctx, both.ID))(t); len(got) != 2 {
		t.Errorf("the group that listed old and new has %d members, want vm02 and vm03 once each", len(got))
	}
	r := must(h.RunSchedule(h.ctx, single.ID))(t)
	if r.Jobs[0].VCenterID != to.ID || r.Jobs[0].VMID != vms[0].ID || !strings.Contains(fmt.Sprint(r.Jobs[0].Keys), "esx9") {
		t.Errorf("the next job is %+v, want it in the new place", r.Jobs[0])
	}
	restore := must(h.CreateRestore(h.ctx, backup.Restore{ImageID: image.ID, InPlace: &backup.RestoreInPlace{Safety: backup.SafetyQuick}}))(t)
	j := read(h, func(tx backup.Tx) (backup.Job, error) { return tx.Job(h.ctx, restore.JobID) })
	var spec backup.RestoreSpec
	if err := json.Unmarshal(j.Spec, &spec); err != nil || j.VCenterID != to.ID || spec.VCenterID != to.ID || j.VMID != vms[0].ID {
		t.Errorf("a restore in place is %+v (%v), want it in the new vcenter", j, err)
	}
	if err := h.DeleteVCenter(h.ctx, h.vcenter.ID); err != nil {
		t.Errorf("the old vcenter is in use still: %v", err)
	}
}

func TestWhatCannotBeToldForSureStaysWhereItIs(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 8)
	vm := func(i int) *backup.VirtualMachine { return &vms[i-1] }
	for i := range vms {
		vms[i].BIOSUUID = fmt.Sprint("bios-", i+1)
	}
	vm(3).InstanceUUID = vm(2).InstanceUUID // two of one UUID
	vm(5).InstanceUUID, vm(5).Name = vm(4).InstanceUUID, vm(4).Name
	h.save(vms)
	h.addImage(*vm(8), "")
	anew := func(i int) backup.VirtualMachine { // registered anew: another instance UUID
		v := *vm(i)
		v.InstanceUUID = "anew-" + v.Name
		return v
	}
	renamed := anew(7)
	renamed.Name = "other"
	copied := *vm(1)
	copied.MOID, copied.Name = "copy", "copy of vm01"
	to, _ := h.rebuilt(10, *vm(1), copied, *vm(2), *vm(3), *vm(4), *vm(5), anew(6), renamed)
	h.leave(*vm(8))
	ask := backup.Rebinding{FromID: h.vcenter.ID, ToID: to.ID, DryRun: true}
	got := table(must(h.RebindVCenter(h.ctx, ask))(t))
	want := []string{
		"vm01 -> new-vm-1 by instance UUID and name", "vm02 -> new-vm-2 by instance UUID and name", "vm03 -> new-vm-3 by instance UUID and name", "vm06 -> new-vm-6 by BIOS UUID and name",
		"vm04 stays: 2 VMs of vcenter a had its instance UUID, and names do not tell them apart; name it in the map",
		"vm04 stays: 2 VMs of vcenter a had its instance UUID, and names do not tell them apart; name it in the map",
		`vm07 stays: its BIOS UUID, but not both UUID and name, is that of "other" (new-vm-7); name one in the map`,
		"vm08 stays: vcenter new has no VM that could be it",
	}
	if !slices.Equal(got, want) {
		t.Errorf("re-bound as\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	ask.Map = map[string]string{vm(7).ID: "new-vm-7", vm(4).ID: "new-vm-4", vm(5).ID: "new-vm-5", vm(1).ID: "new-copy"}
	got = table(must(h.RebindVCenter(h.ctx, ask))(t))
	if len(got) != 8 || got[0] != "vm01 -> new-copy by the map" || !slices.Contains(got, "vm07 -> new-vm-7 by the map") {
		t.Errorf("with a map re-bound as\n%s", strings.Join(got, "\n"))
	}
	ask.Map = map[string]string{vm(3).ID: "nowhere"}
	if got = table(must(h.RebindVCenter(h.ctx, ask))(t)); !slices.Contains(got, "vm03 stays: vcenter new has no VM nowhere, which the map names") {
		t.Errorf("with a wrong map re-bound as\n%s", strings.Join(got, "\n"))
	}
	ask.Map = map[string]string{vm(1).ID: "new-vm-1", vm(2).ID: "new-vm-1"}
	_, err := h.RebindVCenter(h.ctx, ask)
	refused(t, err, backup.Invalid, "map")
}

func TestAVMThatTheOldVCenterStillShowsIsACopy(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	to, _ := h.rebuilt(10, vms...)
	h.leave(vms[0])
	h.ready(h.vcenter, backup.SyncReady)
	ask := backup.Rebinding{FromID: h.vcenter.ID, ToID: to.ID, DryRun: true}
	want := []string{"vm01 -> new-vm-1 by instance UUID", "vm02 stays: vcenter a still showed it at 2026-11-23 12:00 UTC; sync that, or name it in the map"}
	if got := table(must(h.RebindVCenter(h.ctx, ask))(t)); !slices.Equal(got, want) {
		t.Errorf("re-bound as %q, want %q", got, want)
	}
	ask.Map = map[string]string{vms[1].ID: "new-vm-2"}
	if got := table(must(h.RebindVCenter(h.ctx, ask))(t)); got[1] != "vm02 -> new-vm-2 by the map" {
		t.Errorf("re-bound as %q, want what the map says", got)
	}
}

func TestARebindingHurtsNoJobAndDropsNoSeat(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	to, _ := h.rebuilt(1, vms...)
	ask := backup.Rebinding{FromID: h.vcenter.ID, ToID: to.ID}
	for range 2 {
		must(h.BackupVM(h.ctx, vms[0].ID, backup.RunOptions{RetentionDays: 1}))(t)
	}
	j := h.claim()
	_, err := h.RebindVCenter(h.ctx, ask)
	if e := refused(t, err, backup.VMBusy, ""); !strings.Contains(e.Message, j.ID) || !strings.Contains(e.Message, "vm01") {
		t.Errorf("refused with %q, want the VM and its job", e.Message)
	}
	h.finish(j, backup.Ending{State: backup.JobSucceeded})
	full := nightly("full", 4)
	full.GroupID = h.addGroup("two", vms).ID
	full = h.add(full)
	_, err = h.RebindVCenter(h.ctx, ask)
	if e := backup.AsError(err); e == nil || e.Field != "to" || !strings.Contains(e.Message, `Schedule "full" has no room in vcenter new.`) {
		t.Errorf("two seats in a vcenter of one: %v, want it refused", err)
	}
	if h.machine(vms[0].ID).VCenterID != h.vcenter.ID {
		t.Error("a refused re-binding has moved a VM")
	}
	full.Enabled = false
	h.change(full)
	if done := must(h.RebindVCenter(h.ctx, ask))(t); done.Withdrawn != 1 || len(done.Moved) != 2 {
		t.Errorf("%d jobs withdrawn and %d VMs moved, want the job that waited and both", done.Withdrawn, len(done.Moved))
	}
	if next := h.claim(); next != nil {
		t.Errorf("job %s of the old place is claimed still", next.ID)
	}
}

func TestSelectorsGoAlongOnlyIfAskedAndMembersAreNoted(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	s := h.selected(0)
	to, _ := h.rebuilt(10, vms...)
	ask := backup.Rebinding{FromID: h.vcenter.ID, ToID: to.ID, DryRun: true}
	if dry := must(h.RebindVCenter(h.ctx, ask))(t); !slices.Equal(dry.Selecting, []string{"all"}) || len(dry.Groups) != 0 {
		t.Errorf("without selectors: %q still select and %q go along", dry.Selecting, dry.Groups)
	}
	ask.DryRun, ask.Selectors = false, true
	if done := must(h.RebindVCenter(h.ctx, ask))(t); !slices.Equal(done.Groups, []string{"all"}) || len(done.Selecting) != 0 || !slices.Equal(done.Schedules, []string{"all"}) {
		t.Errorf("with selectors: %q still select, %q go along, schedules %q", done.Selecting, done.Groups, done.Schedules)
	}
	if got := must(h.GroupMembers(h.ctx, s.GroupID))(t); !slices.Equal(ids(got), ids(vms)) {
		t.Errorf("the group has %d members, want the two it had", len(got))
	}
	if used := h.taken(to.ID); used[tonight(13).AddDate(0, 0, -1)] != 2 {
		t.Errorf("the new vcenter has %d seats taken, want 2", used[tonight(13).AddDate(0, 0, -1)])
	}
	for name, c := range map[string]struct {
		ask  backup.Rebinding
		code backup.Code
		at   string
	}{
		"to itself":    {backup.Rebinding{FromID: to.ID, ToID: to.ID}, backup.Invalid, "to"},
		"to nowhere":   {backup.Rebinding{FromID: h.vcenter.ID, ToID: "x"}, backup.NotFound, "to"},
		"from nowhere": {backup.Rebinding{FromID: "x", ToID: to.ID}, backup.NotFound, ""},
		"unsynced":     {backup.Rebinding{FromID: to.ID, ToID: h.vcenter.ID}, backup.Invalid, "to"},
		"a wrong map":  {backup.Rebinding{FromID: h.vcenter.ID, ToID: to.ID, Map: map[string]string{"x": "vm-1"}}, backup.Invalid, "map"},
	} {
		_, err := h.RebindVCenter(h.ctx, c.ask)
		if e := backup.AsError(err); e == nil || e.Code != c.code || e.Field != c.at {
			t.Errorf("%s: %v, want %s at %q", name, err, c.code, c.at)
		}
	}
}
