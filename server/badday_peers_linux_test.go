package server_test

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// pair is two servers on one PostgreSQL, each with a way of its own to it, and
// a lab behind another.
type pair struct {
	*world
	servers [2]*process
	ways    [2]*pgtest.Proxy // to the database
	vsphere *pgtest.Proxy
	check   *checker
	id      string // of the vcenter
}

const pairLease = 3 * time.Second

func newPair(t *testing.T, c lab.Config) *pair {
	t.Helper()
	dsn, way := pgtest.Through(t)
	return newPairOn(t, c, dsn, way)
}

// newPairOn is newPair on a database to which that way leads.
func newPairOn(t *testing.T, c lab.Config, dsn string, first *pgtest.Proxy) *pair {
	t.Helper()
	c.KeepSums, c.LeaseTimeout = true, 10*time.Second
	l := newLab(t, c)
	p := &pair{world: &world{T: t, ctx: t.Context(), lab: l}}
	p.ways = [2]*pgtest.Proxy{first, first.Another(t)}
	third := first.Another(t) // the checker's
	at := func(w *pgtest.Proxy) string { return strings.Replace(dsn, first.Addr(), w.Addr(), 1) }
	for i := range p.servers {
		conf := child{Database: at(p.ways[i]), Lease: pairLease, Slots: 4}
		if i > 0 {
			conf.KeyFile = p.servers[0].conf.Data + "/kura.key"
		}
		p.servers[i] = spawn(t, conf)
	}
	p.check = newChecker(t, l, checked{Database: at(third), KeyFile: p.servers[0].conf.Data + "/kura.key"})
	for i := range p.servers {
		p.check.client(fmt.Sprint(i), p.servers[i].url, p.servers[0].tokenFile())
	}
	p.ask(0)
	end, err := url.Parse(l.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	p.vsphere = pgtest.NewProxy(t, "tcp", end.Host)
	v := api.VCenter{Name: "lab", Endpoint: "https://" + p.vsphere.Addr(), Username: l.User(), Password: l.Password(), Thumbprint: l.Thumbprint(), SlotCapacity: 100}
	made, err := p.api.CreateVCenterWithResponse(p.ctx, nil, v)
	p.ok(made, err)
	p.id = made.JSON201.ID
	p.until("the inventory", func() bool {
		g, err := p.api.GetVCenterWithResponse(p.ctx, p.id)
		p.ok(g, err)
		return g.JSON200.SyncState == api.SyncStateReady
	})
	return p
}

// ask has the world speak to that server.
func (p *pair) ask(i int) {
	p.api = client(p.T, p.servers[i].url, p.servers[0].tokenFile())
}

// begin starts a backup whose streams stand still for a while, and tells which
// server reads the disks.
func (p *pair) begin(vm string, stall time.Duration, times int) (run, job string, owner int) {
	p.Helper()
	if err := p.lab.Arm(lab.Fault{Kind: "stream_stall", After: 1 << 20, Delay: stall, Count: times}); err != nil {
		p.Fatal(err)
	}
	run = p.startBackup(p.vm(p.id, vm).ID)
	r, err := p.api.GetRunWithResponse(p.ctx, run)
	p.ok(r, err)
	job = r.JSON200.Jobs[0].ID
	p.atStep(job, "reading disks")
	for i, s := range p.servers {
		if s.logged(`msg="job started" job=`+regexp.QuoteMeta(job)) > 0 {
			return run, job, i
		}
	}
	p.Fatalf("no server says that it has started job %s", job)
	return "", "", 0
}

// takenOver waits until the second attempt has made its snapshot.
func (p *pair) takenOver(job, vm string) {
	p.Helper()
	p.until("the other server to take the job over", func() bool {
		if j := p.job(job); j.State.Final() {
			p.Fatalf("the job ended %s: %+v", j.State, j.Error)
		}
		return slices.ContainsFunc(p.machine(vm).Snapshots, func(name string) bool { return strings.HasSuffix(name, job+":2") })
	})
}

// wantOne fails unless the run succeeded with its second attempt, its VM has one
// image, and nothing is left.
func (p *pair) wantOne(run, vm string) {
	p.Helper()
	done := p.finish(run)
	if done.State != api.RunStateSucceeded || done.Jobs[0].Attempt != 2 {
		p.Errorf("the run ended %s with attempt %d: %+v", done.State, done.Jobs[0].Attempt, done.Jobs[0].Error)
	}
	if got := p.images(vm); len(got) != 1 || got[0].Status != api.ImageStatusGood {
		p.Errorf("%d images of %s, want one: %+v", len(got), vm, got)
	}
	for _, v := range p.check.check(p.ctx, 1) {
		p.Error(v)
	}
}

// A server that stands still for longer than its lease finds its job taken when
// it wakes: it writes nothing more to it, and removes nothing of the other's.
func TestAServerThatStoodStillWritesNothingMoreToItsJob(t *testing.T) {
	t.Parallel()
	p := newPair(t, lab.Config{VMs: 1, DiskSize: 32 << 20})
	run, job, owner := p.begin("vm01", 5*time.Second, 2)
	if err := p.servers[owner].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.ask(1 - owner)
	p.takenOver(job, "vm01")
	if err := p.servers[owner].cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.until("the one that stood still to notice", func() bool {
		return p.servers[owner].logged(`msg="job lost to another server" job=`+job) > 0
	})
	if s := p.machine("vm01").Snapshots; p.job(job).Step != "removing the snapshot" && !p.job(job).State.Final() && len(s) != 1 {
		t.Errorf("while the other reads, vm01 has snapshots %v, want its one", s)
	}
	p.wantOne(run, "vm01")
	if n := p.servers[owner].logged(`msg="job ended" job=` + job); n != 0 {
		t.Error("the one that stood still wrote the end of the job, too")
	}
}

// A server that its database cannot be reached from gives its jobs up before
// another takes them, and comes back by itself.
func TestAServerThatIsCutOffFromItsDatabaseGivesItsJobsUp(t *testing.T) {
	t.Parallel()
	p := newPair(t, lab.Config{VMs: 2, DiskSize: 32 << 20})
	run, job, owner := p.begin("vm01", 5*time.Second, 1)
	p.ask(1 - owner)
	p.ways[owner].Blackhole(true)
	p.until("the other server to take the job over", func() bool { return p.job(job).Attempt == 2 })
	if p.servers[owner].logged(`msg="job lost to another server" job=`+job) == 0 {
		t.Error("the other server has the job, and the one that was cut off has not given it up")
	}
	p.ways[owner].Blackhole(false)
	p.wantOne(run, "vm01")
	p.ask(owner)
	p.until("the one that was cut off to answer", func() bool {
		r, err := p.api.GetServerWithResponse(p.ctx)
		return api.Err(r, err) == nil
	})
	if p.finish(p.startBackup(p.vm(p.id, "vm02").ID)).State != api.RunStateSucceeded {
		t.Error("the next backup did not succeed")
	}
}

// While the vCenter is out of reach a backup waits; it goes on or is tried again
// when the way is there again, and leaves nothing.
func TestAVCenterThatFallsSilentLosesNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t, lab.Config{VMs: 1, DiskSize: 32 << 20})
	run, _, _ := p.begin("vm01", 2*time.Second, 1)
	p.vsphere.Blackhole(true)
	time.AfterFunc(5*time.Second, func() { p.vsphere.Blackhole(false) })
	done := p.finish(run)
	if done.State != api.RunStateSucceeded || len(p.images("vm01")) != 1 {
		t.Errorf("the run ended %s with %d images: %+v", done.State, len(p.images("vm01")), done.Jobs[0].Error)
	}
	p.vsphere.CutAll()
	for _, v := range p.check.check(p.ctx, 1) {
		t.Error(v)
	}
}

// The same of a storage that falls silent.
func TestAStorageThatFallsSilentLosesNothing(t *testing.T) {
	t.Parallel()
	bucket := s3test.New(t, false)
	way := pgtest.NewProxy(t, "tcp", bucket.Settings["endpoint"])
	bucket.Settings["endpoint"] = way.Addr()
	p := newPair(t, lab.Config{VMs: 1, DiskSize: 32 << 20})
	r, err := p.api.CreateRepositoryWithResponse(p.ctx, nil, api.Repository{Name: "elsewhere", Kind: "s3", Settings: bucket.Settings})
	p.ok(r, err)
	p.slow("stream", time.Second)
	started, err := p.api.BackupVirtualMachineWithResponse(p.ctx, p.vm(p.id, "vm01").ID, nil, api.BackupOptions{RetentionDays: 31, Repository: "elsewhere"})
	p.ok(started, err)
	p.atStep(started.JSON202.Jobs[0].ID, "reading disks")
	p.lab.ClearFaults()
	way.Blackhole(true)
	time.AfterFunc(5*time.Second, func() { way.Blackhole(false) })
	done := p.finish(started.JSON202.ID)
	if done.State != api.RunStateSucceeded || len(p.images("vm01")) != 1 {
		t.Errorf("the run ended %s with %d images: %+v", done.State, len(p.images("vm01")), done.Jobs[0].Error)
	}
	for _, v := range p.check.check(p.ctx, 1) {
		t.Error(v)
	}
}
