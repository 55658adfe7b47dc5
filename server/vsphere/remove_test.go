package vsphere_test

import (
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestAVMIsRemovedOnlyIfItIsTheOneThatIsMeantAndIsOff(t *testing.T) {
	l := newLab(t, small())
	c, v := connector(t, quick()), vcenter(l)
	m, err := l.VM("vm01")
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, c.RemoveVM(t.Context(), v, m.Moid, "50159b1c-0000-0000-0000-000000000000"), backup.Conflict)
	wantCode(t, c.RemoveVM(t.Context(), v, m.Moid, m.InstanceUUID), backup.VMRunning)
	if err := l.SetPower(t.Context(), "vm01", false); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is gone, which is no error
		if err := c.RemoveVM(t.Context(), v, m.Moid, m.InstanceUUID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.VM("vm01"); err == nil {
		t.Error("vm01 is still there")
	}
	if n := len(l.VMs()); n != 3 {
		t.Errorf("%d VMs are left, want the 3 others", n)
	}
}
