package repository_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// smallImages makes n images of a disk of one block, which they share.
func smallImages(t testing.TB, r backup.Repository, from, n int) (refs []string) {
	t.Helper()
	d := solid(rng(1), 1)
	for i := from; i < from+n; i++ {
		ref, _ := take(t, r, draft(fmt.Sprint("image-", i)), d)
		refs = append(refs, ref)
	}
	return refs
}

func refsOf(t testing.TB, r backup.Repository) (refs []string) {
	t.Helper()
	for _, m := range must(r.Images(t.Context()))(t) {
		refs = append(refs, m.Image.Ref)
	}
	slices.Sort(refs)
	return refs
}

func gather(t testing.TB, r backup.Repository) backup.Collected {
	t.Helper()
	return must(r.Collect(t.Context(), backup.Collection{IndexOnly: true}))(t)
}

// older makes the index blobs there are older: epochs end by the storage's clock.
func older(t testing.TB, dir string, by time.Duration) {
	t.Helper()
	_, files := folder(t, dir, anyFile)
	for _, path := range files {
		if strings.HasPrefix(strings.TrimPrefix(path, dir), "/x") {
			at := must(os.Stat(path))(t).ModTime().Add(-by)
			must(0, os.Chtimes(path, at, at))(t)
		}
	}
}

func TestManifestsAreGatheredAndDeletionsKept(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	other := s.again() // another server, which has the old index
	refs := smallImages(t, s, 0, 20)
	for _, ref := range refs[:5] {
		must(0, s.Delete(ctx, ref))(t)
	}
	want := slices.Sorted(slices.Values(refs[5:]))
	before := refsOf(t, other)
	if n := must(repository.ManifestContents(ctx, s.Repository))(t); n < 25 {
		t.Fatalf("%d contents hold manifests, want one for each image and deletion", n)
	}
	gather(t, s)
	if n := must(repository.ManifestContents(ctx, s.Repository))(t); n != 1 {
		t.Errorf("%d contents hold manifests after the gathering, want 1", n)
	}
	late := smallImages(t, other, 20, 1) // by a server that has not looked since
	must(0, s.Delete(ctx, late[0]))(t)
	for name, r := range map[string]backup.Repository{"the same server": s, "another one": other, "one that opens now": s.again()} {
		if got := refsOf(t, r); !slices.Equal(got, want) || !slices.Equal(before, want) {
			t.Errorf("%s lists %d images after the gathering, before %d, want %d", name, len(got), len(before), len(want))
		}
		_, err := r.Image(ctx, refs[0])
		wantCode(t, "Image() of a deleted one by "+name, err, backup.NotFound)
	}
	stock := must(repository.StockImages(ctx, s.again()))(t)
	if slices.Sort(stock); !slices.Equal(stock, want) {
		t.Errorf("the stock program lists %d images, want %d", len(stock), len(want))
	}
}

// The stock program gathers all manifests by itself when it finds many.
func TestManifestsThatTheStockProgramGatheredAreReadAnew(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	refs := smallImages(t, s, 0, 18)
	must(0, s.Delete(ctx, refs[0]))(t)
	want := refsOf(t, s)
	must(repository.StockImages(ctx, s.again()))(t)
	if n := must(repository.ManifestContents(ctx, s.Repository))(t); n != 1 {
		t.Fatalf("%d contents hold manifests after the stock program looked, want 1", n)
	}
	must(0, s.Delete(ctx, refs[1]))(t)
	if got := refsOf(t, s); !slices.Equal(got, slices.DeleteFunc(want, func(ref string) bool { return ref == refs[1] })) {
		t.Errorf("Images() = %v after one more deletion, want the others of %v", got, want)
	}
}

func TestIndexBlobsOfPastEpochsAreGathered(t *testing.T) { // seed:A64
	t.Parallel()
	s := newSite(t)
	other := s.again()
	most := 0
	var refs []string
	for hour := range 4 {
		refs = append(refs, smallImages(t, s, 25*hour, 25)...)
		older(t, s.dir, time.Hour)
		most = max(most, gather(t, s).IndexBlobs)
	}
	last := gather(t, s)
	if most < 25 || last.IndexBlobs > 30 {
		t.Errorf("up to %d index blobs, %d at the end of 100 images; want those of the last epochs only", most, last.IndexBlobs)
	}
	slices.Sort(refs)
	for name, r := range map[string]backup.Repository{"the same server": s, "another one": other, "one that opens now": s.again()} {
		if got := refsOf(t, r); !slices.Equal(got, refs) {
			t.Errorf("%s lists %d images, want %d", name, len(got), len(refs))
		}
		compare(t, r, refs[0], solid(rng(1), 1))
	}
}

func TestAGatheringThatFailsAnywhereLosesNoImage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := solid(rng(1), 1)
	for hour := range 3 {
		smallImages(t, s, 8*hour, 8)
		older(t, s.dir, time.Hour)
		if hour < 2 {
			gather(t, s)
		}
	}
	must(0, s.Delete(ctx, refsOf(t, s)[0]))(t)
	want, failures := refsOf(t, s), 0
	for at := int64(0); ; at += 5 {
		c := &site{t: t, dir: filepath.Join(t.TempDir(), "copy"), rec: s.rec}
		must(exec.Command("cp", "-a", s.dir, c.dir).CombinedOutput())(t)
		c.rec.Settings = map[string]string{"path": c.dir}
		rs := newRepositories(t, "installation-1")
		var left atomic.Int64
		left.Store(1 << 40)
		dying, die := context.WithCancel(ctx)
		rs.Break(&left, die)
		r := must(rs.Repository(ctx, c.rec))(t)
		left.Store(at)
		_, err := r.Collect(dying, backup.Collection{IndexOnly: true})
		die()
		left.Store(1 << 40)
		for _, again := range []bool{false, true} {
			after := c.again()
			if got := refsOf(t, after); !slices.Equal(got, want) {
				t.Fatalf("failure %d, gathered again %v: %d images, want %d", at, again, len(got), len(want))
			}
			compare(t, after, want[len(want)-1], d)
			gather(t, after)
		}
		must(0, os.RemoveAll(c.dir))(t)
		if err == nil {
			break
		}
		failures++
	}
	if failures < 5 {
		t.Errorf("a gathering has %d operations that can fail, want more", failures)
	}
}

// watched opens the repository with a count of what its storage is asked for.
func (s *site) watched(o *repository.Operations, ahead *time.Duration) backup.Repository {
	s.t.Helper()
	r, _ := s.watchedUntil(o, ahead)
	return r
}

func (s *site) watchedUntil(o *repository.Operations, ahead *time.Duration) (r backup.Repository, end func()) {
	s.t.Helper()
	rs := repository.New(repository.Config{Installation: "installation-1", Dir: s.t.TempDir(),
		Now: func() time.Time { return time.Now().Add(*ahead) }})
	rs.Hasty()
	end = func() { must(0, rs.Close(context.Background()))(s.t) }
	s.t.Cleanup(end)
	rs.Watch(o, 0)
	return must(rs.Repository(s.t.Context(), s.rec))(s.t), end
}

func TestTheLookAfterABackupAsksForPacksOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	base := solid(rng(1), 50) // three packs
	first, _ := take(t, s, draft("image-1"), base)
	next := base.clone()
	rewrite(rng(2), next, 0, 1)
	second, _ := take(t, s, draft("image-2"), next)
	var o repository.Operations
	var ahead time.Duration
	r := s.watched(&o, &ahead)
	look := func(ref string, read bool) (heads int64, whole bool) {
		o.Take()
		v := must(r.Verify(ctx, ref, backup.Verification{Read: read}))(t)
		return o.Head.Load(), v.Message == ""
	}
	all, _ := look(first, false)
	own, _ := look(second, false)
	none, _ := look(second, false)
	if all < 4 || own == 0 || own >= all || none != 0 {
		t.Errorf("looks asked for %d packs, then for %d of the next image, then for %d; want all, its own, none", all, own, none)
	}
	loseLargest(t, s.dir)
	if _, whole := look(second, true); whole {
		t.Error("a reading has not found a lost pack that was seen before")
	}
	if _, whole := look(first, false); whole {
		t.Error("a look has not found a lost pack that a reading has missed")
	}
	r = s.watched(&o, &ahead)
	look(second, false)
	ahead = 5 * time.Hour
	if again, whole := look(second, false); again < 4 || whole {
		t.Errorf("five hours later a look asked for %d packs, image whole: %v; want all, and the damage", again, whole)
	}
}

func TestALookAtVeryManyPacksListsThem(t *testing.T) {
	t.Parallel()
	asked, listed, err := repository.LooksAtPacks(t.Context(), 1000)
	if err != nil || asked > 100 || listed != 2 { // one for each kind of pack
		t.Errorf("looks at 1,000 packs one by one asked %d times and listed %d times (%v), want one listing to end it", asked, listed, err)
	}
}

func TestAMarkingReadsListsInOneRequestForEachPack(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	c := &crowd{t: t}
	c.fill(s.Repository, 100)
	var o repository.Operations
	r := s.watched(&o, new(time.Duration))
	if all := must(r.Images(ctx))(t); len(all) != 100 {
		t.Fatalf("Images() = %d, want 100", len(all))
	}
	o.Take()
	dry := must(r.Collect(ctx, backup.Collection{DryRun: true}))(t)
	_, packs := folder(t, s.dir, func(string) bool { return true })
	if n := int(o.Get.Load()); dry.Images != 100 || n > len(packs) {
		t.Errorf("a dry run over %d images read %d pieces of %d files, want less than one for each", dry.Images, n, len(packs))
	}
}

func TestAnImageOfAServerWhoseClockIsAheadIsDeletedByAnother(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	var o repository.Operations
	ahead := time.Hour
	refs := smallImages(t, s.watched(&o, &ahead), 0, 2)
	must(0, s.Delete(ctx, refs[0]))(t)
	for name, r := range map[string]backup.Repository{"us": s, "another server": s.again()} {
		if got := refsOf(t, r); !slices.Equal(got, refs[1:]) {
			t.Errorf("%s lists %v, want %v", name, got, refs[1:])
		}
	}
	if got := must(repository.StockImages(ctx, s.again()))(t); !slices.Equal(got, refs[1:]) {
		t.Errorf("the stock program lists %v, want %v", got, refs[1:])
	}
}

func TestPacksAreRemovedManyAtATime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	smallImages(t, s, 0, 20) // each has a pack of small things of its own
	var o repository.Operations
	rs := newRepositories(t, "installation-1")
	rs.Watch(&o, 3*time.Millisecond)
	r := must(rs.Repository(t.Context(), s.rec))(t)
	freed := 0
	for range 2 {
		freed += must(repository.CollectAtOnce(t.Context(), r, backup.Collection{}))(t).FreedPacks
	}
	if most := o.Most.Load(); freed < 20 || most < 4 {
		t.Errorf("%d packs were removed, up to %d at the same time; want 20, several at a time", freed, most)
	}
}
