package store

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var memberChanges = noun{"group_change", "change of a group's members"}

func memberChangeColumns(c *backup.MemberChange) columns {
	return columns{
		{"id", &c.ID},
		{"group_id", &c.GroupID},
		{"vm_id", &c.VMID},
		{"vm_name", &c.VMName},
		{"change", &c.Change},
		{"cause", &c.Cause},
		{"at", millis{&c.At}},
	}
}

// MembersSeen reads what the last look at a group saw.
func (t *tx) MembersSeen(ctx context.Context, groupID string) (backup.MembersSeen, error) {
	s := backup.MembersSeen{Names: map[string]string{}}
	found, err := t.row(ctx, "SELECT members_version FROM backup_group WHERE project = $1 AND id = $2", []any{t.project, groupID}, &s.Version)
	if err != nil {
		return s, fmt.Errorf("last look at group %s: %w", groupID, err)
	}
	if !found {
		return s, groups.missing(groupID)
	}
	err = t.rows(ctx, "SELECT vm_id, vm_name FROM group_member WHERE group_id = $1", []any{groupID}, func(scan func(...any) error) error {
		var id, name string
		if err := scan(&id, &name); err != nil {
			return err
		}
		s.Names[id] = name
		return nil
	})
	if err != nil {
		return s, fmt.Errorf("members of group %s: %w", groupID, err)
	}
	return s, nil
}

// SaveMembers stores what a look has found.
func (t *tx) SaveMembers(ctx context.Context, l backup.MembersLook) error {
	var left []string
	for _, c := range l.Left {
		left = append(left, c.VMID)
	}
	for part := range chunks(left, perStatement-1) {
		q := query{}
		q.where("group_id = ?", l.GroupID)
		q.in("vm_id", part)
		if _, err := t.exec(ctx, "DELETE FROM group_member WHERE "+q.conditions(), q.args...); err != nil {
			return fmt.Errorf("members that left group %s: %w", l.GroupID, err)
		}
	}
	var joined []columns
	for i := range l.Joined {
		c := &l.Joined[i]
		joined = append(joined, columns{{"group_id", &c.GroupID}, {"vm_id", &c.VMID}, {"vm_name", &c.VMName}})
	}
	if err := t.insertMany(ctx, noun{"group_member", "member"}, joined); err != nil {
		return err
	}
	if !l.Silent {
		var rows []columns
		for _, list := range [][]backup.MemberChange{l.Left, l.Joined} {
			for i := range list {
				rows = append(rows, append(memberChangeColumns(&list[i]), column{"project", &t.project}))
			}
		}
		if err := t.insertMany(ctx, memberChanges, rows); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		text string
		args []any
	}{
		{"DELETE FROM group_change WHERE project = $1 AND group_id = $2 AND at < $3", []any{t.project, l.GroupID, l.Forget}},
		{"UPDATE backup_group SET members_version = $1 WHERE project = $2 AND id = $3", []any{l.Version, t.project, l.GroupID}},
	} {
		if _, err := t.exec(ctx, s.text, s.args...); err != nil {
			return fmt.Errorf("look at group %s: %w", l.GroupID, err)
		}
	}
	return nil
}

// MemberChanges lists changes of a group's members.
func (t *tx) MemberChanges(ctx context.Context, f backup.MemberFilter) ([]backup.MemberChange, string, error) {
	q := query{from: "group_change", since: "at"}
	q.where("project = ?", t.project)
	q.where("group_id = ?", f.GroupID)
	if !f.After.IsZero() {
		q.where("at > ?", f.After)
	}
	if !f.UpTo.IsZero() {
		q.where("at <= ?", f.UpTo)
	}
	return list(ctx, t, q, f.Page, memberChangeColumns)
}
