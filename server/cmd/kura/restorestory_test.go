package main

import (
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestARunAndADiskAreRestoredFromTheCommandLine restores against a real server
// and the lab what the other story does not: all of a run, one disk in both
// modes, and a VM that is backed up before it is overwritten.
func TestARunAndADiskAreRestoredFromTheCommandLine(t *testing.T) {
	h := newHouse(t, lab.Config{VMs: 2, DiskSize: 8 << 20})
	h.kura(0, "vcenter", "create", "lab", h.lab.Endpoint(), "--username", h.lab.User(), "--thumbprint", h.lab.Thumbprint(), "--wait")
	before := h.sums("vm02")
	h.kura(0, "vm", "backup", "vm02", "--wait")
	image := list[api.BackupImage](h, "image", "list", "--vm", "vm02")[0]

	h.kura(0, "restore", "create", "--run", image.RunID, "--new-vm-prefix", "drill-", "--wait")
	if got := h.sums("drill-vm02"); got != before {
		t.Errorf("the VM of the run holds %s, want %s", got, before)
	}
	r := h.kura(1, "restore", "create", "--run", image.RunID, "--new-vm-prefix", "drill-") // its name is taken by now
	if !strings.Contains(r.errout, "already holds a VM") || !strings.Contains(r.errout, "none was begun") {
		t.Errorf("a second drill printed %s, want the names refused", r.errout)
	}

	r = h.kura(0, "restore", "create", "--image", image.ID, "--disk", "Hard disk 2", "--vm", "vm01", "--attach", "--wait")
	if !strings.Contains(r.out, "was attached to \"vm01\" as Hard disk 2") {
		t.Errorf("the attached disk is told as\n%s", r.out)
	}
	if r := h.kura(1, "restore", "create", "--image", image.ID, "--disk", "Hard disk 2"); !strings.Contains(r.errout, "Code: vm_running") {
		t.Errorf("replacing the disk of a running VM printed %s, want vm_running", r.errout)
	}
	if err := h.lab.GuestWriteRandom("vm02", image.Disks[1].Key, 0, 1<<20, 7); err != nil {
		t.Fatal(err)
	}
	if err := h.lab.SetPower(h.Context(), "vm02", false); err != nil {
		t.Fatal(err)
	}
	h.kura(0, "restore", "create", "--image", image.ID, "--disk", "Hard disk 2", "--wait") // the inventory still has it running
	if got := h.sums("vm02"); got != before {
		t.Errorf("the VM holds %s, want %s", got, before)
	}

	r = h.kura(0, "restore", "create", "--image", image.ID, "--in-place", "--safety", "image", "--wait")
	images := list[api.BackupImage](h, "image", "list", "--vm", "vm02")
	if len(images) != 2 || !strings.Contains(r.out, images[0].ID) && !strings.Contains(r.out, images[1].ID) {
		t.Errorf("%d images of the VM, want one more, named in\n%s", len(images), r.out)
	}
	if got := h.sums("vm02"); got != before {
		t.Errorf("the VM holds %s, want %s", got, before)
	}
}
