package provider_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// machineOf adds a machine to the shared vcenter, and takes it away at the end.
func machineOf(t *testing.T, s lab.VMSpec) {
	t.Helper()
	if _, err := house.lab.AddVM(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	resync(t)
	t.Cleanup(func() {
		if err := house.lab.RemoveVM(t.Context(), s.Name); err != nil {
			t.Error(err)
		}
	})
}

// TestRestoreOfOneDiskReplacesThatOneAndLeavesTheOthers is refused while the
// machine runs, with what to do; then one of two disks is the image's.
func TestRestoreOfOneDiskReplacesThatOneAndLeavesTheOthers(t *testing.T) {
	machineOf(t, lab.VMSpec{Name: "twodisks", Disks: []int64{1 << 20, 2 << 20}})
	then, image := sums(t, house.lab, "twodisks"), backup(t, "twodisks")
	for key := range then {
		if err := house.lab.GuestWriteRandom("twodisks", key, 1000, 100_000, 21); err != nil {
			t.Fatal(err)
		}
	}
	now := sums(t, house.lab, "twodisks")
	p := newProgram(t, restore(image.ID, fmt.Sprintf(`disk = { source_disk_label = "Hard disk 2", virtual_machine_id = %q, mode = "replace" }`, vmID(t, "twodisks"))))
	refused := p.refused("plan", "-no-color", "-input=false")
	if !words(`Power the machine off before the apply`).MatchString(refused) || !words("Code vm_running").MatchString(refused) || strings.Contains(refused, "in_place") {
		t.Errorf("the plan for a machine that runs says:\n%s", refused)
	}
	power(t, "twodisks", false)
	plan := p.ok("plan", "-no-color", "-input=false")
	if !words(`"Hard disk 2" of VM "twodisks" will be replaced`).MatchString(plan) {
		t.Errorf("the plan does not warn:\n%s", plan)
	}
	if out := p.ok("apply", "-no-color", "-input=false", "-auto-approve"); !words(`The restore succeeded and has this to say`).MatchString(out) || !words("are kept in the VM's folder until").MatchString(out) {
		t.Errorf("the apply does not tell where the former disk is:\n%s", out)
	}
	if got := sums(t, house.lab, "twodisks"); len(got) != 2 || got[2000] != now[2000] || got[2001] != then[2001] {
		t.Errorf("the disks are %v, want the first as in %v and the second as in %v", got, now, then)
	}
	if again := p.ok("plan", "-no-color", "-input=false", "-detailed-exitcode"); !strings.Contains(again, "No changes") {
		t.Errorf("the plan after it is not empty:\n%s", again)
	}
}

// TestANewMachineGetsTheStoragePolicyOfItsConfiguration asks for one that there
// is, and for one that is not.
func TestANewMachineGetsTheStoragePolicyOfItsConfiguration(t *testing.T) {
	const policy = "vSAN Default Storage Policy"
	image := backup(t, "vm01")
	apply(t,
		resource.TestStep{
			Config: restore(image.ID, `new_vm = { name = "vm01-gold", storage_policy = "platinum" }`), PlanOnly: true,
			ExpectError: words(`"platinum"`),
		},
		resource.TestStep{
			Config: restore(image.ID, fmt.Sprintf(`new_vm = { name = "vm01-gold", storage_policy = %q }`, policy)), ConfigPlanChecks: emptyPlan,
			Check: func(*terraform.State) error {
				got, err := house.lab.StoragePolicies("vm01-gold")
				if err != nil {
					return err
				}
				for key, name := range got {
					if name != policy {
						return fmt.Errorf("the policy of %d is %q, want %q", key, name, policy)
					}
				}
				if want := 1 + len(sums(t, house.lab, "vm01-gold")); len(got) != want {
					return fmt.Errorf("%d policies are set, want %d: of the machine and each disk", len(got), want)
				}
				return nil
			},
		},
	)
}

// TestAConsistentGroupIsOneInstant makes the group of configuration, runs it,
// and finds the spread of its snapshots.
func TestAConsistentGroupIsOneInstant(t *testing.T) {
	const at = "kura_backup_group.t"
	config := func(consistent string) string {
		return fmt.Sprintf("resource \"kura_backup_group\" \"t\" {\n  name = \"pair\"\n  virtual_machine_ids = [%q, %q]\n%s\n}\n", vmID(t, "vm01"), vmID(t, "vm02"), consistent)
	}
	var id string
	apply(t,
		resource.TestStep{Config: config(""), ConfigPlanChecks: emptyPlan, Check: resource.ComposeAggregateTestCheckFunc(
			keepID(at, &id), resource.TestCheckResourceAttr(at, "consistent", "false"))},
		resource.TestStep{
			Config: config("consistent = true\n  on_member_failure = \"fail\""), ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(
				keepID(at, &id),
				resource.TestCheckResourceAttr(at, "consistent", "true"),
				resource.TestCheckResourceAttr(at, "on_member_failure", "fail"),
				func(*terraform.State) error { return oneInstant(t, id) },
			),
		},
		resource.TestStep{ResourceName: at, ImportState: true, ImportStateVerify: true},
	)
}

// oneInstant runs a consistent group and looks at the run.
func oneInstant(t *testing.T, group string) error {
	t.Helper()
	a, err := house.api.BackupGroupWithResponse(t.Context(), group, &api.BackupGroupParams{}, api.BackupOptions{RetentionDays: 1})
	ok(t, a, err)
	var run api.Run
	until(t, "the end of the run", func() bool {
		r, err := house.api.GetRunWithResponse(t.Context(), a.JSON202.ID)
		ok(t, r, err)
		run = *r.JSON200
		return run.State != api.RunStateQueued && run.State != api.RunStateRunning
	})
	if run.State != api.RunStateSucceeded || run.SpreadSeconds <= 0 || run.SpreadSeconds > 60 {
		return fmt.Errorf("the run ended %s with a spread of %g s", run.State, run.SpreadSeconds)
	}
	return nil
}
