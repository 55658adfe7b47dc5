package repository_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// fetched are the files of a copy of the database.
func fetched(t *testing.T, rs *repository.Repositories, rec backup.RepositoryRecord, ref string) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{}
	for _, name := range must(rs.FetchDatabase(t.Context(), rec, ref, dir))(t) {
		files[name] = must(os.ReadFile(filepath.Join(dir, name)))(t)
	}
	return files
}

// Collections free what images held and what copies held that were forgotten,
// and nothing of a copy that is there.
func TestACopyOfTheDatabaseOutlivesCollections(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := newAgeing(t)
	database := solid(rng(5), 3).bytes
	dir := t.TempDir()
	must(0, os.WriteFile(filepath.Join(dir, "kura.db"), database, 0o600))(t)
	must(0, os.WriteFile(filepath.Join(dir, "key"), []byte("secret"), 0o600))(t)
	files := []backup.CopiedFile{{Name: "kura.db", Path: filepath.Join(dir, "kura.db")}, {Name: "kura.key", Path: filepath.Join(dir, "key")}}
	must(0, a.rs.KeepDatabase(ctx, a.rec, noonOf(1), files))(t)
	rewritten := bytes.Clone(database)
	copy(rewritten[mib:], "another page")
	must(0, os.WriteFile(filepath.Join(dir, "kura.db"), rewritten, 0o600))(t)
	must(0, a.rs.KeepDatabase(ctx, a.rec, noonOf(2), files))(t)

	if images := must(a.Images(ctx))(t); len(images) != 0 {
		t.Errorf("%d images are listed, want copies of the database to be none", len(images))
	}
	all := must(a.rs.DatabaseCopies(ctx, a.rec))(t)
	if len(all) != 2 || !all[0].At.Equal(noonOf(2)) || all[0].Installation != "installation-1" || all[0].Bytes != 3*mib+6 {
		t.Fatalf("copies are %+v, want two, the newest first", all)
	}
	must(0, a.rs.ForgetDatabase(ctx, a.rec, []string{all[1].Ref}))(t)
	for range 6 {
		a.collect(30)
	}
	if left := must(a.rs.DatabaseCopies(ctx, a.rec))(t); len(left) != 1 || left[0].Ref != all[0].Ref {
		t.Errorf("copies are %+v, want the newest alone", left)
	}
	got := fetched(t, newRepositories(t, ""), readOnly(a.rec), all[0].Ref)
	if !bytes.Equal(got["kura.db"], rewritten) || string(got["kura.key"]) != "secret" || len(got) != 2 {
		t.Error("what comes back is not what was kept")
	}
	_, err := a.rs.FetchDatabase(ctx, a.rec, all[1].Ref, t.TempDir())
	wantCode(t, "FetchDatabase() of a copy that was forgotten", err, backup.NotFound)
}

func noonOf(day int) time.Time { return time.Date(2026, 11, day, 12, 0, 0, 0, time.UTC) }

func readOnly(r backup.RepositoryRecord) backup.RepositoryRecord {
	r.ReadOnly = true
	return r
}

// Another installation's repository is read and never written to.
func TestNoMarkAndNoCopyIsLeftInTheRepositoryOfAnother(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	must(0, s.rs.LeaveDatabaseMark(ctx, s.rec, backup.DatabaseMark{ID: "ours", At: noonOf(1)}))(t)
	other := newRepositories(t, "installation-2")
	must(0, other.LeaveDatabaseMark(ctx, s.rec, backup.DatabaseMark{ID: "theirs", At: noonOf(2)}))(t)
	if m := must(other.DatabaseMark(ctx, s.rec))(t); m.ID != "" {
		t.Errorf("the other installation takes %q for its mark", m.ID)
	}
	if m := must(s.rs.DatabaseMark(ctx, s.rec))(t); m.ID != "ours" || !m.At.Equal(noonOf(1)) {
		t.Errorf("the mark is %+v, want ours", m)
	}
	wantCode(t, "KeepDatabase() of another", other.KeepDatabase(ctx, s.rec, noonOf(2), nil), backup.Conflict)
	must(0, os.RemoveAll(s.dir))(t)
	_, err := s.rs.DatabaseMark(ctx, s.rec)
	wantCode(t, "DatabaseMark() of a folder that is gone", err, backup.RepositoryUnreachable)
}

func TestARecoverySheetIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rec := s.rec
	rec.Name = `odd: "name"`
	sheet := must(s.rs.RecoverySheet(rec, ""))(t)
	got := must(repository.ReadSheet(sheet.Reveal()))(t)
	if got.Kind != rec.Kind || got.Settings["path"] != rec.Settings["path"] || len(got.Settings) != 1 || got.Password != rec.Password || got.UniqueID != rec.UniqueID || !got.ReadOnly {
		t.Errorf("the sheet is read as %+v, want %+v", got, rec)
	}
	sftp := "kind: sftp\nhost: vault\nuser: kura\npath: /srv/kura\nprivate_key: BEGIN\n    middle\n    END\nknown_hosts: vault ssh-ed25519 AAAA\nrepository id: 12\npassword: p\n"
	if got, _ := repository.ReadSheet(sftp); got.Settings["private_key"] != "BEGIN\nmiddle\nEND" || got.Settings["host"] != "vault" {
		t.Errorf("a value of several lines is read as %q", got.Settings["private_key"])
	}
	for text, want := range map[string]string{"-----BEGIN AGE ENCRYPTED FILE-----\nx": "age --decrypt", "shopping list": "no recovery sheet", strings.ReplaceAll(sheet.Reveal(), "password: ", "word: "): "no recovery sheet"} {
		if _, err := repository.ReadSheet(text); backup.CodeOf(err) != backup.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadSheet() = %v, want %q", err, want)
		}
	}
}
