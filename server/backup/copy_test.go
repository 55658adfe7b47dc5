package backup_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// addRepository registers another repository.
func (h *house) addRepository(name string, change ...func(*backup.RepositoryRecord)) backup.RepositoryRecord {
	h.Helper()
	r := backup.RepositoryRecord{Name: name, Kind: "filesystem", Password: "secret"}
	for _, c := range change {
		c(&r)
	}
	h.update(func(tx backup.Tx) error { return tx.InsertRepository(h.ctx, &r) })
	return r
}

// made ends the job that has made an image of the VM.
func (h *house) made(j *backup.Job, change ...func(*backup.Image)) backup.Image {
	h.Helper()
	i := backup.Image{ID: backup.NewID(h.clock.Now()), VMID: j.VMID, VMName: j.VMName, JobID: j.ID, RepositoryID: h.repository.ID,
		Status: backup.ImageGood, StartedAt: h.clock.Now(), EndedAt: h.clock.Now(), PointInTime: h.clock.Now(), Ref: "ref"}
	for _, c := range change {
		c(&i)
	}
	lease := backup.Lease{JobID: j.ID, Owner: "server", Attempt: j.Attempt}
	err := h.db.Finish(h.ctx, lease, backup.Ending{State: backup.JobSucceeded, ImageID: i.ID}, func(tx backup.Tx) error {
		if err := tx.InsertImage(h.ctx, i); err != nil {
			return err
		}
		if err := backup.PlanCopies(h.ctx, tx, *j, i); err != nil {
			return err
		}
		return backup.ShareWithWaiting(h.ctx, tx, *j, i)
	})
	if err != nil {
		h.Fatal(err)
	}
	return read(h, func(tx backup.Tx) (backup.Image, error) { return tx.Image(h.ctx, i.ID) })
}

// copied ends a copy job as a worker does.
func (h *house) copied(j *backup.Job) backup.Image {
	h.Helper()
	var spec backup.CopySpec
	if err := json.Unmarshal(j.Spec, &spec); err != nil {
		h.Fatal(err)
	}
	source := read(h, func(tx backup.Tx) (backup.Image, error) { return tx.Image(h.ctx, spec.SourceID) })
	c := backup.NewCopy(source, spec)
	c.ID, c.JobID, c.EndedAt, c.Ref = backup.NewID(h.clock.Now()), j.ID, h.clock.Now(), "ref"
	lease := backup.Lease{JobID: j.ID, Owner: "server", Attempt: j.Attempt}
	if err := h.db.Finish(h.ctx, lease, backup.Ending{State: backup.JobSucceeded}, func(tx backup.Tx) error { return tx.InsertImage(h.ctx, c) }); err != nil {
		h.Fatal(err)
	}
	return c
}

// standing tells how the copies of an image stand: repository and status.
func (h *house) standing(i backup.Image) string {
	h.Helper()
	var all []string
	for _, c := range must(h.Copies(h.ctx, i.ID))(h.T) {
		all = append(all, fmt.Sprint(read(h, func(tx backup.Tx) (backup.RepositoryRecord, error) { return tx.Repository(h.ctx, c.RepositoryID) }).Name, " ", c.Status))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// copyTo makes a schedule's images be copied, for so many days.
func copyTo(s backup.Schedule, days int, to ...backup.RepositoryRecord) backup.Schedule {
	for _, r := range to {
		s.CopyTo = append(s.CopyTo, backup.CopyTarget{RepositoryID: r.Name, RetentionDays: days})
	}
	return s
}

func TestTheImagesOfAScheduleAreCopiedWhereItSays(t *testing.T) { // seed:K2 seed:A27 seed:A46
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	second, third := h.addRepository("second"), h.addRepository("third")
	s := copyTo(nightly("s", 3), 8, second, third)
	s.VMID = vm.ID
	s = h.add(s)
	if got := s.CopyTo[0].RepositoryID; got != second.ID {
		t.Errorf("stored copy_to %q, want the id of the repository", got)
	}
	run := must(h.RunSchedule(h.ctx, s.ID))(t)
	s.CopyTo = nil // of later images
	h.change(s)
	j := h.claimKind(backup.KindBackup)
	if j == nil || j.ID != run.Jobs[0].ID {
		t.Fatalf("claimed %+v, want the backup", j)
	}
	i := h.made(j)
	if got := h.standing(i); got != "second waiting, third waiting" {
		t.Errorf("copies: %s", got)
	}
	c, other := h.claimKind(backup.KindCopy), h.claimKind(backup.KindCopy)
	if !slices.Contains(c.Needs, "repository:second") { // both were asked for at once
		c, other = other, c
	}
	if c.ImageID != i.ID || c.VMID != vm.ID || !slices.Equal(c.Needs, []string{"repository:default", "repository:second"}) {
		t.Errorf("copy job %+v, want one of the image that needs both repositories", c)
	}
	if got := h.standing(i); got != "second copying, third copying" {
		t.Errorf("copies while they are made: %s", got)
	}
	one := h.copied(c)
	if one.CopyOf != i.ID || one.RepositoryID != second.ID || !one.ExpiresAt.Equal(i.StartedAt.Add(8*aDay)) || !one.LockedUntil.IsZero() {
		t.Errorf("copy %+v, want one in the second repository for 8 days", one)
	}
	h.finish(other, backup.Ending{State: backup.JobFailed, Code: backup.RepositoryUnreachable, Error: "It is away."})
	if got := h.standing(i); got != "second good, third failed" {
		t.Errorf("copies at last: %s", got)
	}
	h.finish(h.claimNext(must(h.RunSchedule(h.ctx, s.ID))(t)), backup.Ending{State: backup.JobSucceeded})
	if j := h.claimKind(backup.KindCopy); j != nil {
		t.Errorf("copy job %+v of a schedule that does not copy any more", j)
	}
}

// claimNext claims the backup of a run.
func (h *house) claimNext(r backup.Run) *backup.Job {
	h.Helper()
	j := h.claimKind(backup.KindBackup)
	if j == nil || j.RunID != r.ID {
		h.Fatalf("claimed %+v, want the job of run %s", j, r.ID)
	}
	return j
}

func TestACopyOfALockedImageIsLockedUntilItExpires(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	s := copyTo(nightly("s", 3), 4, h.addRepository("second"))
	s.VMID, s.Lock = vm.ID, true
	i := h.made(h.claimNext(must(h.RunSchedule(h.ctx, h.add(s).ID))(t)))
	c := h.copied(h.claimKind(backup.KindCopy))
	if !c.LockedUntil.Equal(i.StartedAt.Add(4 * aDay)) {
		t.Errorf("copy locked until %s, want for its 4 days", c.LockedUntil)
	}
	_, err := h.DeleteImage(h.ctx, c.ID)
	refused(t, err, backup.Locked, "")
}

func TestASharedImageIsCopiedForEachScheduleAndKeptForTheLongest(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	second, third := h.addRepository("second"), h.addRepository("third")
	for name, s := range map[string]backup.Schedule{"a": copyTo(nightly("a", 3), 2, second), "b": copyTo(nightly("b", 3), 7, second, third)} {
		s.Name, s.VMID = name, vm.ID
		h.add(s)
	}
	h.clock.set(time.Date(2026, 11, 24, 3, 59, 0, 0, time.UTC))
	h.dispatch(2)
	i := h.made(h.claimKind(backup.KindBackup))
	if got := h.standing(i); got != "second waiting, third waiting" {
		t.Errorf("copies: %s", got)
	}
	for j := h.claimKind(backup.KindCopy); j != nil; j = h.claimKind(backup.KindCopy) {
		var spec backup.CopySpec
		if err := json.Unmarshal(j.Spec, &spec); err != nil {
			t.Fatal(err)
		}
		var there bool
		h.update(func(tx backup.Tx) (err error) {
			_, there, err = backup.KeepCopy(h.ctx, tx, i, spec)
			return err
		})
		if there { // whichever wish came second
			h.finish(j, backup.Ending{State: backup.JobSucceeded})
		} else {
			h.copied(j)
		}
	}
	for _, c := range must(h.Copies(h.ctx, i.ID))(t) {
		if want := i.StartedAt.Add(7 * aDay); !c.ExpiresAt.Equal(want) || c.Status != backup.CopyGood {
			t.Errorf("copy %+v, want a good one until %s", c, want)
		}
	}
}

func TestTheCopiesOfAVMGoToARepositoryOneAfterTheOther(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	second, third := h.addRepository("second"), h.addRepository("third")
	ask := func(i backup.Image, to backup.RepositoryRecord) {
		t.Helper()
		must(h.CopyImage(h.ctx, backup.CopyRequest{ImageID: i.ID, Repository: to.ID}))(t)
		h.clock.pass(time.Second)
	}
	older, newer, other := h.addEnding(vms[0], 8*aDay), h.addEnding(vms[0], 8*aDay), h.addEnding(vms[1], 8*aDay)
	ask(older, second)
	ask(newer, second)
	ask(other, second)
	ask(newer, third)
	first, next := h.claimKind(backup.KindCopy), h.claimKind(backup.KindCopy)
	if first == nil || next == nil || first.ImageID != older.ID || next.ImageID != other.ID {
		t.Fatalf("claimed %+v and %+v, want the older image's and the other VM's", first, next)
	}
	if j := h.claimKind(backup.KindCopy); j != nil {
		t.Errorf("claimed %+v while two copies read the repository", j)
	}
	h.copied(first)
	if j := h.claimKind(backup.KindCopy); j == nil || j.ImageID != newer.ID {
		t.Errorf("claimed %+v, want the newer image's", j)
	}
}

func TestTheImageThatACopyJobWritesIsKnownToCollections(t *testing.T) {
	h := newHouse(t, 10)
	i := h.addImage(h.addVMs(h.vcenter.ID, 1)[0], "")
	second := h.addRepository("second")
	must(h.CopyImage(h.ctx, backup.CopyRequest{ImageID: i.ID, Repository: second.ID}))(t)
	j := h.claimKind(backup.KindCopy)
	if err := h.db.Save(h.ctx, backup.Lease{JobID: j.ID, Owner: "server", Attempt: j.Attempt}, backup.Progress{Checkpoint: json.RawMessage(`{"image_id":"new"}`)}); err != nil {
		t.Fatal(err)
	}
	written := read(h, func(tx backup.Tx) (map[string]bool, error) { return backup.ImagesBeingWritten(h.ctx, tx) })
	if len(written) != 1 || !written["new"] {
		t.Errorf("ImagesBeingWritten() = %v, want the copy's", written)
	}
}

func TestACopyBuildsUponTheNewestImageOfTheVMThere(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	second := h.addRepository("second")
	copyOf := func(i backup.Image) backup.Image {
		t.Helper()
		must(h.CopyImage(h.ctx, backup.CopyRequest{ImageID: i.ID, Repository: second.ID}))(t)
		return h.copied(h.claimKind(backup.KindCopy))
	}
	base := func(source backup.Image, to backup.RepositoryRecord) (base, same string) {
		h.update(func(tx backup.Tx) error {
			b, s, err := backup.CopyBase(h.ctx, tx, source, to.ID)
			base, same = b.ID, s.ID
			return err
		})
		return base, same
	}
	first := h.addEnding(vm, 8*aDay)
	if b, s := base(first, second); b != "" || s != "" {
		t.Errorf("base of the first copy = %q, %q, want none", b, s)
	}
	one := copyOf(first)
	next := h.addEnding(vm, 8*aDay)
	if b, s := base(next, second); b != one.ID || s != first.ID {
		t.Errorf("base = %q, %q, want the copy %q and its original %q", b, s, one.ID, first.ID)
	}
	must(h.DeleteImage(h.ctx, first.ID))(t)
	if b, s := base(next, second); b != one.ID || s != "" {
		t.Errorf("base without the original = %q, %q, want the copy %q alone", b, s, one.ID)
	}
	two := copyOf(next)
	if b, s := base(two, h.repository); b != next.ID || s != two.ID { // the way back
		t.Errorf("base of the way back = %q, %q, want %q, %q", b, s, next.ID, two.ID)
	}
}

func TestWhatCannotBeCopiedIsRefused(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	second := h.addRepository("second")
	i := h.addEnding(vm, 8*aDay)
	old := h.addEnding(vm, 8*aDay, func(i *backup.Image) { i.StartedAt = noon.Add(-3 * aDay) })
	damaged := h.addEnding(vm, 8*aDay, func(i *backup.Image) { i.Status = backup.ImageDamaged })
	one, seven := 1, 7
	for name, c := range map[string]struct {
		ask   backup.CopyRequest
		code  backup.Code
		field string
	}{
		"no image":               {backup.CopyRequest{ImageID: "none", Repository: "second"}, backup.NotFound, ""},
		"no repository":          {backup.CopyRequest{ImageID: i.ID, Repository: "none"}, backup.NotFound, "repository"},
		"where it is":            {backup.CopyRequest{ImageID: i.ID, Repository: "default"}, backup.Conflict, "repository"},
		"a damaged image":        {backup.CopyRequest{ImageID: damaged.ID, Repository: second.ID}, backup.RepositoryDamaged, ""},
		"a retention of others":  {backup.CopyRequest{ImageID: i.ID, Repository: second.ID, RetentionDays: &seven}, backup.Invalid, "retention_days"},
		"one that is over":       {backup.CopyRequest{ImageID: old.ID, Repository: second.ID, RetentionDays: &one}, backup.Invalid, "retention_days"},
		"a repository of others": {backup.CopyRequest{ImageID: i.ID, Repository: h.addRepository("others", func(r *backup.RepositoryRecord) { r.ReadOnly = true }).ID}, backup.Invalid, "repository"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.CopyImage(h.ctx, c.ask)
			refused(t, err, c.code, c.field)
		})
	}
}

func TestAScheduleIsRefusedThatCannotBeCopied(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	second := h.addRepository("second")
	readOnly := h.addRepository("others", func(r *backup.RepositoryRecord) { r.ReadOnly = true })
	for name, c := range map[string]struct {
		change func(*backup.Schedule)
		code   backup.Code
		field  string
	}{
		"its own repository":    {func(s *backup.Schedule) { *s = copyTo(*s, 7, h.repository) }, backup.Invalid, "copy_to.repository"},
		"one twice":             {func(s *backup.Schedule) { *s = copyTo(*s, 7, second, second) }, backup.Invalid, "copy_to.repository"},
		"none":                  {func(s *backup.Schedule) { *s = copyTo(*s, 7, backup.RepositoryRecord{}) }, backup.Invalid, "copy_to.repository"},
		"one that is not there": {func(s *backup.Schedule) { *s = copyTo(*s, 7, backup.RepositoryRecord{Name: "none"}) }, backup.NotFound, "copy_to.repository"},
		"one that is only read": {func(s *backup.Schedule) { *s = copyTo(*s, 7, readOnly) }, backup.Invalid, "copy_to.repository"},
		"a retention of others": {func(s *backup.Schedule) { *s = copyTo(*s, 31, second) }, backup.Invalid, "copy_to.retention_days"},
		"more than three copies": {func(s *backup.Schedule) {
			*s = copyTo(*s, 7, second, h.addRepository("3"), h.addRepository("4"), h.addRepository("5"))
		}, backup.Invalid, "copy_to"},
	} {
		t.Run(name, func(t *testing.T) {
			s := nightly("s", 3)
			s.VMID = vm.ID
			c.change(&s)
			_, err := h.CreateSchedule(h.ctx, s)
			refused(t, err, c.code, c.field)
		})
	}
}
