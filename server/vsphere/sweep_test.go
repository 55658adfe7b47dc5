package vsphere_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// reconfigure is what an administrator does to a powered-off VM.
func (r *rig) reconfigure(vm string, cpus int32, memory int64) {
	r.Helper()
	r.ok(r.lab.SetPower(r.Context(), vm, false))
	r.change(vm, types.VirtualMachineConfigSpec{NumCPUs: cpus, MemoryMB: memory})
}

func (r *rig) change(vm string, spec types.VirtualMachineConfigSpec) {
	r.Helper()
	c, err := govmomi.NewClient(r.Context(), r.lab.URL(), true)
	r.ok(err)
	defer func() { _ = c.Logout(context.WithoutCancel(r.Context())) }()
	task, err := object.NewVirtualMachine(c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: r.lab.Moid(vm)}).Reconfigure(r.Context(), spec)
	r.ok(err)
	r.ok(task.Wait(r.Context()))
}

func (r *rig) snap(vm, name string) {
	r.Helper()
	_, err := r.session.CreateSnapshot(r.Context(), backup.SnapshotDraft{MOID: r.lab.Moid(vm), Name: name})
	r.ok(err)
}

func TestASweepRemovesWhatDeadJobsLeftAndNothingElse(t *testing.T) {
	r := setup(t, small())
	r.snap("vm01", "kura:inst:dead:1")
	r.snap("vm01", "kura:inst:live:2")
	r.snap("vm02", "kura:inst:live:1") // an earlier attempt of a job that lives
	r.snap("vm02", "kura:other:dead:1")
	r.snap("vm03", "kura:inst:dead")
	r.snap("vm03", "by hand")
	lines, err := r.session.Sweep(t.Context(), "inst", func(job string, attempt int) bool { return job == "live" && attempt == 2 })
	r.ok(err)
	if len(lines) != 2 || !strings.Contains(lines[0], "kura:inst:dead:1") || !strings.Contains(lines[1], "kura:inst:live:1") {
		t.Errorf("swept %q", lines)
	}
	for vm, want := range map[string][]string{
		"vm01": {"kura:inst:live:2"}, "vm02": {"kura:other:dead:1"}, "vm03": {"by hand", "kura:inst:dead"},
	} {
		got := r.snapshots(vm)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("snapshots of %s = %v, want %v", vm, got, want)
		}
	}
}

func TestAHalfMadeVMIsDestroyedOnlyWhenBothItsMarksSayWhose(t *testing.T) {
	r := setup(t, small())
	mark := func(vm, note, extra string) {
		r.ok(r.lab.SetPower(t.Context(), vm, false))
		r.change(vm, types.VirtualMachineConfigSpec{
			Annotation: note + "\nsome text", ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: "kura.marker", Value: extra}},
		})
	}
	mark("vm01", marker("dead"), marker("dead"))
	mark("vm02", marker("dead"), "")             // a note that someone copied
	mark("vm03", marker("live"), marker("live")) // being made just now
	mark("vm04", "kura:other:dead:1", "kura:other:dead:1")
	change, err := r.session.Inventory(t.Context(), "")
	r.ok(err)
	if len(change.VMs) != 0 {
		t.Errorf("the inventory shows VMs that are being made: %d", len(change.VMs))
	}
	lines, err := r.session.Sweep(t.Context(), "inst", func(job string, _ int) bool { return job == "live" })
	r.ok(err)
	if len(lines) != 1 || !strings.Contains(lines[0], "vm01") {
		t.Errorf("swept %q, want vm01", lines)
	}
	var left []string
	for _, v := range r.lab.VMs() {
		left = append(left, v.Name)
	}
	slices.Sort(left)
	if want := []string{"vm02", "vm03", "vm04"}; !slices.Equal(left, want) {
		t.Errorf("VMs = %v, want %v", left, want)
	}
}
