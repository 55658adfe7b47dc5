package backup_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

// noon is a Monday; every house's clock stands there at first.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// clock is the time of one house.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

func (c *clock) pass(d time.Duration) { c.set(c.Now().Add(d)) }

// house is a planner on a real database, with one vcenter and one repository.
type house struct {
	*testing.T
	ctx   context.Context
	clock *clock
	db    *store.DB
	*backup.Planner
	vcenter    backup.VCenter
	repository backup.RepositoryRecord
}

func newHouse(t *testing.T, capacity int) *house {
	t.Helper()
	h := &house{T: t, ctx: t.Context(), clock: &clock{now: noon}}
	db, err := store.Open(t.Context(), store.Config{DSN: "sqlite:" + filepath.Join(t.TempDir(), "kura.db"), Key: bytes.Repeat([]byte{7}, 32), Now: h.clock.Now, Migrate: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	h.db, h.Planner = db, &backup.Planner{Store: db}
	h.vcenter = h.addVCenter("a", "UTC", capacity)
	h.repository = backup.RepositoryRecord{Name: "default", Kind: "filesystem", Password: "secret", Default: true}
	h.update(func(tx backup.Tx) error { return tx.InsertRepository(h.ctx, &h.repository) })
	return h
}

func (h *house) addVCenter(name, zone string, capacity int) backup.VCenter {
	h.Helper()
	return must(h.CreateVCenter(h.ctx, backup.VCenter{Name: name, Endpoint: "https://" + name + ".example", Username: "kura", Password: "p", TimeZone: zone, SlotCapacity: capacity}))(h.T)
}

// must fails the test when there is an error: must(f())(t).
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
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

// addVMs puts n powered-off VMs into the vcenter's inventory.
func (h *house) addVMs(vcenterID string, n int) []backup.VirtualMachine {
	h.Helper()
	known := len(read(h, func(tx backup.Tx) ([]backup.VirtualMachine, error) {
		all, _, err := tx.Machines(h.ctx, backup.MachineFilter{IncludeGone: true})
		return all, err
	}))
	var vms []backup.VirtualMachine
	for i := range n {
		k := known + i + 1
		vms = append(vms, backup.VirtualMachine{VCenterID: vcenterID, InstanceUUID: fmt.Sprint("uuid-", k), MOID: fmt.Sprint("vm-", k), Name: fmt.Sprintf("vm%02d", k),
			PowerState: backup.PoweredOff, Host: "esx1", Datastores: []string{"ds1"}, Disks: []backup.VMDisk{{Key: 2000, Label: "Hard disk 1", Capacity: 1 << 30}}})
	}
	h.save(vms)
	return vms
}

func (h *house) save(vms []backup.VirtualMachine) {
	h.Helper()
	h.update(func(tx backup.Tx) error { return tx.SaveMachines(h.ctx, vms) })
}

// leave takes VMs out of the inventory.
func (h *house) leave(vms ...backup.VirtualMachine) {
	h.Helper()
	h.update(func(tx backup.Tx) error {
		for _, vm := range vms {
			if err := tx.MarkGone(h.ctx, vm.VCenterID, []string{vm.MOID}, false); err != nil {
				return err
			}
		}
		return nil
	})
}

func ids(vms []backup.VirtualMachine) []string {
	out := make([]string, len(vms))
	for i, vm := range vms {
		out[i] = vm.ID
	}
	slices.Sort(out)
	return out
}

func (h *house) addGroup(name string, vms []backup.VirtualMachine) backup.Group {
	h.Helper()
	return must(h.CreateGroup(h.ctx, backup.Group{Name: name, VirtualMachineIDs: ids(vms)}))(h.T)
}

// nightly is an enabled daily schedule of UTC at that hour, not stored yet.
func nightly(name string, hour int) backup.Schedule {
	return backup.Schedule{Name: name, Enabled: true, RetentionDays: 7, MaxDelayHours: 6, LatestHour: 23,
		Recurrence: backup.Recurrence{Kind: backup.Daily, TimeZone: "UTC", Hour: hour}}
}

func (h *house) add(s backup.Schedule) backup.Schedule {
	h.Helper()
	return must(h.CreateSchedule(h.ctx, s))(h.T)
}

func (h *house) change(s backup.Schedule) backup.Schedule {
	h.Helper()
	return must(h.UpdateSchedule(h.ctx, s))(h.T)
}

// taken recounts, hour by hour, the seats that are booked in the vcenter.
func (h *house) taken(vcenterID string) map[time.Time]int {
	h.Helper()
	used := map[time.Time]int{}
	for _, b := range read(h, func(tx backup.Tx) ([]backup.Booking, error) { return tx.Booked(h.ctx, vcenterID) }) {
		for o := range b.Recurrence.Between(h.clock.Now(), h.clock.Now().AddDate(0, 0, 400)) {
			for d := range b.DurationHours {
				used[o.Start.UTC().Add(time.Duration(d)*time.Hour)] += b.Seats
			}
		}
	}
	return used
}

// tonight is that hour of the coming night.
func tonight(hour int) time.Time { return time.Date(2026, 11, 24, hour, 0, 0, 0, time.UTC) }

func refused(t *testing.T, err error, code backup.Code, field string) *backup.Error {
	t.Helper()
	e := backup.AsError(err)
	if e == nil || e.Code != code || e.Field != field {
		t.Fatalf("got error %v (%+v), want code %s for field %q", err, e, code, field)
	}
	return e
}

// claim takes the next job, as a server would; nil = there is none.
func (h *house) claim() *backup.Job {
	h.Helper()
	return must(h.db.Claim(h.ctx, backup.Claim{Owner: "server", Lease: time.Hour, Kinds: []backup.JobKind{backup.KindBackup, backup.KindFreeze, backup.KindRestore, backup.KindDelete}}))(h.T)
}

func (h *house) finish(j *backup.Job, e backup.Ending) {
	h.Helper()
	if err := h.db.Finish(h.ctx, backup.Lease{JobID: j.ID, Owner: "server", Attempt: j.Attempt}, e, nil); err != nil {
		h.Fatal(err)
	}
}

// addImage puts an image of the VM into the catalogue.
func (h *house) addImage(vm backup.VirtualMachine, scheduleID string) backup.Image {
	h.Helper()
	i := backup.Image{ID: backup.NewID(h.clock.Now()), VCenterID: vm.VCenterID, VMID: vm.ID, VMName: vm.Name, VMInstanceUUID: vm.InstanceUUID, ScheduleID: scheduleID,
		RepositoryID: h.repository.ID, Status: backup.ImageGood, StartedAt: h.clock.Now(), PointInTime: h.clock.Now(), Ref: "ref"}
	h.update(func(tx backup.Tx) error { return tx.InsertImage(h.ctx, i) })
	return i
}

func (h *house) images() []backup.Image {
	h.Helper()
	return read(h, func(tx backup.Tx) ([]backup.Image, error) {
		all, _, err := tx.Images(h.ctx, backup.ImageFilter{Page: backup.Page{Limit: 1000}})
		return all, err
	})
}

// runs are the schedule's runs with their jobs, oldest slot first.
func (h *house) runs(scheduleID string) []backup.Run {
	h.Helper()
	return read(h, func(tx backup.Tx) ([]backup.Run, error) {
		all, _, err := tx.Runs(h.ctx, backup.RunFilter{ScheduleID: scheduleID, Page: backup.Page{Limit: 1000}})
		var full []backup.Run
		for i := len(all) - 1; i >= 0 && err == nil; i-- {
			var r backup.Run
			r, err = tx.Run(h.ctx, all[i].ID)
			full = append(full, r)
		}
		slices.SortStableFunc(full, func(a, b backup.Run) int { return a.Slot.Compare(b.Slot) })
		return full, err
	})
}
