package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// made is the entry by which a later attempt of the job sees that the VM is
// whole. It is written in the call that makes it so, and outlives the record.
func (o *overwrite) made() types.BaseOptionValue {
	m, _ := parseMarker(o.draft.Marker)
	return optionValue(madeKey, m.job)
}

// resumes says whether an earlier attempt of the same job has made the VM whole
// and could not say so: by now it may run, and what was kept of it is of the
// old VM, which another restore's would not be.
func (o *overwrite) resumes() bool {
	own, ok := parseMarker(o.draft.Marker)
	if !ok || extra(o.vm.Config, madeKey) != own.job {
		return false
	}
	list, _ := decodeKept(extra(o.vm.Config, keptKey)) // one that cannot be read is as good as none
	for _, r := range list {
		if m, ok := parseMarker(r.Marker); ok && r.Done && m.installation == own.installation && m.job == own.job {
			o.record = r
		}
	}
	return true
}

// resume does again what follows a restore, of which an earlier attempt may
// have done any part.
func (o *overwrite) resume(ctx context.Context) error {
	if o.record.Snapshot != "" {
		return o.settleLevelled(ctx)
	}
	return o.settle(ctx)
}

// putNVRAM puts the image's NVRAM into the VM's folder. A VM that an earlier
// attempt has started has it already, and uses it.
func (o *overwrite) putNVRAM(ctx context.Context) {
	if o.whole && o.vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
		return
	}
	if _, message := o.s.restoreNVRAM(ctx, o.vm, o.dcPath, o.machine, o.from); message != "" {
		o.messages = append(o.messages, message)
	}
}

// dropStaging destroys the staging VM, if this attempt has made one.
func (o *overwrite) dropStaging(ctx context.Context) error {
	if o.staging == (ref{}) {
		return nil
	}
	return o.s.destroyMarked(ctx, o.staging, o.draft.Marker)
}

// decided returns a context that goes on for a moment after ctx was stopped,
// unless the job is another server's by now. It is for what is left when the
// bytes are there: to end that is quicker than to undo it, and leaves no VM off
// that was to be on. A server that is stopped has 8 s.
func (s *Session) decided(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() {
		if !errors.Is(context.Cause(ctx), backup.ErrLeaseLost) {
			t := time.NewTimer(s.config.Settle)
			defer t.Stop()
			select {
			case <-out.Done():
			case <-t.C:
			}
		}
		cancel(context.Cause(ctx))
	})
	return out, func() { unhook(); cancel(nil) }
}

// superseded are the restores that ended and have left a snapshot of what the
// VM was before them. A further restore takes their place.
func (o *overwrite) superseded() []replaced {
	list, err := decodeKept(extra(o.vm.Config, keptKey))
	if err != nil {
		return nil // the snapshots then count as those of others
	}
	return slices.DeleteFunc(list, func(r replaced) bool { return r.Snapshot == "" || !r.Done })
}

// supersede removes the snapshots that restores before this one have left: the
// disks of a VM with snapshots can be neither swapped nor reverted one by one.
func (o *overwrite) supersede(ctx context.Context) error {
	for _, r := range o.superseded() {
		if err := o.s.dropUndo(ctx, o.vm.Self, r, o.s.config.GiveUp); err != nil {
			return fmt.Errorf("remove the snapshot %s that an earlier restore has left: %w", r.Snapshot, err)
		}
	}
	return nil
}

// hasOther says whether another way may be tried: this one could not open the
// disks, no certain one was asked for, and the VM is as it was.
func (o *overwrite) hasOther(ctx context.Context) bool {
	t := o.s.transport()
	return o.unopened != nil && o.back && ctx.Err() == nil && (t == backup.TransportAuto || t == "")
}

// otherwise plans a restore anew without the transport that could not open the disks.
func (o *overwrite) otherwise(ctx context.Context) (*overwrite, error) {
	o.s.log.WarnContext(ctx, "transport cannot write, trying another", "transport", string(o.way.name()), "vm", o.draft.MOID, "error", o.unopened)
	message := fmt.Sprintf("The disks could not be written over %s: %s", o.way.name(), sentence(o.unopened.Error()))
	next, err := o.s.planOverwrite(ctx, o.draft, o.from, append(o.shut, o.way.name())...)
	if err != nil {
		return nil, err
	}
	next.messages = append([]string{message}, next.messages...)
	return next, nil
}
