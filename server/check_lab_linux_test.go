package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// neighbour is what another installation and people have in the same vCenter.
type neighbour struct {
	vm      string // moid of a VM that people have a snapshot of
	staging string // moid of the other installation's half-made VM, with its snapshot
	sums    map[int32]string
}

const (
	neighbourID = "01K9ANOTHER1NSTALLATI0N000"
	// foreignSnapshot is named as a snapshot of the other installation is.
	foreignSnapshot = "kura:" + neighbourID + ":01K9J0B0F0THER000000000000:1"
	peoplesSnapshot = "before the upgrade"
)

// settleNeighbour puts into the lab what no server may touch.
func (c *checker) settleNeighbour() {
	c.t.Helper()
	fatal := func(err error) {
		if err != nil {
			c.t.Fatalf("the neighbour's things: %v", err)
		}
	}
	ctx := c.t.Context()
	vm, err := c.lab.AddVM(ctx, lab.VMSpec{Name: "neighbour", Disks: []int64{1 << 20}})
	fatal(err)
	staging, err := c.lab.AddVM(ctx, lab.VMSpec{Name: foreignSnapshot, Disks: []int64{1 << 20}})
	fatal(err)
	c.neighbour = neighbour{vm: vm.Moid, staging: staging.Moid}
	fatal(c.lab.SetPower(ctx, staging.Moid, false))
	v, err := govmomi.NewClient(ctx, c.lab.URL(), true)
	fatal(err)
	defer func() { _ = v.Logout(ctx) }()
	mark := types.VirtualMachineConfigSpec{Annotation: foreignSnapshot, ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: "kura.marker", Value: foreignSnapshot}}}
	someone := people{ctx, v}
	fatal(someone.reconfigure(staging.Moid, mark))
	fatal(someone.snapshot(vm.Moid, peoplesSnapshot))
	fatal(someone.snapshot(staging.Moid, foreignSnapshot))
	c.neighbour.sums, err = c.sumsOf(ctx, vm.Moid)
	fatal(err)
}

func (c *checker) sumsOf(ctx context.Context, moid string) (map[int32]string, error) {
	vm, err := c.lab.VM(moid)
	if err != nil {
		return nil, err
	}
	sums := map[int32]string{}
	for _, d := range vm.Disks {
		if sums[d.Key], err = c.lab.DiskSHA256(ctx, moid, d.Key); err != nil {
			return nil, err
		}
	}
	return sums, nil
}

// lookAtNeighbour sees that what is another's is as it was.
func (c *checker) lookAtNeighbour(ctx context.Context, say sayer) {
	n := c.neighbour
	for moid, want := range map[string]string{n.vm: peoplesSnapshot, n.staging: foreignSnapshot} {
		vm, err := c.lab.VM(moid)
		switch {
		case err != nil:
			say(1, "A VM of another's is gone: %v.", err)
		case !slices.Contains(vm.Snapshots, want):
			say(1, "The snapshot %q of another's is gone.", want)
		}
	}
	if got, err := c.sumsOf(ctx, n.vm); err != nil || fmt.Sprint(got) != fmt.Sprint(n.sums) {
		say(1, "The disks of another's VM are %v, not %v (%v).", got, n.sums, err)
	}
}

// remains is what a server has made in the vCenter.
type remains struct {
	job     string
	attempt int
	text    string
}

// remainsOf lists what the installation has in the vCenter, but for what a
// restore keeps on purpose, which stands in the VM's own record.
func (c *checker) remainsOf(ctx context.Context, installation string) ([]remains, error) {
	v, err := govmomi.NewClient(ctx, c.lab.URL(), true)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Logout(ctx) }()
	all, err := view.NewManager(v.Client).CreateContainerView(ctx, v.ServiceContent.RootFolder, []string{"VirtualMachine"}, true)
	if err != nil {
		return nil, err
	}
	var vms []mo.VirtualMachine
	if err := all.Retrieve(ctx, []string{"VirtualMachine"}, []string{"name", "snapshot", "config.annotation", "config.extraConfig"}, &vms); err != nil {
		return nil, err
	}
	var out []remains
	note := func(marker, format string, args ...any) {
		if job, attempt, ok := ours(marker, installation); ok {
			out = append(out, remains{job, attempt, fmt.Sprintf(format, args...)})
		}
	}
	for _, vm := range vms {
		text, kept := map[string]string{}, ""
		if vm.Config != nil {
			for _, o := range vm.Config.ExtraConfig {
				text[o.GetOptionValue().Key], _ = o.GetOptionValue().Value.(string)
			}
			first, _, _ := strings.Cut(vm.Config.Annotation, "\n")
			note(first, "The half-made VM %q (%s) is there", vm.Name, first)
		}
		kept = text["kura.kept"]
		var attached []struct {
			Marker string `json:"marker"`
			VM     string `json:"vm"`
		}
		if s := text["kura.attached"]; s != "" {
			if err := json.Unmarshal([]byte(s), &attached); err != nil {
				return nil, err
			}
		}
		for _, a := range attached {
			note(a.Marker, "Disks of the VM %s are attached to %q for %s", a.VM, vm.Name, a.Marker)
		}
		if vm.Snapshot != nil {
			eachSnapshot(vm.Snapshot.RootSnapshotList, func(name string) {
				if !strings.Contains(kept, name) {
					note(name, "The VM %q has the snapshot %s", vm.Name, name)
				}
			})
		}
	}
	return out, nil
}

func eachSnapshot(tree []types.VirtualMachineSnapshotTree, do func(name string)) {
	for _, t := range tree {
		do(t.Name)
		eachSnapshot(t.ChildSnapshotList, do)
	}
}

// ours takes a marker of the installation apart.
func ours(marker, installation string) (job string, attempt int, ok bool) {
	rest, ok := strings.CutPrefix(marker, "kura:"+installation+":")
	if !ok {
		return "", 0, false
	}
	job, n, ok := strings.Cut(rest, ":")
	attempt, err := strconv.Atoi(n)
	return job, attempt, ok && err == nil
}

// unsettled says what is left behind, which VMs are off that were on, and which
// jobs are said to run though nobody runs them. The vCenter is read first: what
// a job that began after that has made cannot be among it.
func (c *checker) unsettled(ctx context.Context, installation string, say sayer) error {
	left, err := c.remainsOf(ctx, installation)
	if err != nil {
		return err
	}
	vms := map[string]lab.VM{}
	for _, vm := range c.lab.VMs() {
		vms[vm.Moid] = vm
	}
	jobs, err := c.openJobs(ctx)
	if err != nil {
		return err
	}
	now := c.clock()
	busy := map[string]bool{} // VMs with a job that runs
	for _, j := range jobs {
		busy[j.vm] = busy[j.vm] || j.live(now)
		if j.state == "running" && !j.live(now) {
			say(5, "The job %s (%s of %q) runs without a live lease: it is %s's until %s", j.id, j.kind, j.vm, j.owner, j.leaseUntil)
		}
	}
	for _, r := range left {
		if !slices.ContainsFunc(jobs, func(j openJob) bool {
			return j.id == r.job && (j.live(now) && j.attempt == r.attempt || j.kept == r.attempt)
		}) {
			say(1, "%s, and no job that runs owns it.", r.text)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for moid, name := range c.on {
		vm, there := vms[moid]
		switch {
		case !there:
			say(6, "The VM %q is gone.", name)
		case vm.PowerState != "poweredOn" && !c.off[moid] && !busy[name]:
			say(6, "The VM %q was on and is %s.", name, vm.PowerState)
		}
	}
	return nil
}

// people is what someone does in the vCenter behind every server's back.
type people struct {
	ctx context.Context
	v   *govmomi.Client
}

func (p people) vm(moid string) *object.VirtualMachine {
	return object.NewVirtualMachine(p.v.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: moid})
}

func (p people) reconfigure(moid string, spec types.VirtualMachineConfigSpec) error {
	t, err := p.vm(moid).Reconfigure(p.ctx, spec)
	if err != nil {
		return err
	}
	return t.Wait(p.ctx)
}

func (p people) snapshot(moid, name string) error {
	t, err := p.vm(moid).CreateSnapshot(p.ctx, name, "", false, false)
	if err != nil {
		return err
	}
	return t.Wait(p.ctx)
}

func (p people) removeSnapshot(moid, name string) error {
	consolidate := true
	t, err := p.vm(moid).RemoveSnapshot(p.ctx, name, false, &consolidate)
	if err != nil {
		return err
	}
	return t.Wait(p.ctx)
}
