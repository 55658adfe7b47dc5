package store

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// RebindMachine moves what is known of a VM to where it is now.
func (t *tx) RebindMachine(ctx context.Context, id string, to backup.VirtualMachine) error {
	other := to.ID
	if err := t.repoint(ctx, id, other); err != nil {
		return err
	}
	// A VM that both vcenters had in a group is in it once: the next look adds it.
	for _, text := range []string{"DELETE FROM group_member WHERE vm_id = $1", "DELETE FROM machine WHERE id = $1"} {
		if _, err := t.exec(ctx, text, other); err != nil {
			return fmt.Errorf("re-bind virtual machine %s: %w", id, err)
		}
	}
	to.ID = id
	if err := t.change(ctx, machines, machineColumns(&to).without("id"), id); err != nil {
		return err
	}
	if _, err := t.exec(ctx, "UPDATE image SET vcenter_id = $1 WHERE project = $2 AND vm_id = $3", to.VCenterID, t.project, id); err != nil {
		return fmt.Errorf("images of virtual machine %s: %w", id, err)
	}
	return nil
}

// repoint lets everything that names the one VM name the other.
func (t *tx) repoint(ctx context.Context, id, other string) error {
	for _, table := range []string{"schedule", "job", "image", "usage", "group_change"} {
		if _, err := t.exec(ctx, "UPDATE "+table+" SET vm_id = $1 WHERE vm_id = $2", id, other); err != nil {
			return fmt.Errorf("%s of virtual machine %s: %w", table, other, err)
		}
	}
	return nil
}

// ImagesByVM counts the images of each VM.
func (t *tx) ImagesByVM(ctx context.Context, vcenterID string) (map[string]int, error) {
	n := map[string]int{}
	err := t.rows(ctx, "SELECT vm_id, COUNT(*) FROM image WHERE project = $1 AND vcenter_id = $2 AND status <> 'expired' GROUP BY vm_id", []any{t.project, vcenterID}, func(scan func(...any) error) error {
		var id string
		var count int
		if err := scan(&id, &count); err != nil {
			return err
		}
		n[id] = count
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("images of vcenter %s: %w", vcenterID, err)
	}
	return n, nil
}
