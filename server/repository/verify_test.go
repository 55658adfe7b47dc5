package repository_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestAWholeImageIsVerified(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	d := sparse(rng(1), 2000, 5*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	quick := must(s.again().Verify(ctx, ref, backup.Verification{}))(t)
	if quick.Message != "" || quick.Blocks < 5 || quick.Bytes != 0 {
		t.Errorf("Verify() = %+v, want 5 blocks, none missing, none read", quick)
	}
	var told int64
	deep := must(s.again().Verify(ctx, ref, backup.Verification{Read: true, Progress: func(n int64) { told = max(told, n) }}))(t)
	if deep.Message != "" || deep.Bytes < 2*mib || told == 0 {
		t.Errorf("Verify(Read) = %+v, want all used blocks read and told, told %d", deep, told)
	}
	_, err := s.Verify(ctx, "nothing", backup.Verification{})
	wantCode(t, "Verify() of no image", err, backup.NotFound)
}

func TestALostPackIsFoundWithoutReadingIt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ref, _ := take(t, s, draft("image-1"), sparse(rng(1), 2000, 5*mib))
	loseLargest(t, s.dir)
	v := must(s.again().Verify(t.Context(), ref, backup.Verification{}))(t)
	if !slices.Equal(v.Damaged, []int32{2000}) || !strings.Contains(v.Message, "disk-2000.img") {
		t.Errorf("Verify() = %+v, want disk 2000 damaged", v)
	}
}

func TestAPackThatWasCutShortIsFoundWithoutReadingIt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ref, _ := take(t, s, draft("image-1"), sparse(rng(1), 2000, 5*mib))
	must(0, os.Truncate(largest(t, s.dir), mib))(t)
	v := must(s.again().Verify(t.Context(), ref, backup.Verification{}))(t)
	if !slices.Equal(v.Damaged, []int32{2000}) {
		t.Errorf("Verify() = %+v, want disk 2000 damaged", v)
	}
}

func TestAFlippedBitIsFoundByReading(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	ref, _ := take(t, s, draft("image-1"), sparse(rng(1), 2000, 5*mib))
	path := largest(t, s.dir)
	b := must(os.ReadFile(path))(t)
	b[len(b)/2] ^= 1
	must(0, os.WriteFile(path, b, 0o600))(t)
	if v := must(s.again().Verify(ctx, ref, backup.Verification{}))(t); v.Message != "" {
		t.Errorf("Verify() = %+v: it reads no data, so it cannot know", v)
	}
	v := must(s.again().Verify(ctx, ref, backup.Verification{Read: true}))(t)
	if !slices.Equal(v.Damaged, []int32{2000}) {
		t.Errorf("Verify(Read) = %+v, want disk 2000 damaged", v)
	}
}

func TestReadingKeepsToItsRate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ref, _ := take(t, s, draft("image-1"), solid(rng(1), 8))
	began := time.Now()
	v := must(s.Verify(t.Context(), ref, backup.Verification{Read: true, Rate: 8 * mib}))(t)
	if took := time.Since(began); v.Bytes != 8*mib || took < 500*time.Millisecond {
		t.Errorf("read %d bytes in %s, want 8 MiB in nearly a second", v.Bytes, took)
	}
}
