package backup

import (
	"fmt"
	"time"
)

// Date is a calendar day without a zone. Its zero value is no day.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// DateOf returns the day of t in t's own location.
func DateOf(t time.Time) Date {
	y, m, d := t.Date()
	return Date{y, m, d}
}

// ParseDate reads YYYY-MM-DD. The error is [Invalid] for field.
func ParseDate(field, s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return Date{}, Errorf(Invalid, field, "A date is written YYYY-MM-DD and must exist, got %q.", s)
	}
	return DateOf(t), nil
}

// IsZero says whether d is no day.
func (d Date) IsZero() bool { return d == Date{} }

// AddDays returns the day n days after d.
func (d Date) AddDays(n int) Date { return DateOf(d.noon().AddDate(0, 0, n)) }

// Weekday returns the day of the week of d.
func (d Date) Weekday() time.Weekday { return d.noon().Weekday() }

// Before says whether d is an earlier day than e.
func (d Date) Before(e Date) bool { return d.noon().Before(e.noon()) }

// DaysSince returns how many days lie between e and d.
func (d Date) DaysSince(e Date) int { return int(d.noon().Sub(e.noon()) / (24 * time.Hour)) }

// String returns d as YYYY-MM-DD, "" for no day.
func (d Date) String() string {
	if d.IsZero() {
		return ""
	}
	return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day)
}

func (d Date) noon() time.Time { return time.Date(d.Year, d.Month, d.Day, 12, 0, 0, 0, time.UTC) }

// LastDay returns the last day of the given month.
func LastDay(year int, month time.Month) Date {
	return DateOf(time.Date(year, month+1, 0, 12, 0, 0, 0, time.UTC))
}

// Slot is one hour of one day.
type Slot struct {
	Date Date
	Hour int // 0 to 23
}

// String returns s as "YYYY-MM-DD HH:00".
func (s Slot) String() string { return fmt.Sprintf("%s %02d:00", s.Date, s.Hour) }

// Resolution says what the clock does at a slot's local time.
type Resolution uint8

// The resolutions.
const (
	Plain Resolution = iota
	Gap              // the local time does not exist: the instant is the first after the gap
	Twice            // the local time occurs twice: the instant is the first
)

// Instant returns when the slot begins in loc. A local time that daylight
// saving skips gives the first instant after the gap; one that occurs twice
// gives the first.
func (s Slot) Instant(loc *time.Location) (time.Time, Resolution) {
	t := time.Date(s.Date.Year, s.Date.Month, s.Date.Day, s.Hour, 0, 0, 0, loc)
	_, off := t.Zone()
	wall := time.Date(s.Date.Year, s.Date.Month, s.Date.Day, s.Hour, 0, 0, 0, time.UTC).Unix()
	start, end := t.ZoneBounds()
	if got := t.Unix() + int64(off); got != wall {
		if got > wall {
			return start, Gap
		}
		return end, Gap
	}
	if !start.IsZero() {
		_, before := start.Add(-time.Second).Zone()
		if first := time.Unix(wall-int64(before), 0); first.Before(start) {
			return first.In(loc), Twice
		}
	}
	if !end.IsZero() {
		_, after := end.Zone()
		if second := time.Unix(wall-int64(after), 0); !second.Before(end) {
			return t, Twice
		}
	}
	return t, Plain
}
