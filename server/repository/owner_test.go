package repository_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

func TestARepositoryIsTakenOverExplicitly(t *testing.T) {
	t.Parallel()
	onEachStorage(t, func(t *testing.T, p peer) {
		ctx := t.Context()
		s := siteAt(t, p)
		d := sparse(rng(1), 2000, 2*mib)
		ref, _ := take(t, s, draft("image-1"), d)
		running := must(s.Begin(ctx, draft("image-running")))(t)

		theirs := newRepositories(t, "installation-2")
		rec := s.rec
		rec.ID, rec.UniqueID = "their-repo", ""
		unique, owner, err := theirs.Attach(ctx, rec)
		if err != nil || unique != s.rec.UniqueID || owner != "installation-1" {
			t.Fatalf("Attach() = %s, %s, %v; want the repository and its owner", unique, owner, err)
		}
		attached := must(theirs.Repository(ctx, rec))(t)
		compare(t, attached, ref, d)
		_, err = attached.Begin(ctx, draft("image-2"))
		wantCode(t, "Begin() before it is taken over", err, backup.Conflict)
		wantCode(t, "Delete() before it is taken over", attached.Delete(ctx, ref), backup.Conflict)

		if from, err := theirs.TakeOver(ctx, rec); err != nil || from != "installation-1" {
			t.Fatalf("TakeOver() = %q, %v; want from installation-1", from, err)
		}
		if from, err := theirs.TakeOver(ctx, rec); err != nil || from != "" {
			t.Errorf("TakeOver() again = %q, %v; want nothing to do", from, err)
		}
		second := draft("image-2")
		second.PointInTime = second.PointInTime.Add(time.Hour)
		mine := must(theirs.Repository(ctx, rec))(t)
		ref2, _ := take(t, mine, second, d)

		_, err = running.Commit(ctx, backup.Manifest{})
		wantCode(t, "Commit() of the former owner", err, backup.Conflict)
		running.Abort(ctx)
		wantCode(t, "Delete() by the former owner", s.Delete(ctx, ref), backup.Conflict)
		_, err = s.Collect(ctx, backup.Collection{})
		wantCode(t, "Collect() by the former owner", err, backup.Conflict)
		former := must(s.rs.Repository(ctx, s.rec))(t)
		compare(t, former, ref2, d)
		_, err = former.Begin(ctx, draft("image-3"))
		wantCode(t, "Begin() of the former owner", err, backup.Conflict)
		if err == nil || !strings.Contains(err.Error(), "installation-2") {
			t.Errorf("Begin() = %v, want the owner named", err)
		}
		if n := len(must(mine.Images(ctx))(t)); n != 2 {
			t.Errorf("Images() = %d, want 2", n)
		}
		if from := must(s.rs.TakeOver(ctx, s.rec))(t); from != "installation-2" {
			t.Errorf("TakeOver() back = %q, want from installation-2", from)
		}
		must(0, must(s.rs.Repository(ctx, s.rec))(t).Delete(ctx, ref2))(t)
	})
}

func TestATakeoverWantsThePassword(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	rec := s.rec
	rec.Password = repository.NewPassword()
	theirs := newRepositories(t, "installation-2")
	_, err := theirs.TakeOver(ctx, rec)
	wantCode(t, "TakeOver() with another password", err, backup.RepositoryDamaged)
	rec = s.rec
	rec.ReadOnly = true
	_, err = theirs.TakeOver(ctx, rec)
	wantCode(t, "TakeOver() of a read-only record", err, backup.Conflict)
	take(t, must(s.rs.Repository(ctx, s.rec))(t), draft("image-1"), sparse(rng(1), 2000, mib))
}
