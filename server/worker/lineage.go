package worker

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Lineage tells whether the database is the newest of its installation.
type Lineage interface {
	// Old returns what was found; nil = the database is the newest.
	Old(ctx context.Context) (*backup.OldDatabase, error)
	// Check looks again, and leaves new marks: at a start all of them.
	Check(ctx context.Context, start bool) (*backup.OldDatabase, error)
}

func (w *Worker) old(ctx context.Context) (bool, error) {
	if w.Config.Lineage == nil {
		return false, nil
	}
	o, err := w.Config.Lineage.Old(ctx)
	return o != nil, err
}

// trusted is f where the database is to be trusted. An old one knows neither
// what lives in the vcenters nor what is to be kept.
func (w *Worker) trusted(f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if old, err := w.old(ctx); err != nil || old {
			return err
		}
		return f(ctx)
	}
}

// checkLineage looks at the marks in the repositories.
func (w *Worker) checkLineage(ctx context.Context) error {
	if w.Config.Lineage == nil {
		return nil
	}
	o, err := w.Config.Lineage.Check(ctx, false)
	if o != nil {
		w.Log.ErrorContext(ctx, "the database is old: nothing is begun, ended or removed", "found_at", o.FoundAt, "message", o.Message())
	}
	if err != nil {
		return fmt.Errorf("look whether the database is old: %w", err)
	}
	return nil
}
