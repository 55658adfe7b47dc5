package provider_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// bareAndWhole are schedules of each kind: with nothing that may be left out,
// and with all of it but timeouts, which no server knows.
func bareAndWhole(t *testing.T) map[string]string {
	t.Helper()
	const whole = `
  description         = "all that can be said"
  enabled             = false
  backup_type         = "image"
  time_zone           = "Europe/Berlin"
  window_hours        = 2
  duration_hours      = 3
  max_delay_hours     = 0
  extended_retention  = [{ last_day = true, retention_days = %[1]d }, { week_day_of_month = { week_of_month = "first", day_of_week = "sunday" }, retention_days = 366 }]
  apply_retention_to_existing_images = true
  lock                = true
  consistency         = "app_required"
  disks               = { include_labels = ["Hard disk 1"] }
  unprotectable_disks = "skip"
  repository          = "default"
  copy_to             = [{ repository = "second site", retention_days = %[2]d }]
  labels              = { line = "gold", owner = "erp" }
  deletion_protection = true
`
	secondSite(t)
	date := time.Now().AddDate(0, 0, 30).Format(time.DateOnly)
	out := map[string]string{}
	add := func(kind, bare, when, all string, longer, copies int) {
		target := fmt.Sprintf("virtual_machine_id = %q\n", vmID(t, "vm01"))
		out[kind+"_bare"] = schedule(kind+"_bare", target+bare)
		out[kind+"_whole"] = schedule(kind+"_whole", target+all+"\n"+when+fmt.Sprintf(whole, longer, copies))
	}
	add("once", fmt.Sprintf("one_time = { date = %q }\nretention_days = 1", date), `start_time = "02:00"`, fmt.Sprintf("one_time = { date = %q }\nretention_days = 31", date), 366, 1)
	add("daily", "daily = {}\nretention_days = 1", `start_window = { earliest = "02:00" }`, fmt.Sprintf("daily = { start_date = %q }\nretention_days = 8", date), 31, 2)
	add("weekly", "weekly = { days_of_week = [\"sunday\"] }\nretention_days = 7", `start_window = { earliest = "00:00", latest = "05:00" }`, "weekly = { days_of_week = [\"saturday\", \"monday\"] }\nretention_days = 14", 62, 56)
	add("days", "monthly = { days_of_month = [31] }\nretention_days = 31", `start_time = "23:00"`, "monthly = { days_of_month = [31, 1], short_months = \"skip\" }\nretention_days = 62", 93, 31)
	add("short", "monthly = { days_of_month = [30], short_months = \"last_day\" }\nretention_days = 31", `start_window = { latest = "05:00" }`, "monthly = { days_of_month = [30], short_months = \"last_day\" }\nretention_days = 62", 93, 31)
	add("last_day", "monthly = { last_day = true }\nretention_days = 31", `start_time = "00:00"`, "monthly = { last_day = true }\nretention_days = 248", 300, 31)
	add("nth", "monthly = { week_day_of_month = { week_of_month = \"fifth\", day_of_week = \"friday\" } }\nretention_days = 31", `start_time = "03:00"`,
		"monthly = { week_day_of_month = { week_of_month = \"last\", day_of_week = \"friday\" } }\nretention_days = 31", 62, 248)
	return out
}

// TestAnImportedSchedulePlansNothing imports schedules of every kind, with
// nothing and with everything that may be said, by blocks in the configuration
// and by the command, by id and by name. Nothing is to do then.
func TestAnImportedSchedulePlansNothing(t *testing.T) {
	bodies := bareAndWhole(t)
	config := joined(bodies)
	owner := newProgram(t, config)
	owner.apply()
	unchanged(t, owner)

	var blocks strings.Builder
	for name := range bodies {
		fmt.Fprintf(&blocks, "import {\n  to = kura_backup_schedule.%[1]s\n  id = \"name/%[1]s\"\n}\n", name)
	}
	byBlock := newProgram(t, config+blocks.String())
	if out := byBlock.apply(); !strings.Contains(out, fmt.Sprintf("Apply complete! Resources: %d imported, 0 added, 0 changed, 0 destroyed.", len(bodies))) {
		t.Errorf("the import by blocks did more than that:\n%s", out)
	}
	unchanged(t, byBlock)

	byCommand := newProgram(t, config)
	for i, name := range slices.Sorted(maps.Keys(bodies)) {
		address, id := "kura_backup_schedule."+name, "name/"+name
		if i%2 == 0 {
			id = idShown(t, owner, address)
		}
		byCommand.ok("import", "-no-color", "-input=false", address, id)
	}
	unchanged(t, byCommand)

	owner.write(strings.ReplaceAll(config, "deletion_protection = true", "deletion_protection = false"))
	owner.apply()
	owner.ok("destroy", "-no-color", "-input=false", "-auto-approve")
}

// idShown is the id that the state of a program has.
func idShown(t *testing.T, p *program, address string) string {
	t.Helper()
	for line := range strings.Lines(p.ok("state", "show", "-no-color", address)) {
		if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == "id" {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	t.Fatalf("%s has no id", address)
	return ""
}
