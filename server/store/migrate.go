package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

//go:embed migration/*.sql
var migrations embed.FS

// own are the migrations of this program.
func own() fs.FS {
	files, err := fs.Sub(migrations, "migration")
	if err != nil {
		panic(err) // the name is right
	}
	return files
}

// migrate brings the schema up to date. On PostgreSQL a lock lets several
// servers start at once; on SQLite the file lock has seen to that. Servers of
// the version before may be running: see [DB.outdated].
func (db *DB) migrate(ctx context.Context, allowed bool) error {
	m, err := db.migrator()
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	have, want, err := m.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("version of the schema: %w", err)
	}
	db.schema = want
	switch {
	case have > want:
		return db.workOnNewer(ctx, have)
	case have == want:
		return nil
	case !allowed:
		return backup.Errorf(backup.Invalid, "database", "The database has schema %d and this program needs %d. Start a server that may migrate it.", have, want)
	}
	db.migrating.Store(true)
	defer db.migrating.Store(false)
	for {
		_, err := m.UpByOne(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("migrate the database from schema %d to %d: %w", have, want, err)
		}
		failpoint.Hit("migration.step")
	}
}

// workOnNewer lets this program work on a schema that a newer one has made,
// where that one says that it can.
func (db *DB) workOnNewer(ctx context.Context, have int64) error {
	var floor int64
	if err := db.write.QueryRowContext(ctx, "SELECT MAX(floor) FROM schema_floor").Scan(&floor); err != nil {
		return fmt.Errorf("least schema of the database: %w", err)
	}
	if floor > db.schema {
		return backup.Errorf(backup.Invalid, "database", "The database was written by a newer kura (schema %d), and programs that know less than schema %d (this one knows %d) must not use it. Start the newer version, or restore a backup of the database.", have, floor, db.schema)
	}
	db.log.WarnContext(ctx, "the database was upgraded by a newer version, which this one works beside", "schema", have, "known", db.schema)
	return nil
}

// outdated gives Unavailable where another server has brought the schema to a
// state that this program must not work on. Without that it goes on beside newer
// ones: what they have added it neither reads nor changes.
func (db *DB) outdated(floor int64) error {
	if floor <= db.schema {
		return nil
	}
	return backup.Errorf(backup.Unavailable, "", "This server is too old for its database: a newer one has upgraded that, and servers that know less than schema %d (this one knows %d) must not use it. Upgrade this server.", floor, db.schema)
}

// migrator knows the numbered files.
func (db *DB) migrator() (*goose.Provider, error) {
	kind := goose.DialectSQLite3
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true), goose.WithSlog(db.log)}
	if db.dialect == postgres {
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return nil, err
		}
		kind = goose.DialectPostgres
		options = append(options, goose.WithSessionLocker(locker))
	}
	return goose.NewProvider(kind, db.write, db.files, options...)
}
