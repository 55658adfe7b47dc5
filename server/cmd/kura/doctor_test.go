package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// diagnose asks the doctor and returns what he found, by check.
func (h *house) diagnose(status int, args ...string) (api.Diagnosis, map[string][]api.Finding) {
	h.Helper()
	var d api.Diagnosis
	if err := json.Unmarshal([]byte(h.kura(status, append(args, "-o", "json")...).out), &d); err != nil {
		h.Fatal(err)
	}
	by := map[string][]api.Finding{}
	for _, f := range d.Findings {
		by[f.Check] = append(by[f.Check], f)
		if f.Seen == "" || f.Status != api.FindingStatusOk && (f.Why == "" || f.Remedy == "") {
			h.Errorf("finding = %+v, want what was seen, and where it is not well why it matters and what to do", f)
		}
	}
	return d, by
}

// TestTheDoctorSaysWhatIsAmissPredictsTheNightAndProvesARestore looks a lab
// over that is well, makes the whole round trip, and looks again when much is
// not well any more.
//
// seed:A7 seed:W20 seed:N54 seed:A32
func TestTheDoctorSaysWhatIsAmissPredictsTheNightAndProvesARestore(t *testing.T) {
	h := newHouse(t, lab.Config{VMs: 3, DiskSize: 8 << 20, CertificateDays: 10})
	h.kura(0, "vcenter", "create", "lab", h.lab.Endpoint(), "--username", h.lab.User(), "--thumbprint", h.lab.Thumbprint(), "--wait")
	h.interruptedProof("vm01")
	images := list[api.BackupImage](h, "image", "list", "--vm", "vm01")
	h.kura(0, "image", "verify", images[0].ID, "--sha256", "--wait")
	if sum, err := h.lab.DiskSHA256(h.Context(), "vm01", 2000); err != nil || !strings.Contains(h.kura(0, "image", "show", images[0].ID).out, sum) {
		t.Errorf("the image does not tell the SHA-256 of its disk, %s (%v)", sum, err)
	}
	h.lookedOver()
	h.proof("vm02")
	h.lookedOverAmiss()
}

// lookedOver sees what the doctor says of a lab that is well.
func (h *house) lookedOver() {
	h.Helper()
	d, by := h.diagnose(0, "doctor", "lab")
	for _, check := range []string{"vcenter.reachable", "vcenter.clock", "vcenter.identity", "vcenter.inventory", "vcenter.privileges",
		"host.reachable", "datastore.space", "vm.count", "vm.transport", "sizing.night", "repository.space"} {
		if len(by[check]) != 1 || by[check][0].Status != api.FindingStatusOk {
			h.Errorf("%s = %+v, want one finding that it is well", check, by[check])
		}
	}
	if len(by["repository.speed"]) != 1 || len(by["repository.sheet"]) != 1 || by["repository.sheet"][0].Status != api.FindingStatusWarning {
		h.Errorf("of the repository: %+v, %+v; want its speed, and that there is no recovery sheet", by["repository.speed"], by["repository.sheet"])
	}
	if d.Sizing == nil || len(d.Sizing.VirtualMachines) != 3 || d.Sizing.Measured != 1 || d.Sizing.NightSeconds == 0 {
		h.Fatalf("sizing = %+v, want three VMs, one measured", d.Sizing)
	}
	for _, r := range d.Sizing.VirtualMachines {
		if r.Measured != (r.Name == "vm01") || r.Read == 0 || r.Read > r.Provisioned || r.Seconds == 0 || r.LeaseSeconds != r.Seconds || r.VirtualMachineID == "" {
			h.Errorf("row = %+v, want what one backup reads and how long it takes", r)
		}
	}
	if r := h.kura(0, "doctor", "--skip-repositories"); !strings.HasPrefix(r.out, "lab: 0 errors, ") || !strings.Contains(r.out, "vcenter.clock") || !strings.Contains(r.out, "DOES NOT FIT") {
		h.Errorf("doctor printed\n%s", r.out)
	}
}

// lookedOverAmiss sees what he says when much is not well.
func (h *house) lookedOverAmiss() {
	h.Helper()
	for _, f := range []lab.Fault{
		{Kind: "privilege_missing", Method: "VirtualMachine.State.CreateSnapshot"},
		{Kind: "clock_skew", Delay: 20 * time.Minute},
	} {
		if err := h.lab.Arm(f); err != nil {
			h.Fatal(err)
		}
	}
	h.lab.SetMaintenance(h.lab.Hosts()[0], true)
	h.lab.SetHostAddress(h.lab.Hosts()[1], "esx.invalid", 443)
	d, by := h.diagnose(1, "doctor", "lab", "--skip-repositories", "--rate", "100", "--window", "1h")
	if d.Status != api.FindingStatusError {
		h.Errorf("status = %s, want error", d.Status)
	}
	for check, want := range map[string]api.FindingStatus{
		"vcenter.privileges": api.FindingStatusError, "vcenter.clock": api.FindingStatusError, "vcenter.certificate": api.FindingStatusWarning,
		"host.maintenance": api.FindingStatusWarning, "host.reachable": api.FindingStatusError, "sizing.night": api.FindingStatusWarning,
	} {
		if len(by[check]) != 1 || by[check][0].Status != want {
			h.Errorf("%s = %+v, want one %s", check, by[check], want)
		}
	}
	if len(by["repository.speed"]) != 0 || len(by["sizing.window"])+len(by["sizing.lease"]) == 0 {
		h.Errorf("speed = %+v, misfits = %+v; want none, and the VMs that do not fit", by["repository.speed"], by["sizing.window"])
	}
	r := h.kura(1, "doctor", "lab", "--skip-repositories")
	if !strings.Contains(r.out, "VirtualMachine.State.CreateSnapshot") || !strings.Contains(r.errout, "The doctor found 3 errors.") {
		h.Errorf("doctor printed\n%s%s", r.out, r.errout)
	}
}

func TestTheRoleFileIsWrittenWithoutAServerAndOverNothing(t *testing.T) {
	dir := t.TempDir()
	script, object := filepath.Join(dir, "role.sh"), filepath.Join(dir, "role.json")
	for _, path := range []string{script, object} {
		if r := kura(t.Context(), nil, "", "doctor", "--role-file", path); r.status != 0 {
			t.Fatalf("status %d: %s", r.status, r.errout)
		}
		if r := kura(t.Context(), nil, "", "doctor", "--role-file", path); r.status != 1 {
			t.Errorf("a file that is there was written over: status %d", r.status)
		}
	}
	text, err := os.ReadFile(object)
	if err != nil {
		t.Fatal(err)
	}
	var role struct {
		Name       string `json:"name"`
		Privileges []struct {
			ID  string `json:"id"`
			For string `json:"needed_to"`
		} `json:"privileges"`
	}
	if err := json.Unmarshal(text, &role); err != nil || role.Name != "Kura" || len(role.Privileges) < 20 {
		t.Fatalf("role = %+v (%v), want Kura with its privileges", role, err)
	}
	shell, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range role.Privileges {
		if !strings.Contains(string(shell), "\n  "+p.ID) || p.For == "" {
			t.Errorf("the script lacks %s, or it is not said what for (%q)", p.ID, p.For)
		}
	}
}
