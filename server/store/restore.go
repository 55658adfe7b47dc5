package store

import (
	"context"
	"errors"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var restores = noun{"restore", "restore"}

// restoreColumns are what the row of a restore itself holds.
func restoreColumns(r *backup.Restore) columns {
	return columns{
		{"id", &r.ID},
		{"project", &r.Project},
		{"image_id", &r.ImageID},
		{"in_place", asJSON{&r.InPlace}},
		{"new_vm", asJSON{&r.NewVM}},
		{"disk", asJSON{&r.Disk}},
		{"description", &r.Description},
		{"token", &r.Token},
		{"delivered", &r.Delivered},
		{"job_id", &r.JobID},
		{"created_at", millis{&r.CreatedAt}},
		{"result", asJSON{&r.Result}},
		{"bytes", &r.Bytes},
	}
}

// restoreView adds how the restore goes, which its job knows.
func restoreView(r *backup.Restore) columns {
	return append(restoreColumns(r), columns{
		{"COALESCE((SELECT state FROM job WHERE job.id = restore.job_id), '')", &r.State},
		{"COALESCE((SELECT started_at FROM job WHERE job.id = restore.job_id), 0)", millis{&r.StartedAt}},
		{"COALESCE((SELECT ended_at FROM job WHERE job.id = restore.job_id), 0)", millis{&r.CompletedAt}},
		{"COALESCE((SELECT error_code FROM job WHERE job.id = restore.job_id), '')", &r.ErrorCode},
		{"COALESCE((SELECT error FROM job WHERE job.id = restore.job_id), '')", &r.Error},
		{"COALESCE((SELECT messages FROM job WHERE job.id = restore.job_id), '')", lines{&r.Messages}},
	}...)
}

func (t *tx) Restore(ctx context.Context, id string) (backup.Restore, error) {
	return get(ctx, t, restores, id, restoreView)
}

func (t *tx) RestoreByToken(ctx context.Context, token string) (backup.Restore, error) {
	none := backup.Errorf(backup.NotFound, "", "There is no restore with token %q.", token)
	return first(ctx, t, restores, "project = $1 AND token = $2 ORDER BY created_at DESC, id DESC LIMIT 1", []any{t.project, token}, none, restoreView)
}

func (t *tx) Restores(ctx context.Context, p backup.Page) ([]backup.Restore, string, error) {
	q := query{from: "restore", since: "created_at"}
	q.where("project = ?", t.project)
	return list(ctx, t, q, p, restoreView)
}

func (t *tx) InsertRestore(ctx context.Context, r backup.Restore) error {
	if r.ID == "" {
		return errors.New("insert restore: it has no id")
	}
	r.Project = t.project
	if r.CreatedAt.IsZero() {
		r.CreatedAt = t.now
	}
	if err := t.madeFor(ctx, "restore", r.ID); err != nil {
		return err
	}
	return t.insert(ctx, restores, restoreColumns(&r), backup.Errorf(backup.Conflict, "", "There is a restore with id %q already.", r.ID))
}

func (t *tx) UpdateRestore(ctx context.Context, r backup.Restore) error {
	return t.change(ctx, restores, restoreColumns(&r).only("delivered", "result", "bytes"), r.ID)
}

func (t *tx) DeleteRestore(ctx context.Context, id string) error {
	return t.remove(ctx, restores, id)
}
