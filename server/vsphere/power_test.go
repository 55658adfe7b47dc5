package vsphere_test

import (
	"context"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

func (r *rig) power(moid string) backup.Power {
	r.Helper()
	p, err := r.session.Power(r.Context(), moid)
	r.ok(err)
	return p
}

// seed:N64
func TestAGuestIsShutDownAndPoweredOnAgain(t *testing.T) {
	r := setup(t, small())
	moid := r.lab.Moid("vm01")
	before := r.power(moid)
	if before.State != backup.PoweredOn || !before.Tools {
		t.Fatalf("the VM stands at %+v, want it on with its Tools running", before)
	}
	r.ok(r.lab.Arm(lab.Fault{Kind: "guest_slow", VM: "vm01", Delay: 100 * time.Millisecond}))
	began := time.Now()
	r.ok(r.session.ShutDownGuest(t.Context(), moid))
	if p := r.power(moid); p.State != backup.PoweredOff || p.Tools || time.Since(began) < 100*time.Millisecond {
		t.Errorf("after %s the VM stands at %+v, want it off once the guest was done", time.Since(began), p)
	}
	for range 2 { // each may be asked again
		r.ok(r.session.ShutDownGuest(t.Context(), moid))
		r.ok(r.session.SetPower(t.Context(), moid, false))
	}
	for range 2 {
		r.ok(r.session.SetPower(t.Context(), moid, true))
	}
	if p := r.power(moid); p.State != backup.PoweredOn || !p.Tools || p.BootedAt.Equal(before.BootedAt) {
		t.Errorf("the VM stands at %+v, want it on, booted at another time than %s", p, before.BootedAt)
	}
	if got, err := r.lab.PowerOperations("vm01"); err != nil || got["ShutdownGuest"] != 1 || got["PowerOnVM_Task"] != 1 || got["PowerOffVM_Task"] != 0 {
		t.Errorf("power operations %v (%v), want one shutdown and one start", got, err)
	}
}

func TestAGuestThatHangsIsWaitedForAsLongAsTheCallerLikes(t *testing.T) {
	r := setup(t, small())
	moid := r.lab.Moid("vm01")
	r.ok(r.lab.Arm(lab.Fault{Kind: "guest_hangs", VM: "vm01"}))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := r.session.ShutDownGuest(ctx, moid); err == nil || ctx.Err() == nil {
		t.Errorf("the wait for a guest that hangs ended with %v, want it to last until its context ended", err)
	}
	r.ok(r.session.SetPower(t.Context(), moid, false))
	if p := r.power(moid); p.State != backup.PoweredOff {
		t.Errorf("the VM stands at %+v, want it powered off hard", p)
	}
}

// seed:H4
func TestAGuestWithoutToolsIsNotShutDownAndItsSnapshotIsNotQuiesced(t *testing.T) {
	r := setup(t, small())
	moid := r.lab.Moid("vm01")
	r.ok(r.lab.SetTools(t.Context(), "vm01", false))
	wantCode(t, r.session.ShutDownGuest(t.Context(), moid), backup.PreflightFailed)
	for _, c := range []struct {
		tools, quiesced bool
	}{{false, false}, {true, true}} {
		r.ok(r.lab.SetTools(t.Context(), "vm01", c.tools))
		name := marker("tools")
		s, err := r.session.CreateSnapshot(t.Context(), backup.SnapshotDraft{MOID: moid, Name: name, Quiesce: true})
		r.ok(err)
		if s.Quiesced != c.quiesced {
			t.Errorf("with Tools running = %t the snapshot says quiesced = %t", c.tools, s.Quiesced)
		}
		r.ok(r.session.RemoveSnapshot(t.Context(), moid, name))
	}
}

func TestPowerOfAVMThatIsGoneSaysSo(t *testing.T) {
	r := setup(t, small())
	moid := r.lab.Moid("vm01")
	r.ok(r.lab.RemoveVM(t.Context(), moid))
	_, err := r.session.Power(t.Context(), moid)
	wantCode(t, err, backup.VMGone)
	wantCode(t, r.session.ShutDownGuest(t.Context(), moid), backup.VMGone)
	wantCode(t, r.session.SetPower(t.Context(), moid, true), backup.VMGone)
}
