package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var machines = noun{"machine", "virtual machine"}

// machineColumns leaves out the project, which a VM does not carry in Go.
func machineColumns(v *backup.VirtualMachine) columns {
	return columns{
		{"id", &v.ID},
		{"vcenter_id", &v.VCenterID},
		{"instance_uuid", &v.InstanceUUID},
		{"bios_uuid", &v.BIOSUUID},
		{"moid", &v.MOID},
		{"name", &v.Name},
		{"folder", &v.Folder},
		{"resource_pool", &v.ResourcePool},
		{"host", &v.Host},
		{"power_state", &v.PowerState},
		{"template", &v.Template},
		{"guest_id", &v.GuestID},
		{"cpus", &v.CPUs},
		{"memory_mib", &v.MemoryMiB},
		{"disks", asJSON{&v.Disks}},
		{"nics", asJSON{&v.NICs}},
		{"datastores", asJSON{&v.Datastores}},
		{"tags", asJSON{&v.Tags}},
		{"warnings", asJSON{&v.Warnings}},
		{"seen_at", millis{&v.SeenAt}},
		{"gone_at", millis{&v.GoneAt}},
	}
}

func (t *tx) Machine(ctx context.Context, id string) (backup.VirtualMachine, error) {
	return get(ctx, t, machines, id, machineColumns)
}

func (t *tx) Machines(ctx context.Context, f backup.MachineFilter) ([]backup.VirtualMachine, string, error) {
	q := query{from: "machine", all: true}
	q.where("project = ?", t.project)
	q.equal("vcenter_id", f.VCenterID)
	q.equal("name", f.Name)
	if !f.IncludeGone {
		q.where("gone_at = 0")
	}
	if len(f.IDs) <= perStatement {
		if len(f.IDs) > 0 {
			q.in("id", f.IDs)
		}
		return list(ctx, t, q, f.Page, machineColumns)
	}
	if f.Limit > 0 || f.Cursor != "" {
		return nil, "", backup.Errorf(backup.Invalid, "limit", "A list of more than %d ids has no pages.", perStatement)
	}
	var all []backup.VirtualMachine
	for ids := range chunks(f.IDs, perStatement) {
		part := q
		part.conds, part.args = append([]string(nil), q.conds...), append([]any(nil), q.args...)
		part.in("id", ids)
		some, _, err := list(ctx, t, part, f.Page, machineColumns)
		if err != nil {
			return nil, "", err
		}
		all = append(all, some...)
	}
	return all, "", nil
}

// chunks yields the slice in parts of at most size.
func chunks[T any](all []T, size int) func(func([]T) bool) {
	return func(yield func([]T) bool) {
		for len(all) > 0 {
			n := min(len(all), size)
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

// SaveMachines writes many rows with one statement each batch, so that a first
// sync of 10,000 VMs takes seconds.
func (t *tx) SaveMachines(ctx context.Context, vms []backup.VirtualMachine) error {
	size := perStatement / (len(machineColumns(&backup.VirtualMachine{})) + 1)
	for part := range chunks(vms, size) {
		last := map[[2]string]int{} // a statement must not name a row twice: the later VM holds
		for i := range part {
			vm := &part[i]
			if vm.SeenAt.IsZero() {
				vm.SeenAt = t.now
			}
			last[[2]string{vm.VCenterID, vm.InstanceUUID}] = i
		}
		ids, err := t.saveMachines(ctx, part, last)
		if err != nil {
			return fmt.Errorf("save %d virtual machines: %w", len(part), err)
		}
		for i := range part {
			part[i].ID = ids[[2]string{part[i].VCenterID, part[i].InstanceUUID}]
		}
	}
	return nil
}

func (t *tx) saveMachines(ctx context.Context, part []backup.VirtualMachine, last map[[2]string]int) (map[[2]string]string, error) {
	var rows []string
	var args []any
	for i := range part {
		if last[[2]string{part[i].VCenterID, part[i].InstanceUUID}] != i {
			continue
		}
		vm := part[i]
		if vm.ID == "" {
			vm.ID = backup.NewID(t.now)
		}
		c := append(machineColumns(&vm), column{"project", &t.project})
		rows = append(rows, "("+c.marks(len(args)+1)+")")
		args = append(args, c.dest()...)
	}
	c := append(machineColumns(&backup.VirtualMachine{}), column{"project", &t.project})
	var sets []string
	for _, col := range c.without("id", "project", "vcenter_id", "instance_uuid") {
		sets = append(sets, col.name+" = excluded."+col.name)
	}
	text := "INSERT INTO machine (" + c.names("") + ") VALUES " + strings.Join(rows, ", ") +
		" ON CONFLICT (vcenter_id, instance_uuid) DO UPDATE SET " + strings.Join(sets, ", ") + " RETURNING id, vcenter_id, instance_uuid"
	ids := map[[2]string]string{}
	err := t.rows(ctx, text, args, func(scan func(...any) error) error {
		var id, vcenter, uuid string
		if err := scan(&id, &vcenter, &uuid); err != nil {
			return err
		}
		ids[[2]string{vcenter, uuid}] = id
		return nil
	})
	return ids, err
}

func (t *tx) MarkGone(ctx context.Context, vcenterID string, moids []string, keep bool) error {
	named := make(map[string]bool, len(moids))
	for _, m := range moids {
		named[m] = true
	}
	var gone []string
	err := t.rows(ctx, "SELECT id, moid FROM machine WHERE project = $1 AND vcenter_id = $2 AND gone_at = 0", []any{t.project, vcenterID}, func(scan func(...any) error) error {
		var id, moid string
		if err := scan(&id, &moid); err != nil {
			return err
		}
		if named[moid] != keep {
			gone = append(gone, id)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("inventory of vcenter %s: %w", vcenterID, err)
	}
	for ids := range chunks(gone, perStatement-1) {
		marks := make([]string, len(ids))
		args := []any{t.now}
		for i, id := range ids {
			marks[i] = "$" + strconv.Itoa(i+2)
			args = append(args, id)
		}
		if _, err := t.exec(ctx, "UPDATE machine SET gone_at = $1 WHERE id IN ("+strings.Join(marks, ", ")+")", args...); err != nil {
			return fmt.Errorf("mark virtual machines as gone: %w", err)
		}
	}
	return nil
}
