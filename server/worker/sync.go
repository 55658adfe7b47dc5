package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// sync reads the inventory of a vcenter (seed W22).
func (a *attempt) sync(ctx context.Context) (ending, error) {
	a.begin(ctx, "reading the inventory")
	var v backup.VCenter
	err := a.Store.View(ctx, func(tx backup.Tx) (err error) {
		v, err = tx.VCenter(ctx, a.job.VCenterID)
		return err
	})
	if backup.CodeOf(err) == backup.NotFound {
		return ending{state: backup.JobSkipped, message: "The vcenter was removed."}, nil
	}
	if err != nil {
		return ending{}, err
	}
	c, err := a.inventory(ctx, &v)
	if err != nil && ctx.Err() != nil { // stopped: that says nothing of the vcenter
		return ending{}, err
	}
	if err != nil {
		return ending{}, errors.Join(err, a.saveSync(ctx, v, err))
	}
	for i := range c.VMs {
		c.VMs[i].VCenterID = v.ID
	}
	v.SyncState, v.SyncError, v.SyncedAt = backup.SyncReady, "", a.Now()
	err = a.Store.Update(ctx, func(tx backup.Tx) error {
		if err := a.fence(ctx, tx); err != nil {
			return err
		}
		// First what has left: a VM that was registered anew is known by that.
		if err := a.markGone(ctx, tx, v.ID, c); err != nil {
			return err
		}
		if err := tx.SaveMachines(ctx, c.VMs); err != nil {
			return err
		}
		return tx.SaveSync(ctx, v)
	})
	if err != nil {
		return ending{}, fmt.Errorf("store the inventory: %w", err)
	}
	if err := a.followGroups(ctx, v, c.Full || len(c.VMs)+len(c.Gone) > 0); err != nil {
		a.log.ErrorContext(ctx, "groups not followed", "vcenter", v.Name, "error", err)
		return ending{state: backup.JobSucceeded}, nil // the next sync reads all, and follows again
	}
	a.Worker.mu.Lock()
	a.versions[v.ID] = c.Version
	a.Worker.mu.Unlock()
	return ending{state: backup.JobSucceeded}, nil
}

// followGroups books seats for what has come into the vcenter's groups.
func (a *attempt) followGroups(ctx context.Context, v backup.VCenter, changed bool) error {
	followed, err := a.Planner.FollowGroups(ctx, v.ID, changed)
	if err != nil {
		return err
	}
	for _, s := range followed {
		if s.UnbookedSeats > 0 {
			a.log.WarnContext(ctx, "members without a seat", "schedule", s.Name, "booked", s.Seats, "unbooked", s.UnbookedSeats)
		} else {
			a.log.InfoContext(ctx, "seats follow the group", "schedule", s.Name, "booked", s.Seats)
		}
	}
	return nil
}

// fence gives ErrLeaseLost when the job is another server's by now, whose
// inventory is newer than ours.
func (a *attempt) fence(ctx context.Context, tx backup.Tx) error {
	j, err := tx.Job(ctx, a.job.ID)
	if err == nil && (j.State != backup.JobRunning || j.Owner != a.lease.Owner || j.Attempt != a.lease.Attempt) {
		err = backup.ErrLeaseLost
	}
	return err
}

func (a *attempt) inventory(ctx context.Context, v *backup.VCenter) (backup.InventoryChange, error) {
	s, err := a.VSphere.Connect(ctx, *v)
	if err != nil {
		return backup.InventoryChange{}, err
	}
	uuid, api := s.About()
	if v.InstanceUUID != "" && v.InstanceUUID != uuid {
		return backup.InventoryChange{}, backup.Errorf(backup.Conflict, "endpoint", "%s is another vCenter (%s) than the one whose images are kept here (%s). Add it as a vcenter of its own; if this one was rebuilt, re-bind its VMs then: kura vcenter rebind.", v.Endpoint, uuid, v.InstanceUUID)
	}
	v.InstanceUUID, v.APIVersion = uuid, api
	a.Worker.mu.Lock()
	since := a.versions[v.ID]
	delete(a.versions, v.ID) // until this change is stored, the next sync reads all
	a.Worker.mu.Unlock()
	return s.Inventory(ctx, since)
}

func (a *attempt) markGone(ctx context.Context, tx backup.Tx, vcenterID string, c backup.InventoryChange) error {
	moids := c.Gone
	if c.Full {
		moids = make([]string, len(c.VMs))
		for i, vm := range c.VMs {
			moids[i] = vm.MOID
		}
	}
	return tx.MarkGone(ctx, vcenterID, moids, c.Full)
}

func (a *attempt) saveSync(ctx context.Context, v backup.VCenter, cause error) error {
	v.SyncState, v.SyncError = backup.SyncFailed, "The inventory could not be read: see the server's log."
	if e := backup.AsError(cause); e != nil {
		v.SyncError = e.Message
	}
	return a.Store.Update(ctx, func(tx backup.Tx) error {
		if err := a.fence(ctx, tx); err != nil {
			return err
		}
		return tx.SaveSync(ctx, v)
	})
}
