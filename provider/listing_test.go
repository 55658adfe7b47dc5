package provider_test

import (
	"fmt"
	"regexp"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// TestLookUpsTellOfGroupsSchedulesJobsAndRestores: what runs and ran, and who
// is in a group.
func TestLookUpsTellOfGroupsSchedulesJobsAndRestores(t *testing.T) {
	image := backup(t, "vm06")
	made, err := house.api.CreateRestoreWithResponse(t.Context(), nil, api.Restore{ImageID: image.ID, Description: "looked up", NewVM: &api.RestoreNewVM{Name: "vm06-looked-up"}})
	ok(t, made, err)
	if job, err := house.api.FollowJob(t.Context(), made.JSON201.JobID, nil); err != nil || job.State != api.JobStateSucceeded {
		t.Fatalf("restore ended %s: %v", job.State, err)
	}
	config := fmt.Sprintf(`
resource "kura_backup_group" "t" {
  name                = "looked up"
  virtual_machine_ids = [%q]
  labels              = { team = "erp" }
}
resource "kura_backup_schedule" "t" {
  name           = "looked up"
  group_id       = kura_backup_group.t.id
  start_time     = "04:00"
  daily          = {}
  retention_days = 3
}
data "kura_backup_group" "by_name" { name = kura_backup_group.t.name }
data "kura_backup_group" "by_id" { id = kura_backup_group.t.id }
data "kura_backup_schedule" "by_name" { name = kura_backup_schedule.t.name }
data "kura_backup_schedule" "by_id" { id = kura_backup_schedule.t.id }
data "kura_backup_schedules" "of_group" { group_id = kura_backup_schedule.t.group_id }
data "kura_backup_groups" "all" { depends_on = [kura_backup_group.t] }
data "kura_backup_jobs" "backups" {
  virtual_machine_id = %[1]q
  kind               = "backup"
  state              = "succeeded"
}
data "kura_backup_jobs" "all" { window = "all" }
data "kura_restores" "all" {}
output "restored" {
  value = one([for r in data.kura_restores.all.restores : "${r.kind} ${r.status} ${r.restored_vm_name}" if r.description == "looked up"])
}
output "grouped" {
  value = contains(data.kura_backup_groups.all.groups[*].name, "looked up")
}
`, vmID(t, "vm06"))
	apply(t,
		resource.TestStep{
			Config: config, ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(
				resource.TestCheckResourceAttr("data.kura_backup_group.by_name", "member_names.0", "vm06"),
				resource.TestCheckResourceAttr("data.kura_backup_group.by_id", "labels.team", "erp"),
				resource.TestCheckResourceAttr("data.kura_backup_schedule.by_name", "retention_days", "3"),
				resource.TestCheckResourceAttr("data.kura_backup_schedule.by_id", "name", "looked up"),
				resource.TestCheckNoResourceAttr("data.kura_backup_schedule.by_id", "last_run_state"),
				resource.TestMatchResourceAttr("data.kura_backup_schedule.by_id", "next_run_at", regexp.MustCompile(`^20\d\d-`)),
				resource.TestCheckResourceAttr("data.kura_backup_schedules.of_group", "schedules.#", "1"),
				resource.TestCheckResourceAttr("data.kura_backup_jobs.backups", "jobs.0.image_id", image.ID),
				resource.TestMatchResourceAttr("data.kura_backup_jobs.all", "jobs.#", regexp.MustCompile(`^[1-9]`)),
				resource.TestCheckOutput("restored", "new_vm succeeded vm06-looked-up"),
				resource.TestCheckOutput("grouped", "true"),
			),
		},
	)
}

func TestALookUpThatFindsNothingSaysHowToList(t *testing.T) {
	for noun, want := range map[string]string{
		`data "kura_backup_schedule" "t" { name = "none such" }`:  `List them: kura schedule list`,
		`data "kura_backup_group" "t" { name = "none such" }`:     `List them: kura group list`,
		`data "kura_backup_group" "t" { id = "none-such" }`:       `Code not_found`,
		`data "kura_backup_schedule" "t" {}`:                      `Exactly one of these attributes must be configured`,
		`data "kura_backup_jobs" "t" { window = "2w" }`:           `value must be one of`,
		`data "kura_backup_jobs" "t" { virtual_machine_id = "" }`: `string length must be between 1 and 128`,
	} {
		apply(t, resource.TestStep{Config: noun + "\n", PlanOnly: true, ExpectError: words(want)})
	}
}
