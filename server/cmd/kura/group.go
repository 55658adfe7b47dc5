package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type groupCmd struct {
	List    groupList    `cmd:"" help:"List the groups."`
	Show    groupShow    `cmd:"" help:"Show a group."`
	Members groupMembers `cmd:"" help:"List the VMs that a run of the group would back up now."`
	Backup  groupBackup  `cmd:"" help:"Back up a group now."`
}

func groupNoun(ctx context.Context, c *api.ClientWithResponses) noun {
	return noun{
		what: "group",
		get:  func(id string) (answer, error) { return c.GetBackupGroupWithResponse(ctx, id) },
		list: func(name, cursor string) (answer, error) {
			return c.ListBackupGroupsWithResponse(ctx, &api.ListBackupGroupsParams{Name: name, Limit: pageSize, Cursor: cursor})
		},
		hint: "kura group list shows all.",
	}
}

// groupID returns the id of what a flag names, "" for a flag that is empty.
func groupID(ctx context.Context, c *api.ClientWithResponses, ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	o, err := find(groupNoun(ctx, c), ref)
	return o.ID, err
}

type groupList struct{}

// Run lists the groups.
func (*groupList) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	items, err := collect(0, func(cursor string) (answer, error) { return groupNoun(ctx, c).list("", cursor) })
	if err != nil {
		return err
	}
	return showAll(s, "groups", items, []string{"NAME", "LISTED", "SELECTS", "ID"}, func(g api.BackupGroup) []string {
		return []string{g.Name, strconv.Itoa(len(g.VirtualMachineIDs)), selects(g.Selector), g.ID}
	})
}

// selects says what a selector chooses.
func selects(s *api.Selector) string {
	if s == nil {
		return ""
	}
	var parts []string
	if len(s.Tags) > 0 {
		parts = append(parts, "tags "+tags(s.Tags))
	}
	if s.Folder != "" {
		text := "folder " + s.Folder
		if s.Recursive {
			text += " and below"
		}
		parts = append(parts, text)
	}
	if s.ResourcePool != "" {
		parts = append(parts, "pool "+s.ResourcePool)
	}
	if s.NameRegex != "" {
		parts = append(parts, "name ~ "+s.NameRegex)
	}
	if len(parts) == 0 {
		return "all of the vcenter"
	}
	return strings.Join(parts, "; ")
}

type groupShow struct {
	Name string `arg:"" help:"Name or id."`
}

// Run shows a group.
func (g *groupShow) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	o, err := find(groupNoun(ctx, c), g.Name)
	if err != nil {
		return err
	}
	return showOne(s, o.raw, groupRecord)
}

func groupRecord(g api.BackupGroup) (r record) {
	r.add("name", g.Name)
	r.add("id", g.ID)
	r.add("description", g.Description)
	r.add("listed VMs", strings.Join(g.VirtualMachineIDs, ", "))
	if g.Selector != nil {
		r.add("vcenter id", g.Selector.VCenterID)
		r.add("selects", selects(g.Selector))
	}
	r.add("excluded VMs", strings.Join(g.ExcludeVirtualMachineIDs, ", "))
	if g.ReservedSeats > 0 {
		r.add("reserved seats", strconv.Itoa(g.ReservedSeats))
	}
	if g.MaxParallel > 0 {
		r.add("at most at once", strconv.Itoa(g.MaxParallel))
	}
	r.add("consistent", yes(g.Consistent))
	if g.Consistent {
		r.add("on member failure", string(g.OnMemberFailure))
	}
	for _, k := range keys(g.Labels) {
		r.add("label", k+"="+g.Labels[k])
	}
	r.add("deletion protection", yes(g.DeletionProtection))
	r.add("created", when(g.CreatedAt))
	r.add("updated", when(g.UpdatedAt))
	return r
}

type groupMembers struct {
	Name    string `arg:"" help:"Name or id."`
	Changes bool   `help:"Who has joined and left instead, the newest first."`
	Limit   int    `as:"N" help:"With --changes: no more than this many. Default: all, of the last 400 days."`
}

// Help is shown below the command's first line.
func (*groupMembers) Help() string {
	return examples("kura group members gold", "kura group members gold --changes --limit 20")
}

// Run lists the members.
func (g *groupMembers) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	o, err := find(groupNoun(ctx, c), g.Name)
	if err != nil {
		return err
	}
	if g.Changes {
		items, err := collect(g.Limit, func(cursor string) (answer, error) {
			return c.ListBackupGroupChangesWithResponse(ctx, o.ID, &api.ListBackupGroupChangesParams{Limit: pageSize, Cursor: cursor})
		})
		if err != nil {
			return err
		}
		return showAll(s, "changes", items, []string{"TIME", "VM", "CHANGE", "CAUSE", "VM ID"}, func(m api.MemberChange) []string {
			return []string{when(m.At), m.VirtualMachine.Name, string(m.Change), m.Cause, m.VirtualMachine.ID}
		})
	}
	items, err := collect(0, func(string) (answer, error) { return c.ListBackupGroupMembersWithResponse(ctx, o.ID) })
	if err != nil {
		return err
	}
	return showVMs(s, items)
}

type groupBackup struct {
	Name string `arg:"" help:"Name or id."`
	backupFlags
}

// Help is shown below the command's first line.
func (*groupBackup) Help() string {
	return "Each member is a job of its own: one that fails leaves the others alone.\n\n" + examples("kura group backup gold --wait")
}

// Run backs a group up.
func (g *groupBackup) Run(ctx context.Context, s *session) error {
	options, err := g.options()
	if err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	o, err := find(groupNoun(ctx, c), g.Name)
	if err != nil {
		return err
	}
	raw, err := body(c.BackupGroupWithResponse(ctx, o.ID, &api.BackupGroupParams{IdempotencyKey: newKey()}, options))
	if err != nil {
		return err
	}
	return s.runStarted(ctx, c, raw, g.Wait)
}
