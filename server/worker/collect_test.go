package worker_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

func (h *house) collections() []backup.Collection {
	h.repository.imagesMu.Lock()
	defer h.repository.imagesMu.Unlock()
	return append([]backup.Collection(nil), h.repository.collections...)
}

func (h *house) collect(dryRun bool) backup.Job {
	h.Helper()
	j, err := h.planner.Collect(h.ctx, h.record.ID, dryRun)
	if err != nil {
		h.Fatal(err)
	}
	return h.ended(j.ID)
}

func TestACollectionTellsWhatItFreedAndWhatIsStillToCome(t *testing.T) {
	h := newHouse(t)
	stop := h.start()
	if j := h.collect(true); j.State != backup.JobSucceeded || len(j.Messages) != 1 || !strings.Contains(j.Messages[0], "Nothing was changed") {
		t.Errorf("dry run = %s %q, want it to say that nothing was changed", j.State, j.Messages)
	}
	upkeep := func() backup.Upkeep {
		return read(h, func(tx backup.Tx) (backup.Upkeep, error) { return tx.Upkeep(h.ctx, h.record.ID) })
	}
	if u := upkeep(); !u.CollectedAt.IsZero() {
		t.Errorf("upkeep after a dry run = %+v, want none", u)
	}
	j := h.collect(false)
	if j.State != backup.JobSucceeded || !strings.Contains(strings.Join(j.Messages, " "), "1.0 MiB more") {
		t.Errorf("collection = %s %q, want it to say what is left", j.State, j.Messages)
	}
	if u := upkeep(); !u.CollectedAt.Equal(h.clock.Now()) || u.Collected.Marked != 1<<20 {
		t.Errorf("upkeep = %+v, want the result kept", u)
	}
	stop()
	if c := h.collections(); len(c) != 2 || !c[0].DryRun || c[1].DryRun {
		t.Errorf("collections = %+v, want a dry run and a true one", c)
	}
}

func TestACollectionKnowsWhichImagesAreBeingWritten(t *testing.T) {
	h := newHouse(t)
	commit := h.repository.hold(t, "Commit", 1)
	defer h.start()()
	id := h.ask(h.vm)
	h.wait("the commit", commit.reached)
	var written string
	images := read(h, func(tx backup.Tx) (map[string]bool, error) { return backup.ImagesBeingWritten(h.ctx, tx) })
	for i := range images {
		written = i
	}
	if j := h.collect(false); j.State != backup.JobSucceeded || len(images) != 1 {
		t.Errorf("collection = %s, images being written = %v; want one", j.State, images)
	}
	c := h.collections()
	if !c[0].Alive(written) || c[0].Alive("another") {
		t.Errorf("Alive(%s) = %v, Alive(another) = %v; want only the one of the job", written, c[0].Alive(written), c[0].Alive("another"))
	}
	commit.release()
	h.ended(id)
	if images := read(h, func(tx backup.Tx) (map[string]bool, error) { return backup.ImagesBeingWritten(h.ctx, tx) }); len(images) != 0 {
		t.Errorf("images being written after the end = %v, want none", images)
	}
}

func TestImagesWhoseTimeIsOverAreDeletedByTheServer(t *testing.T) { // seed:N67
	h := newHouse(t)
	stop := h.start(func(c *worker.Config) { c.Upkeep = 5 * time.Millisecond })
	h.ended(h.ask(h.vm, func(s *backup.Schedule) { s.RetentionDays = 1 }))
	schedules := read(h, func(tx backup.Tx) ([]backup.Schedule, error) {
		all, _, err := tx.Schedules(h.ctx, backup.ScheduleFilter{})
		return all, err
	})
	for _, s := range schedules {
		s.Enabled = false
		if _, err := h.planner.UpdateSchedule(h.ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	h.clock.pass(25 * time.Hour) // a leap: it ends a day later
	h.until("the leap to be noticed", func() bool {
		return !read(h, func(tx backup.Tx) (backup.ClockLook, error) { return tx.ClockLook(h.ctx) }).HeldUntil.IsZero()
	})
	if n := len(h.kept()); n != 1 {
		t.Errorf("%d images after a leap, want 1", n)
	}
	h.clock.pass(24 * time.Hour)
	h.until("the image to be gone", func() bool { return len(h.images()) == 0 && len(h.kept()) == 0 })
	stop()
}

func TestAGatheringKeepsWhatTheLastCollectionSaid(t *testing.T) {
	h := newHouse(t)
	defer h.start()()
	h.collect(false)
	spec, err := json.Marshal(backup.CollectSpec{RepositoryID: h.record.ID, IndexOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	j := backup.Job{ID: backup.NewID(h.clock.Now()), Kind: backup.KindCollect, State: backup.JobQueued, Spec: spec, Due: h.clock.Now(), MaxAttempts: 1, CreatedAt: h.clock.Now()}
	if err := h.db.Update(h.ctx, func(tx backup.Tx) error { return tx.InsertJob(h.ctx, j) }); err != nil {
		t.Fatal(err)
	}
	if ended := h.ended(j.ID); ended.State != backup.JobSucceeded || !strings.Contains(strings.Join(ended.Messages, " "), "index was gathered") {
		t.Errorf("gathering = %s %q, want it to say so", ended.State, ended.Messages)
	}
	u := read(h, func(tx backup.Tx) (backup.Upkeep, error) { return tx.Upkeep(h.ctx, h.record.ID) })
	if u.Collected.Marked != 1<<20 || u.CollectedAt.IsZero() || u.Collected.GatheredAt.IsZero() {
		t.Errorf("upkeep after a gathering = %+v, want what the collection did before", u)
	}
	if c := h.collections(); len(c) != 2 || !c[1].IndexOnly {
		t.Errorf("collections = %+v, want the second to be of the index only", c)
	}
}
