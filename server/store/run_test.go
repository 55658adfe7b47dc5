package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

func job(id string, due time.Time) backup.Job {
	return backup.Job{ID: id, Kind: backup.KindBackup, State: backup.JobQueued, Due: due, MaxAttempts: 3}
}

func insertJobs(t testing.TB, db *store.DB, all ...backup.Job) {
	t.Helper()
	update(t, db, func(ctx context.Context, tx backup.Tx) error {
		for _, j := range all {
			if err := tx.InsertJob(ctx, j); err != nil {
				return err
			}
		}
		return nil
	})
}

func getJob(t testing.TB, db *store.DB, id string) backup.Job {
	t.Helper()
	return read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Job, error) { return tx.Job(ctx, id) })
}

func getRun(t testing.TB, db *store.DB, id string) backup.Run {
	t.Helper()
	return read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Run, error) { return tx.Run(ctx, id) })
}

func claim(t testing.TB, db *store.DB, c backup.Claim) *backup.Job {
	t.Helper()
	if c.Owner == "" {
		c.Owner = "a"
	}
	if c.Lease == 0 {
		c.Lease = time.Minute
	}
	j, err := db.Claim(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// claimed is the id of the claimed job, "" for none.
func claimed(t testing.TB, db *store.DB, c backup.Claim) string {
	t.Helper()
	if j := claim(t, db, c); j != nil {
		return j.ID
	}
	return ""
}

func lease(j *backup.Job) backup.Lease {
	return backup.Lease{JobID: j.ID, Owner: j.Owner, Attempt: j.Attempt}
}

func finish(t testing.TB, db *store.DB, j *backup.Job, e backup.Ending) {
	t.Helper()
	if err := db.Finish(t.Context(), lease(j), e, nil); err != nil {
		t.Fatal(err)
	}
}

func TestAJobComesBackAsItWasStored(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		at := c.now()
		j := backup.Job{
			ID: "j", Project: backup.DefaultProject, Kind: backup.KindRestore, RunID: "r", VCenterID: "v", VMID: "m", VMName: "n\xff\x00", ImageID: "i", RestoreID: "re",
			Spec: json.RawMessage(`{"a": 1}`), Needs: []string{"x", "y"}, Keys: []backup.JobKey{{Name: "k", Weight: 2, Max: 3}}, State: backup.JobQueued,
			Due: at, Deadline: at.Add(time.Hour), WindowEnd: at.Add(time.Minute), Attempt: 2, Failures: 1, MaxAttempts: 3, Owner: "o", LeaseUntil: at, Cancel: true,
			Step: "s", Checkpoint: json.RawMessage(`{"c":"\u0000"}`), Done: 1, Total: 2, Rate: 3, CreatedAt: at, StartedAt: at, EndedAt: at,
			ErrorCode: backup.NoSpace, Error: "e", Messages: []string{"one\ntwo", "three \u2028"},
		}
		insertJobs(t, db, j)
		j.VMName = "n\uFFFD\uFFFD" // what no database takes is marked, not lost with the rest
		same(t, "job", getJob(t, db, "j"), j)
		wantError(t, failure(t, db, func(ctx context.Context, tx backup.Tx) (backup.Job, error) { return tx.Job(ctx, "x") }), backup.NotFound, `job`, `"x"`)
		if err := tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertJob(ctx, backup.Job{}) }); err == nil {
			t.Error("a job without id was stored, want an error")
		}
	})
}

func TestJobsAreListedNewestFirstByEachFilter(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		start := c.now()
		for i := range 12 {
			j := job(fmt.Sprintf("j%02d", i), c.now())
			j.CreatedAt = start.Add(time.Duration(i/2) * time.Hour) // two of each instant
			j.Kind = []backup.JobKind{backup.KindBackup, backup.KindSync}[i%2]
			j.State = []backup.JobState{backup.JobQueued, backup.JobSucceeded, backup.JobRunning}[i%3]
			j.VMID, j.RunID, j.VCenterID = fmt.Sprint("m", i%2), fmt.Sprint("r", i%3), fmt.Sprint("v", i%4)
			insertJobs(t, db, j)
		}
		for _, c := range []struct {
			filter backup.JobFilter
			want   string
		}{
			{backup.JobFilter{}, "[j11 j10 j09 j08 j07 j06 j05 j04 j03 j02 j01 j00]"},
			{backup.JobFilter{Kind: backup.KindSync}, "[j11 j09 j07 j05 j03 j01]"},
			{backup.JobFilter{State: backup.JobSucceeded}, "[j10 j07 j04 j01]"},
			{backup.JobFilter{Active: true}, "[j11 j09 j08 j06 j05 j03 j02 j00]"},
			{backup.JobFilter{Active: true, Kind: backup.KindSync, VCenterID: "v1"}, "[j09 j05]"},
			{backup.JobFilter{VMID: "m0"}, "[j10 j08 j06 j04 j02 j00]"},
			{backup.JobFilter{VMID: "m0", State: backup.JobRunning}, "[j08 j02]"},
			{backup.JobFilter{RunID: "r2"}, "[j11 j08 j05 j02]"},
			{backup.JobFilter{VCenterID: "v3"}, "[j11 j07 j03]"},
			{backup.JobFilter{After: start.Add(4 * time.Hour)}, "[j11 j10 j09 j08]"}, // seed:N40
		} {
			var got []string
			c.filter.Limit = 5
			for page := 0; ; page++ {
				var some []backup.Job
				view(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
					some, c.filter.Cursor, err = tx.Jobs(ctx, c.filter)
					return err
				})
				got = append(got, ids(some, func(j backup.Job) string { return j.ID })...)
				if c.filter.Cursor == "" {
					break
				}
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("Jobs(%+v) = %v, want %s", c.filter, got, c.want)
			}
		}
	})
}

func TestASlotOfAScheduleGetsOneRun(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		run := backup.Run{ScheduleID: "s", Slot: c.now(), Trigger: backup.TriggerSchedule, State: backup.RunQueued, CreatedAt: c.now()}
		insert := func(r backup.Run, id string, jobs ...backup.Job) (stored bool) {
			r.ID = id
			update(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
				stored, err = tx.InsertRun(ctx, r, jobs)
				return err
			})
			return stored
		}
		j := job("j", c.now())
		j.RunID = "r1"
		if !insert(run, "r1", j) {
			t.Fatal("the first run was not stored")
		}
		if insert(run, "r2", job("j2", c.now())) {
			t.Error("a second run of the slot was stored")
		}
		wantError(t, failure(t, db, func(ctx context.Context, tx backup.Tx) (backup.Job, error) { return tx.Job(ctx, "j2") }), backup.NotFound)
		manual := run
		manual.Slot, manual.Trigger = time.Time{}, backup.TriggerManual
		if !insert(manual, "r3") || !insert(manual, "r4") {
			t.Error("two runs of now were not both stored")
		}
		other := run
		other.ScheduleID = "other"
		if !insert(other, "r5") {
			t.Error("another schedule's run of the slot was not stored")
		}
		got := getRun(t, db, "r1")
		run.ID, run.Project, run.Jobs = "r1", backup.DefaultProject, got.Jobs
		same(t, "run", got, run)
		if len(got.Jobs) != 1 || got.Jobs[0].ID != "j" {
			t.Errorf("jobs = %v, want j", got.Jobs)
		}
		list := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Run, error) {
			all, _, err := tx.Runs(ctx, backup.RunFilter{ScheduleID: "s", State: backup.RunQueued})
			return all, err
		})
		same(t, "runs", ids(list, func(r backup.Run) string { return r.ID }), []string{"r4", "r3", "r1"})
	})
}

func TestTwoServersThatDispatchASlotMakeOneRun(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		dbs := []*store.DB{p.open(t, nil)}
		if p.postgres {
			dbs = append(dbs, p.open(t, nil))
		}
		slot := time.Date(2027, 1, 1, 2, 0, 0, 0, time.UTC)
		var stored atomic.Int32
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				var ok bool
				err := dbs[i%len(dbs)].Update(t.Context(), func(tx backup.Tx) (err error) {
					ok, err = tx.InsertRun(t.Context(), backup.Run{ID: backup.NewID(tx.Now()), ScheduleID: "s", Slot: slot}, nil)
					return err
				})
				if err != nil {
					t.Error(err)
				}
				if ok {
					stored.Add(1)
				}
			})
		}
		wg.Wait()
		if stored.Load() != 1 {
			t.Errorf("%d runs of one slot, want 1", stored.Load())
		}
	})
}

func TestARunOfThousandsOfVMsIsStored(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		var all []backup.Job
		for i := range 2000 {
			j := job(fmt.Sprintf("j%05d", i), c.now())
			j.RunID, j.Needs, j.Keys = "r", []string{"v", "w"}, []backup.JobKey{{Name: fmt.Sprint("vm:", i), Weight: 1, Max: 1}, {Name: "vc", Weight: 1, Max: 1}}
			all = append(all, j)
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			_, err := tx.InsertRun(ctx, backup.Run{ID: "r", State: backup.RunQueued}, all)
			return err
		})
		if got := getRun(t, db, "r"); len(got.Jobs) != 2000 {
			t.Errorf("%d jobs, want 2000", len(got.Jobs))
		}
		if claimed(t, db, backup.Claim{}) != "j00000" || claimed(t, db, backup.Claim{}) != "" {
			t.Error("want the first job and then, with the limit reached, none")
		}
	})
}

func TestTheOldestDueJobThatFitsIsClaimed(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		now := c.now()
		sync := job("1sync", now.Add(-5*time.Minute))
		sync.Kind = backup.KindSync
		far := job("2far", now.Add(-4*time.Minute))
		far.Needs = []string{"vcenter:b", "repository:r"}
		late := job("3late", now.Add(-3*time.Minute))
		late.Deadline = now.Add(-time.Second)
		insertJobs(t, db, job("5second", now), job("4first", now.Add(-time.Minute)), job("6future", now.Add(time.Minute)), sync, far, late)
		backups := backup.Claim{Kinds: []backup.JobKind{backup.KindBackup, backup.KindRestore}, Reach: []string{"vcenter:b"}}
		same(t, "claims", []string{claimed(t, db, backups), claimed(t, db, backups), claimed(t, db, backups)}, []string{"4first", "5second", ""})
		nothing := backup.Claim{Kinds: backups.Kinds, Reach: []string{}}
		if got := claimed(t, db, nothing); got != "" {
			t.Errorf("a server that reaches nothing claimed %q", got)
		}
		backups.Reach = []string{"vcenter:a", "vcenter:b", "repository:r"}
		same(t, "claim of one that reaches more", claimed(t, db, backups), "2far")
		same(t, "claim of any kind, reaching nothing", claimed(t, db, backup.Claim{Reach: []string{}}), "1sync")
		c.pass(time.Minute)
		same(t, "claim a minute later", claimed(t, db, backup.Claim{Owner: "b", Lease: time.Hour}), "6future")
		if got := getJob(t, db, "3late"); got.State != backup.JobQueued {
			t.Errorf("the job past its deadline is %s, want queued until Expire", got.State)
		}
	})
}

func TestAClaimedJobCarriesItsLeaseAndMakesItsRunRun(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		j := job("j", c.now())
		j.RunID, j.WindowEnd, j.Needs, j.Keys = "r", c.now().Add(-time.Hour), []string{"v"}, []backup.JobKey{{Name: "k", Weight: 1, Max: 1}}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			_, err := tx.InsertRun(ctx, backup.Run{ID: "r", State: backup.RunQueued}, []backup.Job{j})
			return err
		})
		got := claim(t, db, backup.Claim{Owner: "srv", Lease: 30 * time.Second})
		same(t, "claimed job", *got, getJob(t, db, "j"))
		if got.State != backup.JobRunning || got.Owner != "srv" || got.Attempt != 1 || got.LeaseUntil != c.now().Add(30*time.Second) || got.StartedAt != c.now() || got.LateBy() != time.Hour {
			t.Errorf("claimed job = %+v, want it running for srv until in 30 s, an hour late", got)
		}
		if r := getRun(t, db, "r"); r.State != backup.RunRunning {
			t.Errorf("run is %s, want running", r.State)
		}
		live, err := db.Live(t.Context())
		same(t, "live leases", live, map[string]int{"j": 1})
		c.pass(31 * time.Second)
		none, err2 := db.Live(t.Context())
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		same(t, "live leases after they ran out", none, map[string]int{})
	})
}

func TestALimitIsSharedByAllThatNameIt(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		heavy, light, other, huge := job("1heavy", c.now()), job("2light", c.now()), job("3other", c.now()), job("4huge", c.now())
		heavy.Keys = []backup.JobKey{{Name: "host:a", Weight: 3, Max: 4}, {Name: "vm:1", Weight: 1, Max: 1}}
		light.Keys = []backup.JobKey{{Name: "host:a", Weight: 2, Max: 4}}
		other.Keys = []backup.JobKey{{Name: "vm:1", Weight: 1, Max: 1}}
		huge.Keys = []backup.JobKey{{Name: "host:b", Weight: 60, Max: 52}} // heavier than the limit: it runs alone
		insertJobs(t, db, heavy, light, other, huge)
		first := claim(t, db, backup.Claim{})
		same(t, "claims", []string{first.ID, claimed(t, db, backup.Claim{}), claimed(t, db, backup.Claim{})}, []string{"1heavy", "4huge", ""})
		// The job learns where it runs, which frees what it does not use.
		if err := db.Save(t.Context(), lease(first), backup.Progress{Keys: []backup.JobKey{{Name: "host:a", Weight: 1, Max: 4}, {Name: "vm:1", Weight: 1, Max: 1}}}); err != nil {
			t.Fatal(err)
		}
		same(t, "claim once there is room", claimed(t, db, backup.Claim{}), "2light")
		finish(t, db, first, backup.Ending{State: backup.JobSucceeded})
		same(t, "claim once the VM is free", claimed(t, db, backup.Claim{}), "3other")
		tail := job("5tail", c.now())
		tail.Keys = []backup.JobKey{{Name: "host:a", Weight: 2, Max: 4}, {Name: "host:a", Weight: 1, Max: 4}} // counted together
		insertJobs(t, db, tail)
		same(t, "claim of a key named twice", claimed(t, db, backup.Claim{}), "")
	})
}

// limited is 200 jobs over a few limits, and a check that none is passed.
type limited struct {
	mu      sync.Mutex // guards the rest
	running map[string]int
	done    map[string]int
	worst   string
}

func (l *limited) count(j *backup.Job, sign int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range j.Keys {
		l.running[k.Name] += sign * k.Weight
		if l.running[k.Name] > k.Max {
			l.worst = fmt.Sprintf("%s: %d of %d", k.Name, l.running[k.Name], k.Max)
		}
	}
	if sign < 0 {
		l.done[j.ID]++
	}
}

func TestConcurrentServersClaimEachJobOnceAndPassNoLimit(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		const n, claimers = 200, 8
		dbs := []*store.DB{p.open(t, nil)}
		if p.postgres { // two servers on one database
			dbs = append(dbs, p.open(t, nil))
		}
		var all []backup.Job
		for i := range n {
			j := job(fmt.Sprintf("j%03d", i), time.Now().Add(-time.Hour))
			j.RunID = "r"
			j.Keys = []backup.JobKey{{Name: "vcenter", Weight: 1 + i%2, Max: 5}, {Name: fmt.Sprint("host:", i%3), Weight: 1, Max: 2}, {Name: fmt.Sprint("vm:", i%50), Weight: 1, Max: 1}}
			all = append(all, j)
		}
		update(t, dbs[0], func(ctx context.Context, tx backup.Tx) error {
			_, err := tx.InsertRun(ctx, backup.Run{ID: "r", State: backup.RunQueued}, all)
			return err
		})
		l := &limited{running: map[string]int{}, done: map[string]int{}}
		var ended atomic.Int32
		var wg sync.WaitGroup
		for i := range claimers {
			wg.Go(func() {
				db := dbs[i%len(dbs)]
				for ended.Load() < n {
					j, err := db.Claim(t.Context(), backup.Claim{Owner: fmt.Sprint("c", i), Lease: time.Minute})
					if err != nil {
						t.Error(err)
						return
					}
					if j == nil {
						continue // the limits are reached: another one will finish
					}
					l.count(j, 1)
					l.count(j, -1)
					if err := db.Finish(t.Context(), lease(j), backup.Ending{State: backup.JobSucceeded}, nil); err != nil {
						t.Error(err)
						return
					}
					ended.Add(1)
				}
			})
		}
		wg.Wait()
		if l.worst != "" {
			t.Errorf("a limit was passed: %s", l.worst)
		}
		for _, j := range all {
			if l.done[j.ID] != 1 {
				t.Errorf("job %s ran %d times, want once", j.ID, l.done[j.ID])
			}
		}
		if r := getRun(t, dbs[0], "r"); r.State != backup.RunSucceeded || r.EndedAt.IsZero() {
			t.Errorf("run is %s, ended %v, want succeeded", r.State, r.EndedAt)
		}
	})
}

func TestALeaseTakenOverFencesItsOldHolderOff(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		j := job("j", c.now())
		j.Keys = []backup.JobKey{{Name: "vm:1", Weight: 1, Max: 1}}
		rival := job("k", c.now())
		rival.Keys = j.Keys
		insertJobs(t, db, j, rival)
		old := claim(t, db, backup.Claim{Owner: "a", Lease: time.Minute})
		c.pass(time.Minute + time.Millisecond)
		// Nobody took it yet: its holder may go on, and extend.
		if _, err := db.Renew(t.Context(), lease(old), time.Minute); err != nil {
			t.Fatalf("Renew of a lease that ran out and is free = %v", err)
		}
		c.pass(2 * time.Minute)
		fresh := claim(t, db, backup.Claim{Owner: "b", Lease: time.Minute})
		if fresh == nil || fresh.ID != "j" || fresh.Attempt != 2 || fresh.Failures != 0 || fresh.StartedAt != old.StartedAt {
			t.Fatalf("takeover = %+v, want the second attempt of j, no failed try, begun when it was", fresh)
		}
		_, renew := db.Renew(t.Context(), lease(old), time.Minute)
		also := false
		for what, err := range map[string]error{
			"Renew": renew,
			"Save":  db.Save(t.Context(), lease(old), backup.Progress{Step: "late", Keys: []backup.JobKey{}}),
			"Finish": db.Finish(t.Context(), lease(old), backup.Ending{State: backup.JobSucceeded}, func(backup.Tx) error {
				also = true
				return nil
			}),
			"Finish of another's attempt": db.Finish(t.Context(), backup.Lease{JobID: "j", Owner: "c", Attempt: 2}, backup.Ending{State: backup.JobFailed}, nil),
		} {
			if !errors.Is(err, backup.ErrLeaseLost) {
				t.Errorf("%s with a lost lease = %v, want ErrLeaseLost", what, err)
			}
		}
		if also {
			t.Error("what a lost lease's Finish also does was done")
		}
		same(t, "job", getJob(t, db, "j"), *fresh)
		same(t, "claim of the same VM", claimed(t, db, backup.Claim{}), "")
		finish(t, db, fresh, backup.Ending{State: backup.JobSucceeded})
		if _, err := db.Renew(t.Context(), lease(fresh), time.Minute); !errors.Is(err, backup.ErrLeaseLost) {
			t.Errorf("Renew of a job that is over = %v, want ErrLeaseLost", err)
		}
		same(t, "claim once the VM is free", claimed(t, db, backup.Claim{}), "k")
	})
}

func TestARestartedSingleServerResumesAtOnce(t *testing.T) {
	t.Parallel()
	p := place{dsn: "sqlite:" + t.TempDir() + "/kura.db"}
	db, err := store.Open(t.Context(), p.config(nil))
	if err != nil {
		t.Fatal(err)
	}
	insertJobs(t, db, job("j", time.Now().Add(-time.Hour)))
	if claimed(t, db, backup.Claim{Lease: time.Hour}) != "j" {
		t.Fatal("the job was not claimed")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if j := claim(t, p.open(t, nil), backup.Claim{Owner: "next"}); j == nil || j.Attempt != 2 {
		t.Errorf("claim after a restart = %+v, want the second attempt, without waiting for the lease", j)
	}
}

func TestServersOnPostgreSQLKeepLeasesByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	p := place{dsn: pgtest.Database(t), postgres: true}
	a, b := p.open(t, nil), p.open(t, nil)
	insertJobs(t, a, job("j", time.Now().Add(-time.Hour)))
	j := claim(t, a, backup.Claim{Lease: time.Minute})
	if d := j.LeaseUntil.Sub(read(t, b, func(_ context.Context, tx backup.Tx) (time.Time, error) { return tx.Now(), nil })); d > time.Minute || d < 30*time.Second {
		t.Errorf("the lease ends in %v by the other server's transaction, want just under a minute", d)
	}
	same(t, "claim of the other server", claimed(t, b, backup.Claim{}), "")
	if _, err := a.Renew(t.Context(), lease(j), -time.Second); err != nil {
		t.Fatal(err)
	}
	if got := claim(t, b, backup.Claim{Owner: "b"}); got == nil || got.Attempt != 2 {
		t.Errorf("claim of the other server after the lease ran out = %+v, want the second attempt", got)
	}
}
