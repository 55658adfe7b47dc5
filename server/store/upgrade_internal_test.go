package store

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// compatibleFrom is the first migration that servers of the version before must
// be able to live with.
const compatibleFrom = "00014"

// Servers of the version before run on while the first new one migrates: what
// they read and write must stay as it is, or the floor must be raised.
func TestMigrationsOnlyAddUnlessTheyRaiseTheFloor(t *testing.T) {
	takesAway := regexp.MustCompile(`(?i)\b(DROP|RENAME|ALTER COLUMN|CREATE UNIQUE)\b|ADD COLUMN\b[^;]*\bNOT NULL\b`)
	for name, text := range files(t) {
		if name < compatibleFrom {
			continue
		}
		up, _, found := strings.Cut(string(text.Data), "-- +goose Down")
		if !found {
			t.Errorf("%s has no way back", name)
		}
		for _, statement := range strings.Split(up, ";") {
			if strings.Contains(statement, "DEFAULT") && strings.Contains(statement, "ADD COLUMN") {
				continue
			}
			if bad := takesAway.FindString(statement); bad != "" && !strings.Contains(up, "UPDATE schema_floor") {
				t.Errorf("%s says %q, which servers of the version before cannot live with: make it in two versions, or raise the floor", name, bad)
			}
		}
	}
}

func files(t *testing.T) fstest.MapFS {
	t.Helper()
	all := fstest.MapFS{}
	err := fs.WalkDir(own(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(own(), path)
		all[path] = &fstest.MapFile{Data: text}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// with is this program's migrations and one of the version to come.
func with(t *testing.T, up string) fstest.MapFS {
	t.Helper()
	all := maps.Clone(files(t))
	all["09001_next.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + up + "\n-- +goose Down\nSELECT 1;\n")}
	return all
}

func group(t *testing.T, db *DB, name string) error {
	t.Helper()
	return db.Update(t.Context(), func(tx backup.Tx) error { return tx.InsertGroup(t.Context(), &backup.Group{Name: name}) })
}

func opened(t *testing.T, dsn string, all fs.FS) *DB {
	t.Helper()
	db, err := openWith(t.Context(), Config{DSN: dsn, Key: bytes.Repeat([]byte{7}, 32), Migrate: true}, all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestServersOfTwoVersionsWorkSideBySideUntilTheFloorIsRaised(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Database(t)
	older := opened(t, dsn, own())
	newer := opened(t, dsn, with(t, "ALTER TABLE backup_group ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey';"))
	for name, db := range map[string]*DB{"older": older, "newer": newer} {
		if err := group(t, db, "made by the "+name); err != nil {
			t.Errorf("the %s server, after the migration: %v", name, err)
		}
	}
	if err := group(t, opened(t, dsn, own()), "made after a restart"); err != nil {
		t.Errorf("the older server, started again: %v", err)
	}
	if _, err := newer.write.ExecContext(t.Context(), "UPDATE schema_floor SET floor = 9001"); err != nil {
		t.Fatal(err)
	}
	if err := group(t, newer, "made above the floor"); err != nil {
		t.Errorf("the newer server, above the floor: %v", err)
	}
	if _, err := Open(t.Context(), Config{DSN: dsn, Key: bytes.Repeat([]byte{7}, 32), Migrate: true}); backup.CodeOf(err) != backup.Invalid || !strings.Contains(err.Error(), "newer kura") {
		t.Errorf("the older server, started again below the floor: %v, want that it says why it does not", err)
	}
	_, err := older.Claim(t.Context(), backup.Claim{Owner: "o", Lease: time.Minute})
	for what, err := range map[string]error{"a write": group(t, older, "made below the floor"), "a claim": err, "a read": older.View(t.Context(), func(backup.Tx) error { return nil })} {
		if backup.CodeOf(err) != backup.Unavailable || !strings.Contains(err.Error(), "too old") {
			t.Errorf("%s of the older server, below the floor = %v, want it unavailable and why", what, err)
		}
	}
}

// A migration that is cut off in its COMMIT is done or not: the next start goes
// on from there.
func TestAMigrationThatIsCutOffIsCompletedByTheNextStart(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]pgtest.Cut{"before the commit": pgtest.BeforeCommit, "after the commit": pgtest.AfterCommit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn, proxy := pgtest.Through(t)
			config := Config{DSN: dsn, Key: bytes.Repeat([]byte{7}, 32), Migrate: true}
			starts := 0
			for db := (*DB)(nil); db == nil; starts++ {
				if cut == pgtest.AfterCommit || starts < 3 { // what is never committed never gets further
					proxy.CutCommit(cut)
				}
				var err error
				if db, err = Open(t.Context(), config); err != nil {
					if starts > 60 || proxy.Cuts() != starts+1 {
						t.Fatalf("start %d, after %d cuts: %v", starts, proxy.Cuts(), err)
					}
					continue
				}
				proxy.CutCommit(0)
				if err := errors.Join(group(t, db, "made"), db.Close()); err != nil {
					t.Errorf("after %d starts that failed: %v", starts, err)
				}
				break
			}
			if starts == 0 {
				t.Error("no start was cut off")
			}
			t.Logf("%d starts were cut off", starts)
		})
	}
}

// A migration that fails leaves nothing behind, on either database.
func TestAMigrationThatFailsLeavesTheSchemaAsItWas(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]string{"sqlite": "sqlite:" + filepath.Join(t.TempDir(), "kura.db"), "postgres": pgtest.Database(t)} {
		t.Run(name, func(t *testing.T) {
			db := opened(t, dsn, own())
			if err := errors.Join(group(t, db, "before"), db.Close()); err != nil {
				t.Fatal(err)
			}
			bad := with(t, "ALTER TABLE backup_group ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey';\nUPDATE nothing SET nowhere = 1;")
			if _, err := openWith(t.Context(), Config{DSN: dsn, Key: bytes.Repeat([]byte{7}, 32), Migrate: true}, bad); err == nil {
				t.Fatal("a migration with a fault was carried out")
			}
			again := opened(t, dsn, with(t, "ALTER TABLE backup_group ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey';"))
			if err := group(t, again, "after"); err != nil {
				t.Errorf("after the mended migration: %v", err)
			}
		})
	}
}
