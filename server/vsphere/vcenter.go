package vsphere

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Config configures a [Connector]. Zero fields have the defaults given.
type Config struct {
	Log *slog.Logger     // default: nothing is logged
	Now func() time.Time // default time.Now; the age of kept disks goes by it, or by default by the vcenter's own clock

	CallTimeout time.Duration // of one call; default 3 min
	DialTimeout time.Duration // of one connection; default 15 s
	KeepAlive   time.Duration // an idle session is touched this often; default 5 min
	Stall       time.Duration // a disk stream without a byte for so long is given up; default 5 min
	Retry       time.Duration // first wait before what was blocked is tried again, then doubled; default 2 s
	GiveUp      time.Duration // how long to try what is blocked; default 10 min
	KeepDisks   time.Duration // replaced disks of a quick restore are kept for; default 24 h

	// Settle is how long a restore that is stopped may take for what is left once
	// its bytes are there; default 5 s.
	Settle time.Duration

	// Movers counts the servers that move disks of a vcenter, this one included:
	// they share its bandwidth. nil = there is no other.
	Movers func(ctx context.Context, vcenterID string) (int, error)
	Share  time.Duration // how often they are counted; default 5 s

	ProxyUUID  string        // BIOS UUID of the VM in which this server runs; "" = in none, so there is no hot-add
	Devices    DeviceOpener  // opens what is attached to that VM; nil = there is no hot-add
	DeviceWait time.Duration // how long an attached disk may take to show up in that VM; default 1 min

	NBDCommand string        // program that serves one disk over NBD, as docs/dev/transports.md says; "" = there is no nbd
	NBDStop    time.Duration // how long that program may take to end when it is asked to; default 5 s

	theirs bool // the vcenter's clock tells how old kept disks are
}

func (c Config) defaulted() Config {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	or(&c.CallTimeout, 3*time.Minute)
	or(&c.DialTimeout, 15*time.Second)
	or(&c.KeepAlive, 5*time.Minute)
	or(&c.Stall, 5*time.Minute)
	or(&c.Retry, 2*time.Second)
	or(&c.GiveUp, 10*time.Minute)
	or(&c.KeepDisks, 24*time.Hour)
	or(&c.Share, 5*time.Second)
	or(&c.Settle, 5*time.Second)
	or(&c.DeviceWait, time.Minute)
	or(&c.NBDStop, 5*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now, c.theirs = time.Now, true
	}
	return c
}

// sweepPatience is how long a sweep waits for one thing that is blocked: it has
// others to look after, and comes again.
func (c Config) sweepPatience() time.Duration { return c.GiveUp / 20 }

// attachPatience is how long an attachment waits for what blocks it: there may
// be another transport, and the job comes again.
func (c Config) attachPatience() time.Duration { return c.GiveUp / 5 }

// Connector connects to vcenters and keeps one session for each.
type Connector struct {
	config Config

	mu       sync.Mutex // guards what follows
	sessions map[string]*connection
	retired  []*connection // replaced, but perhaps in use by a job
	closed   bool
}

var _ backup.VSphere = (*Connector)(nil)

// connection is a session that is there, or on its way.
type connection struct {
	fingerprint string
	ready       chan struct{} // closed when session or err is set
	session     *Session
	err         error
}

// New returns a connector. It opens nothing yet.
func New(c Config) *Connector {
	return &Connector{config: c.defaulted(), sessions: map[string]*connection{}}
}

// Connect implements [backup.VSphere]. A session is opened once per vcenter
// and opened anew when its address, account or certificate have changed.
func (c *Connector) Connect(ctx context.Context, v backup.VCenter) (backup.VSphereSession, error) {
	for {
		k, mine, err := c.claim(v)
		if err != nil {
			return nil, err
		}
		if mine {
			k.session, k.err = open(ctx, c.config, v)
			if k.err != nil {
				c.drop(v.ID, k)
			}
			close(k.ready)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-k.ready:
		}
		switch {
		case k.err == nil:
			k.session.limit(ctx, v.Limits.BytesPerSecond)
			k.session.wanted.Store(v.Transport)
			if err := k.session.probe(ctx); err != nil {
				return nil, err
			}
			return k.session, nil
		case mine || ctx.Err() != nil || !cancelled(k.err):
			return nil, k.err
		}
		// Another caller's context ended while it opened the session: open it ourselves.
	}
}

// claim returns the vcenter's connection, and whether the caller has to open it.
func (c *Connector) claim(v backup.VCenter) (*connection, bool, error) {
	fingerprint := fingerprint(v)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false, backup.Errorf(backup.Unavailable, "", "The server is shutting down.")
	}
	old := c.sessions[v.ID]
	if old != nil && old.fingerprint == fingerprint {
		return old, false, nil
	}
	k := &connection{fingerprint: fingerprint, ready: make(chan struct{})}
	c.sessions[v.ID] = k
	if old != nil {
		c.retired = append(c.retired, old)
	}
	return k, true, nil
}

func (c *Connector) drop(id string, k *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[id] == k {
		delete(c.sessions, id)
	}
}

// Close logs out of all sessions.
func (c *Connector) Close() error {
	c.mu.Lock()
	c.closed = true
	all := append(slices.Collect(maps.Values(c.sessions)), c.retired...)
	c.sessions, c.retired = map[string]*connection{}, nil
	c.mu.Unlock()
	var wg sync.WaitGroup
	for _, k := range all {
		wg.Go(k.close)
	}
	wg.Wait()
	return nil
}

func (k *connection) close() {
	<-k.ready
	if k.session != nil {
		k.session.close()
	}
}

// fingerprint changes with everything that a session depends on.
func fingerprint(v backup.VCenter) string {
	h := sha256.New()
	for _, s := range []string{v.Endpoint, v.Username, v.Password.Reveal(), v.Thumbprint, v.CACertificate} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil))
}
