package backup_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// zones have gaps and doubled hours of an hour and of half an hour, quarter
// hour offsets, both hemispheres, and changes that come and go.
var zones = []string{"UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Pacific/Chatham",
	"Africa/Cairo", "Africa/Casablanca", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Asia/Gaza", "Pacific/Apia", "Europe/Dublin"}

func day(t testing.TB, s string) backup.Date {
	t.Helper()
	d, err := backup.ParseDate("date", s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func starts(occurrences []backup.Occurrence) []string {
	var out []string
	for _, o := range occurrences {
		out = append(out, o.Start.Format("2006-01-02 15:04 -0700"))
	}
	return out
}

// seed:N22 seed:N24 seed:N32 seed:N36 seed:N37
func TestNextOccurrences(t *testing.T) {
	tests := map[string]struct {
		r    backup.Recurrence
		from string
		want []string
	}{
		"one_time runs once": {
			backup.Recurrence{Kind: backup.OneTime, TimeZone: "Asia/Tokyo", Hour: 2, Date: backup.Date{Year: 2026, Month: 12, Day: 1}},
			"2026-11-30T00:00:00Z", []string{"2026-12-01 02:00 +0900"}},
		"daily waits for its start date": {
			backup.Recurrence{Kind: backup.Daily, TimeZone: "UTC", Hour: 23, Date: backup.Date{Year: 2027, Month: 2, Day: 28}},
			"2026-01-01T00:00:00Z", []string{"2027-02-28 23:00 +0000", "2027-03-01 23:00 +0000", "2027-03-02 23:00 +0000"}},
		"weekly on two days": {
			backup.Recurrence{Kind: backup.Weekly, TimeZone: "UTC", Hour: 0, Weekdays: []time.Weekday{time.Sunday, time.Wednesday}},
			"2026-11-23T00:00:00Z", []string{"2026-11-25 00:00 +0000", "2026-11-29 00:00 +0000", "2026-12-02 00:00 +0000"}},
		"day 31 skips the short months": {
			backup.Recurrence{Kind: backup.Monthly, TimeZone: "UTC", Hour: 1, MonthDays: []int{31}},
			"2027-01-31T02:00:00Z", []string{"2027-03-31 01:00 +0000", "2027-05-31 01:00 +0000", "2027-07-31 01:00 +0000"}},
		"day 31 falls on the last day where that is asked for": {
			backup.Recurrence{Kind: backup.Monthly, TimeZone: "UTC", Hour: 1, MonthDays: []int{31}, ShortLast: true},
			"2027-01-31T02:00:00Z", []string{"2027-02-28 01:00 +0000", "2027-03-31 01:00 +0000", "2027-04-30 01:00 +0000"}},
		"29 February waits for a leap year": {
			backup.Recurrence{Kind: backup.Monthly, TimeZone: "UTC", Hour: 1, MonthDays: []int{29}},
			"2027-01-30T00:00:00Z", []string{"2027-03-29 01:00 +0000", "2027-04-29 01:00 +0000", "2027-05-29 01:00 +0000"}},
		"fifth Wednesday": {
			backup.Recurrence{Kind: backup.Monthly, TimeZone: "UTC", Hour: 5, Nth: 5, Weekday: time.Wednesday},
			"2026-01-01T00:00:00Z", []string{"2026-04-29 05:00 +0000", "2026-07-29 05:00 +0000", "2026-09-30 05:00 +0000"}},
		"last Friday": {
			backup.Recurrence{Kind: backup.Monthly, TimeZone: "UTC", Hour: 5, Nth: backup.Last, Weekday: time.Friday},
			"2026-01-01T00:00:00Z", []string{"2026-01-30 05:00 +0000", "2026-02-27 05:00 +0000", "2026-03-27 05:00 +0000"}},
		"last day": {
			backup.Recurrence{Kind: backup.Monthly, TimeZone: "UTC", Hour: 5, LastDay: true},
			"2028-02-01T00:00:00Z", []string{"2028-02-29 05:00 +0000", "2028-03-31 05:00 +0000", "2028-04-30 05:00 +0000"}},
		"the hour that daylight saving skips runs at the next that exists": {
			backup.Recurrence{Kind: backup.Daily, TimeZone: "Europe/Berlin", Hour: 2},
			"2026-03-28T00:00:00Z", []string{"2026-03-28 02:00 +0100", "2026-03-29 03:00 +0200", "2026-03-30 02:00 +0200"}},
		"the hour that occurs twice runs once, in the first": {
			backup.Recurrence{Kind: backup.Daily, TimeZone: "Europe/Berlin", Hour: 2},
			"2026-10-23T23:00:00Z", []string{"2026-10-24 02:00 +0200", "2026-10-25 02:00 +0200", "2026-10-26 02:00 +0100"}},
		"a half-hour gap": {
			backup.Recurrence{Kind: backup.Daily, TimeZone: "Australia/Lord_Howe", Hour: 2},
			"2026-10-03T00:00:00Z", []string{"2026-10-04 02:30 +1100", "2026-10-05 02:00 +1100", "2026-10-06 02:00 +1100"}},
		"a gap at midnight": {
			backup.Recurrence{Kind: backup.Daily, TimeZone: "America/Santiago", Hour: 0},
			"2026-09-05T12:00:00Z", []string{"2026-09-06 01:00 -0300", "2026-09-07 00:00 -0300", "2026-09-08 00:00 -0300"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			from, err := time.Parse(time.RFC3339, tt.from)
			if err != nil {
				t.Fatal(err)
			}
			if got := starts(tt.r.Next(from, 3)); !slices.Equal(got, tt.want) {
				t.Errorf("%s from %s:\n got %q\nwant %q", tt.r.Describe(), tt.from, got, tt.want)
			}
		})
	}
}

// TestInstantAgreesWithAWalk finds each slot's instant by walking over every
// quarter hour of five years, which cannot be wrong, and compares.
func TestInstantAgreesWithAWalk(t *testing.T) {
	for _, name := range zones {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			loc, err := time.LoadLocation(name)
			if err != nil {
				t.Fatal(err)
			}
			first := map[backup.Slot]time.Time{} // the first instant that shows the slot's local time
			begin := time.Date(2024, 12, 30, 0, 0, 0, 0, time.UTC)
			var prev backup.Slot
			var prevWall, gaps = time.Time{}, map[backup.Slot]time.Time{}
			for u := begin; u.Before(begin.AddDate(5, 0, 6)); u = u.Add(15 * time.Minute) {
				l := u.In(loc)
				s := backup.Slot{Date: backup.DateOf(l), Hour: l.Hour()}
				wall := time.Date(l.Year(), l.Month(), l.Day(), l.Hour(), l.Minute(), 0, 0, time.UTC)
				if l.Minute() == 0 {
					if _, seen := first[s]; !seen {
						first[s] = u
					}
				}
				if s != prev && !prevWall.IsZero() { // the hours that the clock jumped over begin here
					for w := prevWall.Truncate(time.Hour).Add(time.Hour); !w.After(wall); w = w.Add(time.Hour) {
						g := backup.Slot{Date: backup.DateOf(w), Hour: w.Hour()}
						if _, seen := gaps[g]; !seen {
							gaps[g] = u
						}
					}
				}
				prev, prevWall = s, wall
			}
			for d := (backup.Date{Year: 2025, Month: 1, Day: 1}); d.Year < 2030; d = d.AddDays(1) {
				for h := range 24 {
					s := backup.Slot{Date: d, Hour: h}
					want, ok := first[s]
					if !ok {
						want = gaps[s]
					}
					if got, clock := s.Instant(loc); !got.Equal(want) || (clock == backup.Gap) == ok {
						t.Fatalf("%s in %s: got %s (clock %d), want %s", s, name, got.UTC(), clock, want)
					}
				}
			}
		})
	}
}

// TestEachDayRunsOnce: whatever the zone, a daily schedule has one run a day,
// in ascending order, and nothing lies outside the interval asked for.
func TestEachDayRunsOnce(t *testing.T) {
	for _, zone := range zones {
		for hour := range 24 {
			r := backup.Recurrence{Kind: backup.Daily, TimeZone: zone, Hour: hour}
			from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rand.IntN(1e6)) * time.Second)
			to := from.AddDate(1, 0, 0)
			seen, last := map[backup.Date]bool{}, from
			for o := range r.Between(from, to) {
				if !o.Start.After(last) || o.Start.After(to) || seen[o.Slot.Date] {
					t.Fatalf("%s %02d:00: %s after %s", zone, hour, o.Start, last)
				}
				seen[o.Slot.Date], last = true, o.Start
			}
			if n := len(seen); n < 364 || n > 366 {
				t.Errorf("%s %02d:00: %d runs in a year", zone, hour, n)
			}
		}
	}
}

// seed:N36
func TestSkippedMonths(t *testing.T) {
	r := backup.Recurrence{Kind: backup.Monthly, TimeZone: "UTC", Hour: 1, MonthDays: []int{31}}
	var got []string
	for _, d := range r.SkippedMonths(day(t, "2026-11-23")) {
		got = append(got, d.Month.String())
	}
	want := []string{"November", "February", "April", "June", "September"}
	if !slices.Equal(got, want) {
		t.Errorf("months without a 31st from November 2026: got %v, want %v", got, want)
	}
	r.ShortLast = true
	if got := r.SkippedMonths(day(t, "2026-11-23")); len(got) != 0 {
		t.Errorf("with short_months = last_day: got %v, want none", got)
	}
}

// seed:N35
func TestDescribe(t *testing.T) {
	tests := map[string]backup.Recurrence{
		"once on 2026-12-01, 23:00-24:00 Asia/Tokyo":                                {Kind: backup.OneTime, TimeZone: "Asia/Tokyo", Hour: 23, Date: backup.Date{Year: 2026, Month: 12, Day: 1}},
		"every day, 00:00-01:00 UTC":                                                {Kind: backup.Daily, TimeZone: "UTC"},
		"every Monday and Friday, 02:00-03:00 UTC":                                  {Kind: backup.Weekly, TimeZone: "UTC", Hour: 2, Weekdays: []time.Weekday{1, 5}},
		"second Wednesday of each month, 02:00-03:00 Asia/Tokyo":                    {Kind: backup.Monthly, TimeZone: "Asia/Tokyo", Hour: 2, Nth: 2, Weekday: time.Wednesday},
		"last Sunday of each month, 02:00-03:00 UTC":                                {Kind: backup.Monthly, TimeZone: "UTC", Hour: 2, Nth: backup.Last},
		"day 1, 15 and 31 of each month, 02:00-03:00 UTC":                           {Kind: backup.Monthly, TimeZone: "UTC", Hour: 2, MonthDays: []int{1, 15, 31}},
		"last day of each month, 02:00-03:00 UTC":                                   {Kind: backup.Monthly, TimeZone: "UTC", Hour: 2, LastDay: true},
		"day 30 of each month (the last day of a shorter one), 02:00-03:00 UTC":     {Kind: backup.Monthly, TimeZone: "UTC", Hour: 2, MonthDays: []int{30}, ShortLast: true},
		"every day from 2026-12-24, an hour of the server's choice Pacific/Chatham": {Kind: backup.Daily, TimeZone: "Pacific/Chatham", Hour: -1, Date: backup.Date{Year: 2026, Month: 12, Day: 24}},
	}
	for want, r := range tests {
		if got := r.Describe(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzOccurrences compares the calendar with a walk over every quarter hour of
// the weeks that follow an instant. (Until 2012 some clocks changed at one past.)
func FuzzOccurrences(f *testing.F) {
	f.Add(uint8(3), uint8(2), uint8(31), int64(1_800_000_000))
	f.Add(uint8(1), uint8(0), uint8(5), int64(1_775_000_000))
	f.Add(uint8(1), uint8(2), uint8(6), int64(1_790_900_000))
	f.Add(uint8(5), uint8(23), uint8(19), int64(1_830_300_000))
	f.Fuzz(func(t *testing.T, kind, hour, pick uint8, at int64) {
		r := backup.Recurrence{TimeZone: zones[int(pick)%len(zones)], Hour: int(hour) % 24}
		from := time.Unix(1_360_000_000+int64(uint64(at)%2_500_000_000), 0)
		switch kind % 7 {
		case 0:
			r.Kind, r.Date = backup.OneTime, backup.DateOf(from.AddDate(0, 0, int(pick%40)))
		case 1:
			r.Kind = backup.Daily
			if pick%2 == 0 {
				r.Date = backup.DateOf(from.AddDate(0, 0, int(pick%40)-20))
			}
		case 2:
			r.Kind, r.Weekdays = backup.Weekly, []time.Weekday{time.Weekday(pick % 7)}
			if kind > 127 && pick%7 < 4 {
				r.Weekdays = append(r.Weekdays, time.Weekday(pick%7+3))
			}
		case 3:
			r.Kind, r.MonthDays, r.ShortLast = backup.Monthly, []int{1 + int(pick)%31}, kind > 127
		case 4:
			r.Kind, r.Nth, r.Weekday = backup.Monthly, 1+int(pick)%5, time.Weekday(pick%7)
		case 5:
			r.Kind, r.LastDay = backup.Monthly, true
		case 6:
			r.Kind, r.Nth, r.Weekday = backup.Monthly, backup.Last, time.Weekday(pick%7)
		}
		to := from.AddDate(0, 0, 45)
		var want, got []string
		for _, b := range walk(t, r.TimeZone, from.AddDate(0, 0, -3), to)[r.Hour] {
			if b.at.After(from) && due(r, b.day) {
				want = append(want, b.day.String()+" "+b.at.Format(time.RFC3339))
			}
		}
		for o := range r.Between(from, to) {
			if o.Slot.Hour != r.Hour {
				t.Fatalf("%s: got the slot %s", r.Describe(), o.Slot)
			}
			got = append(got, o.Slot.Date.String()+" "+o.Start.UTC().Format(time.RFC3339))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s from %s:\n got %q\nwant %q", r.Describe(), from.UTC(), got, want)
		}
	})
}
