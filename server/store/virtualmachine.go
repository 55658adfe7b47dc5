package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
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
		{"unprotectable", &v.Unprotectable},
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
	known, err := t.knownMachines(ctx, vms)
	if err != nil {
		return fmt.Errorf("save %d virtual machines: %w", len(vms), err)
	}
	for i, id := range backup.Identify(known, vms) {
		if vms[i].ID = id; id == "" {
			vms[i].ID = backup.NewID(t.now)
		}
		if vms[i].SeenAt.IsZero() {
			vms[i].SeenAt = t.now
		}
	}
	size := perStatement / (len(machineColumns(&backup.VirtualMachine{})) + 1)
	for part := range chunks(vms, size) {
		if err := t.saveMachines(ctx, part); err != nil {
			return fmt.Errorf("save %d virtual machines: %w", len(part), err)
		}
	}
	return t.displace(ctx, known, vms)
}

// knownMachines reads what tells apart those of the VMs that are known already.
func (t *tx) knownMachines(ctx context.Context, vms []backup.VirtualMachine) ([]backup.VirtualMachine, error) {
	of := map[string][]backup.VirtualMachine{}
	for _, vm := range vms {
		of[vm.VCenterID] = append(of[vm.VCenterID], vm)
	}
	known := map[string]backup.VirtualMachine{} // by id: one may be found twice
	for vcenter, list := range of {
		if err := t.identities(ctx, vcenter, list, known); err != nil {
			return nil, err
		}
	}
	return slices.SortedFunc(maps.Values(known), func(a, b backup.VirtualMachine) int { return strings.Compare(a.ID, b.ID) }), nil
}

// fewMachines is up to how many VMs are looked up one by one. For more, all of
// the vcenter's are read at once.
const fewMachines = perStatement / 4

// identities adds those of the vcenter's VMs that these may be.
func (t *tx) identities(ctx context.Context, vcenterID string, vms []backup.VirtualMachine, known map[string]backup.VirtualMachine) error {
	if len(vms) > fewMachines {
		return t.identify(ctx, vcenterID, "", nil, known)
	}
	var uuids, moids []string
	for _, vm := range vms {
		uuids, moids = append(uuids, vm.InstanceUUID), append(moids, vm.MOID)
	}
	if err := t.identify(ctx, vcenterID, "instance_uuid", uuids, known); err != nil {
		return err
	}
	return t.identify(ctx, vcenterID, "moid", moids, known)
}

func (t *tx) identify(ctx context.Context, vcenterID, column string, values []string, known map[string]backup.VirtualMachine) error {
	var vm backup.VirtualMachine
	c := machineColumns(&vm).only("id", "vcenter_id", "instance_uuid", "bios_uuid", "moid", "name", "gone_at")
	q := query{}
	q.where("vcenter_id = ?", vcenterID)
	if column != "" {
		q.in(column, values)
	}
	return t.rows(ctx, "SELECT "+c.names("")+" FROM machine WHERE "+q.conditions(), q.args, func(scan func(...any) error) error {
		if err := scan(c.dest()...); err != nil {
			return err
		}
		known[vm.ID] = vm
		return nil
	})
}

func (t *tx) saveMachines(ctx context.Context, part []backup.VirtualMachine) error {
	var rows []string
	var args []any
	for i := range part {
		c := append(machineColumns(&part[i]), column{"project", &t.project})
		rows = append(rows, "("+c.marks(len(args)+1)+")")
		args = append(args, c.dest()...)
	}
	c := append(machineColumns(&backup.VirtualMachine{}), column{"project", &t.project})
	var sets []string
	for _, col := range c.without("id", "project", "vcenter_id") {
		sets = append(sets, col.name+" = excluded."+col.name)
	}
	_, err := t.exec(ctx, "INSERT INTO machine ("+c.names("")+") VALUES "+strings.Join(rows, ", ")+" ON CONFLICT (id) DO UPDATE SET "+strings.Join(sets, ", "), args...)
	return err
}

// displace marks as gone the known VMs whose managed object ids are another
// VM's now: a vcenter that was put back to an earlier state gives them anew.
func (t *tx) displace(ctx context.Context, known, vms []backup.VirtualMachine) error {
	holder := map[[2]string]string{}
	for _, vm := range vms {
		holder[[2]string{vm.VCenterID, vm.MOID}] = vm.ID
	}
	saved := map[string]bool{}
	for _, vm := range vms {
		saved[vm.ID] = true
	}
	for _, old := range known {
		if holder[[2]string{old.VCenterID, old.MOID}] == "" || saved[old.ID] || old.Gone() {
			continue
		}
		if _, err := t.exec(ctx, "UPDATE machine SET gone_at = $1 WHERE id = $2", t.now, old.ID); err != nil {
			return fmt.Errorf("mark virtual machine %s as gone: %w", old.ID, err)
		}
	}
	return nil
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
