package store

import (
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	lite "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"
)

// dialect is everything in which the two databases differ.
type dialect uint8

const (
	sqlite dialect = iota
	postgres
)

// forUpdate is put behind a SELECT whose rows the transaction will write. A
// transaction that writes on SQLite is alone anyway.
func (d dialect) forUpdate() string {
	if d == postgres {
		return " FOR UPDATE"
	}
	return ""
}

// The advisory locks of PostgreSQL, held until the end of a transaction.
const (
	lockUpdate = 0x6b757261_0001 // one Update at a time, as on SQLite
	lockClaim  = 0x6b757261_0002 // one Claim at a time, so that limits are exact
)

// retryable says whether the database asks for the transaction to be run again.
func (d dialect) retryable(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "40001" || e.Code == "40P01" // serialization, deadlock
	}
	if e, ok := errors.AsType[*lite.Error](err); ok {
		return e.Code()&0xff == codes.SQLITE_BUSY
	}
	return false
}

// taken says whether err is a refused double in a unique index.
func (d dialect) taken(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "23505"
	}
	if e, ok := errors.AsType[*lite.Error](err); ok {
		return e.Code() == codes.SQLITE_CONSTRAINT_UNIQUE || e.Code() == codes.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	return false
}

// dangling says whether err is a refused reference to a row that is not there.
func (d dialect) dangling(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "23503"
	}
	if e, ok := errors.AsType[*lite.Error](err); ok {
		return e.Code() == codes.SQLITE_CONSTRAINT_FOREIGNKEY
	}
	return false
}

// full says whether the database's disk has no room.
func (d dialect) full(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "53100"
	}
	if e, ok := errors.AsType[*lite.Error](err); ok {
		return e.Code()&0xff == codes.SQLITE_FULL
	}
	return false
}

// away says whether the database could not be reached, is going down, or takes
// no writes for now.
func (d dialect) away(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		// connection exceptions, lack of resources, operator intervention, a standby that nobody has promoted, a transaction that stood still
		return strings.HasPrefix(e.Code, "08") || strings.HasPrefix(e.Code, "53") || strings.HasPrefix(e.Code, "57P") || e.Code == "25006" || e.Code == "25P03"
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if d != postgres {
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return network || slices.ContainsFunc([]error{driver.ErrBadConn, pgconn.ErrConnClosed, net.ErrClosed, io.EOF, io.ErrUnexpectedEOF},
		func(lost error) bool { return errors.Is(err, lost) })
}
