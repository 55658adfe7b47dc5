package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// alive tells whether a job's attempt holds a live lease. It asks the queue at
// its first call, which a sweep makes after it has listed what is in the
// vcenter: a job that began after that listing cannot be in it. A live job's
// earlier attempts are dead, but for the one that names the snapshot which was
// made for it together with those of its group.
func (w *Worker) alive(ctx context.Context) func(job string, attempt int) bool {
	live := sync.OnceValues(func() (map[string]int, error) { return w.Store.Live(ctx) })
	kept := sync.OnceValues(func() (map[string]int, error) { return w.Store.Kept(ctx) })
	return func(job string, attempt int) bool {
		l, err := live()
		k, kerr := kept()
		n, isKept := k[job]
		return err != nil || kerr != nil || l[job] == attempt || isKept && n == attempt // in doubt nothing is removed
	}
}

// sweep removes, from every vcenter that this server reaches, the snapshots
// and staging VMs of this installation whose jobs are dead. A snapshot whose
// making ended only after its job had lost its lease can be caught in no other way.
func (w *Worker) sweep(ctx context.Context) error {
	if failpoint.Without("sweeper") {
		return nil
	}
	errs := []error{w.repayAll(ctx)} // first what stands still
	vcenters, err := w.vcenters(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, v := range vcenters {
		if v.SyncState == backup.SyncPending {
			continue // nothing of ours was ever made there
		}
		if v.SyncState == backup.SyncFailed {
			if last, err := w.lastSync(ctx, v); err != nil || denied(last) {
				errs = append(errs, err)
				continue
			}
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
	failpoint.Hit("sweep.swept")
	for _, line := range removed {
		w.Log.InfoContext(ctx, "left-over removed", "vcenter", v.Name, "what", line)
	}
	return err
}

// lastSync returns the newest sync of the vcenter; its ID is "" when there is none.
func (w *Worker) lastSync(ctx context.Context, v backup.VCenter) (j backup.Job, err error) {
	err = w.Store.View(ctx, func(tx backup.Tx) error {
		last, _, err := tx.Jobs(ctx, backup.JobFilter{Kind: backup.KindSync, VCenterID: v.ID, Page: backup.Page{Limit: 1}})
		if len(last) > 0 {
			j = last[0]
		}
		return err
	})
	return j, err
}

// denied says whether the vcenter refused our account when it was last asked.
// Trying that every minute could get the account locked, so it is left alone
// until a sync is due or its access is changed.
func denied(lastSync backup.Job) bool {
	return lastSync.State == backup.JobFailed && lastSync.ErrorCode == backup.VCenterDenied
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
		if w.Now().Sub(v.SyncedAt).Abs() < w.Config.Sync { // one of the future is old: a clock was wrong
			continue
		}
		last, err := w.lastSync(ctx, v)
		if err != nil {
			return err
		}
		if last.ID != "" && !last.State.Final() || denied(last) && w.Now().Sub(last.EndedAt).Abs() < w.Config.Sync {
			continue
		}
		if _, err := w.Planner.SyncVCenter(ctx, v.ID); err != nil && backup.CodeOf(err) != backup.NotFound {
			return fmt.Errorf("ask for the inventory of %s: %w", v.Name, err)
		}
	}
	return nil
}
