package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

// led is a run of a leader and members that wait for it.
func led(t *testing.T, db *store.DB, now time.Time, members ...string) {
	t.Helper()
	lead := job("lead", now)
	lead.RunID, lead.Kind, lead.Deadline = "r", backup.KindFreeze, now.Add(time.Hour)
	all := []backup.Job{lead}
	for _, id := range members {
		j := job(id, now)
		j.RunID, j.WaitsFor, j.Deadline = "r", "lead", now.Add(time.Hour)
		j.Keys = []backup.JobKey{{Name: "vm:" + id, Weight: 1, Max: 1}, {Name: "host:h", Weight: 1, Max: 9}}
		all = append(all, j)
	}
	update(t, db, func(ctx context.Context, tx backup.Tx) error {
		_, err := tx.InsertRun(ctx, backup.Run{ID: "r", State: backup.RunQueued}, all)
		return err
	})
}

func note(t *testing.T, db *store.DB, n backup.WaitingNote) (told bool) {
	t.Helper()
	update(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
		n.Leader = "lead"
		told, err = tx.NoteWaiting(ctx, n)
		return err
	})
	return told
}

func TestAJobThatWaitsBeginsOnceTheOneItWaitsForHasEndedWell(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		led(t, db, c.now(), "m1", "m2")
		lead := claim(t, db, backup.Claim{Owner: "srv", Lease: 3 * time.Hour})
		same(t, "claims while it runs", []string{lead.ID, claimed(t, db, backup.Claim{})}, []string{"lead", ""})
		same(t, "told", note(t, db, backup.WaitingNote{JobID: "m1", Checkpoint: []byte(`{"a":1}`), KeptAttempt: 1}), true)
		kept, err := db.Kept(t.Context())
		same(t, "kept", kept, map[string]int{"m1": 1})
		// The deadline of all passes; the leader had begun in time.
		c.pass(2 * time.Hour)
		n, err2 := db.Expire(t.Context())
		if err := errors.Join(err, err2); err != nil || n != 0 {
			t.Fatalf("%d jobs were missed (%v), want none while the leader runs", n, err)
		}
		same(t, "told again", note(t, db, backup.WaitingNote{JobID: "m1", Checkpoint: []byte(`{"a":2}`), KeptAttempt: 1, Begun: true, Messages: []string{"hello"}}), true)
		finish(t, db, lead, backup.Ending{State: backup.JobSucceeded})
		// Its VM is its own already, so that nothing comes between.
		other := job("a-other", c.now())
		other.Keys = []backup.JobKey{{Name: "vm:m1", Weight: 1, Max: 1}}
		insertJobs(t, db, other)
		got := claim(t, db, backup.Claim{Owner: "srv", Lease: time.Minute})
		if got == nil || got.ID != "m1" || string(got.Checkpoint) != `{"a":2}` || len(got.Messages) != 1 || got.KeptAttempt != 1 {
			t.Fatalf("claimed %+v, want m1 with its note", got)
		}
		finish(t, db, got, backup.Ending{State: backup.JobQueued, Due: c.now()})
		same(t, "its VM is kept between its tries", claim(t, db, backup.Claim{Owner: "srv"}).ID, "m1")
		same(t, "told when it is too late", note(t, db, backup.WaitingNote{JobID: "m1"}), false)
		if r := getRun(t, db, "r"); r.State != backup.RunRunning {
			t.Errorf("run is %s, want running", r.State)
		}
	})
}

func TestWhatWaitsEndsAsTheJobThatItWaitsFor(t *testing.T) {
	for name, end := range map[string]struct {
		how   func(t *testing.T, db *store.DB, c *clock)
		state backup.JobState
		run   backup.RunState
	}{
		"failed": {func(t *testing.T, db *store.DB, _ *clock) {
			finish(t, db, claim(t, db, backup.Claim{Owner: "srv"}), backup.Ending{State: backup.JobFailed, Code: backup.NoSpace, Error: "Full."})
		}, backup.JobFailed, backup.RunFailed},
		"cancelled": {func(t *testing.T, db *store.DB, _ *clock) {
			update(t, db, func(ctx context.Context, tx backup.Tx) error {
				_, err := tx.CancelJob(ctx, "lead")
				return err
			})
		}, backup.JobCancelled, backup.RunFailed},
		"missed": {func(t *testing.T, db *store.DB, c *clock) {
			c.pass(2 * time.Hour)
			if _, err := db.Expire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, backup.JobMissed, backup.RunMissed},
	} {
		t.Run(name, func(t *testing.T) {
			on(t, func(t *testing.T, db *store.DB, c *clock) {
				led(t, db, c.now(), "m1", "m2")
				end.how(t, db, c)
				for _, id := range []string{"m1", "m2"} {
					if j := getJob(t, db, id); j.State != end.state || j.EndedAt.IsZero() {
						t.Errorf("%s is %s, want %s", id, j.State, end.state)
					}
				}
				if r := getRun(t, db, "r"); r.State != end.run {
					t.Errorf("run is %s, want %s", r.State, end.run)
				}
			})
		})
	}
}

func TestWhatAJobOwesIsFoundWhileNoServerWorksOnIt(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		insertJobs(t, db, job("j", c.now()))
		j := claim(t, db, backup.Claim{Owner: "srv", Lease: time.Minute})
		if err := db.Save(t.Context(), lease(j), backup.Progress{Checkpoint: []byte(`{}`), Owes: true}); err != nil {
			t.Fatal(err)
		}
		owing := func() (ids []string) {
			all, err := db.Owing(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range all {
				ids = append(ids, j.ID)
			}
			return ids
		}
		same(t, "owing while it runs", owing(), []string(nil))
		c.pass(2 * time.Minute)
		same(t, "owing when its server is dead", owing(), []string{"j"})
		listed := getJob(t, db, "j")
		again := claim(t, db, backup.Claim{Owner: "srv", Lease: time.Minute})
		if err := db.Repaid(t.Context(), listed, "Too late."); err != nil || !getJob(t, db, "j").Owes {
			t.Errorf("a debt was struck off (%v) under the hands of a new attempt", err)
		}
		finish(t, db, again, backup.Ending{State: backup.JobFailed, Error: "No."})
		same(t, "owing when it is over", owing(), []string{"j"})
		if err := errors.Join(db.Repaid(t.Context(), getJob(t, db, "j"), "Done."), db.Repaid(t.Context(), getJob(t, db, "j"), "")); err != nil {
			t.Fatal(err)
		}
		if j := getJob(t, db, "j"); j.Owes || len(j.Messages) != 1 || len(owing()) != 0 {
			t.Errorf("job %+v, want it to owe nothing, with a message", j)
		}
	})
}

func TestTheSpreadOfARunIsKept(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		led(t, db, c.now(), "m1")
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.SetSpread(ctx, "r", 1500*time.Millisecond) })
		same(t, "spread", getRun(t, db, "r").Spread, 1500*time.Millisecond)
	})
}
