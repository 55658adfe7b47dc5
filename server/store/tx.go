package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// tx is one transaction. It implements backup.Tx.
type tx struct {
	db      *DB
	sql     *sql.Tx
	now     time.Time
	project string
	write   bool
	booked  map[string]bool // vcenters whose seats it has changed
}

// Now is the instant of the transaction.
func (t *tx) Now() time.Time { return t.now }

// tries is how often a transaction is run at most when the database asks for
// it. With the locks below it hardly ever does.
const tries = 8

// Update runs fn in one transaction, alone: on SQLite there is one writer, on
// PostgreSQL an advisory lock lets one Update in at a time. So what fn has read
// still holds when it writes, whichever rows that were, and both databases
// behave the same. The queue's own short statements do not wait for it. fn
// must use nothing but the Tx it is given.
//
// Within a server the Updates wait for each other before they open a
// transaction: no connection is held while waiting, and the turn mostly goes to
// who is running already, which a queue of the database would not do.
func (db *DB) Update(ctx context.Context, fn func(backup.Tx) error) error {
	leave, err := db.takeTurn(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return db.retryLocked(ctx, lockUpdate, func(t *tx) error { return fn(t) })
}

// View runs fn in one read-only transaction, which sees one state of the
// database throughout.
func (db *DB) View(ctx context.Context, fn func(backup.Tx) error) error {
	return db.view(ctx, func(t *tx) error { return fn(t) })
}

func (db *DB) view(ctx context.Context, fn func(*tx) error) error {
	o := &sql.TxOptions{ReadOnly: true}
	if db.dialect == postgres {
		o.Isolation = sql.LevelRepeatableRead
	}
	return db.within(ctx, db.read, o, noLock, fn)
}

// retry runs fn in one transaction that writes, again when the database says
// that it got in another one's way.
func (db *DB) retry(ctx context.Context, fn func(*tx) error) error {
	return db.retryLocked(ctx, noLock, fn)
}

// retryLocked is retry for transactions that begin with an advisory lock.
func (db *DB) retryLocked(ctx context.Context, lock int64, fn func(*tx) error) error {
	for try := 1; ; try++ {
		err := db.within(ctx, db.write, nil, lock, fn)
		if err == nil || try == tries || !db.dialect.retryable(err) {
			return err
		}
		db.log.DebugContext(ctx, "transaction is run again", "try", try, "cause", err)
		pause := time.NewTimer(time.Duration(rand.Int64N(int64(10*time.Millisecond) << try)))
		select {
		case <-ctx.Done():
			pause.Stop()
			return err
		case <-pause.C:
		}
	}
}

func (db *DB) within(ctx context.Context, pool *sql.DB, o *sql.TxOptions, lock int64, fn func(*tx) error) error {
	s, err := pool.BeginTx(ctx, o)
	if err != nil {
		return db.failed("begin transaction", err)
	}
	defer s.Rollback() // after a commit it does nothing
	t := &tx{db: db, sql: s, project: db.project, write: o == nil}
	if err := t.lock(ctx, lock); err != nil {
		return db.failed("begin transaction", err)
	}
	if err := fn(t); err != nil {
		return db.failed("", err)
	}
	return db.failed(committing, t.commit(lock))
}

// committing is what was being done when nobody can say whether it is done.
const committing = "commit transaction"

// commit ends the transaction. Those that change seats are told apart from other
// Updates, so that a test can break either.
func (t *tx) commit(lock int64) error {
	if lock != lockUpdate {
		return t.sql.Commit()
	}
	if len(t.booked) > 0 {
		failpoint.Hit("booking.committing")
	}
	failpoint.Hit("update.committing")
	err := t.sql.Commit()
	if len(t.booked) > 0 {
		failpoint.Hit("booking.committed")
	}
	failpoint.Hit("update.committed")
	return err
}

// stallShare is the part of others' patience for which a transaction may stand
// still: they do not lose theirs for it.
const stallShare = 4

// noLock is the lock of a transaction that needs none.
const noLock = 0

// lock waits until no other transaction holds the advisory lock, and reads the
// clock then. SQLite's single writer is lock enough.
func (t *tx) lock(ctx context.Context, id int64) (err error) {
	t.now = time.Now()
	if t.db.dialect == postgres {
		var floor int64
		var stall time.Duration
		if t.write {
			stall = t.db.patience / stallShare
		}
		if t.now, floor, err = postgresNow(ctx, t.sql, id, stall); err != nil {
			return err
		}
		if err := t.db.outdated(floor); err != nil {
			return err
		}
	}
	if t.db.now != nil {
		t.now = t.db.now()
	}
	t.now = t.now.UTC().Truncate(time.Millisecond)
	return nil
}

// failed says what was being done when err came, and makes a database that is
// away an error that someone can act on. nil stays nil, and an Error that
// someone can act on already stays as it is.
func (db *DB) failed(doing string, err error) error {
	if err == nil || backup.AsError(err) != nil || errors.Is(err, backup.ErrLeaseLost) {
		return err
	}
	if doing != "" {
		err = fmt.Errorf("%s: %w", doing, err)
	}
	switch {
	case db.dialect.full(err):
		return backup.Errorf(backup.NoSpace, "", "The disk of the server's database is full: nothing was stored. Make room on it, then try again.").Because(err)
	case db.dialect.away(err) && doing == committing:
		return backup.Errorf(backup.Unavailable, "", "The database went away while the change was being stored: it is stored, or it is not. Look for it before you try again.").Because(err)
	case db.dialect.away(err):
		return backup.Errorf(backup.Unavailable, "", "The database does not answer. Try again in a moment.").Because(err)
	}
	return err
}

// exec runs a statement and returns how many rows it changed.
func (t *tx) exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := t.sql.ExecContext(ctx, query, values(args)...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// row reads at most one row into dest; found says whether there was one.
func (t *tx) row(ctx context.Context, query string, args []any, dest ...any) (found bool, err error) {
	err = t.sql.QueryRowContext(ctx, query, values(args)...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// rows calls each for every row, with a function that reads it.
func (t *tx) rows(ctx context.Context, query string, args []any, each func(scan func(dest ...any) error) error) error {
	r, err := t.sql.QueryContext(ctx, query, values(args)...)
	if err != nil {
		return err
	}
	defer r.Close()
	for r.Next() {
		if err := each(r.Scan); err != nil {
			return err
		}
	}
	return r.Err()
}

// strings reads the first column of all rows.
func (t *tx) strings(ctx context.Context, query string, args ...any) ([]string, error) {
	var all []string
	err := t.rows(ctx, query, args, func(scan func(...any) error) error {
		var s string
		if err := scan(&s); err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	return all, err
}
