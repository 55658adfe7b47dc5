package server_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// guest is one of the clients of a rush. Each call goes to any server.
type guest struct {
	*rush
	chance *rand.Rand
}

func (c guest) pick(n int) int { return c.chance.IntN(n) }

func (c guest) planner() *backup.Planner { return c.server(c.pick).planner }

// act does one thing.
func (c guest) act() {
	switch n := c.pick(100); {
	case n < 45:
		c.book()
	case n < 62:
		c.change("move", "moved", func(s *backup.Schedule) { s.Recurrence = c.recurrence() })
	case n < 70:
		c.change("disabling", "disabled", func(s *backup.Schedule) { s.Enabled = false })
	case n < 78:
		c.change("enabling", "enabled", func(s *backup.Schedule) { s.Enabled = true })
	case n < 92:
		c.remove()
	case n < 94:
		c.regroup()
	case n < 99:
		c.check()
	default:
		now := c.clock.Now()
		_, _, err := c.planner().Timeslots(c.Context(), backup.TimeslotQuery{VCenterID: c.vcenter[c.pick(len(c.vcenter))], From: now, To: now.Add(48 * time.Hour), Who: true})
		c.outcome("looking", "looked", err)
	}
}

// outcome counts what became of a call and says whether it was kept for sure.
func (c guest) outcome(doing, done string, err error) bool {
	switch code := backup.CodeOf(err); {
	case err == nil:
		c.count(done)
	case errors.Is(err, errLeft):
		c.count("caller left")
	case code == backup.Internal || code == backup.Invalid || code == backup.Unavailable:
		c.fail("%s: %v", doing, err)
	default:
		c.count(doing + ": " + string(code))
	}
	return err == nil
}

// recurrence draws one around the same few hours of UTC.
func (c guest) recurrence() backup.Recurrence {
	now := c.clock.Now()
	r := backup.Recurrence{TimeZone: rushed[c.pick(len(rushed))]}
	loc, _ := time.LoadLocation(r.TimeZone) // a name of the list above
	_, offset := now.In(loc).Zone()
	r.Hour = ((20+c.pick(4)+offset/3600)%24 + 24) % 24
	today := backup.DateOf(now.In(loc))
	switch c.pick(6) {
	case 0:
		r.Kind, r.Date = backup.OneTime, today.AddDays(c.pick(4))
	case 1:
		r.Kind = backup.Daily
		if c.pick(2) == 0 {
			r.Date = today.AddDays(c.pick(300))
		}
	case 2:
		r.Kind, r.Weekdays = backup.Weekly, []time.Weekday{time.Weekday(c.pick(7))}
	case 3:
		r.Kind, r.MonthDays, r.ShortLast = backup.Monthly, []int{1 + c.pick(31)}, c.pick(2) == 0
	case 4:
		r.Kind, r.Nth, r.Weekday = backup.Monthly, 1+c.pick(5), time.Weekday(c.pick(7))
	case 5:
		r.Kind, r.LastDay = backup.Monthly, true
	}
	return r
}

// draw makes a schedule. Now and then its name is taken, which the store finds
// out after the seats were found.
func (c guest) draw() backup.Schedule {
	c.mu.Lock()
	c.names++
	name := fmt.Sprint("s", c.names)
	if n := len(c.taken); n > 0 && c.pick(15) == 0 {
		name = c.taken[n-1-c.pick(min(n, 20))]
	}
	c.mu.Unlock()
	r := c.recurrence()
	s := backup.Schedule{Name: name, Enabled: true, RetentionDays: map[backup.RecurrenceKind]int{backup.OneTime: 31, backup.Daily: 7, backup.Weekly: 14, backup.Monthly: 31}[r.Kind],
		Recurrence: r, LatestHour: 23, WindowHours: 1 + c.pick(6)/4, DurationHours: 1 + c.pick(8)/6}
	switch c.pick(6) {
	case 0, 1:
		s.GroupID = c.groups[c.pick(len(c.groups))]
	case 2:
		s.GroupID = c.pools[c.pick(len(c.pools))]
	default:
		s.VMID = c.vms[c.pick(len(c.vms))]
	}
	return s
}

// book creates a schedule; when it is refused it takes what is recommended,
// which another client may have taken meanwhile.
func (c guest) book() {
	s := c.draw()
	_, err := c.planner().CreateSchedule(c.Context(), s)
	if c.outcome("booking", "booked", err) {
		c.mu.Lock()
		c.taken = append(c.taken, s.Name)
		c.mu.Unlock()
	}
	e := backup.AsError(err)
	if e == nil || e.Code != backup.SlotFull || c.pick(2) == 0 {
		return
	}
	for _, r := range e.Recommendations {
		s.Recurrence = r.Recurrence
		if _, err := c.planner().CreateSchedule(c.Context(), s); c.outcome("recommendation", "recommendation booked", err) {
			return
		}
	}
}

func (c guest) any() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ids) == 0 {
		return ""
	}
	return c.ids[c.pick(len(c.ids))]
}

// disabled takes one of the schedules that were disabled.
func (c guest) disabled() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.off) == 0 {
		return ""
	}
	id := c.off[len(c.off)-1]
	c.off = c.off[:len(c.off)-1]
	return id
}

// change reads a schedule from one server and stores it on another, sometimes
// over what somebody else has made of it meanwhile.
func (c guest) change(doing, done string, alter func(*backup.Schedule)) {
	id := c.any()
	if doing == "enabling" {
		id = c.disabled()
	}
	if id == "" {
		return
	}
	var s backup.Schedule
	err := c.server(c.pick).db.View(c.Context(), func(tx backup.Tx) (err error) {
		s, err = tx.Schedule(c.Context(), id)
		return err
	})
	if err != nil {
		c.outcome("reading", "", err)
		return
	}
	before := s.Enabled
	if alter(&s); doing != "move" && s.Enabled == before {
		return
	}
	s.RetentionDays = map[backup.RecurrenceKind]int{backup.OneTime: 31, backup.Daily: 7, backup.Weekly: 14, backup.Monthly: 31}[s.Recurrence.Kind]
	if c.pick(2) == 0 {
		s.Version = 0
	}
	_, err = c.planner().UpdateSchedule(c.Context(), s)
	if c.outcome(doing, done, err) && doing == "disabling" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.off = append(c.off, id)
	}
}

func (c guest) remove() {
	if id := c.any(); id != "" {
		c.outcome("deleting", "deleted", c.planner().DeleteSchedule(c.Context(), id))
	}
}

// regroup gives a group other members: its schedules are booked anew.
func (c guest) regroup() {
	id := c.groups[c.pick(len(c.groups))]
	var g backup.Group
	err := c.server(c.pick).db.View(c.Context(), func(tx backup.Tx) (err error) {
		g, err = tx.Group(c.Context(), id)
		return err
	})
	if err == nil {
		g.Version, g.VirtualMachineIDs = 0, c.members(c.pick)
		_, err = c.planner().UpdateGroup(c.Context(), g)
	}
	c.outcome("group", "group changed", err)
}

// check asks about a plan of two schedules and of one that it deletes.
func (c guest) check() {
	other := c.draw()
	others := []backup.Planned{{Schedule: &other}}
	if id := c.any(); id != "" {
		others = append(others, backup.Planned{ID: id})
	}
	_, _, err := c.planner().CheckSchedule(c.Context(), c.draw(), others)
	c.outcome("check", "checked", err)
}
