package backup

import (
	"fmt"
	"slices"
	"strings"
)

// examineHosts judges the hosts, from which the disks are read. The names of
// those that are well are not listed.
func (f *findings) examineHosts(s Survey) {
	var good, resting []string
	for _, h := range s.Hosts {
		switch {
		case h.State != "" && h.State != "connected":
			f.add(Finding{Check: "host.state", Severity: FindingError, Objects: []string{h.Name}, Seen: fmt.Sprintf("Host %s is %s.", h.Name, h.State),
				Why: "VMs on it can be neither backed up nor restored.", Remedy: "Connect it to the vCenter again."})
			continue
		case h.Maintenance:
			resting = append(resting, h.Name)
			continue
		case h.Problem != "":
			f.add(Finding{Check: "host.reachable", Severity: FindingError, Objects: []string{h.Name},
				Seen:   fmt.Sprintf("Nothing answers at %s, host %s: %s.", h.Address, h.Name, strings.TrimSuffix(h.Problem, ".")),
				Why:    "Disks are read from and written to the host itself, over HTTPS, not through the vCenter.",
				Remedy: "Make its name resolve on this server, and open port 443 from here to it. Port 902 is not needed."})
		default:
			good = append(good, h.Name)
		}
		if h.Clock.Read && h.Clock.Ahead.Abs() > clockWarning+h.Clock.Give {
			f.clock("host.clock", "The clock of host "+h.Name, []string{h.Name}, h.Clock)
		}
	}
	if len(resting) > 0 {
		f.add(Finding{Check: "host.maintenance", Severity: FindingWarning, Objects: resting, Seen: "In maintenance: " + named(resting) + ".",
			Why: "Their VMs run elsewhere or not at all, so fewer hosts share the night's reading.", Remedy: "Take them out of maintenance when it is over."})
	}
	if len(good) > 0 {
		f.ok("host.reachable", "%s answered on the port for disks.", plural(len(good), "host"))
	}
}

// SnapshotSpace is what must be free on each datastore, by name, before a
// snapshot of the VM is made: room for what the guest may write while it
// stands (seed N54). Disks that snapshots leave out need none.
func SnapshotSpace(vm VirtualMachine) map[string]int64 {
	need := map[string]int64{}
	memory := vm.MemoryMiB << 20
	for _, d := range vm.Disks {
		if d.Unprotectable != "" {
			continue
		}
		need[DatastoreOf(d.File)] += int64(float64(d.Capacity+memory) * SnapshotSpaceFactor)
		memory = 0 // counted once, where the first disk lies
	}
	return need
}

// SnapshotSpaceFactor of the disks and the memory must be free for a snapshot.
const SnapshotSpaceFactor = 0.20

// DatastoreOf is the name in "[name] folder/file.vmdk".
func DatastoreOf(file string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(file, "["), "]")
	return name
}

// examineDatastores judges whether there is room for snapshots: of each VM by
// itself, and of as many at once as the limits let run.
func (f *findings) examineDatastores(v VCenter, s Survey) {
	needs := map[string][]int64{}    // by datastore: of each VM
	blocked := map[string][]string{} // by datastore: VMs that do not fit by themselves
	free := map[string]int64{}
	for _, d := range s.Datastores {
		free[d.Name] = d.Free
	}
	for _, vm := range s.VMs {
		for ds, n := range SnapshotSpace(vm.VirtualMachine) {
			needs[ds] = append(needs[ds], n)
			if left, known := free[ds]; known && left < n {
				blocked[ds] = append(blocked[ds], vm.Name)
			}
		}
	}
	good := 0
	for _, d := range s.Datastores {
		if len(needs[d.Name]) == 0 {
			continue // nothing to protect lies there
		}
		if !d.Accessible {
			f.add(Finding{Check: "datastore.accessible", Severity: FindingError, Objects: []string{d.Name}, Seen: fmt.Sprintf("Datastore %s cannot be reached by its hosts.", d.Name),
				Why: "VMs on it can be neither backed up nor restored.", Remedy: "See to its storage and its paths."})
			continue
		}
		if !f.space(v, d, needs[d.Name], blocked[d.Name]) {
			good++
		}
	}
	if good > 0 {
		f.ok("datastore.space", "As many snapshots as may stand at once have room on %s.", plural(good, "datastore"))
	}
}

// space says whether it found anything amiss with the room of a datastore.
func (f *findings) space(v VCenter, d SurveyedDatastore, needs []int64, blocked []string) bool {
	const remedy = "Free or add space there, or move VMs away."
	if len(blocked) > 0 {
		slices.Sort(blocked)
		f.add(Finding{Check: "datastore.space", Severity: FindingError, Objects: blocked,
			Seen: fmt.Sprintf("Datastore %s has %s free of %s: too little for a snapshot of %s.", d.Name, SizeText(d.Free), SizeText(d.Capacity), named(blocked)),
			Why:  fmt.Sprintf("While a snapshot stands, what the guest writes goes to it; %.0f %% of disks and memory must be free, so these backups are refused.", SnapshotSpaceFactor*100), Remedy: remedy})
		return true
	}
	slices.Sort(needs)
	slices.Reverse(needs)
	at := min(len(needs), v.Limits.Defaulted().JobsPerDatastore)
	var sum int64
	for _, n := range needs[:at] {
		sum += n
	}
	if d.Free >= sum {
		return false
	}
	f.add(Finding{Check: "datastore.space", Severity: FindingWarning, Objects: []string{d.Name},
		Seen:   fmt.Sprintf("Datastore %s has %s free; the %s that may stand there at once want up to %s.", d.Name, SizeText(d.Free), plural(at, "snapshot"), SizeText(sum)),
		Why:    "Each backup alone passes, but together they may fill it, which stops every VM on it.",
		Remedy: remedy + " Or let fewer backups run there at once: limits.jobs_per_datastore."})
	return true
}
