package backup_test

import (
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestWhatIsMeasuredIsOfTheLastMonthAndOfTheScheduleOnly(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	s := nightly("s", 13)
	s.VMID = vm.ID
	s = h.add(s)
	if m := must(h.Measured(h.ctx, s.ID))(t); m != (backup.Measured{}) {
		t.Errorf("measured %+v of a schedule without backups", m)
	}
	took := func(scheduleID string, daysAgo int, d time.Duration, status backup.ImageStatus) {
		i := h.addImage(vm, scheduleID)
		i.StartedAt = noon.Add(time.Hour).AddDate(0, 0, -daysAgo)
		i.PointInTime, i.EndedAt, i.Status = i.StartedAt, i.StartedAt.Add(d), status
		h.update(func(tx backup.Tx) error { return tx.UpdateImage(h.ctx, i) })
	}
	took(s.ID, 40, 20*time.Hour, backup.ImageGood) // too long ago
	took("another", 1, 20*time.Hour, backup.ImageGood)
	took(s.ID, 1, 20*time.Hour, backup.ImageDamaged)
	took(s.ID, 2, 30*time.Minute, backup.ImageGood)
	took(s.ID, 3, 90*time.Minute, backup.ImageGood)
	took(s.ID, 4, 10*time.Minute, backup.ImageGood)
	want := backup.Measured{Backups: 3, Median: 30 * time.Minute, Longest: 90 * time.Minute, SuggestedHours: 2}
	if m := must(h.Measured(h.ctx, s.ID))(t); m != want {
		t.Errorf("measured %+v, want %+v", m, want)
	}
	_, warnings, err := h.CheckSchedule(h.ctx, s, nil)
	if err != nil || len(warnings) != 1 || warnings[0] != "The longest of the last 3 backups took 1 h 30 min: duration_hours = 2 books the hours that it uses (now 1)." {
		t.Errorf("a check warns %q (%v), want the hours that the backups use", warnings, err)
	}
	for range 40 { // the newest thirty count
		took(s.ID, 1, 5*time.Minute, backup.ImageGood)
	}
	if m := must(h.Measured(h.ctx, s.ID))(t); m.Backups != 30 || m.Longest != 5*time.Minute {
		t.Errorf("measured %+v, want the last 30 backups", m)
	}
	_, err = h.Measured(h.ctx, "none")
	refused(t, err, backup.NotFound, "")
	if now := read(h, func(tx backup.Tx) (backup.Schedule, error) { return tx.Schedule(h.ctx, s.ID) }); now.DurationHours != 1 {
		t.Errorf("the schedule books %d hours now, want it left alone", now.DurationHours)
	}
}
