package server_test

import (
	"database/sql"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// fileClock is a clock of several processes that runs as the machine's does,
// and is ahead of it by what a file says.
type fileClock struct{ f *os.File }

func openClock(path string) (*fileClock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	return &fileClock{f}, err
}

func (c *fileClock) ahead() time.Duration {
	var b [8]byte
	if _, err := c.f.ReadAt(b[:], 0); err != nil {
		return 0 // nobody has set it yet
	}
	return time.Duration(binary.BigEndian.Uint64(b[:])) //nolint:gosec // set by pass
}

// Now is what the clock says.
func (c *fileClock) Now() time.Time { return time.Now().Add(c.ahead()) }

// pass lets time pass at once.
func (c *fileClock) pass(d time.Duration) error {
	b := binary.BigEndian.AppendUint64(nil, uint64(c.ahead()+d)) //nolint:gosec // read by ahead
	_, err := c.f.WriteAt(b, 0)
	return err
}

// soaked says how large a soak is, and how much must have happened in it at least.
type soaked struct {
	days, vms int
	steps     int            // of a night
	sample    int            // images that each daily check restores
	least     map[string]int // what is counted
}

// shortSoak is a day. A soak in which less happened has shown nothing.
var shortSoak = soaked{days: 1, vms: 16, steps: 6, sample: 2,
	least: map[string]int{"backups": 10, "restores": 2, "bookings": 4, "faults": 2, "storage faults": 2 * storageFaults, "kills": 1, "checked": 8}}

// longSoak is so many days with 200 VMs.
func longSoak(days int) soaked {
	size := soaked{days: days, vms: 200, steps: 8, sample: 8, least: map[string]int{}}
	for what, daily := range map[string]int{"backups": 100, "restores": 10, "bookings": 6, "faults": 4, "storage faults": 2 * storageFaults, "kills": 2, "copies": 5, "checked": 20} {
		size.least[what] = days * daily
	}
	if days > 2 { // after which the first images end
		size.least["expired"] = (days - 2) * 20
	}
	return size
}

// soak is an installation of two servers that lives through simulated days.
type soak struct {
	*world
	soaked
	clock   *fileClock
	check   *checker
	db      *sql.DB
	chance  *rand.Rand
	servers []*soakServer
	vcenter api.VCenter
	vms     []api.VirtualMachine // that are backed up
	sick    *soakServer          // that is stopped or dead in this step
	count   map[string]int
	kinds   map[string]int // faults by kind
	spent   map[string]time.Duration
	waiting []soakRestore
	booked  []api.BackupSchedule
	steps   int
}

type soakServer struct {
	*process
	name    string
	stopped bool
}

type soakRestore struct {
	id    string
	image api.BackupImage
}

func newSoak(t *testing.T, size soaked, seed uint64) *soak {
	t.Helper()
	l := newLab(t, lab.Config{VMs: size.vms, Hosts: 4, Datastores: 4, DiskSize: 1 << 20, LeaseTimeout: time.Second, KeepSums: true})
	dir := t.TempDir()
	clock, err := openClock(filepath.Join(dir, "clock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clock.f.Close() })
	s := &soak{world: &world{T: t, ctx: t.Context(), lab: l}, soaked: size, clock: clock, chance: rand.New(rand.NewPCG(seed, 1)),
		count: map[string]int{}, kinds: map[string]int{}, spent: map[string]time.Duration{}}
	begin := time.Now().UTC().Truncate(24 * time.Hour).Add(47*time.Hour + 30*time.Minute)
	s.must(clock.pass(time.Until(begin)))
	conf := child{Database: pgtest.Database(t), KeyFile: filepath.Join(dir, "kura.key"), Lease: 4 * time.Second, Slots: 8, ClockFile: clock.f.Name(),
		StoragePlace: filepath.Join(dir, "first", "repository")}
	s.check = newChecker(t, l, checked{Database: conf.Database, KeyFile: conf.KeyFile, Now: clock.Now})
	for _, name := range []string{"first", "second"} {
		conf.Data = filepath.Join(dir, name)
		s.must(os.Mkdir(conf.Data, 0o700))
		s.servers = append(s.servers, &soakServer{process: spawn(t, conf), name: name})
		s.meet(s.servers[len(s.servers)-1])
	}
	s.db, err = s.check.openSQL()
	s.must(err)
	t.Cleanup(func() { _ = s.db.Close() })
	return s
}

func (s *soak) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// token is the operator's, which the first server's start has made.
func (s *soak) token() string { return s.servers[0].tokenFile() }

// meet tells the checker of a server that answers.
func (s *soak) meet(v *soakServer) {
	s.Helper()
	s.api = s.check.client(v.name, v.url, s.token())
}

// settle puts the schedules there: half of the VMs in four groups each night,
// one of them copied elsewhere and one at a single instant, the others in seven
// groups by the days of the week.
func (s *soak) settle() {
	s.Helper()
	s.vcenter = s.world.vcenter("lab")
	second, _ := s.second()
	for _, vm := range s.world.vms(s.vcenter.ID) {
		if strings.HasPrefix(vm.Name, "vm") {
			s.vms = append(s.vms, vm)
		}
	}
	slices.SortFunc(s.vms, func(a, b api.VirtualMachine) int { return strings.Compare(a.Name, b.Name) })
	days := []api.DayOfWeek{api.DayOfWeekMonday, api.DayOfWeekTuesday, api.DayOfWeekWednesday, api.DayOfWeekThursday, api.DayOfWeekFriday, api.DayOfWeekSaturday, api.DayOfWeekSunday}
	half, nightly, weekly := len(s.vms)/2, len(s.vms)/8, len(s.vms)/14
	for n := range 4 {
		g := s.group(fmt.Sprint("nightly", n), s.vms[n*nightly:(n+1)*nightly], n == 3)
		c := api.BackupSchedule{Name: g.Name, GroupID: g.ID, Daily: &api.Daily{}, StartTime: fmt.Sprintf("%02d:00", n), TimeZone: "UTC", RetentionDays: 2}
		if n == 0 {
			c.CopyTo = []api.CopyTarget{{Repository: second, RetentionDays: 1}}
		}
		if n == 1 {
			c.Consistency = api.ConsistencyApp
		}
		s.schedule(c)
	}
	for n, day := range days {
		g := s.group("on "+string(day), s.vms[half+n*weekly:half+(n+1)*weekly], false)
		s.schedule(api.BackupSchedule{Name: g.Name, GroupID: g.ID, Weekly: &api.Weekly{DaysOfWeek: []api.DayOfWeek{day}}, StartTime: "04:00", TimeZone: "UTC", RetentionDays: 7})
	}
}

func (s *soak) group(name string, vms []api.VirtualMachine, consistent bool) api.BackupGroup {
	s.Helper()
	g := api.BackupGroup{Name: name, Consistent: consistent}
	for _, vm := range vms {
		g.VirtualMachineIDs = append(g.VirtualMachineIDs, vm.ID)
	}
	r, err := s.api.CreateBackupGroupWithResponse(s.ctx, nil, g)
	s.ok(r, err)
	return *r.JSON201
}

func (s *soak) schedule(c api.BackupSchedule) {
	s.Helper()
	r, err := s.api.CreateBackupScheduleWithResponse(s.ctx, nil, c)
	s.ok(r, err)
}

// busy counts the jobs that run or could.
func (s *soak) busy() (n int) {
	s.Helper()
	const text = `SELECT COUNT(*) FROM job WHERE state = 'running' OR state = 'queued' AND due <= $1 AND (waits_for = '' OR EXISTS (SELECT 1 FROM job w WHERE w.id = job.waits_for AND w.state = 'running'))`
	s.must(s.db.QueryRowContext(s.ctx, text, s.clock.Now().Add(10*time.Second).UnixMilli()).Scan(&n))
	return n
}

// idle waits until there is nothing to do, as far as the servers have looked.
func (s *soak) idle() {
	s.Helper()
	began, calm := time.Now(), 0
	defer func() { s.spent["idle"] += time.Since(began) }()
	for end := time.Now().Add(2 * time.Minute); calm < 3; time.Sleep(110 * time.Millisecond) { // the servers look at their schedules each 200 ms
		if calm++; s.busy() > 0 {
			calm = 0
		}
		if time.Now().After(end) {
			s.Fatalf("after two minutes %d jobs run or wait:\n%s", s.busy(), s.work())
		}
	}
}

// work tells what the servers are at.
func (s *soak) work() (text string) {
	rows, err := s.db.QueryContext(s.ctx, `SELECT id || ' ' || kind || ' of ' || vm_name || ' ' || state || ' ' || step || ' ' || error || ' owner ' || owner FROM job WHERE state IN ('queued', 'running') ORDER BY due LIMIT 20`)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return err.Error()
		}
		text += line + "\n"
	}
	if err := rows.Err(); err != nil {
		return err.Error()
	}
	return text
}

// heal ends all faults and starts what is dead or stands still; false = nothing was.
func (s *soak) heal() bool {
	s.Helper()
	s.lab.ClearFaults()
	if s.sick == nil {
		return false
	}
	if s.sick.stopped {
		s.must(s.sick.cmd.Process.Signal(syscall.SIGCONT))
		s.sick.stopped = false
	} else {
		s.sick.start()
	}
	s.meet(s.sick)
	s.sick = nil
	return true
}

// enough fails a soak in which too little happened, and tells what did.
func (s *soak) enough(took time.Duration) {
	s.Helper()
	for _, what := range slices.Sorted(maps.Keys(s.least)) {
		if s.count[what] < s.least[what] {
			s.Errorf("%d %s, want at least %d: the soak has shown too little", s.count[what], what, s.least[what])
		}
	}
	s.Logf("%d days with %d VMs in %s, %d steps", s.days, s.soaked.vms, took.Round(time.Second), s.steps)
	for _, what := range slices.Sorted(maps.Keys(s.count)) {
		s.Logf("%6d %s", s.count[what], what)
	}
	s.Logf("faults: %v, spent %v", s.kinds, s.spent)
}
