package provider_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
)

// seat is a schedule of one machine of the vcenter with two seats in an hour.
func seat(t *testing.T, name, vm, body string) string {
	t.Helper()
	return schedule(name, fmt.Sprintf("  virtual_machine_id = %q\n%s", vmOf(t, house.tight, vm), body))
}

// alternatives are the lines of a refusal that can be pasted.
func alternatives(t *testing.T, d diagnostic) []string {
	t.Helper()
	_, list, there := strings.Cut(d.Detail, "Book one of these instead:\n")
	list, _, ends := strings.Cut(list, "\nCode slot_full, request ")
	if !there || !ends {
		t.Fatalf("%s is refused without alternatives: %s", d.Address, d.Detail)
	}
	lines := strings.Split(list, "\n")
	return slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "Counted in:") })
}

// paste puts a line in the place of the one that sets the same attribute.
func paste(t *testing.T, body, line string) string {
	t.Helper()
	name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	old := regexp.MustCompile(`(?m)^ *` + name + ` .*$`)
	if len(old.FindAllString(body, -1)) != 1 {
		t.Fatalf("%q sets %s not once, so %q cannot be pasted", body, name, line)
	}
	return old.ReplaceAllLiteralString(body, line)
}

// TestOfThreeSchedulesForTwoSeatsThePlanRefusesOneAndItsAdviceIsApplied plans
// three schedules for the two seats of an hour that is empty yet. One of them,
// whichever, is refused by the plan; a line of its error, pasted, is all that
// the configuration lacks.
//
// seed:N60
func TestOfThreeSchedulesForTwoSeatsThePlanRefusesOneAndItsAdviceIsApplied(t *testing.T) {
	bodies := map[string]string{}
	for i, name := range []string{"a", "b", "c"} {
		bodies["kura_backup_schedule."+name] = seat(t, name, fmt.Sprintf("vm%02d", i+1), "start_time = \"03:00\"\ndaily = {}\nretention_days = 1")
	}
	p := newProgram(t, joined(bodies))
	refused := p.refusals()
	if len(refused) != 1 {
		t.Fatalf("the plan refuses %d schedules, want 1: %+v", len(refused), refused)
	}
	if left := p.state(); len(left) != 0 {
		t.Fatalf("the plan made %v", left)
	}
	for address, d := range refused {
		if d.Summary != "Timeslot is full" || !strings.Contains(d.Snippet.Code, "start_time") {
			t.Errorf("%s is refused by %q at %q, want a full timeslot at its start_time", address, d.Summary, d.Snippet.Code)
		}
		bodies[address] = paste(t, bodies[address], alternatives(t, d)[0])
	}
	p.write(joined(bodies))
	p.apply()
	unchanged(t, p)
	p.ok("destroy", "-no-color", "-input=false", "-auto-approve")
}

// inPlace demands a change that makes nothing anew and leaves nothing to do.
func inPlace(address string) resource.ConfigPlanChecks {
	return resource.ConfigPlanChecks{
		PreApply:             []plancheck.PlanCheck{plancheck.ExpectResourceAction(address, plancheck.ResourceActionUpdate)},
		PostApplyPostRefresh: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()},
	}
}

func joined(bodies map[string]string) string {
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(bodies)) {
		all.WriteString(bodies[name])
	}
	return all.String()
}

// TestEachAlternativeOfEachKindOfScheduleCanBePasted fills an hour for each
// kind of days, asks for one seat more of each, and applies first all advice of
// the same days, then all advice of the same hour.
//
// seed:N60
func TestEachAlternativeOfEachKindOfScheduleCanBePasted(t *testing.T) {
	date := time.Now().UTC().AddDate(0, 0, 20).Format(time.DateOnly)
	bodies, hour := map[string]string{}, 1
	for name, c := range map[string]struct{ days, held string }{
		"once":     {fmt.Sprintf("one_time = { date = %q }\nretention_days = 1", date), ""},
		"daily":    {"daily = {}\nretention_days = 1", fmt.Sprintf("one_time = { date = %q }\nretention_days = 1", date)},
		"weekly":   {"weekly = { days_of_week = [\"monday\", \"thursday\"] }\nretention_days = 7", ""},
		"days":     {"monthly = { days_of_month = [10, 20] }\nretention_days = 31", ""},
		"short":    {"monthly = { days_of_month = [31], short_months = \"last_day\" }\nretention_days = 31", ""},
		"last_day": {"monthly = { last_day = true }\nretention_days = 31", ""},
		"nth":      {"monthly = { week_day_of_month = { week_of_month = \"second\", day_of_week = \"wednesday\" } }\nretention_days = 31", ""},
		"last":     {"monthly = { week_day_of_month = { week_of_month = \"last\", day_of_week = \"friday\" } }\nretention_days = 31", ""},
	} {
		start := fmt.Sprintf("start_time = \"%02d:00\"\n", hour)
		hour += 3
		if c.held == "" {
			c.held = c.days
		}
		for i, vm := range []string{"vm01", "vm02"} {
			holder := fmt.Sprintf("held_%s_%d", name, i)
			bodies["kura_backup_schedule."+holder] = seat(t, holder, vm, start+c.held)
		}
		bodies["kura_backup_schedule."+name] = "#" + seat(t, name, "vm03", start+c.days)
	}
	holders := maps.Clone(bodies)
	maps.DeleteFunc(holders, func(_, body string) bool { return body[0] == '#' })
	p := newProgram(t, joined(holders))
	p.apply()
	p.write(strings.ReplaceAll(joined(bodies), "#resource", "resource"))
	refused := p.refusals()
	if len(refused) != 8 {
		t.Fatalf("the plan refuses %d schedules, want 8: %+v", len(refused), refused)
	}
	for round, what := range []string{"same days", "same hour"} {
		config := maps.Clone(bodies)
		for address, d := range refused {
			lines := alternatives(t, d)
			if len(lines) != 2 || !strings.Contains(lines[round], "# "+what+", 1 seat free after it") || strings.Contains(d.Detail, "Free: ") {
				t.Fatalf("%s is advised %q, want a line with the same days and one with the same hour", address, lines)
			}
			config[address] = paste(t, config[address][1:], lines[round])
		}
		p.write(joined(config))
		p.apply()
		unchanged(t, p)
	}
	p.ok("destroy", "-no-color", "-input=false", "-auto-approve")
}

// TestADisabledScheduleGivesItsSeatToAnother fills an hour, disables one of its
// schedules, and books its seat by another: in the same apply, and in a later
// one. Who is disabled cannot come back while the hour is full.
//
// seed:N19
func TestADisabledScheduleGivesItsSeatToAnother(t *testing.T) {
	const days = "start_time = \"10:00\"\ndaily = {}\nretention_days = 1\n"
	a, b := seat(t, "a", "vm01", days), seat(t, "b", "vm02", days)
	off := seat(t, "a", "vm01", days+"enabled = false")
	c, d := seat(t, "c", "vm03", days), seat(t, "d", "vm04", days)
	apply(t,
		resource.TestStep{Config: a + b, ConfigPlanChecks: emptyPlan},
		resource.TestStep{Config: off + b + c, ConfigPlanChecks: emptyPlan, Check: resource.TestCheckResourceAttr("kura_backup_schedule.a", "enabled", "false")},
		resource.TestStep{Config: a + b + c, PlanOnly: true, ExpectError: words(`Code slot_full, request`)},
		resource.TestStep{Config: off + c, ConfigPlanChecks: emptyPlan},
		resource.TestStep{Config: off + c + d, ConfigPlanChecks: emptyPlan},
	)
}

// TestDailyBecomesWeeklyInPlace changes the kind of days of a schedule, which
// the server knows by the same id then.
//
// seed:N18 seed:N22
func TestDailyBecomesWeeklyInPlace(t *testing.T) {
	var id string
	apply(t,
		resource.TestStep{Config: seat(t, "t", "vm01", "start_time = \"12:00\"\ndaily = {}\nretention_days = 7"), ConfigPlanChecks: emptyPlan, Check: keepID("kura_backup_schedule.t", &id)},
		resource.TestStep{
			Config:           seat(t, "t", "vm01", "start_time = \"12:00\"\nweekly = { days_of_week = [\"friday\"] }\nretention_days = 7"),
			ConfigPlanChecks: inPlace("kura_backup_schedule.t"), Check: keepID("kura_backup_schedule.t", &id),
		},
	)
}

// TestASmallerCapacityIsToldOfByTheApply makes a vcenter's hours smaller than
// what they hold: the apply succeeds and says how many hours hold too much, and
// the next plan is empty.
func TestASmallerCapacityIsToldOfByTheApply(t *testing.T) {
	of := func(capacity int) string {
		return spare(password(house.spare.Password(), 1)+fmt.Sprintf("slot_capacity = %d\n", capacity)) + `
data "kura_virtual_machines" "all" {
  vcenter_id = kura_vcenter.t.id
}

resource "kura_backup_schedule" "t" {
  count              = 2
  name               = "spare ${count.index}"
  virtual_machine_id = data.kura_virtual_machines.all.ids[count.index]
  start_time         = "02:00"
  daily              = {}
  retention_days     = 1
}
`
	}
	p := newProgram(t, of(2))
	p.apply()
	p.write(of(1))
	all, err := p.diagnostics("apply", "-auto-approve")
	if err != nil {
		t.Fatalf("the smaller capacity is refused: %v %+v", err, all)
	}
	if i := slices.IndexFunc(all, func(d diagnostic) bool { return d.Severity == "warning" && d.Address == "kura_vcenter.t" }); i < 0 ||
		all[i].Summary != "Hours hold too many seats" || !strings.Contains(all[i].Detail, "more seats than slot_capacity = 1") {
		t.Errorf("the apply warns of %+v, want the hours that hold too many seats", all)
	}
	unchanged(t, p)
	p.ok("destroy", "-no-color", "-input=false", "-auto-approve")
}
