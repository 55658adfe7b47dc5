package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

// daily is a schedule of a VM at that hour of each day.
func daily(name, vm string, hour int) *backup.Schedule {
	return &backup.Schedule{Name: name, Enabled: true, VMID: vm, RetentionDays: 7, Recurrence: backup.Recurrence{Kind: backup.Daily, TimeZone: "UTC", Hour: hour}}
}

// covered stores a vcenter with one VM and returns their ids.
func covered(t testing.TB, db *store.DB) (vcenter, vm string) {
	t.Helper()
	v := backup.VCenter{Name: "v", Endpoint: "https://v", Username: "u", SlotCapacity: 10}
	vms := []backup.VirtualMachine{{InstanceUUID: "u", MOID: "m", Name: "n"}}
	update(t, db, func(ctx context.Context, tx backup.Tx) error {
		if err := tx.InsertVCenter(ctx, &v); err != nil {
			return err
		}
		vms[0].VCenterID = v.ID
		return tx.SaveMachines(ctx, vms)
	})
	return v.ID, vms[0].ID
}

// insertDue stores schedules that are looked at from now on.
func insertDue(t testing.TB, db *store.DB, all ...*backup.Schedule) {
	t.Helper()
	update(t, db, func(ctx context.Context, tx backup.Tx) error {
		for _, s := range all {
			if err := tx.InsertSchedule(ctx, s, nil); err != nil {
				return err
			}
			if err := tx.SetDueMark(ctx, s.ID, tx.Now()); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestDueSchedulesAreListedLongestDueFirst(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) { // at 12:00
		_, vm := covered(t, db)
		at15, at13, off, over := daily("15", vm, 15), daily("13", vm, 13), daily("off", vm, 13), daily("over", vm, 13)
		off.Enabled = false
		over.Recurrence.Kind, over.Recurrence.Date = backup.OneTime, backup.Date{Year: 2027, Month: 2, Day: 1}
		insertDue(t, db, at15, at13, off, over)
		due := func(upTo time.Time) []string {
			return read(t, db, func(ctx context.Context, tx backup.Tx) ([]string, error) { return tx.DueSchedules(ctx, upTo) })
		}
		same(t, "due at 12:59", len(due(c.now().Add(59*time.Minute))), 0)
		same(t, "due at 13:00", due(c.now().Add(time.Hour)), []string{at13.ID})
		same(t, "due at 16:00", due(c.now().Add(4*time.Hour)), []string{at13.ID, at15.ID})
		c.pass(4 * time.Hour)
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.SetDueMark(ctx, at13.ID, c.now()) })
		same(t, "due once 13:00 is dispatched", due(c.now()), []string{at15.ID})
		same(t, "due the next day", due(c.now().Add(24*time.Hour)), []string{at15.ID, at13.ID})
	})
}

func TestWhenSchedulesAreDueIsWorkedOutAnewPartByPart(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		_, vm := covered(t, db)
		const n = 1100 // more than one part
		var all []*backup.Schedule
		for i := range n {
			all = append(all, daily(fmt.Sprint("s", i), vm, 20))
		}
		insertDue(t, db, all...)
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			for _, s := range all { // their calendar changes behind the mark's back
				s.Recurrence.Hour = 13
				if err := tx.UpdateSchedule(ctx, s, nil); err != nil {
					return err
				}
			}
			return nil
		})
		due := func() int {
			return len(read(t, db, func(ctx context.Context, tx backup.Tx) ([]string, error) {
				return tx.DueSchedules(ctx, c.now().Add(time.Hour))
			}))
		}
		same(t, "due before", due(), 0)
		parts := 0
		for after := ""; ; parts++ {
			update(t, db, func(ctx context.Context, tx backup.Tx) (err error) { after, err = tx.RenewDue(ctx, after); return err })
			if after == "" {
				break
			}
		}
		same(t, "due after", due(), n)
		same(t, "parts", parts, 1)
	})
}

func TestSeatsThatFollowAGroupLeaveTheVersion(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		vcenter, vm := covered(t, db)
		s := daily("s", vm, 13)
		insertDue(t, db, s)
		c.pass(time.Minute)
		grown := *s
		grown.Seats, grown.UnbookedSeats = 4, 2
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return tx.SaveSeats(ctx, grown, []backup.SeatsBooked{{VCenterID: vcenter, Seats: 4}})
		})
		got := read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Schedule, error) { return tx.Schedule(ctx, s.ID) })
		if got.Version != s.Version || got.Seats != 4 || got.UnbookedSeats != 2 {
			t.Errorf("schedule %+v, want its seats changed and nothing else", got)
		}
		booked := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Booking, error) { return tx.Booked(ctx, vcenter) })
		if len(booked) != 1 || booked[0].Seats != 4 {
			t.Errorf("booked are %+v, want four seats", booked)
		}
		lacking := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Schedule, error) {
			all, _, err := tx.Schedules(ctx, backup.ScheduleFilter{Unbooked: true})
			return all, err
		})
		if len(lacking) != 1 || lacking[0].ID != s.ID {
			t.Errorf("schedules that lack seats are %+v, want the one", lacking)
		}
	})
}

func TestWhatHasNoSeatIsClaimedLast(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		byHand, early, late := job("1", c.now().Add(-3*time.Hour)), job("2", c.now().Add(-time.Hour)), job("3", c.now())
		byHand.Unbooked = true
		insertJobs(t, db, byHand, early, late)
		var order []string
		for range 3 {
			order = append(order, claimed(t, db, backup.Claim{}))
		}
		if want := []string{"2", "3", "1"}; !slices.Equal(order, want) {
			t.Errorf("claimed in the order %v, want %v", order, want)
		}
		same(t, "the job's mark", getJob(t, db, "1").Unbooked, true)
	})
}

func TestJobsThatNobodyHasBegunAreWithdrawn(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		add := func(run, schedule string, by backup.Trigger, slot time.Time, jobs ...backup.Job) {
			for i := range jobs {
				jobs[i].RunID = run
				jobs[i].Keys = []backup.JobKey{{Name: "vm:" + jobs[i].ID, Weight: 1, Max: 1}}
			}
			update(t, db, func(ctx context.Context, tx backup.Tx) error {
				_, err := tx.InsertRun(ctx, backup.Run{ID: run, ScheduleID: schedule, Trigger: by, Slot: slot, State: backup.RunQueued}, jobs)
				return err
			})
		}
		add("r1", "s", backup.TriggerSchedule, c.now(), job("1", c.now()), job("2", c.now()))
		add("r2", "s", backup.TriggerSchedule, c.now().Add(time.Hour), job("3", c.now().Add(time.Hour)))
		add("r3", "s", backup.TriggerManual, time.Time{}, job("4", c.now().Add(time.Hour)))
		add("r4", "other", backup.TriggerSchedule, c.now(), job("5", c.now().Add(time.Hour)))
		same(t, "claimed", claimed(t, db, backup.Claim{}), "1")
		var n int
		update(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
			n, err = tx.WithdrawJobs(ctx, "s", "Off.")
			return err
		})
		same(t, "withdrawn", n, 2)
		for id, want := range map[string]backup.JobState{"1": backup.JobRunning, "2": backup.JobSkipped, "3": backup.JobSkipped, "4": backup.JobQueued, "5": backup.JobQueued} {
			j := getJob(t, db, id)
			if j.State != want || want == backup.JobSkipped && (j.Error != "Off." || j.EndedAt != c.now()) {
				t.Errorf("job %s is %s (%q), want %s", id, j.State, j.Error, want)
			}
		}
		for id, want := range map[string]backup.RunState{"r1": backup.RunRunning, "r2": backup.RunSucceeded, "r3": backup.RunQueued, "r4": backup.RunQueued} {
			if r := getRun(t, db, id); r.State != want || (r.Message == "Off.") != (id == "r1" || id == "r2") {
				t.Errorf("run %s is %s (%q), want %s", id, r.State, r.Message, want)
			}
		}
	})
}

func TestAWaitingJobCanBeGivenItsEnd(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		j := job("1", c.now().Add(time.Hour))
		j.RunID, j.Needs = "r", []string{"vcenter:v"}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			_, err := tx.InsertRun(ctx, backup.Run{ID: "r", State: backup.RunQueued}, []backup.Job{j})
			return err
		})
		began := c.now().Add(-time.Minute)
		e := backup.Ending{State: backup.JobSucceeded, ImageID: "i", Started: began, Messages: []string{"Shared."}}
		end := func() {
			update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.EndJob(ctx, "1", e) })
		}
		end()
		got := getJob(t, db, "1")
		if got.State != backup.JobSucceeded || got.ImageID != "i" || got.StartedAt != began || got.EndedAt != c.now() || !slices.Equal(got.Messages, e.Messages) {
			t.Errorf("job %+v, want it ended as said", got)
		}
		same(t, "run", getRun(t, db, "r").State, backup.RunSucceeded)
		e.State = backup.JobFailed
		end()
		same(t, "a job that is over", getJob(t, db, "1").State, backup.JobSucceeded)
	})
}

func TestAnImageIsFoundForEachOfItsShares(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		i := backup.Image{ID: "i", VMID: "m", ScheduleID: "s1", GroupID: "g1", RunID: "r1", JobID: "j1", RepositoryID: "p", PointInTime: c.now(), Status: backup.ImageGood}
		alone := backup.Image{ID: "alone", VMID: "m", ScheduleID: "s2", RunID: "r0", JobID: "j0", RepositoryID: "p", PointInTime: c.now().Add(-time.Hour), Status: backup.ImageGood}
		own := backup.ImageShare{ImageID: "i", JobID: "j1", ScheduleID: "s1", GroupID: "g1", RunID: "r1", ExpiresAt: c.now()}
		other := backup.ImageShare{ImageID: "i", JobID: "j0", ScheduleID: "s2", GroupID: "g2", RunID: "r2", LockedUntil: c.now()}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			for _, img := range []backup.Image{i, alone} {
				if err := tx.InsertImage(ctx, img); err != nil {
					return err
				}
			}
			for _, s := range []backup.ImageShare{other, own} {
				if err := tx.SaveImageShare(ctx, s); err != nil {
					return err
				}
			}
			other.ExpiresAt = c.now().Add(time.Hour)
			return tx.SaveImageShare(ctx, other)
		})
		shares := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.ImageShare, error) { return tx.ImageShares(ctx, "i") })
		same(t, "shares", shares, []backup.ImageShare{own, other})
		for name, f := range map[string]struct {
			filter backup.ImageFilter
			want   []string
		}{
			"its maker's schedule":      {backup.ImageFilter{ScheduleID: "s1"}, []string{"i"}},
			"the other schedule":        {backup.ImageFilter{ScheduleID: "s2"}, []string{"i", "alone"}},
			"one of it":                 {backup.ImageFilter{ScheduleID: "s2", Page: backup.Page{Limit: 1}}, []string{"i"}},
			"the other group":           {backup.ImageFilter{GroupID: "g2"}, []string{"i"}},
			"the other run":             {backup.ImageFilter{RunID: "r2"}, []string{"i"}},
			"schedule and another's VM": {backup.ImageFilter{ScheduleID: "s2", VMID: "x"}, nil},
			"nobody's":                  {backup.ImageFilter{ScheduleID: "s3"}, nil},
		} {
			var ids []string
			for _, img := range read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Image, error) {
				all, _, err := tx.Images(ctx, f.filter)
				return all, err
			}) {
				ids = append(ids, img.ID)
			}
			if !slices.Equal(ids, f.want) {
				t.Errorf("%s finds %v, want %v", name, ids, f.want)
			}
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteImage(ctx, "i") })
		left := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.ImageShare, error) { return tx.ImageShares(ctx, "i") })
		same(t, "shares of an image that is gone", len(left), 0)
	})
}

// A backup that may get another one's image waits for it past its deadline.
func TestABackupOfTheVMThatRunsKeepsAnotherFromBeingMissed(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		scheduled := func(id, vm string) backup.Job {
			j := job(id, c.now())
			j.VMID, j.WindowEnd, j.Deadline = vm, c.now().Add(time.Hour), c.now().Add(time.Hour)
			j.Keys = []backup.JobKey{{Name: "vm:" + vm, Weight: 1, Max: 1}}
			return j
		}
		insertJobs(t, db, scheduled("1", "a"), scheduled("2", "a"), scheduled("3", "b"))
		first := claim(t, db, backup.Claim{Lease: 24 * time.Hour})
		same(t, "claimed", first.ID, "1")
		expire := func() int {
			n, err := db.Expire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		c.pass(2 * time.Hour)
		same(t, "missed while it runs", expire(), 1)
		same(t, "the job of another VM", getJob(t, db, "3").State, backup.JobMissed)
		finish(t, db, first, backup.Ending{State: backup.JobFailed, Code: backup.Internal, Error: "Broken."})
		same(t, "missed when it has ended", expire(), 1)
		if j := getJob(t, db, "2"); j.State != backup.JobMissed || j.Error != "The job could not start by 2027-03-01 13:00:00 UTC. Another backup of the VM ran then: job 1." {
			t.Errorf("job is %s (%q), want it missed because of the other", j.State, j.Error)
		}
	})
}
