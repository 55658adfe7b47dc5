package worker

import (
	"maps"
	"slices"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// preflight refuses what could not work or would hurt the VM.
func (b *backupJob) preflight() error {
	m := b.machine
	if err := b.checkGuest(); err != nil {
		return err
	}
	if m.Unprotectable != "" {
		return backup.Errorf(backup.Unprotectable, "", "VM %q cannot be backed up: %s.", m.Name, m.Unprotectable)
	}
	if m.Template {
		return backup.Errorf(backup.Unprotectable, "", "%q is a template; convert it to a VM to back it up.", m.Name)
	}
	if m.ConsolidationNeeded {
		return backup.Errorf(backup.PreflightFailed, "", "The disks of VM %q need consolidation. Consolidate them in vSphere, then run the backup again.", m.Name)
	}
	if m.SnapshotDepth > backup.MaxSnapshotChain {
		return backup.Errorf(backup.PreflightFailed, "", "VM %q has a chain of %d snapshots; one more could stop it. Remove some first (at most %d).", m.Name, m.SnapshotDepth, backup.MaxSnapshotChain)
	}
	foreign := slices.DeleteFunc(slices.Clone(m.SnapshotNames), func(n string) bool { return strings.HasPrefix(n, "kura:"+b.Installation+":") })
	if len(foreign) > 0 {
		b.say("VM has %d snapshots of others (first: %q); they slow it down and are left as they are.", len(foreign), foreign[0])
	}
	if err := b.checkDisks(); err != nil {
		return err
	}
	return b.checkSpace()
}

// checkGuest looks whether the guest can take part: one that is suspended can
// be neither quiesced nor taken for shut down (seed H8).
func (b *backupJob) checkGuest() error {
	if b.machine.PowerState != backup.Suspended {
		return nil
	}
	switch b.spec.Consistency {
	case backup.ConsistencyOffline:
		return backup.Errorf(backup.PreflightFailed, "consistency", "VM %q is suspended, so its guest cannot be shut down. Resume it or power it off.", b.machine.Name)
	case backup.ConsistencyAppRequired:
		return backup.Errorf(backup.PreflightFailed, "consistency", "VM %q is suspended, so its guest cannot be quiesced. Resume it or power it off.", b.machine.Name)
	case backup.ConsistencyApp:
		b.say("The VM is suspended and its guest could not be quiesced, so the image is crash-consistent.")
	}
	return nil
}

// checkDisks finds the disks that vSphere cannot snapshot: never silent (seed N7, A8, H10).
func (b *backupJob) checkDisks() error {
	good, chosen := 0, 0
	for _, d := range b.machine.Disks {
		if !b.spec.Disks.Chosen(d.Label) {
			continue
		}
		chosen++
		if d.Unprotectable == "" {
			good++
			continue
		}
		if b.spec.Unprotect != backup.UnprotectedSkip {
			return backup.Errorf(backup.Unprotectable, "", "%s of VM %q cannot be backed up: %s. Exclude it by its label, or set unprotectable_disks = \"skip\".", d.Label, b.machine.Name, d.Unprotectable)
		}
		b.say("%s was skipped: %s.", d.Label, d.Unprotectable)
	}
	switch {
	case good > 0 || len(b.machine.Disks) == 0:
		return nil
	case chosen > 0:
		return backup.Errorf(backup.Unprotectable, "", "No disk of VM %q can be backed up (%s: %s).", b.machine.Name, b.machine.Disks[0].Label, b.machine.Disks[0].Unprotectable)
	default:
		return backup.Errorf(backup.Unprotectable, "", "None of the %d disks of VM %q is chosen by the schedule's include_labels and exclude_labels.", len(b.machine.Disks), b.machine.Name)
	}
}

// checkSpace looks whether each datastore has room for what the guest may
// write while the snapshot stands: that of all disks, chosen or not.
func (b *backupJob) checkSpace() error {
	need := backup.SnapshotSpace(b.machine.VirtualMachine)
	for _, ds := range slices.Sorted(maps.Keys(need)) {
		n := need[ds]
		if free, known := b.machine.FreeBytes[ds]; known && free < n {
			return backup.Errorf(backup.NoSpace, "", "Datastore %q has %s free, and a snapshot of VM %q needs %s (%.0f %% of disks and memory). Free some space.",
				ds, backup.SizeText(free), b.machine.Name, backup.SizeText(n), backup.SnapshotSpaceFactor*100)
		}
	}
	return nil
}
