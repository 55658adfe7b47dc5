package repository_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// block is the size of a block of a small disk.
const block = 256 * kib

// change writes a range of a disk, as a guest does.
type change struct {
	off, n int64
	zero   bool
}

// next is a disk after changes, of which only these are sent.
func (d *disk) next(seed uint64, capacity int64, changes ...change) *disk {
	after := &disk{DiskDraft: d.DiskDraft, bytes: make([]byte, capacity)}
	after.Capacity, after.FromBase = capacity, true
	copy(after.bytes, d.bytes)
	r := rng(seed)
	for _, c := range changes {
		p := after.bytes[c.off : c.off+c.n]
		if clear(p); !c.zero {
			fill(r, p)
		}
		after.ranges = append(after.ranges, [2]int64{c.off, c.off + c.n})
	}
	return after
}

// differing counts the bytes of the blocks in which two disks are not the same.
// A short last block that has grown is another one, unless it is zero.
func differing(a, b *disk) (n int64) {
	for off := int64(0); off < b.Capacity; off += block {
		end := min(off+block, b.Capacity)
		old := make([]byte, end-off)
		if off < a.Capacity {
			copy(old, a.bytes[off:min(end, a.Capacity)])
		}
		longer := off < a.Capacity && a.Capacity < end && !bytes.Equal(old, make([]byte, len(old)))
		if longer || !bytes.Equal(old, b.bytes[off:end]) {
			n += end - off
		}
	}
	return n
}

// takeNext makes an image of what has changed since another, with a list in
// short chunks, and compares it.
func takeNext(t testing.TB, s *site, id, base string, d *disk) (string, backup.Manifest) {
	t.Helper()
	next := draft(id)
	next.BaseRef = base
	w := must(s.Begin(t.Context(), next))(t)
	repository.CutLists(w, 200)
	dw := must(w.Disk(t.Context(), d.DiskDraft))(t)
	must(0, d.send(dw, 256*kib))(t)
	must(dw.Close(t.Context()))(t)
	i := must(w.Commit(t.Context(), backup.Manifest{}))(t)
	compare(t, s, i.Ref, d)
	got := must(repository.StockRead(t.Context(), s.Repository, i.Ref, "disk-2000.img"))(t)
	sameBytes(t, "kopia's own reader", got, d.bytes)
	m := must(s.Image(t.Context(), i.Ref))(t).Manifest()
	if m.Image.Sizes != i.Sizes || m.Image.Disks[0] != i.Disks[0] {
		t.Errorf("Commit() told %+v, the manifest %+v", i, m.Image)
	}
	return i.Ref, m
}

func TestOnlyWhatHasChangedIsWritten(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		capacity, grown int64
		changes         []change
	}{
		"nothing":                             {9 * mib, 0, nil},
		"a sector in the middle":              {9 * mib, 0, []change{{4*mib + 512, 512, false}}},
		"the first and the last sector":       {9*mib + 512, 0, []change{{0, 512, false}, {9 * mib, 512, false}}},
		"over the border of two blocks":       {9 * mib, 0, []change{{3*mib - 512, 1024, false}}},
		"zeroes over used blocks":             {9 * mib, 0, []change{{2 * mib, 3 * mib, true}}},
		"zeroes over all of it":               {19 * mib, 0, []change{{0, 19 * mib, true}}},
		"grown, nothing written":              {9*mib + 512, 12*mib + 1024, nil},
		"grown within the last block":         {9*mib + 512, 9*mib + 1024, nil},
		"grown, written behind":               {9*mib + 512, 40 * mib, []change{{33 * mib, 64 * kib, false}}},
		"grown, the last block written":       {9*mib + 512, 12 * mib, []change{{9 * mib, 64 * kib, false}}},
		"grown at a block's end":              {9 * mib, 12 * mib, []change{{8 * mib, 2 * mib, false}}},
		"grown, zeroes over what was the end": {9*mib + 512, 12 * mib, []change{{9 * mib, mib, true}}},
		"several sectors of one block":        {9 * mib, 0, []change{{mib, 512, false}, {mib + 4096, 512, true}, {2*mib - 512, 512, false}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			first := sparse(rng(5), 2000, c.capacity)
			ref, _ := take(t, s, draft("image-1"), first)
			after := first.next(6, max(c.capacity, c.grown), c.changes...)
			_, m := takeNext(t, s, "image-2", ref, after)
			if got, want := m.Image.Sizes.Changed, differing(first, after); got != want {
				t.Errorf("Sizes.Changed = %d, want %d", got, want)
			}
		})
	}
}

func TestAnyChangesAlongAChainAreReadBack(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			s, r := newSite(t), rng(seed)
			capacity := 512 * (1 + r.Int64N(12*2048))
			last := sparse(r, 2000, capacity)
			ref, _ := take(t, s, draft("image-0"), last)
			for n := range 4 {
				capacity += 512 * []int64{0, 0, 1, 3000, 9 * 2048}[r.IntN(5)]
				after := last.next(seed+uint64(n), capacity, randomChanges(r, capacity)...)
				next, m := takeNext(t, s, fmt.Sprint("image-", n+1), ref, after)
				if got, want := m.Image.Sizes.Changed, differing(last, after); got != want {
					t.Fatalf("Sizes.Changed = %d, want %d", got, want)
				}
				wantTold(t, eachChange(t, s, next, ref), last, after)
				must(0, s.Delete(t.Context(), ref))(t)
				last, ref = after, next
			}
		})
	}
}

// randomChanges are writes of whole sectors, ascending and apart.
func randomChanges(r *rand.Rand, capacity int64) (all []change) {
	for off := 512 * r.Int64N(5*2048); off < capacity; off += 512 * r.Int64N(5*2048) {
		n := min(capacity-off, 512*(1+r.Int64N(3*2048)))
		all = append(all, change{off, n, r.IntN(2) == 0})
		off += n
	}
	return all
}

// eachChange lists the ranges in which two images of a disk may differ.
func eachChange(t testing.TB, s *site, ref, since string) (all []change) {
	t.Helper()
	i := must(s.Image(t.Context(), ref))(t)
	must(0, i.EachChange(t.Context(), since, 2000, func(off, n int64) error {
		all = append(all, change{off: off, n: n})
		return nil
	}))(t)
	return all
}

// wantTold wants every differing byte to be in a range, and no range without
// one: ranges ascend, do not touch, and each of their blocks differs.
func wantTold(t testing.TB, told []change, before, after *disk) {
	t.Helper()
	var sum, end int64
	old := make([]byte, after.Capacity)
	copy(old, before.bytes)
	last := int64(-1)
	for _, c := range told {
		if c.off <= last || c.n <= 0 {
			t.Fatalf("EachChange() told %v, want ranges that ascend and do not touch", told)
		}
		if string(old[end:c.off]) != string(after.bytes[end:c.off]) {
			t.Fatalf("EachChange() told %v, but the disks differ before %d", told, c.off)
		}
		sum, end, last = sum+c.n, c.off+c.n, c.off+c.n
	}
	if string(old[end:]) != string(after.bytes[end:]) {
		t.Fatalf("EachChange() told %v, but the disks differ behind %d", told, end)
	}
	if want := differing(before, after); sum > want {
		t.Fatalf("EachChange() told %d bytes, want the %d of the blocks that differ", sum, want)
	}
}

func TestChangesAreToldOnlyWhereDisksCanBeCompared(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := sparse(rng(1), 2000, 5*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	other, _ := take(t, s, draft("image-2"), sparse(rng(1), 2001, 5*mib))
	i := must(s.Image(t.Context(), ref))(t)
	for what, err := range map[string]error{
		"an image that is not there":  i.EachChange(t.Context(), "nonsense", 2000, nil),
		"a disk that the other lacks": i.EachChange(t.Context(), other, 2000, nil),
		"a disk that the image lacks": i.EachChange(t.Context(), other, 2001, nil),
	} {
		wantCode(t, what, err, backup.NotFound)
	}
	if got := eachChange(t, s, ref, ref); len(got) != 0 {
		t.Errorf("EachChange(itself) told %v, want nothing", got)
	}
	stop := errors.New("stop")
	grown, _ := take(t, s, draft("image-3"), sparse(rng(2), 2000, 9*mib))
	err := must(s.Image(t.Context(), grown))(t).EachChange(t.Context(), ref, 2000, func(int64, int64) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("EachChange() = %v, want the error of the function", err)
	}
}

func TestADiskIsWrittenFromItsBaseOnlyWhereThereIsOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := sparse(rng(1), 2000, 5*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	for what, c := range map[string]struct {
		base     string
		key      int32
		capacity int64
		want     bool
	}{
		"the same size":       {ref, 2000, 5 * mib, true},
		"grown":               {ref, 2000, 6 * mib, true},
		"shrunk":              {ref, 2000, 4 * mib, false},
		"another disk":        {ref, 2001, 5 * mib, false},
		"no base":             {"", 2000, 5 * mib, false},
		"a base that is gone": {"nonsense", 2000, 5 * mib, false},
	} {
		next := draft("image-2")
		next.BaseRef = c.base
		w := must(s.Begin(t.Context(), next))(t)
		if got := w.HasBase(c.key, c.capacity); got != c.want {
			t.Errorf("%s: HasBase() = %t, want %t", what, got, c.want)
		}
		_, err := w.Disk(t.Context(), backup.DiskDraft{Key: c.key, Capacity: c.capacity, FromBase: true})
		if c.want != (err == nil) {
			t.Errorf("%s: Disk() = %v, want it to work: %t", what, err, c.want)
		}
		if err != nil {
			wantCode(t, what, err, backup.Conflict)
		}
		w.Abort(t.Context())
	}
}

func TestWhatDoesNotChangeCostsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := sparse(rng(1), 2000, 64*mib)
	ref, first := take(t, s, draft("image-1"), d)
	if got, want := first.Image.Sizes.Changed, differing(&disk{}, d); got != want {
		t.Errorf("Sizes.Changed of a first image = %d, want the %d bytes that are not zero", got, want)
	}
	before, _ := folder(t, s.dir, anyFile)
	after := d.next(2, d.Capacity, change{9 * mib, 512, false})
	next := draft("image-2")
	next.BaseRef = ref
	ref, m := take(t, s, next, after)
	size, _ := folder(t, s.dir, anyFile)
	grew := size - before
	if m.Image.Sizes.Changed != block || m.Image.Sizes.Stored > grew || m.Image.Sizes.Stored < grew*9/10 {
		t.Errorf("Sizes = %+v, want a changed block and nearly the folder's growth of %d", m.Image.Sizes, grew)
	}
	whole := *after
	whole.FromBase, whole.ranges = false, [][2]int64{{0, d.Capacity}}
	next = draft("image-3")
	next.BaseRef = ref
	if _, m := take(t, s, next, &whole); m.Image.Sizes.Changed != 0 || m.Image.Sizes.Stored > 64*kib {
		t.Errorf("Sizes of the same disk, read whole = %+v, want nothing changed", m.Image.Sizes)
	}
}

func TestABaseIsReadAnewAfterALongTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := sparse(rng(1), 2000, 8*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	next := draft("image-2")
	next.BaseRef = ref
	w := must(s.Begin(t.Context(), next))(t)
	must(0, s.Delete(t.Context(), ref))(t)
	must(repository.CollectAtOnce(t.Context(), s.Repository, backup.Collection{}))(t)
	after := d.next(2, d.Capacity, change{512, 512, false}, change{7 * mib, 512, false})
	dw := must(w.Disk(t.Context(), after.DiskDraft))(t)
	must(0, after.send(dw, 512))(t)
	must(dw.Close(t.Context()))(t)
	compare(t, s, must(w.Commit(t.Context(), backup.Manifest{}))(t).Ref, after)
}

// TestAChangeCostsTheSameOnAHugeDisk: 100,000 blocks, or with
// KURA_TORTURE=full the ten million of a disk of 2.4 TiB, cost next to nothing
// more than 1,000 do.
func TestAChangeCostsTheSameOnAHugeDisk(t *testing.T) {
	t.Parallel()
	blocks := []int64{1_000, 100_000}
	if os.Getenv("KURA_TORTURE") == "full" {
		blocks = append(blocks, 10_000_000)
	}
	bytes := make([]byte, block)
	fill(rng(1), bytes)
	for _, n := range blocks {
		s := newSite(t)
		d := backup.DiskDraft{Key: 2000, Capacity: n * block}
		w := must(s.Begin(t.Context(), draft("image-1")))(t)
		must(0, repository.ListedDisk(t.Context(), w, d, bytes))(t)
		first := must(w.Commit(t.Context(), backup.Manifest{}))(t)
		next := draft("image-2")
		next.BaseRef, d.FromBase = first.Ref, true
		began := time.Now()
		w = must(s.Begin(t.Context(), next))(t)
		dw := must(w.Disk(t.Context(), d))(t)
		sector := make([]byte, 512)
		for _, off := range []int64{0, d.Capacity / 2, d.Capacity - 512} {
			must(dw.WriteAt(sector, off))(t)
		}
		must(dw.Close(t.Context()))(t)
		second := must(w.Commit(t.Context(), backup.Manifest{}))(t)
		t.Logf("%d blocks: %v, stored %d", n, time.Since(began), second.Sizes.Stored)
		if got := second.Sizes; got.Changed != 3*block || got.Stored > 4*block+n/10 {
			t.Errorf("%d blocks, 3 changed: Sizes = %+v, want 3 blocks and some chunks of the list", n, got)
		}
		told := eachChange(t, s, second.Ref, first.Ref)
		want := []change{{0, block, false}, {d.Capacity / 2 / block * block, block, false}, {d.Capacity - block, block, false}}
		if !slices.Equal(told, want) {
			t.Errorf("%d blocks: EachChange() told %v, want %v", n, told, want)
		}
	}
}
