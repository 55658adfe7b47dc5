package server_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// auditor recounts seats from the stored schedules, from outside and in the
// slowest way that cannot be wrong: it walks over every quarter hour of its
// time, reads each zone's clock, and sees what begins there.
type auditor struct {
	from, to time.Time
	zones    map[string]*[24][]beginning
	vcenter  map[string]string // of each VM
	starts   sync.Map          // of each recurrence that was met: []int64
}

// beginning is the first instant at which a zone's clock shows a whole hour of
// a day; the instants after an hour that the clock jumps over have gap set.
type beginning struct {
	day backup.Date
	at  time.Time
	gap bool
}

func newAuditor(t testing.TB, from, to time.Time, zones ...string) *auditor {
	t.Helper()
	a := &auditor{from: from, to: to, zones: map[string]*[24][]beginning{}, vcenter: map[string]string{}}
	for _, name := range zones {
		loc, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		a.zones[name] = walk(loc, from, to)
	}
	return a
}

func walk(loc *time.Location, from, to time.Time) *[24][]beginning {
	z := &[24][]beginning{}
	begin := func(wall, at time.Time, gap bool) {
		known, day := &z[wall.Hour()], backup.DateOf(wall)
		if n := len(*known); n == 0 || (*known)[n-1].day != day { // else the hour occurs again: it has begun already
			*known = append(*known, beginning{day, at.UTC(), gap})
		}
	}
	var last time.Time // what the clock showed a quarter of an hour ago, as if it were UTC
	for at := from.Truncate(15 * time.Minute); !at.After(to); at = at.Add(15 * time.Minute) {
		local := at.In(loc)
		wall := time.Date(local.Year(), local.Month(), local.Day(), local.Hour(), local.Minute(), 0, 0, time.UTC)
		if !last.IsZero() {
			for skipped := last.Truncate(time.Hour).Add(time.Hour); skipped.Before(wall); skipped = skipped.Add(time.Hour) {
				begin(skipped, at, true)
			}
		}
		if wall.Minute() == 0 {
			begin(wall, at, false)
		}
		last = wall
	}
	return z
}

// falls says whether the recurrence names the day.
func falls(r backup.Recurrence, d backup.Date) bool {
	t := time.Date(d.Year, d.Month, d.Day, 12, 0, 0, 0, time.UTC)
	ends := t.AddDate(0, 0, 1).Month() != d.Month
	switch {
	case r.Kind == backup.OneTime:
		return d == r.Date
	case r.Kind == backup.Daily:
		return r.Date.IsZero() || !t.Before(time.Date(r.Date.Year, r.Date.Month, r.Date.Day, 0, 0, 0, 0, time.UTC))
	case r.Kind == backup.Weekly:
		return slices.Contains(r.Weekdays, t.Weekday())
	case r.LastDay:
		return ends
	case r.Nth == backup.Last:
		return t.Weekday() == r.Weekday && t.AddDate(0, 0, 7).Month() != d.Month
	case r.Nth > 0:
		nth := 0
		for u := t; u.Month() == d.Month; u = u.AddDate(0, 0, -7) {
			nth++
		}
		return t.Weekday() == r.Weekday && nth == r.Nth
	}
	return slices.ContainsFunc(r.MonthDays, func(day int) bool { return day == d.Day || r.ShortLast && ends && day > d.Day })
}

// seats are counts by whole hours since 1970.
type seats map[int64]int

// take adds what the schedule with n VMs takes.
func (a *auditor) take(used seats, s backup.Schedule, n int) {
	for _, at := range a.occurrences(s.Recurrence) {
		given := 0
		for w := range s.WindowHours { // as even as whole numbers allow
			upTo := n * (w + 1) / s.WindowHours
			start := at + int64(w)*3600
			for h := start / 3600; h*3600 < start+int64(s.DurationHours)*3600; h++ {
				used[h] += upTo - given
			}
			given = upTo
		}
	}
}

// occurrences are the instants at which r takes seats.
func (a *auditor) occurrences(r backup.Recurrence) []int64 {
	key := fmt.Sprint(r)
	if known, ok := a.starts.Load(key); ok {
		return known.([]int64)
	}
	var out []int64
	for _, b := range a.zones[r.TimeZone][r.Hour] {
		if !b.gap && falls(r, b.day) {
			out = append(out, b.at.Unix())
		}
	}
	a.starts.Store(key, out)
	return out
}

// ledger is what the stored rows of one transaction amount to.
type ledger struct {
	now     time.Time
	vcenter map[string]backup.VCenter
	used    map[string]seats
	ids     []string // of all schedules
}

// recount reads all schedules and counts their seats.
func (a *auditor) recount(ctx context.Context, tx backup.Tx) (*ledger, error) {
	l := &ledger{now: tx.Now(), vcenter: map[string]backup.VCenter{}, used: map[string]seats{}}
	all, _, err := tx.VCenters(ctx, backup.Page{Limit: 1000})
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		l.vcenter[v.ID], l.used[v.ID] = v, seats{}
	}
	stored, _, err := tx.Schedules(ctx, backup.ScheduleFilter{})
	if err != nil {
		return nil, err
	}
	groups := map[string]backup.Group{}
	for _, s := range stored {
		l.ids = append(l.ids, s.ID)
		if !s.Enabled {
			continue
		}
		vms := []string{s.VMID}
		if s.GroupID != "" {
			g, known := groups[s.GroupID]
			if !known {
				if g, err = tx.Group(ctx, s.GroupID); err != nil {
					return nil, fmt.Errorf("group of schedule %s: %w", s.Name, err)
				}
				groups[s.GroupID] = g
			}
			vms = g.VirtualMachineIDs
		}
		members := map[string]int{}
		for _, vm := range vms {
			members[a.vcenter[vm]]++
		}
		if sel := groups[s.GroupID].Selector; sel != nil { // it holds what was found for the members that came
			members[sel.VCenterID], err = heldBy(ctx, tx, sel.VCenterID, s.ID)
			if err != nil {
				return nil, err
			}
		}
		for v, n := range members {
			a.take(l.used[v], s, n)
		}
	}
	return l, nil
}

// heldBy is how many seats the schedule's row says that it holds.
func heldBy(ctx context.Context, tx backup.Tx, vcenterID, scheduleID string) (int, error) {
	booked, err := tx.Booked(ctx, vcenterID)
	i := slices.IndexFunc(booked, func(b backup.Booking) bool { return b.ScheduleID == scheduleID })
	if err != nil || i < 0 {
		return 0, err
	}
	return booked[i].Seats, nil
}
