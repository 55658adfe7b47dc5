package server_test

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// checker knows what must hold of an installation after whatever befell it, and
// looks from outside: through the API, in the vCenter, and in the database where
// the API does not tell. What the traffic did it learns from the clients that it
// gives out; the bytes of each point in time it asks the lab for, which has
// Config.KeepSums.
//
//	c := newChecker(t, lab, checked{Database: dsn, KeyFile: key})
//	w.api = c.client("first", url, tokenFile) // again after each start
//	...
//	for _, v := range c.check(ctx, 5) { t.Error(v) }
type checker struct {
	checked
	t         *testing.T
	lab       *lab.Lab
	neighbour neighbour

	mu        sync.Mutex // guards what follows
	servers   map[string]*api.ClientWithResponses
	order     []string // of servers, the one that was started last at the end
	written   map[string]*written
	off       map[string]bool // moids of VMs that may be off
	on        map[string]string
	images    map[string]api.BackupImage
	restored  map[string]bool // images that were restored by a check
	violating []string        // found between checks

	// Counted for whoever reports.
	checks, restores int
}

// checked is what a checker is told of the installation.
type checked struct {
	Database string           // sqlite:PATH or postgres://...
	KeyFile  string           // of the installation
	Now      func() time.Time // the servers' clock; nil = the machine's, or that of PostgreSQL
	Grace    time.Duration    // within which what is left behind must be gone; default 60 s
}

// newChecker takes stock of the lab, and puts there what belongs to another
// installation and to nobody.
func newChecker(t *testing.T, l *lab.Lab, what checked) *checker {
	t.Helper()
	if what.Grace == 0 {
		what.Grace = time.Minute
	}
	c := &checker{checked: what, t: t, lab: l, servers: map[string]*api.ClientWithResponses{}, written: map[string]*written{}, off: map[string]bool{},
		on: map[string]string{}, images: map[string]api.BackupImage{}, restored: map[string]bool{}}
	c.settleNeighbour()
	for _, vm := range l.VMs() {
		if vm.PowerState == "poweredOn" {
			c.on[vm.Moid] = vm.Name
		}
	}
	return c
}

// client returns a client of the server of that name, whose writes the checker
// remembers. A server that was started anew gets a new one under its old name.
func (c *checker) client(name, endpoint, tokenFile string) *api.ClientWithResponses {
	c.t.Helper()
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		c.t.Fatal(err)
	}
	a, err := api.New(api.Config{Endpoint: endpoint, Token: strings.TrimSpace(string(token)), Transport: c.recorder()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers[name] = a
	c.order = append(slices.DeleteFunc(c.order, func(n string) bool { return n == name }), name)
	return a
}

// down tells that the server of that name does not run.
func (c *checker) down(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.servers, name)
	c.order = slices.DeleteFunc(c.order, func(n string) bool { return n == name })
}

// live are the clients of the servers that run, by name.
func (c *checker) live() map[string]*api.ClientWithResponses {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.servers)
}

// any is a client of some server that runs.
func (c *checker) any() *api.ClientWithResponses {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.order) == 0 {
		c.t.Fatal("the checker knows no server that runs")
	}
	return c.servers[c.order[len(c.order)-1]]
}

// noteOff tells that a VM may be off from now on, as after a restore in place
// that was not asked to power it on.
func (c *checker) noteOff(moid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off[moid] = true
}

// What check restores.
const (
	noImages  = 0
	allImages = -1 // of each VM the newest, and what no check has restored yet
)

// check returns what does not hold, each as a sentence that begins with the
// number of the invariant. Faults must be cleared before; it waits for what
// servers do by themselves, for as long as they may take. It restores so many
// images, the newest ones of the VMs first, and compares every byte.
func (c *checker) check(ctx context.Context, sample int) []string {
	c.t.Helper()
	c.checks++
	var out []string
	say := func(n int, format string, args ...any) {
		out = append(out, fmt.Sprintf("(%d) ", n)+fmt.Sprintf(format, args...))
	}
	server, err := c.any().GetServerWithResponse(ctx)
	if err := api.Err(server, err); err != nil {
		say(5, "No server answers: %v.", err)
		return out
	}
	c.settle(ctx, server.JSON200.InstallationID, say)
	c.lookAtNeighbour(ctx, say)
	images, err := c.listImages(ctx)
	if err != nil {
		say(3, "The images cannot be listed: %v.", err)
		return out
	}
	c.lookAtImages(images, say)
	c.lookAtJobs(ctx, say)
	c.recountSeats(ctx, say)
	c.lookAtWritten(ctx, say)
	c.restoreSome(ctx, images, sample, say)
	c.mu.Lock()
	defer c.mu.Unlock()
	out = append(out, c.violating...)
	c.violating = nil
	return out
}

// must fails the test for each thing that does not hold.
func (c *checker) must(ctx context.Context, sample int) {
	c.t.Helper()
	for _, v := range c.check(ctx, sample) {
		c.t.Error(v)
	}
}

// sayer takes down that an invariant does not hold.
type sayer func(n int, format string, args ...any)

// settle waits until nothing is left behind, no VM stands still and no job is
// nobody's. What stays so for the whole grace does not hold.
func (c *checker) settle(ctx context.Context, installation string, say sayer) {
	first := map[string]time.Time{}
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		now := map[string]int{}
		err := c.unsettled(ctx, installation, func(n int, format string, args ...any) { now[fmt.Sprintf(format, args...)] = n })
		if err != nil {
			now["What is left behind cannot be told: "+err.Error()] = 1
		}
		if len(now) == 0 {
			return
		}
		maps.DeleteFunc(first, func(text string, _ time.Time) bool { return now[text] == 0 })
		for text := range now {
			if first[text].IsZero() {
				first[text] = time.Now()
			}
		}
		if time.Since(began) < c.Grace {
			continue
		}
		// What came up late has a grace of its own; without traffic that ends.
		waiting := false
		for _, text := range slices.Sorted(maps.Keys(first)) {
			if time.Since(first[text]) >= c.Grace {
				say(now[text], "After %s: %s", c.Grace, text)
			} else if time.Since(began) < 2*c.Grace {
				waiting = true
			}
		}
		if !waiting || ctx.Err() != nil {
			return
		}
	}
}

// clock is the servers' time.
func (c *checker) clock() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// pathOf is the path of an address that may be a whole URL.
func pathOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Path
}
