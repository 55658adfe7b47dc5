package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// CopyTo makes a copy of the database in a file that is not there yet, as it is
// at one instant, while others read and write. The copy says of itself that it
// is one. Errors: Conflict (the database is PostgreSQL).
func (db *DB) CopyTo(ctx context.Context, file string) error {
	if db.dialect == postgres {
		return backup.Errorf(backup.Conflict, "database", "A PostgreSQL database is copied with its own tools, such as pg_dump: see docs/dev/disaster.md.")
	}
	from, err := openPrepared(sqliteDSN(db.path, "deferred"))
	if err != nil {
		return fmt.Errorf("open %s: %w", db.path, err)
	}
	from.SetMaxOpenConns(1)
	_, err = from.ExecContext(ctx, "VACUUM INTO $1", file)
	if err = errors.Join(err, from.Close()); err != nil {
		return fmt.Errorf("copy the database to %s: %w", file, err)
	}
	return db.sign(ctx, file)
}

// sign has the copy say when it was made.
func (db *DB) sign(ctx context.Context, file string) error {
	var at []byte
	err := db.view(ctx, func(t *tx) (err error) {
		at, err = json.Marshal(t.now)
		return err
	})
	if err != nil {
		return err
	}
	to, err := openPrepared(sqliteDSN(file, "immediate"))
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	_, err = to.ExecContext(ctx, "INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value", backup.SettingCopiedAt, string(at))
	if err = errors.Join(err, to.Close()); err != nil {
		return fmt.Errorf("sign %s: %w", file, err)
	}
	return nil
}
