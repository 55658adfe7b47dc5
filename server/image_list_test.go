package server_test

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// The images of a shelf: so many of each VM, so many schedules and so many
// applications that label them.
const (
	shelfDays, shelfSchedules, shelfApps = 20, 50, 200
)

// shelf is a server whose catalogue is full of images.
type shelf struct {
	*testing.T
	database string
	images   int
	vms      int
	api      *api.ClientWithResponses
}

// TestImageListFigures measures lists of images through the API. Here there are
// few, so that the measuring itself is tested; "make prove-repository" measures
// with 100,000 (KURA_PROVE_IMAGES) and writes the figures to the file
// KURA_BENCH_OUT, with ".lists" behind its name.
func TestImageListFigures(t *testing.T) {
	t.Parallel()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("KURA_PROVE_IMAGES"), "400"))
	if err != nil || n < 200 {
		t.Fatalf("KURA_PROVE_IMAGES = %q, want a number of at least 200", os.Getenv("KURA_PROVE_IMAGES"))
	}
	all := map[string]map[string]quantiles{}
	for _, database := range []string{"sqlite", "postgres"} {
		s := newShelf(t, database, n)
		all[database] = s.lists()
		for name, q := range all[database] {
			t.Logf("%-9s %6d images, %-34s p50 / p99 %s ms", database, n, name, q)
		}
	}
	if path := os.Getenv("KURA_BENCH_OUT"); path != "" {
		text, err := json.MarshalIndent(map[string]any{"images": n, "lists": all}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".lists", append(text, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func newShelf(t *testing.T, database string, images int) *shelf {
	t.Helper()
	dir := t.TempDir()
	key := []byte(strings.Repeat("k", 32))
	keyFile := filepath.Join(dir, "key")
	if err := os.WriteFile(keyFile, []byte(hex.EncodeToString(key)), 0o600); err != nil {
		t.Fatal(err)
	}
	dsn := "sqlite:" + filepath.Join(dir, "kura.db")
	if database == "postgres" {
		dsn = pgtest.Database(t)
	}
	db, err := store.Open(t.Context(), store.Config{DSN: dsn, Key: key, Migrate: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{T: t, database: database, images: images, vms: images / shelfDays}
	for done := 0; done < images; {
		if err := db.Update(t.Context(), func(tx backup.Tx) error { return s.fill(t.Context(), tx, &done) }); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	srv := start(t, server.Config{Data: dir, KeyFile: keyFile, Database: dsn})
	s.api = client(t, srv.URL(), srv.OperatorTokenFile())
	return s
}

// fill stores some more images, day by day one of each VM.
func (s *shelf) fill(ctx context.Context, tx backup.Tx, done *int) error {
	from := *done // an update may be tried again
	upTo := min(from+2000, s.images)
	for i := from; i < upTo; i++ {
		day, vm := i/s.vms, i%s.vms
		at := time.Now().Add(time.Duration(i-s.images) * time.Minute)
		image := backup.Image{
			ID: backup.NewID(at), VMID: fmt.Sprint("vm-", vm), VMName: fmt.Sprintf("vm-%05d.example", vm), VMMOID: fmt.Sprint("vm-", vm),
			VCenterID: "vcenter", RepositoryID: "repository", ScheduleID: fmt.Sprint("schedule-", vm%shelfSchedules), GroupID: fmt.Sprint("group-", vm%10),
			RunID: fmt.Sprintf("run-%d-%d", day, vm%shelfSchedules), JobID: fmt.Sprint("job-", i),
			StartedAt: at, EndedAt: at.Add(time.Minute), PointInTime: at, ExpiresAt: at.AddDate(0, 3, 0), Status: backup.ImageGood,
			Disks:  []backup.ImageDisk{{Key: 2000, Label: "Hard disk 1", Capacity: 64 << 30, Read: 1 << 30, Stored: 1 << 29}, {Key: 2001, Label: "Hard disk 2", Capacity: 512 << 30}},
			Labels: map[string]string{"app": fmt.Sprint("app-", vm%shelfApps), "env": []string{"prod", "test"}[vm%2], "owner": fmt.Sprint("team-", vm%30)},
		}
		if err := tx.InsertImage(ctx, image); err != nil {
			return err
		}
	}
	*done = upTo
	return nil
}

// lists measures each kind of list: pages of as many as a client gets that
// does not say how many.
func (s *shelf) lists() map[string]quantiles {
	calls := min(200, s.images/10)
	out := map[string]quantiles{}
	first := func(name string, params func(i int) api.ListBackupImagesParams, least int) {
		out[name] = s.timed(calls, func(i int) {
			if n := len(s.page(params(i)).Items); n < least {
				s.Errorf("%s has %d images on %s, want at least %d", name, n, s.database, least)
			}
		})
	}
	first("unfiltered", func(int) api.ListBackupImagesParams { return api.ListBackupImagesParams{} }, 100)
	first("by VM", func(i int) api.ListBackupImagesParams {
		return api.ListBackupImagesParams{VirtualMachineID: fmt.Sprint("vm-", i*7%s.vms)}
	}, shelfDays)
	first("by schedule", func(i int) api.ListBackupImagesParams {
		return api.ListBackupImagesParams{ScheduleID: fmt.Sprint("schedule-", i%min(shelfSchedules, s.vms))}
	}, 1)
	first("by label, one in 200", func(i int) api.ListBackupImagesParams {
		return api.ListBackupImagesParams{Label: []string{fmt.Sprint("app=app-", i%min(shelfApps, s.vms))}}
	}, 1)
	first("by label, one in two", func(int) api.ListBackupImagesParams { return api.ListBackupImagesParams{Label: []string{"env=prod"}} }, 100)
	first("by two labels", func(i int) api.ListBackupImagesParams {
		return api.ListBackupImagesParams{Label: []string{"env=prod", fmt.Sprint("owner=team-", 2*i%min(30, s.vms))}}
	}, 1)
	first("by group and dates", func(i int) api.ListBackupImagesParams {
		now := time.Now()
		return api.ListBackupImagesParams{GroupID: fmt.Sprint("group-", i%10), CreatedAfter: now.Add(-time.Duration(s.images*3/4) * time.Minute), CreatedBefore: now.Add(-time.Duration(s.images/2) * time.Minute)}
	}, 1)
	out["unfiltered, all pages to the end"] = s.walk(api.ListBackupImagesParams{}, s.images)
	out["by schedule, all pages to the end"] = s.walk(api.ListBackupImagesParams{ScheduleID: "schedule-0"}, (s.vms+shelfSchedules-1)/shelfSchedules*shelfDays)
	out["by label, all pages to the end"] = s.walk(api.ListBackupImagesParams{Label: []string{"env=prod"}}, (s.vms+1)/2*shelfDays)
	return out
}

func (s *shelf) page(p api.ListBackupImagesParams) api.BackupImageList {
	s.Helper()
	r, err := s.api.ListBackupImagesWithResponse(s.Context(), &p)
	if err := api.Err(r, err); err != nil {
		s.Fatal(err)
	}
	return *r.JSON200
}

func (s *shelf) timed(n int, call func(i int)) quantiles {
	var took []time.Duration
	for i := range n {
		begun := time.Now()
		call(i)
		took = append(took, time.Since(begun))
	}
	return quantilesOf(took)
}

// walk reads all pages and checks that there is each image, once.
func (s *shelf) walk(p api.ListBackupImagesParams, want int) quantiles {
	s.Helper()
	seen := map[string]bool{}
	var took []time.Duration
	for {
		begun := time.Now()
		l := s.page(p)
		took = append(took, time.Since(begun))
		for _, i := range l.Items {
			seen[i.ID] = true
		}
		if p.Cursor = l.NextCursor; p.Cursor == "" {
			break
		}
	}
	if len(seen) != want {
		s.Errorf("a walk over all pages on %s saw %d images, want %d", s.database, len(seen), want)
	}
	return quantilesOf(took)
}
