package repository_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// gauges counts what measurements have left in a folder.
func gauges(t *testing.T, dir string) (n int) {
	t.Helper()
	must(0, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(path, "gauge") {
			n++
		}
		return err
	}))(t)
	return n
}

func TestARepositoryIsMeasuredAndNothingStays(t *testing.T) {
	t.Parallel()
	onEachStorage(t, func(t *testing.T, p peer) {
		s := siteAt(t, p)
		g, err := s.rs.Gauge(t.Context(), s.rec, 4*mib)
		if err != nil || g.Bytes != 4*mib || g.Write <= 0 || g.Read <= 0 {
			t.Fatalf("Gauge() = %+v, %v; want 4 MiB written and read", g, err)
		}
		stored, _, err := s.again().Space(t.Context())
		if err != nil || stored >= 4*mib {
			t.Errorf("%d bytes are stored after it (%v), want nothing of it", stored, err)
		}
		if g, err := s.rs.Gauge(t.Context(), s.rec, 0); err != nil || g.Bytes != 0 {
			t.Errorf("Gauge(0) = %+v, %v; want nothing measured", g, err)
		}
	})
}

func TestARepositoryThatIsAnothersOrAwayIsNotMeasured(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := s.rs.Gauge(t.Context(), s.rec, mib); err != nil || gauges(t, s.dir) != 0 {
		t.Fatalf("Gauge() = %v and leaves %d blobs, want none", err, gauges(t, s.dir))
	}
	other := newRepositories(t, "installation-2")
	if _, err := other.Gauge(t.Context(), s.rec, mib); err == nil || backup.CodeOf(err) == backup.Internal {
		t.Errorf("Gauge() by another installation = %v, want a refusal", err)
	}
	must(0, os.RemoveAll(s.dir))(t)
	if _, err := s.rs.Gauge(t.Context(), s.rec, mib); backup.CodeOf(err) != backup.RepositoryUnreachable {
		t.Errorf("Gauge() of a folder that is gone = %v, want %s", err, backup.RepositoryUnreachable)
	}
}
