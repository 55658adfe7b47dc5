package backup

import (
	"fmt"
	"slices"
	"time"
)

// RetentionProfile says which retentions an installation allows.
type RetentionProfile string

// The profiles.
const (
	ProfileStandard RetentionProfile = "standard" // fixed choices per type (seed N31-N34)
	ProfileGeneral  RetentionProfile = "general"  // 1 to 65,536 days, or never (seed A42, A43)
)

const maxRetentionDays = 65536

// Choices lists the retentions in days that the profile allows for schedules
// of that kind, ascending; nil = any within its range.
func (p RetentionProfile) Choices(k RecurrenceKind) []int {
	if p == ProfileGeneral {
		return nil
	}
	steps := func(first, n int) []int {
		out := make([]int, n)
		for i := range out {
			out[i] = first * (i + 1)
		}
		return out
	}
	switch k {
	case OneTime:
		return []int{1, 31, 366}
	case Daily:
		return steps(1, 8)
	case Weekly:
		return steps(7, 8)
	case Monthly:
		return steps(31, 8)
	}
	return nil
}

// Check returns an [Invalid] error for field when the profile does not allow
// days for schedules of that kind. 0 days means never.
func (p RetentionProfile) Check(field string, k RecurrenceKind, days int) error {
	if c := p.Choices(k); c != nil {
		if slices.Contains(c, days) {
			return nil
		}
		return Errorf(Invalid, field, "A %s schedule keeps its images for %s days in the standard retention profile, got %d. Choose one of them, or start the server with --retention-profile general.",
			k, numbers(c), days)
	}
	if days < 0 || days > maxRetentionDays {
		return Errorf(Invalid, field, "%s must be 1 to %d days, or 0 for never, got %d.", field, maxRetentionDays, days)
	}
	return nil
}

func numbers(n []int) string {
	s := make([]string, len(n))
	for i, v := range n {
		s[i] = fmt.Sprint(v)
	}
	return series(s, "or")
}

// ExpiresAt returns when an image ends whose backup started then: whole days
// of 24 hours from the start (seed N52). 0 days gives the zero time, never.
func ExpiresAt(started time.Time, days int) time.Time {
	if days == 0 {
		return time.Time{}
	}
	return started.Add(time.Duration(days) * 24 * time.Hour)
}

// RetentionOn returns for how many days s keeps the images of the local day d:
// the longest of its retention and of the extended ones that name the day.
func (s Schedule) RetentionOn(d Date) int {
	days := s.RetentionDays
	for _, e := range s.Extended {
		if days != 0 && e.on(d) && (e.RetentionDays == 0 || e.RetentionDays > days) {
			days = e.RetentionDays
		}
	}
	return days
}

func (e ExtendedRetention) on(d Date) bool {
	if len(e.Weekdays) > 0 {
		return slices.Contains(e.Weekdays, d.Weekday())
	}
	return Recurrence{Kind: Monthly, MonthDays: e.MonthDays, LastDay: e.LastDay, Nth: e.Nth, Weekday: e.Weekday}.onMonthDay(d)
}

func (e ExtendedRetention) validate(p RetentionProfile, base int) error {
	const field = "extended_retention"
	n := 0
	for _, set := range []bool{len(e.Weekdays) > 0, len(e.MonthDays) > 0, e.LastDay, e.Nth != 0} {
		if set {
			n++
		}
	}
	if n != 1 {
		return Errorf(Invalid, field, "Each extended_retention names its days by exactly one of days_of_week, days_of_month, last_day and week_day_of_month.")
	}
	if err := (Recurrence{Kind: Monthly, MonthDays: e.MonthDays, Nth: e.Nth, Weekday: e.Weekday}).validDays(field); len(e.Weekdays) == 0 && !e.LastDay && err != nil {
		return err
	}
	if e.RetentionDays < 0 || e.RetentionDays > maxRetentionDays {
		return Errorf(Invalid, field, "retention_days of an extended_retention must be 1 to %d, or 0 for never, got %d.", maxRetentionDays, e.RetentionDays)
	}
	if p == ProfileStandard && e.RetentionDays == 0 {
		return Errorf(Invalid, field, "retention_days = 0 (never) needs the general retention profile.")
	}
	if e.RetentionDays != 0 && (base == 0 || e.RetentionDays <= base) {
		return Errorf(Invalid, field, "An extended_retention must keep images longer than retention_days, got %d.", e.RetentionDays)
	}
	return nil
}
