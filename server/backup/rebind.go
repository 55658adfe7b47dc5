package backup

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A vcenter that was rebuilt, and VMs that were moved to another one, have new
// managed objects there, but they are the VMs that the images are of. To
// re-bind gives what is known of a VM its new place: its images, schedules and
// groups stay with it, for its id stays.

// Rebinding is what was asked for.
type Rebinding struct {
	FromID, ToID string            // vcenters
	Map          map[string]string // managed object id in the new vcenter, by the id of the VM that it is
	Selectors    bool              // groups that select from the old vcenter select from the new one
	DryRun       bool              // tells what would be done
}

// Rebound is one VM of the old vcenter, and what becomes of it.
type Rebound struct {
	VM     VirtualMachine // as it was known
	To     VirtualMachine // as the new vcenter shows it; zero = it stays where it is
	By     string         // what it was recognized by
	Reason string         // why it stays where it is
	Images int
}

// RebindResult tells what was done, or would be.
type RebindResult struct {
	Moved     []Rebound
	Left      []Rebound
	Schedules []string // names of those that are booked in the new vcenter
	Groups    []string // names of those that select from the new vcenter
	Selecting []string // names of those that still select from the old one
	Withdrawn int      // queued backups of the old place
}

// matcher finds out which VM of the new vcenter each one of the old one is.
type matcher struct {
	from, to VCenter
	seen     []VirtualMachine // of the new vcenter, those that are gone left out
	given    map[string]string
	taken    map[string]bool // by id
	asking   map[string][]VirtualMachine
}

// matchRebind recognizes the VMs: those that the map names first, then by
// instance UUID, then by BIOS UUID and name together. A VM that could be two,
// or two that could be one, are told apart by name; what is doubtful then
// stays where it is.
func matchRebind(r Rebinding, from, to VCenter, known, seen []VirtualMachine) []Rebound {
	m := matcher{from: from, to: to, given: r.Map, taken: map[string]bool{}, asking: map[string][]VirtualMachine{}}
	m.seen = slices.DeleteFunc(slices.Clone(seen), VirtualMachine.Gone)
	for _, vm := range known {
		m.asking[vm.InstanceUUID] = append(m.asking[vm.InstanceUUID], vm)
	}
	out := make([]Rebound, len(known))
	for i, vm := range known {
		out[i].VM = vm
	}
	for _, step := range []func(VirtualMachine) (Rebound, bool){m.byMap, m.present, m.byInstanceUUID, m.byBIOSUUID} {
		for i, b := range out {
			if b.To.ID != "" || b.Reason != "" {
				continue
			}
			if found, decided := step(b.VM); decided {
				out[i].To, out[i].By, out[i].Reason = found.To, found.By, found.Reason
				m.taken[found.To.ID] = true
			}
		}
	}
	for i, b := range out {
		if b.To.ID == "" && b.Reason == "" {
			out[i].Reason = fmt.Sprintf("vcenter %s has no VM that could be it", to.Name)
		}
	}
	return out
}

func (m *matcher) byMap(vm VirtualMachine) (Rebound, bool) {
	moid, given := m.given[vm.ID]
	if !given {
		return Rebound{}, false
	}
	for _, n := range m.seen {
		if n.MOID == moid {
			return Rebound{To: n, By: "the map"}, true
		}
	}
	return Rebound{Reason: fmt.Sprintf("vcenter %s has no VM %s, which the map names", m.to.Name, moid)}, true
}

// present keeps a VM that the old vcenter still shows: the other one is a copy.
func (m *matcher) present(vm VirtualMachine) (Rebound, bool) {
	if vm.Gone() || m.from.SyncState != SyncReady {
		return Rebound{}, false
	}
	return Rebound{Reason: fmt.Sprintf("vcenter %s still showed it at %s; sync that, or name it in the map", m.from.Name, m.from.SyncedAt.UTC().Format("2006-01-02 15:04 UTC"))}, true
}

func (m *matcher) byInstanceUUID(vm VirtualMachine) (Rebound, bool) {
	hits := m.free(func(n VirtualMachine) bool { return n.InstanceUUID == vm.InstanceUUID })
	rivals := m.asking[vm.InstanceUUID]
	if len(hits) == 0 {
		return Rebound{}, false
	}
	if len(hits) == 1 && len(rivals) == 1 {
		return Rebound{To: hits[0], By: "instance UUID"}, true
	}
	named := slices.DeleteFunc(slices.Clone(hits), func(n VirtualMachine) bool { return n.Name != vm.Name })
	alike := slices.DeleteFunc(slices.Clone(rivals), func(o VirtualMachine) bool { return o.Name != vm.Name })
	if len(named) == 1 && len(alike) == 1 {
		return Rebound{To: named[0], By: "instance UUID and name"}, true
	}
	if len(rivals) > 1 {
		return Rebound{Reason: fmt.Sprintf("%d VMs of vcenter %s had its instance UUID, and names do not tell them apart; name it in the map", len(rivals), m.from.Name)}, true
	}
	return Rebound{Reason: fmt.Sprintf("%d VMs have its instance UUID: %s; name one in the map", len(hits), shown(hits))}, true
}

func (m *matcher) byBIOSUUID(vm VirtualMachine) (Rebound, bool) {
	hits := m.free(func(n VirtualMachine) bool { return vm.BIOSUUID != "" && n.BIOSUUID == vm.BIOSUUID })
	named := slices.DeleteFunc(slices.Clone(hits), func(n VirtualMachine) bool { return n.Name != vm.Name })
	rivals := 0
	for _, list := range m.asking {
		for _, o := range list {
			if o.BIOSUUID == vm.BIOSUUID && o.Name == vm.Name {
				rivals++
			}
		}
	}
	switch {
	case len(hits) == 0:
		return Rebound{}, false
	case len(named) == 1 && rivals == 1:
		return Rebound{To: named[0], By: "BIOS UUID and name"}, true
	}
	return Rebound{Reason: fmt.Sprintf("its BIOS UUID, but not both UUID and name, is that of %s; name one in the map", shown(hits))}, true
}

// free lists VMs of the new vcenter that are so and that no other has been found to be.
func (m *matcher) free(so func(VirtualMachine) bool) []VirtualMachine {
	return slices.DeleteFunc(slices.Clone(m.seen), func(n VirtualMachine) bool { return m.taken[n.ID] || !so(n) })
}

func shown(vms []VirtualMachine) string {
	names := make([]string, len(vms))
	for i, vm := range vms {
		names[i] = fmt.Sprintf("%q (%s)", vm.Name, vm.MOID)
	}
	return list(names)
}

// validate checks a request against both vcenters as they stand.
func (r Rebinding) validate(from, to VCenter, known []VirtualMachine) error {
	if from.ID == to.ID {
		return Errorf(Invalid, "to", "The vcenter %q cannot be re-bound to itself.", from.Name)
	}
	if to.SyncState != SyncReady {
		return Errorf(Invalid, "to", "The inventory of vcenter %q is not known (%s): sync it first.", to.Name, to.SyncState)
	}
	of := map[string]bool{}
	for id, moid := range r.Map {
		if of[moid] {
			return Errorf(Invalid, "map", "The map gives %s to two VMs.", moid)
		}
		of[moid] = true
		if !slices.ContainsFunc(known, func(vm VirtualMachine) bool { return vm.ID == id }) {
			return Errorf(Invalid, "map", "There is no VM with id %q in vcenter %q.", id, from.Name)
		}
		if strings.TrimSpace(moid) == "" {
			return Errorf(Invalid, "map", "The map names no managed object id for VM %q.", id)
		}
	}
	return nil
}

// byVMName orders what a table of VMs shows.
func byVMName(a, b Rebound) int {
	return cmp.Or(strings.Compare(a.VM.Name, b.VM.Name), strings.Compare(a.VM.ID, b.VM.ID))
}

// tells says whether a VM that stays is worth a line: one that had gone before
// and has no images loses nothing.
func (b Rebound) tells() bool { return b.Images > 0 || !b.VM.Gone() }
