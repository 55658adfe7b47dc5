package store

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// connections is how many a server keeps to PostgreSQL at most.
const connections = 20

func (db *DB) openPostgres(ctx context.Context, dsn string) error {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The parser's error may quote the DSN, so it stays out of the message.
		return backup.Errorf(backup.Invalid, "database", "The PostgreSQL address cannot be read: it is written postgres://user:password@host:port/name?sslmode=....").Because(err)
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "kura"
	}
	c.DialFunc = db.dial
	db.dialect = postgres
	db.write = stdlib.OpenDB(*c)
	db.read = db.write
	db.write.SetMaxOpenConns(connections)
	db.write.SetMaxIdleConns(connections)
	db.write.SetConnMaxIdleTime(5 * time.Minute)
	var version int
	if err := db.write.QueryRowContext(ctx, `SELECT CAST(current_setting('server_version_num') AS BIGINT)`).Scan(&version); err != nil {
		return backup.Errorf(backup.Unavailable, "database", "PostgreSQL at %s (database %q) does not answer.", c.Host, c.Database).Because(err)
	}
	if version < 130000 {
		return backup.Errorf(backup.Invalid, "database", "PostgreSQL at %s is version %d; kura needs 13 or newer.", c.Host, version/10000)
	}
	return nil
}

// postgresNow reads the clock that all servers share, once it holds the
// advisory lock, and the least schema that this server must know. A transaction
// that writes is given up by PostgreSQL, with its locks, when nothing is asked
// in it for as long as stall (0 = never): a server that stands still, or whose
// network is gone, would hold up all others.
func postgresNow(ctx context.Context, tx *sql.Tx, lock int64, stall time.Duration) (now time.Time, floor int64, err error) {
	const clock = `SELECT CAST(floor(EXTRACT(EPOCH FROM clock_timestamp()) * 1000) AS BIGINT), (SELECT MAX(floor) FROM schema_floor), set_config('idle_in_transaction_session_timeout', $1, TRUE)`
	query, args := clock, []any{strconv.FormatInt(stall.Milliseconds(), 10)}
	if lock != noLock {
		query, args = `WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock($2)) `+clock+` FROM held`, append(args, lock)
	}
	var ms int64
	var set string
	if err := tx.QueryRowContext(ctx, query, args...).Scan(&ms, &floor, &set); err != nil {
		return time.Time{}, 0, fmt.Errorf("the database's clock: %w", err)
	}
	return time.UnixMilli(ms).UTC(), floor, nil
}
