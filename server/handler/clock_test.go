package handler_test

import (
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestAClockThatHasLeaptIsToldAndConfirmed(t *testing.T) {
	r := newRig(t)
	get := func() api.Clock {
		return into[api.Server](r, r.do(call{method: "GET", path: "/v1/server", role: auth.Viewer}), 200).Clock
	}
	was := r.clock.Now()
	look := backup.ClockLook{SeenAt: was.AddDate(-10, 0, 0), TrustedAt: was.AddDate(-10, 0, 0)}
	r.must(r.db.Update(t.Context(), func(tx backup.Tx) error { return tx.SaveClockLook(t.Context(), look) }))
	if c := get(); c.Trusted || !c.Expected.Equal(look.SeenAt) || c.Warning == "" || !c.HeldUntil.IsZero() {
		t.Errorf("after a leap of ten years the clock is %+v, want it not trusted, with a warning", c)
	}
	confirm := call{method: "POST", path: "/v1/server:confirm-clock", role: auth.Operator, body: api.ClockConfirmation{Time: look.SeenAt}}
	if a := r.do(confirm); a.status != 409 || a.problem.Field != "time" {
		t.Errorf("confirmed by a clock that says otherwise: %d %+v, want 409 for time", a.status, a.problem)
	}
	confirm.body = api.ClockConfirmation{Time: was}
	if c := into[api.Clock](r, r.do(confirm), 200); !c.Trusted || !get().Trusted {
		t.Errorf("confirmed, the clock is %+v, want it trusted", c)
	}
}
