package backup_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// gathered plans, and returns whether a gathering of the index was asked for.
// What was asked for ends well and leaves so many index blobs.
func (h *house) gathered(left int) bool {
	h.Helper()
	must(h.PlanUpkeep(h.ctx))(h.T)
	j := h.claimKind(backup.KindCollect)
	if j == nil {
		return false
	}
	if again := h.claimKind(backup.KindCollect); again != nil {
		h.Errorf("two jobs at once: %s and %s", j.Spec, again.Spec)
	}
	var spec backup.CollectSpec
	if err := json.Unmarshal(j.Spec, &spec); err != nil {
		h.Fatal(err)
	}
	h.update(func(tx backup.Tx) error {
		u, err := tx.Upkeep(h.ctx, spec.RepositoryID)
		if err != nil {
			return err
		}
		u.Collected.IndexBlobs, u.Collected.GatheredAt = left, tx.Now()
		return tx.SaveUpkeep(h.ctx, u)
	})
	h.finish(j, backup.Ending{State: backup.JobSucceeded})
	return spec.IndexOnly
}

func TestTheIndexOfABusyRepositoryIsGatheredEachHalfHour(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	for range 20 {
		h.addImage(vm, "")
	}
	if h.gathered(20) {
		t.Error("an index was gathered after 20 images")
	}
	for range 40 {
		h.addImage(vm, "")
	}
	if !h.gathered(60) {
		t.Error("an index was not gathered after 60 images")
	}
	h.clock.pass(time.Minute)
	for range 60 {
		h.addImage(vm, "")
	}
	if h.gathered(60) {
		t.Error("an index was gathered twice within minutes")
	}
	h.clock.pass(30 * time.Minute)
	if !h.gathered(400) {
		t.Error("an index was not gathered half an hour later, after 60 more images")
	}
	h.clock.pass(31 * time.Minute)
	if !h.gathered(10) {
		t.Error("an index of 400 blobs was not gathered, as there were no images")
	}
	h.clock.pass(31 * time.Minute)
	if h.gathered(10) {
		t.Error("the index of an idle repository was gathered")
	}
}

func TestACollectionIsTheGatheringToo(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	must(h.PlanUpkeep(h.ctx))(t) // it is seen
	h.clock.pass(13 * time.Hour)
	for range 60 {
		h.addImage(vm, "")
	}
	if h.gathered(10) {
		t.Error("a gathering was asked for beside a collection")
	}
	if h.gathered(10) {
		t.Error("a gathering was asked for right after a collection")
	}
}
