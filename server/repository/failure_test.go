package repository_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
	"github.com/kura-backup/terraform-provider-kura/server/repository/keytest"
)

func TestAFullDiskLeavesNoImageAndNoRubbish(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	small := sparse(rng(1), 2000, 3*mib)
	ref, _ := take(t, s, draft("image-1"), small)
	before, _ := folder(t, s.dir, anyFile)
	big := sparse(rng(2), 2000, 90*mib)
	for _, room := range []int64{0, 21 * mib} {
		t.Run(fmt.Sprint(room>>20, " MiB are free"), func(t *testing.T) {
			rs := newRepositories(t, "installation-1")
			left := rs.LimitDisk(1 << 40)
			r := must(rs.Repository(ctx, s.rec))(t)
			left.Store(room)
			err := attempt(ctx, r, draft("image-2"), big)
			wantCode(t, "writing an image", err, backup.NoSpace)
			if err == nil || !strings.Contains(err.Error(), s.dir) || !strings.Contains(err.Error(), "bytes free") {
				t.Errorf("error = %v, want the path and the free bytes", err)
			}
			if n := len(must(s.again().Images(ctx))(t)); n != 1 {
				t.Errorf("Images() = %d, want 1", n)
			}
			if after, files := folder(t, s.dir, anyFile); after > before+kib {
				t.Errorf("folder holds %d bytes, had %d: %v", after, before, files)
			}
			if n := len(must(r.Images(ctx))(t)); n != 1 {
				t.Errorf("Images() on the full disk = %d, want 1", n)
			}
			compare(t, r, ref, small)
			left.Store(1 << 40)
		})
	}
	next, _ := take(t, s, draft("image-2"), big)
	compare(t, s, next, big)
}

// attempt writes an image as the worker does, and gives it up at an error.
func attempt(ctx context.Context, r backup.Repository, draft backup.ImageDraft, d *disk) error {
	w, err := r.Begin(ctx, draft)
	if err != nil {
		return err
	}
	defer w.Abort(ctx)
	dw, err := w.Disk(ctx, d.DiskDraft)
	if err == nil {
		err = d.send(dw, mib)
	}
	if err != nil {
		return err
	}
	if _, err = dw.Close(ctx); err != nil {
		return err
	}
	_, err = w.Commit(ctx, backup.Manifest{})
	return err
}

func TestAFullDiskCanStillBeListedAndRead(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := sparse(rng(1), 2000, mib)
	var ref string
	for n := range 20 { // so many that kopia wants to gather its manifests
		ref, _ = take(t, s, draft(fmt.Sprint("image-", n)), d)
	}
	rs := newRepositories(t, "installation-1")
	left := rs.LimitDisk(1 << 40)
	r := must(rs.Repository(ctx, s.rec))(t)
	left.Store(0)
	wantCode(t, "writing an image", attempt(ctx, r, draft("image-x"), sparse(rng(9), 2000, 3*mib)), backup.NoSpace)
	if n := len(must(r.Images(ctx))(t)); n != 20 {
		t.Errorf("Images() = %d, want 20", n)
	}
	compare(t, r, ref, d)
}

func TestALostPackIsDamage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := sparse(rng(1), 2000, 5*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	loseLargest(t, s.dir)
	r := s.again()
	i := must(r.Image(ctx, ref))(t)
	dr := must(i.Disk(ctx, 2000))(t)
	_, err := repository.DiskSHA256(ctx, dr)
	wantCode(t, "reading a disk without its pack", err, backup.RepositoryDamaged)
	must(0, dr.Close())(t)
}

func TestAFlippedBitIsDamage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := sparse(rng(1), 2000, 5*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	path := largest(t, s.dir)
	b := must(os.ReadFile(path))(t)
	b[len(b)/2] ^= 1
	must(0, os.WriteFile(path, b, 0o600))(t)
	dr := must(must(s.again().Image(ctx, ref))(t).Disk(ctx, 2000))(t)
	_, err := repository.DiskSHA256(ctx, dr)
	wantCode(t, "reading a disk with a flipped bit", err, backup.RepositoryDamaged)
	must(0, dr.Close())(t)
}

func TestOneUnreadableImageDoesNotHideTheOthers(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	w := must(s.Begin(ctx, draft("image-1")))(t)
	must(repository.CommitAs(ctx, w, backup.Manifest{}, backup.ManifestVersion+1))(t)
	late := draft("image-2")
	late.PointInTime = late.PointInTime.Add(time.Hour)
	d := sparse(rng(1), 2000, mib)
	take(t, s, late, d)
	all := must(s.Images(ctx))(t)
	if len(all) != 2 || all[0].Image.Status != backup.ImageDamaged || all[0].Image.ID != "image-1" || all[1].Image.Status != backup.ImageGood {
		t.Fatalf("Images() = %+v, want the first damaged and the second good", all)
	}
	if !strings.Contains(all[0].Image.Message, "later kura") {
		t.Errorf("Message = %q, want the reason", all[0].Image.Message)
	}
	_, err := s.Image(ctx, all[0].Image.Ref)
	wantCode(t, "Image() of a later format", err, backup.Conflict)
}

func TestSpaceCountsTheFolder(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	now := time.Now()
	s := newSite(t)
	rs := repository.New(repository.Config{Installation: "installation-1", Dir: t.TempDir(), Now: func() time.Time { return now }})
	defer rs.Close(ctx)
	r := must(rs.Repository(ctx, s.rec))(t)
	check := func(when string) {
		t.Helper()
		stored, free, err := r.Space(ctx)
		size, _ := folder(t, s.dir, anyFile)
		if err != nil || stored < size-kib || stored > size+kib || free <= 0 {
			t.Errorf("%s: Space() = %d, %d, %v; want %d stored", when, stored, free, err, size)
		}
	}
	check("empty")
	take(t, r, draft("image-1"), sparse(rng(1), 2000, 5*mib))
	check("after an image")
	stale := filepath.Join(s.dir, "p00.f.tmp.0011223344556677")
	must(0, os.WriteFile(stale, make([]byte, mib), 0o600))(t)
	must(0, os.Chtimes(stale, now, now.Add(-25*time.Hour)))(t)
	now = now.Add(11 * time.Minute)
	check("ten minutes later")
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("a file that was left half written is still there: %v", err)
	}
}

const (
	childRecord = "KURA_TEST_REPOSITORY"
	childPass   = "KURA_TEST_PASSWORD"
)

// TestMain lets the test binary stand in for a server that is killed.
func TestMain(m *testing.M) {
	if hours := os.Getenv(childCollects); hours != "" {
		keepHouseUntilKilled(os.Getenv(childRecord), backup.Secret(os.Getenv(childPass)), hours)
	}
	if place := os.Getenv(childRecord); place != "" {
		writeUntilKilled(place, backup.Secret(os.Getenv(childPass)))
	}
	keytest.Remember()
	os.Exit(runTests(m))
}

// writeUntilKilled writes an image, tells each MiB, and never ends it.
func writeUntilKilled(place string, password backup.Secret) {
	ctx := context.Background()
	rec := record("")
	rec.Password = password
	dir, err := os.MkdirTemp("", "kura-child-")
	check := func(err error) {
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
	check(err)
	rec.Kind, place, _ = strings.Cut(place, " ")
	rec.Settings = nil
	check(json.Unmarshal([]byte(place), &rec.Settings))
	r, err := repository.New(repository.Config{Installation: "installation-1", Dir: dir}).Repository(ctx, rec)
	check(err)
	check(os.RemoveAll(dir)) // it is not read again, and nobody tidies up after a kill
	w, err := r.Begin(ctx, draft("image-killed"))
	check(err)
	dw, err := w.Disk(ctx, backup.DiskDraft{Key: 1, Capacity: 1 << 40})
	check(err)
	b := make([]byte, mib)
	for off := int64(0); ; off += mib {
		fill(rng(uint64(off)), b)
		_, err := dw.WriteAt(b, off)
		check(err)
		fmt.Println(off)
	}
}

func TestAKillInTheMiddleHurtsNothing(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := sparse(rng(1), 2000, 5*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	for _, at := range []int{1, 25} { // before and after the first pack
		kill(t, s, at)
		r := s.again()
		if all := must(r.Images(ctx))(t); len(all) != 1 {
			t.Errorf("Images() after a kill at %d MiB = %d, want 1", at, len(all))
		}
		compare(t, r, ref, d)
	}
	next := sparse(rng(2), 2000, 30*mib)
	ref, _ = take(t, s.again(), draft("image-killed"), next)
	compare(t, s, ref, next)
}

// kill starts a writer in another process and kills it when it has written
// that many MiB.
func kill(t *testing.T, s *site, at int) {
	t.Helper()
	c := exec.Command(must(os.Executable())(t))
	place := s.rec.Kind + " " + string(must(json.Marshal(s.rec.Settings))(t))
	c.Env = append(os.Environ(), childRecord+"="+place, childPass+"="+s.rec.Password.Reveal())
	out := must(c.StdoutPipe())(t)
	must(0, c.Start())(t)
	lines := bufio.NewScanner(out)
	for n := 0; n < at && lines.Scan(); n++ {
		if strings.HasPrefix(lines.Text(), "failed") {
			t.Fatal(lines.Text())
		}
	}
	must(0, c.Process.Kill())(t)
	if err := c.Wait(); err == nil {
		t.Fatal("the writer ended by itself")
	}
}

// largest returns the largest file of a repository, which holds disk data.
func largest(t *testing.T, dir string) (path string) {
	t.Helper()
	_, files := folder(t, dir, isPack)
	var size int64
	for _, f := range files {
		if fi := must(os.Stat(f))(t); fi.Size() > size {
			path, size = f, fi.Size()
		}
	}
	return path
}

func loseLargest(t *testing.T, dir string) {
	t.Helper()
	removeAll(t, largest(t, dir))
}
