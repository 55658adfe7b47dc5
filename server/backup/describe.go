package backup

import (
	"fmt"
	"strings"
	"time"
)

// Describe says r in a sentence without a full stop, such as "second Wednesday
// of each month, 02:00-03:00 Asia/Tokyo" (seed N35: an hour is named by both
// its ends).
func (r Recurrence) Describe() string {
	return fmt.Sprintf("%s, %s %s", r.days(), hours(r.Hour), r.TimeZone)
}

func hours(h int) string {
	if h < 0 {
		return "an hour of the server's choice"
	}
	return fmt.Sprintf("%02d:00-%02d:00", h, h+1)
}

func (r Recurrence) days() string {
	switch r.Kind {
	case OneTime:
		return "once on " + r.Date.String()
	case Daily:
		if r.Date.IsZero() {
			return "every day"
		}
		return "every day from " + r.Date.String()
	case Weekly:
		return "every " + weekdays(r.Weekdays)
	case Monthly:
		return r.monthDays()
	}
	return string(r.Kind)
}

func (r Recurrence) monthDays() string {
	switch {
	case r.LastDay:
		return "last day of each month"
	case r.Nth == Last:
		return fmt.Sprintf("last %s of each month", r.Weekday)
	case r.Nth > 0 && r.Nth <= len(ordinals):
		return fmt.Sprintf("%s %s of each month", ordinals[r.Nth-1], r.Weekday)
	}
	names := make([]string, len(r.MonthDays))
	for i, d := range r.MonthDays {
		names[i] = fmt.Sprint(d)
	}
	s := "day " + list(names) + " of each month"
	if r.ShortLast {
		s += " (the last day of a shorter one)"
	}
	return s
}

var ordinals = [...]string{"first", "second", "third", "fourth", "fifth"}

func weekdays(days []time.Weekday) string {
	names := make([]string, len(days))
	for i, d := range days {
		names[i] = d.String()
	}
	return list(names)
}

func list(s []string) string { return series(s, "and") }

// series joins words as one writes them: "a, b and c".
func series(s []string, last string) string {
	if len(s) < 2 {
		return strings.Join(s, "")
	}
	return strings.Join(s[:len(s)-1], ", ") + " " + last + " " + s[len(s)-1]
}
