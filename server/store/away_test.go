package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// groups lists the names of the stored groups, and fails on one that is there twice.
func groups(t *testing.T, db *store.DB) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, g := range read(t, db, func(ctx context.Context, tx backup.Tx) (all []backup.Group, err error) {
		for p := (backup.Page{Limit: 1000}); ; {
			page, next, err := tx.Groups(ctx, p)
			if all = append(all, page...); err != nil || next == "" {
				return all, err
			}
			p.Cursor = next
		}
	}) {
		if names[g.Name] {
			t.Errorf("group %s is there twice", g.Name)
		}
		names[g.Name] = true
	}
	return names
}

func insertGroup(ctx context.Context, db *store.DB, name string) error {
	return db.Update(ctx, func(tx backup.Tx) error { return tx.InsertGroup(ctx, &backup.Group{Name: name}) })
}

// A write whose connection is lost in COMMIT is not acknowledged: it may have
// been done, and is done whole or not at all.
func TestAConnectionLostInCommitIsToldAndLeavesAllOrNothing(t *testing.T) {
	t.Parallel()
	dsn, proxy := pgtest.Through(t)
	db := place{dsn: dsn, postgres: true}.open(t, nil)
	for name, c := range map[string]struct {
		cut  pgtest.Cut
		done bool
	}{
		"before": {pgtest.BeforeCommit, false},
		"after":  {pgtest.AfterCommit, true},
	} {
		proxy.CutCommit(c.cut)
		err := insertGroup(t.Context(), db, name)
		wantError(t, err, backup.Unavailable)
		if got := groups(t, db)[name]; got != c.done {
			t.Errorf("cut %s COMMIT: the group is there = %t, want %t", name, got, c.done)
		}
		again := insertGroup(t.Context(), db, name)
		if want := map[bool]backup.Code{true: backup.Conflict}[c.done]; backup.CodeOf(again) != want {
			t.Errorf("cut %s COMMIT: the second try = %v, want %q", name, again, want)
		}
	}
	if n := proxy.Cuts(); n != 2 {
		t.Errorf("%d commits were cut, want 2", n)
	}
}

// A job's end that may have been stored is not stored twice.
func TestAJobsEndThatIsLostInCommitIsWrittenOnce(t *testing.T) {
	t.Parallel()
	dsn, proxy := pgtest.Through(t)
	db := place{dsn: dsn, postgres: true}.open(t, nil)
	insertJobs(t, db, job("one", time.Now().Add(-time.Minute)))
	j := claim(t, db, backup.Claim{})
	proxy.CutCommit(pgtest.AfterCommit)
	count := func(tx backup.Tx) error { return tx.InsertGroup(t.Context(), &backup.Group{Name: "made by the end"}) }
	wantError(t, db.Finish(t.Context(), lease(j), backup.Ending{State: backup.JobSucceeded}, count), backup.Unavailable)
	if err := db.Finish(t.Context(), lease(j), backup.Ending{State: backup.JobFailed}, count); !errors.Is(err, backup.ErrLeaseLost) {
		t.Errorf("the second try = %v, want %v", err, backup.ErrLeaseLost)
	}
	if got := getJob(t, db, "one"); got.State != backup.JobSucceeded || len(groups(t, db)) != 1 {
		t.Errorf("the job is %s with %d groups, want it succeeded with one", got.State, len(groups(t, db)))
	}
}

// writers write groups one after the other until stopped.
type writers struct {
	mu    sync.Mutex // guards acked
	acked []string
	lost  atomic.Int64 // writes that were not acknowledged
	stop  chan struct{}
	wg    sync.WaitGroup
}

func write(t *testing.T, db *store.DB, n int) *writers {
	w := &writers{stop: make(chan struct{})}
	for i := range n {
		w.wg.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-w.stop:
					return
				default:
				}
				name := fmt.Sprintf("group-%d-%d", i, k)
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				err := insertGroup(ctx, db, name)
				cancel()
				switch backup.CodeOf(err) {
				case "":
					w.mu.Lock()
					w.acked = append(w.acked, name)
					w.mu.Unlock()
				case backup.Unavailable:
					w.lost.Add(1)
					time.Sleep(10 * time.Millisecond) // nobody is helped by a thousand tries
				default:
					t.Errorf("write %s: %v (%T), want it unavailable or done", name, err, errors.Unwrap(err))
				}
			}
		})
	}
	return w
}

// until waits for that many writes more.
func (w *writers) more(t *testing.T, n int) {
	t.Helper()
	w.mu.Lock()
	from := len(w.acked)
	w.mu.Unlock()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		now := len(w.acked)
		w.mu.Unlock()
		if now >= from+n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("only %d of %d writes within a minute", now-from, n)
		}
	}
}

func (w *writers) allThere(t *testing.T, db *store.DB) {
	t.Helper()
	there := groups(t, db)
	for _, name := range w.acked {
		if !there[name] {
			t.Errorf("the write of %s was acknowledged and is lost", name)
		}
	}
	t.Logf("%d writes acknowledged, %d not, %d there", len(w.acked), w.lost.Load(), len(there))
	if w.lost.Load() == 0 {
		t.Error("every write was acknowledged: nothing was in the way")
	}
}

func cluster(t *testing.T, settings ...string) *pgtest.Cluster {
	t.Helper()
	c, err := pgtest.Start(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestNoAcknowledgedWriteIsLostWherePostgreSQLIsRestarted(t *testing.T) {
	t.Parallel()
	c := cluster(t, "synchronous_commit=on")
	db := place{dsn: c.DSN("postgres"), postgres: true}.open(t, nil)
	w := write(t, db, 4)
	for _, how := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		w.more(t, 20)
		c.Stop(how)
		if err := c.Again(); err != nil {
			t.Fatal(err)
		}
	}
	w.more(t, 20)
	close(w.stop)
	w.wg.Wait()
	w.allThere(t, db)
}

func TestNoAcknowledgedWriteIsLostInAFailOver(t *testing.T) {
	t.Parallel()
	c := cluster(t, "synchronous_commit=on")
	proxy := pgtest.NewProxy(t, "unix", c.Socket())
	db := place{dsn: proxy.DSN("postgres"), postgres: true}.open(t, nil)
	standby, err := c.Standby()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Close(); err != nil {
			t.Error(err)
		}
	})
	w := write(t, db, 4)
	w.more(t, 20)
	c.Stop(syscall.SIGQUIT)
	if err := standby.Promote(); err != nil {
		t.Fatal(err)
	}
	proxy.To("unix", standby.Socket())
	proxy.CutAll()
	w.more(t, 20)
	close(w.stop)
	w.wg.Wait()
	w.allThere(t, db)
}

// Where packets are swallowed, nothing hangs for longer than the store's patience.
func TestADatabaseThatFallsSilentIsUnavailable(t *testing.T) {
	t.Parallel()
	dsn, proxy := pgtest.Through(t)
	config := place{dsn: dsn, postgres: true}.config(nil)
	config.Patience = 500 * time.Millisecond
	db, err := store.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	wantDone := func(name string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			err := insertGroup(t.Context(), db, name)
			if err == nil {
				return
			}
			if backup.CodeOf(err) != backup.Unavailable || time.Now().After(end) {
				t.Fatalf("write %s: %v", name, err)
			}
		}
	}
	wantDone("before")
	proxy.Blackhole(true)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range 4 {
		wg.Go(func() { wantError(t, insertGroup(t.Context(), db, fmt.Sprint("during-", i)), backup.Unavailable) })
		wg.Go(func() {
			wantError(t, db.View(t.Context(), func(tx backup.Tx) error { return nil }), backup.Unavailable)
		})
		wg.Go(func() {
			_, err := db.Claim(t.Context(), backup.Claim{Owner: "o", Lease: time.Minute})
			wantError(t, err, backup.Unavailable)
		})
	}
	wg.Wait()
	t.Logf("twelve calls gave up after %s", time.Since(began).Round(time.Millisecond))
	proxy.Blackhole(false)
	wantDone("after")
}
