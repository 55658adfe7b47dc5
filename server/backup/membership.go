package backup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Whom a selector chooses changes by itself. Each look at a group, after a sync
// of the inventory and when a run is made, notes who has joined and who has
// left since the look before, and why: an event that people can read about,
// not a silent change of what is protected (seed W14, W26, W28).

// Membership is what a change of a group's members was.
type Membership string

// The changes.
const (
	MemberJoined Membership = "joined"
	MemberLeft   Membership = "left"
)

// MemberChange is a VM that has come into a group or left it.
type MemberChange struct {
	ID      string
	GroupID string
	VMID    string
	VMName  string // as it was then
	Change  Membership
	Cause   string // such as "tag backup:gold"
	At      time.Time
}

// MembersSeen is what the last look at a group saw: the members that were there.
type MembersSeen struct {
	Version int64             // of the group; 0 = there was no look yet
	Names   map[string]string // of the VMs, by id
}

// MemberFilter chooses changes of a group, newest first; zero fields choose nothing away.
type MemberFilter struct {
	GroupID string
	After   time.Time // later than that
	UpTo    time.Time // not later than that
	Page
}

// keepChanges is how long a change of members is told of.
const keepChanges = 400 * 24 * time.Hour

// MembersLook is what a look at a group has found.
type MembersLook struct {
	GroupID string
	Version int64
	Joined  []MemberChange
	Left    []MemberChange
	Forget  time.Time // changes before it are told of no more
	Silent  bool      // the first look: those who are there did not join
}

// look notes how the group's members have changed. why overrides the cause
// where the caller knows better; "" = it does not.
func look(ctx context.Context, tx Tx, g Group, vms []VirtualMachine, why string) error {
	seen, err := tx.MembersSeen(ctx, g.ID)
	if err != nil {
		return err
	}
	l := MembersLook{GroupID: g.ID, Version: g.Version, Silent: seen.Version == 0, Forget: tx.Now().Add(-keepChanges)}
	now := map[string]bool{}
	note := func(vm VirtualMachine, c Membership, cause string) MemberChange {
		return MemberChange{ID: NewID(tx.Now()), GroupID: g.ID, VMID: vm.ID, VMName: vm.Name, Change: c, Cause: cmp.Or(why, cause), At: tx.Now()}
	}
	for _, vm := range vms {
		if vm.Gone() {
			continue
		}
		now[vm.ID] = true
		if _, known := seen.Names[vm.ID]; !known {
			l.Joined = append(l.Joined, note(vm, MemberJoined, g.joinCause(vm, seen)))
		}
	}
	left, err := g.leavers(ctx, tx, seen, now)
	if err != nil {
		return err
	}
	for _, vm := range left {
		l.Left = append(l.Left, note(vm, MemberLeft, g.leaveCause(vm, seen)))
	}
	if len(l.Joined)+len(l.Left) == 0 && seen.Version == g.Version {
		return nil
	}
	return tx.SaveMembers(ctx, l)
}

// lookNow looks at one group.
func lookNow(ctx context.Context, tx Tx, g Group) error {
	vms, err := members(ctx, tx, g)
	if err != nil {
		return err
	}
	return look(ctx, tx, g, vms, "")
}

// leavers are the members of the last look that are none now, as they are now.
func (g Group) leavers(ctx context.Context, tx Tx, seen MembersSeen, now map[string]bool) ([]VirtualMachine, error) {
	var missing []string
	for id := range seen.Names {
		if !now[id] {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	slices.Sort(missing)
	there, _, err := tx.Machines(ctx, MachineFilter{IDs: missing, IncludeGone: true})
	if err != nil {
		return nil, err
	}
	out := make([]VirtualMachine, 0, len(missing))
	for _, id := range missing {
		vm := VirtualMachine{ID: id, Name: seen.Names[id], GoneAt: tx.Now()} // its vcenter was removed
		if i := slices.IndexFunc(there, func(v VirtualMachine) bool { return v.ID == id }); i >= 0 {
			vm = there[i]
		}
		out = append(out, vm)
	}
	return out, nil
}

const groupChanged = "the group was changed"

// joinCause says why the VM is a member now.
func (g Group) joinCause(vm VirtualMachine, seen MembersSeen) string {
	switch {
	case seen.Version != g.Version:
		return groupChanged
	case slices.Contains(g.VirtualMachineIDs, vm.ID) || g.Selector == nil:
		return "it is in the inventory again"
	}
	var why []string
	if !vm.SeenAt.After(idTime(vm.ID).Add(time.Minute)) { // it has not changed since it came
		why = append(why, "new in the inventory")
	}
	s := g.Selector
	for _, t := range s.Tags {
		why = append(why, fmt.Sprintf("tag %s:%s", t.Category, t.Name))
	}
	for _, part := range [][2]string{{"folder", s.Folder}, {"pool", s.ResourcePool}, {"name", s.NameRegex}} {
		switch {
		case part[1] == "":
		case part[0] == "name":
			why = append(why, fmt.Sprintf("name %q", vm.Name))
		default:
			why = append(why, part[0]+" "+part[1])
		}
	}
	return cmp.Or(strings.Join(why, ", "), "it is in the inventory again")
}

// leaveCause says why the VM is no member any more.
func (g Group) leaveCause(vm VirtualMachine, seen MembersSeen) string {
	s := g.Selector
	switch {
	case vm.Gone():
		return "it left the inventory"
	case seen.Version != g.Version || s == nil:
		return groupChanged
	case vm.VCenterID != s.VCenterID:
		return "it is in another vcenter"
	case vm.Template:
		return "it became a template"
	}
	for _, t := range s.Tags {
		if !slices.Contains(vm.Tags, t) {
			return fmt.Sprintf("tag %s:%s was removed", t.Category, t.Name)
		}
	}
	switch {
	case s.Folder != "" && !inFolder(vm.Folder, s.Folder, s.Recursive):
		return "moved to folder " + vm.Folder
	case s.ResourcePool != "" && !inFolder(vm.ResourcePool, s.ResourcePool, true):
		return "moved to pool " + vm.ResourcePool
	}
	return fmt.Sprintf("renamed to %q", vm.Name)
}

// idTime is when an id was made.
func idTime(id string) time.Time {
	var ms int64
	for _, c := range id[:min(len(id), 10)] {
		ms = ms<<5 | int64(max(0, strings.IndexRune(crockford, c)))
	}
	return time.UnixMilli(ms).UTC()
}

// lookAtGroups looks at the groups that may have other members now that the
// vcenter's inventory is another.
func (p *Planner) lookAtGroups(ctx context.Context, vcenterID string) error {
	return p.Store.Update(ctx, func(tx Tx) error { return lookAt(ctx, tx, []string{vcenterID}, "") })
}

func lookAt(ctx context.Context, tx Tx, vcenterIDs []string, why string) error {
	inv := inventories{}
	for page := (Page{Limit: 1000}); ; {
		groups, next, err := tx.Groups(ctx, page)
		if err != nil {
			return err
		}
		for _, g := range groups {
			if len(g.VirtualMachineIDs) == 0 && (g.Selector == nil || !slices.Contains(vcenterIDs, g.Selector.VCenterID)) {
				continue
			}
			vms, err := inv.members(ctx, tx, g)
			if err == nil {
				err = look(ctx, tx, g, vms, why)
			}
			if err != nil {
				return fmt.Errorf("look at group %q: %w", g.Name, err)
			}
		}
		if page.Cursor = next; next == "" {
			return nil
		}
	}
}

// RunChanges tells who has joined and left the run's group since its last run,
// up to this one; nothing of a run that has no group.
func RunChanges(ctx context.Context, tx Tx, r Run) (joined, left []MemberChange, err error) {
	if r.GroupID == "" {
		return nil, nil, nil
	}
	before, _, err := tx.Runs(ctx, RunFilter{GroupID: r.GroupID, Before: r.CreatedAt, Page: Page{Limit: 1}})
	if err != nil {
		return nil, nil, err
	}
	f := MemberFilter{GroupID: r.GroupID, UpTo: r.CreatedAt, Page: Page{Limit: 1000}}
	if len(before) > 0 {
		f.After = before[0].CreatedAt
	}
	for {
		page, next, err := tx.MemberChanges(ctx, f)
		if err != nil {
			return nil, nil, err
		}
		for _, c := range page {
			if c.Change == MemberJoined {
				joined = append(joined, c)
			} else {
				left = append(left, c)
			}
		}
		if f.Cursor = next; next == "" {
			return joined, left, nil
		}
	}
}

// LastRun is when the group last ran; zero = never.
func LastRun(ctx context.Context, tx Tx, groupID string) (time.Time, error) {
	last, _, err := tx.Runs(ctx, RunFilter{GroupID: groupID, Page: Page{Limit: 1}})
	if err != nil || len(last) == 0 {
		return time.Time{}, err
	}
	return last[0].CreatedAt, nil
}
