package repository_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// harm is what happens to a pack.
type harm struct {
	name string
	read bool // only a reading finds it
	do   func(t testing.TB, pack string)
}

func harms() []harm {
	return []harm{
		{"a pack is lost", false, func(t testing.TB, pack string) { removeAll(t, pack) }},
		{"a pack was cut short", false, func(t testing.TB, pack string) { must(0, os.Truncate(pack, 64*kib))(t) }},
		{"bits of a pack are flipped", true, func(t testing.TB, pack string) {
			b := must(os.ReadFile(pack))(t)
			for off := 64 * kib; off < len(b); off += 64 * kib { // in each of its blocks
				b[off] ^= 1
			}
			must(0, os.WriteFile(pack, b, 0o600))(t)
		}},
	}
}

// later is the draft of an image that is so many hours younger.
func later(id string, hours int, base string) backup.ImageDraft {
	d := draft(id)
	d.PointInTime, d.BaseRef = d.PointInTime.Add(time.Duration(hours)*time.Hour), base
	return d
}

// grown is a disk that was written from its base, and a random block of it.
func grown(d *disk, block int64, seed uint64) *disk {
	n := d.clone()
	from := block * 256 * kib
	fill(rng(seed), n.bytes[from:from+256*kib])
	n.FromBase, n.ranges = true, [][2]int64{{from, from + 256*kib}}
	return n
}

// whole is a disk that is read in full.
func whole(d *disk) *disk {
	n := d.clone()
	n.FromBase, n.ranges = false, [][2]int64{{0, d.Capacity}}
	return n
}

func TestLostBlocksAreStoredAgainByTheNextRunAndImagesHeal(t *testing.T) {
	t.Parallel()
	for _, h := range harms() {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := newSite(t)
			first := solid(rng(1), 5)
			ref1, _ := take(t, s, draft("image-1"), first)
			second := grown(first, 2, 9)
			ref2, _ := take(t, s, later("image-2", 1, ref1), second)
			stranger := draft("image-s")
			stranger.InstanceUUID = "another-vm"
			other := solid(rng(5), 3)
			refS, _ := take(t, s, stranger, other)
			h.do(t, largest(t, s.dir))

			r := s.again()
			v := must(r.Verify(ctx, ref1, backup.Verification{Read: h.read}))(t)
			if !slices.Equal(v.Damaged, []int32{2000}) || len(v.Hurt) != 1 || v.Hurt[0].ID != "image-2" || !slices.Equal(v.Hurt[0].Disks, []int32{2000}) {
				t.Fatalf("Verify() = %+v, want disk 2000 damaged, and that of image-2 hurt", v)
			}
			if v := must(r.Verify(ctx, ref2, backup.Verification{}))(t); !slices.Equal(v.Damaged, []int32{2000}) {
				t.Errorf("Verify() of the second = %+v, want it damaged without reading", v)
			}
			w := must(r.Begin(ctx, later("image-x", 2, ref2)))(t)
			if w.HasBase(2000, second.Capacity) {
				t.Error("HasBase() = true, want a disk with lost blocks read in full")
			}
			w.Abort(ctx)

			third := whole(grown(second, 4, 11))
			ref3 := heals(t, r, later("image-3", 2, ref2), third)
			compare(t, s.again(), ref3, third)
			compare(t, s.again(), refS, other)
			isWhole(t, s, "image-3", ref3, true)
			isWhole(t, s, "image-s", refS, true)
			isWhole(t, s, "image-2", ref2, false) // its block 4 is in no disk any more, unless the harm spared it
			heals(t, s.again(), later("image-4", 3, ref3), whole(second))
			isWhole(t, s, "image-2", ref2, true)
			compare(t, s.again(), ref2, second)
		})
	}
}

// heals takes an image that must store blocks again.
func heals(t testing.TB, r backup.Repository, d backup.ImageDraft, k *disk) string {
	t.Helper()
	ctx := t.Context()
	w := must(r.Begin(ctx, d))(t)
	dw := must(w.Disk(ctx, k.DiskDraft))(t)
	must(0, k.send(dw, 256*kib))(t)
	disk := must(dw.Close(ctx))(t)
	i := must(w.Commit(ctx, backup.Manifest{Image: backup.Image{ID: d.ImageID, PointInTime: d.PointInTime, Status: backup.ImageGood}}))(t)
	if i.Healed == 0 || disk.Stored < 64*kib {
		t.Errorf("%s has stored %d lost blocks again, %d bytes; want some", d.ImageID, i.Healed, disk.Stored)
	}
	return i.Ref
}

// isWhole wants a reading of an image to find that.
func isWhole(t testing.TB, s *site, id, ref string, want bool) {
	t.Helper()
	v := must(s.again().Verify(t.Context(), ref, backup.Verification{Read: true}))(t)
	if (v.Message == "") != want {
		t.Errorf("reading %s finds %q, want whole = %t", id, v.Message, want)
	}
}

func TestALostListIsWrittenAgain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := solid(rng(1), 4)
	ref, _ := take(t, s, draft("image-1"), d)
	pack := packOfList(t, s, ref)
	b := must(os.ReadFile(pack.path))(t)
	for n := range pack.length {
		b[pack.off+n] ^= 0x55
	}
	must(0, os.WriteFile(pack.path, b, 0o600))(t)
	if v := must(s.again().Verify(ctx, ref, backup.Verification{}))(t); !slices.Equal(v.Damaged, []int32{2000}) {
		t.Fatalf("Verify() = %+v, want the disk damaged", v)
	}
	_, err := s.again().Collect(ctx, backup.Collection{})
	wantCode(t, "Collect()", err, backup.RepositoryDamaged)
	take(t, s.again(), later("image-2", 1, ref), whole(d))
	isWhole(t, s, "image-1", ref, true)
	compare(t, s.again(), ref, d)
}

func TestWhatIsPutBackCountsAgain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := solid(rng(1), 4)
	ref, _ := take(t, s, draft("image-1"), d)
	pack := largest(t, s.dir)
	aside := filepath.Join(t.TempDir(), "pack")
	must(0, os.Rename(pack, aside))(t)
	isWhole(t, s, "image-1", ref, false)
	if n := len(notes(t, s)); n != 1 {
		t.Fatalf("%d notes of lost packs, want 1", n)
	}
	must(0, os.Rename(aside, pack))(t)
	isWhole(t, s, "image-1", ref, true)
	if n := notes(t, s); len(n) != 0 {
		t.Errorf("notes of what is there again: %v", n)
	}
	w := must(s.again().Begin(ctx, later("image-2", 1, ref)))(t)
	defer w.Abort(ctx)
	if !w.HasBase(2000, d.Capacity) {
		t.Error("HasBase() = false for a disk that is whole again")
	}
}

func TestNotesOfWhatIsHealedGoWithACollection(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := solid(rng(1), 4)
	ref, _ := take(t, s, draft("image-1"), d)
	loseLargest(t, s.dir)
	isWhole(t, s, "image-1", ref, false)
	must(s.again().Collect(ctx, backup.Collection{}))(t)
	if n := len(notes(t, s)); n != 1 {
		t.Fatalf("%d notes while the blocks are lost, want 1", n)
	}
	heals(t, s.again(), later("image-2", 1, ref), whole(d))
	must(s.again().Collect(ctx, backup.Collection{}))(t)
	if n := notes(t, s); len(n) != 0 {
		t.Errorf("notes of what is healed: %v", n)
	}
	isWhole(t, s, "image-1", ref, true)
}

// A server that began an image before another one found its blocks lost must
// not commit it.
func TestAnImageThatBuildsUponBlocksFoundLostMeanwhileIsRefused(t *testing.T) {
	t.Parallel()
	for _, fromBase := range []bool{false, true} {
		t.Run(map[bool]string{false: "read in full", true: "as changes"}[fromBase], func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := newSite(t)
			d := solid(rng(1), 4)
			ref, _ := take(t, s, draft("image-1"), d)
			a, b := s.again(), s.again()
			w := must(a.Begin(ctx, later("image-2", 1, ref)))(t)
			defer w.Abort(ctx)
			next := grown(d, 1, 7)
			if !fromBase {
				next = whole(next)
			}
			dw := must(w.Disk(ctx, next.DiskDraft))(t)
			must(0, next.send(dw, 256*kib))(t)
			must(dw.Close(ctx))(t)
			loseLargest(t, s.dir)
			must(b.Verify(ctx, ref, backup.Verification{}))(t)
			_, err := w.Commit(ctx, backup.Manifest{})
			wantCode(t, "Commit()", err, backup.Unavailable)
			again := heals(t, a, later("image-2", 1, ref), whole(next))
			compare(t, s.again(), again, next)
		})
	}
}

func TestNothingIsFoundLostOnADiskThatIsNotMounted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ref, _ := take(t, s, draft("image-1"), solid(rng(1), 2))
	r := s.again()
	must(r.Images(t.Context()))(t)
	aside := s.dir + ".away"
	must(0, os.Rename(s.dir, aside))(t)
	must(0, os.Mkdir(s.dir, 0o700))(t)
	_, err := r.Verify(t.Context(), ref, backup.Verification{})
	wantCode(t, "Verify() in an empty mount point", err, backup.RepositoryUnreachable)
	must(0, os.Remove(s.dir))(t)
	must(0, os.Rename(aside, s.dir))(t)
	if n := notes(t, s); len(n) != 0 {
		t.Errorf("notes: %v", n)
	}
}

// notes names the notes of lost packs.
func notes(t testing.TB, s *site) (all []string) {
	t.Helper()
	for _, b := range blobs(t, s) {
		if strings.HasPrefix(b, "kura.lost.") {
			all = append(all, b)
		}
	}
	return all
}

// place is a piece of a file.
type place struct {
	path        string
	off, length int
}

func packOfList(t testing.TB, s *site, ref string) (p place) {
	t.Helper()
	pack, off, length, err := repository.ListPlace(t.Context(), s.Repository, ref, 2000)
	must(0, err)(t)
	_, files := folder(t, s.dir, func(name string) bool { return strings.HasSuffix(pack+".f", name) && len(name) > 10 })
	if len(files) != 1 {
		t.Fatalf("pack %s lies in %v", pack, files)
	}
	return place{files[0], off, length}
}

// What kopia does about a lost pack, and what kura does: the stock program takes
// a snapshot of the same bytes, says that it has succeeded, and cannot restore
// it. After kura's next backup of a disk that holds them it can.
func TestTheStockProgramTrustsLostBlocksAndRestoresOnceKuraHasHealedThem(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := solid(rng(1), 4)
	ref, _ := take(t, s, draft("image-1"), d)
	k := newStock(t, s)
	image := filepath.Join(k.dir, "files", "disk.img")
	must(0, os.Mkdir(filepath.Dir(image), 0o700))(t)
	must(0, os.WriteFile(image, d.bytes, 0o600))(t)
	k.run("kopia repository connect filesystem --path='" + s.dir + "'\nkopia policy set --global --splitter=FIXED-256K\n")
	loseLargest(t, s.dir)

	k.run("kopia snapshot create files\n") // it "succeeds"
	back := func() error {
		removeAll(t, filepath.Join(k.dir, "back"))
		_, err := k.try("kopia snapshot restore files back\n")
		if err != nil {
			return err
		}
		sameBytes(t, "restored by the stock program", must(os.ReadFile(filepath.Join(k.dir, "back", "disk.img")))(t), d.bytes)
		return nil
	}
	if back() == nil {
		t.Fatal("the stock program restores what is lost: it proves nothing")
	}
	k.run("kopia snapshot create files\n") // nor does another one help
	if back() == nil {
		t.Fatal("another snapshot of the stock program has healed the blocks: it proves nothing")
	}

	isWhole(t, s, "image-1", ref, false)
	next := heals(t, s.again(), later("image-2", 1, ref), whole(d))
	if err := back(); err != nil {
		t.Errorf("the stock program's own snapshot does not restore after kura has healed its blocks: %v", err)
	}
	k.follows(s.again(), kept{"image-1", ref, []*disk{d}})
	k.follows(s.again(), kept{"image-2", next, []*disk{d}})
}

// A server that ends at any write while it finds and heals a loss leaves what
// the next one heals.
func TestHealingSurvivesAnEndAtAnyWrite(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := solid(rng(1), 2)
	ref, _ := take(t, s, draft("image-1"), d)
	loseLargest(t, s.dir)
	hurt := filepath.Join(t.TempDir(), "hurt")
	must(0, os.Rename(s.dir, hurt))(t)
	for n := 0; ; n++ {
		removeAll(t, s.dir)
		must(0, os.CopyFS(s.dir, os.DirFS(hurt)))(t) // at its place: recipes name it
		rs := newRepositories(t, "installation-1")
		rs.LimitWrites(n)
		rs.Hurry(time.Millisecond, 20*time.Millisecond)
		r := must(rs.Repository(ctx, s.rec))(t)
		_, err := r.Verify(ctx, ref, backup.Verification{})
		if err == nil {
			tctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond) // kopia tries for as long as it may
			err = attempt(tctx, r, later("image-2", 1, ref), whole(d))
			cancel()
		}
		if err == nil {
			isWhole(t, s, "image-1", ref, true)
			t.Logf("%d writes", n)
			return
		}
		must(s.again().Verify(ctx, ref, backup.Verification{}))(t) // the next attempt at the job
		next, _ := take(t, s.again(), later("image-2", 1, ref), whole(d))
		isWhole(t, s, "image-1", ref, true)
		isWhole(t, s, "image-2", next, true)
	}
}
