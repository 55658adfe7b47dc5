package server_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// checkedWorld is a world whose checker knows it.
type checkedWorld struct {
	*world
	checker *checker
	conf    server.Config
	stop    func()
}

func newCheckedWorld(t *testing.T) *checkedWorld {
	t.Helper()
	l := newLab(t, lab.Config{VMs: 2, DiskSize: 4 << 20, KeepSums: true})
	conf := server.Config{Data: t.TempDir()}
	w := &checkedWorld{world: &world{T: t, ctx: t.Context(), lab: l}, conf: conf, checker: newChecker(t, l, checked{
		Database: "sqlite:" + filepath.Join(conf.Data, "kura.db"), KeyFile: filepath.Join(conf.Data, "kura.key"), Grace: 300 * time.Millisecond,
	})}
	w.serve(server.RoleAll)
	return w
}

// serve runs a server until stop is called or the test ends.
func (w *checkedWorld) serve(role server.Role) {
	w.Helper()
	conf := quick(w.conf)
	conf.Role = role
	s, err := server.New(w.ctx, conf)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.Errorf("run the server: %v", err)
		}
		if err := s.Close(); err != nil {
			w.Errorf("close the server: %v", err)
		}
	}
	w.Cleanup(w.stop)
	w.api = w.checker.client("server", s.URL(), s.OperatorTokenFile())
}

// do runs a statement in the server's database behind its back.
func (w *checkedWorld) do(statement string, args ...any) {
	w.Helper()
	db, err := w.checker.openSQL()
	if err != nil {
		w.Fatal(err)
	}
	r, err := db.ExecContext(w.ctx, statement, args...)
	if err != nil {
		w.Fatal(err)
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		w.Fatalf("%s changed %d rows (%v), want some", statement, n, err)
	}
	if err := db.Close(); err != nil {
		w.Fatal(err)
	}
}

// behind does something in the vCenter behind the server's back.
func (w *checkedWorld) behind(do func(people) error) {
	w.Helper()
	v, err := govmomi.NewClient(w.ctx, w.lab.URL(), true)
	if err == nil {
		err = do(people{w.ctx, v})
	}
	if err != nil {
		w.Fatal(err)
	}
	if err := v.Logout(w.ctx); err != nil {
		w.Fatal(err)
	}
}

// found fails the test when a check does not report exactly these invariants.
func (w *checkedWorld) found(what string, sample int, want ...string) {
	w.Helper()
	var got []string
	all := w.checker.check(w.ctx, sample)
	for _, v := range all {
		got = append(got, v[1:2])
	}
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		w.Errorf("%s: the check found %v, want %v:\n%s", what, got, want, strings.Join(all, "\n"))
	}
}

// TestTheCheckerSeesEachInvariantBroken: of a server that was left in peace it
// finds nothing, and each thing that must not be it reports.
func TestTheCheckerSeesEachInvariantBroken(t *testing.T) {
	w := newCheckedWorld(t)
	v := w.vcenter("lab")
	vm := w.vm(v.ID, "vm01")
	retention, hour := 8, api.StartTime("03:00")
	c, err := w.api.CreateBackupScheduleWithResponse(w.ctx, nil, api.BackupSchedule{Name: "nightly", VirtualMachineID: vm.ID, Daily: &api.Daily{}, StartTime: hour, RetentionDays: retention, TimeZone: "Asia/Tokyo"})
	w.ok(c, err)
	first := w.backup(vm.ID)
	if err := w.lab.GuestWriteRandom("vm01", first.Disks[0].Key, 1<<20, 64<<10, 5); err != nil {
		t.Fatal(err)
	}
	second := w.backup(vm.ID)
	w.found("a server in peace", allImages)

	w.breakImages(first, second)
	w.stop()
	w.serve(server.RoleAPI) // it clears nothing away
	w.found("the server runs no jobs", noImages)
	w.breakVCenter(v)
	w.breakDatabase(c.JSON201.ID, second)
}

// breakImages spoils a pack of the repository, and the memory of what was in a snapshot.
func (w *checkedWorld) breakImages(first, second api.BackupImage) {
	w.Helper()
	w.checker.mu.Lock()
	clear(w.checker.restored)
	w.checker.mu.Unlock()
	largest, size := "", int64(0)
	err := filepath.Walk(filepath.Join(w.conf.Data, "repository"), func(path string, f os.FileInfo, err error) error {
		if err == nil && f.Mode().IsRegular() && f.Size() > size {
			largest, size = path, f.Size()
		}
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	was, err := os.ReadFile(largest)
	if err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(largest, bytes.Repeat([]byte{7}, len(was)), 0o600); err != nil {
		w.Fatal(err)
	}
	w.found("a spoilt pack", allImages, "2")
	if err := os.WriteFile(largest, was, 0o600); err != nil {
		w.Fatal(err)
	}
	w.found("the pack as it was", allImages)
	w.do(`UPDATE image SET point_in_time = $1 WHERE id = $2`, first.PointInTime.UnixMilli(), second.ID)
	w.found("an image of other bytes than were there", allImages, "2")
	w.do(`UPDATE image SET point_in_time = $1 WHERE id = $2`, second.PointInTime.UnixMilli(), second.ID)
}

func (w *checkedWorld) breakVCenter(v api.VCenter) {
	w.Helper()
	r, err := w.api.GetServerWithResponse(w.ctx)
	w.ok(r, err)
	moid, name := w.machine("vm02").Moid, fmt.Sprintf("kura:%s:01K9J0B0F0UR00000000000000:1", r.JSON200.InstallationID)
	w.behind(func(p people) error { return p.snapshot(moid, name) })
	w.found("a snapshot of no job", noImages, "1")
	w.behind(func(p people) error { return p.removeSnapshot(moid, name) })
	if err := w.lab.SetPower(w.ctx, "vm02", false); err != nil {
		w.Fatal(err)
	}
	w.found("a VM that was on", noImages, "6")
	if err := w.lab.SetPower(w.ctx, "vm02", true); err != nil {
		w.Fatal(err)
	}
	w.behind(func(p people) error { return p.removeSnapshot(w.checker.neighbour.staging, foreignSnapshot) })
	w.found("another installation's snapshot", noImages, "1")
	w.behind(func(p people) error { return p.snapshot(w.checker.neighbour.staging, foreignSnapshot) })
	w.found("all as it was", noImages)
}

func (w *checkedWorld) breakDatabase(scheduleID string, image api.BackupImage) {
	w.Helper()
	w.do(`UPDATE job SET state = 'running', lease_until = 1000, owner = 'nobody' WHERE id = $1`, image.JobID)
	w.found("a job that nobody runs", noImages, "5")
	w.do(`UPDATE job SET state = 'failed', error = '' WHERE id = $1`, image.JobID)
	w.found("a job that failed for no reason", noImages, "5")
	w.do(`UPDATE job SET state = 'succeeded' WHERE id = $1`, image.JobID)
	w.do(`UPDATE image SET status = 'damaged' WHERE id = $1`, image.ID)
	w.found("a good image that is good no more", noImages, "3")
	w.do(`UPDATE image SET status = 'good' WHERE id = $1`, image.ID)
	w.do(`UPDATE schedule SET duration_hours = 2 WHERE id = $1`, scheduleID)
	w.found("a schedule with seats that nobody counted", noImages, "4")
	w.do(`UPDATE schedule SET duration_hours = 1 WHERE id = $1`, scheduleID)
	w.do(`UPDATE schedule SET retention_days = 7 WHERE id = $1`, scheduleID)
	w.found("a write that was lost", noImages, "7")
	w.do(`UPDATE schedule SET retention_days = 8 WHERE id = $1`, scheduleID)
	w.found("all as it was", noImages)
	r, err := w.api.DeleteBackupScheduleWithResponse(w.ctx, scheduleID)
	if err != nil || r.StatusCode() != http.StatusNoContent {
		w.Fatalf("delete the schedule: %v %v", r, err)
	}
	w.found("a schedule that was taken away", noImages)
}
