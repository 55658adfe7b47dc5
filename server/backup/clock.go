package backup

import (
	"context"
	"time"
)

// A clock that leaps, by a mistake or on purpose, must not end images and open
// locks: after a leap nothing ends for a day, in which the mistake can be seen.
const (
	clockLeap = 24 * time.Hour
	clockHold = 24 * time.Hour
)

// ClockLook is what the clock said at the last look, and until when nothing may
// end because it had leapt.
type ClockLook struct {
	SeenAt    time.Time // zero = nobody looked yet
	HeldUntil time.Time
}

// at is the look after this one.
func (l ClockLook) at(now time.Time) ClockLook {
	switch d := now.Sub(l.SeenAt); {
	case l.SeenAt.IsZero():
		return ClockLook{SeenAt: now}
	case d.Abs() > clockLeap:
		return ClockLook{SeenAt: now, HeldUntil: now.Add(clockHold)}
	case d > 0:
		l.SeenAt = now
	}
	return l
}

func (l ClockLook) held(now time.Time) bool { return now.Before(l.HeldUntil) }

// lookAtClock notes the time and tells until when nothing may end; zero = the
// clock is to be trusted.
func lookAtClock(ctx context.Context, tx Tx) (heldUntil time.Time, err error) {
	last, err := tx.ClockLook(ctx)
	if err != nil {
		return time.Time{}, err
	}
	next := last.at(tx.Now())
	if err := tx.SaveClockLook(ctx, next); err != nil {
		return time.Time{}, err
	}
	if next.held(tx.Now()) {
		return next.HeldUntil, nil
	}
	return time.Time{}, nil
}
