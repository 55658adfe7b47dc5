package repository_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/repo/content"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

func TestANewRepositoryOpensAsKopiasOwnKind(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	ref, _ := take(t, s, draft("image-1"), sparse(rng(1), 2000, 2*mib))
	st := must(filesystem.New(ctx, &filesystem.Options{Path: s.dir}, false))(t)
	config := filepath.Join(t.TempDir(), "kopia.config")
	must(0, repo.Connect(ctx, config, st, s.rec.Password.Reveal(), &repo.ConnectOptions{
		ClientOptions:  repo.ClientOptions{Hostname: "elsewhere", Username: "root"},
		CachingOptions: content.CachingOptions{CacheDirectory: t.TempDir(), ContentCacheSizeBytes: mib, MetadataCacheSizeBytes: mib},
	}))(t)
	r := must(repo.Open(ctx, config, s.rec.Password.Reveal(), &repo.Options{DisableRepositoryLog: true}))(t)
	defer r.Close(ctx)
	snap := must(repository.Snapshot(ctx, s.Repository, ref))(t)
	contents := must(r.VerifyObject(ctx, snap.RootObjectID()))(t)
	if len(contents) == 0 {
		t.Error("VerifyObject() = none, want the folder's content")
	}
	f := must(r.(repo.DirectRepository).FormatManager().GetMutableParameters(ctx))(t)
	if f.MaxPackSize != 20*mib || f.EpochParameters.MinEpochDuration != 20*time.Minute {
		t.Errorf("packs of %d, epochs of %v; want 20 MiB and 20 minutes", f.MaxPackSize, f.EpochParameters.MinEpochDuration)
	}
	m := r.(repo.DirectRepository).FormatManager()
	if m.GetHashFunction() != "BLAKE3-256-128" || m.GetEncryptionAlgorithm() != "AES256-GCM-HMAC-SHA256" || m.GetECCOverheadPercent() != 0 {
		t.Errorf("format = %s, %s, ECC %d", m.GetHashFunction(), m.GetEncryptionAlgorithm(), m.GetECCOverheadPercent())
	}
}

func TestCreationMayBeRepeated(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	if got := must(newRepositories(t, "installation-1").Create(ctx, s.rec))(t); got != s.rec.UniqueID {
		t.Errorf("Create() again = %s, want %s", got, s.rec.UniqueID)
	}

	path := filepath.Join(t.TempDir(), "cut-short")
	first := record(path)
	one := must(newRepositories(t, "installation-1").Create(ctx, first))(t)
	second := record(path) // the password of the first died with the process
	rs := newRepositories(t, "installation-1")
	two := must(rs.Create(ctx, second))(t)
	if one == two {
		t.Error("Create() with a new password kept the repository, want a new one")
	}
	second.UniqueID = two
	r := must(rs.Repository(ctx, second))(t)
	_, err := newRepositories(t, "installation-1").Create(ctx, record(path))
	wantCode(t, "Create() on one that is in use", err, backup.Conflict)
	must(r.Images(ctx))(t)
}

func TestCreationGoesOnWhereItWasCutShort(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	all := []string{"kura.owner.f", "kopia.blobcfg.f", "kopia.repository.f"}
	for n := range all {
		rec := record(filepath.Join(t.TempDir(), "repository"))
		must(newRepositories(t, "installation-1").Create(ctx, rec))(t)
		for _, late := range all[n+1:] {
			must(0, os.Remove(filepath.Join(rec.Settings["path"], late)))(t)
		}
		rec.Password = repository.NewPassword()
		rs := newRepositories(t, "installation-1")
		rec.UniqueID = must(rs.Create(ctx, rec))(t)
		take(t, must(rs.Repository(ctx, rec))(t), draft("image-1"), sparse(rng(1), 2000, mib))
	}
}

func TestCreationRefusesWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	// seed:N3
	ctx := t.Context()
	s := newSite(t)
	_, err := newRepositories(t, "installation-2").Create(ctx, s.rec)
	wantCode(t, "Create() on another's repository", err, backup.Conflict)

	used := t.TempDir()
	must(0, os.WriteFile(filepath.Join(used, "thesis.txt"), nil, 0o600))(t)
	_, err = s.rs.Create(ctx, record(used))
	wantCode(t, "Create() in a folder with files", err, backup.Conflict)

	foreign := t.TempDir()
	st := must(filesystem.New(ctx, &filesystem.Options{Path: foreign}, true))(t)
	must(0, repo.Initialize(ctx, st, nil, "secret"))(t)
	_, err = s.rs.Create(ctx, record(foreign))
	wantCode(t, "Create() on a stranger's kopia repository", err, backup.Conflict)

	for name, change := range map[string]func(*backup.RepositoryRecord){
		"kind":          func(r *backup.RepositoryRecord) { r.Kind = "tape" },
		"settings.path": func(r *backup.RepositoryRecord) { r.Settings = map[string]string{"path": "relative"} },
		"compression":   func(r *backup.RepositoryRecord) { r.Compression = "lz4" },
		"":              func(r *backup.RepositoryRecord) { r.Password = "" },
	} {
		rec := record(t.TempDir())
		change(&rec)
		_, err := s.rs.Create(ctx, rec)
		if e := backup.AsError(err); e == nil || e.Code != backup.Invalid || e.Field != name {
			t.Errorf("Create() = %v, want invalid %q", err, name)
		}
	}
}

func TestAnotherInstallationOnlyReads(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := sparse(rng(1), 2000, 3*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	before, _ := folder(t, s.dir, anyFile)
	r := must(newRepositories(t, "installation-2").Repository(ctx, s.rec))(t)
	compare(t, r, ref, d)
	if n := len(must(r.Images(ctx))(t)); n != 1 {
		t.Errorf("Images() = %d, want 1", n)
	}
	_, err := r.Begin(ctx, draft("image-2"))
	wantCode(t, "Begin()", err, backup.Conflict)
	if err == nil || !strings.Contains(err.Error(), "installation-1") {
		t.Errorf("Begin() = %v, want the owner named", err)
	}
	wantCode(t, "Delete()", r.Delete(ctx, ref), backup.Conflict)
	if after, _ := folder(t, s.dir, anyFile); after != before {
		t.Errorf("folder has %d bytes, had %d", after, before)
	}
	ro := s.rec
	ro.ReadOnly = true
	_, err = must(s.rs.Repository(ctx, ro))(t).Begin(ctx, draft("image-2"))
	wantCode(t, "Begin() on a read-only record", err, backup.Conflict)
	take(t, must(s.rs.Repository(ctx, s.rec))(t), draft("image-2"), d)
}

func TestARepositoryThatIsNotThereIsUnreachable(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := sparse(rng(1), 2000, 3*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	w := must(s.Begin(ctx, draft("image-2")))(t)
	dw := must(w.Disk(ctx, d.DiskDraft))(t)
	must(0, d.send(dw, mib))(t)
	must(dw.Close(ctx))(t)

	away := s.dir + "-away"
	must(0, os.Rename(s.dir, away))(t)
	for _, mounted := range []string{"folder is missing", "folder is empty"} {
		if mounted == "folder is empty" {
			must(0, os.Mkdir(s.dir, 0o700))(t)
		}
		_, err := s.rs.Repository(ctx, s.rec)
		wantCode(t, mounted+": Repository()", err, backup.RepositoryUnreachable)
		_, err = newRepositories(t, "installation-1").Repository(ctx, s.rec)
		wantCode(t, mounted+": Repository() anew", err, backup.RepositoryUnreachable)
		_, err = s.Begin(ctx, draft("image-3"))
		wantCode(t, mounted+": Begin()", err, backup.RepositoryUnreachable)
		_, err = w.Commit(ctx, backup.Manifest{})
		wantCode(t, mounted+": Commit()", err, backup.RepositoryUnreachable)
		_, _, err = s.Space(ctx)
		wantCode(t, mounted+": Space()", err, backup.RepositoryUnreachable)
	}
	w.Abort(ctx)
	if _, files := folder(t, s.dir, anyFile); len(files) != 0 {
		t.Errorf("the empty folder holds %v, want nothing written there", files)
	}
	must(0, os.Remove(s.dir))(t)
	must(0, os.Rename(away, s.dir))(t)
	compare(t, must(s.rs.Repository(ctx, s.rec))(t), ref, d)
	if n := len(must(s.again().Images(ctx))(t)); n != 1 {
		t.Errorf("Images() = %d, want 1", n)
	}
}

func TestAWrongPasswordSaysWhatToDo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.rec.Password = repository.NewPassword()
	_, err := s.rs.Repository(t.Context(), s.rec)
	wantCode(t, "Repository() with a wrong password", err, backup.RepositoryDamaged)
	if err == nil || !strings.Contains(err.Error(), "recovery sheet") || strings.Contains(err.Error(), s.rec.Password.Reveal()) {
		t.Errorf("Repository() = %v, want the recovery sheet and no password", err)
	}
}

func TestAnotherRepositoryInThePlaceIsNoticed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.rec.UniqueID = strings.Repeat("0", 64)
	_, err := newRepositories(t, "installation-1").Repository(t.Context(), s.rec)
	wantCode(t, "Repository() with another id", err, backup.RepositoryUnreachable)
}

func TestRepositoriesAreOpenedOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.rs.Repository(t.Context(), s.rec); err != nil {
				t.Errorf("Repository() = %v", err)
			}
		})
	}
	wg.Wait()
	must(0, s.rs.Close(context.Background()))(t)
	if _, err := s.rs.Repository(t.Context(), s.rec); err == nil {
		t.Error("Repository() after Close() = nil, want an error")
	}
}

func TestPasswordsAreLongAndDiffer(t *testing.T) {
	t.Parallel()
	a, b := repository.NewPassword(), repository.NewPassword()
	if len(a.Reveal()) != 64 || a == b {
		t.Errorf("passwords have %d characters and differ: %t", len(a.Reveal()), a != b)
	}
}

func TestCachesOnDiskAreUsedWhereAskedFor(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := sparse(rng(1), 2000, 3*mib)
	ref, m := take(t, s, draft("image-1"), d)
	dir := t.TempDir()
	rs := repository.New(repository.Config{Installation: "installation-1", Dir: dir, CacheBytes: 8 * mib})
	compare(t, must(rs.Repository(t.Context(), s.rec))(t), ref, d)
	must(0, rs.Close(t.Context()))(t)
	if size, _ := folder(t, dir, anyFile); size < m.Image.Disks[0].Stored/2 {
		t.Errorf("caches hold %d bytes, want the disk's %d", size, m.Image.Disks[0].Stored)
	}
	if b := must(os.ReadFile(filepath.Join(dir, "repo-1.config")))(t); strings.Contains(string(b), s.rec.Password.Reveal()) {
		t.Error("kopia's configuration file holds the password")
	}
}
