package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var repositories = noun{"repository", "repository"}

func (t *tx) repositoryColumns(r *backup.RepositoryRecord) columns {
	return append(metaColumns(&r.Meta), columns{
		{"name", &r.Name},
		{"kind", &r.Kind},
		{"settings", sealedSettings{t.db.box, r}},
		{"password", sealed{t.db.box, "repository", "password", &r.ID, &r.Password}},
		{"compression", &r.Compression},
		{"verify_days", &r.VerifyDays},
		{"is_default", &r.Default},
		{"unique_id", &r.UniqueID},
		{"checked_at", millis{&r.CheckedAt}},
		{"check_error", &r.CheckError},
		{"stored_bytes", &r.StoredBytes},
		{"image_count", &r.ImageCount},
		{"free_bytes", &r.FreeBytes},
		{"owned_by", &r.OwnedBy},
		{"read_only", &r.ReadOnly},
	}...)
}

func (t *tx) Repository(ctx context.Context, id string) (backup.RepositoryRecord, error) {
	return get(ctx, t, repositories, id, t.repositoryColumns)
}

func (t *tx) RepositoryByName(ctx context.Context, name string) (backup.RepositoryRecord, error) {
	return getByName(ctx, t, repositories, name, t.repositoryColumns)
}

func (t *tx) Repositories(ctx context.Context, p backup.Page) ([]backup.RepositoryRecord, string, error) {
	q := query{from: "repository"}
	q.where("project = ?", t.project)
	return list(ctx, t, q, p, t.repositoryColumns)
}

func (t *tx) InsertRepository(ctx context.Context, r *backup.RepositoryRecord) error {
	t.begin(&r.Meta)
	return t.insert(ctx, repositories, t.repositoryColumns(r), repositories.exists(r.Name))
}

func (t *tx) UpdateRepository(ctx context.Context, r *backup.RepositoryRecord) error {
	return t.update(ctx, repositories, t.repositoryColumns(r), &r.Meta, r.Name)
}

// sealedSettings are a repository's settings in a TEXT column. Some kinds have
// access keys among them, so none is readable.
type sealedSettings struct {
	box box
	r   *backup.RepositoryRecord
}

func (s sealedSettings) Value() (driver.Value, error) {
	b, err := json.Marshal(s.r.Settings)
	return s.box.seal(string(b), place("repository", "settings", s.r.ID)), err
}

func (s sealedSettings) Scan(src any) error {
	var text sql.NullString
	if err := text.Scan(src); err != nil {
		return err
	}
	plain, err := s.box.open(text.String, place("repository", "settings", s.r.ID))
	if err != nil {
		return fmt.Errorf("settings of repository %s: %w", s.r.ID, err)
	}
	return json.Unmarshal([]byte(plain), &s.r.Settings)
}
