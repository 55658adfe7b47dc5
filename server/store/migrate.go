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

// migrate brings the schema up to date. On PostgreSQL a lock lets several
// servers start at once; on SQLite the file lock has seen to that.
func (db *DB) migrate(ctx context.Context, allowed bool) error {
	m, err := db.migrator()
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	have, want, err := m.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("version of the schema: %w", err)
	}
	switch {
	case have > want:
		return backup.Errorf(backup.Invalid, "database", "The database was written by a newer kura (schema %d, this program knows %d). Start that version, or restore a backup of the database.", have, want)
	case have == want:
		return nil
	case !allowed:
		return backup.Errorf(backup.Invalid, "database", "The database has schema %d and this program needs %d. Start a server that may migrate it.", have, want)
	}
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

// migrator knows the numbered files.
func (db *DB) migrator() (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migration")
	if err != nil {
		return nil, err
	}
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
	return goose.NewProvider(kind, db.write, files, options...)
}
