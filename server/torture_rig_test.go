//go:build failpoints && linux

package server_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// torture is one installation that is broken on purpose, again and again. Lab
// and PostgreSQL live in the test's process; each server has one of its own,
// and is started again whenever it is gone.
type torture struct {
	*testing.T
	ctx     context.Context
	lab     *lab.Lab
	check   *checker
	servers []*victim
	chance  *rand.Rand
	vcenter api.VCenter
	vms     map[string]api.VirtualMachine // by name
	second  string                        // another repository
	ended   map[string]string             // what was said of jobs that were over

	postgres bool
	bucket   *s3test.Bucket // of repositories that lock; nil = there is none yet

	mu      sync.Mutex // guards what follows
	kills   int
	place   string // at which servers die
	times   int    // that it is come to until then
	again   string // a place to die at once more, on the way back
	trouble []string
	reached map[string]bool
}

// rigged says what an installation under torture is like.
type rigged struct {
	postgres bool
	servers  int
	seed     uint64
	grace    time.Duration
	without  []string // safeguards that are left out
}

// tortured are the VMs that works are done with; beside them stand the proxy,
// and those that are backed up meanwhile.
const (
	tortured   = 3
	bystanders = 2
)

func newTorture(t *testing.T, c rigged) *torture {
	t.Helper()
	l := newLab(t, lab.Config{VMs: tortured + bystanders, DiskSize: 2 << 20, LeaseTimeout: 2 * time.Second, KeepSums: true})
	if _, err := l.AddVM(t.Context(), lab.VMSpec{Name: "proxy", Disks: []int64{1 << 20}}); err != nil {
		t.Fatal(err)
	}
	proxy, err := l.MakeProxy("proxy")
	if err != nil {
		t.Fatal(err)
	}
	r := &torture{T: t, ctx: t.Context(), lab: l, chance: rand.New(rand.NewPCG(c.seed, 0)), vms: map[string]api.VirtualMachine{},
		ended: map[string]string{}, reached: map[string]bool{}, postgres: c.postgres}
	first := t.TempDir()
	conf := child{KeyFile: filepath.Join(first, "kura.key"), Slots: 4, DeviceSocket: serveDevices(t, l, "proxy"), ProxyUUID: proxy}
	database := "sqlite:" + filepath.Join(first, "kura.db")
	if c.postgres {
		conf.Database, conf.Lease = pgtest.Database(t), 3*time.Second
		database = conf.Database
	}
	r.check = newChecker(t, l, checked{Database: database, KeyFile: conf.KeyFile, Grace: c.grace})
	for n := range max(c.servers, 1) {
		conf.Data = first
		if n > 0 {
			conf.Data = t.TempDir()
		}
		conf.Failpoints = t.TempDir()
		for _, name := range c.without {
			order(t, conf.Failpoints, "without-"+name, "")
		}
		r.keep(&victim{name: fmt.Sprintf("server%d", n+1), r: r, conf: conf, token: filepath.Join(first, "operator.token")})
	}
	r.furnish()
	return r
}

// furnish adds the vcenter, whose VMs run, and another repository.
func (r *torture) furnish() {
	r.Helper()
	w := r.world()
	r.vcenter = w.vcenterWith(api.VCenter{Name: "lab", Transport: api.TransportNfc})
	for _, vm := range w.vms(r.vcenter.ID) {
		r.vms[vm.Name] = vm
	}
	r.second, _ = w.second()
}

// world is the installation as tests see it that break nothing.
func (r *torture) world() *world {
	return &world{T: r.T, ctx: r.ctx, lab: r.lab, api: r.check.any()}
}

// victim is a server that is started again whenever it is gone.
type victim struct {
	name  string
	r     *torture
	conf  child
	token string
	p     *process

	mu      sync.Mutex // guards what follows
	process *os.Process
	url     string
	life    context.Context
	end     context.CancelFunc
	client  *api.ClientWithResponses // nil while it is down
	given   bool                     // it is not started again
	expects bool                     // its next end is the test's own doing
}

// keep runs a server until the test ends.
func (r *torture) keep(v *victim) {
	r.Helper()
	var err error
	if v.p, err = newProcess(r.T, v.conf); err != nil {
		r.Fatal(err)
	}
	v.p.launch()
	if err := v.p.answers(); err != nil {
		r.Fatalf("%s: %v", v.name, err)
	}
	v.serves()
	done := make(chan struct{})
	go func() { defer close(done); v.restart() }()
	r.servers = append(r.servers, v)
	r.Cleanup(func() {
		v.mu.Lock()
		v.given = true
		_ = v.process.Kill() // it may be gone already, and is not started again
		v.mu.Unlock()
		<-done
		if r.Failed() {
			b, _ := os.ReadFile(v.p.log.Name())
			r.Logf("end of the log of %s:\n%s", v.name, b[max(0, len(b)-30_000):])
		}
		_ = v.p.log.Close()
	})
}

func newProcess(t *testing.T, conf child) (*process, error) {
	log, err := os.OpenFile(filepath.Join(conf.Data, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &process{t: t, conf: conf, log: log}, err
}

// serves makes the server known to those who ask it for something.
func (v *victim) serves() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.process, v.url = v.p.cmd.Process, v.p.url
	v.known()
}

// known begins a life of the server. The caller holds mu.
func (v *victim) known() {
	v.life, v.end = context.WithCancel(v.r.ctx)
	v.client = v.r.check.client(v.name, v.url, v.token)
}

// restart starts the server again and again, until it is given up.
func (v *victim) restart() {
	for {
		<-v.p.ended
		v.r.check.down(v.name)
		v.mu.Lock()
		v.end()
		v.client = nil
		given, expected := v.given, v.expects
		v.expects = false
		v.mu.Unlock()
		if given {
			return
		}
		if !v.killed() && !expected {
			v.r.say("The server %s ended by itself: %v", v.name, v.p.how)
		}
		for {
			v.p.launch()
			if err := v.p.answers(); err == nil {
				break
			} else if !v.killed() {
				v.r.say("The server %s does not start: %v", v.name, err)
				return
			}
		}
		if v.over() {
			v.p.kill()
			return
		}
		v.serves()
	}
}

// over says whether the server is given up.
func (v *victim) over() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.given
}

// hide keeps a server from being asked, as one that does not answer; show ends that.
func (v *victim) hide() {
	v.r.check.down(v.name)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.end()
	v.client = nil
}

func (v *victim) show() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.client == nil { // else it died, and serves again
		v.known()
	}
}

// killed says whether the server died of an order, and takes that down. The
// other servers are spared, and perhaps it shall die once more.
func (v *victim) killed() bool {
	places := v.passed()
	if len(places) == 0 || !strings.HasSuffix(places[len(places)-1], " kill") {
		return false
	}
	order(v.r.T, v.conf.Failpoints, "passed", "") // what was passed is noted
	r := v.r
	r.mu.Lock()
	r.kills++
	again := r.again
	r.again = ""
	r.mu.Unlock()
	r.disarm()
	if again != "" {
		order(r.T, v.conf.Failpoints, again, "kill")
	}
	return true
}

// passed lists the places that the server came to, and takes them down.
func (v *victim) passed() []string {
	b, err := os.ReadFile(filepath.Join(v.conf.Failpoints, "passed"))
	if err != nil {
		return nil
	}
	places := strings.Split(strings.TrimSpace(string(b)), "\n")
	v.r.mu.Lock()
	defer v.r.mu.Unlock()
	for _, p := range places {
		v.r.reached[strings.TrimSuffix(strings.TrimSuffix(p, " kill"), " stop")] = true
	}
	return places
}

// order puts a file where servers look for orders, whole or not at all.
func order(t *testing.T, dir, name, text string) {
	tmp := filepath.Join(dir, "."+name)
	if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o600), os.Rename(tmp, filepath.Join(dir, name))); err != nil {
		t.Errorf("order %s: %v", name, err)
	}
}

// arm has whichever server comes to the place for the count'th time die there.
func (r *torture) arm(place string, count int) {
	r.mu.Lock()
	r.place, r.times = place, count
	r.mu.Unlock()
	for _, v := range r.servers {
		order(r.T, v.conf.Failpoints, place, fmt.Sprintf("kill %d", count))
	}
}

// disarm takes all orders back.
func (r *torture) disarm() {
	r.mu.Lock()
	r.place = ""
	r.mu.Unlock()
	for _, v := range r.servers {
		names, err := os.ReadDir(v.conf.Failpoints)
		if err != nil {
			r.Errorf("orders of %s: %v", v.name, err)
		}
		for _, f := range names {
			if n := f.Name(); n != "passed" && !strings.HasPrefix(n, "without-") && !strings.HasPrefix(n, ".") {
				_ = os.Remove(filepath.Join(v.conf.Failpoints, n)) // it may be carried out just now
			}
		}
	}
}

func (r *torture) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trouble = append(r.trouble, fmt.Sprintf(format, args...))
}

// signal halts a server, or lets it go on.
func (v *victim) signal(s syscall.Signal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = v.process.Signal(s) // it may be gone already
}

// fall ends a server from outside and waits until it is gone.
func (v *victim) fall(s syscall.Signal) {
	v.mu.Lock()
	life, up := v.life, v.client != nil
	if v.expects = up; up { // else it is dead already
		_ = v.process.Signal(s) // it may have died just now
	}
	v.mu.Unlock()
	if up {
		<-life.Done()
	}
}

// errRefused is what a server answered that will not change.
var errRefused = errors.New("refused")

// do asks some server that runs, and another or the same again as long as there
// is no answer, as clients are to do.
func (r *torture) do(ask func(context.Context, *api.ClientWithResponses) (api.Answer, error)) error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		v := r.servers[r.chance.IntN(len(r.servers))]
		v.mu.Lock()
		life, a := v.life, v.client
		v.mu.Unlock()
		if time.Now().After(end) {
			return errors.New("no server answers")
		}
		if a == nil {
			continue
		}
		answer, err := ask(life, a)
		if err = api.Err(answer, err); err == nil {
			return nil
		}
		var p *api.Problem
		if errors.As(err, &p) && p.Status < 500 && p.Status != 429 {
			return fmt.Errorf("%w: %w", errRefused, err)
		}
	}
}

// patience is how long a work may take to its end, whatever befalls it.
const patience = 90 * time.Second

func (r *torture) key() string { return backup.NewID(time.Now()) }
