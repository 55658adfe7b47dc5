package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var vcenters = noun{"vcenter", "vcenter"}

func (t *tx) vcenterColumns(v *backup.VCenter) columns {
	return append(metaColumns(&v.Meta), columns{
		{"name", &v.Name},
		{"endpoint", &v.Endpoint},
		{"username", &v.Username},
		{"password", sealed{t.db.box, "vcenter", "password", &v.ID, &v.Password}},
		{"thumbprint", &v.Thumbprint},
		{"ca_certificate", &v.CACertificate},
		{"time_zone", &v.TimeZone},
		{"slot_capacity", &v.SlotCapacity},
		{"limits", asJSON{&v.Limits}},
		{"transport", &v.Transport},
		{"tag_mappings", asJSON{&v.TagMappings}},
		{"instance_uuid", &v.InstanceUUID},
		{"api_version", &v.APIVersion},
		{"sync_state", &v.SyncState},
		{"sync_error", &v.SyncError},
		{"synced_at", millis{&v.SyncedAt}},
	}...)
}

func metaColumns(m *backup.Meta) columns {
	return columns{
		{"id", &m.ID},
		{"project", &m.Project},
		{"version", &m.Version},
		{"created_at", millis{&m.CreatedAt}},
		{"updated_at", millis{&m.UpdatedAt}},
	}
}

// learned are the columns that the sync fills in, never a user's change.
var learned = []string{"instance_uuid", "api_version", "sync_state", "sync_error", "synced_at"}

func (t *tx) VCenter(ctx context.Context, id string) (backup.VCenter, error) {
	return get(ctx, t, vcenters, id, t.vcenterColumns)
}

func (t *tx) VCenterByName(ctx context.Context, name string) (backup.VCenter, error) {
	return getByName(ctx, t, vcenters, name, t.vcenterColumns)
}

func (t *tx) VCenters(ctx context.Context, p backup.Page) ([]backup.VCenter, string, error) {
	q := query{from: "vcenter"}
	q.where("project = ?", t.project)
	return list(ctx, t, q, p, t.vcenterColumns)
}

func (t *tx) InsertVCenter(ctx context.Context, v *backup.VCenter) error {
	t.begin(&v.Meta)
	return t.insert(ctx, vcenters, t.vcenterColumns(v), vcenters.exists(v.Name))
}

// UpdateVCenter leaves what the sync has learned as it is, for v may have been
// read before the last sync; an InstanceUUID that v has is kept.
func (t *tx) UpdateVCenter(ctx context.Context, v *backup.VCenter) error {
	skip := learned
	if v.InstanceUUID != "" {
		skip = learned[2:]
	}
	return t.update(ctx, vcenters, t.vcenterColumns(v).without(skip...), &v.Meta, v.Name)
}

func (t *tx) SaveSync(ctx context.Context, v backup.VCenter) error {
	return t.change(ctx, vcenters, t.vcenterColumns(&v).only(learned...), v.ID)
}

// DeleteVCenter forgets the vcenter, its inventory and the syncs that wait for it.
func (t *tx) DeleteVCenter(ctx context.Context, id string) error {
	v, err := t.VCenter(ctx, id)
	if err != nil {
		return err
	}
	holders, err := t.vcenterHolders(ctx, id)
	if err != nil {
		return err
	}
	if len(holders) > 0 {
		return backup.Errorf(backup.InUse, "", "The vcenter %q is in use by %s. Delete these first.", v.Name, strings.Join(holders, " and by "))
	}
	waiting, err := t.strings(ctx, "SELECT id FROM job WHERE project = $1 AND vcenter_id = $2 AND kind = 'sync' AND state IN ('queued', 'running')", t.project, id)
	if err != nil {
		return fmt.Errorf("syncs of vcenter %s: %w", id, err)
	}
	for _, job := range waiting {
		if _, err := t.CancelJob(ctx, job); err != nil {
			return err
		}
	}
	if _, err := t.exec(ctx, "DELETE FROM machine WHERE project = $1 AND vcenter_id = $2", t.project, id); err != nil {
		return fmt.Errorf("inventory of vcenter %s: %w", id, err)
	}
	return t.remove(ctx, vcenters, id)
}

// vcenterHolders names what must go before the vcenter can.
func (t *tx) vcenterHolders(ctx context.Context, id string) ([]string, error) {
	var holders []string
	schedules, err := t.strings(ctx, `SELECT name FROM schedule WHERE project = $1 AND (id IN (SELECT schedule_id FROM seat WHERE vcenter_id = $2 AND seats > 0)
		OR vm_id IN (SELECT id FROM machine WHERE vcenter_id = $2)) ORDER BY name`, t.project, id)
	if err != nil {
		return nil, fmt.Errorf("schedules on vcenter %s: %w", id, err)
	}
	holders = append(holders, named("schedule", schedules)...)
	groups, err := t.vcenterGroups(ctx, id)
	if err != nil {
		return nil, err
	}
	holders = append(holders, named("group", groups)...)
	for _, h := range []struct{ query, one, many string }{
		{"SELECT COUNT(*) FROM image WHERE project = $1 AND vcenter_id = $2", "1 image", "%d images"},
		{"SELECT COUNT(*) FROM job WHERE project = $1 AND vcenter_id = $2 AND kind IN ('backup', 'restore') AND state IN ('queued', 'running')", "1 backup or restore that is not over", "%d backups and restores that are not over"},
	} {
		var n int
		if _, err := t.row(ctx, h.query, []any{t.project, id}, &n); err != nil {
			return nil, fmt.Errorf("what holds vcenter %s: %w", id, err)
		}
		switch {
		case n == 1:
			holders = append(holders, h.one)
		case n > 1:
			holders = append(holders, fmt.Sprintf(h.many, n))
		}
	}
	return holders, nil
}

// vcenterGroups names the groups that select from the vcenter or list a VM of it.
func (t *tx) vcenterGroups(ctx context.Context, id string) ([]string, error) {
	vms, err := t.strings(ctx, "SELECT id FROM machine WHERE project = $1 AND vcenter_id = $2", t.project, id)
	if err != nil {
		return nil, fmt.Errorf("inventory of vcenter %s: %w", id, err)
	}
	mine := make(map[string]bool, len(vms))
	for _, vm := range vms {
		mine[vm] = true
	}
	q := query{from: "backup_group", all: true}
	q.where("project = ?", t.project)
	all, _, err := list(ctx, t, q, backup.Page{}, groupColumns)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, g := range all {
		if g.Selector != nil && g.Selector.VCenterID == id || slices.ContainsFunc(g.VirtualMachineIDs, func(vm string) bool { return mine[vm] }) {
			names = append(names, g.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// fewNames is how many names a message lists.
const fewNames = 5

// named makes one phrase of names: `schedules "a", "b" and 7 more`; no phrase
// of none.
func named(word string, names []string) []string {
	if len(names) == 0 {
		return nil
	}
	if len(names) > 1 {
		word += "s"
	}
	quoted := make([]string, 0, fewNames)
	for _, n := range names[:min(len(names), fewNames)] {
		quoted = append(quoted, fmt.Sprintf("%q", n))
	}
	phrase := word + " " + strings.Join(quoted, ", ")
	if more := len(names) - fewNames; more > 0 {
		phrase += fmt.Sprintf(" and %d more", more)
	}
	return []string{phrase}
}
