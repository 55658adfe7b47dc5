package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// eachBench runs the benchmark on both databases.
func eachBench(b *testing.B, bench func(b *testing.B, db *store.DB)) {
	b.Run("sqlite", func(b *testing.B) {
		bench(b, (place{dsn: "sqlite:" + filepath.Join(b.TempDir(), "kura.db")}).open(b, nil))
	})
	b.Run("postgres", func(b *testing.B) {
		bench(b, (place{dsn: pgtest.Database(b), postgres: true}).open(b, nil))
	})
}

// queue stores n jobs that are due, with the keys that a backup has.
func queue(b *testing.B, db *store.DB, n, limit int) {
	b.Helper()
	all := make([]backup.Job, n)
	for i := range all {
		all[i] = job(fmt.Sprintf("j%07d", i), time.Now().Add(-time.Hour))
		all[i].RunID, all[i].Needs = fmt.Sprint("r", i/100), []string{"vcenter:v", "repository:r"}
		all[i].Keys = []backup.JobKey{{Name: fmt.Sprint("vm:", i), Weight: 1, Max: 1}, {Name: "vcenter:v", Weight: 1, Max: limit}, {Name: fmt.Sprint("host:", i%20), Weight: 1, Max: limit}, {Name: fmt.Sprint("datastore:", i%8), Weight: 1, Max: limit}}
	}
	update(b, db, func(ctx context.Context, tx backup.Tx) error {
		_, err := tx.InsertRun(ctx, backup.Run{ID: "r0", State: backup.RunQueued}, all)
		return err
	})
}

// BenchmarkClaimAndFinish is one job through the queue, four at a time.
func BenchmarkClaimAndFinish(b *testing.B) {
	eachBench(b, func(b *testing.B, db *store.DB) {
		queue(b, db, b.N, 1000)
		reach := []string{"vcenter:v", "repository:r"}
		b.SetParallelism(2)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				j, err := db.Claim(b.Context(), backup.Claim{Owner: "a", Lease: time.Minute, Reach: reach})
				if err != nil || j == nil {
					b.Errorf("Claim = %v, %v, want a job", j, err)
					return
				}
				if err := db.Finish(b.Context(), lease(j), backup.Ending{State: backup.JobSucceeded}, nil); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkClaimNothing asks while 10,000 jobs are due and a limit holds them all back.
func BenchmarkClaimNothing(b *testing.B) {
	eachBench(b, func(b *testing.B, db *store.DB) {
		queue(b, db, 10000, 1)
		if claim(b, db, backup.Claim{Lease: time.Hour}) == nil {
			b.Fatal("no job was claimed")
		}
		for b.Loop() {
			if j := claim(b, db, backup.Claim{}); j != nil {
				b.Fatalf("claimed %s past the limit", j.ID)
			}
		}
	})
}

// BenchmarkRenew is what each running job costs every few seconds.
func BenchmarkRenew(b *testing.B) {
	eachBench(b, func(b *testing.B, db *store.DB) {
		queue(b, db, 1, 1)
		j := claim(b, db, backup.Claim{})
		for b.Loop() {
			if _, err := db.Renew(b.Context(), lease(j), time.Minute); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkUpdate is a small change of what is wanted, many clients at once.
func BenchmarkUpdate(b *testing.B) {
	eachBench(b, func(b *testing.B, db *store.DB) {
		var n atomic.Int64
		b.SetParallelism(4)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				name := fmt.Sprint("g", n.Add(1))
				err := db.Update(b.Context(), func(tx backup.Tx) error { return tx.InsertGroup(b.Context(), &backup.Group{Name: name}) })
				if err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkListImages reads a page of a VM's images out of 100,000.
func BenchmarkListImages(b *testing.B) {
	eachBench(b, func(b *testing.B, db *store.DB) {
		update(b, db, func(ctx context.Context, tx backup.Tx) error {
			for i := range 100_000 {
				image := backup.Image{ID: backup.NewID(tx.Now()), VMID: fmt.Sprint("m", i%500), RepositoryID: "r", Status: backup.ImageGood, PointInTime: tx.Now().Add(time.Duration(i) * time.Second)}
				if err := tx.InsertImage(ctx, image); err != nil {
					return err
				}
			}
			return nil
		})
		for b.Loop() {
			view(b, db, func(ctx context.Context, tx backup.Tx) error {
				all, _, err := tx.Images(ctx, backup.ImageFilter{VMID: "m7"})
				if len(all) != 100 {
					b.Fatalf("%d images, want 100", len(all))
				}
				return err
			})
		}
	})
}

// BenchmarkSaveMachines is the inventory of 10,000 VMs that are known already.
func BenchmarkSaveMachines(b *testing.B) {
	eachBench(b, func(b *testing.B, db *store.DB) {
		v := backup.VCenter{Name: "v"}
		update(b, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertVCenter(ctx, &v) })
		vms := make([]backup.VirtualMachine, 10_000)
		for i := range vms {
			vms[i] = backup.VirtualMachine{VCenterID: v.ID, InstanceUUID: fmt.Sprint(i), MOID: fmt.Sprint("vm-", i), Name: fmt.Sprint("vm", i), Disks: []backup.VMDisk{{Key: 2000, Label: "Hard disk 1"}}}
		}
		for b.Loop() {
			update(b, db, func(ctx context.Context, tx backup.Tx) error { return tx.SaveMachines(ctx, vms) })
		}
	})
}
