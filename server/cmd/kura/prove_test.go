package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// proofHouse is a house with a vcenter.
func proofHouse(t *testing.T) *house {
	t.Helper()
	h := newHouse(t, lab.Config{VMs: 2, DiskSize: 8 << 20})
	h.kura(0, "vcenter", "create", "lab", h.lab.Endpoint(), "--username", h.lab.User(), "--thumbprint", h.lab.Thumbprint(), "--wait")
	return h
}

// untouched fails the test unless the lab holds what it did before a proof.
func (h *house) untouched() {
	h.Helper()
	for _, vm := range h.lab.VMs() {
		if names, err := h.lab.Snapshots(vm.Moid); err != nil || len(names) > 0 {
			h.Errorf("%s has snapshots %q (%v)", vm.Name, names, err)
		}
		if strings.HasPrefix(vm.Name, "kura-prove-") {
			h.Errorf("%s was left behind", vm.Name)
		}
	}
}

// TestAProofMakesTheWholeRoundTripAndLeavesNothing: seed:A32
func TestAProofMakesTheWholeRoundTripAndLeavesNothing(t *testing.T) {
	h := proofHouse(t)
	stop, err := h.lab.KeepWriting("vm02", 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	r := h.kura(0, "doctor", "lab", "--prove", "vm02", "--in-place", "-o", "json")
	var p proof
	if err := json.Unmarshal([]byte(r.out), &p); err != nil {
		t.Fatal(err)
	}
	if !p.Proved || len(p.Left) > 0 || len(p.Steps) != 8 || p.VirtualMachine != "vm02" {
		t.Fatalf("proof = %+v, want eight steps, all of them good", p)
	}
	for _, s := range p.Steps {
		if s.Error != "" || s.Step != "cleared away" && s.Read == 0 {
			t.Errorf("step = %+v, want one that went well and read something", s)
		}
	}
	h.untouched()
	if images := list[api.BackupImage](h, "image", "list", "--status", "good"); len(images) > 0 {
		t.Errorf("%d images were left", len(images))
	}
	if restores := list[api.Restore](h, "restore", "list"); len(restores) != 1 || restores[0].InPlace == nil {
		t.Errorf("restores = %+v, want that in place alone", restores)
	}
	if m, err := h.lab.VM("vm02"); err != nil || strings.EqualFold(m.PowerState, "poweredOn") {
		t.Errorf("vm02 is %s (%v), want it left off", m.PowerState, err)
	}
}

func TestAProofThatFailsSaysWhatIsLeftAndHowToRemoveIt(t *testing.T) {
	h := proofHouse(t)
	if err := h.lab.Arm(lab.Fault{Kind: "task_fail", Method: "Destroy_Task", Count: -1}); err != nil {
		t.Fatal(err)
	}
	r := h.kura(1, "doctor", "--prove", "vm01")
	for _, want := range []string{"full backup", "new VM compared", "cleared away", "FAILED"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("it printed\n%s\nwant %q", r.out, want)
		}
	}
	_, command, found := strings.Cut(r.errout, "kura restore delete ")
	if !found || !strings.Contains(r.errout, "kura image delete ") {
		t.Fatalf("it said %s, want how to remove what is left", r.errout)
	}
	h.lab.ClearFaults()
	h.kura(0, slices.Concat([]string{"restore", "delete"}, strings.Fields(strings.SplitN(command, ";", 2)[0]))...)
	h.untouched()
}

func TestAProofThatIsInterruptedSaysSo(t *testing.T) {
	h := proofHouse(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out, errout strings.Builder
	s := &session{stdin: strings.NewReader(""), stdout: stopper{&out, cancel}, stderr: &errout, now: time.Now, poll: 10 * time.Millisecond}
	if status := s.run(ctx, []string{"doctor", "--prove", "vm01"}, func(name string) string { return h.env[name] }); status != 1 {
		t.Errorf("status = %d, want 1", status)
	}
	if !strings.Contains(errout.String(), "Still there: image ") || !strings.Contains(out.String(), "full backup") {
		t.Errorf("it printed\n%s%s\nwant what is left after the first step", out.String(), errout.String())
	}
}

// stopper cancels when something is printed.
type stopper struct {
	*strings.Builder
	cancel context.CancelFunc
}

func (s stopper) Write(p []byte) (int, error) {
	s.cancel()
	return s.Builder.Write(p)
}

func TestWhatDiffersIsNamed(t *testing.T) {
	disk := api.ImageDisk{Label: "Hard disk 1", Capacity: 1 << 20, SHA256: "aa"}
	other := disk
	other.SHA256 = "bb"
	for name, c := range map[string]struct {
		got  []api.ImageDisk
		want string
	}{
		"the same":        {[]api.ImageDisk{disk}, ""},
		"other bytes":     {[]api.ImageDisk{other}, "Hard disk 1"},
		"a disk too few":  {nil, "0 disks, not 1"},
		"a disk too many": {[]api.ImageDisk{disk, disk}, "2 disks, not 1"},
	} {
		err := same(api.BackupImage{Disks: []api.ImageDisk{disk}}, api.BackupImage{Disks: c.got})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
