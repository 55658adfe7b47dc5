package worker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

// measured waits until the repository's record is as ok wants it.
func (h *house) measured(what string, ok func(backup.RepositoryRecord) bool) {
	h.Helper()
	h.until(what, func() bool {
		return ok(read(h, func(tx backup.Tx) (backup.RepositoryRecord, error) { return tx.Repository(h.ctx, h.record.ID) }))
	})
}

func frequent(c *worker.Config) { c.Measure = 5 * time.Millisecond }

func TestRepositoriesAreMeasured(t *testing.T) {
	h := newHouse(t)
	stop := h.start(frequent)
	h.ended(h.ask(h.vm))
	h.measured("one image, its size and the free space", func(r backup.RepositoryRecord) bool {
		return r.ImageCount == 1 && r.StoredBytes == 1<<20 && r.FreeBytes == 1<<30 && r.CheckedAt.Equal(h.clock.Now()) && r.CheckError == ""
	})
	stop()

	h.repository.fail("Space", 1, unreachable)
	stop = h.start() // once, at its start
	h.measured("why it cannot be measured, beside the last figures", func(r backup.RepositoryRecord) bool {
		return r.CheckError != "" && strings.Contains(unreachable.Error(), r.CheckError) && r.StoredBytes == 1<<20
	})
	stop()
}

func TestAServerMeasuresWhatItReaches(t *testing.T) {
	h := newHouse(t)
	near := backup.RepositoryRecord{Name: "near", Kind: "filesystem", Password: "secret"}
	h.update(func(tx backup.Tx) error { return tx.InsertRepository(h.ctx, &near) })
	defer h.start(func(c *worker.Config) { c.Reach = []string{"repository:near"} })()
	far := h.record
	h.record = near // made later than the other one, so measured after it
	h.measured("the repository within reach", func(r backup.RepositoryRecord) bool { return !r.CheckedAt.IsZero() })
	h.record = far
	h.measured("the other one to be left alone", func(r backup.RepositoryRecord) bool { return r.CheckedAt.IsZero() })
}

// changer is where passwords change.
type changer struct {
	backup.RepositoryMaker
	changed chan backup.Secret
}

func (c changer) ChangePassword(_ context.Context, r backup.RepositoryRecord) error {
	c.changed <- r.NextPassword
	return nil
}

func TestAChangeOfPasswordThatWasCutOffIsFinished(t *testing.T) {
	h := newHouse(t)
	c := changer{changed: make(chan backup.Secret, 1)}
	h.planner.Repositories = c
	h.record.NextPassword = "next"
	h.update(func(tx backup.Tx) error { return tx.UpdateRepository(h.ctx, &h.record) })
	h.clock.pass(2 * time.Minute) // whoever began it had the time to end it
	defer h.start()()
	if got := <-c.changed; got != "next" {
		t.Errorf("the password changes to %q, want the one that was stored", got.Reveal())
	}
	h.measured("the new password", func(r backup.RepositoryRecord) bool { return r.Password == "next" && r.NextPassword == "" })
}

func TestSinceWhenARepositoryIsAwayIsNoted(t *testing.T) {
	h := newHouse(t)
	h.repository.fail("Space", 1, unreachable)
	stop := h.start()
	h.measured("since when it is away", func(r backup.RepositoryRecord) bool { return r.AwaySince.Equal(start) && r.Version == h.record.Version })
	stop()
	h.clock.pass(time.Hour)
	h.repository.fail("Space", 1, unreachable)
	stop = h.start()
	h.measured("still since then", func(r backup.RepositoryRecord) bool {
		return r.CheckedAt.Equal(start.Add(time.Hour)) && r.AwaySince.Equal(start)
	})
	stop()
	defer h.start()()
	h.measured("that it is back", func(r backup.RepositoryRecord) bool { return r.AwaySince.IsZero() && r.CheckError == "" })
}
