package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// RebindVCenter gives the VMs of one vcenter their places in another: images,
// schedules and listed memberships go along, since each VM keeps its id; the
// row that the other vcenter's sync had made of it becomes one with it. All of
// it is done in one transaction, or nothing. Errors: Invalid, NotFound, VMBusy
// (a job runs on one of them), SlotFull and ExceedsCapacity (the other vcenter
// has no room for a schedule).
func (p *Planner) RebindVCenter(ctx context.Context, r Rebinding) (RebindResult, error) {
	var done RebindResult
	err := p.update(ctx, func(tx *planTx) error {
		b := rebinder{planner: p, tx: tx, asked: r}
		if err := b.run(ctx); err != nil {
			return err
		}
		done = b.result
		if r.DryRun {
			return errRollback
		}
		return nil
	})
	if err != nil && !errors.Is(err, errRollback) {
		return RebindResult{}, fmt.Errorf("re-bind vcenter %s to %s: %w", r.FromID, r.ToID, err)
	}
	return done, nil
}

// rebinder is a re-binding in its transaction.
type rebinder struct {
	planner  *Planner
	tx       *planTx
	asked    Rebinding
	from, to VCenter
	newID    map[string]string // of each row that becomes one with another
	result   RebindResult
}

func (b *rebinder) run(ctx context.Context) error {
	if err := b.match(ctx); err != nil {
		return err
	}
	if err := b.clear(ctx); err != nil {
		return err
	}
	b.newID = map[string]string{}
	for _, m := range b.result.Moved {
		b.newID[m.To.ID] = m.VM.ID
		if err := b.tx.RebindMachine(ctx, m.VM.ID, m.To); err != nil {
			return err
		}
	}
	groups, err := b.groups(ctx)
	if err != nil {
		return err
	}
	if err := b.schedules(ctx, groups); err != nil {
		return err
	}
	return lookAt(ctx, b.tx, []string{b.from.ID, b.to.ID}, fmt.Sprintf("vcenter %s was re-bound to %s", b.from.Name, b.to.Name))
}

// match reads both inventories and decides what becomes of each VM.
func (b *rebinder) match(ctx context.Context) (err error) {
	if b.from, err = b.tx.VCenter(ctx, b.asked.FromID); err != nil {
		return err
	}
	if b.to, err = b.tx.VCenter(ctx, b.asked.ToID); err != nil {
		return at("to", err)
	}
	known, _, err := b.tx.Machines(ctx, MachineFilter{VCenterID: b.from.ID, IncludeGone: true})
	if err != nil {
		return err
	}
	if err := b.asked.validate(b.from, b.to, known); err != nil {
		return err
	}
	seen, _, err := b.tx.Machines(ctx, MachineFilter{VCenterID: b.to.ID})
	if err != nil {
		return err
	}
	images, err := b.tx.ImagesByVM(ctx, b.from.ID)
	if err != nil {
		return err
	}
	for _, r := range matchRebind(b.asked, b.from, b.to, known, seen) {
		r.Images = images[r.VM.ID]
		switch {
		case r.To.ID != "":
			b.result.Moved = append(b.result.Moved, r)
		case r.tells():
			b.result.Left = append(b.result.Left, r)
		}
	}
	slices.SortFunc(b.result.Moved, byVMName)
	slices.SortFunc(b.result.Left, byVMName)
	return nil
}

// clear refuses while a job is at work on one of the VMs, and withdraws the
// backups that still wait: they name the old place.
func (b *rebinder) clear(ctx context.Context) error {
	names := map[string]string{}
	for _, m := range b.result.Moved {
		names[m.VM.ID], names[m.To.ID] = m.VM.Name, m.VM.Name
	}
	for _, v := range []VCenter{b.from, b.to} {
		for page := (Page{Limit: 1000}); ; {
			jobs, next, err := b.tx.Jobs(ctx, JobFilter{VCenterID: v.ID, Active: true, Page: page})
			if err != nil {
				return err
			}
			for _, j := range jobs {
				if err := b.withdraw(ctx, j, names[j.VMID]); err != nil {
					return err
				}
			}
			if page.Cursor = next; next == "" {
				break
			}
		}
	}
	return nil
}

func (b *rebinder) withdraw(ctx context.Context, j Job, name string) error {
	switch {
	case name == "" && (j.VMID != "" || j.Kind == KindSync || j.State == JobQueued):
		return nil // it is about another VM, or about none
	case name == "":
		return Errorf(VMBusy, "", "A %s job (%s) runs in vcenter %s. Wait for it or cancel it.", j.Kind, j.ID, b.from.Name)
	case j.State == JobRunning || j.Kind != KindBackup || j.Owes:
		return Errorf(VMBusy, "", "VM %q has a %s job that is %s (%s). Wait for it or cancel it.", name, j.Kind, j.State, j.ID)
	}
	b.result.Withdrawn++
	return b.tx.EndJob(ctx, j.ID, Ending{State: JobSkipped, Code: Conflict, Error: fmt.Sprintf("VM %q was re-bound to vcenter %s before its backup began.", name, b.to.Name)})
}

// groups lets groups list each VM by the one id that it has now, and select
// from the new vcenter where that was asked for. It returns those whose
// schedules are to be booked anew, by id.
func (b *rebinder) groups(ctx context.Context) (map[string]Group, error) {
	anew := map[string]Group{}
	for page := (Page{Limit: 1000}); ; {
		groups, next, err := b.tx.Groups(ctx, page)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			changed := b.rename(&g.VirtualMachineIDs)
			changed = b.rename(&g.ExcludeIDs) || changed
			if s := g.Selector; s != nil && s.VCenterID == b.from.ID {
				if b.asked.Selectors {
					s.VCenterID, changed = b.to.ID, true
					b.result.Groups = append(b.result.Groups, g.Name)
				} else {
					b.result.Selecting = append(b.result.Selecting, g.Name)
				}
			}
			if changed {
				if err := b.tx.UpdateGroup(ctx, &g); err != nil {
					return nil, err
				}
			}
			if changed || b.concerns(g) {
				anew[g.ID] = g
			}
		}
		if page.Cursor = next; next == "" {
			return anew, nil
		}
	}
}

// concerns says whether the group may have other members, or in another vcenter.
func (b *rebinder) concerns(g Group) bool {
	if s := g.Selector; s != nil && (s.VCenterID == b.from.ID || s.VCenterID == b.to.ID) {
		return true
	}
	return slices.ContainsFunc(g.VirtualMachineIDs, b.moved)
}

func (b *rebinder) moved(id string) bool {
	return slices.ContainsFunc(b.result.Moved, func(m Rebound) bool { return m.VM.ID == id })
}

// rename replaces the ids that are no more, and says whether there were any.
func (b *rebinder) rename(ids *[]string) (changed bool) {
	var out []string
	for _, id := range *ids {
		if known, ok := b.newID[id]; ok {
			id, changed = known, true
		}
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	if changed {
		*ids = out
	}
	return changed
}

// schedules books those of the moved VMs, and of groups that hold some, where
// these are now. What a selector chooses books what there is room for, as after
// any sync; for a VM or a list there must be room.
func (b *rebinder) schedules(ctx context.Context, groups map[string]Group) error {
	all, _, err := b.tx.Schedules(ctx, ScheduleFilter{EnabledOnly: true})
	if err != nil {
		return err
	}
	inv := inventories{}
	for _, s := range all {
		g, grouped := groups[s.GroupID]
		switch {
		case grouped && g.Selector != nil:
			followed, err := follow(ctx, b.tx, s.ID, inv)
			if err != nil {
				return err
			}
			if followed.ID == "" {
				continue
			}
		case grouped || b.moved(s.VMID):
			if err := b.book(ctx, s); err != nil {
				return err
			}
		default:
			continue
		}
		b.result.Schedules = append(b.result.Schedules, s.Name)
	}
	slices.Sort(b.result.Schedules)
	return nil
}

func (b *rebinder) book(ctx context.Context, s Schedule) error {
	old := s
	seats, err := b.planner.book(ctx, b.tx, &s, &old)
	if code := CodeOf(err); code == SlotFull || code == ExceedsCapacity {
		c := *AsError(err)
		c.Field, c.Recommendations = "to", nil
		c.Message = fmt.Sprintf("Schedule %q has no room in vcenter %s. %s Raise its slot_capacity, or disable the schedule until then.", s.Name, b.to.Name, c.Message)
		return &c
	}
	if err == nil {
		err = b.tx.UpdateSchedule(ctx, &s, seats)
	}
	if err != nil {
		return fmt.Errorf("book schedule %q anew: %w", s.Name, err)
	}
	return nil
}
