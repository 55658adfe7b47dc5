package provider

import (
	"encoding/json"
	"math/big"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// FuzzCalendars: what is given to the functions for a schedule is refused, or
// can be described and expanded.
func FuzzCalendars(f *testing.F) {
	for _, s := range []string{
		`{"start_time":"02:00","time_zone":"Asia/Tokyo","daily":{}}`, `{"weekly":{"days_of_week":["monday",null,"x"]}}`, `{"monthly":{"week_day_of_month":{"week_of_month":"fifth","day_of_week":"sunday"}},"time_zone":"UTC"}`,
		`{"one_time":{"date":"2026-02-30"}}`, `{"monthly":{"days_of_month":[1e999]}}`, `{"monthly":{"days_of_month":[31],"short_months":"x"}}`, `{"start_time":"2:00","daily":null}`, `{"daily":[]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var given map[string]any
		if json.Unmarshal(text, &given) != nil {
			return
		}
		c, err := calendarOf(given)
		if err != nil {
			return
		}
		r, err := c.recurrence()
		if err != nil {
			if e := backup.AsError(err); e == nil || e.Code != backup.Invalid || e.Field == "" {
				t.Errorf("%s: %v", text, err)
			}
			return
		}
		if r.Describe() == "" {
			t.Errorf("%s is described by nothing", text)
		}
		_ = r.Next(time.Unix(1_800_000_000, 0), 3)
	})
}

// A number that a configuration can hold in a few characters is not written out
// in millions of them.
func TestAnImmenseNumberStaysShort(t *testing.T) {
	for _, text := range []string{"1e9999999", "-1e9999999", "1e-9999999", "1e999999999", "31", "0.5", "18446744073709551616"} {
		n, _, err := big.ParseFloat(text, 10, 512, big.ToNearestEven)
		if err != nil {
			t.Fatal(err)
		}
		if got := decimal(n); len(got) > 100 || !json.Valid([]byte(got)) {
			t.Errorf("%s is written as %.60s (%d characters)", text, got, len(got))
		}
	}
}
