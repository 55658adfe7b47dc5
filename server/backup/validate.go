package backup

import (
	"slices"
	"time"
)

// Validate returns an [Invalid] error for the first field of s that no time,
// load or inventory could make right.
func (s Schedule) Validate(p RetentionProfile) error {
	if err := ValidName(s.Name); err != nil {
		return err
	}
	if (s.GroupID == "") == (s.VMID == "") {
		return Errorf(Invalid, "group_id", "A schedule backs up exactly one of group_id and virtual_machine_id.")
	}
	if err := s.Recurrence.validate(); err != nil {
		return err
	}
	for _, f := range []struct {
		name          string
		v, low, upper int
	}{
		{"window_hours", s.WindowHours, 1, 24},
		{"duration_hours", s.DurationHours, 1, 24},
		{"max_delay_hours", s.MaxDelayHours, 0, 168},
		{"start_window.earliest", s.EarliestHour, 0, 23},
		{"start_window.latest", s.LatestHour, 0, 23},
	} {
		if f.v < f.low || f.v > f.upper {
			return Errorf(Invalid, f.name, "%s must be %d to %d, got %d.", f.name, f.low, f.upper, f.v)
		}
	}
	if s.EarliestHour > s.LatestHour {
		return Errorf(Invalid, "start_window.earliest", "A start_window's earliest hour must not come after its latest, got %02d:00 and %02d:00.", s.EarliestHour, s.LatestHour)
	}
	if err := s.validChoices(); err != nil {
		return err
	}
	if err := p.Check("retention_days", s.Recurrence.Kind, s.RetentionDays); err != nil {
		return err
	}
	for _, e := range s.Extended {
		if err := e.validate(p, s.RetentionDays); err != nil {
			return err
		}
	}
	return s.validCopies(p)
}

func (s Schedule) validChoices() error {
	if !slices.Contains([]Consistency{ConsistencyCrash, ConsistencyApp, ConsistencyAppRequired, ConsistencyOffline}, s.Consistency) {
		return Errorf(Invalid, "consistency", "consistency must be crash, app, app_required or offline, got %q.", s.Consistency)
	}
	if s.Unprotectable != UnprotectedFail && s.Unprotectable != UnprotectedSkip {
		return Errorf(Invalid, "unprotectable_disks", "unprotectable_disks must be fail or skip, got %q.", s.Unprotectable)
	}
	if len(s.Disks.IncludeLabels) > 0 && len(s.Disks.ExcludeLabels) > 0 {
		return Errorf(Invalid, "disks", "Give include_labels or exclude_labels, not both.")
	}
	return nil
}

func (r Recurrence) validate() error {
	if _, err := r.Location(); err != nil {
		return err
	}
	if r.Hour < -1 || r.Hour > 23 {
		return Errorf(Invalid, "start_time", "start_time is a whole hour from 00:00 to 23:00, got %02d:00.", r.Hour)
	}
	switch r.Kind {
	case OneTime:
		if r.Date.IsZero() {
			return Errorf(Invalid, "one_time.date", "A one_time schedule needs its date.")
		}
	case Daily:
	case Weekly:
		if len(r.Weekdays) == 0 {
			return Errorf(Invalid, "weekly.days_of_week", "A weekly schedule needs at least one day of the week.")
		}
	case Monthly:
		if r.ShortLast && len(r.MonthDays) == 0 {
			return Errorf(Invalid, "short_months", "short_months goes with monthly.days_of_month only.")
		}
		return r.validDays("monthly")
	default:
		return Errorf(Invalid, "one_time", "A schedule needs exactly one of one_time, daily, weekly and monthly.")
	}
	return nil
}

// validDays checks the days of a month, of which exactly one form is given.
func (r Recurrence) validDays(field string) error {
	n := 0
	for _, set := range []bool{len(r.MonthDays) > 0, r.LastDay, r.Nth != 0} {
		if set {
			n++
		}
	}
	if n != 1 {
		return Errorf(Invalid, field, "Give exactly one of days_of_month, last_day and week_day_of_month.")
	}
	for _, d := range r.MonthDays {
		if d < 1 || d > 31 {
			return Errorf(Invalid, field+".days_of_month", "A day of the month is 1 to 31, got %d.", d)
		}
	}
	if r.Nth < Last || r.Nth > 5 {
		return Errorf(Invalid, field+".week_day_of_month", "week_of_month must be first, second, third, fourth, fifth or last.")
	}
	return nil
}

// timely refuses a one-time schedule whose slot has closed (seed N59).
func (r Recurrence) timely(now time.Time) error {
	if r.Kind != OneTime || r.Hour < 0 {
		return nil
	}
	loc, err := r.Location()
	if err != nil {
		return err
	}
	start, _ := Slot{r.Date, r.Hour}.Instant(loc)
	closes := start.Add(bookable)
	if now.Before(closes) {
		return nil
	}
	local := now.In(loc)
	next := Slot{DateOf(local), local.Hour()}
	if local.Minute() >= 55 {
		later := local.Add(time.Hour)
		next = Slot{DateOf(later), later.Hour()}
	}
	field := "start_time"
	if r.Date.Before(DateOf(local)) {
		field = "one_time.date"
	}
	return Errorf(SlotClosed, field, "Slot %s %s closed at %s. The next slot that can be booked is %s.",
		Slot{r.Date, r.Hour}, r.TimeZone, closes.In(loc).Format("2006-01-02 15:04 -07:00"), next)
}
