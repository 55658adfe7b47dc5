package provider_test

import (
	"fmt"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/tfversion"
)

// call evaluates expressions without a server: the provider of this
// configuration is not even configured.
func call(t *testing.T, config string, outputs map[string]knownvalue.Check) {
	t.Helper()
	var checks []plancheck.PlanCheck
	for name, expression := range outputs {
		checks = append(checks, plancheck.ExpectKnownOutputValue(name, expression))
	}
	resource.Test(t, resource.TestCase{
		TerraformVersionChecks:   []tfversion.TerraformVersionCheck{tfversion.RequireAbove(tfversion.Version1_8_0)},
		ProtoV6ProviderFactories: factories,
		Steps:                    []resource.TestStep{{Config: config, ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: checks}}},
	})
}

func output(name, value string) string {
	return fmt.Sprintf("output %q {\n  value = %s\n}\n", name, value)
}

func texts(s ...string) knownvalue.Check {
	all := make([]knownvalue.Check, len(s))
	for i, v := range s {
		all[i] = knownvalue.StringExact(v)
	}
	return knownvalue.ListExact(all)
}

// TestFunctionsKnowTheServersCalendar evaluates schedules of each kind, in
// zones with daylight saving, without any server.
//
// seed:N24 seed:N30 seed:N36 seed:N52
func TestFunctionsKnowTheServersCalendar(t *testing.T) {
	t.Setenv("KURA_ENDPOINT", "")
	t.Setenv("KURA_TOKEN", "")
	config, want := "", map[string]knownvalue.Check{}
	add := func(name, expression string, check knownvalue.Check) {
		config += output(name, "provider::kura::"+expression)
		want[name] = check
	}
	const tokyo, berlin = `time_zone = "Asia/Tokyo", start_time = "02:00", `, `time_zone = "Europe/Berlin", start_time = "02:00", `
	add("nth", `describe_schedule({ `+tokyo+`monthly = { week_day_of_month = { week_of_month = "second", day_of_week = "wednesday" } } })`,
		knownvalue.StringExact("second Wednesday of each month, 02:00-03:00 Asia/Tokyo"))
	add("last", `expand_schedule({ `+tokyo+`monthly = { week_day_of_month = { week_of_month = "last", day_of_week = "friday" } } }, "2026-12-01", 2)`,
		texts("2026-12-25T02:00:00+09:00", "2027-01-29T02:00:00+09:00"))
	add("chosen", `describe_schedule({ time_zone = "UTC", daily = {} })`, knownvalue.StringExact("every day, an hour of the server's choice UTC"))
	add("gap", `expand_schedule({ `+berlin+`daily = {} }, "2027-03-27", 3)`,
		texts("2027-03-27T02:00:00+01:00", "2027-03-28T03:00:00+02:00", "2027-03-29T02:00:00+02:00"))
	add("twice", `expand_schedule({ `+berlin+`weekly = { days_of_week = ["sunday"] } }, "2027-10-31T00:00:00Z", 1)`, texts("2027-10-31T02:00:00+02:00"))
	add("from_is_in", `expand_schedule({ `+tokyo+`daily = { start_date = "2026-12-05" } }, "2026-12-05T02:00:00+09:00", 1)`, texts("2026-12-05T02:00:00+09:00"))
	add("skips", `expand_schedule({ `+tokyo+`monthly = { days_of_month = [31] } }, "2027-01-31", 2)`, texts("2027-01-31T02:00:00+09:00", "2027-03-31T02:00:00+09:00"))
	add("short", `expand_schedule({ `+tokyo+`monthly = { days_of_month = toset([31]), short_months = "last_day" } }, "2027-02-01", 1)`, texts("2027-02-28T02:00:00+09:00"))
	add("last_day", `expand_schedule({ `+tokyo+`monthly = { last_day = true, short_months = null } }, "2028-02-01", 1)`, texts("2028-02-29T02:00:00+09:00"))
	add("once", `expand_schedule({ `+tokyo+`one_time = { date = "2026-12-24" }, name = "kept for later", labels = { a = "b" } }, "2026-12-01", 5)`, texts("2026-12-24T02:00:00+09:00"))
	add("over", `expand_schedule({ `+tokyo+`one_time = { date = "2026-12-24" } }, "2026-12-25", 5)`, texts())
	add("kept", `compute_expiry("2026-12-01T02:00:00+09:00", 31)`, knownvalue.StringExact("2027-01-01T02:00:00+09:00"))
	add("for_ever", `compute_expiry("2026-12-01T02:00:00Z", 0)`, knownvalue.Null())
	call(t, config, want)
}

// TestFunctionsTakeAWholeSchedule passes resources as they are, also while the
// plan does not know all of them.
func TestFunctionsTakeAWholeSchedule(t *testing.T) {
	days := "start_time = \"20:00\"\ntime_zone = \"Asia/Tokyo\"\nmonthly = { days_of_month = [1, 15] }\nretention_days = 31\n"
	config := seat(t, "t", "vm01", days) + seat(t, "open", "vm01", "start_window = { earliest = \"21:00\", latest = \"21:00\" }\ndaily = {}\nretention_days = 1") +
		output("words", "provider::kura::describe_schedule(kura_backup_schedule.t)") +
		output("starts", `provider::kura::expand_schedule(kura_backup_schedule.t, "2026-12-01", 2)`) +
		output("later", "provider::kura::describe_schedule(kura_backup_schedule.open)")
	apply(t, resource.TestStep{
		Config: config,
		ConfigPlanChecks: resource.ConfigPlanChecks{
			PreApply: []plancheck.PlanCheck{
				plancheck.ExpectKnownOutputValue("words", knownvalue.StringExact("day 1 and 15 of each month, 20:00-21:00 Asia/Tokyo")),
				plancheck.ExpectKnownOutputValue("starts", texts("2026-12-01T20:00:00+09:00", "2026-12-15T20:00:00+09:00")),
				plancheck.ExpectUnknownOutputValue("later"),
			},
			PostApplyPostRefresh: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()},
		},
		Check: resource.TestCheckOutput("later", "every day, 21:00-22:00 UTC"),
	})
}

// TestFunctionsSayWhatIsWrong shows which argument is at fault, and why.
func TestFunctionsSayWhatIsWrong(t *testing.T) {
	const zone = `time_zone = "UTC", start_time = "02:00", `
	for name, c := range map[string]struct{ call, want string }{
		"an attribute that is none":         {`describe_schedule({ ` + zone + `dayly = {} })`, `A schedule has no attribute "dayly".`},
		"an attribute within that is none":  {`describe_schedule({ ` + zone + `weekly = { days = ["monday"] } })`, `A schedule has no such attribute: "days".`},
		"no object":                         {`describe_schedule("every day")`, `A schedule is an object`},
		"a value of another kind":           {`describe_schedule({ ` + zone + `weekly = { days_of_week = "monday" } })`, `weekly.days_of_week cannot be a string.`},
		"no days":                           {`describe_schedule({ ` + zone + ` })`, `exactly one of one_time, daily, weekly and monthly, got 0 of them.`},
		"two kinds of days":                 {`describe_schedule({ ` + zone + `daily = {}, monthly = { last_day = true } })`, `got 2 of them.`},
		"no time zone":                      {`describe_schedule({ start_time = "02:00", daily = {} })`, `A time zone is an IANA name such as Asia/Tokyo, got "".`},
		"no such time zone":                 {`describe_schedule({ start_time = "02:00", daily = {}, time_zone = "Mars" })`, `"Mars" is not an IANA time zone.`},
		"no such day":                       {`describe_schedule({ ` + zone + `weekly = { days_of_week = ["Monday"] } })`, `weekly.days_of_week must be one of sunday,`},
		"no such week":                      {`describe_schedule({ ` + zone + `monthly = { week_day_of_month = { week_of_month = "sixth", day_of_week = "monday" } } })`, `must be one of first,`},
		"no such date":                      {`describe_schedule({ ` + zone + `one_time = { date = "2027-02-30" } })`, `must exist, got "2027-02-30".`},
		"a half hour":                       {`describe_schedule({ time_zone = "UTC", start_time = "02:30", daily = {} })`, `start_time is a whole hour`},
		"a day of the month is 32":          {`describe_schedule({ ` + zone + `monthly = { days_of_month = [32] } })`, `A day of the month is 1 to 31, got 32.`},
		"short months without days":         {`describe_schedule({ ` + zone + `monthly = { last_day = true, short_months = "last_day" } })`, `short_months goes with monthly.days_of_month only.`},
		"starts of an hour that is unknown": {`expand_schedule({ time_zone = "UTC", daily = {} }, "2026-12-01", 1)`, `The server picks the hour of a schedule without start_time`},
		"from is no time":                   {`expand_schedule({ ` + zone + `daily = {} }, "tomorrow", 1)`, `or as 2026-12-01, got "tomorrow".`},
		"too many":                          {`expand_schedule({ ` + zone + `daily = {} }, "2026-12-01", 1001)`, `count must be 1 to 1000, got 1001.`},
		"none":                              {`expand_schedule({ ` + zone + `daily = {} }, "2026-12-01", 0)`, `count must be 1 to 1000, got 0.`},
		"a start that is no time":           {`compute_expiry("2026-12-01", 1)`, `started_at is written as 2026-12-01T02:00:00+09:00, got "2026-12-01".`},
		"days below nothing":                {`compute_expiry("2026-12-01T00:00:00Z", -1)`, `retention_days must be 0 to 65536, got -1.`},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, resource.TestStep{Config: output("o", "provider::kura::"+c.call), ExpectError: words(c.want)})
		})
	}
}
