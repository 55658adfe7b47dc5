package backup_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// markedPlace is the storage of a repository, as far as marks go.
type markedPlace struct {
	mark backup.DatabaseMark
	away error // of reading and writing
	full error // of writing
}

func (m *markedPlace) DatabaseMark(context.Context, backup.RepositoryRecord) (backup.DatabaseMark, error) {
	return m.mark, m.away
}

func (m *markedPlace) LeaveDatabaseMark(_ context.Context, _ backup.RepositoryRecord, mark backup.DatabaseMark) error {
	if m.full == nil {
		m.mark = mark
	}
	return m.full
}

// lineage is the lineage of the house's database, whose repository lies there.
func (h *house) lineage(there *markedPlace) *backup.Lineage {
	return &backup.Lineage{Store: h.db, Marks: there, Installation: ours}
}

// check looks at the marks and says whether the database was found to be old.
func (h *house) check(l *backup.Lineage, start bool) (old bool, err error) {
	h.Helper()
	o, err := l.Check(h.ctx, start)
	return o != nil, err
}

func (h *house) wantOld(what string, l *backup.Lineage, start, want bool) {
	h.Helper()
	if old, err := h.check(l, start); old != want || err != nil {
		h.Errorf("%s: old = %t, %v; want %t", what, old, err, want)
	}
}

// marks are what a copy of the database would know of the marks it has left.
func (h *house) marks() string {
	h.Helper()
	return read(h, func(tx backup.Tx) (string, error) {
		v, _, err := tx.Setting(h.ctx, "database_marks:unique-a")
		return v, err
	})
}

func (h *house) setMarks(text string) {
	h.Helper()
	h.update(func(tx backup.Tx) error { return tx.SetSetting(h.ctx, "database_marks:unique-a", text) })
}

func TestADatabaseThatWasPutBackIsFoundByTheMarkInTheRepository(t *testing.T) {
	h, _ := storehouse(t)
	there := &markedPlace{}
	l := h.lineage(there)
	h.wantOld("the first start", l, true, false)
	first := there.mark
	if first.ID == "" {
		t.Fatal("no mark was left")
	}
	h.wantOld("ten minutes later", l, false, false)
	if there.mark != first {
		t.Error("a mark that is young was replaced")
	}
	h.clock.pass(time.Hour)
	h.wantOld("an hour later", l, false, false)
	if there.mark == first {
		t.Error("a mark of an hour ago was not replaced")
	}
	copied := h.marks()
	h.clock.pass(time.Hour)
	h.wantOld("another hour later", l, false, false)
	newest := there.mark
	h.setMarks(copied)
	h.wantOld("the copy of an hour ago", l, true, true)
	if there.mark != newest {
		t.Error("the old database has replaced the mark of the newest")
	}
	o := must(l.Old(h.ctx))(t)
	if o.Repository != h.repository.Name || !o.WrittenAt.Equal(newest.At) || !strings.Contains(o.Message(), "kura catalog adopt --yes") {
		t.Errorf("it says %+v: %s", o, o.Message())
	}
}

func TestWhatIsNoOldDatabaseIsNotTakenForOne(t *testing.T) {
	for name, happens := range map[string]func(h *house, l *backup.Lineage, there *markedPlace){
		"the mark was noted, and the server killed before it was left": func(h *house, l *backup.Lineage, there *markedPlace) {
			was := there.mark
			h.clock.pass(time.Hour)
			h.wantOld("the hour's mark", l, false, false)
			there.mark = was
		},
		"the repository was away for a week": func(h *house, l *backup.Lineage, there *markedPlace) {
			there.away = backup.Errorf(backup.RepositoryUnreachable, "", "Away.")
			for range 7 * 24 {
				h.clock.pass(time.Hour)
				if _, err := h.check(l, false); backup.CodeOf(err) != backup.RepositoryUnreachable {
					h.Errorf("check of a repository that is away: %v", err)
				}
			}
			there.away = nil
		},
		"the repository was full for a week": func(h *house, l *backup.Lineage, there *markedPlace) {
			there.full = backup.Errorf(backup.NoSpace, "", "Full.")
			for range 7 * 24 {
				h.clock.pass(time.Hour)
				_, _ = h.check(l, false) // says so each time
			}
			there.full = nil
		},
		"the mark is gone":                         func(_ *house, _ *backup.Lineage, there *markedPlace) { there.mark = backup.DatabaseMark{} },
		"the repository was put back from a copy":  func(h *house, l *backup.Lineage, there *markedPlace) { h.repositoryPutBack(l, there) },
		"a server that was halted leaves its mark": func(h *house, l *backup.Lineage, there *markedPlace) { h.lateMark(l, there) },
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := storehouse(t)
			there := &markedPlace{}
			l := h.lineage(there)
			h.wantOld("the first start", l, true, false)
			happens(h, l, there)
			h.wantOld(name, l, false, false)
			h.wantOld(name+", and a start", l, true, false)
		})
	}
}

func (h *house) repositoryPutBack(l *backup.Lineage, there *markedPlace) {
	h.Helper()
	was := there.mark
	for range 20 {
		h.clock.pass(time.Hour)
		h.wantOld("a day passes", l, false, false)
	}
	there.mark = was
}

func (h *house) lateMark(l *backup.Lineage, there *markedPlace) {
	h.Helper()
	h.clock.pass(time.Hour)
	h.wantOld("the halted server's mark", l, false, false)
	late := there.mark
	h.clock.pass(time.Hour)
	h.wantOld("the next mark", l, false, false)
	there.mark = late
}

// Two servers run, one of them on a copy: whichever an operator has go on, the
// other one finds that out.
func TestOfTwoDatabasesOneGoesOn(t *testing.T) {
	there := &markedPlace{}
	first, _ := storehouse(t)
	a := first.lineage(there)
	first.wantOld("the first", a, true, false)
	second, _ := storehouse(t)
	second.setMarks(first.marks())
	b := second.lineage(there)

	first.clock.pass(time.Hour)
	second.clock.pass(time.Hour)
	first.wantOld("the first goes on", a, false, false)
	second.wantOld("the copy", b, true, true)
	first.wantOld("the first beside it", a, false, false)

	second.clock.pass(time.Minute)
	must(second.AdoptDatabase(second.ctx))(t)
	second.wantOld("the copy, adopted", b, false, false)
	first.clock.pass(10 * time.Minute)
	first.wantOld("the first, which was given up", a, false, true)
	second.clock.pass(time.Hour)
	second.wantOld("the copy later", b, false, false)
}

func TestACopySaysSoItself(t *testing.T) {
	h, _ := storehouse(t)
	there := &markedPlace{}
	l := h.lineage(there)
	h.wantOld("the first start", l, true, false)
	h.update(func(tx backup.Tx) error {
		return tx.SetSetting(h.ctx, backup.SettingCopiedAt, `"2026-11-20T10:00:00Z"`)
	})
	h.wantOld("the copy", l, true, true)
	if o := must(l.Old(h.ctx))(t); !strings.Contains(o.Message(), "is a copy that was made at 2026-11-20 10:00 UTC") {
		t.Errorf("it says %s", o.Message())
	}
	must(h.AdoptDatabase(h.ctx))(t)
	h.wantOld("the copy, adopted", l, true, false)
	_, err := h.AdoptDatabase(h.ctx)
	wantCode(t, "AdoptDatabase() again", err, backup.Conflict, "")
}

// The copy knows a restore that waits, a backup that runs and owes its VM's
// power, and two occurrences that have gone by.
func TestWhatACopyTakesForWorkInProgressIsNotBegunAgain(t *testing.T) {
	h, _ := storehouse(t)
	vms := h.addVMs(h.vcenter.ID, 2)
	vm := vms[0]
	image := h.addImage(vms[1], "")
	s := nightly("nightly", 1)
	s.VMID = vm.ID
	s = h.add(s)
	h.clock.pass(time.Minute)
	must(h.BackupVM(h.ctx, vm.ID, backup.RunOptions{RetentionDays: 1}))(t)
	running := h.claim()
	must(0, h.db.Save(h.ctx, backup.Lease{JobID: running.ID, Owner: running.Owner, Attempt: running.Attempt}, backup.Progress{Checkpoint: []byte(`{}`), Owes: true}))(t)
	restore := must(h.CreateRestore(h.ctx, backup.Restore{ImageID: image.ID, InPlace: &backup.RestoreInPlace{Safety: backup.SafetyQuick, PowerOff: true}}))(t)
	h.update(func(tx backup.Tx) error {
		return tx.SetSetting(h.ctx, backup.SettingCopiedAt, `"2026-11-23T12:00:00Z"`)
	})
	h.clock.set(tonight(1).AddDate(0, 0, 2).Add(30 * time.Minute)) // the third one can still be started
	h.wantOld("the copy", h.lineage(&markedPlace{}), true, true)

	a := must(h.AdoptDatabase(h.ctx))(t)
	if a.Ended < 2 || a.Skipped != 2 || len(a.Jobs) != 1 {
		t.Errorf("adoption = %+v, want the two jobs ended, two occurrences passed over, one catalogue rebuilt", a)
	}
	said := strings.Join(a.Messages, "\n")
	for _, want := range []string{running.ID + " had shut VM", "Restore job " + restore.JobID, "Tokens that were revoked", "apply your Terraform configuration again"} {
		if !strings.Contains(said, want) {
			t.Errorf("messages %q do not say %q", said, want)
		}
	}
	for _, id := range []string{running.ID, restore.JobID} {
		j := read(h, func(tx backup.Tx) (backup.Job, error) { return tx.Job(h.ctx, id) })
		if j.State != backup.JobFailed || !strings.Contains(j.Error, "it is not begun again") || j.Owes || j.EndedAt.IsZero() {
			t.Errorf("job is %+v, want it failed with the reason, owing nothing", j)
		}
	}
	if err := h.db.Finish(h.ctx, backup.Lease{JobID: running.ID, Owner: running.Owner, Attempt: running.Attempt}, backup.Ending{State: backup.JobSucceeded}, nil); err == nil {
		t.Error("the attempt of before could still end its job")
	}
	must(h.Dispatch(h.ctx))(t)
	if runs := h.runs(s.ID); len(runs) != 1 || !runs[0].Slot.Equal(tonight(1).AddDate(0, 0, 2)) {
		t.Errorf("runs = %+v, want that of tonight only", runs)
	}
	h.wantKept(image)
}

// wantKept fails when an image could end within 30 days.
func (h *house) wantKept(i backup.Image) {
	h.Helper()
	if e := must(h.Expire(h.ctx))(h.T); e.Jobs != 0 {
		h.Errorf("Expire() = %+v, want nothing to end", e)
	}
	if got := h.storedImage(i.ID).ExpiresAt; !i.ExpiresAt.IsZero() && got.Before(h.clock.Now().AddDate(0, 0, 30)) {
		h.Errorf("the image ends at %v, want 30 days from now", got)
	}
}
