package provider_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// spare is the configuration of the lab that tests add by themselves.
func spare(body string) string {
	l := house.spare
	return fmt.Sprintf(`
resource "kura_vcenter" "t" {
  name       = "spare"
  endpoint   = %q
  username   = %q
  thumbprint = %q
%s
}
`, l.Endpoint(), l.User(), l.Thumbprint(), body)
}

func password(p string, version int) string {
	return fmt.Sprintf("password_wo = %q\npassword_wo_version = %d\n", p, version)
}

// TestVCenterLivesAndIsImported adds a vcenter, whose inventory is there when
// apply ends, changes it in place, and imports it by id and by name. Its
// password is in no state.
//
// seed:W1 seed:W19
func TestVCenterLivesAndIsImported(t *testing.T) {
	const at = "kura_vcenter.t"
	var id string
	secret := password(house.spare.Password(), 1)
	apply(t,
		resource.TestStep{
			Config: spare(secret), ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(
				keepID(at, &id),
				resource.TestCheckResourceAttr(at, "time_zone", "UTC"),
				resource.TestCheckResourceAttr(at, "slot_capacity", "10"),
				resource.TestCheckResourceAttr(at, "limits.disks_per_host", "20"),
				resource.TestCheckResourceAttr(at, "instance_uuid", house.spare.UUID()),
				resource.TestCheckNoResourceAttr(at, "password_wo"),
				func(s *terraform.State) error {
					if text := fmt.Sprint(s); strings.Contains(text, house.spare.Password()) {
						return fmt.Errorf("the password is in the state: %s", text)
					}
					a, err := house.api.ListVirtualMachinesWithResponse(t.Context(), &api.ListVirtualMachinesParams{VCenterID: idOf(s, at)})
					if err := api.Err(a, err); err != nil {
						return err
					}
					if n := len(a.JSON200.Items); n != 6 {
						return fmt.Errorf("the inventory has %d machines when apply ends, want 6", n)
					}
					return nil
				},
			),
		},
		resource.TestStep{
			Config: spare(secret + `
				time_zone     = "Europe/Berlin"
				slot_capacity = 4
				limits        = { disks = 8 }
				tag_mappings  = [{ category = "backup", tag = "gold", key = "tier", value = "gold" }]
			`),
			ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(
				keepID(at, &id),
				resource.TestCheckResourceAttr(at, "limits.disks", "8"),
				resource.TestCheckResourceAttr(at, "limits.jobs_per_datastore", "4"),
				resource.TestCheckResourceAttr(at, "tag_mappings.#", "1"),
			),
		},
		resource.TestStep{Config: spare(secret), ConfigPlanChecks: emptyPlan, Check: resource.TestCheckResourceAttr(at, "limits.disks", "52")},
		resource.TestStep{ResourceName: at, ImportState: true, ImportStateVerify: true, ImportStateVerifyIgnore: []string{"password_wo_version"}},
		resource.TestStep{ResourceName: at, ImportState: true, ImportStateId: "name/spare", ImportStateVerify: true, ImportStateVerifyIgnore: []string{"password_wo_version"}},
		// A password is sent when its version changes, and only then.
		resource.TestStep{
			Config:           spare(password("wrong", 1)),
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()}},
		},
		resource.TestStep{Config: spare(password("wrong", 2)), ExpectError: words(`Code vcenter_denied`)},
		resource.TestStep{Config: spare(password(house.spare.Password(), 3)), ConfigPlanChecks: emptyPlan},
	)
}

// TestVCenterIsRefused shows what is refused at plan, and a wrong password,
// which leaves nothing behind.
//
// seed:W17
func TestVCenterIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		body, want string
		planOnly   bool
	}{
		"a new one has no password":       {"", `A new vcenter needs the password of its user`, true},
		"no such time zone":               {"password_wo = \"p\"\ntime_zone = \"Mars\"", `"Mars" is not an IANA time zone.`, true},
		"a thumbprint and an authority":   {"password_wo = \"p\"\nca_certificate = \"x\"", `cannot be specified when`, true},
		"more capacity than there can be": {"password_wo = \"p\"\nslot_capacity = 0", `must be between 1 and 10000`, true},
		"too many mappings":               {"password_wo = \"p\"\ntag_mappings = [for i in range(11) : { category = \"c\", tag = \"t${i}\", key = \"k\", value = \"v\" }]", `at most 10 elements`, true},
		"the wrong password":              {"password_wo = \"p\"", `Check username and password_wo`, false},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, resource.TestStep{Config: spare(c.body), PlanOnly: c.planOnly, ExpectError: words(c.want)})
		})
	}
	a, err := house.api.ListVCentersWithResponse(t.Context(), &api.ListVCentersParams{Name: "spare"})
	ok(t, a, err)
	if n := len(a.JSON200.Items); n != 0 {
		t.Errorf("refused vcenters left %d objects behind", n)
	}
}

// TestVCenterThatWasDeletedElsewhereIsPlannedAnew shows that only what is gone
// leaves the state.
func TestVCenterThatWasDeletedElsewhereIsPlannedAnew(t *testing.T) {
	apply(t, resource.TestStep{
		Config: spare(password(house.spare.Password(), 1)),
		Check: func(s *terraform.State) error {
			return api.Err(house.api.DeleteVCenterWithResponse(t.Context(), idOf(s, "kura_vcenter.t")))
		},
		ExpectNonEmptyPlan: true,
	})
}

// TestOneApplyFromNothing adds a vcenter, a group by tag, a look-up of a
// machine and two schedules in one apply without -target.
//
// seed:W2 seed:W12
func TestOneApplyFromNothing(t *testing.T) {
	config := spare(password(house.spare.Password(), 1)) + `
resource "kura_backup_group" "gold" {
  name     = "spare gold"
  selector = { vcenter_id = kura_vcenter.t.id, tags = [{ category = "backup", name = "gold" }] }
}

data "kura_virtual_machines" "one" {
  vcenter_id = kura_vcenter.t.id
  name       = "vm01"
}

resource "kura_backup_schedule" "gold" {
  name           = "spare gold nightly"
  group_id       = kura_backup_group.gold.id
  start_time     = "02:00"
  daily          = {}
  retention_days = 8
}

resource "kura_backup_schedule" "one" {
  name               = "spare vm01 weekly"
  virtual_machine_id = one(data.kura_virtual_machines.one.ids)
  weekly             = { days_of_week = ["sunday"] }
  retention_days     = 56
}
`
	apply(t, resource.TestStep{
		Config: config, ConfigPlanChecks: emptyPlan,
		Check: resource.ComposeAggregateTestCheckFunc(
			resource.TestCheckResourceAttr("kura_backup_schedule.gold", "seats", "2"),
			resource.TestCheckResourceAttr("kura_backup_schedule.gold", "time_zone", "UTC"),
			resource.TestCheckResourceAttr("kura_backup_schedule.one", "seats", "1"),
		),
	})
}

// TestVCenterWhoseInventoryCannotBeReadIsMadeAnew shows that the first sync is
// waited for: its failure is the apply's, with the cause, and the next apply
// replaces what was left.
func TestVCenterWhoseInventoryCannotBeReadIsMadeAnew(t *testing.T) {
	if err := house.spare.Arm(lab.Fault{Kind: "permission_denied", Method: "CreateContainerView", Count: -1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(house.spare.ClearFaults)
	config := spare(password(house.spare.Password(), 1))
	apply(t,
		resource.TestStep{Config: config, ExpectError: words(`Inventory cannot be read`)},
		resource.TestStep{
			PreConfig: house.spare.ClearFaults, Config: config,
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             []plancheck.PlanCheck{plancheck.ExpectResourceAction("kura_vcenter.t", plancheck.ResourceActionReplace)},
				PostApplyPostRefresh: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()},
			},
		},
	)
}
