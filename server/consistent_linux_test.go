package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestKillInEachStepOfAnOfflineBackup: after kill -9 and a new start the VM is
// on, nothing is left, and there is one image.
//
// seed:N64 seed:A32
func TestKillInEachStepOfAnOfflineBackup(t *testing.T) {
	steps := []struct {
		step string
		slow lab.Fault
	}{
		{"shutting the guest down", lab.Fault{Kind: "guest_slow"}},
		{"making the snapshot", lab.Fault{Kind: "task_slow", Method: "CreateSnapshot_Task"}},
		{"powering on", lab.Fault{Kind: "task_slow", Method: "PowerOnVM_Task"}},
	}
	w, p := killWorld(t, lab.Config{VMs: len(steps), DiskSize: 8 << 20})
	v := w.vcenter("lab")
	for i, s := range steps {
		t.Run(strings.ReplaceAll(s.step, " ", "_"), func(t *testing.T) {
			w := &world{T: t, ctx: t.Context(), lab: w.lab, api: client(t, p.url, p.tokenFile())}
			name := fmt.Sprintf("vm%02d", i+1)
			s.slow.VM, s.slow.Delay = name, 2*time.Second
			if err := w.lab.Arm(s.slow); err != nil {
				t.Fatal(err)
			}
			r, err := w.api.BackupVirtualMachineWithResponse(w.ctx, w.vm(v.ID, name).ID, nil, api.BackupOptions{RetentionDays: 31, Consistency: api.ConsistencyOffline})
			w.ok(r, err)
			w.atStep(r.JSON202.Jobs[0].ID, s.step)
			p.kill()
			w.lab.ClearFaults()
			w.restart(p)
			done := w.finish(r.JSON202.ID)
			if done.State != api.RunStateSucceeded {
				t.Errorf("the run ended %s: %+v", done.State, done.Jobs[0].Error)
			}
			w.until("the VM to be on and without a snapshot", func() bool {
				vm := w.machine(name)
				return vm.PowerState == "poweredOn" && len(vm.Snapshots) == 0
			})
			images := w.images(name)
			if len(images) != 1 || images[0].Consistency != api.ConsistencyOffline {
				t.Errorf("images %+v, want one, offline", images)
			}
			if got, err := w.lab.PowerOperations(name); err != nil || got["PowerOnVM_Task"] > 2 || got["PowerOffVM_Task"] != 0 {
				t.Errorf("power operations %v (%v), want the power never cut", got, err)
			}
		})
	}
}

// TestKillWhileTheSnapshotsOfAGroupAreMade: after kill -9 and a new start all
// members have an image of one instant, and no snapshot is left.
func TestKillWhileTheSnapshotsOfAGroupAreMade(t *testing.T) {
	w, p := killWorld(t, lab.Config{VMs: 6, DiskSize: 4 << 20})
	v := w.vcenter("lab")
	g, err := w.api.CreateBackupGroupWithResponse(w.ctx, nil, api.BackupGroup{Name: "all", Consistent: true, Selector: &api.Selector{VCenterID: v.ID}})
	w.ok(g, err)
	if err := w.lab.Arm(lab.Fault{Kind: "task_slow", VM: "vm03", Method: "CreateSnapshot_Task", Delay: 3 * time.Second, Count: -1}); err != nil {
		t.Fatal(err)
	}
	r, err := w.api.BackupGroupWithResponse(w.ctx, g.JSON201.ID, nil, api.BackupOptions{RetentionDays: 31})
	w.ok(r, err)
	lead := slices.IndexFunc(r.JSON202.Jobs, func(j api.Job) bool { return j.Kind == api.JobKindFreeze })
	w.atStep(r.JSON202.Jobs[lead].ID, "making the snapshots")
	w.until("the first snapshots", func() bool { return len(w.machine("vm01").Snapshots) > 0 })
	p.kill()
	w.lab.ClearFaults()
	w.restart(p)
	done := w.finish(r.JSON202.ID)
	if done.State != api.RunStateSucceeded || done.SpreadSeconds <= 0 || done.SpreadSeconds > 20 {
		t.Errorf("the run ended %s with a spread of %g s", done.State, done.SpreadSeconds)
	}
	for i := range 6 {
		name := fmt.Sprintf("vm%02d", i+1)
		if images := w.images(name); len(images) != 1 || images[0].Message != "" {
			t.Errorf("images of %s: %+v, want one of the group's instant", name, images)
		}
		w.until("no snapshots", func() bool { return len(w.machine(name).Snapshots) == 0 })
	}
}
