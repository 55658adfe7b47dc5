package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// measure notes how full the repositories are that this server reaches, and
// which of them cannot be opened. A figure is as old as its time of checking.
func (w *Worker) measure(ctx context.Context) error {
	var records []backup.RepositoryRecord
	err := w.Store.View(ctx, func(tx backup.Tx) (err error) {
		records, _, err = tx.Repositories(ctx, backup.Page{Limit: 1000})
		return err
	})
	if err != nil {
		return fmt.Errorf("list repositories: %w", err)
	}
	var errs []error
	for _, r := range records {
		if !backup.ReachesRepository(w.Reach, r) {
			continue
		}
		if err := w.measureOne(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("measure repository %s: %w", r.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (w *Worker) measureOne(ctx context.Context, r backup.RepositoryRecord) error {
	if r.NextPassword != "" {
		if err := w.Planner.FinishPassword(ctx, r.ID); err != nil {
			w.Log.WarnContext(ctx, "change of a repository's password not finished", "repository", r.Name, "error", err)
		}
	}
	var stored, free int64
	repo, found := w.Repositories.Repository(ctx, r)
	if found == nil {
		stored, free, found = repo.Space(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(found, w.Store.Update(ctx, func(tx backup.Tx) error {
		c, err := tx.Repository(ctx, r.ID)
		if err != nil {
			return err
		}
		c.CheckedAt, c.CheckError = w.Now(), ""
		if found != nil {
			c.CheckError = because(found)
			if c.AwaySince.IsZero() {
				c.AwaySince = c.CheckedAt
			}
			return tx.SaveRepositoryNotes(ctx, c)
		}
		c.AwaySince, c.StoredBytes, c.FreeBytes = time.Time{}, stored, free
		if c.ImageCount, err = images(ctx, tx, r.ID); err != nil {
			return err
		}
		return tx.SaveRepositoryNotes(ctx, c)
	}))
}

// images counts the images that a repository holds for anyone to restore.
func images(ctx context.Context, tx backup.Tx, repositoryID string) (n int, err error) {
	for f := (backup.ImageFilter{RepositoryID: repositoryID, Page: backup.Page{Limit: 1000}}); ; {
		page, next, err := tx.Images(ctx, f)
		if err != nil {
			return 0, err
		}
		for _, i := range page {
			if i.Status != backup.ImageExpired {
				n++
			}
		}
		if f.Cursor = next; next == "" {
			return n, nil
		}
	}
}
