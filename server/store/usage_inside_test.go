package store

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// many is the beginning of a statement that selects from the numbers 1 to n.
const many = `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) `

func usageDB(t testing.TB, dsn string) *DB {
	t.Helper()
	now := func() time.Time { return time.Date(2027, 4, 15, 12, 0, 0, 0, time.UTC) }
	db, err := Open(t.Context(), Config{DSN: dsn, Key: bytes.Repeat([]byte{1}, 32), Migrate: true, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestImagesOfBeforeTheAccountOfUsageAreInIt(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "kura.db") },
		"postgres": func(t *testing.T) string { return pgtest.Database(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := usageDB(t, dsn(t))
			m, err := db.migrator()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.DownTo(t.Context(), 4); err != nil {
				t.Fatal(err)
			}
			started := time.Date(2027, 4, 1, 0, 10, 0, 0, time.UTC)
			for id, ends := range map[string]int64{"a day": started.AddDate(0, 0, 1).UnixMilli(), "for ever": 0} {
				if _, err := db.write.ExecContext(t.Context(), `INSERT INTO image (id, project, vcenter_id, vm_id, vm_name, vm_moid, vm_instance_uuid, schedule_id, group_id, run_id, job_id, repository_id,
					started_at, ended_at, point_in_time, expires_at, locked_until, status, consistency, change_detection, message, disks, provisioned, bytes_read, bytes_stored, verified_at, full_compare_at, labels, ref)
					VALUES ($1, 'default', 'v', 'm', 'n', '', '', 's', 'g', '', '', 'r', $2, 0, 0, $3, 0, 'good', '', '', '', '[]', 4, 2, 1, 0, 0, 'null', '')`, id, started.UnixMilli(), ends); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := m.Up(t.Context()); err != nil {
				t.Fatal(err)
			}
			hours := map[string]int64{}
			from := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
			err = db.View(t.Context(), func(tx backup.Tx) error {
				return tx.EachUsage(t.Context(), from, from.AddDate(0, 2, 0), func(e backup.UsageEntry) error {
					if e.VMID != "m" || e.ScheduleID != "s" || e.Sizes != (backup.Sizes{Provisioned: 4, Read: 2, Stored: 1}) {
						t.Errorf("account of image %q: %+v", e.ImageID, e)
					}
					hours[e.ImageID] = e.Hours(from, from.AddDate(0, 2, 0))
					return nil
				})
			})
			if err != nil || hours["a day"] != 25 || hours["for ever"] != 30*24 {
				t.Errorf("hours = %v (%v), want 25 and those of April", hours, err)
			}
		})
	}
}

// BenchmarkUsageOfAMonth tells the usage of a month with 100,000 images of
// 5,000 VMs in it.
func BenchmarkUsageOfAMonth(b *testing.B) {
	for name, by := range map[string]backup.UsageBy{"vm": backup.UsageByVM, "day": backup.UsageByDay} {
		b.Run(name, func(b *testing.B) {
			db := usageDB(b, "sqlite:"+filepath.Join(b.TempDir(), "kura.db"))
			first := time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
			if _, err := db.write.ExecContext(b.Context(), "INSERT INTO usage "+many+`SELECT 'i' || i, 'default', 'm' || (i % 5000), 'n' || (i % 5000), 's', 'g', 'r', 1099511627776, 1000, 1000,
				$1 + (i % 300 - 100) * 3600000, $1 + (i % 300 + 68) * 3600000, 'null' FROM n`, first); err != nil {
				b.Fatal(err)
			}
			p := backup.Planner{Store: db}
			b.ReportAllocs()
			for b.Loop() {
				r, err := p.Usage(context.Background(), backup.UsageQuery{By: by})
				if err != nil || r.Total.Images < 50000 {
					b.Fatalf("%d images, %v", r.Total.Images, err)
				}
			}
		})
	}
}
