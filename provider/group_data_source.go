package provider

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/datasource"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// groupFacts is a group and, where they were asked for, its members.
type groupFacts struct {
	api.BackupGroup
	members []api.VirtualMachine
}

var groupColumns = columns[groupFacts]{
	textColumn("id", "Id of the group", func(g groupFacts) string { return g.ID }),
	textColumn("name", "Its name", func(g groupFacts) string { return g.Name }),
	textColumn("description", "Free text", func(g groupFacts) string { return g.Description }),
	switchColumn("consistent", "Whether the snapshots of all members are made together", func(g groupFacts) bool { return g.Consistent }),
	numberColumn("reserved_seats", "Seats that its schedules book for its selector; 0 = as many as it has members", func(g groupFacts) int64 { return int64(g.ReservedSeats) }),
	switchColumn("deletion_protection", "Whether the server refuses to delete it", func(g groupFacts) bool { return g.DeletionProtection }),
	timeColumn("created_at", "When it was made", func(g groupFacts) time.Time { return g.CreatedAt }),
	labelsColumn(func(g groupFacts) map[string]string { return g.Labels }),
}

var memberColumns = columns[groupFacts]{
	textsColumn("member_ids", "Ids of the machines that are in it now", func(g groupFacts) (all []string) {
		for _, vm := range g.members {
			all = append(all, vm.ID)
		}
		return all
	}),
	textsColumn("member_names", "Names of those machines, in the same order", func(g groupFacts) (all []string) {
		for _, vm := range g.members {
			all = append(all, vm.Name)
		}
		return all
	}),
}

func newGroupDataSource() datasource.DataSource {
	return &lookup[groupFacts]{
		noun: "group", columns: slices.Concat(groupColumns, memberColumns),
		about: "A group with the machines that are in it now. By its name or its id.",
		get: func(ctx context.Context, c *connection, id string) (groupFacts, error) {
			g, err := found(c.client.GetBackupGroupWithResponse(ctx, id))
			if err != nil {
				return groupFacts{}, err
			}
			return c.withMembers(ctx, g)
		},
		named: func(ctx context.Context, c *connection, name string) ([]groupFacts, error) {
			page, err := found(c.client.ListBackupGroupsWithResponse(ctx, &api.ListBackupGroupsParams{Name: name}))
			if err != nil || len(page.Items) != 1 {
				return make([]groupFacts, len(page.Items)), err
			}
			g, err := c.withMembers(ctx, page.Items[0])
			return []groupFacts{g}, err
		},
	}
}

func (c *connection) withMembers(ctx context.Context, g api.BackupGroup) (groupFacts, error) {
	members, err := found(c.client.ListBackupGroupMembersWithResponse(ctx, g.ID))
	return groupFacts{BackupGroup: g, members: members.Items}, err
}

func newGroupsDataSource() datasource.DataSource {
	return &listing[groupFacts]{
		name: "kura_backup_groups", rows: "groups", columns: groupColumns,
		about: "All groups, oldest first.",
		all: func(ctx context.Context, c *connection, _ func(string) string) iter.Seq2[groupFacts, error] {
			return api.All(func(cursor string) (all []groupFacts, next string, err error) {
				page, err := found(c.client.ListBackupGroupsWithResponse(ctx, &api.ListBackupGroupsParams{Limit: 1000, Cursor: cursor}))
				for _, g := range page.Items {
					all = append(all, groupFacts{BackupGroup: g})
				}
				return all, page.NextCursor, err
			})
		},
	}
}
