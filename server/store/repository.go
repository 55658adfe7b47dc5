package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strings"

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
		{"next_password", sealedOrNone{sealed{t.db.box, "repository", "next_password", &r.ID, &r.NextPassword}}},
		{"sheet_at", millis{&r.SheetAt}},
		{"sheet_lapsed_at", millis{&r.SheetLapsedAt}},
		{"away_since", millis{&r.AwaySince}},
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
	var before string
	if _, err := t.row(ctx, "SELECT name FROM repository WHERE project = $1 AND id = $2", []any{t.project, r.ID}, &before); err != nil {
		return fmt.Errorf("name of repository %s: %w", r.ID, err)
	}
	if err := t.update(ctx, repositories, t.repositoryColumns(r), &r.Meta, r.Name); err != nil || before == r.Name {
		return err
	}
	// Jobs that wait need what the servers say that they reach: the name.
	if _, err := t.exec(ctx, "UPDATE job_need SET label = $1 WHERE label = $2", "repository:"+r.Name, "repository:"+before); err != nil {
		return fmt.Errorf("jobs that need repository %s: %w", r.ID, err)
	}
	return nil
}

// SaveRepositoryNotes stores what a server notes of a repository by itself.
func (t *tx) SaveRepositoryNotes(ctx context.Context, r backup.RepositoryRecord) error {
	notes := t.repositoryColumns(&r).only("checked_at", "check_error", "away_since", "stored_bytes", "image_count", "free_bytes", "sheet_at", "sheet_lapsed_at")
	return t.change(ctx, repositories, notes, r.ID)
}

// DeleteRepository takes the record out, with the images that were deleted
// already and what was kept for its upkeep.
func (t *tx) DeleteRepository(ctx context.Context, id string) error {
	r, err := t.Repository(ctx, id)
	if err != nil {
		return err
	}
	holders, err := t.repositoryHolders(ctx, r)
	if err != nil {
		return err
	}
	if len(holders) > 0 {
		return backup.Errorf(backup.InUse, "", "The repository %q is in use by %s. Give the schedules another one, wait for the jobs, and delete or forget the images first.",
			r.Name, strings.Join(holders, " and by "))
	}
	left, err := t.strings(ctx, "SELECT id FROM image WHERE project = $1 AND repository_id = $2", t.project, id)
	if err != nil {
		return fmt.Errorf("images of repository %s: %w", id, err)
	}
	for _, image := range left {
		if err := t.DeleteImage(ctx, image); err != nil {
			return err
		}
	}
	if _, err := t.exec(ctx, "DELETE FROM upkeep WHERE repository_id = $1", id); err != nil {
		return fmt.Errorf("upkeep of repository %s: %w", id, err)
	}
	return t.remove(ctx, repositories, id)
}

// repositoryHolders names what must go before the repository can.
func (t *tx) repositoryHolders(ctx context.Context, r backup.RepositoryRecord) ([]string, error) {
	schedules, err := t.strings(ctx, "SELECT name FROM schedule WHERE project = $1 AND (repository_id = $2 OR copy_to LIKE $3) ORDER BY name", t.project, r.ID, `%"`+r.ID+`"%`)
	if err != nil {
		return nil, fmt.Errorf("schedules to repository %s: %w", r.ID, err)
	}
	holders := named("schedule", schedules)
	jobs, err := t.strings(ctx, `SELECT kind || ' ' || id FROM job WHERE project = $1 AND state IN ('queued', 'running')
		AND (id IN (SELECT job_id FROM job_need WHERE label = $2) OR image_id IN (SELECT id FROM image WHERE repository_id = $3)) ORDER BY id`,
		t.project, "repository:"+r.Name, r.ID)
	if err != nil {
		return nil, fmt.Errorf("jobs on repository %s: %w", r.ID, err)
	}
	holders = append(holders, named("job", jobs)...)
	images, err := t.strings(ctx, "SELECT id FROM image WHERE project = $1 AND repository_id = $2 AND status <> 'expired' ORDER BY point_in_time DESC, id", t.project, r.ID)
	if err != nil {
		return nil, fmt.Errorf("images of repository %s: %w", r.ID, err)
	}
	return append(holders, named("image", images)...), nil
}

// CountJobsNeeding counts the jobs that are not over and need that label.
func (t *tx) CountJobsNeeding(ctx context.Context, label string) (n int, err error) {
	if _, err = t.row(ctx, "SELECT COUNT(*) FROM job WHERE project = $1 AND state IN ('queued', 'running') AND id IN (SELECT job_id FROM job_need WHERE label = $2)",
		[]any{t.project, label}, &n); err != nil {
		return 0, fmt.Errorf("jobs that need %s: %w", label, err)
	}
	return n, nil
}

// sealedOrNone is a secret that a row need not have.
type sealedOrNone struct{ sealed }

func (s sealedOrNone) Scan(src any) error {
	var text sql.NullString
	if err := text.Scan(src); err != nil || text.String == "" {
		*s.secret = ""
		return err
	}
	return s.sealed.Scan(src)
}

func (s sealedOrNone) Value() (driver.Value, error) {
	if s.secret.Reveal() == "" {
		return "", nil
	}
	return s.sealed.Value()
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
