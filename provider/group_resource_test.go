package provider_test

import (
	"fmt"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// emptyPlan demands that nothing is left to do after an apply.
var emptyPlan = resource.ConfigPlanChecks{PostApplyPostRefresh: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()}}

// TestGroupLivesAndIsImported makes a group by tag, changes it in place,
// imports it by id and by name, and plans nothing after each step.
//
// seed:W12 seed:W15 seed:N28
func TestGroupLivesAndIsImported(t *testing.T) {
	var id string
	config := func(body string) string {
		return fmt.Sprintf("resource \"kura_backup_group\" \"t\" {\n  name = \"gold group\"\n%s\n}\n", body)
	}
	gold := fmt.Sprintf(`selector = { vcenter_id = %q, tags = [{ category = "backup", name = "gold" }] }`, house.vcenter.ID)
	apply(t,
		resource.TestStep{
			Config:           config(gold),
			ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(
				keepID("kura_backup_group.t", &id),
				resource.TestCheckResourceAttr("kura_backup_group.t", "selector.tags.#", "1"),
				resource.TestCheckResourceAttr("kura_backup_group.t", "reserved_seats", "0"),
				resource.TestCheckNoResourceAttr("kura_backup_group.t", "description"),
			),
		},
		resource.TestStep{
			Config: config(gold + fmt.Sprintf(`
				description = ""
				virtual_machine_ids = [%q]
				exclude_virtual_machine_ids = []
				reserved_seats = 4
				labels = { team = "erp" }
			`, vmID(t, "vm01"))),
			ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(
				keepID("kura_backup_group.t", &id),
				resource.TestCheckResourceAttr("kura_backup_group.t", "virtual_machine_ids.#", "1"),
				resource.TestCheckResourceAttr("kura_backup_group.t", "labels.team", "erp"),
			),
		},
		resource.TestStep{
			Config: config(gold), ConfigPlanChecks: emptyPlan, Check: keepID("kura_backup_group.t", &id),
		},
		resource.TestStep{ResourceName: "kura_backup_group.t", ImportState: true, ImportStateVerify: true},
		resource.TestStep{ResourceName: "kura_backup_group.t", ImportState: true, ImportStateId: "name/gold group", ImportStateVerify: true},
		resource.TestStep{
			ResourceName: "kura_backup_group.t", ImportState: true, ImportStateId: "name/silver",
			ExpectError: words(`The server has 0 groups named "silver"`),
		},
	)
}

// TestGroupThatWasDeletedElsewhereIsPlannedAnew shows that only what is gone
// leaves the state.
func TestGroupThatWasDeletedElsewhereIsPlannedAnew(t *testing.T) {
	config := fmt.Sprintf("resource \"kura_backup_group\" \"t\" {\n  name = \"passing\"\n  virtual_machine_ids = [%q]\n}\n", vmID(t, "vm01"))
	apply(t, resource.TestStep{
		Config: config,
		Check: func(s *terraform.State) error {
			return api.Err(house.api.DeleteBackupGroupWithResponse(t.Context(), idOf(s, "kura_backup_group.t")))
		},
		ExpectNonEmptyPlan: true,
	})
}

// TestGroupIsRefusedAtPlan shows what no apply is needed for.
func TestGroupIsRefusedAtPlan(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"it has no members": {``, `At least one of these attributes must be configured: [virtual_machine_ids,selector]`},
		"a regular expression is none": {
			`selector = { vcenter_id = "v", name_regex = "(" }`, `Regular expression is not valid`,
		},
		"recursive goes with a folder": {
			`selector = { vcenter_id = "v", recursive = true }`, `must be specified when "selector.recursive" is specified`,
		},
		"only a consistent group fails as a whole": {
			`on_member_failure = "fail"
			 virtual_machine_ids = ["vm"]`, `goes with consistent = true`,
		},
		"a name is too long": {
			`virtual_machine_ids = ["vm"]
			 labels = { for i in range(65) : "l${i}" => "" }`, `must contain at most 64 elements`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, resource.TestStep{
				Config:      fmt.Sprintf("resource \"kura_backup_group\" \"t\" {\n  name = \"refused\"\n%s\n}\n", c.body),
				PlanOnly:    true,
				ExpectError: words(c.want),
			})
		})
	}
}

// TestGroupInUseIsNotDestroyed shows the server's refusal with its remedy, and
// that the group goes once the schedule is gone.
func TestGroupInUseIsNotDestroyed(t *testing.T) {
	group := fmt.Sprintf("resource \"kura_backup_group\" \"t\" {\n  name = \"needed\"\n  virtual_machine_ids = [%q]\n}\n", vmID(t, "vm01"))
	var scheduleID string
	apply(t,
		resource.TestStep{
			Config: group,
			Check: func(s *terraform.State) error {
				a, err := house.api.CreateBackupScheduleWithResponse(t.Context(), &api.CreateBackupScheduleParams{}, api.BackupSchedule{
					Name: "on the needed group", GroupID: idOf(s, "kura_backup_group.t"), StartTime: "01:00", Daily: &api.Daily{}, RetentionDays: 1,
				})
				if err := api.Err(a, err); err != nil {
					return err
				}
				scheduleID = a.JSON201.ID
				return nil
			},
		},
		resource.TestStep{Config: group, Destroy: true, ExpectError: words(`Destroy the schedules that are on the group first`)},
		resource.TestStep{
			PreConfig: func() {
				a, err := house.api.DeleteBackupScheduleWithResponse(t.Context(), scheduleID)
				ok(t, a, err)
			},
			Config: group,
		},
	)
}

// TestAPlanTellsWhoHasJoinedSinceTheLastRun: members change without any change
// of the configuration.
//
// seed:W14 seed:W26
func TestAPlanTellsWhoHasJoinedSinceTheLastRun(t *testing.T) {
	config := fmt.Sprintf("resource \"kura_backup_group\" \"t\" {\n  name = \"growing\"\n  selector = { vcenter_id = %q, name_regex = \"^nobody$\" }\n}\n", house.vcenter.ID)
	p := newProgram(t, config)
	p.ok("apply", "-auto-approve", "-no-color")
	defer p.ok("destroy", "-auto-approve", "-no-color")
	page, err := house.api.ListBackupGroupsWithResponse(t.Context(), &api.ListBackupGroupsParams{Name: "growing"})
	if err != nil || page.JSON200 == nil || len(page.JSON200.Items) != 1 {
		t.Fatalf("the group is not found: %v", err)
	}
	g := page.JSON200.Items[0]
	change := func(regex string) {
		t.Helper()
		g.Selector.NameRegex = regex
		if err := api.Err(house.api.UpdateBackupGroupWithResponse(t.Context(), g.ID, &api.UpdateBackupGroupParams{}, g)); err != nil {
			t.Fatal(err)
		}
	}
	const warning = "Members of the group have changed"
	change("^vm01$")
	if out := p.ok("plan", "-no-color"); words(warning).MatchString(out) {
		t.Errorf("a group that never ran is warned of:\n%s", out)
	}
	change("^nobody$")
	if err := api.Err(house.api.BackupGroupWithResponse(t.Context(), g.ID, &api.BackupGroupParams{}, api.BackupOptions{RetentionDays: 1})); err != nil {
		t.Fatal(err)
	}
	change("^vm01$")
	if out := p.ok("plan", "-no-color"); !words(warning).MatchString(out) || !words("vm01 joined (the group was changed)").MatchString(out) {
		t.Errorf("the plan does not tell that vm01 has joined:\n%s", out)
	}
}
