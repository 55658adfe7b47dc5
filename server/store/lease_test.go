package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

func TestProgressIsSavedAndMessagesAreAppended(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		insertJobs(t, db, job("j", c.now()))
		j := claim(t, db, backup.Claim{})
		save := func(p backup.Progress) {
			t.Helper()
			if err := db.Save(t.Context(), lease(j), p); err != nil {
				t.Fatal(err)
			}
		}
		save(backup.Progress{Step: "snapshot", Checkpoint: json.RawMessage(`{"snapshot":"x"}`), Total: 10, Messages: []string{"one"}})
		save(backup.Progress{Step: "reading disks", Done: 4, Total: 10, Rate: 2, Messages: []string{"two\nlines", "three"}})
		got := getJob(t, db, "j")
		want := *j
		want.Step, want.Checkpoint, want.Done, want.Total, want.Rate = "reading disks", json.RawMessage(`{"snapshot":"x"}`), 4, 10, 2
		want.Messages = []string{"one", "two\nlines", "three"}
		same(t, "job", got, want)
		finish(t, db, j, backup.Ending{State: backup.JobSucceeded, Messages: []string{"four"}, ImageID: "i"}) // seed:W8
		want.State, want.Rate, want.LeaseUntil, want.EndedAt, want.ImageID = backup.JobSucceeded, 0, time.Time{}, c.now(), "i"
		want.Messages = append(want.Messages, "four")
		same(t, "job that is over", getJob(t, db, "j"), want)
	})
}

func TestAFailedTryWaitsAndCountsAndAHandoverDoesNot(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		j := job("j", c.now())
		j.Keys = []backup.JobKey{{Name: "vm:1", Weight: 1, Max: 1}}
		rival := job("k", c.now().Add(time.Second))
		rival.Keys = j.Keys
		insertJobs(t, db, j, rival)
		finish(t, db, claim(t, db, backup.Claim{}), backup.Ending{State: backup.JobQueued, Due: c.now().Add(time.Minute), Failed: true, Code: backup.NoSpace, Error: "Full."})
		got := getJob(t, db, "j")
		if got.State != backup.JobQueued || got.Failures != 1 || got.Attempt != 1 || got.Owner != "" || got.ErrorCode != backup.NoSpace || got.Due != c.now().Add(time.Minute) {
			t.Errorf("job after a failed try = %+v", got)
		}
		same(t, "claim before it is due", claimed(t, db, backup.Claim{}), "")
		c.pass(time.Minute)
		second := claim(t, db, backup.Claim{}) // k is due earlier and has the VM
		if second.ID != "k" {
			t.Fatalf("claim = %s, want k", second.ID)
		}
		same(t, "claim while k has the VM", claimed(t, db, backup.Claim{}), "")
		finish(t, db, second, backup.Ending{State: backup.JobSucceeded})
		third := claim(t, db, backup.Claim{})
		finish(t, db, third, backup.Ending{State: backup.JobQueued})
		if got := getJob(t, db, "j"); got.Failures != 1 || got.Attempt != 2 || got.Due != c.now() || got.Error != "Full." {
			t.Errorf("job after a handover = %+v, want one failed try of two attempts, due at once", got)
		}
		fourth := claim(t, db, backup.Claim{})
		finish(t, db, fourth, backup.Ending{State: backup.JobSucceeded})
		if got := getJob(t, db, "j"); got.Attempt != 3 || got.Error != "" || got.ErrorCode != "" {
			t.Errorf("job that succeeded at last = %+v, want no error", got)
		}
	})
}

func TestAJobOfAServerWhoseClockIsYearsAheadIsTriedAgain(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		insertJobs(t, db, job("a", c.now()))
		finish(t, db, claim(t, db, backup.Claim{}), backup.Ending{State: backup.JobQueued, Due: c.now().AddDate(10, 0, 0), Failed: true, Code: backup.VMBusy, Error: "Busy."})
		same(t, "the job to take", claimed(t, db, backup.Claim{}), "a")
	})
}

func TestARunsStateFollowsFromItsJobs(t *testing.T) {
	for name, c := range map[string]struct {
		ends []backup.JobState
		want backup.RunState
	}{
		"all succeed":      {[]backup.JobState{backup.JobSucceeded, backup.JobSucceeded}, backup.RunSucceeded},
		"one fails":        {[]backup.JobState{backup.JobSucceeded, backup.JobFailed}, backup.RunPartial}, // seed:H9
		"all fail":         {[]backup.JobState{backup.JobFailed, backup.JobFailed}, backup.RunFailed},
		"one is left":      {[]backup.JobState{backup.JobSucceeded, backup.JobQueued}, backup.RunRunning},
		"nothing to do":    {[]backup.JobState{backup.JobSkipped, backup.JobSkipped}, backup.RunSucceeded}, // seed:N61
		"one is cancelled": {[]backup.JobState{backup.JobCancelled, backup.JobSucceeded}, backup.RunPartial},
	} {
		t.Run(name, func(t *testing.T) {
			on(t, func(t *testing.T, db *store.DB, clock *clock) {
				var all []backup.Job
				for i := range c.ends {
					j := job(fmt.Sprint("j", i), clock.now())
					j.RunID = "r"
					all = append(all, j)
				}
				update(t, db, func(ctx context.Context, tx backup.Tx) error {
					_, err := tx.InsertRun(ctx, backup.Run{ID: "r", State: backup.RunQueued}, all)
					return err
				})
				for _, end := range c.ends {
					finish(t, db, claim(t, db, backup.Claim{}), backup.Ending{State: end, Due: clock.now().Add(time.Hour)})
				}
				r := getRun(t, db, "r")
				if r.State != c.want || r.EndedAt.IsZero() != (c.want == backup.RunRunning) {
					t.Errorf("run is %s, ended %v, want %s", r.State, r.EndedAt, c.want)
				}
			})
		})
	}
}

func TestTheLastTwoJobsOfARunMayEndAtTheSameTime(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		db := p.open(t, nil)
		for round := range 20 {
			run := fmt.Sprint("r", round)
			var all []backup.Job
			for i := range 4 {
				j := job(fmt.Sprint(run, "-", i), time.Now().Add(-time.Hour))
				j.RunID = run
				all = append(all, j)
			}
			update(t, db, func(ctx context.Context, tx backup.Tx) error {
				_, err := tx.InsertRun(ctx, backup.Run{ID: run, State: backup.RunQueued}, all)
				return err
			})
			var wg sync.WaitGroup
			for range all {
				j := claim(t, db, backup.Claim{})
				wg.Go(func() {
					if err := db.Finish(t.Context(), lease(j), backup.Ending{State: backup.JobSucceeded}, nil); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if r := getRun(t, db, run); r.State != backup.RunSucceeded {
				t.Fatalf("run is %s, want succeeded", r.State)
			}
		}
	})
}

func TestWhatFinishAlsoDoesIsKeptWithTheEndOrNotAtAll(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		insertJobs(t, db, job("j", c.now()))
		j := claim(t, db, backup.Claim{})
		insert := func(tx backup.Tx) error {
			return tx.InsertImage(t.Context(), backup.Image{ID: "i", VMID: "m", RepositoryID: "r", Status: backup.ImageGood, PointInTime: c.now()})
		}
		failed := errors.New("failed")
		err := db.Finish(t.Context(), lease(j), backup.Ending{State: backup.JobSucceeded, ImageID: "i"}, func(tx backup.Tx) error { return errors.Join(insert(tx), failed) })
		if !errors.Is(err, failed) {
			t.Fatalf("Finish = %v, want the function's error", err)
		}
		wantError(t, failure(t, db, func(ctx context.Context, tx backup.Tx) (backup.Image, error) { return tx.Image(ctx, "i") }), backup.NotFound)
		same(t, "job", getJob(t, db, "j"), *j)
		if err := db.Finish(t.Context(), lease(j), backup.Ending{State: backup.JobSucceeded, ImageID: "i"}, insert); err != nil {
			t.Fatal(err)
		}
		same(t, "last image", read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Image, error) { return tx.LastImage(ctx, "m", "r") }).ID, "i")
	})
}

func TestAQueuedJobIsCancelledAtOnceAndARunningOneIsAsked(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		running, queued := job("1", c.now()), job("2", c.now())
		running.RunID, queued.RunID = "r", "r"
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			_, err := tx.InsertRun(ctx, backup.Run{ID: "r", State: backup.RunQueued}, []backup.Job{running, queued})
			return err
		})
		j := claim(t, db, backup.Claim{})
		cancel := func(id string) (got backup.Job) {
			t.Helper()
			update(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
				got, err = tx.CancelJob(ctx, id)
				return err
			})
			return got
		}
		if got := cancel("2"); got.State != backup.JobCancelled || !got.Cancel || got.EndedAt != c.now() {
			t.Errorf("queued job after cancel = %+v, want it cancelled now", got)
		}
		if stop, err := db.Renew(t.Context(), lease(j), time.Minute); stop || err != nil {
			t.Errorf("Renew before cancel = %v, %v, want no wish to stop", stop, err)
		}
		if got := cancel("1"); got.State != backup.JobRunning || !got.Cancel {
			t.Errorf("running job after cancel = %+v, want it running and asked", got)
		}
		if stop, err := db.Renew(t.Context(), lease(j), time.Minute); !stop || err != nil {
			t.Errorf("Renew after cancel = %v, %v, want the wish to stop", stop, err)
		}
		finish(t, db, j, backup.Ending{State: backup.JobCancelled}) // seed:A65
		if got := cancel("1"); got.State != backup.JobCancelled || got.EndedAt != c.now() {
			t.Errorf("job that is over after cancel = %+v, want it as it was", got)
		}
		if r := getRun(t, db, "r"); r.State != backup.RunFailed {
			t.Errorf("run is %s, want failed: nothing of it was done", r.State)
		}
		err := tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error {
			_, err := tx.CancelJob(ctx, "x")
			return err
		})
		wantError(t, err, backup.NotFound, `"x"`)
		same(t, "claim after all", claimed(t, db, backup.Claim{}), "")
	})
}

func TestJobsPastTheirDeadlineAreMissedWithTheReason(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		deadline := c.now().Add(time.Hour)
		late := func(id string) backup.Job {
			j := job(id, c.now())
			j.Deadline, j.RunID = deadline, "r-"+id
			return j
		}
		holder, full, needy, tried, handed, endless := late("1holder"), late("2full"), late("3needy"), late("4tried"), late("5handed"), late("6endless")
		holder.Keys = []backup.JobKey{{Name: "host:v/esx1", Weight: 1, Max: 1}}
		full.Keys = holder.Keys
		needy.Needs = []string{"vcenter:b"}
		endless.Deadline, endless.Needs = time.Time{}, needy.Needs
		all := []backup.Job{holder, full, needy, tried, handed, endless}
		for _, j := range all {
			update(t, db, func(ctx context.Context, tx backup.Tx) error {
				_, err := tx.InsertRun(ctx, backup.Run{ID: j.RunID, State: backup.RunQueued}, []backup.Job{j})
				return err
			})
		}
		reach := backup.Claim{Reach: []string{}, Lease: 24 * time.Hour}
		for _, want := range []string{"1holder", "4tried", "5handed"} {
			j := claim(t, db, reach)
			same(t, "claim", j.ID, want)
			switch want {
			case "4tried":
				finish(t, db, j, backup.Ending{State: backup.JobQueued, Failed: true, Code: backup.VMBusy, Error: "Busy.", Due: c.now().Add(2 * time.Hour)})
			case "5handed":
				if err := db.Save(t.Context(), lease(j), backup.Progress{Checkpoint: json.RawMessage(`{}`)}); err != nil {
					t.Fatal(err)
				}
				finish(t, db, j, backup.Ending{State: backup.JobQueued, Due: c.now().Add(2 * time.Hour)})
			}
		}
		c.pass(time.Hour)
		if n, err := db.Expire(t.Context()); n != 0 || err != nil {
			t.Errorf("Expire at the deadline = %d, %v, want nothing yet", n, err)
		}
		c.pass(2 * time.Hour)
		n, err := db.Expire(t.Context())
		if n != 3 || err != nil {
			t.Errorf("Expire = %d, %v, want 3", n, err)
		}
		by := "2027-03-01 13:00:00 UTC"
		for id, want := range map[string]struct {
			state backup.JobState
			code  backup.Code
			text  string
			run   backup.RunState
		}{
			"1holder":  {backup.JobRunning, "", "", backup.RunRunning},
			"2full":    {backup.JobMissed, backup.Unavailable, "The job could not start by " + by + ". These limits were reached: disks in flight on host esx1 (limits.disks_per_host).", backup.RunMissed},
			"3needy":   {backup.JobMissed, backup.Unavailable, "The job could not start by " + by + ". No server that could run it was there and free; it needs one that reaches vcenter:b.", backup.RunMissed},
			"4tried":   {backup.JobFailed, backup.VMBusy, "Busy. It was not tried again: the time for it ended at " + by + ".", backup.RunFailed},
			"5handed":  {backup.JobQueued, "", "", backup.RunQueued},
			"6endless": {backup.JobQueued, "", "", backup.RunQueued},
		} {
			got := getJob(t, db, id)
			if got.State != want.state || got.ErrorCode != want.code || got.Error != want.text {
				t.Errorf("job %s is %s, %q, %q, want %s, %q, %q", id, got.State, got.ErrorCode, got.Error, want.state, want.code, want.text)
			}
			if r := getRun(t, db, "r-"+id); r.State != want.run {
				t.Errorf("run of %s is %s, want %s", id, r.State, want.run)
			}
		}
		// What was begun in time goes on after its deadline.
		same(t, "claim after the deadline", claimed(t, db, reach), "5handed")
	})
}

func TestThousandsOfJobsExpireAtOnce(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		var all []backup.Job
		for i := range 500 {
			j := job(fmt.Sprint("j", i), c.now())
			j.Deadline, j.RunID = c.now(), "r"
			all = append(all, j)
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			_, err := tx.InsertRun(ctx, backup.Run{ID: "r", State: backup.RunQueued}, all)
			return err
		})
		c.pass(time.Millisecond)
		if n, err := db.Expire(t.Context()); n != 500 || err != nil {
			t.Errorf("Expire = %d, %v, want 500", n, err)
		}
		if r := getRun(t, db, "r"); r.State != backup.RunMissed || r.EndedAt != c.now() {
			t.Errorf("run is %s, ended %v, want missed now", r.State, r.EndedAt)
		}
	})
}

func TestServersThatMoveDisksOfAVCenterAreCounted(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		for i, x := range []struct {
			vcenter string
			kind    backup.JobKind
		}{{"a", backup.KindBackup}, {"a", backup.KindBackup}, {"a", backup.KindRestore}, {"b", backup.KindBackup}, {"a", backup.KindSync}} {
			j := job(fmt.Sprint("j", i), c.now())
			j.VCenterID, j.Kind = x.vcenter, x.kind
			insertJobs(t, db, j)
		}
		movers := func(vcenter string) int {
			t.Helper()
			n, err := db.Movers(t.Context(), vcenter)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		same(t, "movers before any job runs", movers("a"), 0)
		for _, owner := range []string{"one", "one", "two", "three", "four"} {
			claim(t, db, backup.Claim{Owner: owner, Lease: time.Minute})
		}
		same(t, "movers of a", movers("a"), 2)
		same(t, "movers of b", movers("b"), 1)
		c.pass(2 * time.Minute)
		same(t, "movers that are dead", movers("a"), 0)
	})
}
