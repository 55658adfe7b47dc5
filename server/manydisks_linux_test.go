package server_test

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/nfc"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestManyDisksAtOnceKeepUpWithCurl backs up one VM, then several and then many
// at once over nfc, and has curl read the same leases: what is left of the
// rate when bytes are compared, compressed, encrypted and kept, and in how
// much memory. KURA_PROVE_JOBS_MIB is what each disk holds: "make
// prove-vsphere" has 512, and 1, 20 and 48 of them.
func TestManyDisksAtOnceKeepUpWithCurl(t *testing.T) {
	mib, err := strconv.ParseInt(cmp.Or(os.Getenv("KURA_PROVE_JOBS_MIB"), "8"), 10, 64)
	if err != nil || mib < 1 {
		t.Fatalf("KURA_PROVE_JOBS_MIB = %q, want a number of at least 1", os.Getenv("KURA_PROVE_JOBS_MIB"))
	}
	counts := []int{1, 4}
	if mib >= 128 {
		counts = []int{1, 20, 48}
	}
	most := slices.Max(counts)
	fill := 0.5
	l := newLab(t, lab.Config{VMs: -1, Hosts: 4, Datastores: 16})
	for i := range most {
		if _, err := l.AddVM(t.Context(), lab.VMSpec{Name: fmt.Sprintf("disk%02d", i), Disks: []int64{2 * mib << 20}, Fill: &fill}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range counts {
		p := spawn(t, child{Slots: most})
		w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, p.url, p.tokenFile())}
		curl, wire := curlAll(t, l, n)
		cpu := p.cpu()
		ours, memory, mib := w.backupFirst(p, n)
		t.Logf("%2d disks, %7.1f MiB of data: curl %6.2f s, kura %6.2f s, %.2f of its rate, %6.1f CPU-s, %4.0f MiB of memory", n,
			mib, curl.Seconds(), ours.Seconds(), curl.Seconds()/ours.Seconds(), (p.cpu() - cpu).Seconds(), memory)
		if wire < mib/10 || mib < float64(n) {
			t.Errorf("%d disks: curl read %.1f MiB of streams, kura %.1f of data", n, wire, mib)
		}
		p.kill()
	}
}

// backupFirst backs the first n VMs up at once, into an empty repository.
func (w *world) backupFirst(p *process, n int) (took time.Duration, memory, mib float64) {
	w.Helper()
	c, err := w.api.CreateVCenterWithResponse(w.ctx, nil, api.VCenter{Name: "lab", Endpoint: w.lab.Endpoint(), Username: w.lab.User(), Password: w.lab.Password(),
		Thumbprint: w.lab.Thumbprint(), SlotCapacity: 100, Limits: &api.VCenterLimits{DisksPerHost: 48, Disks: 52, JobsPerDatastore: 48}})
	w.ok(c, err)
	v := *c.JSON201
	w.until("the inventory", func() bool {
		g, err := w.api.GetVCenterWithResponse(w.ctx, v.ID)
		w.ok(g, err)
		return g.JSON200.SyncState == api.SyncStateReady
	})
	var ids []string
	for i := range n {
		ids = append(ids, w.vm(v.ID, fmt.Sprintf("disk%02d", i)).ID)
	}
	g, err := w.api.CreateBackupGroupWithResponse(w.ctx, nil, api.BackupGroup{Name: "all", VirtualMachineIDs: ids})
	w.ok(g, err)
	p.forgetPeak()
	began := time.Now()
	r, err := w.api.BackupGroupWithResponse(w.ctx, g.JSON201.ID, nil, api.BackupOptions{RetentionDays: 31})
	w.ok(r, err)
	run := w.finish(r.JSON202.ID)
	took = time.Since(began)
	if run.State != api.RunStateSucceeded || len(run.Jobs) != n {
		w.Fatalf("the run of %d VMs ended %s with %d jobs: %s", n, run.State, len(run.Jobs), run.Message)
	}
	for _, j := range run.Jobs {
		mib += float64(w.image(j.ImageID).Sizes.Read) / (1 << 20)
	}
	return took, float64(p.peak()) / (1 << 20), mib
}

// curlAll has curl read the export leases of the first n VMs, all at once, to nowhere.
func curlAll(t *testing.T, l *lab.Lab, n int) (took time.Duration, mib float64) {
	t.Helper()
	u, err := url.Parse(l.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	u.Path, u.User = vim25.Path, url.UserPassword(l.User(), l.Password())
	c, err := govmomi.NewClient(t.Context(), u, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Logout(context.WithoutCancel(t.Context())) }()
	began, traffic := time.Now(), l.Traffic()
	done := make(chan error, n)
	for i := range n {
		moid := l.Moid(fmt.Sprintf("disk%02d", i))
		go func() { done <- curlOne(t.Context(), c.Client, moid) }()
	}
	for range n {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(began), float64(l.Traffic()-traffic) / (1 << 20)
}

func curlOne(ctx context.Context, c *vim25.Client, moid string) error {
	vm := object.NewVirtualMachine(c, types.ManagedObjectReference{Type: "VirtualMachine", Value: moid})
	task, err := vm.CreateSnapshot(ctx, "curl", "", false, false)
	if err != nil {
		return err
	}
	info, err := task.WaitForResult(ctx, nil)
	if err != nil {
		return err
	}
	snapshot := info.Result.(types.ManagedObjectReference)
	lease, err := vm.ExportSnapshot(ctx, &snapshot)
	if err != nil {
		return err
	}
	if err := curlLease(ctx, lease); err != nil {
		return err
	}
	consolidate := true
	task, err = vm.RemoveSnapshot(ctx, snapshot.Value, false, &consolidate)
	if err != nil {
		return err
	}
	return task.Wait(ctx)
}

func curlLease(ctx context.Context, lease *nfc.Lease) error {
	info, err := lease.Wait(ctx, nil)
	if err != nil {
		return err
	}
	for _, i := range info.Items {
		cmd := exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--fail", "--insecure", "--output", os.DevNull, i.URL.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("curl: %w: %s", err, out)
		}
	}
	return lease.Complete(ctx)
}
