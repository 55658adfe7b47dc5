package backup_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// places are where repositories lie: the path tells which.
type places struct {
	at       map[string]string // path -> the repository's own id
	password backup.Secret     // that opens them
	locked   string            // lock_days that were set last
	fails    error             // of the next change of password
}

func (p *places) Check(r backup.RepositoryRecord) error {
	if r.Compression == "lz4" {
		return backup.Errorf(backup.Invalid, "compression", "There is no compression lz4.")
	}
	return nil
}

func (p *places) Create(_ context.Context, r backup.RepositoryRecord) (string, error) {
	return p.at[r.Settings["path"]], nil
}

func (p *places) Attach(ctx context.Context, r backup.RepositoryRecord) (string, string, error) {
	return p.Probe(ctx, r)
}

func (p *places) Probe(_ context.Context, r backup.RepositoryRecord) (string, string, error) {
	if p.at[r.Settings["path"]] == "" {
		return "", "", backup.Errorf(backup.Conflict, "settings.path", "There is no repository.")
	}
	return p.at[r.Settings["path"]], "", nil
}

func (p *places) SetLock(_ context.Context, r backup.RepositoryRecord) error {
	p.locked = r.Settings["lock_days"]
	return nil
}

func (p *places) ChangePassword(_ context.Context, r backup.RepositoryRecord) error {
	if err := p.fails; err != nil {
		p.fails = nil
		return err
	}
	p.password = r.NextPassword
	return nil
}

func (p *places) TakeOver(context.Context, backup.RepositoryRecord) (string, error) { return "", nil }

func (p *places) RecoverySheet(r backup.RepositoryRecord, recipient string) (backup.Secret, error) {
	return r.Password + " for " + backup.Secret(recipient), nil
}

const ours = "installation-1"

// storehouse is a house whose repositories lie in places.
func storehouse(t *testing.T) (*house, *places) {
	h := newHouse(t, 10)
	p := &places{at: map[string]string{"/a": "unique-a", "/moved": "unique-a", "/b": "unique-b"}, password: "secret"}
	h.Repositories, h.Installation = p, ours
	h.repository.Settings, h.repository.UniqueID, h.repository.OwnedBy = map[string]string{"path": "/a", "private_key": "hush"}, "unique-a", ours
	h.repository.Compression, h.repository.VerifyDays = "s2", 30
	h.update(func(tx backup.Tx) error { return tx.UpdateRepository(h.ctx, &h.repository) })
	return h, p
}

func (h *house) record(id string) backup.RepositoryRecord {
	h.Helper()
	return read(h, func(tx backup.Tx) (backup.RepositoryRecord, error) { return tx.Repository(h.ctx, id) })
}

func (h *house) second() backup.RepositoryRecord {
	h.Helper()
	return must(h.CreateRepository(h.ctx, backup.RepositoryRecord{Name: "second", Kind: "filesystem", Settings: map[string]string{"path": "/b"}}))(h.T)
}

func wantCode(t *testing.T, what string, err error, code backup.Code, field string) {
	t.Helper()
	if e := backup.AsError(err); e == nil || e.Code != code || e.Field != field {
		t.Errorf("%s = %v, want %s at %q", what, err, code, field)
	}
}

func ptr[T any](v T) *T { return &v }

func TestARepositoryIsChanged(t *testing.T) {
	h, p := storehouse(t)
	other := h.second()
	must(h.RecoverySheet(h.ctx, h.repository.ID, ""))(t)
	r := must(h.UpdateRepository(h.ctx, h.repository.ID, h.repository.Version, backup.RepositoryChange{
		Name: ptr("first"), Compression: ptr("none"), VerifyDays: ptr(7), Kind: ptr("filesystem"),
		Settings: map[string]string{"path": "/moved", "private_key": "***", "lock_mode": "governance", "lock_days": "9"},
	}))(t)
	if got := h.record(r.ID); got.Name != "first" || got.Compression != "none" || got.VerifyDays != 7 || got.Settings["path"] != "/moved" || got.Settings["private_key"] != "hush" || got.Password != "secret" {
		t.Errorf("stored is %+v, want the change and the secrets of before", got)
	}
	if p.locked != "9" {
		t.Errorf("the storage locks for %q days, want 9", p.locked)
	}
	if r.SheetAt != (time.Time{}) || !r.SheetLapsedAt.Equal(noon) {
		t.Errorf("the sheet of before is from %v and lapsed at %v, want it out of date", r.SheetAt, r.SheetLapsedAt)
	}

	must(h.UpdateRepository(h.ctx, other.ID, 0, backup.RepositoryChange{Default: ptr(true)}))(t)
	if a, b := h.record(r.ID), h.record(other.ID); a.Default || !b.Default {
		t.Errorf("default is first = %t, second = %t; want the second alone", a.Default, b.Default)
	}
}

func TestAChangeOfARepositoryIsRefusedBeforeItIsStored(t *testing.T) {
	h, p := storehouse(t)
	other := h.second()
	foreign := must(h.UpdateRepository(h.ctx, other.ID, 0, backup.RepositoryChange{}))(t)
	foreign.OwnedBy = "installation-2"
	h.update(func(tx backup.Tx) error { return tx.UpdateRepository(h.ctx, &foreign) })
	before := h.record(h.repository.ID)
	for name, c := range map[string]struct {
		id      string
		version int64
		change  backup.RepositoryChange
		code    backup.Code
		field   string
	}{
		"no name":                  {before.ID, 0, backup.RepositoryChange{Name: ptr(" ")}, backup.Invalid, "name"},
		"a taken name":             {before.ID, 0, backup.RepositoryChange{Name: ptr("second")}, backup.Conflict, "name"},
		"another kind":             {before.ID, 0, backup.RepositoryChange{Kind: ptr("s3")}, backup.Invalid, "kind"},
		"a compression":            {before.ID, 0, backup.RepositoryChange{Compression: ptr("lz4")}, backup.Invalid, "compression"},
		"no readings":              {before.ID, 0, backup.RepositoryChange{VerifyDays: ptr(0)}, backup.Invalid, "verify_days"},
		"no default":               {before.ID, 0, backup.RepositoryChange{Default: ptr(false)}, backup.Invalid, "default"},
		"a read-only default":      {before.ID, 0, backup.RepositoryChange{ReadOnly: ptr(true)}, backup.Conflict, "read_only"},
		"another's as the default": {other.ID, 0, backup.RepositoryChange{Default: ptr(true)}, backup.Conflict, "default"},
		"another repository there": {before.ID, 0, backup.RepositoryChange{Settings: map[string]string{"path": "/b"}}, backup.Conflict, "settings"},
		"nothing there":            {before.ID, 0, backup.RepositoryChange{Settings: map[string]string{"path": "/none"}}, backup.Conflict, "settings.path"},
		"a secret that is none":    {before.ID, 0, backup.RepositoryChange{Settings: map[string]string{"path": "/a", "session_token": "***"}}, backup.Invalid, "settings.session_token"},
		"an old version":           {before.ID, 99, backup.RepositoryChange{}, backup.Stale, ""},
		"no repository":            {"none", 0, backup.RepositoryChange{}, backup.NotFound, ""},
	} {
		_, err := h.UpdateRepository(h.ctx, c.id, c.version, c.change)
		wantCode(t, name, err, c.code, c.field)
	}
	if after := h.record(before.ID); after.Version != before.Version || p.locked != "" {
		t.Errorf("version %d of before is now %d, lock %q; want nothing changed", before.Version, after.Version, p.locked)
	}
}

func TestARepositoryIsRegisteredOnce(t *testing.T) {
	h, _ := storehouse(t)
	_, err := h.CreateRepository(h.ctx, backup.RepositoryRecord{Name: "again", Kind: "filesystem", Settings: map[string]string{"path": "/moved"}, Password: "secret"})
	wantCode(t, "CreateRepository() of a registered one", err, backup.Conflict, "settings")
	if err == nil || !strings.Contains(err.Error(), `"default"`) {
		t.Errorf("CreateRepository() = %v, want its present name", err)
	}
}

func TestARepositoryIsDeletedWhenNothingNeedsIt(t *testing.T) {
	h, _ := storehouse(t)
	vms := h.addVMs(h.vcenter.ID, 1)
	s := h.add(backup.Schedule{Name: "nightly", Enabled: true, VMID: vms[0].ID, RetentionDays: 7, LatestHour: 23, Recurrence: backup.Recurrence{Kind: backup.Daily, TimeZone: "UTC", Hour: 2}})
	image := h.addImage(vms[0], s.ID)
	refused := func(what string, forget bool, code backup.Code, names string) {
		t.Helper()
		err := h.DeleteRepository(h.ctx, h.repository.ID, forget)
		wantCode(t, what, err, code, "")
		if err == nil || !strings.Contains(err.Error(), names) {
			t.Errorf("%s = %v, want %s named", what, err, names)
		}
	}
	refused("DeleteRepository() with all", false, backup.InUse, `schedule "nightly" and by image "`+image.ID+`"`)
	refused("DeleteRepository() with a schedule", true, backup.InUse, `"nightly"`)
	must(0, h.DeleteSchedule(h.ctx, s.ID))(t)

	image.LockedUntil = noon.AddDate(0, 0, 1)
	h.update(func(tx backup.Tx) error { return tx.UpdateImage(h.ctx, image) })
	refused("DeleteRepository() with a locked image", true, backup.Locked, image.ID)
	h.clock.pass(23 * time.Hour)
	must(h.Expire(h.ctx))(t)
	h.clock.pass(2 * time.Hour)

	other := h.second()
	refused("DeleteRepository() of the default", true, backup.InUse, "default")
	must(h.UpdateRepository(h.ctx, other.ID, 0, backup.RepositoryChange{Default: ptr(true)}))(t)
	job := must(h.VerifyImage(h.ctx, image.ID))(t)
	refused("DeleteRepository() with a job", true, backup.InUse, "jobs that are not over (1)")
	must(h.CancelJob(h.ctx, job.ID))(t)
	refused("DeleteRepository() with an image", false, backup.InUse, image.ID)
	must(0, h.DeleteRepository(h.ctx, h.repository.ID, true))(t)
	if left := h.images(); len(left) != 0 {
		t.Errorf("%d images are left, want none", len(left))
	}
	wantCode(t, "DeleteRepository() again", h.DeleteRepository(h.ctx, h.repository.ID, true), backup.NotFound, "")
}

func TestAChangeOfPasswordThatFailsIsFinishedLater(t *testing.T) {
	h, p := storehouse(t)
	must(h.RecoverySheet(h.ctx, h.repository.ID, ""))(t)
	p.fails = errors.New("killed")
	if _, err := h.ChangeRepositoryPassword(h.ctx, h.repository.ID); err == nil {
		t.Fatal("ChangeRepositoryPassword() = nil, want the failure")
	}
	half := h.record(h.repository.ID)
	if half.NextPassword == "" || half.Password != "secret" {
		t.Fatalf("passwords are %q and %q, want both known", half.Password.Reveal(), half.NextPassword.Reveal())
	}
	must(0, h.FinishPassword(h.ctx, half.ID))(t)
	if got := h.record(half.ID); got.NextPassword == "" {
		t.Error("another server finished it at once, want it to leave that to the one that is at it")
	}
	h.clock.pass(2 * time.Minute)
	must(0, h.FinishPassword(h.ctx, half.ID))(t)
	done := h.record(half.ID)
	if done.Password != half.NextPassword || done.NextPassword != "" || p.password != done.Password || done.SheetLapsedAt.IsZero() {
		t.Errorf("stored is %+v, want the new password and the sheet out of date", done)
	}

	again := must(h.ChangeRepositoryPassword(h.ctx, half.ID))(t)
	if again.Password == done.Password || again.Password != p.password {
		t.Error("a second change gave no new password")
	}
	// A sheet never holds a password that is just going.
	p.fails = errors.New("killed")
	if _, err := h.ChangeRepositoryPassword(h.ctx, half.ID); err == nil {
		t.Fatal("ChangeRepositoryPassword() = nil, want the failure")
	}
	h.AgeRecipient = "age1ops"
	sheet := must(h.RecoverySheet(h.ctx, half.ID, ""))(t)
	if want := p.password + " for age1ops"; sheet != want || h.record(half.ID).Password != p.password {
		t.Errorf("sheet = %q, want %q", sheet.Reveal(), want.Reveal())
	}

	half = h.record(half.ID)
	half.OwnedBy = "installation-2"
	h.update(func(tx backup.Tx) error { return tx.UpdateRepository(h.ctx, &half) })
	_, err := h.ChangeRepositoryPassword(h.ctx, half.ID)
	wantCode(t, "ChangeRepositoryPassword() of another's", err, backup.Conflict, "")
}

func TestARepositoryWarnsOfWhatAnOperatorMustSeeTo(t *testing.T) {
	h, _ := storehouse(t)
	warned := func(when string, want ...string) {
		t.Helper()
		r := h.record(h.repository.ID)
		u := read(h, func(tx backup.Tx) (backup.Upkeep, error) { return tx.Upkeep(h.ctx, r.ID) })
		got := r.Warnings(ours, u)
		for n := range max(len(got), len(want)) {
			if n >= len(got) || n >= len(want) || !strings.Contains(got[n], want[n]) {
				t.Errorf("%s: warnings = %q, want %q", when, got, want)
				return
			}
		}
	}
	warned("at first", `kura repository recovery-sheet "default"`)
	must(h.RecoverySheet(h.ctx, h.repository.ID, ""))(t)
	warned("with a sheet")
	h.clock.pass(time.Hour)
	must(h.ChangeRepositoryPassword(h.ctx, h.repository.ID))(t)
	warned("after a change of password", "out of date since 2026-11-23 13:00 UTC")
	r := h.record(h.repository.ID)
	r.OwnedBy, r.AwaySince, r.CheckError = "installation-2", noon, "The disk is gone."
	h.update(func(tx backup.Tx) error {
		return errors.Join(tx.UpdateRepository(h.ctx, &r), tx.SaveRepositoryNotes(h.ctx, r),
			tx.SaveUpkeep(h.ctx, backup.Upkeep{RepositoryID: r.ID, Collected: backup.Collected{IndexBlobs: 1001}}))
	})
	warned("with all else", "takeover", "1001 index blobs", "since 2026-11-23 12:00 UTC: The disk is gone.")
}
