package repository_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// TestTheBaseIsReadAndWhatChangedIsTold: what a disk that is read in full
// differs in from its base is told block by block, and the base's bytes can be
// had without opening the image that it is.
func TestTheBaseIsReadAndWhatChangedIsTold(t *testing.T) {
	t.Parallel()
	for _, fromBase := range []bool{false, true} {
		t.Run(fmt.Sprint("from base ", fromBase), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			first := sparse(rng(5), 2000, 9*mib)
			ref, _ := take(t, s, draft("image-1"), first)
			after := first.next(6, 12*mib, change{mib + 512, 512, false}, change{8*mib - 512, 1024, false}, change{11 * mib, 4096, false})
			if after.FromBase = fromBase; !fromBase {
				after.ranges = [][2]int64{{0, 12 * mib}}
			}
			var told []string
			after.OnChange = func(off, n int64) { told = append(told, fmt.Sprint(off/block, "+", n/block)) }
			next := draft("image-2")
			next.BaseRef = ref
			w := must(s.Begin(t.Context(), next))(t)
			if got := w.BlockSize(2000, 12*mib); got != block {
				t.Errorf("BlockSize() = %d, want %d", got, block)
			}
			for _, at := range []int64{0, 512, mib - 1, 9*mib - 4096, 11 * mib} {
				got, want := make([]byte, 300*kib), make([]byte, 300*kib)
				copy(want, first.bytes[min(at, 9*mib):])
				if err := w.ReadBase(t.Context(), 2000, got, at); err != nil || !bytes.Equal(got, want) {
					t.Errorf("ReadBase() at %d gives other bytes (%v)", at, err)
				}
			}
			if err := w.ReadBase(t.Context(), 2001, make([]byte, 1), 0); backup.CodeOf(err) != backup.Conflict {
				t.Errorf("ReadBase() of a disk that is not in the base: %v, want a conflict", err)
			}
			dw := must(w.Disk(t.Context(), after.DiskDraft))(t)
			must(0, after.send(dw, 256*kib))(t)
			must(dw.Close(t.Context()))(t)
			if got, want := fmt.Sprint(told), "[4+1 31+1 32+1 44+1]"; got != want {
				t.Errorf("told of %s as changed, want %s (block+count)", got, want)
			}
			at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
			said := backup.ImageDisk{Key: 2000, ChangeDetection: backup.DetectCBT, FullCompareAt: at, TrackingDoubt: backup.DoubtLie, File: "[ds] a.vmdk"}
			m := must(w.Commit(t.Context(), backup.Manifest{Image: backup.Image{Disks: []backup.ImageDisk{said}}}))(t)
			kept := must(s.Image(t.Context(), m.Ref))(t).Manifest().Image.Disks[0]
			if kept.ChangeDetection != said.ChangeDetection || !kept.FullCompareAt.Equal(at) || kept.TrackingDoubt != said.TrackingDoubt || kept.File != said.File {
				t.Errorf("the image says %+v of its disk, want %+v", kept, said)
			}
		})
	}
}
