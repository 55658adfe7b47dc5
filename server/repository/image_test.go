package repository_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	t.Parallel()
	// seed:N1 seed:N6
	for _, compression := range []string{"s2", "zstd-fastest", "none"} {
		t.Run("compression "+compression, func(t *testing.T) {
			s := newSite(t, func(r *backup.RepositoryRecord) { r.Compression = compression })
			other := s.again()
			for n, capacity := range []int64{512, 64 * kib, mib, mib + 512, 9*mib + 1536} {
				d := sparse(rng(uint64(n)), 2000, capacity)
				ref, _ := take(t, s, draft(fmt.Sprint("image-", n)), d)
				compare(t, s, ref, d)
				compare(t, other, ref, d)
				got := must(repository.StockRead(t.Context(), s.Repository, ref, "disk-2000.img"))(t)
				sameBytes(t, "kopia's own reader", got, d.bytes)
			}
		})
	}
}

func TestAnyAscendingWritesAreReadBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		capacity := int64(rapid.IntRange(1, 6*2048).Draw(rt, "sectors")) * 512
		want := &disk{DiskDraft: backup.DiskDraft{Key: 1, Capacity: capacity}, bytes: make([]byte, capacity)}
		r := rng(rapid.Uint64().Draw(rt, "seed"))
		w := must(s.Begin(t.Context(), draft(fmt.Sprint("image-", n))))(t)
		dw := must(w.Disk(t.Context(), want.DiskDraft))(t)
		for off := int64(0); off < capacity; {
			off += rapid.Int64Range(0, min(capacity-off, 3*mib)).Draw(rt, "gap")
			end := min(capacity, off+rapid.Int64Range(1, 3*mib).Draw(rt, "length"))
			if rapid.Bool().Draw(rt, "data") {
				fill(r, want.bytes[off:end])
			}
			if _, err := dw.WriteAt(want.bytes[off:end], off); err != nil {
				rt.Fatalf("WriteAt(%d, %d) = %v", end-off, off, err)
			}
			off = end
		}
		must(dw.Close(t.Context()))(t)
		ref := must(w.Commit(t.Context(), backup.Manifest{}))(t).Ref
		compare(t, s, ref, want)
		must(0, s.Delete(t.Context(), ref))(t)
	})
}

func TestRandomReadsFindTheirBytes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := sparse(rng(3), 2000, 16*mib+512)
	ref, _ := take(t, s, draft("image-1"), d)
	r := must(must(s.Image(t.Context(), ref))(t).Disk(t.Context(), 2000))(t)
	var g errgroup.Group
	for n := range 8 {
		g.Go(func() error {
			rnd := rng(uint64(n))
			for range 40 {
				off := rnd.Int64N(d.Capacity)
				b := make([]byte, min(rnd.Int64N(mib), d.Capacity-off))
				if _, err := r.ReadAt(b, off); err != nil {
					return fmt.Errorf("ReadAt(%d, %d): %w", len(b), off, err)
				}
				sameBytes(t, fmt.Sprintf("ReadAt(%d, %d)", len(b), off), b, d.bytes[off:off+int64(len(b))])
			}
			return nil
		})
	}
	must(0, g.Wait())(t)
	must(0, r.Close())(t)
	if _, err := r.ReadAt(make([]byte, mib), 0); err == nil {
		t.Error("ReadAt() of a closed disk = nil, want an error")
	}
}

func TestSeveralDisksAreWrittenAtTheSameTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := must(s.Begin(t.Context(), draft("image-1")))(t)
	g, ctx := errgroup.WithContext(t.Context())
	disks := []*disk{sparse(rng(1), 2000, 20*mib), sparse(rng(2), 2001, 33*mib), sparse(rng(1), 2002, 20*mib), sparse(rng(4), 2003, 512)}
	stored := make([]int64, len(disks))
	for n, d := range disks {
		g.Go(func() error {
			dw, err := w.Disk(ctx, d.DiskDraft)
			if err == nil {
				err = d.send(dw, 64*kib)
			}
			if err != nil {
				return err
			}
			i, err := dw.Close(ctx)
			stored[n] = i.Stored
			return err
		})
	}
	must(0, g.Wait())(t)
	must(0, w.File(t.Context(), "vm.nvram", []byte("nvram")))(t)
	ref := must(w.Commit(t.Context(), backup.Manifest{}))(t).Ref
	for _, d := range disks {
		compare(t, s, ref, d)
	}
	i := must(s.Image(t.Context(), ref))(t)
	if got := must(i.File(t.Context(), "vm.nvram"))(t); string(got) != "nvram" {
		t.Errorf("File(vm.nvram) = %q, want nvram", got)
	}
	var sum int64
	for _, n := range stored {
		sum += n
	}
	if both, one := stored[0]+stored[2], stored[1]; both > 2*one {
		t.Errorf("two equal disks of 20 MiB stored %d, one of 33 MiB %d: want equal blocks stored once", both, one)
	}
	grew, _ := folder(t, s.dir, anyFile)
	if got := i.Manifest().Image.Sizes.Stored; got < sum || got > grew || got < grew*97/100 {
		t.Errorf("Sizes.Stored = %d, the disks' sum %d, the folder %d: want nearly the folder", got, sum, grew)
	}
}

func TestAnUnchangedImageStoresNearlyNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := sparse(rng(5), 2000, 40*mib)
	first, one := take(t, s, draft("image-1"), d)
	before, _ := folder(t, s.dir, anyFile)
	next := draft("image-2")
	next.BaseRef = first
	second, two := take(t, s.again(), next, d)
	after, _ := folder(t, s.dir, anyFile)
	if got, most := two.Image.Sizes.Stored, one.Image.Sizes.Stored/100; got > most || after-before > most+20*kib {
		t.Errorf("unchanged: Stored = %d, folder grew by %d; want at most %d", got, after-before, most)
	}
	if two.Image.Disks[0].Stored > 4*kib {
		t.Errorf("unchanged disk: Stored = %d, want about nothing", two.Image.Disks[0].Stored)
	}
	fill(rng(6), d.bytes[10*mib:10*mib+64*kib])
	d.ranges = [][2]int64{{0, d.Capacity}}
	third := draft("image-3")
	third.BaseRef = second
	ref, three := take(t, s, third, d)
	if got := three.Image.Disks[0].Stored; got == 0 || got > 2*block {
		t.Errorf("64 KiB changed: Stored = %d, want one block's worth", got)
	}
	compare(t, s, ref, d)
}

func TestAHugeHoleCostsNextToNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	// A list has an entry for each 8 MiB: a tenth of the full size shows the same.
	capacity, at := int64(900*gib), []int64{5 * gib, 700*gib + 3*mib}
	if os.Getenv("KURA_TORTURE") == "full" {
		capacity, at = 9*tib, []int64{5 * gib, 8*tib + 3*mib}
	}
	at = append(at, capacity-mib)
	w := must(s.Begin(t.Context(), draft("image-1")))(t)
	dw := must(w.Disk(t.Context(), backup.DiskDraft{Key: 1, Capacity: capacity}))(t)
	data := make([]byte, mib)
	fill(rng(1), data)
	for _, off := range at {
		must(dw.WriteAt(data, off))(t)
	}
	i := must(dw.Close(t.Context()))(t)
	ref := must(w.Commit(t.Context(), backup.Manifest{}))(t).Ref
	if n, most := must(repository.Entries(t.Context(), s.Repository, ref, 1))(t), int(capacity/(8*mib))+100; n > most {
		t.Errorf("the disk has %d entries, want at most %d", n, most)
	}
	if i.Stored > 16*mib {
		t.Errorf("Stored = %d, want at most a MiB for each TiB", i.Stored)
	}
	r := must(must(s.Image(t.Context(), ref))(t).Disk(t.Context(), 1))(t)
	var ranges int
	for off := int64(0); ; ranges++ {
		start, n := r.Next(off)
		if n == 0 {
			break
		}
		if want := at[ranges]; start > want || start+n < want+mib || n > 8*mib {
			t.Errorf("Next(%d) = %d, %d; want the range around %d", off, start, n, want)
		}
		off = start + n
	}
	got := make([]byte, mib)
	for _, off := range at {
		must(r.ReadAt(got, off))(t)
		sameBytes(t, fmt.Sprint("at ", off), got, data)
	}
	must(r.ReadAt(got, capacity/2))(t)
	sameBytes(t, "hole", got, make([]byte, mib))
	must(0, r.Close())(t)
}

func TestBlocksGrowWithTheDiskAndStayAlongAChain(t *testing.T) {
	for name, c := range map[string]struct{ capacity, base, want int64 }{
		"a small disk":                         {512, 0, block},
		"a disk of a TiB":                      {tib, 0, block},
		"a disk of more":                       {tib + 512, 0, mib},
		"a base of former times":               {gib, mib, mib},
		"a disk of 8 TiB":                      {8 * tib, 0, mib},
		"a larger one":                         {8*tib + 512, 0, 4 * mib},
		"a disk that has grown beyond 8 TiB":   {9 * tib, mib, mib},
		"a base with blocks nobody knows":      {gib, 3 * mib, block},
		"a small disk on a base of large ones": {gib, 4 * mib, 4 * mib},
	} {
		if got := repository.BlockSizeFor(c.capacity, c.base); got != c.want {
			t.Errorf("%s: blocks of %d, want %d", name, got, c.want)
		}
	}
}

func TestTheManifestTellsAllThereIs(t *testing.T) {
	t.Parallel()
	// seed:N6 seed:N41 seed:N45
	s := newSite(t)
	ctx := t.Context()
	w := must(s.Begin(ctx, draft("image-1")))(t)
	d := sparse(rng(1), 2000, 3*mib)
	d.UUID, d.ChangeID = "uuid", "change/1"
	dw := must(w.Disk(ctx, d.DiskDraft))(t)
	must(0, d.send(dw, mib))(t)
	closed := must(dw.Close(ctx))(t)
	at := time.Date(2026, 3, 1, 2, 3, 4, 0, time.UTC)
	m := backup.Manifest{
		Machine: json.RawMessage(`{"cpu":2}`),
		Image: backup.Image{
			ID: "image-1", VMName: "vm01", GroupID: "group-1", PointInTime: at, ExpiresAt: at.AddDate(0, 0, 8),
			Disks: []backup.ImageDisk{{Key: 2000, Read: 77}, {Key: 2001, SkippedReason: "independent"}},
		},
	}
	ref := must(w.Commit(ctx, m))(t).Ref
	got := must(s.Image(ctx, ref))(t).Manifest()
	closed.Read = 77
	want := m
	want.FormatVersion, want.BlockSize = backup.ManifestVersion, block
	want.Installation, want.VCenterUUID = "installation-1", "vcenter-uuid"
	want.Image.VMInstanceUUID, want.Image.RepositoryID, want.Image.Ref = "vm-uuid", "repo-1", ref
	want.Image.Disks = []backup.ImageDisk{closed, {Key: 2001, SkippedReason: "independent"}}
	want.Image.Sizes.Stored, want.Image.Sizes.Changed = got.Image.Sizes.Stored, closed.Changed
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Manifest() differs (-want +got):\n%s", diff)
	}
	if got.Image.Sizes.Stored < closed.Stored || closed.Stored == 0 {
		t.Errorf("Sizes.Stored = %d, the disk's %d", got.Image.Sizes.Stored, closed.Stored)
	}
	snap := must(repository.Snapshot(ctx, s.Repository, ref))(t)
	if got := snap.Source.String(); got != "kura@vcenter-uuid:/vm-uuid" {
		t.Errorf("source = %s", got)
	}
	wantTags := map[string]string{
		"tag:kura-image": "image-1", "tag:kura-kind": "image", "tag:kura-format": "1",
		"tag:kura-installation": "installation-1", "tag:kura-group": "group-1", "tag:kura-expires": "2026-03-09T02:03:04Z",
	}
	if diff := cmp.Diff(wantTags, snap.Tags); diff != "" || len(snap.Pins) != 1 || !snap.StartTime.ToTime().Equal(at) {
		t.Errorf("snapshot: tags %s, pins %v, start %v", diff, snap.Pins, snap.StartTime)
	}
	recipe := string(must(must(s.Image(ctx, ref))(t).File(ctx, "restore.txt"))(t))
	if strings.Count(recipe, "\n") != 2 || !strings.Contains(recipe, s.dir) || strings.Contains(recipe, s.rec.Password.Reveal()) {
		t.Errorf("restore.txt = %q, want two lines, the folder and no password", recipe)
	}
}

func TestImagesAreListedOldestFirstAndDeletedOneByOne(t *testing.T) {
	t.Parallel()
	// seed:N43 seed:N51
	s := newSite(t)
	other := s.again()
	ctx := t.Context()
	refs := map[string]string{}
	for _, n := range []int{3, 1, 2} {
		d := draft(fmt.Sprint("image-", n))
		d.PointInTime = d.PointInTime.AddDate(0, 0, n)
		refs[d.ImageID], _ = take(t, s, d, sparse(rng(uint64(n)), 2000, 2*mib))
	}
	list := func(r backup.Repository) (ids []string) {
		for _, m := range must(r.Images(ctx))(t) {
			if m.Image.Ref != refs[m.Image.ID] {
				t.Errorf("image %s: Ref = %q, want %q", m.Image.ID, m.Image.Ref, refs[m.Image.ID])
			}
			ids = append(ids, m.Image.ID)
		}
		return ids
	}
	want := []string{"image-1", "image-2", "image-3"}
	if diff := cmp.Diff(want, list(s)) + cmp.Diff(want, list(other)); diff != "" {
		t.Errorf("Images() differs: %s", diff)
	}
	must(0, other.Delete(ctx, refs["image-2"]))(t)
	must(0, s.Delete(ctx, refs["image-2"]))(t)
	must(0, s.Delete(ctx, "nothing"))(t)
	want = []string{"image-1", "image-3"}
	if diff := cmp.Diff(want, list(s)) + cmp.Diff(want, list(other)); diff != "" {
		t.Errorf("Images() after Delete() differs: %s", diff)
	}
	_, err := s.Image(ctx, refs["image-2"])
	wantCode(t, "Image() of a deleted one", err, backup.NotFound)
	compare(t, s, refs["image-3"], sparse(rng(3), 2000, 2*mib))
}

func TestAnImageCommittedAgainReplacesItself(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := sparse(rng(1), 2000, 4*mib)
	first, _ := take(t, s, draft("image-1"), d)
	fill(rng(2), d.bytes[:mib])
	d.ranges = [][2]int64{{0, d.Capacity}}
	second, _ := take(t, s.again(), draft("image-1"), d)
	all := must(s.Images(t.Context()))(t)
	if len(all) != 1 || all[0].Image.Ref != second || second == first {
		t.Errorf("Images() = %d, want the second only", len(all))
	}
	compare(t, s, second, d)
}

func TestNothingIsVisibleBeforeCommit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	d := sparse(rng(1), 2000, 50*mib)
	before, _ := folder(t, s.dir, anyFile)
	w := must(s.Begin(ctx, draft("image-1")))(t)
	dw := must(w.Disk(ctx, d.DiskDraft))(t)
	must(0, d.send(dw, 256*kib))(t)
	if _, err := w.Commit(ctx, backup.Manifest{}); err == nil {
		t.Error("Commit() with an open disk = nil, want an error")
	}
	must(dw.Close(ctx))(t)
	if n := len(must(s.again().Images(ctx))(t)); n != 0 {
		t.Errorf("Images() before Commit() = %d, want none", n)
	}
	w.Abort(ctx)
	w.Abort(ctx)
	if _, err := w.Commit(ctx, backup.Manifest{}); err == nil {
		t.Error("Commit() after Abort() = nil, want an error")
	}
	if n := len(must(s.Images(ctx))(t)); n != 0 {
		t.Errorf("Images() after Abort() = %d, want none", n)
	}
	if after, files := folder(t, s.dir, anyFile); after > before+kib {
		t.Errorf("folder holds %d bytes after Abort(), %d before: %v", after, before, files)
	}
}

func TestLongImagesFlushOnTheirWay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	disks := []*disk{sparse(rng(1), 2000, 16*mib), sparse(rng(2), 2001, 16*mib), sparse(rng(3), 2002, 16*mib)}
	write := func(id string) backup.ImageWriter {
		w := must(s.Begin(ctx, draft(id)))(t)
		repository.FlushEvery(w, 3*mib)
		var g errgroup.Group
		for _, d := range disks {
			g.Go(func() error {
				dw, err := w.Disk(ctx, d.DiskDraft)
				if err == nil {
					err = d.send(dw, mib)
				}
				if err == nil {
					_, err = dw.Close(ctx)
				}
				return err
			})
		}
		must(0, g.Wait())(t)
		return w
	}
	write("image-1").Abort(ctx)
	if n := len(must(s.again().Images(ctx))(t)); n != 0 {
		t.Errorf("Images() after flushes and Abort() = %d, want none", n)
	}
	ref := must(write("image-2").Commit(ctx, backup.Manifest{}))(t).Ref
	for _, d := range disks {
		compare(t, s.again(), ref, d)
	}
}

func TestTwoServersWriteIntoOneRepository(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	servers := []backup.Repository{s, s.again()}
	var g errgroup.Group
	for n, r := range servers {
		g.Go(func() error {
			for k := range 3 {
				if err := attempt(ctx, r, draft(fmt.Sprint("image-", n, "-", k)), sparse(rng(uint64(n*10+k)), 2000, 6*mib)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(0, g.Wait())(t)
	for _, r := range append(servers, s.again()) {
		all := must(r.Images(ctx))(t)
		if len(all) != 6 {
			t.Errorf("Images() = %d, want 6", len(all))
		}
		for _, m := range all {
			var n, k int
			must(fmt.Sscanf(m.Image.ID, "image-%d-%d", &n, &k))(t)
			compare(t, r, m.Image.Ref, sparse(rng(uint64(n*10+k)), 2000, 6*mib))
		}
	}
}

func TestAnAbortStopsAWriterThatIsBehind(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx, cancel := context.WithCancel(t.Context())
	w := must(s.Begin(ctx, draft("image-1")))(t)
	dw := must(w.Disk(ctx, backup.DiskDraft{Key: 1, Capacity: gib}))(t)
	cancel()
	var err error
	for off := int64(0); err == nil && off < gib; off += mib {
		b := make([]byte, mib)
		b[0] = 1
		_, err = dw.WriteAt(b, off)
	}
	if err == nil {
		t.Error("WriteAt() with a cancelled context = nil, want an error")
	}
	if _, err := dw.Close(t.Context()); err == nil {
		t.Error("Close() with a cancelled context = nil, want an error")
	}
	w.Abort(ctx)
}

func TestWritesOutOfOrderAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := must(s.Begin(t.Context(), draft("image-1")))(t)
	defer w.Abort(t.Context())
	_, err := w.Disk(t.Context(), backup.DiskDraft{Key: 1, Capacity: 1000})
	wantCode(t, "Disk() of 1000 bytes", err, backup.Invalid)
	dw := must(w.Disk(t.Context(), backup.DiskDraft{Key: 1, Capacity: mib}))(t)
	if _, err := w.Disk(t.Context(), backup.DiskDraft{Key: 1, Capacity: mib}); err == nil {
		t.Error("Disk() twice = nil, want an error")
	}
	must(dw.WriteAt(make([]byte, 512), 1024))(t)
	for _, off := range []int64{0, 1024, 1535, mib - 511} {
		if _, err := dw.WriteAt(make([]byte, 512), off); err == nil {
			t.Errorf("WriteAt(%d) = nil, want an error", off)
		}
	}
}

func TestDiskSHA256CountsTheZeroes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := sparse(rng(8), 2000, 10*mib+512)
	ref, _ := take(t, s, draft("image-1"), d)
	r := must(must(s.Image(t.Context(), ref))(t).Disk(t.Context(), 2000))(t)
	defer r.Close()
	if got, want := must(repository.DiskSHA256(t.Context(), r))(t), sum(d.bytes); got != want {
		t.Errorf("DiskSHA256() = %s, want %s", got, want)
	}
}

func TestMemoryIsBoundedWhateverTheDisksSize(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	w := must(s.Begin(ctx, draft("image-1")))(t)
	var most atomic.Uint64
	watch := func() {
		sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(sample)
		for n := sample[0].Value.Uint64(); n > most.Load(); {
			most.Store(n)
		}
	}
	runtime.GC() // live is what the last collection found
	watch()
	before := most.Load()
	var g errgroup.Group
	for key := range int32(4) {
		g.Go(func() error {
			dw, err := w.Disk(ctx, backup.DiskDraft{Key: key, Capacity: 64 * mib})
			if err != nil {
				return err
			}
			b := make([]byte, mib)
			fill(rng(uint64(key)), b)
			for off := int64(0); off < 64*mib; off += mib {
				binary.LittleEndian.PutUint64(b, uint64(off))
				if _, err := dw.WriteAt(b, off); err != nil {
					return err
				}
				watch()
			}
			_, err = dw.Close(ctx)
			return err
		})
	}
	must(0, g.Wait())(t)
	must(w.Commit(ctx, backup.Manifest{}))(t)
	if grew := (most.Load() - before) / mib; grew > 160 {
		t.Errorf("four disks of 64 MiB took %d MiB, want at most 160", grew)
	} else {
		t.Logf("four disks at the same time took %d MiB", grew)
	}
}
