package backup

import (
	"context"
	"time"
)

// A clock that leaps, by a mistake or on purpose, must not end images and open
// locks. Leaps of clockLeap and less do no harm. One forward by clockDown at
// most may as well be a server that was down: after a day in which a mistake
// can be seen the clock is trusted again. After any other it is trusted when
// an operator says so, or when it agrees with what it said before.
const (
	clockLeap = 24 * time.Hour
	clockHold = 24 * time.Hour
	clockDown = 7 * 24 * time.Hour
)

// clockNear is how far the clock of an operator who confirms the server's may
// be away from it.
const clockNear = time.Hour

// ClockLook is what the clock said at the last look, and how far it was to be
// trusted then.
type ClockLook struct {
	SeenAt    time.Time // zero = nobody looked yet
	TrustedAt time.Time // what it should have said: it goes on as the clock does, but takes part in no leap; zero = SeenAt
	HeldUntil time.Time // nothing ends before, as the clock has leapt; forGood = until someone confirms it; zero = it is trusted
}

// trusted is the look at a clock that says the right time.
func trusted(now time.Time) ClockLook { return ClockLook{SeenAt: now, TrustedAt: now} }

// at is the look after this one.
func (l ClockLook) at(now time.Time) ClockLook {
	if l.SeenAt.IsZero() {
		return trusted(now)
	}
	if l.TrustedAt.IsZero() {
		l.TrustedAt = l.SeenAt
	}
	passed := now.Sub(l.SeenAt)
	leapt := passed.Abs() > clockLeap
	next := ClockLook{SeenAt: now, TrustedAt: l.TrustedAt, HeldUntil: l.HeldUntil}
	if !leapt {
		next.TrustedAt = l.TrustedAt.Add(passed)
	}
	switch off := now.Sub(next.TrustedAt); {
	case off.Abs() <= clockLeap || !leapt && !now.Before(l.HeldUntil):
		return trusted(now)
	case leapt && off > 0 && off <= clockDown:
		next.HeldUntil = now.Add(clockHold)
	case leapt:
		next.HeldUntil = forGood
	}
	return next
}

func (l ClockLook) held(now time.Time) bool { return now.Before(l.HeldUntil) }

// ClockState tells how far the clock that decides when images end is trusted.
type ClockState struct {
	Now       time.Time
	Trusted   bool
	Expected  time.Time // what it should say, had it not leapt; zero where it is trusted
	HeldUntil time.Time // it is trusted again from then on; zero = when someone confirms it, or it agrees
}

func (l ClockLook) state(now time.Time) ClockState {
	if !l.held(now) {
		return ClockState{Now: now, Trusted: true}
	}
	return ClockState{Now: now, Expected: l.TrustedAt, HeldUntil: neverAsZero(l.HeldUntil)}
}

// Until says when images end again.
func (s ClockState) Until() string {
	if s.HeldUntil.IsZero() {
		return "until an operator confirms the time (kura clock confirm) or it agrees again with what the clock said before"
	}
	return "before " + instantText(s.HeldUntil) + ", unless an operator confirms the time (kura clock confirm)"
}

// Warning tells people what the state means; "" = nothing.
func (s ClockState) Warning() string {
	if s.Trusted {
		return ""
	}
	return "The clock says " + instantText(s.Now) + " where " + instantText(s.Expected) +
		" was expected: no image expires, no lock opens and no space is freed " + s.Until() + "."
}

// Clock tells how far the clock is trusted.
func (p *Planner) Clock(ctx context.Context) (s ClockState, err error) {
	err = p.Store.View(ctx, func(tx Tx) error {
		last, err := tx.ClockLook(ctx)
		s = last.at(tx.Now()).state(tx.Now())
		return err
	})
	return s, err
}

// ConfirmClock makes the clock trusted, where it says what the clock of the one
// who confirms it does. Errors: Conflict (they differ).
func (p *Planner) ConfirmClock(ctx context.Context, his time.Time) (s ClockState, err error) {
	err = p.Store.Update(ctx, func(tx Tx) error {
		now := tx.Now()
		if now.Sub(his).Abs() > clockNear {
			return Errorf(Conflict, "time", "The server's clock says %s, and the time to confirm is %s. Set the clock that is wrong, then confirm again.", instantText(now), instantText(his))
		}
		s = trusted(now).state(now)
		if err := tx.SaveClockLook(ctx, trusted(now)); err != nil {
			return err
		}
		return freeSlots(ctx, tx)
	})
	return s, err
}

// lookAtClock notes the time and tells how far it is to be trusted.
func lookAtClock(ctx context.Context, tx Tx) (ClockState, error) {
	last, err := tx.ClockLook(ctx)
	if err != nil {
		return ClockState{}, err
	}
	next := last.at(tx.Now())
	return next.state(tx.Now()), tx.SaveClockLook(ctx, next)
}

// clockHeld says whether nothing may end as the clock is not trusted.
func clockHeld(ctx context.Context, tx Tx) (bool, error) {
	last, err := tx.ClockLook(ctx)
	return last.at(tx.Now()).held(tx.Now()), err
}
