package server_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
)

// cancelWithin is how long a job may go on after it was told to stop, and what
// it made may stay.
const cancelWithin = 5 * time.Second

// slowDevice is a disk of which each piece takes its time.
type slowDevice struct {
	server.Device
	pace time.Duration
}

func (d slowDevice) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(d.pace)
	return d.Device.ReadAt(p, off)
}

func (d slowDevice) WriteAt(p []byte, off int64) (int, error) {
	time.Sleep(d.pace)
	return d.Device.WriteAt(p, off)
}

// cancelHall is a server with a proxy and a program that serves disks over NBD,
// all of them slow.
type cancelHall struct {
	*checkedWorld
	vms map[string]api.VirtualMachine
	v   api.VCenter
}

func newCancelHall(t *testing.T, vms int) *cancelHall {
	t.Helper()
	l := newLab(t, lab.Config{VMs: vms + 1, DiskSize: 16 << 20, KeepSums: true})
	proxy := l.VMs()[slices.IndexFunc(l.VMs(), func(v lab.VM) bool { return v.Name == "vm01" })].Name
	uuid, err := l.MakeProxy(proxy)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "serve")
	script := "#!/bin/sh\nexec nbdkit -f -r --exit-with-parent -U \"$KURA_NBD_SOCKET\" --filter=delay pattern 16M rdelay=60\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	conf := server.Config{Data: t.TempDir(), Slots: 32, ProxyUUID: uuid, NBDCommand: program, CopyRate: 1 << 20,
		OpenDevice: func(ctx context.Context, uuid string, writable bool) (server.Device, error) {
			d, err := l.OpenDevice(ctx, proxy, uuid, writable)
			return slowDevice{d, 500 * time.Millisecond}, err
		}}
	h := &cancelHall{checkedWorld: &checkedWorld{world: &world{T: t, ctx: t.Context(), lab: l}, conf: conf, checker: newChecker(t, l, checked{
		Database: "sqlite:" + filepath.Join(conf.Data, "kura.db"), KeyFile: filepath.Join(conf.Data, "kura.key"),
	})}, vms: map[string]api.VirtualMachine{}}
	h.serve(server.RoleAll)
	h.v = h.vcenterWith(api.VCenter{Name: "lab", Transport: api.TransportNfc})
	for _, vm := range h.world.vms(h.v.ID) {
		h.vms[vm.Name] = vm
	}
	return h
}

// transport changes the way of the bytes.
func (h *cancelHall) transport(way api.Transport) {
	h.Helper()
	g, err := h.api.GetVCenterWithResponse(h.ctx, h.v.ID)
	h.ok(g, err)
	change := *g.JSON200
	change.Transport, change.Password = way, h.lab.Password()
	h.ok(h.api.UpdateVCenterWithResponse(h.ctx, h.v.ID, &api.UpdateVCenterParams{IfMatch: "*"}, change))
}

func (h *cancelHall) slowly(f lab.Fault) {
	h.Helper()
	if f.Delay == 0 {
		f.Delay = time.Minute
	}
	if err := h.lab.Arm(f); err != nil {
		h.Fatal(err)
	}
}

// cancelled tells the job to stop while it takes the step, and fails the test
// when it or anything that it made is there for longer than it may.
func (h *cancelHall) cancelled(jobID, step string, and func() bool, want api.JobState) {
	h.Helper()
	h.atStep(jobID, step)
	if and != nil {
		h.until("the middle of "+step, and)
	}
	r, err := h.api.GetServerWithResponse(h.ctx)
	h.ok(r, err)
	began := time.Now()
	h.ok(h.api.CancelJobWithResponse(h.ctx, jobID))
	h.until("the end of the job", func() bool { return h.job(jobID).State.Final() })
	ended := time.Since(began)
	mine := func(r remains) bool { return r.job == jobID }
	h.until("nothing that the job made", func() bool {
		left, err := h.checker.remainsOf(h.ctx, r.JSON200.InstallationID)
		if err != nil {
			h.Fatal(err)
		}
		return !slices.ContainsFunc(left, mine)
	})
	cleared := time.Since(began)
	if got := h.job(jobID); got.State != want {
		h.Errorf("the job ended %s (%+v), want %s", got.State, got.Error, want)
	}
	if cleared > cancelWithin {
		h.Errorf("the job took %s to end, and what it made %s to go, want at most %s: %q", ended, cleared, cancelWithin, h.job(jobID).Messages)
	}
	h.Logf("ended after %s, all gone after %s", ended.Round(time.Millisecond), cleared.Round(time.Millisecond))
}

// run runs one case with a world of its own.
func (h *cancelHall) run(name string, do func(h *cancelHall)) {
	h.Helper()
	h.T.Run(name, func(t *testing.T) {
		mine, checkedMine, world := *h, *h.checkedWorld, *h.world
		world.T, world.ctx = t, t.Context()
		checkedMine.world, mine.checkedWorld = &world, &checkedMine
		do(&mine)
	})
}

// TestABackupIsGoneSoonAfterItsCancel, in each step and over each transport,
// with its snapshot, and the VM is on.
//
// seed:A65
func TestABackupIsGoneSoonAfterItsCancel(t *testing.T) {
	t.Parallel()
	h := newCancelHall(t, 3)
	start := func(h *cancelHall, vm string, o api.BackupOptions) string {
		o.RetentionDays = 31
		r, err := h.api.BackupVirtualMachineWithResponse(h.ctx, h.vms[vm].ID, nil, o)
		h.ok(r, err)
		return r.JSON202.Jobs[0].ID
	}
	for name, c := range map[string]struct {
		step  string
		slow  lab.Fault
		way   api.Transport
		how   api.Consistency
		state api.JobState
	}{
		"while the snapshot is made":    {step: "making the snapshot", slow: lab.Fault{Kind: "task_slow", Method: "CreateSnapshot_Task", Delay: 2 * time.Second}},
		"while it is read":              {step: "reading disks", slow: lab.Fault{Kind: "stream_stall", After: 1 << 20}},
		"while the snapshot is removed": {step: "removing the snapshot", slow: lab.Fault{Kind: "task_slow", Method: "RemoveSnapshot_Task", Delay: 2 * time.Second}, state: api.JobStateSucceeded},
		"while the guest shuts down":    {step: "shutting the guest down", slow: lab.Fault{Kind: "guest_slow", Delay: 2 * time.Second}, how: api.ConsistencyOffline},
		"while it is powered on":        {step: "powering on", slow: lab.Fault{Kind: "task_slow", Method: "PowerOnVM_Task", Delay: 3 * time.Second}, how: api.ConsistencyOffline},
		"read by hotadd":                {step: "reading disks", way: api.TransportHotadd},
		"looked for by hotadd":          {step: "reading disks", way: api.TransportHotadd, slow: lab.Fault{Kind: "device_missing", Count: -1}},
		"read over nbd":                 {step: "reading disks", way: api.TransportNbd},
	} {
		h.run(name, func(h *cancelHall) {
			if c.way == "" {
				c.way = api.TransportNfc
			}
			if c.state == "" {
				c.state = api.JobStateCancelled
			}
			h.transport(c.way)
			if c.slow.Kind != "" {
				if c.slow.Kind != "device_missing" {
					c.slow.VM = "vm02"
				}
				h.slowly(c.slow)
			}
			h.cancelled(start(h, "vm02", api.BackupOptions{Consistency: c.how, Full: true}), c.step, nil, c.state)
			h.lab.ClearFaults()
			for _, v := range h.checker.check(h.ctx, noImages) {
				h.Error(v)
			}
		})
	}
}

// TestARestoreIsGoneSoonAfterItsCancel: the VM that it was going to make is not
// there, and one that it was going to overwrite is as it was, and on.
func TestARestoreIsGoneSoonAfterItsCancel(t *testing.T) {
	t.Parallel()
	h := newCancelHall(t, 2)
	image := h.backup(h.vms["vm02"].ID)
	if err := h.lab.GuestWriteRandom("vm02", image.Disks[0].Key, 0, 8<<20, 9); err != nil {
		t.Fatal(err)
	}
	want := h.sums("vm02")
	known := len(h.lab.VMs())
	stall, writes := lab.Fault{Kind: "stream_stall", After: 1 << 20}, "writing disks"
	disk := &api.RestoreDisk{SourceDiskKey: image.Disks[0].Key, VirtualMachineID: h.vms["vm02"].ID, Mode: api.DiskRestoreModeAttach}
	for name, c := range map[string]struct {
		restore api.Restore
		way     api.Transport
		slow    lab.Fault
		step    string
	}{
		"of a new VM":                 {restore: api.Restore{NewVM: &api.RestoreNewVM{Name: "half"}}, way: api.TransportNfc, slow: stall, step: writes},
		"in place":                    {restore: api.Restore{InPlace: &api.RestoreInPlace{PowerOff: true, PowerOn: true, Safety: api.SafetyQuick}}, way: api.TransportNfc, slow: stall, step: writes},
		"in place, only what differs": {restore: api.Restore{InPlace: &api.RestoreInPlace{PowerOff: true, PowerOn: true, Safety: api.SafetyQuick}}, way: api.TransportHotadd, step: writes},
		"in place, backed up first":   {restore: api.Restore{InPlace: &api.RestoreInPlace{PowerOff: true, PowerOn: true, Safety: api.SafetyImage}}, way: api.TransportNfc, slow: stall, step: "reading disks"},
		"of one disk":                 {restore: api.Restore{Disk: disk}, way: api.TransportNfc, slow: stall, step: writes},
	} {
		h.run(name, func(h *cancelHall) {
			h.transport(c.way)
			if c.slow.Kind != "" {
				h.slowly(c.slow)
			}
			c.restore.ImageID = image.ID
			r, err := h.api.CreateRestoreWithResponse(h.ctx, nil, c.restore)
			h.ok(r, err)
			h.cancelled(r.JSON201.JobID, c.step, nil, api.JobStateCancelled)
			h.lab.ClearFaults()
			for _, v := range h.checker.check(h.ctx, noImages) {
				h.Error(v)
			}
			h.same("the VM", h.sums("vm02"), want)
			if n := len(h.lab.VMs()); n != known {
				h.Errorf("the lab has %d VMs, want %d", n, known)
			}
		})
	}
}

// TestUpkeepIsGoneSoonAfterItsCancel: a copy, the reading of an image and a
// collection end, though the storage does not answer any more, and begin anew.
func TestUpkeepIsGoneSoonAfterItsCancel(t *testing.T) {
	t.Parallel()
	bucket := s3test.New(t, false)
	w := newWorld(t, lab.Config{VMs: 1, DiskSize: 8 << 20}, server.Config{})
	repository, err := w.api.CreateRepositoryWithResponse(w.ctx, nil, api.Repository{Name: "far", Kind: "s3", Settings: bucket.Settings})
	w.ok(repository, err)
	image := w.backup(w.vm(w.vcenter("lab").ID, "vm01").ID)
	do := map[string]func() api.Job{
		"copy": func() api.Job {
			r, err := w.api.CopyBackupImageWithResponse(w.ctx, image.ID, nil, api.ImageCopyRequest{Repository: "far"})
			w.ok(r, err)
			return *r.JSON202
		},
		"collect": func() api.Job {
			r, err := w.api.MaintainRepositoryWithResponse(w.ctx, repository.JSON201.ID, nil, api.Maintenance{})
			w.ok(r, err)
			return *r.JSON202
		},
		"verify": func() api.Job {
			r, err := w.api.VerifyBackupImageWithResponse(w.ctx, w.copies(image.ID)[0].ID, nil)
			w.ok(r, err)
			return *r.JSON202
		},
	}
	for _, kind := range []string{"collect", "copy", "verify"} {
		bucket.Hang.Store(true)
		j := do[kind]()
		w.until("a request that hangs", func() bool { return w.job(j.ID).State == api.JobStateRunning && bucket.Hanging.Load() > 0 })
		began := time.Now()
		w.ok(w.api.CancelJobWithResponse(w.ctx, j.ID))
		w.until("the end of the job", func() bool { return w.job(j.ID).State.Final() })
		if took, got := time.Since(began), w.job(j.ID); took > cancelWithin || got.State != api.JobStateCancelled {
			t.Errorf("the %s ended %s after %s, want cancelled within %s: %+v", kind, got.State, took, cancelWithin, got.Error)
		} else {
			t.Logf("the %s ended after %s", kind, took.Round(time.Millisecond))
		}
		bucket.Hang.Store(false)
		again := do[kind]()
		w.until("the end of the next "+kind, func() bool { return w.job(again.ID).State.Final() })
		if got := w.job(again.ID); got.State != api.JobStateSucceeded {
			t.Errorf("the next %s ended %s: %+v", kind, got.State, got.Error)
		}
	}
}
