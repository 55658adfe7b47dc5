package backup_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// addEnding puts an image into the catalogue that ends after so long.
func (h *house) addEnding(vm backup.VirtualMachine, after time.Duration, change ...func(*backup.Image)) backup.Image {
	h.Helper()
	i := h.addImage(vm, "")
	i.ExpiresAt = i.StartedAt.Add(after)
	for _, c := range change {
		c(&i)
	}
	h.update(func(tx backup.Tx) error { return tx.UpdateImage(h.ctx, i) })
	h.clock.pass(time.Second)
	return i
}

// days lets time pass with a look at the clock each twelve hours, as servers do.
func (h *house) days(n int) {
	h.Helper()
	for range 2 * n {
		h.clock.pass(12 * time.Hour)
		must(h.Expire(h.ctx))(h.T)
	}
}

func (h *house) listed() []string {
	h.Helper()
	var all []string
	for _, i := range h.images() {
		if i.Status != backup.ImageExpired {
			all = append(all, i.ID)
		}
	}
	slices.Sort(all)
	return all
}

func (h *house) wantListed(when string, want ...backup.Image) {
	h.Helper()
	var ids []string
	for _, i := range want {
		ids = append(ids, i.ID)
	}
	slices.Sort(ids)
	if got := h.listed(); !slices.Equal(got, ids) {
		h.Errorf("%s: listed %v, want %v", when, got, ids)
	}
}

const aDay = 24 * time.Hour

func TestImagesGoWhenTheirTimeIsOver(t *testing.T) { // seed:N67 seed:A38 seed:N52
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	must(h.Expire(h.ctx))(t)
	short, long := h.addEnding(vm, aDay), h.addEnding(vm, 3*aDay)
	never := h.addEnding(vm, 0, func(i *backup.Image) { i.ExpiresAt = time.Time{} }) // seed:A43
	h.clock.set(short.ExpiresAt.Add(-time.Millisecond))
	if e := must(h.Expire(h.ctx))(t); e.Jobs != 0 {
		t.Errorf("Expire() just before the end = %+v, want nothing", e)
	}
	h.clock.set(short.ExpiresAt)
	if plan := must(h.ExpiryPlan(h.ctx))(t); len(plan) != 1 || plan[0].Image.ID != short.ID || plan[0].Stays != "" {
		t.Errorf("ExpiryPlan() = %+v, want the short image", plan)
	}
	h.wantListed("after the plan", short, long, never)
	if e := must(h.Expire(h.ctx))(t); e.Jobs != 1 {
		t.Errorf("Expire() = %+v, want one job", e)
	}
	if j := h.claim(); j == nil || j.Kind != backup.KindDelete || j.ImageID != short.ID {
		t.Errorf("claimed %+v, want the deletion of the short image", j)
	}
	h.days(300)
	h.wantListed("at last", never)
}

func TestTheLastGoodImageOfACoveredVMStays(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 3)
	s := nightly("single", 3)
	s.VMID = vms[0].ID
	single := h.add(s)
	group := nightly("group", 4)
	group.GroupID = h.addGroup("g", vms[1:2]).ID
	h.add(group)
	must(h.Expire(h.ctx))(t)
	partial := func(i *backup.Image) { i.Status = backup.ImagePartial }
	damaged := func(i *backup.Image) { i.Status = backup.ImageDamaged }
	h.addEnding(vms[0], aDay)
	last := h.addEnding(vms[0], aDay)
	inGroup := h.addEnding(vms[1], aDay)
	later := h.addEnding(vms[1], aDay, partial)
	h.addEnding(vms[0], 2*aDay, damaged)
	h.addEnding(vms[2], aDay) // no schedule backs it up
	h.days(3)
	h.wantListed("after three days", last, inGroup, later)
	plan := must(h.ExpiryPlan(h.ctx))(t)
	if len(plan) != 3 || !strings.Contains(plan[0].Stays, "last good image") {
		t.Errorf("ExpiryPlan() = %+v, want three images that stay, with the reason", plan)
	}
	newer := h.addEnding(vms[0], 30*aDay)
	good := h.addEnding(vms[1], 30*aDay)
	h.days(1)
	h.wantListed("with newer ones", newer, good)
	single.Enabled = false
	h.change(single)
	h.days(40)
	h.wantListed("with the schedule disabled", good)
}

func TestNothingGoesThatIsLockedOrRead(t *testing.T) { // seed:A33 seed:A40
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	must(h.Expire(h.ctx))(t)
	locked := h.addEnding(vm, aDay, func(i *backup.Image) { i.LockedUntil = i.StartedAt.Add(10 * aDay) })
	held := h.addEnding(vm, aDay)
	r := must(h.CreateRestore(h.ctx, newVM(held, "copy")))(t)
	h.days(5)
	h.wantListed("locked and read", locked, held)
	must(h.CancelJob(h.ctx, r.JobID))(t)
	h.days(1)
	h.wantListed("no longer read", locked)
	h.days(5)
	h.wantListed("no longer locked")
}

func TestADeletionThatFailedIsAskedForAgain(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	must(h.Expire(h.ctx))(t)
	h.addEnding(vm, aDay)
	h.days(2)
	j := h.claim()
	if e := must(h.Expire(h.ctx))(t); e.Jobs != 0 {
		t.Errorf("Expire() while the deletion runs = %+v, want nothing", e)
	}
	h.finish(j, backup.Ending{State: backup.JobFailed})
	if e := must(h.Expire(h.ctx))(t); e.Jobs != 1 {
		t.Errorf("Expire() after it has failed = %+v, want it asked for again", e)
	}
}

func TestARepositoryIsCollectedTwiceADay(t *testing.T) {
	h := newHouse(t, 10)
	collections := func() (all []backup.Job) {
		return read(h, func(tx backup.Tx) ([]backup.Job, error) {
			all, _, err := tx.Jobs(h.ctx, backup.JobFilter{Kind: backup.KindCollect})
			return all, err
		})
	}
	for range 72 {
		must(h.PlanUpkeep(h.ctx))(t)
		for j := h.claimKind(backup.KindCollect); j != nil; j = h.claimKind(backup.KindCollect) {
			h.finish(j, backup.Ending{State: backup.JobSucceeded})
		}
		h.clock.pass(time.Hour)
	}
	if n := len(collections()); n != 5 {
		t.Errorf("%d collections in three days, want 5: the first after half a day", n)
	}
	first := must(h.Collect(h.ctx, h.repository.ID, false))(t)
	if again := must(h.Collect(h.ctx, h.repository.ID, false))(t); again.ID != first.ID {
		t.Errorf("two collections wait for one repository")
	}
	dry := must(h.Collect(h.ctx, h.repository.ID, true))(t)
	var spec backup.CollectSpec
	if err := json.Unmarshal(dry.Spec, &spec); err != nil || !spec.DryRun || dry.ID == first.ID {
		t.Errorf("dry run = %+v (%v), want a job of its own", spec, err)
	}
	if h.claimKind(backup.KindCollect) == nil || h.claimKind(backup.KindCollect) != nil {
		t.Error("want one of the two to run, and the other to wait for it")
	}
	readOnly := backup.RepositoryRecord{Name: "theirs", Kind: "filesystem", Password: "p", ReadOnly: true}
	h.update(func(tx backup.Tx) error { return tx.InsertRepository(h.ctx, &readOnly) })
	_, err := h.Collect(h.ctx, readOnly.ID, false)
	refused(t, err, backup.Conflict, "")
}

func (h *house) claimKind(kind backup.JobKind) *backup.Job {
	h.Helper()
	return must(h.db.Claim(h.ctx, backup.Claim{Owner: "server", Lease: time.Hour, Kinds: []backup.JobKind{kind}}))(h.T)
}
