// Package lab is a vCenter for tests and for the demo: govmomi's simulator
// with what a backup needs and it lacks. Its disks hold bytes; snapshots
// freeze them in delta files; writes of the guest feed changed block tracking;
// leases export and import streamOptimized VMDKs; files keep their content
// when they are moved, attached and detached; and what goes wrong in a real
// data centre can be made to go wrong here.
//
// Nothing of govmomi is changed: Registry.Handler sends the calls that matter
// to a router of the lab's, which runs the simulator's own methods as parts.
//
// The lab is no vCenter to learn the API from: privileges are not checked,
// hosts do no work, nothing survives Close, and it is never linked into a
// program that is shipped to protect data.
package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
)

// Config says what a lab has. The zero value is a small lab on a free port of this machine.
type Config struct {
	VMs           int           // default 12, named vm01, vm02, ...; -1: none
	Hosts         int           // default 2
	Datastores    int           // default 2
	DatastoreSize int64         // bytes of each; default 64 TiB
	DiskSize      int64         // bytes; default 64 MiB. Every second VM has a second disk of the same size
	Fill          float64       // share of a disk that holds data; default 0.5
	Seed          uint64        // of the disks' content; default 1
	UUID          string        // instance UUID of the vCenter, from which the VMs' derive; default random
	User          string        // default administrator@vsphere.local
	Password      string        // default kura-lab
	Listen        string        // default 127.0.0.1:0
	Dir           string        // where the disks' files are made; default the system's temporary folder
	LeaseTimeout  time.Duration // how long a lease lives without progress; default 5 min
	MaxAreas      int           // areas of one QueryChangedDiskAreas answer; default 2000
	Logger        *slog.Logger  // default: none

	CertificateDays int  // for which its certificate is good; default 3650
	KeepSums        bool // of the disks in each snapshot, as FrozenSHA256 gives them
}

func (c Config) withDefaults() Config {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&c.VMs, 12)
	set(&c.Hosts, 2)
	set(&c.Datastores, 2)
	set(&c.MaxAreas, 2000)
	set(&c.CertificateDays, 3650)
	c.VMs = max(c.VMs, 0)
	if c.DatastoreSize == 0 {
		c.DatastoreSize = 64 << 40
	}
	if c.DiskSize == 0 {
		c.DiskSize = 64 << 20
	}
	if c.Fill == 0 {
		c.Fill = 0.5
	}
	if c.Seed == 0 {
		c.Seed = 1
	}
	if c.UUID == "" {
		c.UUID = uuid.NewString()
	}
	if c.User == "" {
		c.User = "administrator@vsphere.local"
	}
	if c.Password == "" {
		c.Password = "kura-lab"
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.LeaseTimeout == 0 {
		c.LeaseTimeout = 5 * time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Lab is one simulated vCenter.
type Lab struct {
	config Config
	log    *slog.Logger
	dir    string

	model    *simulator.Model
	service  *simulator.Service
	vapi     http.Handler
	listener net.Listener
	server   *http.Server
	cert     *x509.Certificate

	store    *store
	index    *index
	faults   faults
	journal  journal
	sessions sessions
	leases   leases
	place    placement
	policies policies
	frozen   frozen

	mu        sync.Mutex // guards snapshots and writers
	snapshots map[ref]*snapshot
	writers   map[*writer]struct{}

	loaning sync.Mutex             // guards loans
	loans   map[ref]map[int32]loan // by VM and device key

	deviceRead, deviceWritten atomic.Int64

	busy     sync.RWMutex // see alone
	filing   sync.Mutex   // one file is moved, copied or deleted at a time
	goldTag  string
	stuns    sync.Map // VM -> *sync.RWMutex
	shutting sync.Map // by VM: its guest is shutting down
	added    atomic.Int64
	taskID   atomic.Int64
	macs     atomic.Uint32
	traffic  atomic.Int64
	work     sync.WaitGroup
	closing  chan struct{}
	closed   sync.Once
}

// New starts a lab. Close ends it.
func New(c Config) (*Lab, error) {
	c = c.withDefaults()
	l := &Lab{
		config: c, log: c.Logger, index: newIndex(), faults: faults{kinds: Faults()},
		snapshots: map[ref]*snapshot{}, loans: map[ref]map[int32]loan{}, writers: map[*writer]struct{}{}, closing: make(chan struct{}),
	}
	if err := l.build(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build() (err error) {
	if l.dir, err = os.MkdirTemp(l.config.Dir, "kura-lab-"); err != nil {
		return fmt.Errorf("make the lab's folder: %w", err)
	}
	l.store = &store{heap: newHeap(l.dir), links: map[string]*link{}, spaces: map[string]*space{}}
	if err := l.createModel(); err != nil {
		return err
	}
	if err := l.listen(); err != nil {
		return err
	}
	if err := l.connect(); err != nil {
		return err
	}
	return l.populate()
}

// Close ends all that the lab runs and removes its files.
func (l *Lab) Close() error {
	var err error
	l.closed.Do(func() {
		close(l.closing)
		l.stopWriters(func(ref) bool { return true })
		l.leases.close()
		l.sessions.cancelWaits("")
		if l.server != nil {
			err = l.server.Close()
		} else if l.listener != nil {
			err = l.listener.Close()
		}
		l.work.Wait()
		if l.model != nil && l.model.Service != nil {
			l.model.Remove()
		}
		if l.store != nil {
			err = errors.Join(err, l.store.heap.close())
		}
		if l.dir != "" {
			err = errors.Join(err, os.RemoveAll(l.dir))
		}
	})
	return err
}

// URL is the vCenter's SDK address, with the credentials in it.
func (l *Lab) URL() *url.URL {
	return &url.URL{Scheme: "https", Host: l.host(), Path: "/sdk", User: url.UserPassword(l.config.User, l.config.Password)}
}

// host is where clients of this machine find the lab.
func (l *Lab) host() string {
	a, ok := l.listener.Addr().(*net.TCPAddr)
	if !ok || !a.IP.IsUnspecified() {
		return l.listener.Addr().String()
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Port))
}

// Endpoint is the vCenter's SDK address without credentials.
func (l *Lab) Endpoint() string {
	u := l.URL()
	u.User = nil
	return u.String()
}

// User is whom the vCenter lets in.
func (l *Lab) User() string { return l.config.User }

// Password is what the user logs in with.
func (l *Lab) Password() string { return l.config.Password }

// UUID is the vCenter's instance UUID.
func (l *Lab) UUID() string { return l.config.UUID }

// Thumbprint is the SHA-256 thumbprint of the vCenter's certificate, as govmomi writes it.
func (l *Lab) Thumbprint() string { return soap.ThumbprintSHA256(l.cert) }

// ThumbprintSHA1 is its older form.
func (l *Lab) ThumbprintSHA1() string { return soap.ThumbprintSHA1(l.cert) }

// Certificate is the vCenter's self-signed certificate.
func (l *Lab) Certificate() *x509.Certificate { return l.cert }

// Traffic is the number of bytes that left by leases and datastore files.
func (l *Lab) Traffic() int64 { return l.traffic.Load() }

// context returns what vcsim's methods want; locks are held on its behalf, so every goroutine needs its own.
func (l *Lab) context() *simulator.Context {
	c := *l.service.Context
	c.Context = context.Background()
	return &c
}

func (l *Lab) registry() *simulator.Registry { return l.service.Context.Map }

func (l *Lab) nameOf(r ref) string {
	if v, ok := l.index.get(r); ok {
		return v.Name
	}
	return ""
}

// tlsConfig serves HTTP/1.1 only, as ESXi does.
func tlsConfig(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
}
