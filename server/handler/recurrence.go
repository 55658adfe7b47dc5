package handler

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// weekdays and weeks are the words of the contract at the place of their number.
var (
	weekdays = []api.DayOfWeek{api.DayOfWeekSunday, api.DayOfWeekMonday, api.DayOfWeekTuesday, api.DayOfWeekWednesday,
		api.DayOfWeekThursday, api.DayOfWeekFriday, api.DayOfWeekSaturday}
	weeks = []api.WeekOfMonth{api.WeekOfMonthFirst, api.WeekOfMonthSecond, api.WeekOfMonthThird, api.WeekOfMonthFourth, api.WeekOfMonthFifth}
)

func weekdayIn(d api.DayOfWeek) time.Weekday { return time.Weekday(slices.Index(weekdays, d)) }

func weekdayOut(d time.Weekday) api.DayOfWeek { return weekdays[d] }

func nthIn(w api.WeekOfMonth) int {
	if w == api.WeekOfMonthLast {
		return backup.Last
	}
	return slices.Index(weeks, w) + 1
}

func nthOut(n int) api.WeekOfMonth {
	if n == backup.Last {
		return api.WeekOfMonthLast
	}
	return weeks[n-1]
}

// hourIn reads "HH:00", which the contract has checked; absent is other.
func hourIn(s api.StartTime, other int) int {
	if len(s) < 2 {
		return other
	}
	h, err := strconv.Atoi(s[:2])
	if err != nil {
		return other
	}
	return h
}

func hourOut(h int) api.StartTime { return fmt.Sprintf("%02d:00", h) }

// recurrenceIn reads when s runs. Which of the types was given is the only
// thing that the domain cannot see, so it is checked here.
func recurrenceIn(s api.BackupSchedule) (backup.Recurrence, error) {
	r := backup.Recurrence{TimeZone: s.TimeZone, Hour: hourIn(s.StartTime, -1)}
	n := 0
	var err error
	if s.OneTime != nil {
		n, r.Kind = n+1, backup.OneTime
		r.Date, err = backup.ParseDate("one_time.date", s.OneTime.Date)
	}
	if s.Daily != nil {
		n, r.Kind = n+1, backup.Daily
		if s.Daily.StartDate != "" {
			r.Date, err = backup.ParseDate("daily.start_date", s.Daily.StartDate)
		}
	}
	if s.Weekly != nil {
		n, r.Kind = n+1, backup.Weekly
		r.Weekdays = each(s.Weekly.DaysOfWeek, weekdayIn)
	}
	if m := s.Monthly; m != nil {
		n, r.Kind = n+1, backup.Monthly
		r.MonthDays, r.LastDay, r.ShortLast = m.DaysOfMonth, m.LastDay, m.ShortMonths == api.ShortMonthsLastDay
		if w := m.WeekDayOfMonth; w != nil {
			r.Nth, r.Weekday = nthIn(w.WeekOfMonth), weekdayIn(w.DayOfWeek)
		}
	}
	if n != 1 {
		return r, backup.Errorf(backup.Invalid, "one_time", "A schedule needs exactly one of one_time, daily, weekly and monthly, got %d of them.", n)
	}
	return r, err
}

// recurrenceOut writes r into s.
func recurrenceOut(r backup.Recurrence, s *api.BackupSchedule) {
	s.TimeZone = r.TimeZone
	if r.Hour >= 0 {
		s.StartTime = hourOut(r.Hour)
	}
	switch r.Kind {
	case backup.OneTime:
		s.OneTime = &api.OneTime{Date: r.Date.String()}
	case backup.Daily:
		s.Daily = &api.Daily{StartDate: r.Date.String()}
	case backup.Weekly:
		s.Weekly = &api.Weekly{DaysOfWeek: each(r.Weekdays, weekdayOut)}
	case backup.Monthly:
		s.Monthly = &api.Monthly{DaysOfMonth: r.MonthDays, LastDay: r.LastDay, WeekDayOfMonth: weekDayOut(r.Nth, r.Weekday)}
		if len(r.MonthDays) > 0 {
			s.Monthly.ShortMonths = api.ShortMonthsSkip
		}
		if r.ShortLast {
			s.Monthly.ShortMonths = api.ShortMonthsLastDay
		}
	}
}

func weekDayOut(nth int, day time.Weekday) *api.WeekDayOfMonth {
	if nth == 0 {
		return nil
	}
	return &api.WeekDayOfMonth{WeekOfMonth: nthOut(nth), DayOfWeek: weekdayOut(day)}
}

func extendedIn(e api.ExtendedRetention) backup.ExtendedRetention {
	out := backup.ExtendedRetention{MonthDays: e.DaysOfMonth, LastDay: e.LastDay, RetentionDays: e.RetentionDays}
	if len(e.DaysOfWeek) > 0 {
		out.Weekdays = each(e.DaysOfWeek, weekdayIn)
	}
	if w := e.WeekDayOfMonth; w != nil {
		out.Nth, out.Weekday = nthIn(w.WeekOfMonth), weekdayIn(w.DayOfWeek)
	}
	return out
}

func extendedOut(e backup.ExtendedRetention) api.ExtendedRetention {
	return api.ExtendedRetention{
		DaysOfWeek: each(e.Weekdays, weekdayOut), DaysOfMonth: e.MonthDays, LastDay: e.LastDay,
		WeekDayOfMonth: weekDayOut(e.Nth, e.Weekday), RetentionDays: e.RetentionDays,
	}
}

func recommendationOf(r backup.Recommendation) api.Recommendation {
	out := api.Recommendation{Kind: api.RecommendationKind(r.Kind), StartTime: hourOut(r.Recurrence.Hour), FreeSeats: r.FreeSeats}
	switch rec := r.Recurrence; rec.Kind {
	case backup.OneTime:
		out.Date = rec.Date.String()
	case backup.Daily:
		out.StartDate = rec.Date.String()
	case backup.Weekly:
		out.DaysOfWeek = each(rec.Weekdays, weekdayOut)
	case backup.Monthly:
		out.DaysOfMonth, out.WeekDayOfMonth = rec.MonthDays, weekDayOut(rec.Nth, rec.Weekday)
	}
	return out
}
