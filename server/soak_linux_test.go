package server_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestSoak: days pass in which schedules run, users back up, restore and book,
// the vCenter does what it should not, and servers are killed, stopped and
// replaced. Each day everything that must hold is looked at from outside, and
// at the end every image is restored. One day with 20 VMs; KURA_SOAK is a
// number of days with 200, of which "make soak" has 14. KURA_SOAK_SEED repeats
// one, as far as chance is the test's own.
func TestSoak(t *testing.T) {
	t.Parallel()
	number := func(name string, otherwise uint64) uint64 {
		n, err := strconv.ParseUint(cmp.Or(os.Getenv(name), strconv.FormatUint(otherwise, 10)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	size, seed := shortSoak, number("KURA_SOAK_SEED", rand.Uint64())
	if days := number("KURA_SOAK", 0); days > 0 {
		size = longSoak(int(days)) //nolint:gosec // a few
	}
	t.Logf("KURA_SOAK_SEED=%d", seed)
	began := time.Now()
	s := newSoak(t, size, seed)
	s.settle()
	for _, v := range s.servers {
		s.replace(v, s.chance.Uint64())
	}
	other := s.otherInstallation()
	for day := range size.days {
		if day > 0 {
			s.noon()
		}
		s.night()
		s.morning(day, other)
		if t.Failed() {
			t.Fatalf("day %d: what must hold does not", day)
		}
	}
	last := time.Now()
	s.check.must(s.ctx, allImages)
	s.spent["last check"] += time.Since(last)
	s.tally()
	s.enough(time.Since(began))
}

// night takes the servers from half past eleven through the six hours in which
// schedules run.
func (s *soak) night() {
	s.Helper()
	s.must(s.clock.pass(10 * time.Minute))
	for n := range s.soaked.steps {
		s.steps++
		s.writes()
		s.arm()
		s.must(s.clock.pass(6 * time.Hour / time.Duration(s.soaked.steps)))
		s.act(n)
		s.strike()
		s.idle()
		if s.heal() {
			s.idle()
		}
		s.look()
	}
}

// morning is when nothing is due: what must hold is looked at.
func (s *soak) morning(day int, other func()) {
	s.Helper()
	s.drain()
	for _, v := range s.servers {
		s.replace(v, 0)
	}
	before := s.check.restores
	for _, v := range s.check.check(s.ctx, s.sample) {
		s.Errorf("day %d: %s", day, v)
	}
	s.count["checked"] += s.check.restores - before
	other()
	s.Logf("day %d is over: %v", day, s.count)
}

// noon is the rest of the day: the servers are replaced.
func (s *soak) noon() {
	s.Helper()
	for _, v := range s.servers { // what is asked for at a start happens at least twice a day
		s.must(s.clock.pass(8*time.Hour + 30*time.Minute))
		s.replace(v, s.chance.Uint64())
		s.idle()
	}
}

// replace ends a server that has nothing to do, now and then in good order, and
// starts it again with a storage that behaves as the seed says.
func (s *soak) replace(v *soakServer, storage uint64) {
	s.Helper()
	if s.chance.IntN(2) == 0 {
		v.term()
	} else {
		v.kill()
	}
	v.conf.StorageSeed = storage
	if storage != 0 {
		s.count["storage faults"] += storageFaults
	}
	v.start()
	s.meet(v)
}

// drain lets all that was begun come to its end.
func (s *soak) drain() {
	s.Helper()
	s.heal()
	for range 2 { // tries that failed wait a while
		s.must(s.clock.pass(time.Minute))
		s.idle()
	}
	s.look()
}

// writes is what guests do: a bit of most disks changes.
func (s *soak) writes() {
	s.Helper()
	for _, vm := range s.vms {
		restoring := func(w soakRestore) bool { return w.image.VirtualMachine.ID == vm.ID }
		if s.chance.IntN(3) > 0 || slices.ContainsFunc(s.waiting, restoring) {
			continue
		}
		m, err := s.lab.VM(vm.MOID)
		s.must(err)
		d := m.Disks[s.chance.IntN(len(m.Disks))]
		s.must(s.lab.GuestWriteRandom(vm.MOID, d.Key, s.chance.Int64N(15)<<16, 64<<10, s.chance.Uint64()))
	}
}

// tame are the faults that a soak leaves out: a guest that never shuts down
// costs real minutes, and changed blocks that are left out are found within
// days, not always at once (docs/dev/changes.md).
var tame = []string{"guest_hangs", "cbt_wrong"}

// arm lets something go wrong in the vCenter in most steps.
func (s *soak) arm() {
	s.Helper()
	kinds := slices.DeleteFunc(lab.Faults(), func(k lab.FaultKind) bool { return slices.Contains(tame, k.Name) })
	for range s.chance.IntN(3) {
		f := lab.Fault{Kind: kinds[s.chance.IntN(len(kinds))].Name, Count: 1 + s.chance.IntN(3), Delay: time.Duration(1+s.chance.IntN(15)) * 100 * time.Millisecond}
		switch f.Kind {
		case "stream_stall", "export_cut", "export_corrupt", "export_short", "upload_cut", "lease_expire":
			f.After = s.chance.Int64N(512 << 10)
		case "http_503", "session_expire", "task_fail", "permission_denied":
			f.After = s.chance.Int64N(60)
		}
		s.must(s.lab.Arm(f))
		s.count["faults"]++
		s.kinds[f.Kind]++
	}
}

// strike kills, stops or ends a server while it works.
func (s *soak) strike() {
	s.Helper()
	dice := s.chance.IntN(10)
	if s.steps%4 == 2 { // so that chance does not leave a short soak without
		dice = 0
	}
	if dice > 3 {
		return
	}
	v := s.servers[s.chance.IntN(2)]
	const text = `SELECT COUNT(*) FROM job WHERE state = 'running'`
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		n := 0
		s.must(s.db.QueryRowContext(s.ctx, text).Scan(&n))
		if n > 0 {
			break
		}
	}
	s.sick = v
	s.check.down(v.name)
	s.api = s.check.any()
	switch dice {
	case 3:
		s.must(v.cmd.Process.Signal(syscall.SIGSTOP))
		v.stopped = true
		s.must(s.clock.pass(20 * time.Second)) // its leases run out
		s.count["stops"]++
	default:
		v.kill()
		s.must(s.clock.pass(5 * time.Second)) // its leases run out
		s.count["kills"]++
	}
}

// act is what users do in a step.
func (s *soak) act(step int) {
	s.Helper()
	for range 1 + len(s.vms)/100 {
		vm := s.vms[s.chance.IntN(len(s.vms))]
		s.call("run now", func() (api.Answer, error) {
			return s.api.BackupVirtualMachineWithResponse(s.ctx, vm.ID, nil, api.BackupOptions{RetentionDays: 1})
		})
	}
	s.book()
	if step%2 == 1 {
		s.restoreSome()
	}
}

// call does what a user does; what is refused for a reason is no failure.
func (s *soak) call(what string, do func() (api.Answer, error)) bool {
	s.Helper()
	a, err := do()
	err = api.Err(a, err)
	var p *api.Problem
	switch {
	case err == nil:
		s.count[what]++
		return true
	case errors.As(err, &p) && p.Status < http.StatusInternalServerError, errors.As(err, &p) && p.Status == http.StatusServiceUnavailable, errors.As(err, &p) && p.Status == http.StatusBadGateway:
		s.count["refused"]++
		s.kinds["refused: "+string(p.Code)]++
	default:
		s.Errorf("%s: %v", what, err)
	}
	return false
}

// book makes, changes and takes away schedules of single VMs.
func (s *soak) book() {
	s.Helper()
	c := api.BackupSchedule{Name: fmt.Sprintf("own %d", s.steps), VirtualMachineID: s.vms[s.chance.IntN(len(s.vms))].ID, Daily: &api.Daily{},
		StartTime: fmt.Sprintf("%02d:00", s.chance.IntN(24)), TimeZone: "Asia/Kolkata", RetentionDays: 1 + s.chance.IntN(3)}
	if s.call("bookings", func() (api.Answer, error) {
		r, err := s.api.CreateBackupScheduleWithResponse(s.ctx, nil, c)
		if err == nil && r.JSON201 != nil {
			s.booked = append(s.booked, *r.JSON201)
		}
		return r, err
	}) && len(s.booked) > 6 {
		old := s.booked[0]
		s.booked = s.booked[1:]
		s.call("bookings given back", func() (api.Answer, error) { return s.api.DeleteBackupScheduleWithResponse(s.ctx, old.ID) })
	}
	if len(s.booked) > 0 && s.chance.IntN(2) == 0 {
		n := s.chance.IntN(len(s.booked))
		change := s.booked[n]
		change.StartTime = fmt.Sprintf("%02d:00", s.chance.IntN(24))
		s.call("bookings moved", func() (api.Answer, error) {
			return s.api.UpdateBackupScheduleWithResponse(s.ctx, change.ID, &api.UpdateBackupScheduleParams{IfMatch: "*"}, change)
		})
	}
}

// restoreSome begins restores in place and as new VMs.
func (s *soak) restoreSome() {
	s.Helper()
	all, err := s.check.listImages(s.ctx)
	if err != nil {
		s.Errorf("list the images: %v", err)
		return
	}
	all = slices.DeleteFunc(all, func(i api.BackupImage) bool { return !restores(i) })
	s.chance.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	seen := map[string]bool{}
	for n, i := range all[:min(len(all), 1+len(s.vms)/50)] {
		r := api.Restore{ImageID: i.ID, NewVM: &api.RestoreNewVM{Name: fmt.Sprintf("new-%d-%d", s.steps, n)}}
		if n%2 == 1 && !seen[i.VirtualMachine.ID] {
			r = api.Restore{ImageID: i.ID, InPlace: &api.RestoreInPlace{PowerOff: true, PowerOn: true, Safety: []api.Safety{api.SafetyQuick, api.SafetyNone}[s.chance.IntN(2)]}}
		}
		seen[i.VirtualMachine.ID] = true
		s.call("restores asked for", func() (api.Answer, error) {
			a, err := s.api.CreateRestoreWithResponse(s.ctx, nil, r)
			if err == nil && a.JSON201 != nil {
				s.waiting = append(s.waiting, soakRestore{a.JSON201.ID, i})
			}
			return a, err
		})
	}
}

// look compares what restores say that they restored, before a guest writes.
func (s *soak) look() {
	s.Helper()
	left := s.waiting[:0]
	for _, w := range s.waiting {
		g, err := s.api.GetRestoreWithResponse(s.ctx, w.id, nil)
		s.ok(g, err)
		r := *g.JSON200
		switch {
		case !r.Status.Final():
			left = append(left, w)
			continue
		case r.Status != api.JobStateSucceeded:
			s.count["restores that failed"]++
			s.kinds["restore: "+string(r.Error.Code)]++
			continue
		}
		s.count["restores"]++
		got, err := s.check.sumsOf(s.ctx, r.RestoredVM.MOID)
		s.must(err)
		want := s.lab.FrozenSHA256(w.image.VirtualMachine.MOID, w.image.PointInTime)
		s.same(fmt.Sprintf("restore %s of image %s of %s", w.id, w.image.ID, w.image.VirtualMachine.Name), got, want)
		if r.NewVM != nil {
			s.must(s.lab.RemoveVM(s.ctx, r.RestoredVM.MOID))
		}
	}
	s.waiting = left
}

// tally counts in the history what the servers did.
func (s *soak) tally() {
	s.Helper()
	rows, err := s.db.QueryContext(s.ctx, `SELECT kind, CASE error_code WHEN '' THEN state ELSE state || ' ' || error_code END, COUNT(*) FROM job GROUP BY 1, 2`)
	s.must(err)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var kind, state string
		var n int
		s.must(rows.Scan(&kind, &state, &n))
		s.count["jobs: "+kind+" "+state] += n
	}
	s.must(rows.Err())
	s.count["backups"] = s.count["jobs: backup succeeded"]
	s.count["copies"] = s.count["jobs: copy succeeded"]
	s.count["expired"] = s.count["jobs: delete succeeded"]
	s.count["checked"] = s.check.restores
}

// otherInstallation runs a server of another installation on the same vCenter,
// with VMs of its own and the machine's time. What it returns backs one of them
// up, slowly, while the soak's servers clear up, and restores it.
func (s *soak) otherInstallation() func() {
	s.Helper()
	vm, err := s.lab.AddVM(s.ctx, lab.VMSpec{Name: "theirs", Disks: []int64{1 << 20}})
	s.must(err)
	v := start(s.T, server.Config{})
	w := &world{T: s.T, ctx: s.ctx, lab: s.lab, api: client(s.T, v.URL(), v.OperatorTokenFile())}
	at := w.vcenter("shared")
	return func() {
		s.Helper()
		s.must(s.lab.GuestWriteRandom(vm.Moid, vm.Disks[0].Key, 0, 64<<10, s.chance.Uint64()))
		s.must(s.lab.Arm(lab.Fault{Kind: "stream_stall", VM: vm.Moid, Delay: 3 * time.Second}))
		image := w.backup(w.vm(at.ID, "theirs").ID)
		s.lab.ClearFaults()
		r := w.restore(api.Restore{ImageID: image.ID, NewVM: &api.RestoreNewVM{Name: "theirs again"}})
		if r.Status != api.JobStateSucceeded {
			s.Fatalf("a restore of the other installation ended %s: %+v", r.Status, r.Error)
		}
		s.same("what the other installation restored", w.sums("theirs again"), s.lab.FrozenSHA256(vm.Moid, image.PointInTime))
		s.must(s.lab.RemoveVM(s.ctx, r.RestoredVM.MOID))
		s.count["backups of another installation"]++
	}
}
