//go:build failpoints && linux

package server_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Of a full torture: passes over all places, other faults, and after how many
// rounds an installation is a new one.
const (
	fullPlacesSQLite   = 2
	fullPlacesPostgres = 1
	fullFaults         = 110 // on each database
	legRounds          = 40
)

// diary is what a full torture has gone through. It is written after each round,
// so that another run goes on where this one ends.
type diary struct {
	Seed uint64
	Done map[string]borne // by rig and number of the round

	mu   sync.Mutex // guards Done and the file
	file string
}

// tortureFully goes through all rounds of a seed that were not gone through yet,
// and writes the table of them into the page.
func tortureFully(t *testing.T) {
	t.Helper()
	d := openDiary(t)
	t.Run("rigs", func(t *testing.T) {
		for name, c := range rigs(d.Seed) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				d.endure(t, name, c)
			})
		}
	})
	d.report(t)
}

func openDiary(t *testing.T) *diary {
	t.Helper()
	dir := cmp.Or(os.Getenv("KURA_TORTURE_STATE"), filepath.Join(root, "build"))
	d := &diary{file: filepath.Join(dir, "torture.json"), Done: map[string]borne{}}
	b, err := os.ReadFile(d.file)
	if err == nil {
		err = json.Unmarshal(b, d)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if d.Seed == 0 || os.Getenv("KURA_TORTURE_SEED") != "" && d.Seed != tortureSeed(t) {
		d.Seed, d.Done = tortureSeed(t), map[string]borne{}
	}
	t.Logf("seed %d, %d rounds were gone through before; %s", d.Seed, len(d.Done), d.file)
	return d
}

// plan lists the rounds of a rig, in an order by chance.
func plan(name string, c rigged) (all []breach) {
	chance := rand.New(rand.NewPCG(c.seed, uint64(len(name))))
	passes := fullPlacesSQLite
	if c.postgres {
		passes = fullPlacesPostgres
	}
	for range passes {
		for _, w := range works() {
			for _, place := range places(w.name) {
				all = append(all, breachOf(chance, name, w).at(place))
			}
		}
	}
	var other []breach
	for _, f := range faults() {
		for _, w := range works() {
			if f.fits(w) && (!f.many || c.postgres) && !w.slow {
				other = append(other, breach{Rig: name, Work: w.name, Kind: f.name})
			}
		}
	}
	chance.Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
	all = append(all, other[:min(len(other), fullFaults)]...)
	chance.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// endure goes through the rounds of a rig, in installations of legRounds each.
func (d *diary) endure(t *testing.T, name string, c rigged) {
	t.Helper()
	all := plan(name, c)
	for from := 0; from < len(all); from += legRounds {
		left := d.left(name, from, min(from+legRounds, len(all)))
		if len(left) == 0 {
			continue
		}
		t.Run(fmt.Sprint(from), func(t *testing.T) {
			c.seed += uint64(from)
			r := newTorture(t, c)
			for _, n := range left {
				x := all[n]
				out := r.bear(x)
				out.Round = n
				d.note(t, name, out)
				t.Logf("%s: round %d of %d, %d kills and %d troubles in this installation so far", name, n+1, len(all), r.killed(), len(out.Trouble))
				for _, v := range out.Trouble {
					t.Errorf("%+v: %s", x, v)
				}
			}
			before := r.check.restores
			r.mustHold()
			d.add(t, name, left[len(left)-1], r.check.restores-before)
		})
	}
}

func key(rig string, round int) string { return fmt.Sprintf("%s/%d", rig, round) }

// left are the rounds that were not gone through yet, or not without trouble.
func (d *diary) left(rig string, from, to int) (rounds []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := from; n < to; n++ {
		if b, done := d.Done[key(rig, n)]; !done || len(b.Trouble) > 0 {
			rounds = append(rounds, n)
		}
	}
	return rounds
}

func (d *diary) note(t *testing.T, rig string, out borne) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Done[key(rig, out.Round)] = out
	d.save(t)
}

// add counts the images that were restored at the end of an installation.
func (d *diary) add(t *testing.T, rig string, round, restored int) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.Done[key(rig, round)]
	out.Restored += restored
	d.Done[key(rig, round)] = out
	d.save(t)
}

// save writes the diary. The caller holds mu.
func (d *diary) save(t *testing.T) {
	t.Helper()
	b, err := json.Marshal(d)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(d.file), 0o750), os.WriteFile(d.file+".tmp", b, 0o600), os.Rename(d.file+".tmp", d.file))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sum is what came of all rounds of one kind.
type sum struct{ rounds, kills, jobs, restored, trouble int }

func (s sum) plus(b borne) sum {
	return sum{s.rounds + 1, s.kills + b.Kills, s.jobs + b.Jobs, s.restored + b.Restored, s.trouble + len(b.Trouble)}
}

// The place in the page at which the table stands.
const (
	reliabilityPage = "docs/dev/reliability.md"
	tableBegins     = "<!-- the table of make torture begins -->\n"
	tableEnds       = "<!-- the table of make torture ends -->\n"
)

// report writes the table into the page, and says whether it is enough.
func (d *diary) report(t *testing.T) {
	t.Helper()
	places, others, rigs := map[string]sum{}, map[string]sum{}, map[string]sum{}
	var kills, faults sum
	for _, b := range d.Done {
		rigs[b.Rig] = rigs[b.Rig].plus(b)
		if b.Place {
			kills, places[b.Kind] = kills.plus(b), places[b.Kind].plus(b)
		} else {
			faults, others[b.Kind] = faults.plus(b), others[b.Kind].plus(b)
		}
	}
	if kills.kills < 300 || faults.rounds < 200 {
		t.Errorf("%d kills and %d other faults, want at least 300 and 200", kills.kills, faults.rounds)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "Seed %d: servers were killed %d times at %d places, %d other faults of %d kinds struck; %d jobs ended, %d images were restored and compared byte for byte. **%d violations.**\n",
		d.Seed, kills.kills, len(places), faults.rounds, len(others), kills.jobs+faults.jobs, kills.restored+faults.restored, kills.trouble+faults.trouble)
	table(&out, "servers", "rounds", rigs, func(s sum) int { return s.rounds })
	table(&out, "killed at", "kills", places, func(s sum) int { return s.kills })
	table(&out, "other fault", "times", others, func(s sum) int { return s.rounds })
	file := filepath.Join(root, reliabilityPage)
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(page), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		t.Fatalf("%s has no place for the table", reliabilityPage)
	}
	if err := os.WriteFile(file, []byte(before+tableBegins+"\n"+out.String()+"\n"+tableEnds+after), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", strings.SplitN(out.String(), "\n", 2)[0])
}

func table(out *bytes.Buffer, what, times string, rows map[string]sum, count func(sum) int) {
	fmt.Fprintf(out, "\n| %s | %s | jobs | images restored | violations |\n|---|---|---|---|---|\n", what, times)
	names := make([]string, 0, len(rows))
	for name := range rows {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		s := rows[name]
		fmt.Fprintf(out, "| %s | %d | %d | %d | %d |\n", name, count(s), s.jobs, s.restored, s.trouble)
	}
}
