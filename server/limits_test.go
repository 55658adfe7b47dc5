package server_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// occupancy is what runs at the same time, counted by what the VMs are, not by
// what the jobs say that they count against.
type occupancy struct {
	vms map[string]backup.VirtualMachine

	mu      sync.Mutex // guards what follows
	running map[string]int
	most    map[string]int
}

// count adds a job, or takes it off with -1.
func (c *occupancy) count(j *backup.Job, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	vm := c.vms[j.VMID]
	of := map[string]int{}
	if j.Kind == backup.KindRestore {
		of["restores of a pool"] = n
	} else {
		of["jobs of "+vm.Name] = n
		of["disks on "+vm.Host] = n * len(vm.Disks)
		of["jobs on "+vm.Datastores[0]] = n
	}
	of["disks"] = n * len(vm.Disks)
	for what, by := range of {
		c.running[what] += by
		c.most[what] = max(c.most[what], c.running[what])
	}
}

// TestLimitsAreExactAcrossServers has two servers on one PostgreSQL claim as
// much as they get, with backups of each VM twice and restores into one pool.
//
// seed:N77 seed:N57
func TestLimitsAreExactAcrossServers(t *testing.T) {
	ctx := t.Context()
	config := store.Config{DSN: pgtest.Database(t), Key: bytes.Repeat([]byte{7}, 32), Migrate: true}
	var servers []*store.DB
	for range 2 {
		db, err := store.Open(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		servers = append(servers, db)
	}
	limits := backup.Limits{DisksPerHost: 3, Disks: 7, JobsPerDatastore: 2, RestoresPerPool: 1}
	c := &occupancy{vms: map[string]backup.VirtualMachine{}, running: map[string]int{}, most: map[string]int{}}
	jobs := crowdedLimits(t, servers[0], limits, c.vms)
	var done atomic.Int32
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() { claimFor(t, servers[i%2], fmt.Sprint("claimer", i), c, &done, int32(jobs)) })
	}
	wg.Wait()
	for what, n := range c.most {
		limit := 1 // one job per VM, one restore per pool
		switch {
		case what == "disks":
			limit = limits.Disks
		case what[:5] == "disks":
			limit = limits.DisksPerHost
		case what[:7] == "jobs on":
			limit = limits.JobsPerDatastore
		}
		if n > limit {
			t.Errorf("%s: %d ran at once, want at most %d", what, n, limit)
		}
	}
	if c.most["disks"] < limits.Disks-1 || c.most["jobs on ds0"] != limits.JobsPerDatastore || c.most["restores of a pool"] != 1 {
		t.Errorf("at the most there ran %v, want what the limits let run", c.most)
	}
}

// claimFor claims while there is something to be had, and ends its oldest job
// when there is not.
func claimFor(t *testing.T, db *store.DB, owner string, c *occupancy, done *atomic.Int32, all int32) {
	var held []*backup.Job
	for done.Load() < all {
		j, err := db.Claim(t.Context(), backup.Claim{Owner: owner, Lease: time.Minute})
		if err != nil {
			t.Error(err)
			return
		}
		if j != nil {
			c.count(j, 1)
			held = append(held, j)
			continue
		}
		if len(held) == 0 {
			continue
		}
		j, held = held[0], held[1:]
		c.count(j, -1)
		if err := db.Finish(t.Context(), backup.Lease{JobID: j.ID, Owner: owner, Attempt: j.Attempt}, backup.Ending{State: backup.JobSucceeded}, nil); err != nil {
			t.Error(err)
			return
		}
		done.Add(1)
	}
}

// crowdedLimits makes VMs on few hosts and datastores, and jobs of them; it returns how many.
func crowdedLimits(t *testing.T, db *store.DB, limits backup.Limits, vms map[string]backup.VirtualMachine) (jobs int) {
	t.Helper()
	ctx := t.Context()
	p := &backup.Planner{Store: db, Installation: "01JDZK3Q8X4T9V2M6B7N5C1R0A"}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const n = 16
	var all []backup.VirtualMachine
	var repo backup.RepositoryRecord
	must(db.Update(ctx, func(tx backup.Tx) error {
		repo = backup.RepositoryRecord{Name: "default", Kind: "filesystem", Settings: map[string]string{"path": "/srv"}, Password: "p", Default: true}
		if err := tx.InsertRepository(ctx, &repo); err != nil {
			return err
		}
		v := backup.VCenter{Name: "vc", Endpoint: "https://vc", Username: "u", SlotCapacity: 100, Limits: limits}.Defaulted()
		if err := tx.InsertVCenter(ctx, &v); err != nil {
			return err
		}
		all = nil
		for i := range n {
			vm := backup.VirtualMachine{VCenterID: v.ID, InstanceUUID: fmt.Sprint("uuid-", i), MOID: fmt.Sprint("vm-", i), Name: fmt.Sprint("vm", i), Host: fmt.Sprint("esx", i%3), Datastores: []string{fmt.Sprint("ds", i%4)}, SeenAt: tx.Now()}
			for k := range 1 + i%2 {
				vm.Disks = append(vm.Disks, backup.VMDisk{Key: int32(2000 + k), Label: fmt.Sprint("Hard disk ", k+1), Capacity: 1 << 30, File: "[" + vm.Datastores[0] + "] a.vmdk"})
			}
			all = append(all, vm)
		}
		return tx.SaveMachines(ctx, all)
	}))
	for _, vm := range all {
		vms[vm.ID] = vm
		for range 2 {
			_, err := p.BackupVM(ctx, vm.ID, backup.RunOptions{RetentionDays: 1})
			must(err)
			jobs++
		}
	}
	for i := range 3 {
		must(restoreIntoPool(ctx, p, db, all[i], repo.ID))
		jobs++
	}
	return jobs
}

// restoreIntoPool asks for a restore of a VM into the pool.
func restoreIntoPool(ctx context.Context, p *backup.Planner, db *store.DB, vm backup.VirtualMachine, repository string) error {
	image := backup.Image{ID: backup.NewID(time.Now()), Project: backup.DefaultProject, VCenterID: vm.VCenterID, VMID: vm.ID, VMName: vm.Name, RepositoryID: repository, Status: backup.ImageGood, Ref: "r",
		StartedAt: time.Now(), EndedAt: time.Now(), PointInTime: time.Now(), Disks: make([]backup.ImageDisk, len(vm.Disks))}
	for i, d := range vm.Disks {
		image.Disks[i] = backup.ImageDisk{Key: d.Key, Label: d.Label, Capacity: d.Capacity}
	}
	if err := db.Update(ctx, func(tx backup.Tx) error { return tx.InsertImage(ctx, image) }); err != nil {
		return err
	}
	_, err := p.CreateRestore(ctx, backup.Restore{ImageID: image.ID, NewVM: &backup.RestoreNewVM{Name: "again-" + vm.Name, ResourcePool: "/pool"}})
	return err
}
