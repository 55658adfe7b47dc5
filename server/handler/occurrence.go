package handler

import (
	"cmp"
	"context"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// defaultOccurrences is how many slots are listed when no number is given.
const defaultOccurrences = 10

// ListOccurrences implements the operation.
func (h *handler) ListOccurrences(ctx context.Context, q api.ListOccurrencesRequestObject) (api.ListOccurrencesResponseObject, error) {
	var s backup.Schedule
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		s, err = tx.Schedule(ctx, q.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	from, err := h.occurrencesFrom(q.Params.From)
	if err != nil {
		return nil, err
	}
	n := cmp.Or(q.Params.Count, defaultOccurrences)
	return api.ListOccurrences200JSONResponse{Items: each(s.Recurrence.Next(from, n), occurrenceOut)}, nil
}

// occurrencesFrom is the time after which slots are listed; zero = now.
func (h *handler) occurrencesFrom(from time.Time) (time.Time, error) {
	if from.IsZero() {
		return h.Now(), nil
	}
	return from, tellable("from", from)
}

func occurrenceOut(o backup.Occurrence) api.Occurrence {
	out := api.Occurrence{StartsAt: o.Start}
	out.Clock, out.Note = clockOut(o)
	return out
}

// clockOut says what the clock does to the slot; "" = nothing.
func clockOut(o backup.Occurrence) (clock api.ClockChange, note string) {
	switch o.Clock {
	case backup.Gap:
		return api.ClockChangeGap, o.Slot.String() + " does not exist in this time zone, since the clock is put forward: it runs at " + o.Start.Format("15:04 -07:00") + "."
	case backup.Twice:
		return api.ClockChangeTwice, o.Slot.String() + " occurs twice, since the clock is put back: it runs in the first, at " + o.Start.Format("15:04 -07:00") + "."
	}
	return "", ""
}
