package vsphere_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

const (
	vsan   = "vSAN Default Storage Policy"
	sealed = "VM Encryption Policy"
)

func TestANewVMGetsTheStoragePolicyThatIsNamed(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	done, err := r.restore(img, "r1", backup.RestoreNewVM{Name: "copy", StoragePolicy: vsan})
	r.ok(err)
	r.sameDisks(img, done.MOID)
	got, err := r.lab.StoragePolicies("copy")
	r.ok(err)
	if len(got) != 1+len(img.disks) {
		t.Errorf("policies are %v, want one for the VM and each disk", got)
	}
	for key, name := range got {
		if name != vsan {
			t.Errorf("the policy of %d is %q, want %q", key, name, vsan)
		}
	}
	n := backup.RestoreNewVM{Name: "other", StoragePolicy: "platinum"}
	_, looked := r.look(img, "", backup.RestoreCheck{NewVM: &n})
	_, done2 := r.restore(img, "r2", n)
	for _, err := range []error{looked, done2} {
		if e := wantCode(t, err, backup.Invalid); e.Field != "new_vm.storage_policy" || !strings.Contains(e.Message, vsan) {
			t.Errorf("field %q, message %q, want the policies that there are", e.Field, e.Message)
		}
	}
	r.noTrace("other")
}

// TestAnOverwrittenVMKeepsItsStoragePolicies: the disks are new ones, and
// without the policy they would have the datastore's.
func TestAnOverwrittenVMKeepsItsStoragePolicies(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "b1")
	r.ok(r.lab.SetPower(t.Context(), "vm02", false))
	first := r.devices("vm02").FindByKey(img.manifest.Image.Disks[0].Key)
	r.change("vm02", types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{
		Operation: "edit", Device: first, Profile: []types.BaseVirtualMachineProfileSpec{&types.VirtualMachineDefinedProfileSpec{ProfileId: r.policy(sealed)}},
	}}})
	was, err := r.lab.StoragePolicies("vm02")
	r.ok(err)
	if len(was) != 1 || was[2000] != sealed {
		t.Fatalf("policies are %v, want one on the first disk", was)
	}
	_, messages, err := r.overwrite(img, "vm02", "r1", backup.RestoreInPlace{})
	r.ok(err)
	is, err := r.lab.StoragePolicies("vm02")
	r.ok(err)
	if fmt.Sprint(is) != fmt.Sprint(was) {
		t.Errorf("policies are %v, want %v (%q)", is, was, messages)
	}
}

// policy is the id of a storage policy: of a VM that was made by its name.
func (r *rig) policy(name string) string {
	r.Helper()
	id, err := r.lab.StoragePolicyID(name)
	r.ok(err)
	return id
}
