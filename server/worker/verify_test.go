package worker_test

import (
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var broken = backup.Verified{Damaged: []int32{2000}, Files: []string{"disk-2000.img"}, Message: "Parts of disk-2000.img are missing."}

// found makes the repository find this of every image.
func (h *house) found(v backup.Verified) {
	h.repository.imagesMu.Lock()
	defer h.repository.imagesMu.Unlock()
	h.repository.verified = v
}

func (h *house) verify(id string) backup.Job {
	h.Helper()
	j, err := h.planner.VerifyImage(h.ctx, id)
	if err != nil {
		h.Fatal(err)
	}
	return h.ended(j.ID)
}

func TestAnImageOfWhichSomethingIsMissingIsDamagedAtOnce(t *testing.T) { // seed:A32
	h := newHouse(t)
	h.found(broken)
	defer h.start()()
	j := h.ended(h.ask(h.vm))
	if j.State != backup.JobFailed || j.ErrorCode != backup.RepositoryDamaged || j.Error != broken.Message {
		t.Errorf("job = %s, %s, %q; want it failed with what is missing", j.State, j.ErrorCode, j.Error)
	}
	if i := h.images(); len(i) != 1 || i[0].Status != backup.ImageDamaged || i[0].Message != broken.Message {
		t.Errorf("images = %+v, want the one, damaged", i)
	}
	if left := h.vsphere.snapshotsOf(h.vm.MOID); len(left) != 0 {
		t.Errorf("snapshots left: %v", left)
	}
}

func TestABackupSucceedsWhoseImageCannotBeCheckedNow(t *testing.T) {
	h := newHouse(t)
	h.repository.fail("Verify", 1, unreachable)
	defer h.start()()
	j := h.ended(h.ask(h.vm))
	if j.State != backup.JobSucceeded || !strings.Contains(strings.Join(j.Messages, " "), "could not be checked") {
		t.Errorf("job = %s %q, want it succeeded with a message", j.State, j.Messages)
	}
}

func TestReadingAnImageTellsHowItStands(t *testing.T) {
	h := newHouse(t)
	defer h.start()()
	h.ended(h.ask(h.vm))
	id := h.images()[0].ID
	h.found(backup.Verified{Blocks: 7, Bytes: 1 << 20})
	if j := h.verify(id); j.State != backup.JobSucceeded || !strings.Contains(strings.Join(j.Messages, " "), "7 blocks") {
		t.Errorf("job of a whole image = %s %q", j.State, j.Messages)
	}
	if i := h.images()[0]; !i.VerifiedAt.Equal(h.clock.Now()) || i.Status != backup.ImageGood {
		t.Errorf("whole image = %s, verified at %s", i.Status, i.VerifiedAt)
	}
	h.found(broken)
	if j := h.verify(id); j.State != backup.JobFailed || j.ErrorCode != backup.RepositoryDamaged || j.Error != broken.Message {
		t.Errorf("job of a damaged image = %s, %s, %q", j.State, j.ErrorCode, j.Error)
	}
	if i := h.images()[0]; i.Status != backup.ImageDamaged || i.Message != broken.Message {
		t.Errorf("damaged image = %s %q", i.Status, i.Message)
	}
	h.found(backup.Verified{Blocks: 7})
	h.verify(id) // what was lost has been put back
	if i := h.images()[0]; i.Status != backup.ImageGood || i.Message != "" {
		t.Errorf("mended image = %s %q", i.Status, i.Message)
	}
}

func TestAnImageThatIsNotInItsRepositoryIsDamaged(t *testing.T) {
	h := newHouse(t)
	defer h.start()()
	h.ended(h.ask(h.vm))
	i := h.images()[0]
	if err := h.repository.Delete(h.ctx, i.Ref); err != nil {
		t.Fatal(err)
	}
	if j := h.verify(i.ID); j.State != backup.JobFailed || h.images()[0].Status != backup.ImageDamaged {
		t.Errorf("job = %s, image = %s; want failed and damaged", j.State, h.images()[0].Status)
	}
}

func TestAReadingNamesTheOtherImagesThatAreHurt(t *testing.T) {
	h := newHouse(t)
	defer h.start()()
	h.ended(h.ask(h.vm))
	h.ended(h.ask(h.vm))
	all := h.images()
	if len(all) != 2 {
		t.Fatalf("%d images, want 2", len(all))
	}
	found := broken
	found.Hurt = []backup.HurtImage{{ID: all[1].ID, Disks: []int32{2000}, Message: broken.Message}, {ID: "an image of nobody"}}
	h.found(found)
	j := h.verify(all[0].ID)
	if said := strings.Join(j.Messages, " "); !strings.Contains(said, all[1].ID) || !strings.Contains(said, "1 other images") {
		t.Errorf("messages = %q, want the other image named", said)
	}
	for _, i := range h.images() {
		if i.Status != backup.ImageDamaged || i.Message != broken.Message || len(i.DamagedDisks()) != 1 {
			t.Errorf("image %s = %s %q, damaged disks %v; want it damaged, and its disk named", i.ID, i.Status, i.Message, i.DamagedDisks())
		}
	}
}

func TestABackupHasTheDamagedImagesOfItsVMLookedAt(t *testing.T) {
	h := newHouse(t)
	defer h.start()()
	h.ended(h.ask(h.vm))
	id := h.images()[0].ID
	h.found(broken)
	h.verify(id)
	h.found(backup.Verified{Blocks: 7}) // the next backup stores what is lost
	h.ended(h.ask(h.vm))
	looks := h.readings()
	if len(looks) != 2 {
		t.Fatalf("%d readings, want one more than was asked for", len(looks))
	}
	for _, j := range looks {
		h.ended(j.ID)
	}
	if i := h.images()[0]; i.Status != backup.ImageGood || i.Message != "" || len(i.DamagedDisks()) != 0 {
		t.Errorf("the image = %s %q %v, want it good again", i.Status, i.Message, i.DamagedDisks())
	}
}

func TestAnImageThatStillLacksSomethingIsNotRead(t *testing.T) {
	h := newHouse(t)
	defer h.start()()
	h.ended(h.ask(h.vm))
	i := h.images()[0]
	h.found(broken)
	h.verify(i.ID)
	h.update(func(tx backup.Tx) error {
		return backup.ReadDamaged(h.ctx, tx, backup.Image{Status: backup.ImageGood, RepositoryID: i.RepositoryID, VMID: i.VMID})
	})
	looks := h.readings()
	if len(looks) != 2 {
		t.Fatalf("%d readings, want one more than was asked for", len(looks))
	}
	if j := h.ended(looks[0].ID); j.State != backup.JobSkipped || !strings.Contains(j.Error+strings.Join(j.Messages, " "), "not stored again") {
		t.Errorf("job = %s %q %q, want it skipped", j.State, j.Error, j.Messages)
	}
	if got := h.images()[0]; got.Status != backup.ImageDamaged {
		t.Errorf("image = %s, want it damaged still", got.Status)
	}
}

// readings lists the readings that were asked for, newest first.
func (h *house) readings() []backup.Job {
	h.Helper()
	return read(h, func(tx backup.Tx) ([]backup.Job, error) {
		all, _, err := tx.Jobs(h.ctx, backup.JobFilter{Kind: backup.KindVerify, Page: backup.Page{Limit: 100}})
		return all, err
	})
}
