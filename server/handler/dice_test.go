package handler_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// dice make choices of the bytes of a fuzzer: the same bytes, the same choices.
type dice []byte

// roll gives a number from 0 to n-1; without bytes that are left, 0.
func (d *dice) roll(n int) int {
	if len(*d) == 0 {
		return 0
	}
	v := int((*d)[0])
	*d = (*d)[1:]
	if n > 256 && len(*d) > 0 {
		v = v<<8 + int((*d)[0])
		*d = (*d)[1:]
	}
	return v % n
}

func pick[T any](d *dice, of ...T) T { return of[d.roll(len(of))] }

// some leaves out about half.
func some[T any](d *dice, of ...T) []T {
	out := []T{}
	for _, v := range of {
		if d.roll(2) == 1 {
			out = append(out, v)
		}
	}
	return out
}

// slip says whether to do something that is wrong.
func (d *dice) slip() bool { return d.roll(40) == 39 }

func (d *dice) hour() string { return fmt.Sprintf("%02d:00", d.roll(24)) }

func (d *dice) date() string {
	return time.Date(2026, 11, 28+d.roll(500), 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
}

func (d *dice) weekday() string {
	return pick(d, "sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
}

func (d *dice) nth() map[string]any {
	return map[string]any{"week_of_month": pick(d, "first", "second", "third", "fourth", "fifth", "last"), "day_of_week": d.weekday()}
}

func (d *dice) monthDays() []int {
	days := []int{}
	for range 1 + d.roll(3) {
		days = append(days, 1+(d.roll(40)+7*len(days))%31)
	}
	if d.slip() {
		days = append(days, pick(d, 0, 32, days[0]))
	}
	return days
}

// schedule is one in JSON. Nearly each is well formed; about half make sense.
func (d *dice) schedule() string {
	s := map[string]any{"name": pick(d, "s", "夜間", "a/b:run", strings.Repeat("n", 128))}
	if d.slip() {
		s["name"] = pick(d, "there", " s", "", "a\x00b")
	}
	d.what(s)
	d.when(s)
	d.how(s)
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // maps of plain values can be written
	}
	return string(text)
}

// what a schedule backs up.
func (d *dice) what(s map[string]any) {
	if d.roll(2) == 0 {
		s["group_id"] = "GROUP"
	} else {
		s["virtual_machine_id"] = pick(d, "VM", "VM2")
	}
	if d.slip() {
		s["group_id"] = pick(d, "GROUP", nobody, "")
	}
}

// when it runs.
func (d *dice) when(s map[string]any) {
	if d.roll(3) > 0 {
		s["start_time"] = d.hour()
	} else if d.roll(2) == 0 {
		first := d.roll(24)
		s["start_window"] = map[string]any{"earliest": fmt.Sprintf("%02d:00", first), "latest": fmt.Sprintf("%02d:00", first+d.roll(24-first))}
	}
	if d.slip() {
		s["start_window"] = map[string]any{pick(d, "earliest", "latest"): pick(d, "00:00", "24:00", "13:30", "12:00")}
	}
	if d.roll(3) > 0 {
		s["time_zone"] = pick(d, "UTC", "Asia/Tokyo", "America/New_York", "Australia/Lord_Howe", "Pacific/Chatham", "Africa/Cairo", "Africa/Casablanca",
			"America/Santiago", "Asia/Kolkata", "Asia/Kathmandu", "Pacific/Apia", "America/St_Johns", "Antarctica/Troll", "Asia/Gaza", "Europe/Dublin", "Etc/GMT+12")
	}
	switch d.roll(8) {
	case 0:
		s["one_time"], s["retention_days"] = map[string]any{"date": d.date()}, pick(d, 1, 31, 366)
	case 1, 2:
		s["daily"], s["retention_days"] = map[string]any{}, 1+d.roll(8)
	case 3:
		s["daily"], s["retention_days"] = map[string]any{"start_date": d.date()}, 1+d.roll(8)
	case 4, 5:
		s["weekly"], s["retention_days"] = map[string]any{"days_of_week": append(some(d, "saturday", "friday", "sunday"), "monday")}, 7*(1+d.roll(8))
	default:
		s["monthly"], s["retention_days"] = d.monthly(), 31*(1+d.roll(8))
	}
	if d.slip() {
		s["retention_days"] = pick(d, 0, 9, 65537)
	}
	if d.slip() {
		s["time_zone"] = pick(d, "Asia/Tokio", "Local", "")
	}
	if d.slip() {
		s["weekly"] = map[string]any{"days_of_week": some(d, "sunday", "sunday", "friday")}
	}
}

func (d *dice) monthly() map[string]any {
	m := map[string]any{}
	switch d.roll(4) {
	case 0:
		m["last_day"] = true
	case 1:
		m["week_day_of_month"] = d.nth()
	default:
		m["days_of_month"] = d.monthDays()
		if d.roll(2) == 1 {
			m["short_months"] = pick(d, "skip", "last_day")
		}
	}
	if d.slip() {
		m["last_day"] = d.roll(2) == 1
	}
	return m
}

// how it is made and kept.
func (d *dice) how(s map[string]any) {
	optional := map[int]func(){
		0: func() { s["window_hours"] = 1 + d.roll(25) },
		1: func() { s["duration_hours"] = 1 + d.roll(25) },
		2: func() { s["max_delay_hours"] = d.roll(169) },
		3: func() { s["enabled"] = d.roll(2) == 1 },
		4: func() { s["lock"], s["apply_retention_to_existing_images"] = d.roll(2) == 1, d.roll(2) == 1 },
		5: func() { s["consistency"] = pick(d, "crash", "app", "app_required", "offline") },
		6: func() { s["unprotectable_disks"] = pick(d, "fail", "skip") },
		7: func() { s["deletion_protection"] = d.roll(2) == 1 },
		8: func() { s["labels"] = map[string]any{pick(d, "tier", "", "日本"): pick(d, "gold", "", "=")} },
		9: func() {
			s["disks"] = map[string]any{pick(d, "include_labels", "exclude_labels"): some(d, "Hard disk 1", "Hard disk 2")}
		},
		10: func() { s["description"] = pick(d, "", "d", "two\nlines") },
		11: func() { s["extended_retention"] = []any{d.extended(), d.extended()}[:d.roll(3)] },
		12: func() { s["repository"] = pick(d, "default", "") },
	}
	for range d.roll(8) {
		optional[d.roll(len(optional))]()
	}
}

func (d *dice) extended() map[string]any {
	e := map[string]any{"retention_days": pick(d, 366, 62, 248, 7, 0)}
	switch d.roll(5) {
	case 0:
		e["days_of_week"] = append(some(d, "sunday", "saturday"), "monday")
	case 1:
		e["days_of_month"] = d.monthDays()
	case 2:
		e["week_day_of_month"] = d.nth()
	default:
		e["last_day"] = !d.slip()
	}
	return e
}
