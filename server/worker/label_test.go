package worker_test

import (
	"maps"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:W15 seed:W17 seed:W18 seed:W19
func TestAnImageCarriesTheLabelsOfItsVMsTagsOfThatTime(t *testing.T) {
	h := newHouse(t)
	v := h.vcenterNow()
	v.TagMappings = []backup.TagMapping{{Category: "OS", Tag: "Windows", Key: "OS-Windows", Value: "Windows"}}
	if _, err := h.planner.UpdateVCenter(h.ctx, v); err != nil {
		t.Fatal(err)
	}
	tag := func(tags ...backup.Tag) {
		h.vm.Tags = tags
		h.update(func(tx backup.Tx) error { return tx.SaveMachines(h.ctx, []backup.VirtualMachine{h.vm}) })
	}
	backUp := func() backup.Image {
		t.Helper()
		run, err := h.planner.BackupVM(h.ctx, h.vm.ID, backup.RunOptions{RetentionDays: 1, Labels: map[string]string{"by": "hand"}})
		if err != nil {
			t.Fatal(err)
		}
		j := h.ended(run.Jobs[0].ID)
		return read(h, func(tx backup.Tx) (backup.Image, error) { return tx.Image(h.ctx, j.ImageID) })
	}
	h.start()
	tag(backup.Tag{Category: "OS", Name: "Windows"})
	if i := backUp(); !maps.Equal(i.Labels, map[string]string{"OS-Windows": "Windows", "by": "hand"}) {
		t.Errorf("the image has the labels %v, want those of the tag and of the run", i.Labels)
	}
	tag()
	if i := backUp(); !maps.Equal(i.Labels, map[string]string{"by": "hand"}) {
		t.Errorf("without the tag the image has the labels %v", i.Labels)
	}
	found := read(h, func(tx backup.Tx) ([]backup.Image, error) {
		all, _, err := tx.Images(h.ctx, backup.ImageFilter{Labels: map[string]string{"OS-Windows": "Windows"}})
		return all, err
	})
	if len(found) != 1 {
		t.Errorf("%d images are found by the label, want the first", len(found))
	}
}
