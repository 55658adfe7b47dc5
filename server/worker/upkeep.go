package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// upkeep ends images whose time is over and asks for the collections that are due.
func (w *Worker) upkeep(ctx context.Context) error {
	e, err := w.Planner.Expire(ctx)
	if err != nil {
		err = fmt.Errorf("expire images: %w", err)
	}
	w.tellExpiry(ctx, e)
	_, perr := w.Planner.PlanUpkeep(ctx)
	return errors.Join(err, perr)
}

func (w *Worker) tellExpiry(ctx context.Context, e backup.Expiry) {
	if warning := e.Clock.Warning(); warning != "" {
		w.Log.WarnContext(ctx, "the clock has leapt: no image ends for now", "warning", warning, "now", e.Clock.Now, "expected", e.Clock.Expected)
	}
	if e.Jobs > 0 {
		w.Log.InfoContext(ctx, "images expired", "count", e.Jobs, "kept", e.Kept)
	}
}
