package backup

import (
	"strings"
	"testing"
	"time"
)

func TestADurationIsSuggestedByTheLongestBackup(t *testing.T) {
	kathmandu, err := time.LoadLocation("Asia/Kathmandu") // +05:45
	if err != nil {
		t.Fatal(err)
	}
	at := func(start string, took time.Duration) Image {
		s, err := time.Parse("15:04:05", start)
		if err != nil {
			t.Fatal(err)
		}
		s = s.AddDate(2026, 10, 22)
		return Image{StartedAt: s, EndedAt: s.Add(took)}
	}
	for name, c := range map[string]struct {
		images  []Image
		zone    *time.Location
		want    Measured
		warning string // of a schedule that books one hour
	}{
		"nothing was backed up":       {nil, time.UTC, Measured{}, ""},
		"a backup that did not end":   {[]Image{{StartedAt: time.Unix(1, 0)}}, time.UTC, Measured{}, ""},
		"it ends in its own hour":     {[]Image{at("13:05:00", 50*time.Minute)}, time.UTC, Measured{1, 50 * time.Minute, 50 * time.Minute, 1}, ""},
		"it ends when the hour does":  {[]Image{at("13:05:00", 55*time.Minute)}, time.UTC, Measured{1, 55 * time.Minute, 55 * time.Minute, 1}, ""},
		"it begins late in its hour":  {[]Image{at("13:45:00", 20*time.Minute)}, time.UTC, Measured{1, 20 * time.Minute, 20 * time.Minute, 2}, "The last backup took 20 min: duration_hours = 2"},
		"the zone's hours are others": {[]Image{at("13:45:00", 20*time.Minute)}, kathmandu, Measured{1, 20 * time.Minute, 20 * time.Minute, 1}, ""}, // 19:30 there
		"the longest counts": {[]Image{at("13:05:00", 20*time.Minute), at("13:10:30", 130*time.Minute), at("13:50:00", 30*time.Minute)}, time.UTC,
			Measured{3, 30 * time.Minute, 130 * time.Minute, 3}, "The longest of the last 3 backups took 2 h 10 min: duration_hours = 3 books the hours that it uses (now 1)."},
		"it takes days": {[]Image{at("13:00:00", 40*time.Hour)}, time.UTC, Measured{1, 40 * time.Hour, 40 * time.Hour, 24}, "took 40 h: duration_hours = 24"},
	} {
		t.Run(name, func(t *testing.T) {
			m := measure(c.images, c.zone)
			if m != c.want {
				t.Errorf("measure = %+v, want %+v", m, c.want)
			}
			got := m.warning(Schedule{DurationHours: 1})
			if !strings.Contains(got, c.warning) || (got == "") != (c.warning == "") {
				t.Errorf("warning = %q, want %q", got, c.warning)
			}
			if got := m.warning(Schedule{DurationHours: m.SuggestedHours}); got != "" {
				t.Errorf("warning of a schedule that books enough = %q, want none", got)
			}
		})
	}
}
