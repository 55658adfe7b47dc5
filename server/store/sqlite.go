package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	lite "modernc.org/sqlite"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// readers is how many queries SQLite answers at the same time beside the one
// that writes.
const readers = 8

// openSQLite opens the file at path for this process alone: one connection
// that writes and a few that read. What is acknowledged is on the disk.
func (db *DB) openSQLite(ctx context.Context, path string) error {
	if path == "" {
		return backup.Errorf(backup.Invalid, "database", `A path must follow "sqlite:".`)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("database file: %w", err)
	}
	db.dialect, db.path = sqlite, path
	if db.unlock, err = lockFile(path + ".lock"); err != nil {
		return err
	}
	// Made here so that nobody else may read it; SQLite gives the mode to the
	// files that it puts beside it.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return backup.Errorf(backup.Invalid, "database", "The database file %s cannot be opened for writing.", path).Because(err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("database file %s: %w", path, err)
	}
	if db.write, err = openPrepared(sqliteDSN(path, "immediate", "foreign_keys(1)", "journal_mode(WAL)", "synchronous(FULL)")); err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	db.write.SetMaxOpenConns(1)
	if err := db.write.PingContext(ctx); err != nil {
		return broken(path).Because(err)
	}
	if err := db.whole(ctx); err != nil {
		return err
	}
	if db.read, err = openPrepared(sqliteDSN(path, "deferred", "query_only(1)")); err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	db.read.SetMaxOpenConns(readers)
	db.read.SetMaxIdleConns(readers)
	return nil
}

// whole looks through the file once: what is written into a damaged one is lost
// as well, and found out only when it is needed.
func (db *DB) whole(ctx context.Context) error {
	var found string
	err := db.write.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&found)
	if err == nil && found != "ok" {
		err = errors.New(found)
	}
	if err != nil && ctx.Err() == nil {
		return broken(db.path).Because(err)
	}
	return err
}

func broken(path string) *backup.Error {
	return backup.Errorf(backup.Invalid, "database", "%s is damaged, or no SQLite database. Leave it as it is, with the files beside it. A repository keeps copies: kura catalog recover makes a new data folder of the newest, with the repository's recovery sheet.", path)
}

func openPrepared(dsn string) (*sql.DB, error) {
	c, err := lite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(prepared{c}), nil
}

func sqliteDSN(path, lock string, pragmas ...string) string {
	q := url.Values{"_txlock": {lock}, "_pragma": append([]string{"busy_timeout(10000)", "cache_size(-16384)"}, pragmas...)}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// lockFile takes the lock that makes this process the only server on a SQLite
// database. It dies with the process, whatever becomes of it. The file says
// who holds it.
func lockFile(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, backup.Errorf(backup.Invalid, "database", "The lock file %s cannot be opened for writing.", path).Because(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path) // the message does without it
		return nil, errors.Join(locked(path, strings.TrimSpace(string(holder))).Because(err), f.Close())
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("lock file %s: %w", path, err), f.Close())
	}
	if _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); err != nil {
		return nil, errors.Join(fmt.Errorf("lock file %s: %w", path, err), f.Close())
	}
	return func() error {
		// Closing alone leaves the lock to a child process that is just being started.
		return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
	}, nil
}

func locked(path, holder string) *backup.Error {
	who := "Another process"
	if holder != "" {
		who = "Process " + holder
	}
	return backup.Errorf(backup.Conflict, "database", "%s already serves this database: it holds %s. Stop it first, or use PostgreSQL, which several servers may share.", who, path)
}
