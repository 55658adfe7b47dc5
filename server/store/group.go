package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var groups = noun{"backup_group", "group"}

func groupColumns(g *backup.Group) columns {
	return append(metaColumns(&g.Meta), columns{
		{"name", &g.Name},
		{"description", &g.Description},
		{"virtual_machine_ids", asJSON{&g.VirtualMachineIDs}},
		{"selector", asJSON{&g.Selector}},
		{"exclude_ids", asJSON{&g.ExcludeIDs}},
		{"reserved_seats", &g.ReservedSeats},
		{"max_parallel", &g.MaxParallel},
		{"consistent", &g.Consistent},
		{"on_member_failure", &g.OnMemberFailure},
		{"labels", asJSON{&g.Labels}},
		{"deletion_protection", &g.DeletionProtection},
	}...)
}

func (t *tx) Group(ctx context.Context, id string) (backup.Group, error) {
	return get(ctx, t, groups, id, groupColumns)
}

func (t *tx) GroupByName(ctx context.Context, name string) (backup.Group, error) {
	return getByName(ctx, t, groups, name, groupColumns)
}

func (t *tx) Groups(ctx context.Context, p backup.Page) ([]backup.Group, string, error) {
	q := query{from: "backup_group"}
	q.where("project = ?", t.project)
	return list(ctx, t, q, p, groupColumns)
}

func (t *tx) InsertGroup(ctx context.Context, g *backup.Group) error {
	t.begin(&g.Meta)
	return t.insert(ctx, groups, groupColumns(g), groups.exists(g.Name))
}

func (t *tx) UpdateGroup(ctx context.Context, g *backup.Group) error {
	return t.update(ctx, groups, groupColumns(g), &g.Meta, g.Name)
}

func (t *tx) DeleteGroup(ctx context.Context, id string) error {
	g, err := t.Group(ctx, id)
	if err != nil {
		return err
	}
	on, err := t.strings(ctx, "SELECT name FROM schedule WHERE project = $1 AND group_id = $2 ORDER BY name", t.project, id)
	if err != nil {
		return fmt.Errorf("schedules on group %s: %w", id, err)
	}
	if len(on) > 0 {
		return backup.Errorf(backup.InUse, "", "The group %q is in use by %s. Delete these or give them another group first.", g.Name, strings.Join(named("schedule", on), ""))
	}
	return t.remove(ctx, groups, id)
}
