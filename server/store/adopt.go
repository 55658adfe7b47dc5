package store

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// EndAllJobs ends whatever is queued or running, and returns it as it was.
func (t *tx) EndAllJobs(ctx context.Context, e backup.Ending) ([]backup.Job, error) {
	var all []backup.Job
	var sample backup.Job
	text := "SELECT " + jobColumns(&sample).names("") + " FROM job WHERE project = $1 AND state IN ('queued', 'running') ORDER BY id" + t.db.dialect.forUpdate()
	err := t.rows(ctx, text, []any{t.project}, func(scan func(...any) error) error {
		var j backup.Job
		err := scan(jobColumns(&j).dest()...)
		all = append(all, j)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("jobs that are not over: %w", err)
	}
	for _, j := range all {
		if err := t.end(ctx, j, ending{e.State, e.Code, e.Error}); err != nil {
			return nil, fmt.Errorf("end job %s: %w", j.ID, err)
		}
	}
	if _, err := t.exec(ctx, "UPDATE job SET owes = FALSE WHERE owes"); err != nil {
		return nil, fmt.Errorf("forget what jobs owe: %w", err)
	}
	return all, nil
}

// Setting reads a setting within the transaction.
func (t *tx) Setting(ctx context.Context, name string) (value string, found bool, err error) {
	found, err = t.row(ctx, "SELECT value FROM setting WHERE name = $1", []any{name}, &value)
	if err != nil {
		return "", false, fmt.Errorf("setting %s: %w", name, err)
	}
	return value, found, nil
}

// SetSetting keeps a setting within the transaction. It is not encrypted.
func (t *tx) SetSetting(ctx context.Context, name, value string) error {
	_, err := t.exec(ctx, "INSERT INTO setting (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value)
	if err != nil {
		return fmt.Errorf("setting %s: %w", name, err)
	}
	return nil
}
