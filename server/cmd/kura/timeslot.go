package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type timeslotsCmd struct {
	VCenter  string `name:"vcenter" as:"NAME" help:"Of this vcenter; may be left out where there is one only."`
	From     string `as:"DATE" help:"First day, such as 2026-12-01; default today."`
	Days     int    `default:"7" help:"How many days, 400 at most."`
	TimeZone string `as:"ZONE" help:"Whose hours, such as Asia/Tokyo; default the vcenter's."`
	Who      bool   `help:"Also list the schedules that hold the seats."`
}

// Help is shown below the command's first line.
func (*timeslotsCmd) Help() string {
	return "One line a day, one cell an hour: the number is how many seats are free, the colour how full the hour is. NO_COLOR turns colours off.\n\n" +
		examples("kura timeslots", "kura timeslots --vcenter tokyo --from 2026-12-01 --days 31 --who", "kura timeslots --days 400 -o json")
}

// maxTimeslotDays is how far ahead the server counts seats.
const maxTimeslotDays = 400

// Run shows the hours of a vcenter.
func (l *timeslotsCmd) Run(ctx context.Context, s *session) error {
	if l.Days < 1 || l.Days > maxTimeslotDays {
		return usef("--days is 1 to %d, got %d.", maxTimeslotDays, l.Days)
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	v, err := l.vcenter(ctx, c)
	if err != nil {
		return err
	}
	loc, from, err := l.start(v, s.now())
	if err != nil {
		return err
	}
	p := api.ListTimeslotsParams{VCenterID: v.ID, From: from.UTC(), To: from.AddDate(0, 0, l.Days).UTC(), TimeZone: l.TimeZone, Who: l.Who, Limit: 1000}
	raw, err := collect(0, func(cursor string) (answer, error) {
		p.Cursor = cursor
		return c.ListTimeslotsWithResponse(ctx, &p)
	})
	if err != nil {
		return err
	}
	if s.cli.Output == "json" {
		return s.printJSON(map[string][]json.RawMessage{"items": raw})
	}
	slots := make([]api.Timeslot, len(raw))
	for i := range raw {
		if slots[i], err = decode[api.Timeslot](raw[i]); err != nil {
			return err
		}
		slots[i].StartsAt = slots[i].StartsAt.In(loc)
	}
	return s.showTimeslots(v, slots, l.Who)
}

// vcenter is the one that is named, or the only one.
func (l *timeslotsCmd) vcenter(ctx context.Context, c *api.ClientWithResponses) (api.VCenter, error) {
	if l.VCenter != "" {
		o, err := find(vcenterNoun(ctx, c), l.VCenter)
		if err != nil {
			return api.VCenter{}, err
		}
		return decode[api.VCenter](o.raw)
	}
	all, err := allVCenters(ctx, c)
	if err != nil {
		return api.VCenter{}, err
	}
	switch len(all) {
	case 0:
		return api.VCenter{}, hinted{failf("There is no vcenter yet."), "kura vcenter create adds one."}
	case 1:
		return decode[api.VCenter](all[0])
	}
	var known []string
	for _, raw := range all {
		o, err := newObject(raw)
		if err != nil {
			return api.VCenter{}, err
		}
		known = append(known, o.Name)
	}
	return api.VCenter{}, usef("There are %d vcenters: choose one with --vcenter. Known are %s.", len(known), strings.Join(known, ", "))
}

// start is the first midnight that is asked for, in the zone of the map. A
// given instant stands for its day.
func (l *timeslotsCmd) start(v api.VCenter, now time.Time) (*time.Location, time.Time, error) {
	zone := l.TimeZone
	if zone == "" {
		zone = v.TimeZone
	}
	loc, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		return nil, now, usef("--time-zone is an IANA name such as Asia/Tokyo, got %q.", zone)
	}
	day := now.In(loc)
	if l.From != "" {
		if day, err = time.ParseInLocation(time.DateOnly, l.From, loc); err != nil {
			if day, err = time.Parse(time.RFC3339, l.From); err != nil {
				return nil, now, usef("--from is a date such as 2026-12-01, got %q.", l.From)
			}
		}
	}
	y, m, d := day.In(loc).Date()
	return loc, time.Date(y, m, d, 0, 0, 0, 0, loc), nil
}

// showTimeslots prints the map and what is to be said below it.
func (s *session) showTimeslots(v api.VCenter, slots []api.Timeslot, who bool) error {
	if len(slots) == 0 {
		fmt.Fprintln(s.stderr, "No timeslots: hours that are over are not listed.")
		return nil
	}
	zone := slots[0].StartsAt.Location().String()
	fmt.Fprintf(s.stdout, "%s, %s: free seats of %d in each hour.\n", clean(v.Name), clean(zone), slots[0].Capacity)
	if _, err := fmt.Fprint(s.stdout, newHeatMap(slots, s.colour).draw()); err != nil {
		return err
	}
	tellOverBooked(s, slots)
	if !who {
		return nil
	}
	t := table{head: []string{"SLOT", "SEATS", "HELD BY"}}
	for _, slot := range slots {
		if len(slot.Schedules) == 0 {
			continue
		}
		holders := make([]string, len(slot.Schedules))
		for i, h := range slot.Schedules {
			holders[i] = fmt.Sprintf("%s (%d)", h.Name, h.Seats)
		}
		t.rows = append(t.rows, []string{slotName(slot.StartsAt), fmt.Sprintf("%d of %d", slot.Used, slot.Capacity), strings.Join(holders, ", ")})
	}
	if len(t.rows) == 0 {
		fmt.Fprintln(s.stdout, "\nNo schedule holds a seat of these hours.")
		return nil
	}
	fmt.Fprintln(s.stdout)
	return t.print(s.stdout)
}

func slotName(t time.Time) string { return t.Format("Mon 2006-01-02 15:04 -07:00") }

// tellOverBooked sums up the hours that hold more seats than there are.
func tellOverBooked(s *session, slots []api.Timeslot) {
	var first api.Timeslot
	n := 0
	for _, slot := range slots {
		if !slot.OverBooked {
			continue
		}
		if n++; n == 1 {
			first = slot
		}
	}
	if n > 0 {
		fmt.Fprintf(s.stdout, "Over-booked: %s, the first %s with %d seats of %d. Nothing is dropped: what is too much queues.\n",
			count(n, "hour"), slotName(first.StartsAt), first.Used, first.Capacity)
	}
}
