package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Copies lists the copies that are there and the jobs that have not made one.
func (t *tx) Copies(ctx context.Context, ids []string) ([]backup.Copy, error) {
	var images, jobs query
	images.in("copy_of", ids)
	images.where("copy_of <> ''") // in its index there is nothing else
	images.where("status <> 'expired'")
	jobs.args = images.args
	jobs.in("image_id", ids)
	jobs.where("kind = 'copy'")
	jobs.where("state <> 'succeeded'")
	text := "SELECT copy_of, id, repository_id, status, expires_at, locked_until, ended_at, job_id, message, '' FROM image WHERE " + images.conditions() +
		" UNION ALL SELECT image_id, '', '', state, 0, 0, created_at, id, error, spec FROM job WHERE " + jobs.conditions()
	var all []backup.Copy
	var at []time.Time // of the image or of the job
	err := t.rows(ctx, text, jobs.args, func(scan func(...any) error) error {
		c, made, err := scanCopy(scan)
		if err == nil {
			all, at = append(all, c), append(at, made)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("copies of images: %w", err)
	}
	order := make([]int, len(all))
	for n := range order {
		order[n] = n
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(all[a].OriginalID, all[b].OriginalID), cmp.Compare(all[a].RepositoryID, all[b].RepositoryID), at[a].Compare(at[b]), cmp.Compare(all[a].JobID, all[b].JobID))
	})
	sorted := make([]backup.Copy, len(all))
	for n, i := range order {
		sorted[n] = all[i]
	}
	return sorted, nil
}

// scanCopy reads a copy, and when it or its job was made.
func scanCopy(scan func(...any) error) (c backup.Copy, at time.Time, err error) {
	var status, spec string
	if err := scan(&c.OriginalID, &c.ID, &c.RepositoryID, &status, millis{&c.ExpiresAt}, millis{&c.LockedUntil}, millis{&at}, &c.JobID, &c.Message, &spec); err != nil {
		return c, at, err
	}
	if c.ID != "" {
		c.Status, c.CopiedAt = backup.CopyStatus(status), at
		return c, at, nil
	}
	if err := json.Unmarshal([]byte(spec), &c.Asked); err != nil {
		return c, at, fmt.Errorf("spec of job %s: %w", c.JobID, err)
	}
	c.RepositoryID, c.ExpiresAt = c.Asked.RepositoryID, c.Asked.ExpiresAt
	switch backup.JobState(status) {
	case backup.JobQueued:
		c.Status = backup.CopyWaiting
	case backup.JobRunning:
		c.Status = backup.CopyCopying
	default:
		c.Status = backup.CopyFailed
	}
	return c, at, nil
}
