package store_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var key = bytes.Repeat([]byte{7}, 32)

// place is a database of a test's own, on one of the two engines.
type place struct {
	dsn      string
	postgres bool
}

// each runs the test on both databases.
func each(t *testing.T, test func(t *testing.T, p place)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, place{dsn: "sqlite:" + filepath.Join(t.TempDir(), "kura %#?.db")})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, place{dsn: pgtest.Database(t), postgres: true})
	})
}

// on is each with an open database whose clock is the test's.
func on(t *testing.T, test func(t *testing.T, db *store.DB, c *clock)) {
	t.Helper()
	each(t, func(t *testing.T, p place) {
		c := newClock()
		test(t, p.open(t, c.now), c)
	})
}

// open opens the database; now nil = the database's own clock.
func (p place) open(t testing.TB, now func() time.Time) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), p.config(now))
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

func (p place) config(now func() time.Time) store.Config {
	return store.Config{DSN: p.dsn, Key: key, Now: now, Migrate: true}
}

// clock is a time that stands still until the test moves it.
type clock struct {
	mu sync.Mutex // guards at
	at time.Time
}

func newClock() *clock {
	return &clock{at: time.Date(2027, time.March, 1, 12, 0, 0, 0, time.UTC)}
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func update(t testing.TB, db backup.Store, fn func(ctx context.Context, tx backup.Tx) error) {
	t.Helper()
	if err := tryUpdate(t, db, fn); err != nil {
		t.Fatal(err)
	}
}

func tryUpdate(t testing.TB, db backup.Store, fn func(ctx context.Context, tx backup.Tx) error) error {
	t.Helper()
	return db.Update(t.Context(), func(tx backup.Tx) error { return fn(t.Context(), tx) })
}

func view(t testing.TB, db backup.Store, fn func(ctx context.Context, tx backup.Tx) error) {
	t.Helper()
	if err := db.View(t.Context(), func(tx backup.Tx) error { return fn(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
}

// read returns what get returns in a View.
func read[T any](t testing.TB, db backup.Store, get func(ctx context.Context, tx backup.Tx) (T, error)) T {
	t.Helper()
	var v T
	view(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
		v, err = get(ctx, tx)
		return err
	})
	return v
}

// failure returns the error of get in a View.
func failure[T any](t testing.TB, db backup.Store, get func(ctx context.Context, tx backup.Tx) (T, error)) error {
	t.Helper()
	return db.View(t.Context(), func(tx backup.Tx) error {
		_, err := get(t.Context(), tx)
		return err
	})
}

// wantError checks an error's code and that its message names what it must.
func wantError(t testing.TB, err error, code backup.Code, names ...string) {
	t.Helper()
	e := backup.AsError(err)
	if e == nil || e.Code != code {
		t.Fatalf("error = %v with code %q, want code %q", err, backup.CodeOf(err), code)
	}
	for _, n := range names {
		if !strings.Contains(e.Message, n) {
			t.Errorf("message = %q, want it to name %q", e.Message, n)
		}
	}
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, d)
	}
}

func TestTheSchemaIsMadeOnceAndASecondStartFindsItDone(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		first, err := store.Open(t.Context(), p.config(nil))
		if err != nil {
			t.Fatal(err)
		}
		id, err := first.Installation(t.Context())
		if err != nil || len(id) != 26 {
			t.Fatalf("Installation = %q, %v, want an id", id, err)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		c := p.config(nil)
		c.Migrate = false
		second, err := store.Open(t.Context(), c)
		if err != nil {
			t.Fatalf("second start, which may not migrate: %v", err)
		}
		defer second.Close()
		if again, err := second.Installation(t.Context()); err != nil || again != id {
			t.Errorf("Installation after a restart = %q, %v, want %q", again, err, id)
		}
		if err := second.Ping(t.Context()); err != nil {
			t.Errorf("Ping = %v", err)
		}
	})
}

func TestAnEmptyDatabaseIsRefusedWhereNothingMayBeMigrated(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		c := p.config(nil)
		c.Migrate = false
		_, err := store.Open(t.Context(), c)
		wantError(t, err, backup.Invalid, "schema 0")
	})
}

func TestSeveralServersStartAtOnceOnOneNewPostgreSQL(t *testing.T) {
	t.Parallel()
	p := place{dsn: pgtest.Database(t), postgres: true}
	ids, errs := make([]string, 4), make([]error, 4)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			db, err := store.Open(t.Context(), p.config(nil))
			if err != nil {
				errs[i] = err
				return
			}
			ids[i], err = db.Installation(t.Context())
			errs[i] = errors.Join(err, db.Close())
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("installations = %q, want the same in all", ids)
		}
	}
}

func TestAWrongKeyIsRefusedAtTheStart(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		if err := p.open(t, nil).Close(); err != nil {
			t.Fatal(err)
		}
		c := p.config(nil)
		c.Key = bytes.Repeat([]byte{8}, 32)
		_, err := store.Open(t.Context(), c)
		wantError(t, err, backup.Invalid, "key file")
		c.Key = []byte("short")
		_, err = store.Open(t.Context(), c)
		wantError(t, err, backup.Invalid, "32 bytes", "got 5")
	})
}

func TestADatabaseThatCannotBeOpenedIsNamedWithoutItsPassword(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dsn  string
		code backup.Code
	}{
		"no scheme":            {"kura.db", backup.Invalid},
		"another engine":       {"mysql:hunter2@tcp(db)", backup.Invalid},
		"no path":              {"sqlite:", backup.Invalid},
		"a folder as the file": {"sqlite:" + t.TempDir(), backup.Invalid},
		"no folder":            {"sqlite:/does/not/exist/kura.db", backup.Invalid},
		"no PostgreSQL":        {"postgres://kura:hunter2@/none?host=" + t.TempDir(), backup.Unavailable},
		"no PostgreSQL there":  {"postgres://kura:hunter2@127.0.0.1:1/none", backup.Unavailable},
		"an unreadable DSN":    {"postgres://kura:hunter2@host:port:port/x", backup.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := store.Open(t.Context(), store.Config{DSN: c.dsn, Key: key, Migrate: true})
			wantError(t, err, c.code)
			if e := backup.AsError(err); strings.Contains(e.Message, "hunter2") {
				t.Errorf("message = %q, want no password in it", e.Message)
			}
		})
	}
}

func TestASQLiteDatabaseHasOneServer(t *testing.T) {
	t.Parallel()
	p := place{dsn: "sqlite:" + filepath.Join(t.TempDir(), "kura.db")}
	first := p.open(t, nil)
	_, err := store.Open(t.Context(), p.config(nil))
	wantError(t, err, backup.Conflict, "kura.db.lock", "Process ")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	p.open(t, nil)
}

func TestNobodyElseMayReadTheSQLiteFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := (place{dsn: "sqlite:" + filepath.Join(dir, "kura.db")}).open(t, nil)
	if err := db.SetSetting(t.Context(), "a", "b"); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		seen++
		if i.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", path, i.Mode().Perm())
		}
		return nil
	})
	if err != nil || seen < 3 {
		t.Errorf("%d files, %v, want the database, its log and its lock", seen, err)
	}
}

func TestSecretsAreNotReadableInTheDatabase(t *testing.T) {
	t.Parallel()
	const secret = "correct-horse-battery-staple"
	dir := t.TempDir()
	var logged bytes.Buffer
	c := (place{dsn: "sqlite:" + filepath.Join(dir, "kura.db")}).config(nil)
	c.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	db, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	update(t, db, func(ctx context.Context, tx backup.Tx) error {
		v := backup.VCenter{Name: "vc", Password: secret}
		r := backup.RepositoryRecord{Name: "r", Password: secret, Settings: map[string]string{"secret_key": secret}}
		return errors.Join(tx.InsertVCenter(ctx, &v), tx.InsertRepository(ctx, &r))
	})
	if err := db.SaveIdempotent(t.Context(), backup.DefaultProject, "k", "h", 201, []byte(secret)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found["secret"] = found["secret"] || bytes.Contains(b, []byte(secret))
		found["name"] = found["name"] || bytes.Contains(b, []byte("CREATE TABLE vcenter"))
		return err
	})
	if err != nil || found["secret"] || !found["name"] {
		t.Errorf("secret readable: %v, schema readable: %v, error %v; want false, true, nil", found["secret"], found["name"], err)
	}
	if strings.Contains(logged.String(), secret) {
		t.Error("the secret is in the log")
	}
}

func TestUpdatesThatReadBeforeTheyWriteDoNotCrossEachOther(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		dbs := []*store.DB{p.open(t, nil)}
		if p.postgres {
			dbs = append(dbs, p.open(t, nil), p.open(t, nil))
		}
		const most = 3
		var wg sync.WaitGroup
		for i := range 24 {
			wg.Go(func() {
				err := dbs[i%len(dbs)].Update(t.Context(), func(tx backup.Tx) error {
					have, _, err := tx.Groups(t.Context(), backup.Page{})
					if err != nil || len(have) == most {
						return err
					}
					return tx.InsertGroup(t.Context(), &backup.Group{Name: backup.NewID(time.Now())})
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got := read(t, dbs[0], func(ctx context.Context, tx backup.Tx) ([]backup.Group, error) {
			all, _, err := tx.Groups(ctx, backup.Page{})
			return all, err
		})
		if len(got) != most {
			t.Errorf("%d groups, want %d: each Update sees what the one before it did", len(got), most)
		}
	})
}

func TestAnUpdateThatFailsLeavesNothing(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, _ *clock) {
		failed := errors.New("failed")
		err := tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.InsertGroup(ctx, &backup.Group{Name: "g"}), failed)
		})
		if !errors.Is(err, failed) {
			t.Errorf("error = %v, want the function's", err)
		}
		wantError(t, failure(t, db, func(ctx context.Context, tx backup.Tx) (backup.Group, error) { return tx.GroupByName(ctx, "g") }), backup.NotFound, `"g"`)
	})
}

func TestAViewCannotWriteAndSeesOneState(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, _ *clock) {
		err := db.View(t.Context(), func(tx backup.Tx) error {
			return tx.InsertGroup(t.Context(), &backup.Group{Name: "g"})
		})
		if err == nil {
			t.Error("a View wrote a group, want an error")
		}
		view(t, db, func(ctx context.Context, tx backup.Tx) error {
			before, _, err := tx.Groups(ctx, backup.Page{})
			if err != nil {
				return err
			}
			update(t, db, func(ctx context.Context, tx backup.Tx) error {
				return tx.InsertGroup(ctx, &backup.Group{Name: "later"})
			})
			after, _, err := tx.Groups(ctx, backup.Page{})
			if len(after) != len(before) {
				t.Errorf("groups in one View = %d, then %d, want the same", len(before), len(after))
			}
			return err
		})
	})
}

func TestTheInstantOfATransactionStandsStill(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		db := p.open(t, nil)
		before := time.Now().Add(-time.Minute)
		update(t, db, func(_ context.Context, tx backup.Tx) error {
			now := tx.Now()
			if now != tx.Now() || now.Location() != time.UTC || now.Before(before) || now.After(before.Add(2*time.Minute)) {
				t.Errorf("Now = %v, want one instant of now in UTC", now)
			}
			return nil
		})
	})
}

func TestACancelledContextEndsACall(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, _ *clock) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := db.Update(ctx, func(backup.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("Update with a cancelled context = %v, want context.Canceled", err)
		}
	})
}

func TestADatabaseThatHasGoneAwayIsUnavailable(t *testing.T) {
	t.Parallel()
	cluster, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), place{dsn: cluster.DSN("postgres")}.config(nil))
	if err = errors.Join(err, cluster.Close()); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for range 3 { // first over connections that broke, then over none
		_, claim := db.Claim(t.Context(), backup.Claim{Owner: "a", Lease: time.Minute})
		_, token := db.TokenByHash(t.Context(), "h")
		_, renew := db.Renew(t.Context(), backup.Lease{JobID: "j"}, time.Minute)
		for what, err := range map[string]error{
			"Update": db.Update(t.Context(), func(backup.Tx) error { return nil }), "View": db.View(t.Context(), func(backup.Tx) error { return nil }),
			"Ping": db.Ping(t.Context()), "Claim": claim, "TokenByHash": token, "Renew": renew, "SetSetting": db.SetSetting(t.Context(), "a", "b"),
		} {
			if code := backup.CodeOf(err); code != backup.Unavailable {
				t.Errorf("%s = %v with code %q, want %q", what, err, code, backup.Unavailable)
			}
		}
	}
}
