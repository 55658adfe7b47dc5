// Package server assembles a kura server: it opens the store and the
// repositories, connects the rooms to each other, serves the API and runs
// jobs. It holds no rules and no formats of its own.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/vsphere"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

// Server is a kura server. Make it with [New], then call Run, then Close.
type Server struct {
	config   Config
	log      *slog.Logger
	listener net.Listener
	http     *http.Server
	ready    atomic.Bool

	db           *store.DB
	vsphere      *vsphere.Connector
	repositories *repository.Repositories
	planner      *backup.Planner
	lineage      *backup.Lineage
	copying      sync.Mutex     // held while a copy of the database is there
	worker       *worker.Worker // nil for the role api
	tracking     *trackingMetrics
	installation string
}

// New opens everything that a server needs and listens, but answers nothing
// before Run. At the first start it makes the key, the operator's token and
// the default repository.
func New(ctx context.Context, c Config) (s *Server, err error) {
	c = c.defaulted()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	half := &Server{config: c, log: c.Log, tracking: newTrackingMetrics()}
	s = half
	defer func() {
		if err != nil { // s is nil by now
			err = errors.Join(err, half.Close())
		}
	}()
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	if err := c.belongTogether(); err != nil {
		return nil, err
	}
	key, err := loadKey(c.KeyFile)
	if err != nil {
		return nil, err
	}
	if s.db, err = store.Open(ctx, store.Config{DSN: c.Database, Key: key, Now: c.Now, Log: c.Log, Migrate: true}); err != nil {
		return nil, fmt.Errorf("open the database with the key %s: %w", c.KeyFile, err)
	}
	if s.installation, err = s.db.Installation(ctx); err != nil {
		return nil, fmt.Errorf("read the installation's id: %w", err)
	}
	s.vsphere = vsphere.New(vsphere.Config{Log: c.Log, ProxyUUID: c.ProxyUUID, Devices: c.devices(), NBDCommand: c.NBDCommand, Movers: s.db.Movers})
	s.repositories = repository.New(repository.Config{Installation: s.installation, Dir: filepath.Join(c.Data, "cache"), Log: c.Log, LookupEnv: c.LookupEnv})
	s.planner = &backup.Planner{Store: s.db, VSphere: s.vsphere, Profile: c.RetentionProfile, SlotCapacity: c.SlotCapacity, Wake: s.wake,
		Repositories: s.repositories, Installation: s.installation, AgeRecipient: c.AgeRecipient, Images: s.repositories, Reach: c.Reach}
	s.planner.Databases = s.databaseKeeper()
	s.employDoctor()
	if err := s.firstStart(ctx); err != nil {
		return nil, err
	}
	s.lineage = &backup.Lineage{Store: s.db, Marks: s.repositories, Installation: s.installation, Reach: c.Reach}
	if c.Role != RoleAPI {
		s.knowLineage(ctx)
		s.worker = s.newWorker()
	}
	if err := s.listen(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// lineageTime is how long a start waits for repositories that do not answer.
const lineageTime = 15 * time.Second

// knowLineage finds out, before any job is begun, whether the database was put
// back from a copy. What cannot be looked at now is looked at by the worker.
func (s *Server) knowLineage(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lineageTime)
	defer cancel()
	if old, err := s.lineage.Check(ctx, true); err != nil {
		s.log.WarnContext(ctx, "not known yet whether the database is old", "error", err)
	} else if old != nil {
		s.log.ErrorContext(ctx, "the database is old: nothing is begun, ended or removed", "message", old.Message())
	}
}

func (s *Server) wake() {
	if s.worker != nil {
		s.worker.Wake()
	}
}

func (s *Server) newWorker() *worker.Worker {
	c := s.config
	keep := s.databaseKeeper().KeepDue
	if !c.keepsDatabase() {
		keep = nil
	}
	host, _ := os.Hostname() // only to be read by people
	return worker.New(worker.Config{
		Store: s.db, Planner: s.planner, VSphere: s.vsphere, Repositories: s.repositories, Log: c.Log,
		Installation: s.installation, Owner: fmt.Sprintf("%s/%d/%s", host, os.Getpid(), backup.NewID(time.Now())),
		Reach: c.Reach, Now: c.Now, Slots: c.Slots, Lease: c.Lease, CopyRate: c.CopyRate, CompareBudget: c.CompareBudget, OnDistrust: s.tracking.count,
		Load:         backup.LoadLimits{MinFree: c.DatastoreMinFree, MaxLatency: c.MaxLatency},
		ShutdownTime: c.ShutdownTimeout, SnapshotTime: c.SnapshotTimeout,
		Poll: c.Poll, Dispatch: c.Dispatch, Sync: c.Sync, Sweep: c.Sweep, Backoff: c.Backoff,
		Lineage: s.lineage, KeepDatabase: keep,
	})
}

func (s *Server) listen(ctx context.Context) (err error) {
	routes, err := s.routes()
	if err != nil {
		return fmt.Errorf("make the routes: %w", err)
	}
	if s.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", s.config.Listen); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.http = &http.Server{Handler: routes, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	if s.config.TLSCert == "" {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(s.config.TLSCert, s.config.TLSKey)
	if err != nil {
		return fmt.Errorf("load the TLS certificate: %w", err)
	}
	s.listener = tls.NewListener(s.listener, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}})
	return nil
}

// URL is where the server answers.
func (s *Server) URL() string {
	scheme := "http"
	if s.config.TLSCert != "" {
		scheme = "https"
	}
	return scheme + "://" + s.listener.Addr().String()
}

// OperatorTokenFile names the file that the first start writes the operator's
// token to.
func (s *Server) OperatorTokenFile() string { return filepath.Join(s.config.Data, "operator.token") }

// shutdownTime is how long Run takes at most to end after its context has.
const shutdownTime = 8 * time.Second

// streamTime is how long of that requests may still take.
const streamTime = 2 * time.Second

// Run answers requests and runs jobs until ctx ends; it then hands its jobs
// over to other servers, or to its next start, and returns.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wctx, stop := context.WithCancel(ctx)
	defer stop()
	if s.worker != nil {
		wg.Go(func() { s.worker.Run(wctx) })
	}
	// Streams of events last until their context ends; other requests are done long before.
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	s.http.BaseContext = func(net.Listener) context.Context { return requests }
	failed := make(chan error, 1)
	wg.Go(func() { failed <- s.http.Serve(s.listener) })
	s.ready.Store(true)
	s.log.InfoContext(ctx, "server ready", "url", s.URL(), "role", string(s.config.Role), "installation", s.installation)
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	s.ready.Store(false)
	stop()
	time.AfterFunc(streamTime, cut)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if serr := s.http.Shutdown(end); serr != nil {
		s.log.WarnContext(ctx, "connections were cut", "error", errors.Join(serr, s.http.Close()))
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// Close gives everything back. It is safe on a half-made server.
func (s *Server) Close() error {
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if s.listener != nil {
		if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.repositories != nil {
		errs = append(errs, s.repositories.Close(ctx))
	}
	if s.vsphere != nil {
		errs = append(errs, s.vsphere.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}

// Ready says whether the server can do its work now: it serves, and the
// database answers.
func (s *Server) Ready(ctx context.Context) error {
	if !s.ready.Load() {
		return backup.Errorf(backup.Unavailable, "", "The server is starting or stopping.")
	}
	return s.db.View(ctx, func(backup.Tx) error { return nil })
}

// Planner is what in-process programs, such as the demo, ask for changes.
func (s *Server) Planner() *backup.Planner { return s.planner }

var _ auth.Store = (*store.DB)(nil)

// VCenter reads a vcenter, for in-process programs.
func (s *Server) VCenter(ctx context.Context, id string) (v backup.VCenter, err error) {
	err = s.db.View(ctx, func(tx backup.Tx) (err error) {
		v, err = tx.VCenter(ctx, id)
		return err
	})
	return v, err
}
