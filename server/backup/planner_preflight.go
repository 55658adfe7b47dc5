package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// defaultPreflightTime is how long a restore's pre-flight may ask repository
// and vcenter where nothing else is set.
const defaultPreflightTime = 20 * time.Second

// asks says whether a restore's pre-flight looks at the vcenter itself.
func (p *Planner) asks(t restoreTarget) bool {
	return p.VSphere != nil && p.Images != nil && Reaches(p.Reach, t.vcenter) && ReachesRepository(p.Reach, t.repo)
}

// preflight asks the vcenter what would become of the restore now. It runs
// outside of any transaction.
func (p *Planner) preflight(ctx context.Context, r Restore, t *restoreTarget) (warnings []string, err error) {
	if !p.asks(*t) {
		if p.VSphere != nil && p.Images != nil {
			warnings = append(warnings, fmt.Sprintf("This server does not reach the vcenter %q or the repository %q, so that neither was asked: what keeps the restore from succeeding there is known only when it runs.", t.vcenter.Name, t.repo.Name))
		}
		return warnings, nil
	}
	patience := cmp.Or(p.PreflightTime, defaultPreflightTime)
	limit := Errorf(VCenterUnreachable, "", "The vcenter %q did not answer within %s while the restore was checked. Try again, or see kura doctor.", t.vcenter.Name, patience)
	bounded, cancel := context.WithTimeoutCause(ctx, patience, limit)
	defer cancel()
	f, err := p.look(bounded, r, *t)
	switch {
	case err != nil && ctx.Err() == nil && errors.Is(context.Cause(bounded), limit) && AsError(err) == nil:
		return nil, limit
	case err != nil:
		return nil, err
	}
	if f.PowerState != "" {
		t.vm.PowerState = f.PowerState
	}
	return append(f.Warnings, p.rivals(ctx, *t, f)...), nil
}

func (p *Planner) look(ctx context.Context, r Restore, t restoreTarget) (f RestoreFindings, err error) {
	repo, err := p.Images.Repository(ctx, t.repo)
	if err != nil {
		return f, fmt.Errorf("open repository %q: %w", t.repo.Name, err)
	}
	image, err := repo.Image(ctx, t.image.Ref)
	if err != nil {
		return f, fmt.Errorf("open image %s: %w", t.image.ID, err)
	}
	session, err := p.VSphere.Connect(ctx, t.vcenter)
	if err == nil {
		f, err = session.CheckRestore(ctx, RestoreCheck{MOID: t.vm.MOID, InPlace: r.InPlace, NewVM: r.NewVM, Disk: r.Disk}, image)
	}
	return f, errors.Join(err, image.Close())
}

// rivals warns of other VMs of the vcenter that have the addresses which the
// restored one will have (seed N80). It is a warning only: the other one may
// be off by then, or the networks apart.
func (p *Planner) rivals(ctx context.Context, t restoreTarget, f RestoreFindings) (warnings []string) {
	if len(f.MACs)+len(f.IPs) == 0 {
		return nil
	}
	var vms []VirtualMachine
	err := p.Store.View(ctx, func(tx Tx) (err error) {
		vms, _, err = tx.Machines(ctx, MachineFilter{VCenterID: t.vcenter.ID})
		return err
	})
	if err != nil {
		return []string{"Whether another VM has the restored one's addresses could not be looked up."}
	}
	for _, vm := range vms {
		if vm.ID == t.vm.ID {
			continue
		}
		for _, n := range vm.NICs {
			if slices.ContainsFunc(f.MACs, func(mac string) bool { return strings.EqualFold(mac, n.MAC) }) {
				warnings = append(warnings, fmt.Sprintf("The MAC address %s is in use by VM %q (%s) on the network %q: two with one address disturb each other.", n.MAC, vm.Name, vm.PowerState, n.Network))
			}
			for _, ip := range n.IPs {
				if slices.Contains(f.IPs, ip) {
					warnings = append(warnings, fmt.Sprintf("The IP address %s, which the image's guest had, is in use by VM %q (%s) on the network %q: map the restored VM to another network, or keep one of them off.", ip, vm.Name, vm.PowerState, n.Network))
				}
			}
		}
	}
	const most = 10
	if n := len(warnings); n > most {
		warnings = append(warnings[:most], fmt.Sprintf("And %d more addresses are in use.", n-most))
	}
	return warnings
}
