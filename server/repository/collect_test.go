package repository_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
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

// ageing is a site whose clock a test moves.
type ageing struct {
	*site
	ahead atomic.Int64 // of the clock; what a backup stores in the background reads it
}

func newAgeing(t testing.TB) *ageing {
	a := &ageing{site: newSite(t)}
	a.Repository = a.again()
	return a
}

// again opens the repository as another process would, by the test's clock.
func (a *ageing) again() backup.Repository {
	a.t.Helper()
	rs := repository.New(repository.Config{Installation: "installation-1", Dir: a.t.TempDir(),
		Now: func() time.Time { return time.Now().Add(time.Duration(a.ahead.Load())) }})
	rs.Hasty()
	a.t.Cleanup(func() { must(0, rs.Close(context.Background()))(a.t) })
	return must(rs.Repository(a.t.Context(), a.rec))(a.t)
}

// collect lets hours pass and collects.
func (a *ageing) collect(hours int) backup.Collected {
	a.t.Helper()
	a.ahead.Add(int64(time.Duration(hours) * time.Hour))
	return must(repository.CollectByClock(a.t.Context(), a.Repository, backup.Collection{}))(a.t)
}

// solid is a disk of random bytes that cannot be compressed.
func solid(rng *rand.Rand, mibs int64) *disk {
	d := &disk{DiskDraft: backup.DiskDraft{Key: 2000, Label: "Hard disk", Capacity: mibs * mib}, bytes: make([]byte, mibs*mib)}
	d.ranges = [][2]int64{{0, d.Capacity}}
	rewrite(rng, d, 0, mibs)
	return d
}

// rewrite gives the disk other bytes from one MiB to another.
func rewrite(rng *rand.Rand, d *disk, from, to int64) {
	var seed [32]byte
	for i := 0; i < len(seed); i += 8 {
		binary.LittleEndian.PutUint64(seed[i:], rng.Uint64())
	}
	_, _ = rand.NewChaCha8(seed).Read(d.bytes[from*mib : to*mib]) // never fails
}

func (d *disk) clone() *disk {
	c := *d
	c.bytes = slices.Clone(d.bytes)
	return &c
}

func TestWhatADeletedImageHeldAloneComesBack(t *testing.T) { // seed:A64
	t.Parallel()
	ctx := t.Context()
	a := newAgeing(t)
	old := solid(rng(1), 30)
	ref, _ := take(t, a, draft("image-1"), old)
	next := old.clone()
	rewrite(rng(2), next, 0, 10)
	keep, _ := take(t, a, draft("image-2"), next)
	must(0, a.Delete(ctx, ref))(t)
	full, _ := folder(t, a.dir, isPack)
	a.ahead.Store(int64(30 * time.Hour))
	dry := must(repository.CollectByClock(ctx, a.Repository, backup.Collection{DryRun: true}))(t)
	if dry.Marked < 10*mib || dry.Marked > 11*mib || dry.Freed != 0 || dry.Images != 1 {
		t.Errorf("dry run = %+v, want 10 MiB to be marked, nothing freed", dry)
	}
	first := a.collect(0)
	if first.Marked != dry.Marked || first.MarkedN != dry.MarkedN || first.RestFrom.IsZero() {
		t.Errorf("first collection = %+v, want what the dry run said: %+v", first, dry)
	}
	var freed int64
	for range 3 {
		c := a.collect(12)
		freed += c.Freed
		compare(t, a.again(), keep, next)
	}
	left, _ := folder(t, a.dir, isPack)
	if freed < 10*mib || full-left < 9*mib {
		t.Errorf("three collections freed %d bytes, the packs went from %d to %d; want 10 MiB less", freed, full, left)
	}
	last := a.collect(12)
	if last.Marked+last.Waiting != 0 || last.Live < 30*mib || last.IndexBlobs == 0 || last.IndexBlobs > backup.MaxIndexBlobs {
		t.Errorf("last collection = %+v, want nothing left to free and 30 MiB alive", last)
	}
	compare(t, a.again(), keep, next)
}

// A backup of 54 hours finds blocks of its base and of another VM's image; both
// are deleted right after it began, and collections go on all the time.
func TestACollectionNeverTakesWhatARunningBackupBuildsUpon(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := newAgeing(t)
	base, other := solid(rng(1), 8), solid(rng(2), 8)
	baseRef, _ := take(t, a, draft("image-1"), base)
	otherRef, _ := take(t, a, draft("image-2"), other)
	a.collect(48)
	next := base.clone()
	copy(next.bytes[4*mib:], other.bytes[:3*mib])
	rewrite(rng(3), next, 7, 8)
	writer := a.again()
	d := draft("image-3")
	d.BaseRef = baseRef
	w := must(writer.Begin(ctx, d))(t)
	repository.FlushEvery(w, 512*kib)
	dw := must(w.Disk(ctx, next.DiskDraft))(t)
	half := next.clone()
	half.ranges = [][2]int64{{0, 7 * mib}}
	must(0, half.send(dw, mib))(t)
	must(0, a.Delete(ctx, baseRef))(t)
	must(0, a.Delete(ctx, otherRef))(t)
	for range 9 {
		a.collect(6)
	}
	half.ranges = [][2]int64{{7 * mib, 8 * mib}}
	must(0, half.send(dw, mib))(t)
	must(dw.Close(ctx))(t)
	ref := must(w.Commit(ctx, backup.Manifest{Image: backup.Image{ID: "image-3", PointInTime: d.PointInTime}}))(t).Ref
	for range 6 {
		compare(t, a.again(), ref, next)
		a.collect(12)
	}
	compare(t, a.again(), ref, next)
	if pins := must(repository.Pins(ctx, a.Repository))(t); len(pins) != 0 {
		t.Errorf("pins after the commit = %v, want none", pins)
	}
}

func TestImagesWrittenWhileCollectionsRunAreWhole(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	base := solid(rng(1), 6)
	collecting, stop := context.WithCancel(ctx)
	defer stop()
	var marked, freed atomic.Int64
	done := make(chan error, 1)
	go func() {
		r := s.again()
		var err error
		for err == nil && collecting.Err() == nil {
			var c backup.Collected
			c, err = repository.CollectSoon(ctx, r)
			marked.Add(int64(c.MarkedN))
			freed.Add(int64(c.FreedPacks))
		}
		done <- err
	}()
	var last string
	for n := 0; n < 12 || (marked.Load() == 0 || freed.Load() == 0) && len(done) == 0; n++ {
		// Each finds what the one before held, which is then deleted.
		id := fmt.Sprint("image-", n)
		rewrite(rng(uint64(n)), base, int64(n%6), int64(n%6)+1)
		d := draft(id)
		d.BaseRef = last
		ref, _ := take(t, s.again(), d, base)
		if last != "" {
			must(0, s.Delete(ctx, last))(t)
		}
		compare(t, s.again(), ref, base)
		last = ref
	}
	stop()
	must(0, <-done)(t)
	compare(t, s.again(), last, base)
	if marked.Load() == 0 || freed.Load() == 0 {
		t.Errorf("the collections marked %d blocks and freed %d packs, want some of each", marked.Load(), freed.Load())
	}
}

func TestTheePinOfADeadJobGoesAndItsWriterCannotCommit(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := newAgeing(t)
	d := solid(rng(1), 2)
	w := must(a.again().Begin(ctx, draft("image-1")))(t)
	defer w.Abort(ctx)
	dw := must(w.Disk(ctx, d.DiskDraft))(t)
	must(0, d.send(dw, mib))(t)
	must(dw.Close(ctx))(t)
	dead := backup.Collection{Alive: func(string) bool { return false }}
	if c := must(repository.CollectByClock(ctx, a.Repository, dead))(t); c.Abandoned != 0 {
		t.Errorf("a pin was taken for abandoned when it was minutes old")
	}
	a.ahead.Store(int64(2 * time.Hour))
	if c := must(repository.CollectByClock(ctx, a.Repository, dead))(t); c.Abandoned != 1 {
		t.Errorf("Abandoned = %d, want 1", c.Abandoned)
	}
	_, err := w.Commit(ctx, backup.Manifest{})
	wantCode(t, "Commit() without its pin", err, backup.Unavailable)
	if all := must(a.again().Images(ctx))(t); len(all) != 0 {
		t.Errorf("Images() = %d, want none", len(all))
	}
}

func TestAnAttemptThatWasTakenOverCannotCommit(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	first := must(s.Begin(ctx, draft("image-1")))(t)
	defer first.Abort(ctx)
	d := solid(rng(1), 2)
	ref, _ := take(t, s.again(), draft("image-1"), d)
	_, err := first.Commit(ctx, backup.Manifest{})
	wantCode(t, "Commit() of the first attempt", err, backup.Unavailable)
	compare(t, s, ref, d)
}

func TestACollectionThatFailsAnywhereHurtsNoImage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	old := solid(rng(1), 4)
	gone, _ := take(t, s, draft("image-1"), old)
	next := old.clone()
	rewrite(rng(2), next, 0, 1)
	keep, _ := take(t, s, draft("image-2"), next)
	alone, _ := take(t, s, draft("image-3"), solid(rng(3), 1))
	must(0, s.Delete(ctx, gone))(t)
	must(repository.CollectAtOnce(ctx, s.Repository, backup.Collection{}))(t)
	must(0, s.Delete(ctx, alone))(t) // what is there now: some marked, some to be marked
	failures, step := 0, int64(7)
	if os.Getenv("KURA_TORTURE") == "full" {
		step = 1
	}
	for at := int64(0); ; at += step {
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
		_, err := repository.CollectAtOnce(dying, r, backup.Collection{})
		die()
		left.Store(1 << 40)
		after := c.again()
		if all := must(after.Images(ctx))(t); len(all) != 1 {
			t.Fatalf("failure %d: Images() = %d, want 1", at, len(all))
		}
		compare(t, after, keep, next)
		must(repository.CollectAtOnce(ctx, after, backup.Collection{}))(t)
		compare(t, c.again(), keep, next)
		must(0, os.RemoveAll(c.dir))(t)
		if err == nil {
			break
		}
		failures++
	}
	if failures < 10 {
		t.Errorf("the collection has %d operations that can fail, want more", failures)
	}
}

func TestADamagedImageKeepsAllBlocks(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := solid(rng(1), 2)
	gone, _ := take(t, s, draft("image-1"), d)
	take(t, s, draft("image-2"), solid(rng(2), 2))
	must(0, s.Delete(ctx, gone))(t)
	_, small := folder(t, s.dir, func(name string) bool { return strings.HasSuffix(name, ".f") })
	for _, path := range small { // packs of lists lie below a folder "q"
		if strings.Contains(strings.TrimPrefix(path, s.dir), "/q") {
			must(0, os.Remove(path))(t)
		}
	}
	before, _ := folder(t, s.dir, isPack)
	if _, err := repository.CollectAtOnce(ctx, s.again(), backup.Collection{}); err == nil {
		t.Error("a collection that cannot read an image has succeeded")
	}
	if after, _ := folder(t, s.dir, isPack); after != before {
		t.Errorf("packs hold %d bytes, had %d", after, before)
	}
}

func TestListsAreMarkedWholeByTheirChunks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	random := rng(1)
	id := func() string { return fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64()) }
	ids := make([]string, 20_000) // more than ten chunks
	for i := range ids {
		ids[i] = id()
	}
	for range 3 { // the second and third share most chunks with the one before
		needed, also, err := repository.MarkedList(t.Context(), s.Repository, ids, id())
		if err != nil || needed != len(ids) || also {
			t.Errorf("MarkedList() = %d, %v, %v; want %d and no other", needed, also, err, len(ids))
		}
		ids[random.IntN(len(ids))] = id()
	}
}
