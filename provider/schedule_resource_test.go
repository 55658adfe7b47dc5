package provider_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"
	"github.com/hashicorp/terraform-plugin-testing/tfjsonpath"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// schedule is the configuration of one schedule, called by its own name.
func schedule(name, body string) string {
	return fmt.Sprintf("resource \"kura_backup_schedule\" %q {\n  name = %q\n%s\n}\n", name, name, body)
}

// TestScheduleChangesInPlaceBetweenAllTypes goes through the four types without
// ever making the schedule anew.
//
// seed:N18 seed:N22 seed:N24 seed:N30
func TestScheduleChangesInPlaceBetweenAllTypes(t *testing.T) {
	var id string
	vm := fmt.Sprintf("virtual_machine_id = %q\n", vmID(t, "vm01"))
	const at = "kura_backup_schedule.t"
	step := func(body string, checks ...resource.TestCheckFunc) resource.TestStep {
		return resource.TestStep{
			Config: schedule("t", vm+body), ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(append(checks, keepID(at, &id))...),
		}
	}
	tomorrow := time.Now().AddDate(0, 0, 2).Format(time.DateOnly)
	apply(t,
		step(`daily = {}
			retention_days = 8`,
			resource.TestCheckResourceAttr(at, "time_zone", "Asia/Tokyo"),
			resource.TestMatchResourceAttr(at, "start_time", words("00")),
			resource.TestCheckResourceAttr(at, "repository", "default"),
			resource.TestCheckResourceAttr(at, "seats", "1"),
			resource.TestCheckResourceAttr(at, "backup_type", "image")),
		step(`weekly = { days_of_week = ["wednesday", "sunday"] }
			retention_days = 56
			start_time = "02:00"
			window_hours = 2
			max_delay_hours = 0
			consistency = "app"
			disks = { exclude_labels = ["Hard disk 2"] }
			labels = { line = "gold" }`,
			resource.TestCheckResourceAttr(at, "weekly.days_of_week.#", "2"),
			resource.TestCheckResourceAttr(at, "max_delay_hours", "0")),
		step(`monthly = { week_day_of_month = { week_of_month = "second", day_of_week = "wednesday" } }
			retention_days = 248
			extended_retention = [
				{ last_day = true, retention_days = 366 },
				{ days_of_month = [1, 15], retention_days = 300 },
			]`,
			resource.TestCheckResourceAttr(at, "start_time", "02:00"), // kept, though no longer named
			resource.TestCheckResourceAttr(at, "extended_retention.#", "2"),
			resource.TestCheckNoResourceAttr(at, "weekly.days_of_week.#")),
		step(`monthly = { days_of_month = [1, 28] }
			retention_days = 31`),
		step(`monthly = { last_day = true }
			retention_days = 31`),
		step(fmt.Sprintf(`one_time = { date = %q }
			retention_days = 366
			time_zone = "Europe/Berlin"
			start_window = { earliest = "02:00" }
			enabled = false`, tomorrow),
			resource.TestCheckResourceAttr(at, "time_zone", "Europe/Berlin"),
			resource.TestCheckResourceAttr(at, "enabled", "false")),
		resource.TestStep{ResourceName: at, ImportState: true, ImportStateVerify: true},
		resource.TestStep{ResourceName: at, ImportState: true, ImportStateId: "name/t", ImportStateVerify: true},
	)
}

// TestScheduleKeepsThePickedHourUnlessItsWindowMoves shows the plan of an hour
// that the server picks.
func TestScheduleKeepsThePickedHourUnlessItsWindowMoves(t *testing.T) {
	const at = "kura_backup_schedule.t"
	body := func(window string) string {
		return schedule("t", fmt.Sprintf("virtual_machine_id = %q\ndaily = {}\nretention_days = 1\n%s", vmID(t, "vm01"), window))
	}
	apply(t,
		resource.TestStep{
			Config: body(`start_window = { earliest = "04:00", latest = "04:00" }`), ConfigPlanChecks: emptyPlan,
			Check: resource.TestCheckResourceAttr(at, "start_time", "04:00"),
		},
		resource.TestStep{
			Config: body(`start_window = { earliest = "03:00", latest = "05:00" }`),
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{
				plancheck.ExpectResourceAction(at, plancheck.ResourceActionUpdate),
				plancheck.ExpectKnownValue(at, tfjsonpath.New("start_time"), knownvalue.StringExact("04:00")),
			}},
		},
		resource.TestStep{
			Config: body(`start_window = { earliest = "20:00", latest = "20:00" }`),
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{
				plancheck.ExpectUnknownValue(at, tfjsonpath.New("start_time")),
			}},
			Check: resource.TestCheckResourceAttr(at, "start_time", "20:00"),
		},
	)
}

// TestScheduleIsRefusedAtPlan shows what no apply is needed for.
//
// seed:N23 seed:N25 seed:N26 seed:N58 seed:A42
func TestScheduleIsRefusedAtPlan(t *testing.T) {
	const days = "daily = {}\nretention_days = 1\n"
	for name, c := range map[string]struct{ body, want string }{
		"nothing is backed up":          {days, `Exactly one of these attributes must be configured: [group_id,virtual_machine_id]`},
		"no days":                       {"group_id = \"g\"\nretention_days = 1\n", `Exactly one of these attributes must be configured: [one_time,daily,weekly,monthly]`},
		"two kinds of days":             {"group_id = \"g\"\nweekly = { days_of_week = [\"monday\"] }\n" + days, `Exactly one of these attributes must be configured: [one_time,daily,weekly,monthly]`},
		"a minute is no hour":           {"group_id = \"g\"\nstart_time = \"02:30\"\n" + days, `must be a whole hour from "00:00" to "23:00"`},
		"an hour too many":              {"group_id = \"g\"\nstart_time = \"24:00\"\n" + days, `must be a whole hour`},
		"start_time and its window":     {"group_id = \"g\"\nstart_time = \"02:00\"\nstart_window = {}\n" + days, `cannot be configured together`},
		"no such time zone":             {"group_id = \"g\"\ntime_zone = \"Asia/Tokio\"\n" + days, `"Asia/Tokio" is not an IANA time zone.`},
		"no such day":                   {"group_id = \"g\"\none_time = { date = \"2027-02-30\" }\nretention_days = 1\n", `A date is written YYYY-MM-DD and must exist, got "2027-02-30".`},
		"days named in capitals":        {"group_id = \"g\"\nweekly = { days_of_week = [\"Monday\"] }\nretention_days = 7\n", `value must be one of`},
		"no days of the month":          {"group_id = \"g\"\nmonthly = {}\nretention_days = 31\n", `exactly one of days_of_month, last_day, week_day_of_month; none of them is set.`},
		"two ways to name days":         {"group_id = \"g\"\nmonthly = { last_day = true, days_of_month = [1] }\nretention_days = 31\n", `days_of_month and last_day are set.`},
		"short_months without days":     {"group_id = \"g\"\nmonthly = { last_day = true, short_months = \"skip\" }\nretention_days = 31\n", `must be specified when "monthly.short_months" is specified`},
		"a day of the month is 32":      {"group_id = \"g\"\nmonthly = { days_of_month = [32] }\nretention_days = 31\n", `must be between 1 and 31`},
		"a file backup":                 {"group_id = \"g\"\nbackup_type = \"file\"\n" + days, `Kura keeps images of whole virtual machines`},
		"retention of another type":     {"group_id = \"g\"\ndaily = {}\nretention_days = 14\n", `Nearest: retention_days = 8.`},
		"retention past all bounds":     {"group_id = \"g\"\ndaily = {}\nretention_days = 65537\n", `must be between 0 and 65536`},
		"disks included and excluded":   {"group_id = \"g\"\ndisks = { include_labels = [\"a\"], exclude_labels = [\"b\"] }\n" + days, `cannot be specified when`},
		"a group that is not there":     {"group_id = \"g\"\nstart_time = \"02:00\"\n" + days, `Code not_found`},
		"a repository that is not":      {fmt.Sprintf("virtual_machine_id = %q\nrepository = \"attic\"\n", vmID(t, "vm01")) + days, `Code not_found`},
		"a date that has passed":        {fmt.Sprintf("virtual_machine_id = %q\nstart_time = \"02:00\"\none_time = { date = \"2020-01-01\" }\nretention_days = 1\n", vmID(t, "vm01")), `Code slot_closed`},
		"extended less than the normal": {fmt.Sprintf("virtual_machine_id = %q\nextended_retention = [{ last_day = true, retention_days = 1 }]\ndaily = {}\nretention_days = 2\n", vmID(t, "vm01")), `must keep images longer than retention_days`},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, resource.TestStep{Config: schedule("t", c.body), PlanOnly: true, ExpectError: words(c.want)})
		})
	}
}

// TestScheduleThatWasDeletedElsewhereIsPlannedAnew shows that only what is gone
// leaves the state.
func TestScheduleThatWasDeletedElsewhereIsPlannedAnew(t *testing.T) {
	apply(t, resource.TestStep{
		Config: schedule("t", fmt.Sprintf("virtual_machine_id = %q\ndaily = {}\nretention_days = 1", vmID(t, "vm01"))),
		Check: func(s *terraform.State) error {
			return api.Err(house.api.DeleteBackupScheduleWithResponse(t.Context(), idOf(s, "kura_backup_schedule.t")))
		},
		ExpectNonEmptyPlan: true,
	})
}

// TestScheduleOfAFullHourIsRefusedAtPlanWithAlternatives books the two seats of
// an hour and asks for a third: the plan refuses it and names what is free, in
// words that can be pasted; what it names can be booked.
//
// seed:N60
func TestScheduleOfAFullHourIsRefusedAtPlanWithAlternatives(t *testing.T) {
	seat := func(name, vm, start string) string {
		return schedule(name, fmt.Sprintf("virtual_machine_id = %q\nstart_time = %q\nweekly = { days_of_week = [\"monday\"] }\nretention_days = 7", vmOf(t, house.tight, vm), start))
	}
	two := seat("a", "vm01", "02:00") + seat("b", "vm02", "02:00")
	apply(t,
		resource.TestStep{Config: two, ConfigPlanChecks: emptyPlan},
		resource.TestStep{
			Config: two + seat("c", "vm03", "02:00"), PlanOnly: true,
			ExpectError: words(`Book one of these instead: start_time = "01:00" # same days, 1 seat free after it weekly = { days_of_week = ["sunday"] } # same hour, 1 seat free after it Code slot_full, request`),
		},
		resource.TestStep{Config: two + seat("c", "vm03", "01:00"), ConfigPlanChecks: emptyPlan},
	)
}

// TestSchedulesOfOnePlanAreCountedTogether plans three schedules for the two
// seats of an hour: nothing is there yet, and still the plan refuses one.
//
// seed:N60
func TestSchedulesOfOnePlanAreCountedTogether(t *testing.T) {
	var config strings.Builder
	for i, name := range []string{"a", "b", "c"} {
		config.WriteString(schedule(name, fmt.Sprintf("virtual_machine_id = %q\nstart_time = \"03:00\"\ndaily = {}\nretention_days = 1", vmOf(t, house.tight, fmt.Sprintf("vm%02d", i+1)))))
	}
	apply(t, resource.TestStep{
		Config: config.String(), PlanOnly: true,
		ExpectError: words(`Counted in: the seats that 2 other schedules of this plan take and give up.`),
	})
}

// TestSeatsMoveWithinOneApply lets one schedule leave a full hour and others
// take its seats, in one apply, whatever the order: by change and by destroy.
func TestSeatsMoveWithinOneApply(t *testing.T) {
	seat := func(name, vm, start string) string {
		return schedule(name, fmt.Sprintf("virtual_machine_id = %q\nstart_time = %q\ndaily = {}\nretention_days = 1", vmOf(t, house.tight, vm), start))
	}
	apply(t,
		resource.TestStep{Config: seat("a", "vm01", "05:00") + seat("b", "vm02", "05:00") + seat("c", "vm03", "06:00"), ConfigPlanChecks: emptyPlan},
		// a and c change places with each other, d comes in where b goes.
		resource.TestStep{Config: seat("a", "vm01", "06:00") + seat("b", "vm02", "07:00") + seat("c", "vm03", "05:00") + seat("d", "vm04", "05:00"), ConfigPlanChecks: emptyPlan},
		resource.TestStep{Config: seat("c", "vm03", "05:00") + seat("e", "vm05", "05:00"), ConfigPlanChecks: emptyPlan},
	)
}

// TestMonthsWithoutARunAreNamedInThePlan warns of them, and does not refuse.
//
// seed:N36
func TestMonthsWithoutARunAreNamedInThePlan(t *testing.T) {
	warnings := planWarnings(t, schedule("t", fmt.Sprintf("virtual_machine_id = %q\nmonthly = { days_of_month = [31] }\nretention_days = 31", vmID(t, "vm01"))))
	if !words(`Some months have no run`).MatchString(warnings) || !words("No run in").MatchString(warnings) || !strings.Contains(warnings, "February") {
		t.Errorf("the plan warns: %q, want the months without a run", warnings)
	}
}

// TestAGroupOfTheSamePlanIsBookedAtApply plans a schedule on a group that does
// not exist yet: the plan says that seats are booked at apply, and an hour that
// is full then is refused with the same words as at plan.
func TestAGroupOfTheSamePlanIsBookedAtApply(t *testing.T) {
	config := fmt.Sprintf(`
resource "kura_backup_group" "three" {
  name                = "three of two"
  virtual_machine_ids = [%q, %q]
}
`, vmOf(t, house.tight, "vm01"), vmOf(t, house.tight, "vm02"))
	on := func(name, start string) string {
		return schedule(name, fmt.Sprintf("group_id = kura_backup_group.three.id\nstart_time = %q\ndaily = {}\nretention_days = 1", start))
	}
	p := newProgram(t, config+on("a", "09:00")+on("b", "09:00"))
	if plan := p.ok("plan", "-no-color", "-input=false"); !words(`Seats are booked at apply`).MatchString(plan) {
		t.Errorf("the plan does not say that seats are booked at apply:\n%s", plan)
	}
	if out := p.refused(); !words(`Book one of these instead: start_time = "08:00" # same days, 0 seats free after it`).MatchString(out) || !words("Code slot_full, request").MatchString(out) {
		t.Errorf("the full hour at apply says:\n%s", out)
	}
	p.write(config + on("a", "09:00") + on("b", "08:00"))
	p.apply()
	unchanged(t, p)
	p.ok("destroy", "-no-color", "-input=false", "-auto-approve")
}
