package provider_test

import (
	"fmt"
	"strings"
	"testing"
)

// pair is a schedule of both machines of a group, which fill an hour of the
// vcenter with two seats in each.
func pair(name, start string) string {
	return schedule(name, fmt.Sprintf("group_id = kura_backup_group.pair.id\nstart_time = %q\ndaily = {}\nretention_days = 1", start))
}

func pairGroup(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("resource \"kura_backup_group\" \"pair\" {\n  name = \"pair\"\n  virtual_machine_ids = [%q, %q]\n}\n", vmOf(t, house.tight, "vm05"), vmOf(t, house.tight, "vm06"))
}

// TestSchedulesChangePlacesInFullHours lets schedules that fill their hours
// swap them, two and three at once, in one apply each, several times over.
// None of the hours is ever free, so that no order of single changes would do.
func TestSchedulesChangePlacesInFullHours(t *testing.T) {
	hours := []string{"13:00", "14:00", "15:00"}
	config := func(order ...int) string {
		text := pairGroup(t)
		for i, name := range []string{"a", "b", "c"} {
			text += pair(name, hours[order[i]])
		}
		return text
	}
	p := newProgram(t, config(0, 1, 2))
	p.apply()
	for _, c := range []struct {
		order []int
		args  string
	}{
		{[]int{1, 0, 2}, ""}, {[]int{0, 1, 2}, ""}, {[]int{1, 2, 0}, ""}, {[]int{2, 0, 1}, ""}, {[]int{0, 1, 2}, ""},
		{[]int{0, 2, 1}, "-parallelism=2"}, {[]int{2, 1, 0}, "-parallelism=3"},
	} {
		p.write(config(c.order...))
		out := p.ok(strings.Fields("apply -no-color -input=false -auto-approve " + c.args)...)
		if strings.Contains(out, "Timeslot") {
			t.Errorf("places %v with %q are not certain at plan:\n%s", c.order, c.args, out)
		}
		unchanged(t, p)
	}
	p.ok("destroy", "-no-color", "-input=false", "-auto-approve")
}

// TestOneAtATimeTerraformIsToldWhyPlacesCannotBeChanged plans a swap with a
// Terraform that shows the provider one schedule after the other: nothing is
// known of the second while the first is planned, so it is refused there, with
// what helps.
func TestOneAtATimeTerraformIsToldWhyPlacesCannotBeChanged(t *testing.T) {
	p := newProgram(t, pairGroup(t)+pair("a", "13:00")+pair("b", "14:00"))
	p.apply()
	p.write(pairGroup(t) + pair("a", "14:00") + pair("b", "13:00"))
	for address, d := range p.refusals("-parallelism=1") {
		if !strings.Contains(d.Detail, "let Terraform plan both at once: -parallelism=2 or more.") {
			t.Errorf("%s is refused without advice: %s", address, d.Detail)
		}
	}
	p.apply()
	unchanged(t, p)
	p.ok("destroy", "-no-color", "-input=false", "-auto-approve")
}
