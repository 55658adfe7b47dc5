package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

type clockTime = time.Time

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// clock is the time of one house: its store's, its worker's and its vcenter's.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// house is a worker on a real database between a vcenter and a repository in
// memory. Time passes only when a test says so.
type house struct {
	*testing.T
	ctx        context.Context
	clock      *clock
	db         *store.DB
	store      *faultyStore
	planner    *backup.Planner
	vsphere    *fakeVSphere
	repository *fakeRepository
	config     worker.Config

	vcenter backup.VCenter
	record  backup.RepositoryRecord
	vm      backup.VirtualMachine
}

const installation = "INSTALLATION"

// newHouse has one VM, "web", with two disks of 64 KiB. Nothing runs yet.
func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{T: t, ctx: t.Context(), clock: &clock{now: start}}
	h.vsphere = &fakeVSphere{uuid: "vcenter-uuid", now: h.clock.Now, vms: map[string]*fakeVM{}}
	h.repository = &fakeRepository{}
	h.open(filepath.Join(t.TempDir(), "kura.db"))
	h.vcenter = h.addVCenter("a")
	h.record = backup.RepositoryRecord{Name: "default", Kind: "filesystem", Password: "secret", Default: true}
	h.update(func(tx backup.Tx) error { return tx.InsertRepository(h.ctx, &h.record) })
	h.vm = h.addVM("web", 64<<10, 64<<10)
	h.config = worker.Config{Store: h.store, Planner: h.planner, VSphere: h.vsphere, Repositories: h.repository, Log: slog.New(slog.DiscardHandler),
		Installation: installation, Owner: "server-1", Now: h.clock.Now, Slots: 4,
		// By the house's clock it ends only when a test lets time pass; beats come in real time.
		Lease: time.Second, Poll: 5 * time.Millisecond, Dispatch: time.Hour, Sync: time.Hour, Sweep: time.Hour, Backoff: 15 * time.Second}
	return h
}

func (h *house) open(path string) {
	h.Helper()
	db, err := store.Open(h.ctx, store.Config{DSN: "sqlite:" + path, Key: bytes.Repeat([]byte{7}, 32), Now: h.clock.Now, Migrate: true})
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		if err := db.Close(); err != nil {
			h.Error(err)
		}
	})
	h.db, h.store, h.planner = db, &faultyStore{DB: db}, &backup.Planner{Store: db}
}

// addVCenter stores a vcenter whose inventory has just been read.
func (h *house) addVCenter(name string) backup.VCenter {
	h.Helper()
	v := backup.VCenter{Name: name, Endpoint: "https://" + name, Username: "kura", Password: "p", InstanceUUID: h.vsphere.uuid}.Defaulted()
	v.SyncState, v.SyncedAt = backup.SyncReady, h.clock.Now()
	h.update(func(tx backup.Tx) error {
		if err := tx.InsertVCenter(h.ctx, &v); err != nil {
			return err
		}
		return tx.SaveSync(h.ctx, v)
	})
	return v
}

// addVM makes a VM with random disks of these sizes and puts it into the inventory.
func (h *house) addVM(name string, sizes ...int64) backup.VirtualMachine {
	h.Helper()
	moid := "moid-" + name
	vm := &fakeVM{disks: map[int32][]byte{}, snapshots: map[string]map[int32][]byte{}}
	vm.VirtualMachine = backup.VirtualMachine{VCenterID: h.vcenter.ID, InstanceUUID: "uuid-" + name, MOID: moid, Name: name, PowerState: backup.PoweredOn, MemoryMiB: 1}
	vm.Config, vm.NVRAM = []byte(`{"cpus":2}`), []byte("nvram of "+name)
	random := rand.NewChaCha8([32]byte{byte(len(name))})
	for i, size := range sizes {
		key := int32(2000 + i)
		vm.VirtualMachine.Disks = append(vm.VirtualMachine.Disks, backup.VMDisk{Key: key, Label: fmt.Sprint("Hard disk ", i+1), Capacity: size, File: fmt.Sprintf("[ds1] %s/%d.vmdk", name, i)})
		vm.disks[key] = make([]byte, size)
		_, _ = random.Read(vm.disks[key]) // never fails
	}
	stored := []backup.VirtualMachine{vm.VirtualMachine}
	h.update(func(tx backup.Tx) error { return tx.SaveMachines(h.ctx, stored) })
	h.vsphere.vmsMu.Lock()
	defer h.vsphere.vmsMu.Unlock()
	h.vsphere.vms[moid] = vm
	return stored[0]
}

// content copies a VM's disks as they are now.
func (h *house) content(moid string) map[int32][]byte {
	out := map[int32][]byte{}
	h.vsphere.with(moid, func(vm *fakeVM) {
		for k, b := range vm.disks {
			out[k] = bytes.Clone(b)
		}
	})
	return out
}

// start runs a worker until the test ends or stop is called. stop waits for it.
func (h *house) start(change ...func(*worker.Config)) (stop func()) {
	h.Helper()
	c := h.config
	for _, f := range change {
		f(&c)
	}
	w := worker.New(c)
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	stop = func() { cancel(); h.wait("the worker's end", done) }
	h.Cleanup(stop)
	return stop
}

// swept waits for the first sweep, so that the calls that follow are a job's.
func (h *house) swept() {
	h.Helper()
	h.until("the first sweep and measurement", func() bool { return len(h.vsphere.called("Sweep")) > 0 && len(h.repository.called("Space")) > 0 })
}

const patience = 2 * time.Minute

// wait waits for a channel to be closed.
func (h *house) wait(what string, c <-chan struct{}) {
	h.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		h.Fatalf("waited %s in vain for %s", patience, what)
	}
}

// until waits for a condition that nobody tells about.
func (h *house) until(what string, ok func() bool) {
	h.Helper()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-deadline:
			h.Fatalf("waited %s in vain for %s", patience, what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// ended waits for a job's end and returns it.
func (h *house) ended(id string) backup.Job {
	h.Helper()
	h.until("the job's end", func() bool { return h.job(id).State.Final() })
	return h.job(id)
}

// retried waits for a job's end. Time passes while the job waits for its next
// try, and only then: else the lease of a try could run out.
func (h *house) retried(id string) backup.Job {
	h.Helper()
	h.until("the job's end after its tries", func() bool {
		j := h.job(id)
		if j.State == backup.JobQueued && j.Due.After(h.clock.Now()) {
			h.clock.pass(j.Due.Sub(h.clock.Now()))
		}
		return j.State.Final()
	})
	return h.job(id)
}

// waiting waits until a job's n-th try has failed and it waits for the next.
func (h *house) waiting(id string, failures int) backup.Job {
	h.Helper()
	h.until("a failed try", func() bool {
		j := h.job(id)
		if j.State.Final() {
			h.Fatalf("the job ended %s: %s", j.State, j.Error)
		}
		return j.State == backup.JobQueued && j.Failures == failures
	})
	return h.job(id)
}

func (h *house) update(fn func(backup.Tx) error) {
	h.Helper()
	if err := h.db.Update(h.ctx, fn); err != nil {
		h.Fatal(err)
	}
}

func read[T any](h *house, get func(tx backup.Tx) (T, error)) (out T) {
	h.Helper()
	err := h.db.View(h.ctx, func(tx backup.Tx) (err error) {
		out, err = get(tx)
		return err
	})
	if err != nil {
		h.Fatal(err)
	}
	return out
}

func (h *house) job(id string) backup.Job {
	h.Helper()
	return read(h, func(tx backup.Tx) (backup.Job, error) { return tx.Job(h.ctx, id) })
}

func (h *house) images() []backup.Image {
	h.Helper()
	return read(h, func(tx backup.Tx) ([]backup.Image, error) {
		all, _, err := tx.Images(h.ctx, backup.ImageFilter{Page: backup.Page{Limit: 1000}})
		return all, err
	})
}

// kept lists what the repository holds.
func (h *house) kept() []backup.Manifest {
	all, _ := h.repository.Images(h.ctx) // never fails
	return all
}

// ask makes a backup job of the VM, with the spec changed as said.
func (h *house) ask(vm backup.VirtualMachine, change ...func(*backup.Schedule)) string {
	h.Helper()
	s := backup.Schedule{Name: backup.NewID(h.clock.Now()), Enabled: true, VMID: vm.ID, RetentionDays: 7, LatestHour: 23,
		Recurrence: backup.Recurrence{Kind: backup.Daily, TimeZone: "UTC", Hour: 3}}
	for _, f := range change {
		f(&s)
	}
	s, err := h.planner.CreateSchedule(h.ctx, s)
	if err != nil {
		h.Fatal(err)
	}
	run, err := h.planner.RunSchedule(h.ctx, s.ID)
	if err != nil {
		h.Fatal(err)
	}
	return run.Jobs[0].ID
}

// marker is the name of the snapshot of a job's attempt.
func marker(job string, attempt int) string {
	return fmt.Sprintf("kura:%s:%s:%d", installation, job, attempt)
}

// faultyStore is the store, with calls that fail or hang when told so.
type faultyStore struct {
	*store.DB
	points
}

func (s *faultyStore) Finish(ctx context.Context, l backup.Lease, e backup.Ending, also func(backup.Tx) error) error {
	if err := s.pass(ctx, "Finish/"+l.JobID, string(e.State)); err != nil {
		return err
	}
	return s.DB.Finish(ctx, l, e, also)
}

func (s *faultyStore) Renew(ctx context.Context, l backup.Lease, d time.Duration) (bool, error) {
	if err := s.pass(ctx, "Renew", l.JobID); err != nil {
		return false, err
	}
	return s.DB.Renew(ctx, l, d)
}

func (s *faultyStore) Save(ctx context.Context, l backup.Lease, p backup.Progress) error {
	point := "Save"
	if p.Checkpoint != nil {
		point = "Note"
	}
	if err := s.pass(ctx, point, p.Step); err != nil {
		return err
	}
	return s.DB.Save(ctx, l, p)
}

var errDown = errors.New("the database is down")
