package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// calendar is what of a schedule says when it runs.
type calendar struct {
	StartTime string       `json:"start_time"`
	TimeZone  string       `json:"time_zone"`
	OneTime   *api.OneTime `json:"one_time"`
	Daily     *api.Daily   `json:"daily"`
	Weekly    *api.Weekly  `json:"weekly"`
	Monthly   *api.Monthly `json:"monthly"`
}

var calendarAttributes = []string{"start_time", "time_zone", "one_time", "daily", "weekly", "monthly"}

// recurrence reads when the schedule runs that was given to a function. It is
// not known while one of the attributes that say so is not.
func recurrence(schedule types.Dynamic) (r backup.Recurrence, known bool, err error) {
	if schedule.IsUnknown() || schedule.IsUnderlyingValueUnknown() {
		return r, false, nil
	}
	object, ok := schedule.UnderlyingValue().(types.Object)
	if !ok {
		return r, false, wrong("schedule", `A schedule is an object, such as { start_time = "02:00", time_zone = "Asia/Tokyo", daily = {} }.`)
	}
	if err := onlyOfSchedule(object.Attributes()); err != nil {
		return r, false, err
	}
	given := map[string]any{}
	for _, name := range calendarAttributes {
		v, there := object.Attributes()[name]
		if !there {
			continue
		}
		plain, ok := plainOf(v)
		if !ok {
			return r, false, nil
		}
		if plain != nil {
			given[name] = plain
		}
	}
	c, err := calendarOf(given)
	if err != nil {
		return r, false, err
	}
	r, err = c.recurrence()
	return r, err == nil, err
}

// onlyOfSchedule refuses what no schedule has: mostly a slip of the pen.
func onlyOfSchedule(given map[string]attr.Value) error {
	valid := append(slices.Concat(sorted(scheduleWhat()), sorted(scheduleWhen()), sorted(scheduleHow())), "timeouts")
	for _, name := range sorted(given) {
		if !slices.Contains(valid, name) {
			return wrong(name, "A schedule has no attribute %q. When it runs is said by %s.", name, strings.Join(calendarAttributes, ", "))
		}
	}
	return nil
}

// plainOf is a value as JSON knows it; nulls are left out. It is false when a
// part of the value is not known.
func plainOf(v attr.Value) (plain any, known bool) {
	if v.IsUnknown() {
		return nil, false
	}
	if v.IsNull() {
		return nil, true
	}
	switch v := v.(type) {
	case types.Dynamic:
		return plainOf(v.UnderlyingValue())
	case types.String:
		return v.ValueString(), true
	case types.Bool:
		return v.ValueBool(), true
	case types.Number:
		return json.Number(decimal(v.ValueBigFloat())), true
	case types.Object:
		return plainFields(v.Attributes())
	case types.Map:
		return plainFields(v.Elements())
	case interface{ Elements() []attr.Value }:
		items := []any{}
		for _, e := range v.Elements() {
			item, known := plainOf(e)
			if !known {
				return nil, false
			}
			items = append(items, item)
		}
		return items, true
	}
	return v.String(), true
}

func plainFields(fields map[string]attr.Value) (any, bool) {
	out := map[string]any{}
	for name, f := range fields {
		plain, known := plainOf(f)
		if !known {
			return nil, false
		}
		if plain != nil {
			out[name] = plain
		}
	}
	return out, true
}

// decimal writes a number as it is, but one beyond any that a schedule has as
// one that is refused as well: it would take millions of digits.
func decimal(n *big.Float) string {
	if exponent := n.MantExp(nil); n.IsInf() || exponent > 256 || exponent < -256 {
		return "1e999"
	}
	return n.Text('f', -1)
}

// calendarOf reads plain values by the names and kinds that the contract has.
func calendarOf(given map[string]any) (c calendar, err error) {
	text, err := json.Marshal(given)
	if err != nil {
		return c, fmt.Errorf("read the schedule: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err = dec.Decode(&c)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return c, wrong(e.Field, "%s cannot be a %s.", e.Field, e.Value)
	}
	if err != nil {
		return c, wrong("schedule", "A schedule has no such attribute: %s.", strings.TrimPrefix(err.Error(), "json: unknown field "))
	}
	return c, nil
}

// recurrence is c in the domain's words, checked by the domain's rules.
func (c calendar) recurrence() (backup.Recurrence, error) {
	r := backup.Recurrence{TimeZone: c.TimeZone, Hour: -1}
	if c.StartTime != "" {
		t, err := time.Parse("15:04", c.StartTime)
		if err != nil || t.Minute() != 0 || len(c.StartTime) != len("15:04") {
			return r, wrong("start_time", `start_time is a whole hour from "00:00" to "23:00", got %q.`, c.StartTime)
		}
		r.Hour = t.Hour()
	}
	if err := c.days(&r); err != nil {
		return r, err
	}
	// What the domain checks is a schedule; only the calendar of this one counts.
	whole := backup.Schedule{Name: "function", VMID: "function", Recurrence: r}.Defaulted()
	return whole.Recurrence, whole.Validate(backup.ProfileGeneral)
}

// days reads the one kind of days that c has.
func (c calendar) days(r *backup.Recurrence) (err error) {
	kinds := 0
	if c.OneTime != nil {
		kinds, r.Kind = kinds+1, backup.OneTime
		r.Date, err = backup.ParseDate("one_time.date", c.OneTime.Date)
	}
	if c.Daily != nil {
		kinds, r.Kind = kinds+1, backup.Daily
		if c.Daily.StartDate != "" {
			r.Date, err = backup.ParseDate("daily.start_date", c.Daily.StartDate)
		}
	}
	if c.Weekly != nil {
		kinds, r.Kind = kinds+1, backup.Weekly
		for _, d := range c.Weekly.DaysOfWeek {
			day, unheard := place("weekly.days_of_week", string(d), daysOfWeek)
			r.Weekdays, err = append(r.Weekdays, time.Weekday(day)), errors.Join(err, unheard)
		}
	}
	if m := c.Monthly; m != nil {
		kinds, r.Kind = kinds+1, backup.Monthly
		err = errors.Join(err, monthDays(*m, r))
	}
	if err == nil && kinds != 1 {
		return wrong("schedule", "A schedule needs exactly one of one_time, daily, weekly and monthly, got %d of them.", kinds)
	}
	return err
}

func monthDays(m api.Monthly, r *backup.Recurrence) (err error) {
	r.MonthDays, r.LastDay = m.DaysOfMonth, m.LastDay
	if m.ShortMonths != "" {
		_, err = place("monthly.short_months", string(m.ShortMonths), []string{string(api.ShortMonthsSkip), string(api.ShortMonthsLastDay)})
		r.ShortLast = m.ShortMonths == api.ShortMonthsLastDay
	}
	w := m.WeekDayOfMonth
	if w == nil {
		return err
	}
	week, noWeek := place("monthly.week_day_of_month.week_of_month", string(w.WeekOfMonth), weeksOfMonth)
	day, noDay := place("monthly.week_day_of_month.day_of_week", string(w.DayOfWeek), daysOfWeek)
	if r.Nth, r.Weekday = week+1, time.Weekday(day); w.WeekOfMonth == api.WeekOfMonthLast {
		r.Nth = backup.Last
	}
	return errors.Join(err, noWeek, noDay)
}

// place is where a word stands among its kind.
func place(name, word string, among []string) (int, error) {
	if i := slices.Index(among, word); i >= 0 {
		return i, nil
	}
	return 0, wrong(name, "%s must be one of %s, got %q.", name, strings.Join(among, ", "), word)
}

func wrong(field, format string, args ...any) error {
	return backup.Errorf(backup.Invalid, field, format, args...)
}
