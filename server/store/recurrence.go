package store

import (
	"database/sql/driver"
	"encoding/json"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// recurrence is a schedule's calendar in a TEXT column. Its JSON is part of
// the schema: the names stay, whatever the domain calls its fields.
type recurrence struct{ r *backup.Recurrence }

type recurrenceRow struct {
	Kind      backup.RecurrenceKind `json:"kind"`
	TimeZone  string                `json:"time_zone"`
	Hour      int                   `json:"hour"`
	Date      string                `json:"date,omitempty"`
	Weekdays  []time.Weekday        `json:"weekdays,omitempty"` // 0 = Sunday
	MonthDays []int                 `json:"month_days,omitempty"`
	LastDay   bool                  `json:"last_day,omitempty"`
	Nth       int                   `json:"nth,omitempty"` // -1 = last
	Weekday   time.Weekday          `json:"weekday,omitempty"`
	ShortLast bool                  `json:"short_last,omitempty"`
}

func (c recurrence) Value() (driver.Value, error) {
	r := c.r
	b, err := json.Marshal(recurrenceRow{r.Kind, r.TimeZone, r.Hour, r.Date.String(), r.Weekdays, r.MonthDays, r.LastDay, r.Nth, r.Weekday, r.ShortLast})
	return string(b), err
}

func (c recurrence) Scan(src any) error {
	var row recurrenceRow
	if err := (asJSON{&row}).Scan(src); err != nil {
		return err
	}
	*c.r = backup.Recurrence{
		Kind: row.Kind, TimeZone: row.TimeZone, Hour: row.Hour, Weekdays: row.Weekdays, MonthDays: row.MonthDays,
		LastDay: row.LastDay, Nth: row.Nth, Weekday: row.Weekday, ShortLast: row.ShortLast,
	}
	if row.Date == "" {
		return nil
	}
	var err error
	c.r.Date, err = backup.ParseDate("date", row.Date)
	return err
}
