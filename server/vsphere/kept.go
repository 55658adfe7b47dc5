package vsphere

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// keptKey is the entry of a VM's extra configuration in which restores in
// place write down which files they brought and which they replaced. It is
// written before the first file is moved, so nothing can be forgotten.
const keptKey = "kura.kept"

// replaced is one restore in place, as the VM itself remembers it.
type replaced struct {
	Marker string    `json:"marker"`
	Done   bool      `json:"done"` // the disks were swapped: set by the same call that swaps them
	WasOn  bool      `json:"was_on"`
	Until  time.Time `json:"until"` // the old files are kept until then
	Old    []string  `json:"old"`   // datastore paths of what was replaced
	New    []string  `json:"new"`   // of what took its place

	// Of a restore that writes into the disks themselves:
	Snapshot string `json:"snapshot,omitempty"` // what the VM was, kept instead of files
	Tracked  bool   `json:"tracked,omitempty"`  // changed block tracking was on
}

func decodeKept(s string) ([]replaced, error) {
	var list []replaced
	if s == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(s), &list); err != nil {
		return nil, fmt.Errorf("read %s of the VM: %w", keptKey, err)
	}
	return list, nil
}

// keptOption is the entry with r added, or put in the place of the record with its marker.
func keptOption(c *types.VirtualMachineConfigInfo, r replaced) (types.BaseOptionValue, error) {
	list, err := decodeKept(extra(c, keptKey))
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(x replaced) bool { return x.Marker == r.Marker })
	return encodeKept(append(list, r))
}

func encodeKept(list []replaced) (types.BaseOptionValue, error) {
	if len(list) == 0 {
		return optionValue(keptKey, ""), nil
	}
	b, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", keptKey, err)
	}
	return optionValue(keptKey, string(b)), nil
}

// keptSnapshots names the snapshots that hold what VMs were before they were
// restored: they are kura's, and go by the record, not by their marker.
func keptSnapshots(kept string) (names []string, err error) {
	list, err := decodeKept(kept)
	for _, r := range list {
		if r.Snapshot != "" {
			names = append(names, r.Snapshot)
		}
	}
	return names, err
}

// sweepKept cleans up after the VM's restores in place: one that died before
// the swap leaves its new files, one that succeeded the old ones until their
// time is over.
func (s *Session) sweepKept(ctx context.Context, b *broom, v suspect) {
	list, err := decodeKept(v.kept)
	if err != nil {
		b.note(fmt.Sprintf("kept disks of the VM %q (%s)", v.name, v.self.Value), err)
		return
	}
	now, err := s.keptNow(ctx)
	if err != nil {
		b.note(fmt.Sprintf("age of the kept disks of the VM %q (%s)", v.name, v.self.Value), err)
		return
	}
	for _, r := range list {
		over := r.Done && !now.Before(r.Until)
		if !b.dead(r.Marker) || (r.Done && !over) {
			continue
		}
		if there, err := s.recorded(ctx, v.self, r.Marker); err == nil && !there {
			continue
		}
		if r.Snapshot != "" {
			s.sweepUndo(ctx, b, v, r)
			continue
		}
		files, what := r.New, "disks of a failed restore of the VM"
		if r.Done {
			files, what = r.Old, "replaced disks of the VM"
		}
		var err error
		if r.WasOn && !r.Done { // before the record goes: what fails now is tried again
			err = s.powerOnAgain(ctx, v.self)
			failpoint.Hit("swap.undone")
		}
		if err == nil {
			err = s.forget(ctx, v.self, r.Marker, files)
		}
		b.note(fmt.Sprintf("%s %q (%s): %s", what, v.name, v.self.Value, strings.Join(files, ", ")), err)
	}
}

// keptNow is the time by which disks are kept. It is the vcenter's, as long as
// nothing else is configured: a clock of ours that leaps must not delete them.
func (s *Session) keptNow(ctx context.Context) (time.Time, error) {
	if !s.config.theirs {
		return s.config.Now(), nil
	}
	res, err := methods.GetCurrentTime(ctx, s.client)
	if err != nil {
		return time.Time{}, err
	}
	return *res, nil
}

// sweepUndo gives a VM its old disks again, of which a restore died while it
// wrote; the snapshot of one that ended just goes.
func (s *Session) sweepUndo(ctx context.Context, b *broom, v suspect, r replaced) {
	if b.holds(r.Marker) {
		return
	}
	if r.Done {
		b.note(fmt.Sprintf("snapshot %s of the VM %q (%s) before it was restored", r.Snapshot, v.name, v.self.Value), s.dropUndo(ctx, v.self, r, s.config.sweepPatience()))
		return
	}
	b.note(fmt.Sprintf("what the failed restore %s wrote into the VM %q (%s)", r.Marker, v.name, v.self.Value), s.rollBack(ctx, v.self, r, s.config.sweepPatience()))
}

// recorded says whether the VM still has a record. Another sweep, or the job's
// next attempt, may have seen to it since; then the VM may be off for good reason.
func (s *Session) recorded(ctx context.Context, self ref, marker string) (bool, error) {
	vm, err := s.vm(ctx, self.Value, []string{"config"})
	if err != nil {
		return false, err
	}
	list, err := decodeKept(extra(vm.Config, keptKey))
	return slices.ContainsFunc(list, func(r replaced) bool { return r.Marker == marker }), err
}

// powerOnAgain starts a VM that a restore has or had powered off. A VM that was
// on must not stay off for one refusal, so it is tried for a while.
func (s *Session) powerOnAgain(ctx context.Context, self ref) error {
	began := time.Now()
	for n := 0; ; n++ {
		err := s.powerOn(ctx, self)
		if _, on := faultOf[*types.InvalidPowerState](err); on || err == nil {
			return nil
		}
		if !s.pause(ctx, n, began, s.config.sweepPatience()) {
			return err
		}
	}
}

// forget deletes files, none of which is in use by the VM, and the record of them.
func (s *Session) forget(ctx context.Context, self ref, marker string, files []string) error {
	vm, err := s.vm(ctx, self.Value, []string{"config", "parent", "parentVApp"})
	if err != nil {
		return err
	}
	dc, _, err := s.datacenterOf(ctx, vm)
	if err != nil {
		return err
	}
	used := usedFiles(vm.Config.Hardware.Device)
	var errs []error
	for _, f := range files {
		if !used[f] {
			errs = append(errs, s.deleteDisk(ctx, dc, f))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	list, err := decodeKept(extra(vm.Config, keptKey))
	if err != nil {
		return err
	}
	entry, err := encodeKept(slices.DeleteFunc(list, func(r replaced) bool { return r.Marker == marker }))
	if err != nil {
		return err
	}
	return s.reconfigure(ctx, self, types.VirtualMachineConfigSpec{ExtraConfig: []types.BaseOptionValue{entry}})
}

// usedFiles are the files of all disks and of what they build upon.
func usedFiles(devices []types.BaseVirtualDevice) map[string]bool {
	used := map[string]bool{}
	for _, d := range devices {
		disk, ok := d.(*types.VirtualDisk)
		if !ok {
			continue
		}
		used[fileOf(disk)] = true
		if b, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
			for ; b != nil; b = b.Parent {
				used[b.FileName] = true
			}
		}
		if b, ok := disk.Backing.(*types.VirtualDiskSeSparseBackingInfo); ok {
			for ; b != nil; b = b.Parent {
				used[b.FileName] = true
			}
		}
	}
	return used
}

// datacenterOf finds the datacenter that a VM lies in.
func (s *Session) datacenterOf(ctx context.Context, vm mo.VirtualMachine) (dc ref, path string, err error) {
	from := deref(vm.Parent)
	if from == (ref{}) {
		from = deref(vm.ParentVApp)
	}
	p, err := s.placesOf(ctx, from)
	if err != nil {
		return ref{}, "", err
	}
	dc, ok := p.up(from, "Datacenter")
	if !ok {
		return ref{}, "", fmt.Errorf("%s lies in no datacenter", vm.Self.Value)
	}
	return dc, p.path(dc), nil
}
