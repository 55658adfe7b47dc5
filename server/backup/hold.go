package backup

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Hold keeps one image, whatever its retention says. An image may have several:
// it stays until the last of them is over or released.
type Hold struct {
	ID        string
	ImageID   string
	Until     time.Time // zero = until it is released
	Reason    string
	CreatedBy string // name of the token that asked for it
	CreatedAt time.Time
}

const (
	maxHolds      = 100 // of one image
	maxHoldReason = 1024
)

// Released tells what becomes of an image whose hold was released.
type Released struct {
	Image   Image
	Message string
}

// HoldImage keeps the image until h.Until, or until the hold is released.
// Errors: NotFound, Invalid, Conflict (it is being deleted, has too many holds).
func (p *Planner) HoldImage(ctx context.Context, h Hold) (Hold, error) {
	err := p.Store.Update(ctx, func(tx Tx) error {
		now := tx.Now()
		if err := h.check(now); err != nil {
			return err
		}
		i, err := holdable(ctx, tx, h.ImageID)
		if err != nil {
			return err
		}
		all, err := tx.ImageHolds(ctx, i.ID)
		if err != nil {
			return err
		}
		if len(all) >= maxHolds {
			return Errorf(Conflict, "", "Image %s has %d holds, and no more are kept of one image. Release one of them first.", i.ID, len(all))
		}
		h.ID, h.CreatedAt = NewID(now), now
		return tx.InsertHold(ctx, h)
	})
	return h, err
}

// check refuses a hold that ends in the past, or in no time that can be kept.
func (h Hold) check(now time.Time) error {
	switch {
	case !h.Until.IsZero() && !h.Until.After(now):
		return Errorf(Invalid, "until", "A hold must end in the future: until is %s, now it is %s. Leave until out to hold the image until the hold is released.", instantText(h.Until), instantText(now))
	case h.Until.After(forGood):
		return Errorf(Invalid, "until", "until is %s. Leave it out to hold the image until the hold is released.", instantText(h.Until))
	case utf8.RuneCountInString(h.Reason) > maxHoldReason:
		return Errorf(Invalid, "reason", "reason may have %d characters.", maxHoldReason)
	}
	return nil
}

// ChangeHold gives the hold another end and another reason; the image is never
// without it. Errors: NotFound, Invalid, Conflict (the image is being deleted).
func (p *Planner) ChangeHold(ctx context.Context, imageID, holdID string, until time.Time, reason string) (Hold, error) {
	var h Hold
	err := p.Store.Update(ctx, func(tx Tx) (err error) {
		if h, err = holdOf(ctx, tx, imageID, holdID); err != nil {
			return err
		}
		now := tx.Now()
		if until.Equal(h.Until) {
			now = h.CreatedAt // one that is over may be given another reason
		}
		h.Until, h.Reason = until, reason
		if err := h.check(now); err != nil {
			return err
		}
		if _, err := holdable(ctx, tx, imageID); err != nil {
			return err
		}
		if err := tx.DeleteHold(ctx, h); err != nil {
			return err
		}
		return tx.InsertHold(ctx, h)
	})
	return h, err
}

// holdable returns the image unless it is on its way out.
func holdable(ctx context.Context, tx Tx, id string) (Image, error) {
	i, err := tx.Image(ctx, id)
	if err == nil && i.Status == ImageExpired {
		err = Errorf(Conflict, "", "Image %s is being deleted: it can be held no more.", i.ID)
	}
	return i, err
}

func holdOf(ctx context.Context, tx Tx, imageID, holdID string) (Hold, error) {
	h, err := tx.Hold(ctx, holdID)
	if err == nil && h.ImageID != imageID {
		err = Errorf(NotFound, "", "Image %s has no hold %s.", imageID, holdID)
	}
	return h, err
}

// ReleaseHold takes a hold away. The image has its retention back: the next
// expiry takes it when that is over. Errors: NotFound.
func (p *Planner) ReleaseHold(ctx context.Context, imageID, holdID string) (Released, error) {
	var r Released
	err := p.Store.Update(ctx, func(tx Tx) error {
		h, err := holdOf(ctx, tx, imageID, holdID)
		if err != nil {
			return err
		}
		if err := tx.DeleteHold(ctx, h); err != nil {
			return err
		}
		if r.Image, err = tx.Image(ctx, imageID); err != nil {
			return err
		}
		r.Message = r.Image.endText(tx.Now())
		return nil
	})
	return r, err
}

// endText tells how long the image stays.
func (i Image) endText(now time.Time) string {
	switch {
	case i.Held(now) && i.HeldUntil.Equal(forGood):
		return "Another hold keeps the image until that is released."
	case i.Held(now):
		return fmt.Sprintf("Another hold keeps the image until %s.", instantText(i.HeldUntil))
	case now.Before(i.LockedUntil):
		return fmt.Sprintf("The image is locked until %s.", instantText(i.LockedUntil))
	case i.ExpiresAt.IsZero():
		return "The image never expires."
	case now.Before(i.ExpiresAt):
		return fmt.Sprintf("The image has its retention back: it expires at %s.", instantText(i.ExpiresAt))
	}
	return fmt.Sprintf("The image's retention was over at %s: the next expiry, within minutes, deletes it unless it is the last good one of a VM that is still backed up.", instantText(i.ExpiresAt))
}

// Held says whether a hold keeps the image at that instant.
func (i Image) Held(now time.Time) bool { return now.Before(i.HeldUntil) }

// HoldEnd is when the last hold of the image ends; zero = it has none, or only
// its release ends it.
func (i Image) HoldEnd() time.Time {
	return neverAsZero(i.HeldUntil)
}

// LatestHold is until when holds that end at these instants keep their image,
// as [Image.HeldUntil] says it. Zero ends none of them.
func LatestHold(all []Hold) (until time.Time) {
	for _, h := range all {
		until = maxTime(until, LockedUntil(h.Until))
	}
	return until
}

// holdText names the hold that keeps the image longest.
func holdText(ctx context.Context, tx Tx, i Image) (string, error) {
	all, err := tx.ImageHolds(ctx, i.ID)
	if err != nil {
		return "", err
	}
	for _, h := range all {
		if !LockedUntil(h.Until).Equal(i.HeldUntil) {
			continue
		}
		end := "until it is released"
		if !h.Until.IsZero() {
			end = "until " + instantText(h.Until)
		}
		text := fmt.Sprintf("Hold %s keeps image %s %s", h.ID, i.ID, end)
		if h.Reason != "" {
			text += fmt.Sprintf(" (%s)", strings.TrimRight(h.Reason, ". "))
		}
		if len(all) > 1 {
			text += fmt.Sprintf("; it has %d holds", len(all))
		}
		return text + ". Release it first.", nil
	}
	return fmt.Sprintf("Image %s is held until %s.", i.ID, instantText(i.HeldUntil)), nil
}

// instantText is an instant as messages tell it.
func instantText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
