package provider_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
)

// TestTimeslotsShowSeatsAndWhoHoldsThem lists two days in the zone of Kolkata,
// whose hours lie half an hour beside UTC, and all hours of 60 days, which take
// more than one page.
func TestTimeslotsShowSeatsAndWhoHoldsThem(t *testing.T) {
	kolkata, err := time.LoadLocation("Asia/Kolkata")
	if err != nil {
		t.Fatal(err)
	}
	y, m, d := time.Now().In(kolkata).AddDate(0, 0, 3).Date()
	from := time.Date(y, m, d, 0, 0, 0, 0, kolkata)
	config := seat(t, "a", "vm01", "start_time = \"02:00\"\ntime_zone = \"Asia/Kolkata\"\ndaily = {}\nretention_days = 1") +
		seat(t, "b", "vm02", fmt.Sprintf("start_time = \"02:00\"\ntime_zone = \"Asia/Kolkata\"\none_time = { date = %q }\nretention_days = 1", from.Format(time.DateOnly)))
	look := func(name, body string) string {
		return fmt.Sprintf("data \"kura_timeslots\" %q {\n  vcenter_id = %q\n  depends_on = [kura_backup_schedule.a, kura_backup_schedule.b]\n%s\n}\n", name, house.tight.ID, body)
	}
	config += look("two", fmt.Sprintf("time_zone = \"Asia/Kolkata\"\nfrom = %q\ndays = 2\nwho = true", from.Format(time.RFC3339))) +
		look("day", fmt.Sprintf("from = %q\nto = %q", from.Format(time.RFC3339), from.Add(24*time.Hour).Format(time.RFC3339))) +
		look("many", "days = 60") + look("usual", "")
	at := func(name string, pairs ...string) (checks []resource.TestCheckFunc) {
		for i := 0; i < len(pairs); i += 2 {
			checks = append(checks, resource.TestCheckResourceAttr("data.kura_timeslots."+name, pairs[i], pairs[i+1]))
		}
		return checks
	}
	full, busy := "slots.2.", "slots.26."
	checks := at("two", "slots.#", "48", "time_zone", "Asia/Kolkata",
		full+"starts_at", from.Add(2*time.Hour).Format(time.RFC3339), full+"date", from.Format(time.DateOnly), full+"start_time", "02:00",
		full+"capacity", "2", full+"used", "2", full+"free", "0", full+"recommended", "false", full+"over_booked", "false",
		full+"schedules.#", "2", full+"schedules.0.name", "a", full+"schedules.1.name", "b", full+"schedules.1.seats", "1",
		busy+"used", "1", busy+"free", "1", busy+"schedules.#", "1", "slots.0.schedules.#", "0", "slots.0.recommended", "true",
		"recommended.%", "2", "recommended."+from.Format(time.DateOnly), "00:00",
		"free_at.%", "24", "free_at.02:00", "0", "free_at.00:00", "2", "best_start_time", "00:00", "over_booked_hours", "0")
	// The UTC hours that the seats of 02:00 straddle are those of 01:00 and 03:00 too.
	checks = append(checks, at("two", "full_hours", "3", "slots.1.free", "0", "slots.3.free", "0", "slots.4.free", "2")...)
	checks = append(checks, at("day", "slots.#", "24", "time_zone", "UTC")...)
	checks = append(checks, resource.TestCheckNoResourceAttr("data.kura_timeslots.day", "slots.0.schedules.#"))
	for name, hours := range map[string]int{"usual": 7 * 24, "many": 60 * 24} {
		checks = append(checks, at(name, "slots.#", fmt.Sprint(hours))...)
	}
	apply(t, resource.TestStep{Config: config, Check: resource.ComposeAggregateTestCheckFunc(checks...)})
}

// TestTimeslotsThatCannotBeListedAreRefused shows whose fault it is.
func TestTimeslotsThatCannotBeListedAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"no such vcenter":       {`vcenter_id = "attic"`, `Code not_found`},
		"to and days":           {"vcenter_id = \"v\"\ndays = 1\nto = \"2027-01-01T00:00:00Z\"", `cannot be specified when`},
		"too many days":         {"vcenter_id = \"v\"\ndays = 401", `must be between 1 and 400`},
		"no such zone":          {"vcenter_id = \"v\"\ntime_zone = \"Mars\"", `"Mars" is not an IANA time zone.`},
		"a time that is none":   {"vcenter_id = \"v\"\nfrom = \"tomorrow\"", `RFC3339`},
		"an end that is before": {fmt.Sprintf("vcenter_id = %q\nto = \"2020-01-01T00:00:00Z\"", house.tight.ID), `must come after`},
		"an end past horizon":   {fmt.Sprintf("vcenter_id = %q\nto = \"2099-01-01T00:00:00Z\"", house.tight.ID), `Seats are counted 400 days ahead`},
		"days past the horizon": {fmt.Sprintf("vcenter_id = %q\nfrom = %q\ndays = 400", house.tight.ID, time.Now().AddDate(0, 1, 0).Format(time.RFC3339)), `Code invalid`},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, resource.TestStep{Config: "data \"kura_timeslots\" \"t\" {\n" + c.body + "\n}\n", ExpectError: words(c.want)})
		})
	}
}

// TestAScheduleTakesTheEmptiestHourOfTheTimeslots chooses the hour of a daily
// schedule by what is free on every day, and the plan knows it.
func TestAScheduleTakesTheEmptiestHourOfTheTimeslots(t *testing.T) {
	apply(t, resource.TestStep{
		Config: fmt.Sprintf("data \"kura_timeslots\" \"t\" {\n  vcenter_id = %q\n  days = 14\n}\n", house.tight.ID) +
			seat(t, "t", "vm01", "start_time = data.kura_timeslots.t.best_start_time\ndaily = {}\nretention_days = 1\nlifecycle { ignore_changes = [start_time] }") + `
output "hour" {
  value = data.kura_timeslots.t.best_start_time
}
`,
		ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectKnownOutputValue("hour", knownvalue.StringExact("00:00"))}},
		Check:            resource.TestCheckResourceAttr("kura_backup_schedule.t", "start_time", "00:00"),
		// With a seat less the hour is no longer the emptiest; the schedule keeps it.
		ExpectNonEmptyPlan: true,
	})
}
