package repository_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/minio/minio-go/v7"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// changing is the record of a repository whose password is being changed.
func (s *site) changing() backup.RepositoryRecord {
	rec := s.rec
	rec.NextPassword = repository.NewPassword()
	return rec
}

// promoted is the record after the change.
func promoted(rec backup.RepositoryRecord) backup.RepositoryRecord {
	rec.Password, rec.NextPassword = rec.NextPassword, ""
	return rec
}

func TestThePasswordOfARepositoryIsChanged(t *testing.T) {
	t.Parallel()
	onEachStorage(t, func(t *testing.T, p peer) {
		ctx := t.Context()
		s := siteAt(t, p)
		d := sparse(rng(1), 2000, 2*mib)
		ref, _ := take(t, s, draft("image-1"), d)
		rec := s.changing()
		must(0, s.rs.ChangePassword(ctx, rec))(t)
		compare(t, must(s.rs.Repository(ctx, promoted(rec)))(t), ref, d)
	})
}

func TestWhoeverWasNotToldThatThePasswordIsChangedAsksAgain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	rec := s.changing()
	must(0, s.rs.ChangePassword(ctx, rec))(t)
	must(0, s.rs.ChangePassword(ctx, rec))(t)
	_, err := newRepositories(t, "installation-1").Repository(ctx, s.rec)
	wantCode(t, "Repository() with the password of before", err, backup.RepositoryDamaged)
	stock := must(stockStorage(ctx, peer{kind: repository.KindFilesystem, settings: s.rec.Settings}))(t)
	must(0, repo.Connect(ctx, filepath.Join(t.TempDir(), "kopia.config"), stock, rec.NextPassword.Reveal(), &repo.ConnectOptions{
		CachingOptions: content.CachingOptions{CacheDirectory: t.TempDir(), ContentCacheSizeBytes: mib, MetadataCacheSizeBytes: mib},
	}))(t)
}

func TestAChangeOfPasswordMayBeCutOffAnywhere(t *testing.T) {
	t.Parallel()
	for writes := range 2 { // there are two
		t.Run(fmt.Sprint(writes, " writes"), func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := newSite(t)
			d := sparse(rng(1), 2000, 2*mib)
			ref, _ := take(t, s, draft("image-1"), d)
			rec := s.changing()
			cut := newRepositories(t, "installation-1")
			cut.LimitWrites(writes)
			err := cut.ChangePassword(ctx, rec)
			if err == nil {
				t.Fatalf("ChangePassword() with %d writes = nil, want it cut off", writes)
			}
			next := newRepositories(t, "installation-1") // as after a kill: either password may be the one
			compare(t, must(next.Repository(ctx, rec))(t), ref, d)
			must(0, next.ChangePassword(ctx, rec))(t)
			compare(t, must(next.Repository(ctx, promoted(rec)))(t), ref, d)
			if names, _ := filepath.Glob(filepath.Join(s.dir, "kopia.*")); len(names) != 2 {
				t.Errorf("after %d writes the format is %v, want both files", writes, names)
			}
		})
	}
}

// Another server does not notice for as long as it has the repository open, and
// opens it with the new password afterwards.
func TestOtherServersGoOnWhenThePasswordChanges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	now := time.Now()
	other := repository.New(repository.Config{Installation: "installation-1", Dir: t.TempDir(), Now: func() time.Time { return now }})
	defer func() { must(0, other.Close(context.WithoutCancel(ctx)))(t) }()
	r := must(other.Repository(ctx, s.rec))(t)
	d := sparse(rng(1), 2000, 2*mib)
	w := must(r.Begin(ctx, draft("image-1")))(t)

	rec := s.changing()
	must(0, s.rs.ChangePassword(ctx, rec))(t)
	now = now.Add(time.Hour) // kopia reads the format again after 15 minutes
	dw := must(w.Disk(ctx, d.DiskDraft))(t)
	must(0, d.send(dw, mib))(t)
	must(dw.Close(ctx))(t)
	ref := must(w.Commit(ctx, backup.Manifest{Image: backup.Image{ID: "image-1", Status: backup.ImageGood}}))(t).Ref
	compare(t, r, ref, d)
	compare(t, must(other.Repository(ctx, promoted(rec)))(t), ref, d)
	compare(t, must(s.rs.Repository(ctx, promoted(rec)))(t), ref, d)
}

func TestThePasswordOfAnothersRepositoryIsNotChanged(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	must(newRepositories(t, "installation-2").TakeOver(ctx, s.rec))(t)
	wantCode(t, "ChangePassword() by the former owner", s.rs.ChangePassword(ctx, s.changing()), backup.Conflict)
	rec := s.changing()
	rec.Password = repository.NewPassword()
	wantCode(t, "ChangePassword() without the password", newRepositories(t, "installation-2").ChangePassword(ctx, rec), backup.Conflict)
	rec = s.changing()
	rec.UniqueID = "other"
	wantCode(t, "ChangePassword() of another repository", newRepositories(t, "installation-2").ChangePassword(ctx, rec), backup.RepositoryUnreachable)
	must(newRepositories(t, "installation-2").Repository(ctx, s.rec))(t)
}

func TestAPlaceIsTriedWithoutBeingTouched(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	take(t, s, draft("image-1"), sparse(rng(1), 2000, mib))
	moved := s.rec
	moved.Settings = map[string]string{"path": s.dir + "-moved"}
	must(0, os.CopyFS(moved.Settings["path"], os.DirFS(s.dir)))(t)
	before, files := folder(t, moved.Settings["path"], anyFile)
	unique, owner, err := s.rs.Probe(ctx, moved)
	if err != nil || unique != s.rec.UniqueID || owner != "" {
		t.Errorf("Probe() of the moved folder = %q, %q, %v; want the same repository, ours", unique, owner, err)
	}
	if _, owner, err := newRepositories(t, "installation-2").Probe(ctx, moved); err != nil || owner != "installation-1" {
		t.Errorf("Probe() by another installation = %q, %v; want whose it is", owner, err)
	}
	if after, now := folder(t, moved.Settings["path"], anyFile); after != before || len(now) != len(files) {
		t.Errorf("after it the folder has %d bytes in %d files, had %d in %d", after, len(now), before, len(files))
	}

	other := newSite(t, ownKey)
	for what, path := range map[string]string{"no repository": t.TempDir(), "does not open": other.dir} {
		rec := s.rec
		rec.Settings = map[string]string{"path": path}
		_, _, err := s.rs.Probe(ctx, rec)
		wantCode(t, "Probe() where there is: "+what, err, backup.Conflict)
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("Probe() = %v, want it to say %q", err, what)
		}
	}
	rec := s.rec
	rec.Settings = map[string]string{"path": s.dir + "-none"}
	_, _, err = s.rs.Probe(ctx, rec)
	wantCode(t, "Probe() of a folder that is not there", err, backup.RepositoryUnreachable)
	if left, _ := filepath.Glob(filepath.Join(t.TempDir(), "beside-*")); len(left) != 0 {
		t.Errorf("folders of probes were left: %v", left)
	}
}

func TestALockIsChangedForWhatIsWrittenFromThenOn(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, b := lockedSite(t, "governance")
	take(t, s, draft("image-1"), sparse(rng(1), 2000, 2*mib))
	old := map[string]time.Time{}
	for _, o := range b.held(t) {
		if o.IsLatest && !strings.Contains(o.Key, "kopia.") {
			_, old[o.Key] = b.lockOf(t, o.Key)
		}
	}
	for _, days := range []string{"30", "3"} {
		begin := time.Now()
		rec := s.rec
		rec.Settings = maps.Clone(s.rec.Settings)
		rec.Settings["lock_days"] = days
		must(0, s.rs.SetLock(ctx, rec))(t)
		take(t, must(s.rs.Repository(ctx, rec))(t), draft("image-"+days), sparse(rng(uint64(len(days))+7), 2000, 2*mib))
		want := must(time.ParseDuration(days+"h"))(t) * 24
		fresh := 0
		for _, o := range b.held(t) {
			if !o.IsLatest || strings.Contains(o.Key, "kopia.") {
				continue
			}
			_, until := b.lockOf(t, o.Key)
			if was, ok := old[o.Key]; ok {
				if until.Before(was) {
					t.Errorf("%s was locked until %v and is now until %v", o.Key, was, until)
				}
				continue
			}
			old[o.Key] = until
			fresh++
			if got := until.Sub(begin); got < want-time.Hour || got > want+time.Hour {
				t.Errorf("with %s days %s is locked for %v", days, o.Key, got)
			}
		}
		if fresh == 0 {
			t.Errorf("with %s days nothing was written", days)
		}
	}
	// What a change that was cut off has left is brought in line at the next opening.
	must(0, s.rs.SetLock(ctx, s.rec))(t)
	rec := s.rec
	rec.Settings = maps.Clone(s.rec.Settings)
	rec.Settings["lock_days"] = "40"
	begin := time.Now()
	take(t, must(newRepositories(t, "installation-1").Repository(ctx, rec))(t), draft("image-40"), sparse(rng(99), 2000, 2*mib))
	longest := time.Duration(0)
	for _, o := range b.held(t) {
		if o.IsLatest {
			_, until := b.lockOf(t, o.Key)
			longest = max(longest, until.Sub(begin))
		}
	}
	if longest < 39*24*time.Hour {
		t.Errorf("the longest lock is %v, want the 40 days of the record", longest)
	}
}

func TestALockOutlivesAChangeOfPasswordThatWasCutOff(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, b := lockedSite(t, "governance")
	rec := s.changing()
	must(0, s.rs.ChangePassword(ctx, rec))(t)
	config := b.settings["prefix"] + "kopia.blobcfg"
	must(0, b.cli.RemoveObject(ctx, b.name, config, minio.RemoveObjectOptions{}))(t) // as after a kill before the last step
	begin := time.Now()
	take(t, must(newRepositories(t, "installation-1").Repository(ctx, rec))(t), draft("image-1"), sparse(rng(1), 2000, 2*mib))
	for _, o := range b.held(t) {
		if !o.IsLatest {
			continue
		}
		if _, until := b.lockOf(t, o.Key); until.Sub(begin) < 7*24*time.Hour-time.Hour {
			t.Errorf("%s is locked until %v, want 7 days", o.Key, until)
		}
	}
	must(b.cli.StatObject(ctx, b.name, config, minio.StatObjectOptions{}))(t)

	untold := rec
	untold.Password, untold.NextPassword = rec.NextPassword, repository.NewPassword()
	untold.Settings = maps.Clone(rec.Settings)
	delete(untold.Settings, "lock_mode")
	delete(untold.Settings, "lock_days")
	err := s.rs.ChangePassword(ctx, untold)
	wantCode(t, "ChangePassword() without the lock in the settings", err, backup.Conflict)
}

func TestTwoServersMayEndTheSameChangeOfPassword(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := sparse(rng(1), 2000, mib)
	ref, _ := take(t, s, draft("image-1"), d)
	rec := s.changing()
	failed := make(chan error, 2)
	for range 2 {
		rs := newRepositories(t, "installation-1")
		go func() { failed <- rs.ChangePassword(ctx, rec) }()
	}
	for range 2 {
		must(0, <-failed)(t)
	}
	compare(t, must(newRepositories(t, "installation-1").Repository(ctx, promoted(rec)))(t), ref, d)
	if names, _ := filepath.Glob(filepath.Join(s.dir, "kopia.*")); len(names) != 2 {
		t.Errorf("the format is %v, want both files", names)
	}
}
