//go:build failpoints

package repository_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// A storage that leaves index blobs out of its lists hides images, and packs
// look as if nobody needed them.
func TestACollectionRemovesNothingThatAListHides(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	refused := 0
	listed := func(context.Context) ([]string, error) { return []string{w.ref1, w.ref2}, nil }
	for after := range 24 {
		p := w.admit(t, filepath.Join(t.TempDir(), "repository"))
		p.ctx = t.Context()
		p.r = must(p.rs.Repository(p.ctx, p.rec))(t)
		p.faults.Arm(repository.Fault{Kind: repository.FaultHide, Of: "x", After: after})
		for range 3 {
			if _, err := repository.CollectAtOnce(p.ctx, p.r, backup.Collection{Listed: listed}); backup.CodeOf(err) == backup.Unavailable {
				refused++
			}
		}
		p.faults.Clear()
		if wrong := p.after(); wrong != "" {
			t.Errorf("after %d: %s", after, wrong)
		}
		must(0, p.rs.Close(t.Context()))(t)
	}
	if refused == 0 {
		t.Error("no collection was refused")
	}
}
