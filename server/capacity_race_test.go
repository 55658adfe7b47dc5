package server_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// TestSeatsAreNeverOverbookedOnSQLite and its sibling let 200 clients book,
// move, disable and delete schedules around the same few hours, and recount the
// seats from the rows all the while. "make prove-capacity" gives them a minute
// (KURA_PROVE_SECONDS).
//
// seed:N60 seed:A60 seed:A61
func TestSeatsAreNeverOverbookedOnSQLite(t *testing.T) {
	r := newRush(t, store.Config{DSN: "sqlite:" + filepath.Join(t.TempDir(), "kura.db")})
	r.run(1)
}

// seed:N60 seed:A60 seed:A61
func TestSeatsAreNeverOverbookedByServersOnPostgreSQL(t *testing.T) {
	r := newRush(t, store.Config{DSN: pgtest.Database(t)})
	r.several = true
	r.run(3)
}

const rushClients = 200

// rushed are the zones of the schedules: their hours lie across UTC's, or come
// and go.
var rushed = []string{"UTC", "Asia/Tokyo", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Chatham"}

// rushStart is a Monday noon.
var rushStart = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	rushHorizon = 400 * 24 * time.Hour
	// longest is how long after its start a schedule of the rush holds a seat.
	longest = 6 * time.Hour
)

// rush is many clients of a few servers with too few seats.
type rush struct {
	*testing.T
	config  store.Config
	several bool // each server has a store of its own
	clock   *rushClock
	audit   *auditor
	groups  []string // of listed VMs
	pools   []string // groups that select, one in each vcenter
	pooled  []backup.VirtualMachine
	vms     []string
	vcenter []string

	mu       sync.Mutex // guards what follows
	servers  []*booth
	ids      []string
	outcomes map[string]int
	names    int
	taken    []string         // names of schedules that were booked
	off      []string         // schedules that were disabled
	loose    bool             // the clients are: stores are shaky
	over     map[string]seats // by vcenter and version: hours that were too full when its capacity was made smaller
	failed   bool
}

// booth is a server: a planner, with a store that does not always keep what it
// is given.
type booth struct {
	name    string
	db      *store.DB
	planner *backup.Planner
}

type rushClock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *rushClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *rushClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newRush(t *testing.T, c store.Config) *rush {
	r := &rush{T: t, config: c, clock: &rushClock{now: rushStart}, outcomes: map[string]int{}, over: map[string]seats{},
		audit: newAuditor(t, rushStart.Add(-5*24*time.Hour), rushStart.Add(rushHorizon+5*24*time.Hour), rushed...)}
	r.config.Key, r.config.Now, r.config.Migrate = bytes.Repeat([]byte{7}, 32), r.clock.Now, true
	b := r.serve("first")
	ctx := t.Context()
	for i, capacity := range []int{6, 5} {
		v, err := b.planner.CreateVCenter(ctx, backup.VCenter{Name: fmt.Sprint("v", i), Endpoint: "https://v.example", Username: "kura", Password: "p", SlotCapacity: capacity})
		if err != nil {
			t.Fatal(err)
		}
		r.vcenter = append(r.vcenter, v.ID)
		vms := make([]backup.VirtualMachine, 10)
		for k := range vms {
			vms[k] = backup.VirtualMachine{VCenterID: v.ID, InstanceUUID: fmt.Sprint("uuid-", i, k), MOID: fmt.Sprint("vm-", k), Name: fmt.Sprint("vm", i, k)}
		}
		err = b.db.Update(ctx, func(tx backup.Tx) error { return tx.SaveMachines(ctx, vms) })
		if err != nil {
			t.Fatal(err)
		}
		for _, vm := range vms {
			r.vms, r.audit.vcenter[vm.ID] = append(r.vms, vm.ID), v.ID
		}
		r.addPool(v.ID)
	}
	err := b.db.Update(ctx, func(tx backup.Tx) error {
		return tx.InsertRepository(ctx, &backup.RepositoryRecord{Name: "default", Kind: "filesystem", Password: "secret", Default: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		g, err := b.planner.CreateGroup(ctx, backup.Group{Name: fmt.Sprint("g", i), VirtualMachineIDs: r.members(rand.IntN)})
		if err != nil {
			t.Fatal(err)
		}
		r.groups = append(r.groups, g.ID)
	}
	return r
}

// addPool makes a group that selects VMs which come and go.
func (r *rush) addPool(vcenterID string) {
	r.Helper()
	for k := range 4 {
		r.pooled = append(r.pooled, backup.VirtualMachine{VCenterID: vcenterID, InstanceUUID: fmt.Sprint("pool-", k), MOID: fmt.Sprint("vm-pool-", k), Name: fmt.Sprint("pool-", k)})
	}
	g, err := r.servers[0].planner.CreateGroup(r.Context(), backup.Group{Name: "pool of " + vcenterID, Selector: &backup.Selector{VCenterID: vcenterID, NameRegex: "^pool-"}})
	if err != nil {
		r.Fatal(err)
	}
	r.pools = append(r.pools, g.ID)
}

// wander lets a VM come or go, and the groups that select it follow.
func (r *rush) wander() {
	b, vm := r.server(rand.IntN), r.pooled[rand.IntN(len(r.pooled))]
	err := b.db.Update(r.Context(), func(tx backup.Tx) error {
		if rand.IntN(3) == 0 {
			return tx.MarkGone(r.Context(), vm.VCenterID, []string{vm.MOID}, false)
		}
		return tx.SaveMachines(r.Context(), []backup.VirtualMachine{vm})
	})
	followed := 0
	if err == nil {
		var all []backup.Schedule
		all, err = b.planner.FollowGroups(r.Context(), vm.VCenterID, true)
		followed = len(all)
	}
	if err != nil && !errors.Is(err, errLeft) {
		r.fail("inventory on %s: %v", b.name, err)
	}
	for range followed {
		r.count("followed its group")
	}
}

// members draws one to four VMs, of one vcenter or of both.
func (r *rush) members(pick func(int) int) []string {
	var out []string
	for len(out) < 1+pick(4) {
		if vm := r.vms[pick(len(r.vms))]; !slices.Contains(out, vm) {
			out = append(out, vm)
		}
	}
	return out
}

// serve starts a server, whose index is empty.
func (r *rush) serve(name string) *booth {
	r.Helper()
	var db *store.DB
	if r.mu.Lock(); len(r.servers) > 0 && !r.several {
		db = r.servers[0].db
	}
	r.mu.Unlock()
	if db == nil {
		var err error
		if db, err = store.Open(context.Background(), r.config); err != nil {
			r.Fatal(err)
		}
		r.Cleanup(func() {
			if err := db.Close(); err != nil {
				r.Errorf("close the store of %s: %v", name, err)
			}
		})
	}
	b := &booth{name: name, db: db, planner: &backup.Planner{Store: shaky{db, r}}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.servers = append(r.servers, b)
	return b
}

// shaky is a store whose transactions run twice, are rolled back or lose their
// caller now and then, as a store's may.
type shaky struct {
	backup.Store
	r *rush
}

var (
	errAgain = errors.New("once more")
	errLeft  = errors.New("the caller left")
)

func (s shaky) Update(ctx context.Context, fn func(backup.Tx) error) error {
	s.r.mu.Lock()
	loose := s.r.loose
	s.r.mu.Unlock()
	switch n := rand.IntN(100); {
	case !loose:
	case n < 3: // the database asks for a retry
		if err := s.Store.Update(ctx, func(tx backup.Tx) error { return errors.Join(fn(tx), errAgain) }); !errors.Is(err, errAgain) {
			return err
		}
		s.r.count("run again")
	case n < 6: // the caller leaves while the transaction is being kept
		ctx, leave := context.WithCancel(ctx)
		defer leave()
		err := s.Store.Update(ctx, func(tx backup.Tx) error {
			err := fn(tx)
			if err == nil {
				leave()
			}
			return err
		})
		if err != nil && ctx.Err() != nil {
			err = errors.Join(errLeft, err)
		}
		return err
	case n < 9: // what would be kept is recounted before it is
		return s.Store.Update(ctx, func(tx backup.Tx) error {
			if err := fn(tx); err != nil {
				return err
			}
			l, err := s.r.audit.recount(ctx, tx)
			if err == nil {
				s.r.judge("within a transaction", l)
			}
			return err
		})
	}
	return s.Store.Update(ctx, fn)
}

// judge fails the test when an hour has more seats booked than there are.
func (r *rush) judge(when string, l *ledger) {
	first, last := l.now.Add(longest).Unix()/3600, rushStart.Add(rushHorizon).Unix()/3600-1
	for id, v := range l.vcenter {
		r.mu.Lock()
		over := r.over[fmt.Sprint(id, v.Version)]
		r.mu.Unlock()
		for h, n := range l.used[id] {
			if h >= first && h < last && n > v.SlotCapacity && n > over[h] {
				r.fail("%s at %s: %s of vcenter %s (version %d) holds %d seats of %d, and %d when that was set", when, l.now, time.Unix(h*3600, 0).UTC(), v.Name, v.Version, n, v.SlotCapacity, over[h])
			}
		}
	}
}

// fail reports the first failure only: thousands tell no more.
func (r *rush) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.failed {
		r.failed = true
		r.Errorf(format, args...)
	}
}

func (r *rush) count(outcome string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes[outcome]++
}

// wanted is how often each outcome must have been seen, so that the test does
// not pass by doing nothing.
var wanted = map[string]int{
	"booked": 100, "booking: slot_full": 50, "moved": 20, "move: slot_full": 10, "disabled": 20, "enabled": 5, "enabling: slot_full": 3, "deleted": 50,
	"booking: conflict": 5, "move: stale": 2, "group changed": 3, "group: slot_full": 2, "capacity changed": 2, "recommendation booked": 20,
	"followed its group": 5, "run again": 5, "caller left": 5, "checked": 10, "looked": 5, "recounted": 5, "started cold": 2,
}

// lacking names an outcome that was not seen often enough.
func (r *rush) lacking() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, outcome := range slices.Sorted(maps.Keys(wanted)) {
		if r.outcomes[outcome] < wanted[outcome] {
			return outcome
		}
	}
	return ""
}

// run lets the clients loose on that many servers.
func (r *rush) run(servers int) {
	seconds, err := strconv.ParseFloat(cmp.Or(os.Getenv("KURA_PROVE_SECONDS"), "4"), 64)
	if err != nil {
		r.Fatalf("KURA_PROVE_SECONDS: %v", err)
	}
	for i := 1; i < servers; i++ {
		r.serve(fmt.Sprint("server ", i+1))
	}
	idle := r.serve("idle") // looks once, and then misses all that the others do
	r.mu.Lock()
	r.servers, r.loose = r.servers[:servers], true
	r.mu.Unlock()
	r.slots(idle, r.vcenter[0])
	duration := time.Duration(seconds * float64(time.Second))
	end, limit := time.Now().Add(duration), time.Now().Add(duration+4*time.Minute)
	over := func() bool { // by the clock, and not before everything has happened
		now := time.Now()
		return now.After(limit) || now.After(end) && r.lacking() == ""
	}
	var wg sync.WaitGroup
	for i := range rushClients {
		wg.Go(func() {
			c := guest{r, rand.New(rand.NewPCG(1, uint64(i)))}
			for !over() {
				c.act()
			}
		})
	}
	for _, chore := range []struct {
		every time.Duration
		do    func()
	}{{10 * time.Millisecond, func() { r.clock.pass(30 * time.Second) }}, {50 * time.Millisecond, r.recount}, {50 * time.Millisecond, r.wander}, {duration / 20, r.resize}, {duration / 5, r.startCold}} {
		wg.Go(func() {
			tick := time.NewTicker(chore.every)
			defer tick.Stop()
			for !over() {
				<-tick.C
				chore.do()
			}
		})
	}
	wg.Wait()
	if outcome := r.lacking(); outcome != "" {
		r.Errorf("%q was seen %d times, want %d at least", outcome, r.outcomes[outcome], wanted[outcome])
	}
	r.Logf("%d clients for %s: %v", rushClients, duration, r.outcomes)
	r.settle(idle)
}

// recount checks one state of the database.
func (r *rush) recount() {
	b := r.server(rand.IntN)
	err := b.db.View(r.Context(), func(tx backup.Tx) error {
		l, err := r.audit.recount(r.Context(), tx)
		if err != nil {
			return err
		}
		r.judge("recounted on "+b.name, l)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ids = l.ids
		return nil
	})
	if err != nil {
		r.fail("recount on %s: %v", b.name, err)
		return
	}
	r.count("recounted")
}

// recording is a store that writes down which hours are too full for the
// capacity that a transaction sets: they may stay so.
type recording struct {
	backup.Store
	r *rush
}

func (s recording) Update(ctx context.Context, fn func(backup.Tx) error) error {
	return s.Store.Update(ctx, func(tx backup.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		l, err := s.r.audit.recount(ctx, tx)
		if err != nil {
			return err
		}
		s.r.mu.Lock()
		defer s.r.mu.Unlock()
		for id, v := range l.vcenter {
			// Only when it is set: who still judges an older state must not meet the
			// smaller counts of a later one.
			if key := fmt.Sprint(id, v.Version); s.r.over[key] == nil {
				s.r.over[key] = l.used[id]
			}
		}
		return nil
	})
}

// resize changes the capacity of a vcenter.
func (r *rush) resize() {
	b, id := r.server(rand.IntN), r.vcenter[rand.IntN(len(r.vcenter))]
	p := backup.Planner{Store: recording{b.db, r}}
	var v backup.VCenter
	err := b.db.View(r.Context(), func(tx backup.Tx) (err error) {
		v, err = tx.VCenter(r.Context(), id)
		return err
	})
	if err == nil {
		v.SlotCapacity = 3 + rand.IntN(5)
		_, err = p.UpdateVCenter(r.Context(), v)
	}
	if err != nil {
		r.fail("resize on %s: %v", b.name, err)
	}
	r.count("capacity changed")
}

// startCold adds a server that knows nothing of what went before, a few times.
func (r *rush) startCold() {
	r.mu.Lock()
	n := r.outcomes["started cold"]
	r.mu.Unlock()
	if n < wanted["started cold"] {
		r.serve(fmt.Sprint("cold ", n+1))
		r.count("started cold")
	}
}

func (r *rush) server(pick func(int) int) *booth {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.servers[pick(len(r.servers))]
}

// settle compares every server's timeslots with the recount, when all is quiet.
func (r *rush) settle(idle *booth) {
	r.Helper()
	var l *ledger
	if err := idle.db.View(r.Context(), func(tx backup.Tx) (err error) {
		l, err = r.audit.recount(r.Context(), tx)
		return err
	}); err != nil {
		r.Fatal(err)
	}
	r.judge("at the end", l)
	r.serve("last")
	for _, b := range append(r.servers, idle) {
		for id, v := range l.vcenter {
			slots := r.slots(b, id)
			if len(slots) < 9599 {
				r.Errorf("%s lists %d hours of %s, want 400 days", b.name, len(slots), v.Name)
			}
			for _, s := range slots[:len(slots)-1] { // the last one ends after the horizon
				if s.Start.Before(l.now.Add(longest)) {
					continue // what began earlier may still hold it
				}
				if want := l.used[id][s.Start.Unix()/3600]; s.Used != want || s.Capacity != v.SlotCapacity || s.Free != max(0, v.SlotCapacity-want) {
					r.Errorf("%s says that %s of %s holds %d of %d seats with %d free, want %d of %d", b.name, s.Start, v.Name, s.Used, s.Capacity, s.Free, want, v.SlotCapacity)
					break
				}
			}
		}
	}
}

func (r *rush) slots(b *booth, vcenterID string) []backup.Timeslot {
	r.Helper()
	now := r.clock.Now()
	slots, _, err := b.planner.Timeslots(r.Context(), backup.TimeslotQuery{VCenterID: vcenterID, TimeZone: "UTC", From: now, To: now.Add(rushHorizon)})
	if err != nil {
		r.Errorf("timeslots of %s: %v", b.name, err)
		return make([]backup.Timeslot, 1)
	}
	return slots
}
