package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// alive tells whether a job's attempt holds a live lease. It asks the queue at
// its first call, which a sweep makes after it has listed what is in the
// vcenter: a job that began after that listing cannot be in it. A live job's
// earlier attempts are dead.
func (w *Worker) alive(ctx context.Context) func(job string, attempt int) bool {
	live := sync.OnceValues(func() (map[string]int, error) { return w.Store.Live(ctx) })
	return func(job string, attempt int) bool {
		l, err := live()
		return err != nil || l[job] == attempt // in doubt nothing is removed
	}
}

// sweep removes, from every vcenter that this server reaches, the snapshots
// and staging VMs of this installation whose jobs are dead. A snapshot whose
// making ended only after its job had lost its lease can be caught in no other way.
func (w *Worker) sweep(ctx context.Context) error {
	vcenters, err := w.vcenters(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range vcenters {
		if v.SyncState == backup.SyncPending {
			continue // nothing of ours was ever made there
		}
		if at, err := w.denied(ctx, v); err != nil || !at.IsZero() {
			errs = append(errs, err)
			continue
		}
		if err := w.sweepVCenter(ctx, v); err != nil {
			errs = append(errs, fmt.Errorf("sweep vcenter %s: %w", v.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (w *Worker) sweepVCenter(ctx context.Context, v backup.VCenter) error {
	s, err := w.VSphere.Connect(ctx, v)
	if err != nil {
		return err
	}
	removed, err := s.Sweep(ctx, w.Installation, w.alive(ctx))
	for _, line := range removed {
		w.Log.InfoContext(ctx, "left-over removed", "vcenter", v.Name, "what", line)
	}
	return err
}

// denied returns when the vcenter refused our account, if that is how its last
// sync ended; zero = it is not. Trying the account every minute could get it
// locked, so it is left alone until a sync is due or the access is changed.
func (w *Worker) denied(ctx context.Context, v backup.VCenter) (at time.Time, err error) {
	if v.SyncState != backup.SyncFailed {
		return at, nil
	}
	err = w.Store.View(ctx, func(tx backup.Tx) error {
		last, _, err := tx.Jobs(ctx, backup.JobFilter{Kind: backup.KindSync, VCenterID: v.ID, Page: backup.Page{Limit: 1}})
		if err == nil && len(last) > 0 && last[0].State == backup.JobFailed && last[0].ErrorCode == backup.VCenterDenied {
			at = last[0].EndedAt
		}
		return err
	})
	return at, err
}

// vcenters lists the vcenters that this server reaches.
func (w *Worker) vcenters(ctx context.Context) ([]backup.VCenter, error) {
	var out []backup.VCenter
	err := w.Store.View(ctx, func(tx backup.Tx) error {
		out = nil
		for cursor := ""; ; {
			vs, next, err := tx.VCenters(ctx, backup.Page{Limit: 1000, Cursor: cursor})
			if err != nil {
				return err
			}
			for _, v := range vs {
				if backup.Reaches(w.Reach, v) {
					out = append(out, v)
				}
			}
			if cursor = next; cursor == "" {
				return nil
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list vcenters: %w", err)
	}
	return out, nil
}

// syncStale asks for the inventories that have grown old.
func (w *Worker) syncStale(ctx context.Context) error {
	vcenters, err := w.vcenters(ctx)
	if err != nil {
		return err
	}
	for _, v := range vcenters {
		refused, err := w.denied(ctx, v)
		if err != nil {
			return err
		}
		if w.Now().Sub(v.SyncedAt) < w.Config.Sync || w.Now().Sub(refused) < w.Config.Sync {
			continue
		}
		if _, err := w.Planner.SyncVCenter(ctx, v.ID); err != nil && backup.CodeOf(err) != backup.NotFound {
			return fmt.Errorf("ask for the inventory of %s: %w", v.Name, err)
		}
	}
	return nil
}
