package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Setting returns a setting of the installation, and whether it was ever set.
func (db *DB) Setting(ctx context.Context, name string) (value string, found bool, err error) {
	err = db.read.QueryRowContext(ctx, `SELECT value FROM setting WHERE name = $1`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, db.failed("setting "+name, err)
	}
	return value, true, nil
}

// SetSetting keeps a setting of the installation. It is not encrypted.
func (db *DB) SetSetting(ctx context.Context, name, value string) error {
	_, err := db.write.ExecContext(ctx, `INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return db.failed("setting "+name, err)
}

// addSetting keeps a setting that has no value yet.
func (db *DB) addSetting(ctx context.Context, name, value string) error {
	_, err := db.write.ExecContext(ctx, `INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, name, value)
	return db.failed("setting "+name, err)
}

// Installation returns the installation's id, which its first caller makes.
// It is in the name of every snapshot and in every repository's mark.
func (db *DB) Installation(ctx context.Context) (string, error) {
	if err := db.addSetting(ctx, "installation", backup.NewID(time.Now())); err != nil {
		return "", err
	}
	id, _, err := db.Setting(ctx, "installation")
	return id, err
}
