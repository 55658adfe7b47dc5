package backup_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestAnImageStaysWhileItIsCopied(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	second := h.addRepository("second")
	must(h.Expire(h.ctx))(t)
	i := h.addEnding(vm, aDay)
	days := 31
	j := must(h.CopyImage(h.ctx, backup.CopyRequest{ImageID: i.ID, Repository: second.Name, RetentionDays: &days}))(t)
	if again := must(h.CopyImage(h.ctx, backup.CopyRequest{ImageID: i.ID, Repository: second.ID}))(t); again.ID != j.ID {
		t.Errorf("asked again: job %s, want %s", again.ID, j.ID)
	}
	_, err := h.DeleteImage(h.ctx, i.ID)
	if e := refused(t, err, backup.InUse, ""); !strings.Contains(e.Message, j.ID) {
		t.Errorf("refusal %q does not name the job", e.Message)
	}
	h.days(3)
	h.wantListed("while it is copied", i)
	if plan := must(h.ExpiryPlan(h.ctx))(t); len(plan) != 1 || !strings.Contains(plan[0].Stays, "being copied") {
		t.Errorf("ExpiryPlan() = %+v, want that it is being copied", plan)
	}
	c := h.copied(h.claimKind(backup.KindCopy))
	_, err = h.CopyImage(h.ctx, backup.CopyRequest{ImageID: i.ID, Repository: second.ID, RetentionDays: &days})
	if e := refused(t, err, backup.Conflict, "repository"); !strings.Contains(e.Message, c.ID) {
		t.Errorf("refusal %q does not name the copy", e.Message)
	}
	h.days(1)
	h.wantListed("copied", c)
}

func TestTheRetentionOfAScheduleIsNotThatOfItsCopies(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	s := copyTo(nightly("s", 3), 8, h.addRepository("second"))
	s.VMID = vm.ID
	s = h.add(s)
	i := h.made(h.claimNext(must(h.RunSchedule(h.ctx, s.ID))(t)), func(i *backup.Image) { i.ScheduleID = s.ID })
	c := h.copied(h.claimKind(backup.KindCopy))
	s.RetentionDays, s.ApplyToExisting = 2, true
	h.change(s)
	for id, want := range map[string]int{i.ID: 2, c.ID: 8} {
		got := read(h, func(tx backup.Tx) (backup.Image, error) { return tx.Image(h.ctx, id) })
		if !got.ExpiresAt.Equal(i.StartedAt.Add(time.Duration(want) * aDay)) {
			t.Errorf("image %s (copy of %q) expires at %s, want after %d days", id, got.CopyOf, got.ExpiresAt, want)
		}
	}
}

func TestTheLastGoodCopyStaysWhereImagesAreCopiedTo(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	second, third := h.addRepository("second"), h.addRepository("third")
	group := copyTo(nightly("s", 3), 7, second)
	group.GroupID = h.addGroup("g", vms[:1]).ID
	group = h.add(group)
	other := nightly("other", 4)
	other.GroupID = group.GroupID
	h.add(other)
	must(h.Expire(h.ctx))(t)
	day := 1
	copyOf := func(i backup.Image, r backup.RepositoryRecord) backup.Image {
		t.Helper()
		must(h.CopyImage(h.ctx, backup.CopyRequest{ImageID: i.ID, Repository: r.ID, RetentionDays: &day}))(t)
		return h.copied(h.claimKind(backup.KindCopy))
	}
	first := h.addEnding(vms[0], 2*aDay)
	last := copyOf(first, second)
	copyOf(first, third) // nobody copies there any more
	copyOf(h.addEnding(vms[1], 2*aDay), second)
	h.clock.pass(time.Hour)
	newer := h.addEnding(vms[0], 90*aDay)
	h.days(5)
	h.wantListed("without a newer copy", last, newer)
	if plan := must(h.ExpiryPlan(h.ctx))(t); len(plan) != 1 || !strings.Contains(plan[0].Stays, "last good copy") {
		t.Errorf("ExpiryPlan() = %+v, want the copy with the reason", plan)
	}
	group.CopyTo = nil
	h.change(group)
	h.days(1)
	h.wantListed("when nothing is copied any more", newer)
}

func TestACopyThatIsAllThatIsLeftOfAVMStays(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	s := nightly("s", 3)
	s.VMID = vm.ID
	h.add(s)
	must(h.Expire(h.ctx))(t)
	day := 1
	i := h.addEnding(vm, 90*aDay)
	must(h.CopyImage(h.ctx, backup.CopyRequest{ImageID: i.ID, Repository: h.addRepository("second").ID, RetentionDays: &day}))(t)
	c := h.copied(h.claimKind(backup.KindCopy))
	must(h.DeleteImage(h.ctx, i.ID))(t)
	h.days(3)
	h.wantListed("without any other", c)
	newer := h.addEnding(vm, 90*aDay)
	h.days(1)
	h.wantListed("with a newer image", newer)
}

func TestARepositoryThatASchedulesImagesAreCopiedToStays(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	second := h.addRepository("second")
	s := copyTo(nightly("s", 3), 7, second)
	s.VMID = vm.ID
	s = h.add(s)
	for _, forget := range []bool{false, true} {
		e := refused(t, h.DeleteRepository(h.ctx, second.ID, forget), backup.InUse, "")
		if !strings.Contains(e.Message, `"s"`) {
			t.Errorf("refusal %q does not name the schedule", e.Message)
		}
	}
	s.CopyTo = nil
	h.change(s)
	if err := h.DeleteRepository(h.ctx, second.ID, false); err != nil {
		t.Errorf("delete of a repository that nobody needs: %v", err)
	}
}

func TestACopyCountsInItsOwnRepository(t *testing.T) { // seed:N46
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	second := h.addRepository("second")
	i := h.imageOf(vm, noon.Add(-10*time.Hour), 1, nil)
	days := 31
	must(h.CopyImage(h.ctx, backup.CopyRequest{ImageID: i.ID, Repository: second.ID, RetentionDays: &days}))(t)
	h.copied(h.claimKind(backup.KindCopy))
	must(h.Expire(h.ctx))(t)
	h.days(3)
	r := h.usage(backup.UsageQuery{From: noon.Add(-aDay), To: noon.Add(2 * aDay), By: backup.UsageByRepository})
	// Made at noon, ten hours after its original, and still there two days later.
	want := []string{"second: 1 images, 48 h, 48 GiB h", "default: 1 images, 24 h, 24 GiB h"}
	if got := usageLines(r); !slices.Equal(got, want) || r.Total.Images != 2 {
		t.Errorf("usage %q of %d images, want %q", got, r.Total.Images, want)
	}
}
