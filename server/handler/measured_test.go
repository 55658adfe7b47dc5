package handler_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestAScheduleTellsForHowManyOfItsVMsThereWasNoRoom(t *testing.T) {
	r := newRig(t)
	made := r.schedule(nightly("s", r.vms[0].ID))
	if made.UnbookedSeats != 0 {
		t.Errorf("unbooked_seats = %d of a schedule that has its seat", made.UnbookedSeats)
	}
	r.must(r.db.Update(context.Background(), func(tx backup.Tx) error {
		s, err := tx.Schedule(context.Background(), made.ID)
		if err != nil {
			return err
		}
		s.UnbookedSeats = 2
		return tx.UpdateSchedule(context.Background(), &s, []backup.SeatsBooked{{VCenterID: r.vcenter.ID, Seats: 1}})
	}))
	read := into[api.BackupSchedule](r, r.do(call{method: "GET", path: "/v1/backup-schedules/" + made.ID, role: auth.Viewer}), 200)
	if read.UnbookedSeats != 2 {
		t.Errorf("unbooked_seats = %d, want 2", read.UnbookedSeats)
	}
}

// The clock stands at 09:30 in Tokyo.
func TestAScheduleTellsHowLongItsBackupsTook(t *testing.T) {
	r := newRig(t)
	made := r.schedule(nightly("s", r.vms[0].ID))
	path := "/v1/backup-schedules/" + made.ID
	get := func() *api.MeasuredDuration {
		return into[api.BackupSchedule](r, r.do(call{method: "GET", path: path, role: auth.Viewer}), 200).Measured
	}
	if m := get(); m != nil {
		t.Errorf("measured = %+v before anything was backed up", m)
	}
	for i, took := range []time.Duration{10 * time.Minute, 80 * time.Minute, 20 * time.Minute} {
		r.image(r.vms[0], func(img *backup.Image) {
			img.ScheduleID, img.StartedAt = made.ID, r.clock.Now().Add(-time.Duration(i+1)*24*time.Hour)
			img.EndedAt = img.StartedAt.Add(took)
		})
	}
	want := &api.MeasuredDuration{Backups: 3, MedianSeconds: 1200, LongestSeconds: 4800, SuggestedDurationHours: 2}
	if diff := cmp.Diff(want, get()); diff != "" {
		t.Errorf("measured (-want +got):\n%s", diff)
	}
	// What was measured may be sent back, and changes nothing.
	read := into[api.BackupSchedule](r, r.do(call{method: "GET", path: path, role: auth.Viewer}), 200)
	put := into[api.BackupSchedule](r, r.do(call{method: "PUT", path: path, role: auth.Backup, body: read}), 200)
	if put.DurationHours != 1 {
		t.Errorf("duration_hours = %d, want it as it was booked", put.DurationHours)
	}
}
