package backup_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:N7 seed:N68 seed:A8
func TestAPlanNamesWhatItsScheduleCouldNotProtect(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 4)
	vms[1].Unprotectable = "it is protected by Fault Tolerance, which forbids snapshots"
	vms[2].Disks = append(vms[2].Disks, backup.VMDisk{Key: 2001, Label: "Hard disk 2", Unprotectable: "it is independent"})
	vms[3].Disks[0].Unprotectable = "it is a raw device mapping in physical mode"
	h.save(vms)
	g := h.addGroup("all", vms)
	s := nightly("all", 3)
	s.GroupID = g.ID
	check := func(s backup.Schedule, want ...string) {
		t.Helper()
		_, got, err := h.CheckSchedule(h.ctx, s, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("warnings = %q, want %q", got, want)
		}
		for i, w := range want {
			if !strings.Contains(got[i], w) {
				t.Errorf("warning %q, want it to say %q", got[i], w)
			}
		}
	}
	whole := `2 VMs cannot be backed up, and their backups would fail: "vm02" (it is protected by Fault Tolerance, which forbids snapshots) and "vm04" (no disk of it can be: Hard disk 1: it is a raw device mapping in physical mode)`
	check(s, whole, `1 disk cannot be backed up, so the jobs of these VMs will fail: Hard disk 2 of "vm03" (it is independent)`)
	s.Unprotectable = backup.UnprotectedSkip
	check(s, whole, `1 disk cannot be backed up and will be missing from the images: Hard disk 2 of "vm03" (it is independent)`)
	s.Disks.ExcludeLabels = []string{"Hard disk 2"}
	check(s, whole)
	s.GroupID, s.VMID = "", vms[0].ID
	check(s)
	s.Disks = backup.DiskChoice{IncludeLabels: []string{"Hard disk 7"}}
	check(s, `"vm01" (include_labels and exclude_labels choose none of its 1 disks)`)
}

func TestAScheduleThatWasStoredStillWarnsOfWhatItCannotProtect(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 1)
	s := nightly("one", 3)
	s.VMID = vms[0].ID
	s = h.add(s)
	if w := must(h.ScheduleWarnings(h.ctx, s))(t); len(w) != 0 {
		t.Errorf("warnings = %q, want none", w)
	}
	vms[0].Unprotectable = "it is a template"
	h.save(vms)
	if w := must(h.ScheduleWarnings(h.ctx, s))(t); len(w) != 1 || !strings.Contains(w[0], `"vm01" (it is a template)`) {
		t.Errorf("warnings = %q, want the VM that became a template", w)
	}
}

func TestAnotherTransportHasTheInventoryReadAnew(t *testing.T) {
	h := newHouse(t, 10)
	syncs := func() int {
		t.Helper()
		return len(read(h, func(tx backup.Tx) ([]backup.Job, error) {
			all, _, err := tx.Jobs(h.ctx, backup.JobFilter{Kind: backup.KindSync, VCenterID: h.vcenter.ID, Active: true})
			return all, err
		}))
	}
	h.update(func(tx backup.Tx) error { // the first one, of the new vcenter, is over
		jobs, _, err := tx.Jobs(h.ctx, backup.JobFilter{Kind: backup.KindSync})
		if err != nil || len(jobs) != 1 {
			return fmt.Errorf("%d syncs of a new vcenter: %w", len(jobs), err)
		}
		return tx.EndJob(h.ctx, jobs[0].ID, backup.Ending{State: backup.JobSucceeded})
	})
	h.vcenter.SlotCapacity++
	h.vcenter = must(h.UpdateVCenter(h.ctx, h.vcenter))(t)
	if n := syncs(); n != 0 {
		t.Errorf("another capacity asks for %d syncs, want none", n)
	}
	h.vcenter.Transport = backup.TransportNFC
	must(h.UpdateVCenter(h.ctx, h.vcenter))(t)
	if n := syncs(); n != 1 {
		t.Errorf("another transport asks for %d syncs, want one", n)
	}
}
