// Package store keeps kura's state in SQL: SQLite inside the server's process
// or PostgreSQL shared by several servers, with one text of every statement
// for both. It implements backup.Store and backup.Queue and keeps the tokens
// of auth. It holds no rules of its own: what may be booked, deleted or
// retried is decided in backup.
//
//	Open -> *DB -> Update/View -> tx, one file per noun -> SQL
//	               Claim/Renew/Save/Finish -> queue.go, lease.go
package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Config says which database to open and how.
type Config struct {
	// DSN is "sqlite:PATH" or "postgres://user@host/name?...". Required.
	DSN string
	// Key encrypts secrets at rest: 32 bytes, the same at each start. Required.
	Key []byte
	// Now is the clock. nil = time.Now on SQLite, and the database's own clock
	// on PostgreSQL, which is then the same for all servers. With a Now of its
	// own a server on PostgreSQL keeps leases by it: for tests only.
	Now func() time.Time
	// Log gets what goes wrong without failing a call. nil = nothing is logged.
	Log *slog.Logger
	// Migrate brings an older schema up to this program's. false = refuse it.
	Migrate bool
	// Patience is how long PostgreSQL may be silent while something is asked of
	// it, and how long an Update waits for those before it. 0 = a minute.
	Patience time.Duration
}

// DB is an open database. All methods may be called at the same time.
type DB struct {
	write   *sql.DB
	read    *sql.DB // the same as write on PostgreSQL
	dialect dialect
	box     box
	now     func() time.Time // nil = the database's clock
	log     *slog.Logger
	project string
	files   fs.FS         // the migrations
	schema  int64         // the last of them
	path    string        // of SQLite's file
	turn    chan struct{} // full while an Update runs
	unlock  func() error  // gives up the file lock of SQLite

	patience  time.Duration
	migrating atomic.Bool // nobody is impatient
}

// DB is what the domain and the workers expect.
var (
	_ backup.Store = (*DB)(nil)
	_ backup.Queue = (*DB)(nil)
)

// Open opens the database, brings its schema up to date and checks that the
// key is the one that its secrets were encrypted with. Errors: Invalid (DSN or
// key), Conflict (another process serves this SQLite file), Unavailable.
func Open(ctx context.Context, c Config) (*DB, error) {
	return openWith(ctx, c, own())
}

func openWith(ctx context.Context, c Config, files fs.FS) (*DB, error) {
	sealer, err := newBox(c.Key)
	if err != nil {
		return nil, err
	}
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	db := &DB{box: sealer, now: c.Now, log: log, project: backup.DefaultProject, files: files, turn: make(chan struct{}, 1), patience: cmp.Or(c.Patience, patience)}
	if err := db.open(ctx, c); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (db *DB) open(ctx context.Context, c Config) error {
	kind, rest, _ := strings.Cut(c.DSN, ":")
	var err error
	switch kind {
	case "sqlite":
		err = db.openSQLite(ctx, rest)
	case "postgres", "postgresql":
		err = db.openPostgres(ctx, c.DSN)
	default:
		err = backup.Errorf(backup.Invalid, "database", `The database is written "sqlite:PATH" or "postgres://user@host/name", got %q.`, redacted(c.DSN))
	}
	if err != nil {
		return err
	}
	if err := db.migrate(ctx, c.Migrate); err != nil {
		return err
	}
	if err := db.checkKey(ctx); err != nil {
		return err
	}
	if db.dialect == postgres {
		return nil
	}
	// The file lock says that no other server runs, so whoever held a lease is
	// gone: its jobs go on at once.
	if _, err := db.write.ExecContext(ctx, `UPDATE job SET lease_until = 0 WHERE state = 'running'`); err != nil {
		return fmt.Errorf("clear leases: %w", err)
	}
	return nil
}

// redacted returns a DSN without what stands after its scheme, which may hold
// a password.
func redacted(dsn string) string {
	if kind, _, ok := strings.Cut(dsn, ":"); ok {
		return kind + ":..."
	}
	return dsn
}

// Close closes the database.
func (db *DB) Close() error {
	var errs []error
	if db.read != nil && db.read != db.write {
		errs = append(errs, db.read.Close())
	}
	if db.write != nil {
		errs = append(errs, db.write.Close())
	}
	if db.unlock != nil {
		errs = append(errs, db.unlock())
		db.unlock = nil
	}
	return errors.Join(errs...)
}

// Ping says whether the database answers. The error is Unavailable.
func (db *DB) Ping(ctx context.Context) error {
	var one int
	if err := db.read.QueryRowContext(ctx, `SELECT 1`).Scan(&one); err != nil {
		return backup.Errorf(backup.Unavailable, "", "The database does not answer.").Because(err)
	}
	return nil
}
