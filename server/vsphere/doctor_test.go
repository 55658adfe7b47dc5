package vsphere_test

import (
	"slices"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/vsphere"
)

// survey looks a lab over with a connector of its own.
func survey(t *testing.T, l *lab.Lab, change func(*backup.VCenter)) backup.Survey {
	t.Helper()
	v := vcenter(l)
	if change != nil {
		change(&v)
	}
	return connector(t, quick()).Survey(t.Context(), v)
}

func TestASurveyTellsWhatTheDoctorJudges(t *testing.T) {
	l := newLab(t, small())
	s := survey(t, l, nil)
	if s.Problem != nil || len(s.Unread) > 0 {
		t.Fatalf("problem = %v, unread = %q; want a whole survey", s.Problem, s.Unread)
	}
	if s.InstanceUUID != l.UUID() || s.APIVersion == "" || s.Product == "" {
		t.Errorf("it is %q, API %q, %q; want the lab", s.InstanceUUID, s.APIVersion, s.Product)
	}
	if s.Certificate.Thumbprint != l.Thumbprint() || s.Certificate.Trust != "pinned" || !s.Certificate.NotAfter.Equal(l.Certificate().NotAfter) {
		t.Errorf("certificate = %+v, want the lab's, pinned", s.Certificate)
	}
	if !s.Clock.Read || s.Clock.Ahead.Abs() > s.Clock.Give+time.Second {
		t.Errorf("clock = %+v, want that of this machine", s.Clock)
	}
	if len(s.Privileges) != 0 {
		t.Errorf("privileges missing: %+v, want none", s.Privileges)
	}
	if len(s.Hosts) != 2 || len(s.Datastores) != 2 || len(s.VMs) != 4 {
		t.Fatalf("%d hosts, %d datastores, %d VMs; want 2, 2, 4", len(s.Hosts), len(s.Datastores), len(s.VMs))
	}
	for _, h := range s.Hosts {
		if h.State != "connected" || h.Problem != "" || h.Maintenance || !h.Clock.Read || h.Clock.Ahead.Abs() > h.Clock.Give+time.Second {
			t.Errorf("host = %+v, want one that is well", h)
		}
	}
	for _, d := range s.Datastores {
		if !d.Accessible || d.Free <= 0 || d.Free >= d.Capacity {
			t.Errorf("datastore = %+v, want space that is used and free", d)
		}
	}
	for _, vm := range s.VMs {
		if vm.Hardware != 19 || !vm.TrackingSupported || vm.Consolidation || vm.Allocated <= 0 || vm.Transport != backup.TransportNFC || len(vm.Disks) == 0 || vm.Host == "" {
			t.Errorf("VM = %+v, want one as the lab makes them", vm)
		}
	}
}

// seed:A7 seed:W20
func TestASurveyNamesEachPrivilegeThatIsMissingAndWhere(t *testing.T) {
	l := newLab(t, small())
	arm := func(f lab.Fault) {
		t.Helper()
		if err := l.Arm(f); err != nil {
			t.Fatal(err)
		}
	}
	arm(lab.Fault{Kind: "privilege_missing", Method: "VirtualMachine.State.CreateSnapshot", VM: "vm02"})
	arm(lab.Fault{Kind: "privilege_missing", Method: "Datastore.AllocateSpace"})
	s := survey(t, l, nil)
	if len(s.Privileges) != 2 {
		t.Fatalf("missing = %+v, want the two that were taken away", s.Privileges)
	}
	snapshot, space := s.Privileges[0], s.Privileges[1]
	if snapshot.ID != "VirtualMachine.State.CreateSnapshot" || !slices.Equal(snapshot.Objects, []string{"vm02"}) || snapshot.Looked != 4 {
		t.Errorf("missing = %+v, want it on vm02 alone of 4", snapshot)
	}
	if space.ID != "Datastore.AllocateSpace" || len(space.Objects) != 2 || space.Looked != 2 {
		t.Errorf("missing = %+v, want it on both datastores", space)
	}
}

func TestASurveySeesClocksHostsAndMaintenance(t *testing.T) {
	l := newLab(t, small())
	hosts := l.Hosts()
	for _, f := range []lab.Fault{{Kind: "clock_skew", Delay: 10 * time.Minute}, {Kind: "clock_skew", VM: hosts[1], Delay: -2 * time.Minute}} {
		if err := l.Arm(f); err != nil {
			t.Fatal(err)
		}
	}
	l.SetMaintenance(hosts[1], true)
	l.SetHostAddress(hosts[0], "esx.invalid", 443)
	s := survey(t, l, nil)
	if off := s.Clock.Ahead - 10*time.Minute; off.Abs() > s.Clock.Give+time.Second {
		t.Errorf("the vCenter is %s ahead, want 10m", s.Clock.Ahead)
	}
	for _, h := range s.Hosts {
		switch h.Name {
		case hosts[0]:
			if h.Problem == "" || h.Address != "esx.invalid:443" || h.Maintenance {
				t.Errorf("host = %+v, want that its name does not resolve", h)
			}
		case hosts[1]:
			if off := h.Clock.Ahead + 2*time.Minute; !h.Maintenance || off.Abs() > h.Clock.Give+time.Second {
				t.Errorf("host = %+v, want it in maintenance and two minutes behind", h)
			}
		}
	}
}

func TestAVCenterThatLetsNobodyInStillShowsItsCertificate(t *testing.T) {
	l := newLab(t, lab.Config{VMs: 1, DiskSize: 1 << 20, CertificateDays: 5})
	for name, c := range map[string]struct {
		change func(*backup.VCenter)
		code   backup.Code
		trust  string
	}{
		"a wrong password":        {func(v *backup.VCenter) { v.Password = "wrong" }, backup.VCenterDenied, "pinned"},
		"a certificate of nobody": {func(v *backup.VCenter) { v.Thumbprint = "" }, backup.VCenterDenied, ""},
		"a pin of another":        {func(v *backup.VCenter) { v.Thumbprint = "00" + v.Thumbprint[2:] }, backup.VCenterDenied, ""},
		"nobody at that address":  {func(v *backup.VCenter) { v.Endpoint = "https://127.0.0.1:1" }, backup.VCenterUnreachable, ""},
	} {
		s := survey(t, l, c.change)
		if got := backup.CodeOf(s.Problem); got != c.code {
			t.Errorf("%s: problem = %v, want %s", name, s.Problem, c.code)
		}
		if s.Certificate.Trust != c.trust || (s.Certificate.Thumbprint == "") != (c.code == backup.VCenterUnreachable) {
			t.Errorf("%s: certificate = %+v, want trust %q", name, s.Certificate, c.trust)
		}
	}
}

func TestPrivilegesAreEachNamedOnceWithWhatNeedsThem(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range vsphere.Privileges() {
		if seen[p.ID] || p.For == "" || p.On == "" || len(p.Parts) == 0 {
			t.Errorf("privilege = %+v, want it once, with what it is for and on", p)
		}
		seen[p.ID] = true
	}
}
