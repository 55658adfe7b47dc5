package handler

import (
	"context"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// The hours that are listed when nothing else is asked for.
const (
	defaultTimeslots    = 168
	defaultTimeslotDays = 7
)

// ListTimeslots implements the operation.
func (h *handler) ListTimeslots(ctx context.Context, q api.ListTimeslotsRequestObject) (api.ListTimeslotsResponseObject, error) {
	query, err := h.timeslotQuery(q.Params)
	if err != nil {
		return nil, err
	}
	slots, next, err := h.Planner.Timeslots(ctx, query)
	if err != nil {
		return nil, err
	}
	list := api.TimeslotList{VCenterID: query.VCenterID, TimeZone: query.TimeZone, Items: each(slots, timeslotOut)}
	if !next.IsZero() {
		list.NextCursor = timeslotCursor(next, query.To)
	}
	if list.TimeZone == "" {
		err = h.Store.View(ctx, func(tx backup.Tx) error {
			v, err := tx.VCenter(ctx, query.VCenterID)
			list.TimeZone = v.TimeZone
			return err
		})
	}
	return api.ListTimeslots200JSONResponse(list), err
}

// timeslotQuery completes what was asked for, so that the end of the first
// page's range is that of the last one's, however long paging takes.
func (h *handler) timeslotQuery(p api.ListTimeslotsParams) (backup.TimeslotQuery, error) {
	q := backup.TimeslotQuery{VCenterID: p.VCenterID, TimeZone: p.TimeZone, From: p.From, To: p.To, Limit: p.Limit, Who: p.Who}
	if q.Limit == 0 {
		q.Limit = defaultTimeslots
	}
	if p.Cursor != "" {
		var err error
		q.From, q.To, err = timeslotRange(p.Cursor)
		return q, err
	}
	if q.From.IsZero() {
		q.From = h.Now()
	}
	if q.To.IsZero() {
		q.To = q.From.AddDate(0, 0, defaultTimeslotDays)
	}
	return q, nil
}

// timeslotCursor names the range that the pages to come have left.
func timeslotCursor(next, to time.Time) string {
	return next.UTC().Format(time.RFC3339) + "/" + to.UTC().Format(time.RFC3339Nano)
}

func timeslotRange(cursor string) (from, to time.Time, err error) {
	start, end, _ := strings.Cut(cursor, "/")
	from, err = time.Parse(time.RFC3339, start)
	if err == nil {
		to, err = time.Parse(time.RFC3339, end)
	}
	if err != nil {
		return from, to, backup.Errorf(backup.Invalid, "cursor", "cursor must be the next_cursor of the page before, got %q.", clip(cursor))
	}
	return from, to, nil
}

func timeslotOut(s backup.Timeslot) api.Timeslot {
	out := api.Timeslot{
		StartsAt: s.Start, Capacity: s.Capacity, Used: s.Used, Free: s.Free,
		Recommended: s.Recommended, OverBooked: s.Used > s.Capacity,
	}
	if len(s.Schedules) > 0 {
		out.Schedules = each(s.Schedules, func(h backup.TimeslotHolder) api.TimeslotHolder {
			return api.TimeslotHolder{ID: h.ScheduleID, Name: h.Name, Seats: h.Seats}
		})
	}
	return out
}
