package server_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// crowded makes a repository with that many images of an installation that is gone.
func crowded(t *testing.T, images int) backup.RepositoryRecord {
	t.Helper()
	ctx := t.Context()
	rec := backup.RepositoryRecord{Name: "full", Kind: "filesystem", Settings: map[string]string{"path": filepath.Join(t.TempDir(), "full")}, Password: backup.NewPassword()}
	rec.ID = "full"
	rs := repository.New(repository.Config{Installation: "gone", Dir: t.TempDir()})
	_, err := rs.Create(ctx, rec)
	must(t, err)
	r, err := rs.Repository(ctx, rec)
	must(t, err)
	var g errgroup.Group
	g.SetLimit(16)
	for n := range images {
		g.Go(func() error { return smallImage(ctx, r, n) })
	}
	must(t, g.Wait())
	must(t, rs.Close(ctx))
	return rec
}

func smallImage(ctx context.Context, r backup.Repository, n int) error {
	at := time.Date(2026, 1, 1, 0, n, 0, 0, time.UTC)
	vm := n / 20
	w, err := r.Begin(ctx, backup.ImageDraft{ImageID: fmt.Sprintf("01J%023d", n), VCenterUUID: "vcenter", InstanceUUID: fmt.Sprint("vm-", vm), VMName: fmt.Sprintf("vm%04d", vm), PointInTime: at})
	if err != nil {
		return err
	}
	d, err := w.Disk(ctx, backup.DiskDraft{Key: 2000, Label: "Hard disk 1", Capacity: 1 << 20, ChangeID: "52 de c0 d9/1"})
	if err == nil {
		_, err = d.Close(ctx)
	}
	if err != nil {
		return err
	}
	_, err = w.Commit(ctx, backup.Manifest{Machine: []byte(`{"config":"` + strings.Repeat("x", 8<<10) + `"}`), Image: backup.Image{
		Status: backup.ImageGood, StartedAt: at, EndedAt: at.Add(time.Minute), PointInTime: at, ExpiresAt: at.AddDate(1, 0, 0), Labels: map[string]string{"tier": "gold"}}})
	return err
}

// peak watches how much memory is in use until it is asked.
func peak() func() uint64 {
	runtime.GC()
	var most atomic.Uint64
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for t := time.NewTicker(20 * time.Millisecond); ; {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapInuse))
			select {
			case <-end:
				return
			case <-t.C:
			}
		}
	}()
	return func() uint64 { close(end); <-done; return most.Load() }
}

// TestARebuildListsAsManyImagesAsThereAre with few images; KURA_REBUILD_IMAGES
// has it done with more, for the figures in docs/dev/disaster.md.
func TestARebuildListsAsManyImagesAsThereAre(t *testing.T) {
	t.Parallel()
	images, err := strconv.Atoi(cmp.Or(os.Getenv("KURA_REBUILD_IMAGES"), "60"))
	must(t, err)
	rec := crowded(t, images)
	w := &world{T: t, ctx: t.Context()}
	defer w.serve(server.Config{Data: t.TempDir()})()
	made, err := w.api.CreateRepositoryWithResponse(w.ctx, nil, api.Repository{Name: "found", Kind: rec.Kind, Settings: rec.Settings, Password: rec.Password.Reveal(), ReadOnly: true})
	w.ok(made, err)
	memory, began := peak(), time.Now()
	j, err := w.api.RebuildCatalogueWithResponse(w.ctx, made.JSON201.ID, nil)
	w.ok(j, err)
	job := w.jobDone(j.JSON202.ID)
	took := time.Since(began)
	if job.State != api.JobStateSucceeded || !strings.Contains(strings.Join(job.Messages, " "), fmt.Sprintf("%d images are listed now", images)) {
		t.Errorf("the rebuild ended %s: %q", job.State, job.Messages)
	}
	t.Logf("%d images were listed in %s, with %d MiB of memory at most", images, took.Round(10*time.Millisecond), memory()>>20)
	listed := 0
	for cursor := ""; ; {
		l, err := w.api.ListBackupImagesWithResponse(w.ctx, &api.ListBackupImagesParams{Limit: 1000, Cursor: cursor})
		w.ok(l, err)
		listed += len(l.JSON200.Items)
		if cursor = l.JSON200.NextCursor; cursor == "" {
			break
		}
	}
	if listed != images {
		t.Errorf("%d images are listed, want %d", listed, images)
	}
}
