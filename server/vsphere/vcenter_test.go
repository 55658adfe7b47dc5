package vsphere_test

import (
	"encoding/pem"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

func TestASessionTellsWhichVCenterItIs(t *testing.T) {
	r := setup(t, small())
	uuid, version := r.session.About()
	if uuid != r.lab.UUID() || version == "" {
		t.Errorf("About() = %q, %q, want %q and a version", uuid, version, r.lab.UUID())
	}
}

func TestAConnectorKeepsOneSessionUntilTheAccountChanges(t *testing.T) {
	l := newLab(t, lab.Config{VMs: -1})
	c := connector(t, quick())
	v := vcenter(l)
	first, err := c.Connect(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Connect(t.Context(), v); err != nil || again != first {
		t.Errorf("second Connect = %p, %v, want the session %p", again, err, first)
	}
	v.Thumbprint = strings.ToLower(strings.ReplaceAll(v.Thumbprint, ":", ""))
	other, err := c.Connect(t.Context(), v)
	if err != nil || other == first {
		t.Errorf("Connect with another thumbprint text = %p, %v, want a new session", other, err)
	}
	if _, err := first.Inventory(t.Context(), ""); err != nil {
		t.Errorf("a job's session ended when the vcenter was changed: %v", err)
	}
}

func TestWhatIsWrongWithAConnectionIsSaidWithItsRemedy(t *testing.T) {
	l := newLab(t, lab.Config{VMs: -1})
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for name, c := range map[string]struct {
		change func(*backup.VCenter)
		code   backup.Code
		says   string
	}{
		"wrong password":        {func(v *backup.VCenter) { v.Password = "no" }, backup.VCenterDenied, "wrong user name or password"},
		"certificate not known": {func(v *backup.VCenter) { v.Thumbprint = "" }, backup.VCenterDenied, l.Thumbprint()},
		"another thumbprint":    {func(v *backup.VCenter) { v.Thumbprint = strings.Repeat("AB", 32) }, backup.VCenterDenied, l.Thumbprint()},
		"half a thumbprint":     {func(v *backup.VCenter) { v.Thumbprint = "AB:CD" }, backup.Invalid, "SHA-256"},
		"no certificate":        {func(v *backup.VCenter) { v.CACertificate = "x" }, backup.Invalid, "PEM"},
		"nobody listens":        {func(v *backup.VCenter) { v.Endpoint = "https://" + closed.Addr().String() }, backup.VCenterUnreachable, closed.Addr().String()},
		"no https":              {func(v *backup.VCenter) { v.Endpoint = "http://" + l.URL().Host }, backup.Invalid, "https://"},
	} {
		t.Run(name, func(t *testing.T) {
			v := vcenter(l)
			c.change(&v)
			_, err := connector(t, quick()).Connect(t.Context(), v)
			if e := wantCode(t, err, c.code); !strings.Contains(e.Message, c.says) {
				t.Errorf("message = %q, want %q in it", e.Message, c.says)
			}
		})
	}
}

func TestACertificateIsTrustedByItsIssuer(t *testing.T) {
	l := newLab(t, lab.Config{VMs: -1})
	v := vcenter(l)
	v.Thumbprint = ""
	v.CACertificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.Certificate().Raw}))
	if _, err := connector(t, quick()).Connect(t.Context(), v); err != nil {
		t.Error(err)
	}
}

func TestASessionThatEndedIsRenewed(t *testing.T) {
	r := setup(t, small())
	change, err := r.session.Inventory(t.Context(), "")
	r.ok(err)
	r.lab.ExpireSessions()
	if _, err := r.session.Machine(t.Context(), change.VMs[0].MOID); err != nil {
		t.Errorf("between calls: %v", err)
	}
	r.lab.ExpireSessions()
	after, err := r.session.Inventory(t.Context(), change.Version)
	if err != nil || after.Full || len(after.VMs)+len(after.Gone) != 0 {
		t.Errorf("inventory after the end = full %v, %d VMs, %d gone, %v, want no change", after.Full, len(after.VMs), len(after.Gone), err)
	}
	for calls := range int64(5) { // in the middle of the next one
		r.ok(r.lab.Arm(lab.Fault{Kind: "session_expire", After: calls}))
		if again, err := r.session.Inventory(t.Context(), ""); err != nil || len(again.VMs) != len(change.VMs) {
			t.Errorf("inventory whose session ends after %d calls = %d VMs, %v, want %d", calls, len(again.VMs), err, len(change.VMs))
		}
		if armed := r.lab.Armed(); len(armed) != 0 {
			t.Errorf("the session did not end: %v is still armed", armed)
		}
	}
}

func TestAMissingPrivilegeIsNamed(t *testing.T) {
	r := setup(t, small())
	r.ok(r.lab.Arm(lab.Fault{Kind: "permission_denied", Method: "CreateSnapshot_Task"}))
	_, err := r.session.CreateSnapshot(t.Context(), backup.SnapshotDraft{MOID: r.lab.Moid("vm01"), Name: marker("j")})
	if e := wantCode(t, err, backup.VCenterDenied); !strings.Contains(e.Message, "Lab.Denied") || !strings.Contains(e.Message, r.lab.User()) {
		t.Errorf("message = %q, want the privilege and the account in it", e.Message)
	}
}

func TestAVCenterThatDoesNotAnswerIsUnreachable(t *testing.T) {
	r := setup(t, small())
	r.ok(r.lab.Arm(lab.Fault{Kind: "http_503", Count: -1}))
	_, err := r.session.Machine(t.Context(), r.lab.Moid("vm01"))
	wantCode(t, err, backup.VCenterUnreachable)
	if !backup.CodeOf(err).Transient() {
		t.Error("an unreachable vcenter is not worth another try")
	}
	r.lab.ClearFaults()
	if _, err := r.session.Machine(t.Context(), r.lab.Moid("vm01")); err != nil {
		t.Error(err)
	}
}

func TestABusyVCenterIsAskedAgain(t *testing.T) {
	r := setup(t, small())
	r.ok(r.lab.Arm(lab.Fault{Kind: "http_503", Count: 2}))
	if _, err := r.session.Machine(t.Context(), r.lab.Moid("vm01")); err != nil {
		t.Error(err)
	}
}

func TestAnIdleSessionIsKeptAlive(t *testing.T) {
	l := newLab(t, lab.Config{VMs: -1})
	config := quick()
	config.KeepAlive = 10 * time.Millisecond
	if _, err := connector(t, config).Connect(t.Context(), vcenter(l)); err != nil {
		t.Fatal(err)
	}
	if err := l.Arm(lab.Fault{Kind: "session_expire"}); err != nil { // struck by the next request, whoever makes it
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); len(l.Armed()) > 0; {
		if time.Now().After(end) {
			t.Fatal("an idle session sends nothing")
		}
	}
}
