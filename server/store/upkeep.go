package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// EndedImages lists images whose time is over and that are neither locked nor
// held, those that ended first at the beginning.
func (t *tx) EndedImages(ctx context.Context, at time.Time, after backup.ImageEnd, limit int) ([]backup.Image, error) {
	var sample backup.Image
	var all []backup.Image
	err := t.rows(ctx, "SELECT "+imageColumns(&sample).names("")+` FROM image WHERE project = $1 AND expires_at > 0 AND status <> 'expired'
		AND expires_at <= $2 AND locked_until <= $3 AND held_until <= $4 AND (expires_at, id) > ($5, $6) ORDER BY expires_at, id LIMIT `+strconv.Itoa(limit),
		[]any{t.project, at, at, at, after.At, after.ID}, func(scan func(...any) error) error {
			var i backup.Image
			if err := scan(imageColumns(&i).dest()...); err != nil {
				return err
			}
			all = append(all, i)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("images that have ended: %w", err)
	}
	return all, nil
}

// HasNewerImage says whether there is a good image of the VM after that one, or
// a partial one where that is enough.
func (t *tx) HasNewerImage(ctx context.Context, i backup.Image, partial bool) (bool, error) {
	enough := "'good'"
	if partial {
		enough += ", 'partial'"
	}
	// A copy is as old as its original, however late it was made.
	later, args := "(point_in_time, id) > ($3, $4) AND copy_of = ''", []any{t.project, i.VMID, i.PointInTime, i.ID}
	if i.CopyOf != "" {
		later, args = "point_in_time > $3 AND repository_id = $4", []any{t.project, i.VMID, i.PointInTime, i.RepositoryID}
	}
	var id string
	found, err := t.row(ctx, "SELECT id FROM image WHERE project = $1 AND vm_id = $2 AND "+later+" AND status IN ("+enough+") LIMIT 1", args, &id)
	if err != nil {
		return false, fmt.Errorf("newer images than %s: %w", i.ID, err)
	}
	return found, nil
}

func upkeepColumns(u *backup.Upkeep) columns {
	return columns{
		{"repository_id", &u.RepositoryID},
		{"planned_at", millis{&u.PlannedAt}},
		{"collected_at", millis{&u.CollectedAt}},
		{"collected", asJSON{&u.Collected}},
		{"verified_up_to", millis{&u.VerifiedUpTo}},
		{"lock_planned_at", millis{&u.LockPlannedAt}},
		{"lock_extended", asJSON{&u.Locked}},
	}
}

func (t *tx) Upkeep(ctx context.Context, repositoryID string) (backup.Upkeep, error) {
	u := backup.Upkeep{RepositoryID: repositoryID}
	c := upkeepColumns(&u)
	if _, err := t.row(ctx, "SELECT "+c.names("")+" FROM upkeep WHERE repository_id = $1", []any{repositoryID}, c.dest()...); err != nil {
		return u, fmt.Errorf("upkeep of repository %s: %w", repositoryID, err)
	}
	return u, nil
}

func (t *tx) SaveUpkeep(ctx context.Context, u backup.Upkeep) error {
	c := upkeepColumns(&u)
	if _, err := t.exec(ctx, "INSERT INTO upkeep ("+c.names("")+") VALUES ("+c.marks(1)+`) ON CONFLICT (repository_id)
		DO UPDATE SET planned_at = excluded.planned_at, collected_at = excluded.collected_at, collected = excluded.collected, verified_up_to = excluded.verified_up_to,
		lock_planned_at = excluded.lock_planned_at, lock_extended = excluded.lock_extended`, c.dest()...); err != nil {
		return fmt.Errorf("upkeep of repository %s: %w", u.RepositoryID, err)
	}
	return nil
}

func (t *tx) ClockLook(ctx context.Context) (backup.ClockLook, error) {
	var l backup.ClockLook
	if _, err := t.row(ctx, "SELECT seen_at, trusted_at, held_until FROM clock_look WHERE project = $1", []any{t.project}, millis{&l.SeenAt}, millis{&l.TrustedAt}, millis{&l.HeldUntil}); err != nil {
		return l, fmt.Errorf("last look at the clock: %w", err)
	}
	return l, nil
}

func (t *tx) SaveClockLook(ctx context.Context, l backup.ClockLook) error {
	if _, err := t.exec(ctx, `INSERT INTO clock_look (project, seen_at, trusted_at, held_until) VALUES ($1, $2, $3, $4)
		ON CONFLICT (project) DO UPDATE SET seen_at = excluded.seen_at, trusted_at = excluded.trusted_at, held_until = excluded.held_until`, t.project, l.SeenAt, l.TrustedAt, l.HeldUntil); err != nil {
		return fmt.Errorf("look at the clock: %w", err)
	}
	return nil
}

// lastReadSQL is when an image was last read whole, or made.
const lastReadSQL = "(CASE WHEN verified_at > ended_at THEN verified_at ELSE ended_at END)"

// LongestUnread lists images of the repository, and counts all that can be read.
func (t *tx) LongestUnread(ctx context.Context, repositoryID string, limit int) (ids []string, all int, err error) {
	const from = " FROM image WHERE project = $1 AND repository_id = $2 AND status IN ('good', 'partial')"
	args := []any{t.project, repositoryID}
	if _, err := t.row(ctx, "SELECT COUNT(*)"+from, args, &all); err != nil {
		return nil, 0, fmt.Errorf("count images of repository %s: %w", repositoryID, err)
	}
	err = t.rows(ctx, "SELECT id"+from+" ORDER BY "+lastReadSQL+", id LIMIT "+strconv.Itoa(limit), args, func(scan func(...any) error) error {
		var id string
		if err := scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("images of repository %s by their last reading: %w", repositoryID, err)
	}
	return ids, all, nil
}
