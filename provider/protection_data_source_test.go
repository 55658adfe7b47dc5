package provider_test

import (
	"fmt"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestProtectionNamesWhatLacksIt: a machine with a schedule but no image, one
// with both, and one with neither.
func TestProtectionNamesWhatLacksIt(t *testing.T) {
	l, err := lab.New(lab.Config{VMs: 3, DiskSize: 4 << 20, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	v, err := addVCenter(t.Context(), l, api.VCenter{Name: "protection", SlotCapacity: 10})
	if err != nil {
		t.Fatal(err)
	}
	backupOf(t, vmOf(t, v, "vm01"))
	config := func(members string) string {
		return fmt.Sprintf(`
resource "kura_backup_group" "t" {
  name                = "protection"
  virtual_machine_ids = [%s]
}
resource "kura_backup_schedule" "t" {
  name           = "protection"
  group_id       = kura_backup_group.t.id
  start_time     = "04:00"
  daily          = {}
  retention_days = 3
}
data "kura_protection" "t" {
  vcenter_id    = %q
  max_age_hours = 26
  depends_on    = [kura_backup_group.t, kura_backup_schedule.t]
}
data "kura_protection" "any_age" {
  vcenter_id = %[2]q
  depends_on = [kura_backup_group.t, kura_backup_schedule.t]
}
`, members, v.ID)
	}
	some := fmt.Sprintf("%q, %q", vmOf(t, v, "vm01"), vmOf(t, v, "vm02"))
	const at, whenever = "data.kura_protection.t", "data.kura_protection.any_age"
	apply(t,
		resource.TestStep{
			Config: config(some),
			Check: resource.ComposeAggregateTestCheckFunc(
				resource.TestCheckResourceAttr(at, "all_protected", "false"),
				resource.TestCheckResourceAttr(at, "unprotected.#", "1"),
				resource.TestCheckResourceAttr(at, "unprotected.0", "vm03"),
				resource.TestCheckResourceAttr(at, "outdated.#", "2"),
				resource.TestCheckResourceAttr(at, "virtual_machines.0.schedules.0", "protection"),
				resource.TestCheckResourceAttrSet(at, "virtual_machines.0.last_good_at"),
				resource.TestCheckNoResourceAttr(at, "virtual_machines.1.last_good_at"),
				resource.TestCheckResourceAttr(whenever, "outdated.#", "0"),
			),
		},
		resource.TestStep{
			Config: config(some + fmt.Sprintf(", %q", vmOf(t, v, "vm03"))),
			Check: resource.ComposeAggregateTestCheckFunc(
				resource.TestCheckResourceAttr(whenever, "all_protected", "true"),
				resource.TestCheckResourceAttr(at, "unprotected.#", "0"),
				resource.TestCheckResourceAttr(at, "all_protected", "false"),
			),
		},
	)
}
