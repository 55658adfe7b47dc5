package backup_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// readDue plans, and reads what was asked for, well; it returns the images.
func (h *house) readDue() (read []string) {
	h.Helper()
	must(h.PlanUpkeep(h.ctx))(h.T)
	for j := h.claimKind(backup.KindVerify); j != nil; j = h.claimKind(backup.KindVerify) {
		h.finish(j, backup.Ending{State: backup.JobSucceeded})
		h.update(func(tx backup.Tx) error {
			i, err := tx.Image(h.ctx, j.ImageID)
			if err != nil {
				return err
			}
			i.Verified(backup.Verified{}, tx.Now())
			return tx.UpdateImage(h.ctx, i)
		})
		read = append(read, j.ImageID)
	}
	return read
}

func TestEveryImageIsReadWithinItsDaysInEqualParts(t *testing.T) {
	for _, n := range []int{1, 7, 30, 90} {
		t.Run(fmt.Sprint(n, " images"), func(t *testing.T) {
			h := newHouse(t, 10)
			vm := h.addVMs(h.vcenter.ID, 1)[0]
			for range n {
				h.addImage(vm, "")
			}
			damaged := h.addImage(vm, "")
			damaged.Status = backup.ImageDamaged
			h.update(func(tx backup.Tx) error { return tx.UpdateImage(h.ctx, damaged) })
			must(h.PlanUpkeep(h.ctx))(t)
			last := map[string]time.Time{}
			for _, i := range h.images() {
				last[i.ID] = h.clock.Now()
			}
			for day := range 60 {
				today := 0
				for range 6 {
					h.clock.pass(4 * time.Hour)
					for _, id := range h.readDue() {
						if gap := h.clock.Now().Sub(last[id]); gap > 30*24*time.Hour+8*time.Hour { // as late as two looks
							t.Errorf("image %s was not read for %s", id, gap)
						}
						last[id] = h.clock.Now()
						today++
					}
				}
				if most := (n + 29) / 30; today > most {
					t.Errorf("day %d: %d images read, want at most %d", day, today, most)
				}
			}
			for id, at := range last {
				if gap := h.clock.Now().Sub(at); gap > 31*24*time.Hour != (id == damaged.ID) {
					t.Errorf("image %s was not read for %s; only the damaged one is left alone", id, gap)
				}
			}
		})
	}
}

func TestAServerThatWasAwayDoesNotReadEverythingAtOnce(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	for range 60 {
		h.addImage(vm, "")
	}
	must(h.PlanUpkeep(h.ctx))(t)
	h.clock.pass(90 * 24 * time.Hour)
	if n := len(h.readDue()); n != 2 {
		t.Errorf("%d images read after three months, want the 2 of a day", n)
	}
}

func TestAnImageIsReadOnDemand(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	i := h.addImage(vm, "")
	first := must(h.VerifyImage(h.ctx, i.ID))(t)
	if again := must(h.VerifyImage(h.ctx, i.ID))(t); again.ID != first.ID || first.ImageID != i.ID {
		t.Errorf("asked twice: jobs %s and %s, want one of image %s", first.ID, again.ID, i.ID)
	}
	gone := h.addImage(vm, "")
	must(h.DeleteImage(h.ctx, gone.ID))(t)
	_, err := h.VerifyImage(h.ctx, gone.ID)
	refused(t, err, backup.NotFound, "")
	_, err = h.VerifyImage(h.ctx, "nothing")
	refused(t, err, backup.NotFound, "")
}
