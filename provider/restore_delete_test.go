package provider_test

import (
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
)

// TestRule4ARestoredMachineIsDeletedOnlyWhenToldTo: one that runs is refused,
// and stays; a setting that means nothing for the target is refused at plan.
func TestRule4ARestoredMachineIsDeletedOnlyWhenToldTo(t *testing.T) {
	image := backup(t, "vm05")
	const name = "vm05-passing"
	p := newProgram(t, restore(image.ID, `new_vm = { name = "`+name+`" }
  delete_restored_vm_on_destroy = true`))
	p.apply()
	unchanged(t, p)
	if err := house.lab.SetPower(t.Context(), name, true); err != nil {
		t.Fatal(err)
	}
	if out, err := p.run("destroy", "-no-color", "-input=false", "-auto-approve"); err == nil || !words(`Power the machine off first, or apply delete_restored_vm_on_destroy = false to keep it.`).MatchString(out) {
		t.Errorf("destroy of a machine that runs: %v\n%s", err, out)
	}
	if err := house.lab.SetPower(t.Context(), name, false); err != nil {
		t.Fatal(err)
	}
	p.ok("destroy", "-no-color", "-input=false", "-auto-approve")
	if vm, err := house.lab.VM(name); err == nil {
		t.Errorf("the machine is still there: %+v", vm)
	}
	apply(t, resource.TestStep{
		Config:   restore(image.ID, "in_place = { power_off = true }\n delete_restored_vm_on_destroy = true"),
		PlanOnly: true, ExpectError: words(`"new_vm" must be specified when "delete_restored_vm_on_destroy" is specified`),
	})
}
