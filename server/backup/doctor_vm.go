package backup

import (
	"fmt"
	"slices"
	"strings"
)

// MaxSnapshotChain is how deep a chain of snapshots may be for a backup: vSphere
// ends at 32.
const MaxSnapshotChain = 30

// minTrackingHardware is the first virtual hardware that can track changed blocks.
const minTrackingHardware = 7

// vmCheck is a question about a VM. The VMs that it is answered yes for share a
// finding.
type vmCheck struct {
	check    string
	severity Severity
	amiss    func(SurveyedVM) bool
	seen     string // follows the number of VMs
	why      string
	remedy   string
}

// vmChecks are the questions. installation tells our own snapshots, twins counts
// the VMs of an instance UUID.
func vmChecks(installation string, twins map[string]int) []vmCheck {
	return []vmCheck{
		{"vm.consolidation", FindingError, func(vm SurveyedVM) bool { return vm.Consolidation }, "need their disks consolidated",
			"A backup of such a VM is refused: one more snapshot would make it worse.", "Consolidate the disks in vSphere (Snapshots > Consolidate)."},
		{"vm.chain", FindingError, func(vm SurveyedVM) bool { return vm.SnapshotDepth > MaxSnapshotChain }, fmt.Sprintf("have a chain of more than %d snapshots", MaxSnapshotChain),
			"vSphere ends at 32: a backup is refused.", "Remove snapshots."},
		{"vm.snapshots", FindingWarning, func(vm SurveyedVM) bool {
			return vm.SnapshotDepth <= MaxSnapshotChain && len(foreignSnapshots(vm, installation)) > 0
		}, "have snapshots of others",
			"They slow the VM down and fill its datastore; change tracking cannot be switched on while they stand, and no restore in place is made over them.", "Remove those that nobody needs."},
		{"vm.unprotectable", FindingError, func(vm SurveyedVM) bool { return !vm.Template && noDiskFit(vm.VirtualMachine) }, "cannot be backed up at all",
			"vSphere makes no snapshot of them.", "See kura vm show for the reason of each; protect them from inside the guest."},
		{"vm.partial", FindingWarning, func(vm SurveyedVM) bool { return !noDiskFit(vm.VirtualMachine) && someDiskUnfit(vm.VirtualMachine) }, "have disks that cannot be backed up",
			"Schedules fail on them unless they say unprotectable_disks = \"skip\"; the images lack those disks.", "See kura vm show for the reasons; make the disks dependent, or exclude them by their labels."},
		{"vm.tracking", FindingWarning, func(vm SurveyedVM) bool { return !vm.TrackingOn && !canTrack(vm) }, "cannot track changed blocks",
			"Every backup of them reads and compares the whole disk.", fmt.Sprintf("Upgrade the virtual hardware to version %d or later.", minTrackingHardware)},
		{"vm.tracking", FindingWarning, func(vm SurveyedVM) bool { return !vm.TrackingOn && canTrack(vm) && vm.SnapshotDepth > 0 }, "do not track changed blocks, and have snapshots",
			"Tracking is switched on only while no snapshot stands: until then every backup reads and compares the whole disk.", "Remove the snapshots before the next backup."},
		{"vm.attached", FindingWarning, func(vm SurveyedVM) bool { return vm.Attached > 0 }, "have disks of other VMs attached to them at the moment",
			"vSphere deletes the disks of a VM that is deleted, whosever they are.", "Do not delete or move such a VM before its jobs have ended; a sweep detaches what is left."},
		{"vm.twin", FindingWarning, func(vm SurveyedVM) bool { return twins[vm.InstanceUUID] > 1 }, "share their instance UUID with another VM",
			"When the vcenter is rebuilt nobody can tell which is which.", "Give all but one of them a new instance UUID."},
	}
}

func foreignSnapshots(vm SurveyedVM, installation string) []string {
	return slices.DeleteFunc(slices.Clone(vm.Snapshots), func(name string) bool { return strings.HasPrefix(name, "kura:"+installation+":") })
}

func canTrack(vm SurveyedVM) bool {
	return vm.TrackingSupported && (vm.Hardware == 0 || vm.Hardware >= minTrackingHardware)
}

func noDiskFit(vm VirtualMachine) bool {
	return len(vm.Disks) > 0 && !slices.ContainsFunc(vm.Disks, func(d VMDisk) bool { return d.Unprotectable == "" })
}

func someDiskUnfit(vm VirtualMachine) bool {
	return slices.ContainsFunc(vm.Disks, func(d VMDisk) bool { return d.Unprotectable != "" })
}

// examineVMs judges the VMs and says which transport reads how many of them.
func (f *findings) examineVMs(s Survey, installation string) {
	vms := slices.DeleteFunc(slices.Clone(s.VMs), func(vm SurveyedVM) bool { return vm.Template })
	if len(vms) == 0 {
		f.ok("vm.count", "There is no VM.")
		return
	}
	twins, amiss := map[string]int{}, map[string]bool{}
	for _, vm := range vms {
		twins[vm.InstanceUUID]++
	}
	for _, c := range vmChecks(installation, twins) {
		var names []string
		for _, vm := range vms {
			if c.amiss(vm) {
				names = append(names, vm.Name)
				amiss[vm.MOID] = true
			}
		}
		if len(names) > 0 {
			f.add(Finding{Check: c.check, Severity: c.severity, Objects: names, Seen: fmt.Sprintf("%s %s: %s.", plural(len(names), "VM"), agree(len(names), c.seen), named(names)), Why: c.why, Remedy: c.remedy})
		}
	}
	f.ok("vm.count", "Of %s, %d raise no question.", plural(len(vms), "VM"), len(vms)-len(amiss))
	tracked := 0
	for _, vm := range vms {
		if vm.TrackingOn {
			tracked++
		}
	}
	f.ok("vm.tracking", "Changed blocks are tracked already of %d of %s.", tracked, plural(len(vms), "VM"))
	f.transports(vms)
}

// agree makes a verb in the plural fit one.
func agree(n int, phrase string) string {
	if n != 1 {
		return phrase
	}
	verb, rest, _ := strings.Cut(phrase, " ")
	singular := map[string]string{"need": "needs", "have": "has", "share": "shares", "do": "does"}
	if s, ok := singular[verb]; ok {
		verb = s
	}
	return strings.Replace(verb+" "+rest, " their ", " its ", 1)
}

// transports says how many VMs are read over which, by the reason.
func (f *findings) transports(vms []SurveyedVM) {
	type choice struct {
		by  Transport
		why string
	}
	var order []choice
	read := map[choice][]string{}
	for _, vm := range vms {
		c := choice{vm.Transport, strings.TrimSuffix(vm.TransportWhy, ".")}
		if read[c] == nil {
			order = append(order, c)
		}
		read[c] = append(read[c], vm.Name)
	}
	for _, c := range order {
		one := Finding{Check: "vm.transport", Severity: FindingOK, Objects: read[c], Seen: fmt.Sprintf("%s would be read over %s.", plural(len(read[c]), "VM"), c.by)}
		if c.why != "" {
			one.Seen = strings.TrimSuffix(one.Seen, ".") + ": " + c.why + "."
		}
		if c.by == TransportNFC {
			one.Why = "Over nfc a disk that has changed is sent whole, each time; only what is stored is the change."
		}
		f.add(one)
	}
}
