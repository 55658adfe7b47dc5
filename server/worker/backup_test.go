package worker_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// TestABackupWritesItsIntentMakesOneWholeImageAndLeavesNothing is a backup from
// its claim to its end.
//
// seed:N1 seed:N6 seed:N7 seed:N49 seed:N52 seed:A1 seed:A32 seed:A36 seed:H1
// seed:K8
func TestABackupWritesItsIntentMakesOneWholeImageAndLeavesNothing(t *testing.T) {
	h := newHouse(t)
	var id string
	h.vsphere.on("CreateSnapshot", func() {
		if note := string(h.job(id).Checkpoint); !strings.Contains(note, marker(id, 1)) || !strings.Contains(note, h.vm.MOID) {
			t.Errorf("when the snapshot is made the checkpoint is %s, want its name and VM in it", note)
		}
	})
	h.vsphere.on("ReadDisks", func() { // the image is of the snapshot's instant, and retention of the start
		if got := h.vsphere.snapshotsOf(h.vm.MOID); !slices.Equal(got, []string{marker(id, 1)}) {
			t.Errorf("while disks are read the snapshots are %v, want ours", got)
		}
	})
	id = h.ask(h.vm)
	h.start()
	j := h.ended(id)
	if j.State != backup.JobSucceeded || j.Attempt != 1 || len(j.Messages) != 0 || j.Done != 128<<10 || j.Total != 128<<10 {
		t.Fatalf("job %+v, want it succeeded at the first try, all of it done", j)
	}
	if run := read(h, func(tx backup.Tx) (backup.Run, error) { return tx.Run(h.ctx, j.RunID) }); run.State != backup.RunSucceeded || run.EndedAt.IsZero() {
		t.Errorf("run is %s, want succeeded", run.State)
	}
	if left, made := h.vsphere.snapshotsOf(h.vm.MOID), h.vsphere.called("CreateSnapshot"); len(left) != 0 || len(made) != 1 {
		t.Errorf("snapshots %v are left of %q, want one for all disks, and none left", left, made)
	}
	images := h.images()
	if len(images) != 1 {
		t.Fatalf("%d images, want one", len(images))
	}
	i := images[0]
	if i.ID != j.ImageID || i.JobID != id || i.VMID != h.vm.ID || i.VMInstanceUUID != h.vm.InstanceUUID || i.Status != backup.ImageGood ||
		i.ChangeDetection != backup.DetectFull || !i.PointInTime.Equal(start) || !i.ExpiresAt.Equal(start.AddDate(0, 0, 7)) || !i.LockedUntil.IsZero() {
		t.Errorf("image %+v", i)
	}
	if i.Sizes != (backup.Sizes{Provisioned: 128 << 10, Read: 128 << 10, Stored: 64 << 10}) {
		t.Errorf("sizes %+v, want all three", i.Sizes)
	}
	kept := h.repository.images[i.Ref]
	if kept == nil || kept.manifest.Installation != installation || string(kept.manifest.Machine) != `{"cpus":2}` || string(kept.files["vm.nvram"]) != "nvram of web" {
		t.Fatalf("kept %+v, want the image with its VM's configuration and NVRAM", kept)
	}
	for key, want := range h.content(h.vm.MOID) {
		if !bytes.Equal(kept.disks[key], want) {
			t.Errorf("disk %d of the image differs from the VM's", key)
		}
	}
}

func TestTheNextImageIsComparedWithTheLastOne(t *testing.T) {
	h := newHouse(t)
	h.start()
	first := h.ended(h.ask(h.vm))
	h.clock.pass(time.Minute)
	second := h.ended(h.ask(h.vm))
	h.clock.pass(time.Minute)
	run, err := h.planner.BackupVM(h.ctx, h.vm.ID, backup.RunOptions{RetentionDays: 1, Full: true}) // seed:W4
	if err != nil {
		t.Fatal(err)
	}
	full := h.ended(run.Jobs[0].ID)
	if got, want := h.repository.called("Begin"), []string{"Begin base=", "Begin base=ref-1", "Begin base="}; !slices.Equal(got, want) {
		t.Errorf("images were begun as %q, want %q", got, want)
	}
	detected := map[string]backup.ChangeDetection{}
	for _, i := range h.images() {
		detected[i.JobID] = i.ChangeDetection
	}
	if detected[first.ID] != backup.DetectFull || detected[second.ID] != backup.DetectCompare || detected[full.ID] != backup.DetectFull {
		t.Errorf("changes were found by %v", detected)
	}
}

// outcome is how a backup of a VM must end.
type outcome struct {
	state       backup.JobState
	code        backup.Code
	text        string // in the error, or in a message where there is none
	status      backup.ImageStatus
	disks       string // labels of those that were read
	consistency backup.Consistency
	quiesce     string // of each snapshot asked for
}

func TestABackupDoesWhatTheVMAndTheScheduleAllow(t *testing.T) {
	const independent = "it is independent"
	both := "Hard disk 1, Hard disk 2"
	good := outcome{state: backup.JobSucceeded, status: backup.ImageGood, disks: both, consistency: backup.ConsistencyCrash, quiesce: "false"}
	refused := func(code backup.Code, text string) outcome {
		return outcome{state: backup.JobFailed, code: code, text: text}
	}
	with := func(o outcome, change func(*outcome)) outcome { change(&o); return o }
	unprotectable := func(disks ...int) func(*fakeVM) {
		return func(vm *fakeVM) {
			for _, d := range disks {
				vm.VirtualMachine.Disks[d].Unprotectable = independent
			}
		}
	}
	consistency := func(c backup.Consistency) func(*backup.Schedule) {
		return func(s *backup.Schedule) { s.Consistency = c }
	}
	power := func(p backup.PowerState) func(*fakeVM) { return func(vm *fakeVM) { vm.PowerState = p } }
	skip := func(s *backup.Schedule) { s.Unprotectable = backup.UnprotectedSkip }
	nothing := func(*backup.Schedule) {}
	plain := func(*fakeVM) {}
	noQuiesce := backup.Errorf(backup.PreflightFailed, "consistency", "VSS failed.")

	for name, c := range map[string]struct {
		vm       func(*fakeVM)
		schedule func(*backup.Schedule)
		fault    error // of the first snapshot
		want     outcome
	}{
		"a template":           {func(vm *fakeVM) { vm.Template = true }, nothing, nil, refused(backup.Unprotectable, "template")},
		"consolidation needed": {func(vm *fakeVM) { vm.ConsolidationNeeded = true }, nothing, nil, refused(backup.PreflightFailed, "need consolidation")},
		"too deep a chain":     {func(vm *fakeVM) { vm.SnapshotDepth = 31 }, nothing, nil, refused(backup.PreflightFailed, "chain of 31")},
		"as deep as it may be": {func(vm *fakeVM) { vm.SnapshotDepth = 30 }, nothing, nil, good},
		"snapshots of others":  {func(vm *fakeVM) { vm.SnapshotNames = []string{"by hand", "kura:OTHER:job:1", marker("old", 1)} }, nothing, nil, with(good, func(o *outcome) { o.text = `2 snapshots of others (first: "by hand")` })}, // seed:A13
		"fault tolerance":      {func(vm *fakeVM) { vm.VirtualMachine.Unprotectable = "it is protected by Fault Tolerance" }, nothing, nil, refused(backup.Unprotectable, "Fault Tolerance")},                                           // seed:H12
		"an independent disk":  {unprotectable(1), nothing, nil, refused(backup.Unprotectable, "Hard disk 2")},                                                                                                                          // seed:N68 seed:A8
		"it may be skipped": {unprotectable(1), skip, nil, with(good, func(o *outcome) {
			o.status, o.disks, o.text = backup.ImagePartial, "Hard disk 1", "Hard disk 2 was skipped: "+independent
		})}, // seed:N7 seed:H10
		"none is left":           {unprotectable(0, 1), skip, nil, refused(backup.Unprotectable, "No disk")},
		"an excluded bad disk":   {unprotectable(1), func(s *backup.Schedule) { s.Disks.ExcludeLabels = []string{"Hard disk 2"} }, nil, with(good, func(o *outcome) { o.disks = "Hard disk 1" })},
		"an included disk":       {plain, func(s *backup.Schedule) { s.Disks.IncludeLabels = []string{"Hard disk 2"} }, nil, with(good, func(o *outcome) { o.disks = "Hard disk 2" })}, // seed:A15
		"no disk chosen":         {plain, func(s *backup.Schedule) { s.Disks.IncludeLabels = []string{"Hard disk 9"} }, nil, refused(backup.Unprotectable, "include_labels")},
		"room enough":            {func(vm *fakeVM) { vm.FreeBytes = map[string]int64{"ds1": 1 << 30} }, nothing, nil, good},
		"quiesced":               {plain, consistency(backup.ConsistencyApp), nil, with(good, func(o *outcome) { o.consistency, o.quiesce = backup.ConsistencyApp, "true" })},                     // seed:H3
		"quiescing fails":        {plain, consistency(backup.ConsistencyApp), noQuiesce, with(good, func(o *outcome) { o.quiesce, o.text = "true false", "could not be quiesced (VSS failed)" })}, // seed:H4 seed:H14
		"quiescing is required":  {plain, consistency(backup.ConsistencyAppRequired), noQuiesce, with(refused(backup.PreflightFailed, "VSS failed."), func(o *outcome) { o.quiesce = "true" })},   // seed:H14
		"off, so consistent":     {power(backup.PoweredOff), consistency(backup.ConsistencyAppRequired), nil, with(good, func(o *outcome) { o.consistency = backup.ConsistencyApp })},             // seed:N56 seed:H7
		"suspended":              {power(backup.Suspended), consistency(backup.ConsistencyApp), nil, with(good, func(o *outcome) { o.text = "suspended" })},                                       // seed:H8
		"suspended and required": {power(backup.Suspended), consistency(backup.ConsistencyAppRequired), nil, refused(backup.PreflightFailed, "suspended")},                                        // seed:H8
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.vsphere.with(h.vm.MOID, c.vm)
			if c.fault != nil {
				h.vsphere.fail("CreateSnapshot", 1, c.fault)
			}
			id := h.ask(h.vm, c.schedule)
			h.start()
			h.check(h.ended(id), c.want)
		})
	}
}

// check compares a job that is over, and its image, with what was wanted.
func (h *house) check(j backup.Job, want outcome) {
	h.Helper()
	if j.State != want.state || j.ErrorCode != want.code || !strings.Contains(j.Error+strings.Join(j.Messages, "\n"), want.text) {
		h.Errorf("job is %s with code %q, %q and messages %q, want %s, %q and %q", j.State, j.ErrorCode, j.Error, j.Messages, want.state, want.code, want.text)
	}
	if want.text == "" && len(j.Messages) > 0 {
		h.Errorf("messages %q, want none", j.Messages)
	}
	var quiesce []string
	for _, c := range h.vsphere.called("CreateSnapshot") {
		_, q, _ := strings.Cut(c, "quiesce=")
		quiesce = append(quiesce, q)
	}
	if got := strings.Join(quiesce, " "); got != want.quiesce {
		h.Errorf("snapshots were asked for with quiesce %q, want %q", got, want.quiesce)
	}
	if left := h.vsphere.snapshotsOf(h.vm.MOID); len(left) > 0 {
		h.Errorf("snapshots %v are left", left)
	}
	images := h.images()
	if want.status == "" {
		if len(images) != 0 || len(h.kept()) != 0 {
			h.Errorf("%d images are listed and %d kept, want none", len(images), len(h.kept()))
		}
		return
	}
	if len(images) != 1 || images[0].Status != want.status || images[0].Consistency != want.consistency {
		h.Fatalf("images %+v, want one that is %s and %s-consistent", images, want.status, want.consistency)
	}
	var labels []string
	provisioned := int64(0)
	for _, d := range images[0].Disks {
		provisioned += d.Capacity
		if d.SkippedReason == "" {
			labels = append(labels, d.Label)
		}
	}
	if got := strings.Join(labels, ", "); got != want.disks || images[0].Sizes.Provisioned != provisioned {
		h.Errorf("disks %q of %d bytes in all, want %q of %d", got, images[0].Sizes.Provisioned, want.disks, provisioned)
	}
}

// seed:N54
func TestTheSnapshotNeedsAFifthOfDisksAndMemoryFree(t *testing.T) {
	h := newHouse(t)
	need := int64(64<<10)/5 + int64(1<<20+64<<10)/5
	free := func(n int64) {
		h.vsphere.with(h.vm.MOID, func(vm *fakeVM) { vm.FreeBytes = map[string]int64{"ds1": n} })
	}
	free(need - 1)
	id := h.ask(h.vm)
	h.start()
	j := h.waiting(id, 1)
	if j.ErrorCode != backup.NoSpace || !strings.Contains(j.Error, `"ds1"`) || len(h.vsphere.called("CreateSnapshot")) != 0 {
		t.Errorf("job has code %q and %q, want no_space naming the datastore, before any snapshot", j.ErrorCode, j.Error)
	}
	free(need)
	h.clock.pass(15 * time.Second)
	if j := h.ended(id); j.State != backup.JobSucceeded {
		t.Errorf("with the space freed the job is %s: %s", j.State, j.Error)
	}
}

// seed:A33
func TestALockedScheduleLocksItsImages(t *testing.T) {
	h := newHouse(t)
	h.planner.Profile = backup.ProfileGeneral
	h.start()
	lock := func(days int) func(*backup.Schedule) {
		return func(s *backup.Schedule) { s.Lock, s.RetentionDays = true, days }
	}
	h.ended(h.ask(h.vm, lock(7)))
	h.ended(h.ask(h.vm, lock(0)))
	far := start.AddDate(1000, 0, 0)
	for _, i := range h.images() {
		if i.ExpiresAt.IsZero() && i.LockedUntil.Before(far) || !i.ExpiresAt.IsZero() && !i.LockedUntil.Equal(i.ExpiresAt) {
			t.Errorf("image that expires %v is locked until %v", i.ExpiresAt, i.LockedUntil)
		}
		if _, err := h.planner.DeleteImage(h.ctx, i.ID); backup.CodeOf(err) != backup.Locked {
			t.Errorf("deleting it: %v, want locked", err)
		}
	}
}

// seed:N61
func TestAVMThatIsGoneIsSkippedWithTheReason(t *testing.T) {
	for name, leave := range map[string]func(h *house){
		"from the inventory": func(h *house) {
			h.update(func(tx backup.Tx) error { return tx.MarkGone(h.ctx, h.vcenter.ID, []string{h.vm.MOID}, false) })
		},
		"from the vcenter": func(h *house) { h.vsphere.remove(h.vm.MOID) },
		"before its snapshot": func(h *house) {
			h.vsphere.on("CreateSnapshot", func() { h.vsphere.remove(h.vm.MOID) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			id := h.ask(h.vm)
			leave(h)
			h.start()
			j := h.ended(id)
			if j.State != backup.JobSkipped || j.ErrorCode != backup.VMGone || j.Error == "" || j.Attempt != 1 || len(h.images()) != 0 {
				t.Errorf("job is %s (%s: %s), want it skipped with the reason", j.State, j.ErrorCode, j.Error)
			}
		})
	}
	t.Run("while it is read", func(t *testing.T) {
		h := newHouse(t)
		h.vsphere.fail("ReadDisk", 1, backup.Errorf(backup.VMGone, "", "VM is gone."))
		id := h.ask(h.vm)
		h.start()
		if j := h.ended(id); j.State != backup.JobFailed || j.ErrorCode != backup.VMGone {
			t.Errorf("job is %s (%s), want it failed: there was something to back up", j.State, j.ErrorCode)
		}
	})
}
