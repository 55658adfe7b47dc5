package backup_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func (h *house) hold(i backup.Image, until time.Time, reason string) backup.Hold {
	h.Helper()
	return must(h.HoldImage(h.ctx, backup.Hold{ImageID: i.ID, Until: until, Reason: reason, CreatedBy: "anna"}))(h.T)
}

func TestAHoldKeepsAnImageUntilTheLastOfItsHoldsIsGone(t *testing.T) { // seed:N43 seed:A33
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	must(h.Expire(h.ctx))(t)
	held := h.addEnding(vm, aDay)
	h.addEnding(vm, aDay)
	until := noon.Add(5 * aDay)
	h.hold(held, until, "audit")
	forEver := h.hold(held, time.Time{}, "a court asks for it.")
	h.days(20)
	h.wantListed("with two holds", held)
	_, err := h.DeleteImage(h.ctx, held.ID)
	if e := refused(t, err, backup.Locked, ""); !strings.Contains(e.Message, forEver.ID) || !strings.Contains(e.Message, "a court asks for it)") {
		t.Errorf("message %q does not name the hold and its reason", e.Message)
	}

	released := must(h.ReleaseHold(h.ctx, held.ID, forEver.ID))(t)
	if !strings.Contains(released.Message, "next expiry") {
		t.Errorf("release says %q, want that the image goes", released.Message)
	}
	h.days(1)
	h.wantListed("released")
	_, err = h.ReleaseHold(h.ctx, held.ID, forEver.ID)
	refused(t, err, backup.NotFound, "")
	_, err = h.HoldImage(h.ctx, backup.Hold{ImageID: held.ID})
	refused(t, err, backup.Conflict, "")
}

func TestAHoldThatIsOverGivesTheImageBackByItself(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	must(h.Expire(h.ctx))(t)
	i := h.addEnding(vm, aDay)
	h.hold(i, noon.Add(5*aDay), "")
	h.days(4)
	h.wantListed("held", i)
	h.days(1)
	h.wantListed("the hold is over")
}

func TestAHoldIsChangedWithoutTheImageBeingWithoutIt(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	must(h.Expire(h.ctx))(t)
	i, other := h.addEnding(vm, aDay), h.addEnding(vm, 100*aDay)
	held := h.hold(i, noon.Add(5*aDay), "audit")
	later := must(h.ChangeHold(h.ctx, i.ID, held.ID, noon.Add(9*aDay), "appeal"))(t)
	if later.ID != held.ID || !later.CreatedAt.Equal(held.CreatedAt) || later.CreatedBy != "anna" || later.Reason != "appeal" {
		t.Errorf("the changed hold is %+v, want %s with another end and reason", later, held.ID)
	}
	for name, c := range map[string]struct {
		image, hold string
		until       time.Time
		reason      string
		code        backup.Code
	}{
		"an end in the past":   {i.ID, held.ID, noon.Add(-time.Hour), "", backup.Invalid},
		"too long a reason":    {i.ID, held.ID, noon.Add(9 * aDay), strings.Repeat("x", 1025), backup.Invalid},
		"another image's hold": {other.ID, held.ID, time.Time{}, "", backup.NotFound},
		"no such hold":         {i.ID, "none", time.Time{}, "", backup.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.ChangeHold(h.ctx, c.image, c.hold, c.until, c.reason)
			var e *backup.Error
			if !errors.As(err, &e) || e.Code != c.code {
				t.Errorf("ChangeHold = %v, want %s", err, c.code)
			}
		})
	}
	h.days(8)
	h.wantListed("its new end has not come", i, other)
	h.days(2)
	h.wantListed("its new end is over", other)
}

func TestAReleaseTellsWhatBecomesOfTheImage(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	for name, c := range map[string]struct {
		change func(*backup.Image)
		other  *time.Time
		want   string
	}{
		"retention":        {func(i *backup.Image) { i.ExpiresAt = noon.Add(9 * aDay) }, nil, "expires at 2026-12-02"},
		"never":            {func(*backup.Image) {}, nil, "never expires"},
		"lock":             {func(i *backup.Image) { i.LockedUntil = noon.Add(9 * aDay) }, nil, "locked until 2026-12-02"},
		"over":             {func(i *backup.Image) { i.ExpiresAt = noon }, nil, "next expiry"},
		"another":          {func(*backup.Image) {}, new(noon.Add(9 * aDay)), "Another hold keeps the image until 2026-12-02"},
		"another for ever": {func(*backup.Image) {}, new(time.Time), "until that is released"},
	} {
		i := h.addImage(vm, "")
		c.change(&i)
		h.update(func(tx backup.Tx) error { return tx.UpdateImage(h.ctx, i) })
		hold := h.hold(i, time.Time{}, "")
		if c.other != nil {
			h.hold(i, *c.other, "")
		}
		if r := must(h.ReleaseHold(h.ctx, i.ID, hold.ID))(t); !strings.Contains(r.Message, c.want) {
			t.Errorf("%s: release says %q, want %q", name, r.Message, c.want)
		}
	}
}

func TestAClockThatLeapsEndsNoHold(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	must(h.Expire(h.ctx))(t)
	i := h.addEnding(vm, aDay)
	h.hold(i, noon.Add(10*aDay), "")
	h.clock.pass(11 * aDay)
	_, err := h.DeleteImage(h.ctx, i.ID)
	refused(t, err, backup.Locked, "")
	must(h.Expire(h.ctx))(t)
	h.wantListed("after a leap", i)
	h.days(2)
	h.wantListed("a day later", i)
	must(h.ConfirmClock(h.ctx, h.clock.Now()))(t)
	h.days(1)
	h.wantListed("once the time is confirmed")
}

func TestAHoldMustEndInTheFutureAndSayNoMoreThanNeeded(t *testing.T) {
	h := newHouse(t, 10)
	i := h.addImage(h.addVMs(h.vcenter.ID, 1)[0], "")
	for field, bad := range map[string]backup.Hold{
		"until":  {ImageID: i.ID, Until: noon.Add(-aDay)},
		"reason": {ImageID: i.ID, Reason: strings.Repeat("x", 1025)},
	} {
		_, err := h.HoldImage(h.ctx, bad)
		refused(t, err, backup.Invalid, field)
	}
	_, err := h.HoldImage(h.ctx, backup.Hold{ImageID: "none"})
	refused(t, err, backup.NotFound, "")
	h.update(func(tx backup.Tx) error {
		for n := range 100 {
			if err := tx.InsertHold(h.ctx, backup.Hold{ID: fmt.Sprint("hold-", n), ImageID: i.ID, CreatedAt: noon}); err != nil {
				return err
			}
		}
		return nil
	})
	_, err = h.HoldImage(h.ctx, backup.Hold{ImageID: i.ID})
	refused(t, err, backup.Conflict, "")
	hold := h.hold(h.addImage(h.addVMs(h.vcenter.ID, 1)[0], ""), time.Time{}, "")
	_, err = h.ReleaseHold(h.ctx, i.ID, hold.ID)
	refused(t, err, backup.NotFound, "")
}

// TestTheHoursOfAHeldImageCount: a hold is the user's wish, other than the wait
// of a last good image for a newer one.
func TestTheHoursOfAHeldImageCount(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	i := h.addEnding(vm, aDay)
	hours := func() int64 {
		return must(h.Usage(h.ctx, backup.UsageQuery{From: noon, To: noon.Add(30 * aDay)}))(t).Total.Hours
	}
	hold := h.hold(i, time.Time{}, "")
	h.clock.set(noon.Add(3 * aDay))
	if got := hours(); got != 73 {
		t.Errorf("%d hours after three days, want those, and the hour that runs", got)
	}
	must(h.ReleaseHold(h.ctx, i.ID, hold.ID))(t)
	h.clock.set(noon.Add(6 * aDay))
	if got := hours(); got != 72 {
		t.Errorf("%d hours three days after the release, want those up to it", got)
	}
	until := noon.Add(8*aDay + 90*time.Minute)
	h.hold(i, until, "again")
	h.clock.set(noon.Add(20 * aDay))
	if got := hours(); got != 72+48+2 {
		t.Errorf("%d hours, want those of both holds, rounded up, and none between", got)
	}
}

// seed:A37 seed:A42 seed:A43
func TestAnExtensionOnlyLengthens(t *testing.T) {
	h := newHouse(t, 10)
	i := h.addEnding(h.addVMs(h.vcenter.ID, 1)[0], 10*aDay)
	days := func(n int) backup.Extension { return backup.Extension{RetentionDays: &n} }
	_, err := h.ExtendImage(h.ctx, i.ID, days(20))
	if e := refused(t, err, backup.Invalid, "retention_days"); !strings.Contains(e.Message, "hold") { // seed:N67
		t.Errorf("message %q names no remedy", e.Message)
	}
	h.Profile = backup.ProfileGeneral
	got := must(h.ExtendImage(h.ctx, i.ID, days(20)))(t)
	if want := i.StartedAt.Add(20 * aDay); !got.ExpiresAt.Equal(want) || !got.LockedUntil.IsZero() {
		t.Errorf("image ends %s, locked until %s; want %s and no lock", got.ExpiresAt, got.LockedUntil, want)
	}
	for field, bad := range map[string][]backup.Extension{
		"retention_days": {days(19), days(-1), days(65537)},
		"expires_at": {{}, {ExpiresAt: noon.Add(40 * aDay), RetentionDays: new(3)}, {ExpiresAt: i.StartedAt.Add(19 * aDay)},
			{ExpiresAt: i.StartedAt.AddDate(200, 0, 0)}},
	} {
		for _, e := range bad {
			_, err := h.ExtendImage(h.ctx, i.ID, e)
			refused(t, err, backup.Invalid, field)
		}
	}
	at := noon.Add(40 * aDay)
	if got = must(h.ExtendImage(h.ctx, i.ID, backup.Extension{ExpiresAt: at}))(t); !got.ExpiresAt.Equal(at) {
		t.Errorf("image ends %s, want %s", got.ExpiresAt, at)
	}
	if got = must(h.ExtendImage(h.ctx, i.ID, days(0)))(t); !got.ExpiresAt.IsZero() {
		t.Errorf("image ends %s, want never", got.ExpiresAt)
	}
	_, err = h.ExtendImage(h.ctx, i.ID, days(365))
	refused(t, err, backup.Invalid, "retention_days")

	over := h.addEnding(h.addVMs(h.vcenter.ID, 1)[0], aDay)
	h.clock.set(noon.Add(5 * aDay))
	_, err = h.ExtendImage(h.ctx, over.ID, days(2))
	refused(t, err, backup.Invalid, "retention_days")
	must(h.DeleteImage(h.ctx, over.ID))(t)
	_, err = h.ExtendImage(h.ctx, over.ID, days(200))
	refused(t, err, backup.Conflict, "")
}

// A lock that lasts until the image ends goes on doing so; a shorter one stays.
func TestAnExtensionTakesTheLockAlong(t *testing.T) { // seed:A33 seed:A37
	h := newHouse(t, 10)
	h.Profile = backup.ProfileGeneral
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	whole := h.addEnding(vm, 10*aDay, func(i *backup.Image) { i.LockedUntil = i.ExpiresAt })
	part := h.addEnding(vm, 10*aDay, func(i *backup.Image) { i.LockedUntil = i.StartedAt.Add(aDay) })
	n := 20
	for i, want := range map[*backup.Image]time.Time{&whole: whole.StartedAt.Add(20 * aDay), &part: part.LockedUntil} {
		if got := must(h.ExtendImage(h.ctx, i.ID, backup.Extension{RetentionDays: &n}))(t); !got.LockedUntil.Equal(want) {
			t.Errorf("locked until %s, want %s", got.LockedUntil, want)
		}
	}
	n = 0
	if got := must(h.ExtendImage(h.ctx, whole.ID, backup.Extension{RetentionDays: &n}))(t); got.LockedUntil.Year() != 9999 {
		t.Errorf("locked until %s, want for good", got.LockedUntil)
	}
}

func TestAnExtensionOutlastsAChangeOfItsSchedule(t *testing.T) {
	h := newHouse(t, 10)
	h.Profile = backup.ProfileGeneral
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	s := nightly("s", 3)
	s.VMID, s.RetentionDays = vm.ID, 5
	made := h.add(s)
	extended, never, plain := h.addImage(vm, made.ID), h.addImage(vm, made.ID), h.addImage(vm, made.ID)
	for _, i := range []*backup.Image{&extended, &never, &plain} {
		i.ExpiresAt = i.StartedAt.Add(5 * aDay)
		h.update(func(tx backup.Tx) error { return tx.UpdateImage(h.ctx, *i) })
	}
	must(h.ExtendImage(h.ctx, extended.ID, backup.Extension{RetentionDays: new(40)}))(t)
	must(h.ExtendImage(h.ctx, never.ID, backup.Extension{RetentionDays: new(0)}))(t)
	made.RetentionDays, made.ApplyToExisting = 7, true
	h.change(made)
	for i, want := range map[*backup.Image]time.Time{&extended: extended.StartedAt.Add(40 * aDay), &never: {}, &plain: plain.StartedAt.Add(7 * aDay)} {
		got := read(h, func(tx backup.Tx) (backup.Image, error) { return tx.Image(h.ctx, i.ID) })
		if !got.ExpiresAt.Equal(want) {
			t.Errorf("image ends %s, want %s", got.ExpiresAt, want)
		}
	}
}
