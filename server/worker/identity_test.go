package worker_test

import (
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:N45 seed:N70
func TestAVMThatIsRegisteredAnewIsTheSameAndItsCopyIsAnother(t *testing.T) {
	h := newHouse(t)
	g, err := h.planner.CreateGroup(h.ctx, backup.Group{Name: "all", Selector: &backup.Selector{VCenterID: h.vcenter.ID}})
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	place := func(moid, name string) {
		h.vsphere.vmsMu.Lock()
		defer h.vsphere.vmsMu.Unlock()
		vm := h.vm
		vm.ID, vm.MOID, vm.Name = "", moid, name
		h.vsphere.vms[moid] = &fakeVM{Machine: backup.Machine{VirtualMachine: vm}}
	}
	known := func() (byMOID map[string]backup.VirtualMachine) {
		byMOID = map[string]backup.VirtualMachine{}
		for _, vm := range read(h, func(tx backup.Tx) ([]backup.VirtualMachine, error) {
			all, _, err := tx.Machines(h.ctx, backup.MachineFilter{VCenterID: h.vcenter.ID, IncludeGone: true})
			return all, err
		}) {
			byMOID[vm.MOID] = vm
		}
		return byMOID
	}
	h.sync()
	place("moid-anew", "web renamed")
	h.vsphere.remove(h.vm.MOID)
	h.sync()
	if got := known(); len(got) != 1 || got["moid-anew"].ID != h.vm.ID || got["moid-anew"].Gone() || got["moid-anew"].Name != "web renamed" {
		t.Fatalf("after it was registered anew there are %+v, want the one VM with the id that it had", got)
	}
	place("moid-copy", "copy of web")
	h.sync()
	got := known()
	if len(got) != 2 || got["moid-anew"].ID != h.vm.ID || got["moid-copy"].ID == h.vm.ID || got["moid-copy"].InstanceUUID != h.vm.InstanceUUID {
		t.Fatalf("after it was copied there are %+v, want two VMs of one UUID", got)
	}
	h.vsphere.remove("moid-anew")
	h.sync()
	if got := known(); !got["moid-anew"].Gone() || got["moid-copy"].Gone() {
		t.Errorf("after the first was deleted there are %+v, want the copy alone", got)
	}
	changes := read(h, func(tx backup.Tx) ([]backup.MemberChange, error) {
		all, _, err := tx.MemberChanges(h.ctx, backup.MemberFilter{GroupID: g.ID})
		return all, err
	})
	joined, left := 0, 0
	for _, c := range changes {
		switch {
		case c.Change == backup.MemberJoined && c.VMName == "copy of web":
			joined++
		case c.Change == backup.MemberLeft && c.VMID == h.vm.ID:
			left++
		}
	}
	if len(changes) != 2 || joined != 1 || left != 1 {
		t.Errorf("changes of the group are %+v, want the copy that joined and the first that left", changes)
	}
}
