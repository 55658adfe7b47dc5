//go:build failpoints && linux

package server_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// breach is one time that something is broken.
type breach struct {
	Rig   string // "SQLite, 1 server", "PostgreSQL, 3 servers"
	Kind  string // a place to be killed at, or a kind of fault
	Work  string
	Place bool   // Kind is a place
	Times int    // that the place is come to until then
	First string // a place to be killed at before Kind; "" = none
	Again string
}

// borne is what came of a breach.
type borne struct {
	Round    int
	Rig      string
	Kind     string
	Place    bool
	Kills    int // that were carried out; of a fault, whether it was
	Jobs     int // that had ended well after it
	Restored int // images that were restored and compared
	Trouble  []string
}

// TestTorture kills servers at every place, in every kind of work, and lets
// other things go wrong; after each time what must hold is looked at from
// outside. KURA_TORTURE=full does so hundreds of times on either database ("make
// torture"), KURA_TORTURE_SEED chooses which, and a run goes on where the one
// before ended.
//
// seed:N44 seed:A32
func TestTorture(t *testing.T) {
	switch os.Getenv("KURA_TORTURE") {
	case "full":
		tortureFully(t)
		return
	case "report": // of what a full one has gone through so far
		openDiary(t).report(t)
		return
	}
	t.Parallel()
	for name, c := range rigs(tortureSeed(t)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Logf("KURA_TORTURE_SEED=%d goes this way again", c.seed)
			chance := rand.New(rand.NewPCG(c.seed, 7))
			r := newTorture(t, c)
			some := slices.DeleteFunc(works(), func(w work) bool { return w.slow })
			chance.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
			some = some[:10]
			if c.postgres { // where each takes as long as a lease
				some = some[:4]
			}
			var came []string
			for _, w := range some {
				r.mustBear(breachOf(chance, name, w))
				came = append(came, places(w.name)...)
			}
			r.mustHold()
			r.allServe()
			came = slices.DeleteFunc(came, func(p string) bool { return undoings[p] != "" })
			if missed := r.unreached(came); len(missed) > 0 && !c.postgres {
				t.Errorf("no server came to %v", missed)
			}
		})
	}
}

// rigs are the installations that are tortured.
func rigs(seed uint64) map[string]rigged {
	return map[string]rigged{
		"SQLite, 1 server":      {seed: seed},
		"PostgreSQL, 3 servers": {seed: seed, postgres: true, servers: 3},
	}
}

func tortureSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("KURA_TORTURE_SEED")
	if text == "" {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("KURA_TORTURE_SEED = %q, want a number", text)
	}
	return seed
}

// breachOf kills by chance at one of the work's places.
func breachOf(chance *rand.Rand, rig string, w work) breach {
	all := places(w.name)
	x := breach{Rig: rig, Work: w.name, Place: true, Times: 1 + chance.IntN(3)}
	if chance.IntN(4) == 0 {
		x.Again = all[chance.IntN(len(all))]
	}
	return x.at(all[chance.IntN(len(all))])
}

// undoings are places that a server comes to only when one was killed before.
var undoings = map[string]string{"level.undone": "level.disk_written", "swap.undone": "inplace.powered_off"}

// at is the breach with that place.
func (x breach) at(place string) breach {
	x.Kind = place
	if x.First = undoings[place]; x.First != "" {
		x.Again, x.Times = place, 1
	}
	return x
}

// bear goes through a round and says what came of it.
func (r *torture) bear(x breach) borne {
	r.Helper()
	out := borne{Rig: x.Rig, Kind: x.Kind, Place: x.Place}
	before, ended, restored := r.killed(), len(r.ended), r.check.restores
	i := slices.IndexFunc(works(), func(w work) bool { return w.name == x.Work })
	w := works()[i]
	began := time.Now()
	for times := x.Times; ; times = 1 {
		r.mu.Lock()
		r.again = x.Again
		r.mu.Unlock()
		if x.Place {
			r.arm(cmp.Or(x.First, x.Kind), times)
		}
		aside := r.aside(x)
		undo := r.strike(x)
		err := errors.Join(w.run(r), aside())
		undo()
		if err != nil && (x.Place || !errors.Is(err, errNotWell) && !errors.Is(err, errRefused)) {
			out.Trouble = append(out.Trouble, fmt.Sprintf("%s, killed at %s (%d): %v", w.name, x.Kind, times, err))
		}
		if !x.Place || times == 1 || r.killed() > before || len(out.Trouble) > 0 {
			break // else the work did not come there so often: once more
		}
	}
	r.carriedOut(x, before)
	r.disarm()
	r.mu.Lock()
	r.again = ""
	out.Trouble = append(out.Trouble, r.trouble...)
	r.trouble = nil
	r.mu.Unlock()
	r.allServe()
	out.Trouble = append(out.Trouble, r.check.check(r.ctx, 1)...)
	out.Trouble = append(out.Trouble, r.lookAtEnded()...)
	if !x.Place {
		before = r.killed() - 1 // of other faults each is one
	}
	out.Kills, out.Jobs, out.Restored = r.killed()-before, len(r.ended)-ended, r.check.restores-restored
	r.Logf("%s: %s at %s (%d, %q): %d kills, %d jobs, %s", x.Rig, x.Work, x.Kind, x.Times, x.Again, out.Kills, out.Jobs, time.Since(began).Round(time.Millisecond))
	return out
}

// carriedOut waits for the death of a server that has taken its order: the work
// may have come to its end a moment before.
func (r *torture) carriedOut(x breach, kills int) {
	r.Helper()
	taken := func() bool {
		return slices.ContainsFunc(r.servers, func(v *victim) bool {
			_, err := os.Stat(filepath.Join(v.conf.Failpoints, cmp.Or(x.First, x.Kind)))
			return err != nil
		})
	}
	if x.Place && taken() && r.killed() == kills {
		r.await("the death of a server", func() bool { return r.killed() > kills })
	}
}

// aside backs another VM up meanwhile, one time of two: then a kill strikes more
// than one job. It returns what waits for that.
func (r *torture) aside(x breach) func() error {
	if x.Work == "first start" || r.chance.IntN(2*len(r.servers)) >= len(r.servers)/2+1 {
		return func() error { return nil }
	}
	vm := r.vms[fmt.Sprintf("vm%02d", tortured+1+r.chance.IntN(bystanders))]
	if err := r.lab.GuestWriteRandom(vm.Name, 2000, r.chance.Int64N(28)<<16, 64<<10, r.chance.Uint64()); err != nil {
		r.Errorf("the guest of %s cannot write: %v", vm.Name, err)
	}
	run, err := r.startBackup(vm, api.BackupOptions{RetentionDays: 31})
	return func() error {
		if err != nil {
			return err
		}
		_, err := r.runEnd(run)
		return err
	}
}

// mustBear is bear for tests that nothing may come to light in.
func (r *torture) mustBear(x breach) {
	r.Helper()
	if out := r.bear(x); len(out.Trouble) > 0 {
		r.Errorf("%+v:\n%s", x, strings.Join(out.Trouble, "\n"))
	}
}

// mustHold looks at everything at the end.
func (r *torture) mustHold() {
	r.Helper()
	r.check.must(r.ctx, allImages)
	if err := r.rebuildCatalogue(); err != nil {
		r.Error(err)
	}
}

func (r *torture) killed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kills
}

// allServe waits until all servers run and have no order left.
func (r *torture) allServe() {
	r.Helper()
	for _, v := range r.servers {
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			v.mu.Lock()
			up := v.client != nil
			v.mu.Unlock()
			if up {
				break
			}
			if time.Now().After(end) {
				r.Fatalf("%s does not serve", v.name)
			}
		}
		v.passed()
	}
}

// unreached are the places that no server has come to.
func (r *torture) unreached(all []string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(all, func(p string) bool { return r.reached[p] })
}
