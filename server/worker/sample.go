package worker

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"math/rand/v2"
	"slices"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Of what vSphere calls unchanged, this much of each disk is read at each
// backup, at random places.
const (
	sampleWindows = 8
	sampleBytes   = 1 << 20
)

// sample reads a few places of the disk that vSphere calls unchanged and
// compares them with the image before. What differs is the lie.
func (r *reading) sample(ctx context.Context, src backup.DiskSource, p *diskPlan) (lie *backup.Doubt, err error) {
	places := p.places(r.job.ID)
	if len(places) == 0 {
		return nil, nil
	}
	got := &patches{places: places, b: make([][]byte, len(places))}
	for i, e := range places {
		got.b[i] = make([]byte, e.N)
	}
	read, err := src.ReadAreas(ctx, p.draft.Key, slices.Values(places), got)
	p.read += read
	if err != nil {
		return nil, err
	}
	var was []byte
	for i, e := range places {
		was = slices.Grow(was[:0], int(e.N))[:e.N]
		if err := r.w.ReadBase(ctx, p.draft.Key, was, e.Off); err != nil {
			return nil, err
		}
		if !bytes.Equal(was, got.b[i]) {
			return backup.Doubtf(backup.DoubtLie, "a sample showed that it left out a block that had changed, at %d", e.Off+int64(firstDifference(was, got.b[i]))), nil
		}
	}
	return nil, nil
}

// places chooses the ranges of the sample: ascending and apart, the same ones
// whenever the job is tried.
func (p *diskPlan) places(job string) (all []backup.Extent) {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s/%d", job, p.draft.Key)                   // never fails
	dice := rand.New(rand.NewPCG(h.Sum64(), uint64(p.draft.Capacity))) //nolint:gosec // nobody gains by guessing it
	windows := (p.draft.Capacity + sampleBytes - 1) / sampleBytes
	chosen := map[int64]bool{}
	for try := int64(0); len(chosen) < sampleWindows && try < 8*sampleWindows; try++ {
		n := dice.Int64N(windows)
		if windows <= sampleWindows {
			n = try % windows // all of a small disk
		}
		from := all
		if !chosen[n] {
			all = p.unchanged(all, n*sampleBytes, min((n+1)*sampleBytes, p.draft.Capacity))
		}
		chosen[n] = chosen[n] || len(all) > len(from)
	}
	slices.SortFunc(all, func(a, b backup.Extent) int { return cmp.Compare(a.Off, b.Off) })
	return all
}

// unchanged appends what vSphere calls unchanged of a range.
func (p *diskPlan) unchanged(all []backup.Extent, from, to int64) []backup.Extent {
	for at := from; at < to; {
		block := at / p.told.size
		end := min((block+1)*p.told.size, to)
		last := len(all) - 1
		switch {
		case p.told.has(block):
		case last >= 0 && all[last].Off+all[last].N == at && at > from:
			all[last].N += end - at
		default:
			all = append(all, backup.Extent{Off: at, N: end - at})
		}
		at = end
	}
	return all
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// patches takes what is read of a few places; what is not sent of them is zero.
type patches struct {
	places []backup.Extent
	b      [][]byte
}

func (s *patches) WriteAt(p []byte, off int64) (int, error) {
	for i, e := range s.places {
		from, to := max(off, e.Off), min(off+int64(len(p)), e.Off+e.N)
		if from < to {
			copy(s.b[i][from-e.Off:], p[from-off:to-off])
		}
	}
	return len(p), nil
}

// zeroFiller writes the zeroes that a source leaves out of areas: what is not
// written would stay as in the base.
type zeroFiller struct {
	w     io.WriterAt
	areas iter.Seq[backup.Extent]

	next func() (backup.Extent, bool)
	stop func()
	cur  backup.Extent // what is left of the area that is being written
	ok   bool
	zero []byte
}

// zeroPiece is how many zeroes are written at once.
const zeroPiece = 1 << 20

func (z *zeroFiller) start() {
	if z.next == nil {
		z.next, z.stop = iter.Pull(z.areas)
		z.cur, z.ok = z.next()
	}
}

// WriteAt fills up to off, and writes.
func (z *zeroFiller) WriteAt(p []byte, off int64) (int, error) {
	z.start()
	if err := z.fill(off); err != nil {
		return 0, err
	}
	n, err := z.w.WriteAt(p, off)
	for end := off + int64(n); z.ok && z.cur.Off < end; {
		if took := min(end-z.cur.Off, z.cur.N); took < z.cur.N {
			z.cur.Off, z.cur.N = z.cur.Off+took, z.cur.N-took
			break
		}
		z.cur, z.ok = z.next()
	}
	return n, err
}

// fill writes zeroes over what areas have before to.
func (z *zeroFiller) fill(to int64) error {
	for z.ok && z.cur.Off < to {
		if z.zero == nil {
			z.zero = make([]byte, zeroPiece)
		}
		n := min(z.cur.N, to-z.cur.Off, zeroPiece)
		if _, err := z.w.WriteAt(z.zero[:n], z.cur.Off); err != nil {
			return err
		}
		z.cur.Off, z.cur.N = z.cur.Off+n, z.cur.N-n
		if z.cur.N == 0 {
			z.cur, z.ok = z.next()
		}
	}
	return nil
}

// finish fills what is left.
func (z *zeroFiller) finish() error {
	z.start()
	return z.fill(1<<63 - 1)
}

// close gives back what telling the areas takes.
func (z *zeroFiller) close() {
	if z.stop != nil {
		z.stop()
	}
}
