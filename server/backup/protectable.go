package backup

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Protection is what a schedule's choice of disks can do for a VM.
type Protection struct {
	Whole  string   // why nothing of it can be backed up; "" = something can
	Disks  int      // disks that can be
	Unable []VMDisk // disks that are chosen and cannot be
}

// Protection tells what of the VM can be backed up when these disks are chosen.
func (v VirtualMachine) Protection(c DiskChoice) Protection {
	p := Protection{Whole: v.Unprotectable}
	for _, d := range v.Disks {
		switch {
		case !c.Chosen(d.Label):
		case d.Unprotectable == "":
			p.Disks++
		default:
			p.Unable = append(p.Unable, d)
		}
	}
	switch {
	case p.Whole != "" || p.Disks > 0 || len(v.Disks) == 0:
	case len(p.Unable) > 0:
		p.Whole = fmt.Sprintf("no disk of it can be: %s: %s", p.Unable[0].Label, p.Unable[0].Unprotectable)
	default:
		p.Whole = fmt.Sprintf("include_labels and exclude_labels choose none of its %d disks", len(v.Disks))
	}
	return p
}

// Protected says whether all of the VM can be backed up.
func (v VirtualMachine) Protected() bool {
	p := v.Protection(DiskChoice{})
	return p.Whole == "" && len(p.Unable) == 0
}

// protectionWarnings names what the schedule could not protect if it ran now
// (seed N7, N68, A8): a warning and no refusal, since both the VMs and the
// group may change before the next run.
func protectionWarnings(ctx context.Context, tx Tx, s Schedule) ([]string, error) {
	vms, err := machinesOf(ctx, tx, s)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(vms, func(a, b VirtualMachine) int { return strings.Compare(a.Name, b.Name) })
	var whole, part []string
	for _, vm := range vms {
		if vm.Gone() {
			continue
		}
		p := vm.Protection(s.Disks)
		if p.Whole != "" {
			whole = append(whole, fmt.Sprintf("%q (%s)", vm.Name, p.Whole))
			continue
		}
		for _, d := range p.Unable {
			part = append(part, fmt.Sprintf("%s of %q (%s)", d.Label, vm.Name, d.Unprotectable))
		}
	}
	var out []string
	if len(whole) > 0 {
		out = append(out, fmt.Sprintf("%s cannot be backed up, and their backups would fail: %s. Change the VM, or leave it out of the group.", counted(len(whole), "VM"), fewer(whole)))
	}
	switch {
	case len(part) == 0:
	case s.Unprotectable == UnprotectedSkip:
		out = append(out, fmt.Sprintf("%s cannot be backed up and will be missing from the images: %s.", counted(len(part), "disk"), fewer(part)))
	default:
		out = append(out, fmt.Sprintf("%s cannot be backed up, so the jobs of these VMs will fail: %s. Exclude the disks by their labels, or set unprotectable_disks = \"skip\".", counted(len(part), "disk"), fewer(part)))
	}
	return out, nil
}

// machinesOf are the VMs that the schedule would back up now.
func machinesOf(ctx context.Context, tx Tx, s Schedule) ([]VirtualMachine, error) {
	if s.GroupID == "" {
		vm, err := tx.Machine(ctx, s.VMID)
		return []VirtualMachine{vm}, err
	}
	g, err := tx.Group(ctx, s.GroupID)
	if err != nil {
		return nil, err
	}
	return members(ctx, tx, g)
}

func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// mostNamed is how many things a message names one by one.
const mostNamed = 100

func fewer(names []string) string {
	if more := len(names) - mostNamed; more > 0 {
		names = append(names[:mostNamed:mostNamed], fmt.Sprintf("%d more", more))
	}
	return list(names)
}
