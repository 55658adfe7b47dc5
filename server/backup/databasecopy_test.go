package backup_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// shelf keeps copies of databases, newest first.
type shelf struct {
	copies []backup.DatabaseCopy
	made   int
	done   int
	full   error
}

func (s *shelf) CopyDatabase(context.Context) ([]backup.CopiedFile, func() error, error) {
	s.made++
	return []backup.CopiedFile{{Name: "kura.db"}}, func() error { s.done++; return nil }, nil
}

func (s *shelf) KeepDatabase(_ context.Context, _ backup.RepositoryRecord, at time.Time, files []backup.CopiedFile) error {
	if s.full != nil {
		return s.full
	}
	s.copies = append([]backup.DatabaseCopy{{Ref: fmt.Sprint(s.made), Installation: ours, At: at, Bytes: int64(len(files))}}, s.copies...)
	return nil
}

func (s *shelf) DatabaseCopies(context.Context, backup.RepositoryRecord) ([]backup.DatabaseCopy, error) {
	return slices.Clone(s.copies), nil
}

func (s *shelf) ForgetDatabase(_ context.Context, _ backup.RepositoryRecord, refs []string) error {
	s.copies = slices.DeleteFunc(s.copies, func(c backup.DatabaseCopy) bool { return slices.Contains(refs, c.Ref) })
	return nil
}

func (h *house) copiedDatabase() backup.CopiedDatabase {
	h.Helper()
	return read(h, func(tx backup.Tx) (backup.CopiedDatabase, error) {
		return backup.FindCopiedDatabase(h.ctx, tx, h.repository)
	})
}

func TestTheDatabaseIsCopiedOnceADayAndAWeekOfCopiesIsKept(t *testing.T) {
	h, _ := storehouse(t)
	theirs := backup.DatabaseCopy{Ref: "theirs", Installation: "installation-2", At: noon.AddDate(-1, 0, 0)}
	s := &shelf{copies: []backup.DatabaseCopy{theirs}}
	k := &backup.DatabaseKeeper{Store: h.db, Copier: s, Copies: s, Installation: ours}
	pass := func(d time.Duration, copies int) {
		t.Helper()
		h.clock.pass(d)
		must(0, k.KeepDue(h.ctx))(t)
		if s.made != copies || s.done != copies {
			t.Fatalf("at %v %d copies were made and %d cleared away, want %d", h.clock.Now(), s.made, s.done, copies)
		}
	}
	pass(0, 0)
	pass(50*time.Minute, 0)
	pass(10*time.Minute, 1)
	pass(23*time.Hour, 1)
	pass(time.Hour, 2)
	for n := range 10 {
		pass(24*time.Hour, 3+n)
	}
	if len(s.copies) != 8 || s.copies[7] != theirs || !s.copies[0].At.Equal(h.clock.Now()) || !h.copiedDatabase().At.Equal(h.clock.Now()) {
		t.Errorf("copies are %+v, want our newest seven and the other installation's", s.copies)
	}
	h.repository.ReadOnly = true
	h.update(func(tx backup.Tx) error { return tx.UpdateRepository(h.ctx, &h.repository) })
	pass(24*time.Hour, 12)
	_, err := k.Keep(h.ctx, h.repository.ID)
	wantCode(t, "Keep() in a repository that can only be read", err, backup.Conflict, "")
}

func TestACopyThatCannotBeMadeIsToldAfterThreeDays(t *testing.T) {
	h, _ := storehouse(t)
	s := &shelf{full: backup.Errorf(backup.NoSpace, "", "The disk is full.")}
	k := &backup.DatabaseKeeper{Store: h.db, Copier: s, Copies: s, Installation: ours}
	must(0, k.KeepDue(h.ctx))(t)
	h.clock.pass(time.Hour)
	if err := k.KeepDue(h.ctx); backup.CodeOf(err) != backup.NoSpace {
		t.Errorf("KeepDue() on a full disk = %v", err)
	}
	if w := h.copiedDatabase().Warning(h.clock.Now()); w != "" {
		t.Errorf("warned at once: %s", w)
	}
	h.clock.pass(72 * time.Hour)
	if w := h.copiedDatabase().Warning(h.clock.Now()); !strings.Contains(w, "The disk is full") || !strings.Contains(w, "none was made yet") {
		t.Errorf("after three days: %q, want a warning with the reason", w)
	}
	s.full = nil
	must(k.Keep(h.ctx, h.repository.ID))(t)
	if c := h.copiedDatabase(); c.Warning(h.clock.Now()) != "" || c.At.IsZero() {
		t.Errorf("after a good one: %+v", c)
	}
}
