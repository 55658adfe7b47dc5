package handler

import (
	"context"
	"slices"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func machineOut(vm backup.VirtualMachine, synced time.Time) api.VirtualMachine {
	return api.VirtualMachine{
		ID: vm.ID, VCenterID: vm.VCenterID, InstanceUUID: vm.InstanceUUID, BIOSUUID: vm.BIOSUUID, MOID: vm.MOID, Name: vm.Name,
		Folder: vm.Folder, ResourcePool: vm.ResourcePool, Host: vm.Host, PowerState: api.PowerState(vm.PowerState), Template: vm.Template,
		GuestID: vm.GuestID, CPUs: vm.CPUs, Memory: vm.MemoryMiB << 20,
		Disks: each(vm.Disks, func(d backup.VMDisk) api.VirtualMachineDisk {
			return api.VirtualMachineDisk{Key: d.Key, Label: d.Label, Capacity: d.Capacity, File: d.File, UnprotectableReason: d.Unprotectable}
		}),
		NICs: each(vm.NICs, func(n backup.VMNIC) api.VirtualMachineNIC {
			return api.VirtualMachineNIC{Key: n.Key, MAC: n.MAC, Network: n.Network, IPs: n.IPs}
		}),
		Datastores: append([]string{}, vm.Datastores...),
		Tags:       each(vm.Tags, func(t backup.Tag) api.Tag { return api.Tag(t) }),
		Warnings:   append([]string{}, vm.Warnings...), UnprotectableReason: vm.Unprotectable,
		SeenAt: utc(vm.SeenAt), GoneAt: utc(vm.GoneAt), InventorySyncedAt: utc(synced),
	}
}

// machinesOut adds to each VM how old the inventory is that it stands in (seed W22).
func machinesOut(ctx context.Context, tx backup.Tx, vms []backup.VirtualMachine) ([]api.VirtualMachine, error) {
	synced := map[string]time.Time{}
	out := make([]api.VirtualMachine, len(vms))
	for i, vm := range vms {
		if _, ok := synced[vm.VCenterID]; !ok {
			v, err := tx.VCenter(ctx, vm.VCenterID)
			if err != nil {
				return nil, err
			}
			synced[vm.VCenterID] = v.SyncedAt
		}
		out[i] = machineOut(vm, synced[vm.VCenterID])
	}
	return out, nil
}

// ListVirtualMachines implements the operation.
func (h *handler) ListVirtualMachines(ctx context.Context, q api.ListVirtualMachinesRequestObject) (api.ListVirtualMachinesResponseObject, error) {
	p := q.Params
	f := backup.MachineFilter{VCenterID: p.VCenterID, Name: p.Name, IncludeGone: p.IncludeGone, Page: pageOf(p.Limit, p.Cursor)}
	var out api.VirtualMachineListOKJSONResponse
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		var vms []backup.VirtualMachine
		for { // on to the first page that holds a VM that is so
			if vms, out.NextCursor, err = tx.Machines(ctx, f); err != nil {
				return err
			}
			vms = slices.DeleteFunc(vms, func(vm backup.VirtualMachine) bool { return !tagged(vm, p.Tag) || p.Unprotectable && vm.Protected() })
			if len(vms) > 0 || out.NextCursor == "" {
				break
			}
			f.Cursor = out.NextCursor
		}
		out.Items, err = machinesOut(ctx, tx, vms)
		return err
	})
	return api.ListVirtualMachines200JSONResponse{VirtualMachineListOKJSONResponse: out}, err
}

// tagged says whether vm carries all tags, written category:name. Both parts
// may hold a colon themselves, so that the whole is compared.
func tagged(vm backup.VirtualMachine, tags []string) bool {
	for _, tag := range tags {
		if !slices.ContainsFunc(vm.Tags, func(t backup.Tag) bool { return t.Category+":"+t.Name == tag }) {
			return false
		}
	}
	return true
}

// GetVirtualMachine implements the operation.
func (h *handler) GetVirtualMachine(ctx context.Context, q api.GetVirtualMachineRequestObject) (api.GetVirtualMachineResponseObject, error) {
	var out []api.VirtualMachine
	err := h.Store.View(ctx, func(tx backup.Tx) error {
		vm, err := tx.Machine(ctx, q.ID)
		if err != nil {
			return err
		}
		out, err = machinesOut(ctx, tx, []backup.VirtualMachine{vm})
		return err
	})
	if err != nil {
		return nil, err
	}
	return api.GetVirtualMachine200JSONResponse(out[0]), nil
}

// BackupVirtualMachine implements the operation.
func (h *handler) BackupVirtualMachine(ctx context.Context, q api.BackupVirtualMachineRequestObject) (api.BackupVirtualMachineResponseObject, error) {
	r, err := h.Planner.BackupVM(ctx, q.ID, optionsIn(*q.Body))
	return api.BackupVirtualMachine202JSONResponse{RunAcceptedJSONResponse: runAccepted(r)}, err
}
