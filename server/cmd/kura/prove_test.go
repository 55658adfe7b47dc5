package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

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

// proof makes the whole round trip on a VM whose guest writes all the time.
func (h *house) proof(vm string) {
	h.Helper()
	before := len(list[api.BackupImage](h, "image", "list", "--status", "good"))
	stop, err := h.lab.KeepWriting(vm, 5*time.Millisecond)
	if err != nil {
		h.Fatal(err)
	}
	defer stop()
	r := h.kura(0, "doctor", "lab", "--prove", vm, "--in-place", "-o", "json")
	var p proof
	if err := json.Unmarshal([]byte(r.out), &p); err != nil {
		h.Fatal(err)
	}
	if !p.Proved || len(p.Left) > 0 || len(p.Steps) != 8 || p.VirtualMachine != vm {
		h.Fatalf("proof = %+v, want eight steps, all of them good", p)
	}
	for _, s := range p.Steps {
		if s.Error != "" || s.Step != "cleared away" && s.Read == 0 {
			h.Errorf("step = %+v, want one that went well and read something", s)
		}
	}
	h.untouched()
	if left := len(list[api.BackupImage](h, "image", "list", "--status", "good")); left != before {
		h.Errorf("%d images are left, want the %d that there were", left, before)
	}
	if restores := list[api.Restore](h, "restore", "list"); len(restores) != 1 || restores[0].InPlace == nil {
		h.Fatalf("restores = %+v, want that in place alone", restores)
	} else {
		if r := h.kura(1, "restore", "delete", restores[0].ID, "--delete-vm"); !strings.Contains(r.errout, "Code: conflict") {
			h.Errorf("the VM of a restore in place is not deleted with %s, want conflict", r.errout)
		}
		h.kura(0, "restore", "delete", restores[0].ID)
	}
	if m, err := h.lab.VM(vm); err != nil || strings.EqualFold(m.PowerState, "poweredOn") {
		h.Errorf("%s is %s (%v), want it left off", vm, m.PowerState, err)
	}
}

// interruptedProof is one that is stopped after its first step: the image of that stays.
func (h *house) interruptedProof(vm string) {
	h.Helper()
	ctx, cancel := context.WithCancel(h.Context())
	var out, errout strings.Builder
	s := &session{stdin: strings.NewReader(""), stdout: stopper{&out, cancel}, stderr: &errout, now: time.Now, poll: 10 * time.Millisecond}
	if status := s.run(ctx, []string{"doctor", "--prove", vm}, func(name string) string { return h.env[name] }); status != 1 {
		h.Errorf("status = %d, want 1", status)
	}
	if !strings.Contains(errout.String(), "Still there: image ") || !strings.Contains(out.String(), "full backup") {
		h.Errorf("it printed\n%s%s\nwant what is left after the first step", out.String(), errout.String())
	}
}

func TestAProofThatFailsSaysWhatIsLeftAndHowToRemoveIt(t *testing.T) {
	var out strings.Builder
	p := &prover{s: &session{cli: &cli{}, stdout: &out, now: time.Now}, images: []string{"i1"}, restore: "r1", restored: &api.RestoredVM{Name: "copy", MOID: "vm-7"}}
	var text strings.Builder
	report(&text, p.report(t.Context(), hinted{errDiffers, "A hint."}))
	for _, want := range []string{"what came back differs", "A hint. Still there: the VM copy (vm-7): kura restore delete r1 --delete-vm", "kura image delete i1"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("it said %s, want %q", text.String(), want)
		}
	}
	if p.restored = nil; !strings.Contains(p.left()[0], "kura restore show r1") {
		t.Errorf("left = %q, want where to look for a VM that a restore may have made", p.left())
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
