package backup_test

import (
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:A33
func TestAnImageOfSeveralSchedulesIsKeptForTheLongest(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	daily := nightly("daily", 13)
	daily.VMID, daily.ApplyToExisting = vm.ID, true
	daily = h.add(daily)
	weekly := nightly("weekly", 13)
	weekly.VMID, weekly.ApplyToExisting, weekly.RetentionDays = vm.ID, true, 14
	weekly.Recurrence.Kind, weekly.Recurrence.Weekdays = backup.Weekly, []time.Weekday{time.Monday}
	weekly = h.add(weekly)
	image := h.addImage(vm, daily.ID)
	day := func(n int) time.Time { return noon.AddDate(0, 0, n) }
	h.update(func(tx backup.Tx) error {
		image.JobID, image.ExpiresAt = "maker", day(14)
		if err := tx.UpdateImage(h.ctx, image); err != nil {
			return err
		}
		for _, s := range []backup.ImageShare{{ImageID: image.ID, JobID: "maker", ScheduleID: daily.ID, ExpiresAt: day(7)}, {ImageID: image.ID, JobID: "other", ScheduleID: weekly.ID, ExpiresAt: day(14)}} {
			if err := tx.SaveImageShare(h.ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range []struct {
		schedule *backup.Schedule
		days     int
		want     time.Time
	}{
		{&daily, 3, day(14)},
		{&weekly, 28, day(28)},
		{&weekly, 7, day(7)},
		{&daily, 8, day(8)},
		{&daily, 1, day(7)},
	} {
		c.schedule.RetentionDays = c.days
		*c.schedule = h.change(*c.schedule)
		if got := h.images()[0].ExpiresAt; !got.Equal(c.want) {
			t.Errorf("with %d days of %s the image ends %s, want %s", c.days, c.schedule.Name, got, c.want)
		}
	}
}
