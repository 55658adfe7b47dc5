package provider_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

func restore(image, body string) string {
	return fmt.Sprintf("resource \"kura_restore\" \"t\" {\n  image_id = %q\n%s\n}\n", image, body)
}

// restores lists what the server knows of restores of an image, newest first.
func restores(t *testing.T, image string) []api.Restore {
	t.Helper()
	a, err := house.api.ListRestoresWithResponse(t.Context(), &api.ListRestoresParams{Limit: 1000})
	ok(t, a, err)
	return slices.DeleteFunc(a.JSON200.Items, func(r api.Restore) bool { return r.ImageID != image })
}

// stall lets the next upload to the lab stand still, so that a restore runs on.
func stall(t *testing.T, for_ time.Duration) {
	t.Helper()
	arm(t, lab.Fault{Kind: "stream_stall", After: 4096, Delay: for_})
}

func arm(t *testing.T, f lab.Fault) {
	t.Helper()
	if err := house.lab.Arm(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(house.lab.ClearFaults)
}

// until waits for something that the server does by itself, and fails after
// some minutes: race detection on a busy machine is slow.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(4 * time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited four minutes for %s", what)
		}
	}
}

func power(t *testing.T, name string, on bool) {
	t.Helper()
	if err := house.lab.SetPower(t.Context(), name, on); err != nil {
		t.Fatal(err)
	}
	resync(t)
}

// resync lets the server read the inventory now.
func resync(t *testing.T) {
	t.Helper()
	a, err := house.api.SyncVCenterWithResponse(t.Context(), house.vcenter.ID, &api.SyncVCenterParams{})
	ok(t, a, err)
	if job, err := house.api.FollowJob(t.Context(), a.JSON202.ID, nil); err != nil || job.State != api.JobStateSucceeded {
		t.Fatalf("sync ended %s: %v", job.State, err)
	}
}

func scribble(t *testing.T, name string, seed uint64) {
	t.Helper()
	for key := range sums(t, house.lab, name) {
		if err := house.lab.GuestWriteRandom(name, key, 1<<20, 1<<19, seed); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRestoreToANewMachineByteForByte looks the newest image up and restores it
// to a new machine; its disks equal the original's at the time of the backup.
//
// seed:N1 seed:N8 seed:N9 seed:N42
func TestRestoreToANewMachineByteForByte(t *testing.T) {
	const at = "kura_restore.t"
	want := sums(t, house.lab, "vm01")
	image := backup(t, "vm01")
	scribble(t, "vm01", 11)
	apply(t,
		resource.TestStep{
			Config: `
data "kura_backup_image" "newest" {
  virtual_machine_name = "vm01"
  most_recent          = true
}

resource "kura_restore" "t" {
  image_id = data.kura_backup_image.newest.id
  new_vm   = { name = "vm01-copy" }
}
`,
			ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(
				resource.TestCheckResourceAttr("data.kura_backup_image.newest", "id", image.ID),
				resource.TestCheckResourceAttr(at, "status", "succeeded"),
				resource.TestCheckResourceAttr(at, "restored_vm.name", "vm01-copy"),
				func(s *terraform.State) error {
					vm, err := house.lab.VM("vm01-copy")
					if err != nil {
						return err
					}
					if vm.Moid != s.RootModule().Resources[at].Primary.Attributes["restored_vm.moid"] || vm.PowerState != "poweredOff" {
						return fmt.Errorf("the new machine is %+v, want the one of the state, powered off", vm)
					}
					if got := sums(t, house.lab, "vm01-copy"); !maps.Equal(got, want) {
						return fmt.Errorf("disks of the new machine are %v, want %v", got, want)
					}
					return nil
				},
			),
		},
		resource.TestStep{ResourceName: at, ImportState: true, ImportStateVerify: true},
		resource.TestStep{ResourceName: at, ImportState: true, ImportStateId: "name/x", ExpectError: words(`A restore has no name, so it is imported by its id`)},
	)
	// Rule 4: what was restored stays.
	if _, err := house.lab.VM("vm01-copy"); err != nil {
		t.Errorf("destroying the restore touched its machine: %v", err)
	}
}

// TestRestoreInPlaceByteForByte overwrites a running machine, after the plan has
// said so.
//
// seed:N4 seed:N9 seed:N66
func TestRestoreInPlaceByteForByte(t *testing.T) {
	want, image := sums(t, house.lab, "vm02"), backup(t, "vm02")
	scribble(t, "vm02", 12)
	before, err := house.lab.VM("vm02")
	if err != nil {
		t.Fatal(err)
	}

	p := newProgram(t, restore(image.ID, `in_place = {}`))
	refused := p.refused("plan", "-no-color", "-input=false")
	if !words(`Let the restore power it off: in_place = { power_off = true }`).MatchString(refused) || !words("Code vm_running").MatchString(refused) {
		t.Errorf("the plan of a running machine says:\n%s", refused)
	}
	p.write(restore(image.ID, `in_place = { power_off = true }`))
	plan := p.ok("plan", "-no-color", "-input=false")
	for _, w := range []string{`This apply restores a machine`, `"vm02" will be overwritten`, `passwords of that time`, `is running and will be powered off`} {
		if !words(w).MatchString(plan) {
			t.Errorf("the plan does not warn %q:\n%s", w, plan)
		}
	}
	p.apply()
	if got := sums(t, house.lab, "vm02"); !maps.Equal(got, want) {
		t.Errorf("disks after the restore in place are %v, want %v", got, want)
	}
	after, err := house.lab.VM("vm02")
	if err != nil || after.Moid != before.Moid || after.InstanceUUID != before.InstanceUUID || after.PowerState != "poweredOff" {
		t.Errorf("in place made %+v of %+v, %v; want the same machine, powered off", after, before, err)
	}
	if again := p.ok("plan", "-no-color", "-input=false", "-detailed-exitcode"); !strings.Contains(again, "No changes") {
		t.Errorf("the plan after the restore is not empty:\n%s", again)
	}
}

// TestRule1RunningRestoreIsJoinedAndAnUntoldSuccessIsHandedOver outlasts the
// timeout of a first apply, joins the restore with a second, and takes the
// result of a third's with a fourth. After the delivery, the same configuration
// in another workspace runs a restore of its own.
func TestRule1RunningRestoreIsJoinedAndAnUntoldSuccessIsHandedOver(t *testing.T) {
	image := backup(t, "vm03")
	power(t, "vm03", false)
	short := restore(image.ID, "in_place = {}\ntimeouts = { create = \"1s\" }")
	long := restore(image.ID, "in_place = {}")

	stall(t, 6*time.Second)
	p := newProgram(t, short)
	if out := p.refused(); !words(`Restore goes on without Terraform`).MatchString(out) {
		t.Fatalf("an apply that times out says:\n%s", out)
	}
	first := restores(t, image.ID)
	if len(first) != 1 || first[0].Status.Final() {
		t.Fatalf("after the timeout the server has %+v, want one restore that runs", first)
	}
	p.write(long)
	p.apply()
	if now := restores(t, image.ID); len(now) != 1 || now[0].ID != first[0].ID || now[0].Status != api.JobStateSucceeded {
		t.Fatalf("after the second apply the server has %+v, want %s, joined and succeeded", now, first[0].ID)
	}

	// Another workspace with the same configuration must not get green without a restore.
	stall(t, 3*time.Second)
	other := newProgram(t, short)
	other.refused()
	second := restores(t, image.ID)
	if len(second) != 2 || second[0].ID == first[0].ID {
		t.Fatalf("the second workspace left %+v, want a restore of its own", second)
	}
	until(t, "the end of the second restore", func() bool { return restores(t, image.ID)[0].Status.Final() })
	other.write(long)
	other.apply()
	if now := restores(t, image.ID); len(now) != 2 || !strings.Contains(other.ok("show", "-no-color"), second[0].ID) {
		t.Errorf("after the success nobody waited for the server has %+v, want no third restore and %s in the state", now, second[0].ID)
	}
}

// TestRule2FailedRestoreLeavesNoState shows a restore that fails in the server.
func TestRule2FailedRestoreLeavesNoState(t *testing.T) {
	image := backup(t, "vm04")
	arm(t, lab.Fault{Kind: "datastore_full", Count: -1})
	p := newProgram(t, restore(image.ID, `new_vm = { name = "vm04-full" }`))
	out := p.refused()
	if !words(`Restore failed`).MatchString(out) || !words(`kura job show`).MatchString(out) || !words("Nothing was stored").MatchString(out) {
		t.Errorf("a restore that fails says:\n%s", out)
	}
	if left := p.state(); len(left) != 0 {
		t.Errorf("the failed restore left %v in the state", left)
	}
	house.lab.ClearFaults()
	p.apply()
	if n := len(restores(t, image.ID)); n != 2 {
		t.Errorf("the server has %d restores, want 2: the failed one is not joined", n)
	}
}

// TestRule2InterruptLeavesNoStateAndCancelsNothing stops terraform while it
// waits; the restore goes on, and the next apply takes it over.
func TestRule2InterruptLeavesNoStateAndCancelsNothing(t *testing.T) {
	image := backup(t, "vm04")
	stall(t, 6*time.Second)
	p := newProgram(t, restore(image.ID, `new_vm = { name = "vm04-interrupted" }`))
	cmd := p.command("apply", "-no-color", "-input=false", "-auto-approve")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the restore to run", func() bool {
		all := restores(t, image.ID)
		return len(all) == 1 && all[0].Status == api.JobStateRunning
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the interrupted apply succeeded")
	}
	if left := p.state(); len(left) != 0 {
		t.Errorf("the interrupted restore left %v in the state", left)
	}
	if now := restores(t, image.ID); len(now) != 1 || now[0].Status.Final() {
		t.Fatalf("after the interrupt the server has %+v, want one restore that runs", now)
	}
	p.apply()
	if now := restores(t, image.ID); len(now) != 1 || now[0].Status != api.JobStateSucceeded {
		t.Errorf("after the next apply the server has %+v, want the same restore, succeeded", now)
	}
}

// TestRule3NothingButTriggersImageAndTargetRestoresAgain changes what runs
// nothing, prunes the record, and changes what makes a new machine anew.
func TestRule3NothingButTriggersImageAndTargetRestoresAgain(t *testing.T) {
	const at = "kura_restore.t"
	var id string
	image := backup(t, "vm05")
	config := func(body string) string { return restore(image.ID, body) }
	replaced := resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectResourceAction(at, plancheck.ResourceActionReplace)}}
	apply(t,
		resource.TestStep{Config: config(`new_vm = { name = "vm05-a" }`), ConfigPlanChecks: emptyPlan, Check: keepID(at, &id)},
		resource.TestStep{
			Config: config("new_vm = { name = \"vm05-a\" }\ndescription = \"for the auditors\"\ntimeouts = { create = \"2h\" }"),
			ConfigPlanChecks: resource.ConfigPlanChecks{
				PreApply:             []plancheck.PlanCheck{plancheck.ExpectResourceAction(at, plancheck.ResourceActionUpdate)},
				PostApplyPostRefresh: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()},
			},
			Check: keepID(at, &id),
		},
		resource.TestStep{
			PreConfig: func() {
				a, err := house.api.DeleteRestoreWithResponse(t.Context(), id, nil)
				ok(t, a, err)
			},
			Config:           config("new_vm = { name = \"vm05-a\" }\ndescription = \"for the auditors\"\ntimeouts = { create = \"2h\" }"),
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()}},
			Check:            keepID(at, &id),
		},
		resource.TestStep{Config: config("new_vm = { name = \"vm05-b\" }"), ConfigPlanChecks: replaced},
		resource.TestStep{Config: config("new_vm = { name = \"vm05-c\" }\ntriggers = { run = \"2\" }"), ConfigPlanChecks: replaced},
	)
}

// TestRule3MovedImageNeverOverwritesByItself feeds a restore in place from the
// newest image: when that moves, the plan is refused until a trigger changes.
func TestRule3MovedImageNeverOverwritesByItself(t *testing.T) {
	const at = "kura_restore.t"
	power(t, "vm06", false)
	config := func(body string) string {
		return fmt.Sprintf(`
data "kura_backup_image" "newest" {
  virtual_machine_name = "vm06"
  most_recent          = true
}

resource "kura_restore" "t" {
  image_id = data.kura_backup_image.newest.id
%s
}
`, body)
	}
	backup(t, "vm06")
	again := func() { backup(t, "vm06") }
	replaced := resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectResourceAction(at, plancheck.ResourceActionReplace)}}
	apply(t,
		resource.TestStep{Config: config("in_place = {}\ntriggers = { run = \"1\" }"), ConfigPlanChecks: emptyPlan},
		resource.TestStep{
			PreConfig: again, Config: config("in_place = {}\ntriggers = { run = \"1\" }"),
			ExpectError: words(`To restore again, change a trigger: triggers = { run = "2" }.`),
		},
		resource.TestStep{
			Config:      config("in_place = { safety = \"none\" }\ntriggers = { run = \"1\" }"),
			ExpectError: words(`Restore would overwrite unasked`),
		},
		resource.TestStep{Config: config("in_place = {}\ntriggers = { run = \"2\" }"), ConfigPlanChecks: replaced},
	)
}

// TestRule4DestroyForgetsAndCancels destroys a restore whose record is there:
// the record goes, the machine stays.
func TestRule4DestroyForgetsAndCancels(t *testing.T) {
	image := backup(t, "vm05")
	p := newProgram(t, restore(image.ID, `new_vm = { name = "vm05-kept" }`))
	p.apply()
	// Rule 5: a replacement warns too, though core asks twice and shows the first answer.
	p.write(restore(image.ID, `new_vm = { name = "vm05-other" }`))
	if plan := p.ok("plan", "-no-color", "-input=false"); !words(`VM "vm05-other" will be made of "vm05"`).MatchString(plan) {
		t.Errorf("the plan of a replacement does not warn:\n%s", plan)
	}
	p.ok("destroy", "-no-color", "-input=false", "-auto-approve")
	if left := restores(t, image.ID); len(left) != 0 {
		t.Errorf("the server still has %+v", left)
	}
	if _, err := house.lab.VM("vm05-kept"); err != nil {
		t.Errorf("the restored machine went with its restore: %v", err)
	}
}

// TestAMachineThatIsGoneIsNotOverwritten plans a restore in place of a machine
// that was deleted, and is told to make a new one.
//
// seed:N45 seed:N73
func TestAMachineThatIsGoneIsNotOverwritten(t *testing.T) {
	if _, err := house.lab.AddVM(t.Context(), lab.VMSpec{Name: "mayfly"}); err != nil {
		t.Fatal(err)
	}
	resync(t)
	image := backup(t, "mayfly")
	if err := house.lab.RemoveVM(t.Context(), "mayfly"); err != nil {
		t.Fatal(err)
	}
	resync(t)
	apply(t,
		resource.TestStep{
			Config: restore(image.ID, `in_place = { power_off = true }`), PlanOnly: true,
			ExpectError: words(`Restore it as a new machine: new_vm = { name = "restored" } Code vm_gone`),
		},
		resource.TestStep{Config: restore(image.ID, `new_vm = { name = "mayfly-again" }`), ConfigPlanChecks: emptyPlan},
	)
}

// TestRestoreIsRefusedAtPlan shows what no apply is needed for.
func TestRestoreIsRefusedAtPlan(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"no target":              {``, `Exactly one of these attributes must be configured: [in_place,new_vm,disk]`},
		"two targets":            {"in_place = {}\nnew_vm = { name = \"x\" }", `Exactly one of these attributes must be configured: [in_place,new_vm,disk]`},
		"two places":             {`new_vm = { name = "x", host = "h", cluster = "c" }`, `cannot be specified when`},
		"a disk named twice":     {`disk = { source_disk_key = 2000, source_disk_label = "Hard disk 1", virtual_machine_id = "vm", mode = "attach" }`, `2 attributes specified when one (and only one) of`},
		"an image that is not":   {`new_vm = { name = "x" }`, `Look images up with the data source kura_backup_images`},
		"a mode that is none":    {`disk = { source_disk_key = 2000, virtual_machine_id = "vm", mode = "copy" }`, `value must be one of: ["replace" "attach"]`},
		"a safety that is none":  {`in_place = { safety = "maybe" }`, `value must be one of: ["quick" "image" "none"]`},
		"a trigger without word": {"new_vm = { name = \"x\" }\ntriggers = { run = null }", `null`},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, resource.TestStep{Config: restore("01JDZK3Q8X4T9V2M6B7N5C1R0E", c.body), PlanOnly: true, ExpectError: words(c.want)})
		})
	}
}
