package backup_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// scout is a vcenter and a repository that are asked before a restore.
type scout struct {
	backup.VSphereSession
	backup.Repository
	backup.ImageReader
	asked []backup.RestoreCheck
	found backup.RestoreFindings
	err   error
	deaf  bool // it never answers
}

func (s *scout) Connect(context.Context, backup.VCenter) (backup.VSphereSession, error) {
	return s, nil
}

func (s *scout) Image(context.Context, string) (backup.ImageReader, error) { return s, nil }

func (s *scout) Close() error { return nil }

func (s *scout) CheckRestore(ctx context.Context, c backup.RestoreCheck, _ backup.ImageReader) (backup.RestoreFindings, error) {
	s.asked = append(s.asked, c)
	if s.deaf {
		<-ctx.Done()
		return s.found, ctx.Err()
	}
	return s.found, s.err
}

// sources opens the scout's repository.
type sources struct{ *scout }

func (s sources) Repository(context.Context, backup.RepositoryRecord) (backup.Repository, error) {
	return s.scout, nil
}

func (h *house) scouted() *scout {
	s := &scout{}
	h.VSphere, h.Images = s, sources{s}
	return s
}

func TestARestoreIsRefusedByWhatTheVCenterTells(t *testing.T) {
	h := newHouse(t, 10)
	s := h.scouted()
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	image := h.addImage(vm, "")
	s.err = backup.Errorf(backup.PreflightFailed, "", "It has snapshots.")
	_, err := h.CheckRestore(h.ctx, inPlace(image))
	refused(t, err, backup.PreflightFailed, "")
	_, err = h.CreateRestore(h.ctx, inPlace(image))
	refused(t, err, backup.PreflightFailed, "")
	if j := h.claim(); j != nil {
		t.Errorf("a refused restore left the job %+v", j)
	}
	if len(s.asked) != 2 || s.asked[0].MOID != vm.MOID || s.asked[0].InPlace == nil {
		t.Errorf("asked %+v, want the VM's restore in place twice", s.asked)
	}
	s.err, s.deaf, h.PreflightTime = nil, true, time.Millisecond
	_, err = h.CheckRestore(h.ctx, inPlace(image))
	refused(t, err, backup.VCenterUnreachable, "")
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	if _, err = h.CheckRestore(ctx, inPlace(image)); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v of a caller that gave up, want context.Canceled", err)
	}
}

// TestThePowerStateOfARestoreIsTheVCenters: the inventory may be minutes old.
func TestThePowerStateOfARestoreIsTheVCenters(t *testing.T) {
	h := newHouse(t, 10)
	s := h.scouted()
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	image := h.disked(vm)
	vm.PowerState = backup.PoweredOn
	h.save([]backup.VirtualMachine{vm})
	s.found = backup.RestoreFindings{PowerState: backup.PoweredOff, Warnings: []string{"A disk has grown."}}
	forced := inPlace(image)
	forced.InPlace.PowerOff = true
	for _, r := range []backup.Restore{inPlace(image), forced, oneDisk(image, vm, backup.DiskReplace, "Hard disk 1")} {
		w := strings.Join(must(h.CheckRestore(h.ctx, r))(t), " ")
		if strings.Contains(w, "powered off") || !strings.Contains(w, "A disk has grown.") {
			t.Errorf("warnings are %q, want the vcenter's and nothing of a VM that runs", w)
		}
	}
	s.found.PowerState = backup.PoweredOn
	if w := strings.Join(must(h.CheckRestore(h.ctx, forced))(t), " "); !strings.Contains(w, "powered off") {
		t.Errorf("warnings are %q, want the power-off in them", w)
	}
}

// seed:N80
func TestAddressesThatAnotherVMHasAreWarnedOf(t *testing.T) {
	h := newHouse(t, 10)
	s := h.scouted()
	vms := h.addVMs(h.vcenter.ID, 3)
	nic := func(mac string, ips ...string) []backup.VMNIC {
		return []backup.VMNIC{{Key: 4000, MAC: mac, Network: "prod", IPs: ips}}
	}
	vms[0].NICs, vms[1].NICs, vms[2].NICs = nic("00:50:56:00:00:01", "10.0.0.5"), nic("00:50:56:00:00:02", "10.0.0.5"), nic("00:50:56:00:00:0A", "10.0.0.6")
	h.save(vms)
	image := h.addImage(vms[0], "")
	s.found = backup.RestoreFindings{PowerState: backup.PoweredOff, MACs: []string{"00:50:56:00:00:01", "00:50:56:00:00:0a"}, IPs: []string{"10.0.0.5"}}
	w := must(h.CheckRestore(h.ctx, inPlace(image)))(t)
	text := strings.Join(w, "\n")
	if len(w) != 3 || !strings.Contains(text, `10.0.0.5, which the image's guest had, is in use by VM "`+vms[1].Name) || !strings.Contains(text, `00:50:56:00:00:0A is in use by VM "`+vms[2].Name) {
		t.Errorf("in place: warnings are %q, want the two other VMs", w)
	}
	s.found.MACs = nil
	if w := must(h.CheckRestore(h.ctx, newVM(image, "copy")))(t); len(w) != 3 || !strings.Contains(strings.Join(w, "\n"), vms[0].Name+`" (off)`) {
		t.Errorf("as a new VM: warnings are %q, want the original among those of the address", w)
	}
}

func TestAServerThatDoesNotReachTheVCenterSaysSo(t *testing.T) {
	h := newHouse(t, 10)
	s := h.scouted()
	h.Reach = []string{"repository:default"}
	image := h.addImage(h.addVMs(h.vcenter.ID, 1)[0], "")
	w := must(h.CheckRestore(h.ctx, inPlace(image)))(t)
	if text := strings.Join(w, " "); !strings.Contains(text, "does not reach") || len(s.asked) > 0 {
		t.Errorf("warnings are %q after %d questions, want it said and nobody asked", w, len(s.asked))
	}
}
