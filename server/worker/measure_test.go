package worker_test

import (
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
