package backup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// FindRepository finds a repository by id or name; "" is the default one.
func FindRepository(ctx context.Context, tx RepositoryTx, key string) (RepositoryRecord, error) {
	if key != "" {
		r, err := tx.Repository(ctx, key)
		if CodeOf(err) == NotFound {
			r, err = tx.RepositoryByName(ctx, key)
		}
		return r, err
	}
	all, _, err := tx.Repositories(ctx, Page{Limit: 1000})
	if err != nil {
		return RepositoryRecord{}, err
	}
	for _, r := range all {
		if r.Default {
			return r, nil
		}
	}
	return RepositoryRecord{}, Errorf(Invalid, "repository", "This installation has no default repository: name one.")
}

// inventories are the VMs that are there, by vcenter, which a transaction that
// looks at many groups reads once.
type inventories map[string][]VirtualMachine

// members returns the group's VMs out of the stored inventory.
func members(ctx context.Context, tx Tx, g Group) ([]VirtualMachine, error) {
	return inventories{}.members(ctx, tx, g)
}

func (inv inventories) members(ctx context.Context, tx Tx, g Group) ([]VirtualMachine, error) {
	var all []VirtualMachine
	if len(g.VirtualMachineIDs) > 0 {
		listed, _, err := tx.Machines(ctx, MachineFilter{IDs: g.VirtualMachineIDs, IncludeGone: true})
		if err != nil {
			return nil, err
		}
		all = listed
	}
	if g.Selector != nil {
		there, err := inv.of(ctx, tx, g.Selector.VCenterID)
		if err != nil {
			return nil, err
		}
		for _, vm := range there {
			if !slices.Contains(g.VirtualMachineIDs, vm.ID) {
				all = append(all, vm)
			}
		}
	}
	return g.Members(all)
}

func (inv inventories) of(ctx context.Context, tx Tx, vcenterID string) ([]VirtualMachine, error) {
	there, ok := inv[vcenterID]
	if !ok {
		var err error
		if there, _, err = tx.Machines(ctx, MachineFilter{VCenterID: vcenterID}); err != nil {
			return nil, err
		}
		inv[vcenterID] = there
	}
	return there, nil
}

// live counts the group's members that are there, by vcenter.
func (inv inventories) live(ctx context.Context, tx Tx, g Group) (map[string]int, error) {
	vms, err := inv.members(ctx, tx, g)
	n := map[string]int{}
	for _, vm := range vms {
		if !vm.Gone() {
			n[vm.VCenterID]++
		}
	}
	return n, err
}

// CreateGroup stores g. Errors: Invalid, NotFound (a listed VM, the selector's
// vcenter), Conflict (name).
func (p *Planner) CreateGroup(ctx context.Context, g Group) (Group, error) {
	var done Group
	err := p.Store.Update(ctx, func(tx Tx) error {
		c := g
		c.OnMemberFailure = cmp.Or(c.OnMemberFailure, MemberLeaveOut)
		if err := checkGroup(ctx, tx, c); err != nil {
			return err
		}
		if err := tx.InsertGroup(ctx, &c); err != nil {
			return err
		}
		done = c
		return lookNow(ctx, tx, c)
	})
	if err != nil {
		return Group{}, fmt.Errorf("create group %q: %w", g.Name, err)
	}
	return done, nil
}

func checkGroup(ctx context.Context, tx Tx, g Group) error {
	if err := g.Validate(); err != nil {
		return err
	}
	if err := checkConsistent(ctx, tx, g); err != nil {
		return err
	}
	for _, id := range g.VirtualMachineIDs {
		if _, err := tx.Machine(ctx, id); err != nil {
			return at("virtual_machine_ids", err)
		}
	}
	if g.Selector != nil {
		if _, err := tx.VCenter(ctx, g.Selector.VCenterID); err != nil {
			return at("selector.vcenter_id", err)
		}
	}
	return nil
}

// UpdateGroup stores g and books its schedules anew for its new members.
// Errors: as of CreateGroup, Stale, and SlotFull or ExceedsCapacity naming the
// schedule that has no room for the growth.
func (p *Planner) UpdateGroup(ctx context.Context, g Group) (Group, error) {
	var done Group
	err := p.update(ctx, func(tx *planTx) error {
		c := g
		old, err := tx.Group(ctx, c.ID)
		if err != nil {
			return err
		}
		if c.Version == 0 {
			c.Version = old.Version
		}
		c.Project, c.CreatedAt = old.Project, old.CreatedAt
		c.OnMemberFailure = cmp.Or(c.OnMemberFailure, MemberLeaveOut)
		if err := checkGroup(ctx, tx, c); err != nil {
			return err
		}
		if err := tx.UpdateGroup(ctx, &c); err != nil {
			return err
		}
		if err := p.rebook(ctx, tx, c); err != nil {
			return err
		}
		done = c
		return lookNow(ctx, tx, c)
	})
	if err != nil {
		return Group{}, fmt.Errorf("update group %q: %w", g.Name, err)
	}
	return done, nil
}

// rebook books the enabled schedules of g for the members it has now.
func (p *Planner) rebook(ctx context.Context, tx *planTx, g Group) error {
	schedules, _, err := tx.Schedules(ctx, ScheduleFilter{GroupID: g.ID, EnabledOnly: true})
	if err != nil {
		return err
	}
	for _, s := range schedules {
		old := s
		seats, err := p.book(ctx, tx, &s, &old)
		if code := CodeOf(err); code == SlotFull || code == ExceedsCapacity {
			c := *AsError(err)
			c.Field, c.Message = g.membersField(), fmt.Sprintf("Schedule %q has no room for the group's new members. %s", s.Name, c.Message)
			return &c
		}
		if err == nil {
			err = tx.UpdateSchedule(ctx, &s, seats)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// membersField names the input that the number of members comes from.
func (g Group) membersField() string {
	if len(g.VirtualMachineIDs) == 0 {
		return "selector"
	}
	return "virtual_machine_ids"
}

// DeleteGroup removes a group; its images stay (seed A51). Errors: NotFound,
// InUse (schedules name it, or deletion protection).
func (p *Planner) DeleteGroup(ctx context.Context, id string) error {
	return p.Store.Update(ctx, func(tx Tx) error {
		g, err := tx.Group(ctx, id)
		if err != nil {
			return err
		}
		if g.DeletionProtection {
			return Errorf(InUse, "deletion_protection", "Group %q is protected from deletion. Set deletion_protection = false first.", g.Name)
		}
		return tx.DeleteGroup(ctx, id)
	})
}

// GroupMembers returns the VMs that a run of the group would back up now.
func (p *Planner) GroupMembers(ctx context.Context, id string) ([]VirtualMachine, error) {
	var vms []VirtualMachine
	err := p.Store.View(ctx, func(tx Tx) error {
		g, err := tx.Group(ctx, id)
		if err != nil {
			return err
		}
		vms, err = members(ctx, tx, g)
		return err
	})
	return vms, err
}
