package handler_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:A33
func TestALockedScheduleIsToldWhatItsRepositoryKeepsOfIt(t *testing.T) {
	r := newRig(t)
	s := nightly("locked", r.vms[0].ID)
	s.Lock = true
	warned := func(when string, all []string) {
		t.Helper()
		if len(all) != 1 || !strings.Contains(all[0], "repository default has no object lock") {
			t.Errorf("%s: warnings = %q, want that only the server enforces the lock", when, all)
		}
	}
	checked := into[api.BackupScheduleCheckResult](r, r.do(call{method: "POST", path: "/v1/backup-schedules:check", role: auth.Viewer, body: api.BackupScheduleCheck{Schedule: s}}), 200)
	warned("checked", checked.Warnings)
	made := into[api.BackupSchedule](r, r.do(call{method: "POST", path: "/v1/backup-schedules", role: auth.Backup, body: s}), 201)
	warned("made", made.Warnings)
	path := "/v1/backup-schedules/" + made.ID
	made.Description = "changed"
	warned("changed", into[api.BackupSchedule](r, r.do(call{method: "PUT", path: path, role: auth.Backup, body: made}), 200).Warnings)
	made.Lock = false
	if w := into[api.BackupSchedule](r, r.do(call{method: "PUT", path: path, role: auth.Backup, body: made}), 200).Warnings; len(w) != 0 {
		t.Errorf("without a lock it warns: %q", w)
	}
}

func TestARepositoryTellsHowItsStorageLocks(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	var id string
	locked := backup.StorageLocked{At: r.clock.Now(), Until: r.clock.Now().AddDate(0, 0, 7), Days: 7, Blobs: 3, Bytes: 5, Calls: 4, Seconds: 0.5}
	r.must(r.db.Update(ctx, func(tx backup.Tx) error {
		repo, err := backup.FindRepository(ctx, tx, "")
		if err != nil {
			return err
		}
		id, repo.Settings = repo.ID, map[string]string{"lock_mode": "governance", "lock_days": "7"}
		if err := tx.UpdateRepository(ctx, &repo); err != nil {
			return err
		}
		return tx.SaveUpkeep(ctx, backup.Upkeep{RepositoryID: id, Locked: locked})
	}))
	get := func() api.Repository {
		return into[api.Repository](r, r.do(call{method: "GET", path: "/v1/repositories/" + id, role: auth.Viewer}), 200)
	}
	want := api.StorageLock{ExtendedAt: locked.At, LockedUntil: locked.Until, Blobs: 3, Bytes: 5, Requests: 4, Seconds: 0.5}
	got := get()
	if got.StorageLock != want || strings.Contains(strings.Join(got.Warnings, " "), "extended") {
		t.Errorf("lock = %+v, warnings %q; want %+v and no warning of it", got.StorageLock, got.Warnings, want)
	}
	r.clock.pass(37 * time.Hour)
	if got = get(); !strings.Contains(strings.Join(got.Warnings, " "), "last extended at 2026-12-01 00:30 UTC") {
		t.Errorf("warnings = %q, want that the locks were not extended", got.Warnings)
	}
}
