package backup

import (
	"context"
	"time"
)

// Extension gives one image more time than its schedule did. Exactly one of the
// two is set.
type Extension struct {
	ExpiresAt     time.Time
	RetentionDays *int // whole days from the start of the backup, as a schedule counts them; 0 = never
}

// ExtendImage lets an image end later (seed A37, A42, A43). It never ends
// sooner: what is to go is deleted. A lock that lasts until the image ends goes
// on doing so. Errors: NotFound, Invalid, Conflict (it is being deleted).
func (p *Planner) ExtendImage(ctx context.Context, id string, e Extension) (Image, error) {
	var i Image
	err := p.Store.Update(ctx, func(tx Tx) (err error) {
		if i, err = tx.Image(ctx, id); err != nil {
			return err
		}
		ends, err := p.extended(i, e, tx.Now())
		if err != nil {
			return err
		}
		if ends.Equal(i.ExpiresAt) {
			return nil
		}
		if !i.LockedUntil.IsZero() && i.LockedUntil.Equal(LockedUntil(i.ExpiresAt)) {
			i.LockedUntil = LockedUntil(ends)
		}
		i.ExpiresAt, i.ExtendedUntil = ends, LockedUntil(ends)
		return tx.UpdateImage(ctx, i)
	})
	return i, err
}

// extended is when the image ends that is extended; zero = never.
func (p *Planner) extended(i Image, e Extension, now time.Time) (time.Time, error) {
	field, ends := "expires_at", e.ExpiresAt
	if e.RetentionDays != nil {
		field, ends = "retention_days", ExpiresAt(i.StartedAt, max(0, *e.RetentionDays))
	}
	latest := ExpiresAt(i.StartedAt, maxRetentionDays)
	switch {
	case p.profile() != ProfileGeneral:
		return ends, Errorf(Invalid, field, "The standard retention profile knows no extension of single images. Put a hold on image %s, which keeps it for as long as it is there, or start the server with --retention-profile general.", i.ID)
	case e.ExpiresAt.IsZero() == (e.RetentionDays == nil):
		return ends, Errorf(Invalid, "expires_at", "An extension says either expires_at or retention_days.")
	case e.RetentionDays != nil && (*e.RetentionDays < 0 || *e.RetentionDays > maxRetentionDays):
		return ends, Errorf(Invalid, field, "retention_days must be 1 to %d days, or 0 for never, got %d.", maxRetentionDays, *e.RetentionDays)
	case ends.After(latest):
		return ends, Errorf(Invalid, field, "The image may end at %s at the latest, %d days after its start, or never.", instantText(latest), maxRetentionDays)
	case i.Status == ImageExpired:
		return ends, Errorf(Conflict, "", "Image %s is being deleted: it can be extended no more.", i.ID)
	case !laterEnd(i.ExpiresAt, ends).Equal(ends):
		return ends, Errorf(Invalid, field, "The image %s: an extension cannot make that sooner, got %s. Delete the image instead once it may go, or shorten retention_days of its schedule with apply_retention_to_existing_images.",
			endsText(i.ExpiresAt), instantText(ends))
	case !ends.IsZero() && !ends.After(now):
		return ends, Errorf(Invalid, field, "The extension would end the image at %s, which is over: now it is %s.", instantText(ends), instantText(now))
	}
	return ends, nil
}

func endsText(at time.Time) string {
	if at.IsZero() {
		return "never expires"
	}
	return "expires at " + instantText(at)
}
