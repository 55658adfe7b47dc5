package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// sweepers is how many things are removed at a time.
const sweepers = 4

// broom collects what a sweep removed and what it could not.
type broom struct {
	installation string
	alive        func(job string, attempt int) bool

	mu    sync.Mutex // guards what follows
	lines []string
	errs  []error
	held  map[string]bool // markers of which disks are still attached somewhere
}

// dead says whether name is the marker of a job of this installation that does not run.
func (b *broom) dead(name string) bool {
	m, ok := parseMarker(name)
	return ok && m.installation == b.installation && !b.alive(m.job, m.attempt)
}

func (b *broom) note(line string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.errs = append(b.errs, fmt.Errorf("%s: %w", line, err))
		return
	}
	b.lines = append(b.lines, line)
}

// Sweep implements [backup.VSphereSession]. It also deletes the disks that
// quick restores of this installation replaced, when their time is over.
func (s *Session) Sweep(ctx context.Context, installation string, alive func(job string, attempt int) bool) ([]string, error) {
	vms, err := s.suspects(ctx)
	if err != nil {
		return nil, s.problem("look for what was left behind", err)
	}
	b := &broom{installation: installation, alive: alive}
	// What is attached elsewhere is detached first: a snapshot must not go from under it.
	for _, what := range []func(context.Context, *broom, suspect){s.sweepAttached, s.sweep} {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(sweepers)
		for _, vm := range vms {
			g.Go(func() error {
				what(ctx, b, vm)
				return ctx.Err()
			})
		}
		if err := g.Wait(); err != nil {
			b.errs = append(b.errs, err)
			break
		}
	}
	slices.Sort(b.lines)
	return b.lines, s.problem("remove what was left behind", errors.Join(b.errs...))
}

// suspect is a VM with something on it that may be ours.
type suspect struct {
	self      ref
	name      string
	snapshots []string
	marker    string // in the annotation
	kept      string // the record of replaced disks
	attached  string // the record of disks of others that kura has attached to it
}

// suspects reads all VMs in one call and returns those that carry anything with our prefix.
func (s *Session) suspects(ctx context.Context) ([]suspect, error) {
	paths := []string{"name", "snapshot", "config.annotation", `config.extraConfig["` + keptKey + `"]`, `config.extraConfig["` + attachedKey + `"]`}
	list, err := s.survey(ctx, []string{"VirtualMachine"}, []types.PropertySpec{{Type: "VirtualMachine", PathSet: paths}})
	if _, unknown := faultOf[*types.InvalidProperty](err); unknown {
		paths = append(paths[:3], "config.extraConfig") // an endpoint that cannot pick one entry
		list, err = s.survey(ctx, []string{"VirtualMachine"}, []types.PropertySpec{{Type: "VirtualMachine", PathSet: paths}})
	}
	if err != nil {
		return nil, err
	}
	var out []suspect
	for _, o := range list {
		if v := suspectOf(o); len(v.snapshots) > 0 || v.marker != "" || v.kept != "" || v.attached != "" {
			out = append(out, v)
		}
	}
	return out, nil
}

func suspectOf(o types.ObjectContent) suspect {
	v := suspect{self: o.Obj}
	for _, p := range o.PropSet {
		switch val := p.Val.(type) {
		case string:
			if p.Name == "name" {
				v.name = unescapeName(val)
			} else if line := firstLine(val); isMarker(line) {
				v.marker = line
			}
		case types.VirtualMachineSnapshotInfo:
			eachSnapshot(val.RootSnapshotList, func(t types.VirtualMachineSnapshotTree) {
				if name := unescapeName(t.Name); isMarker(name) && !slices.Contains(v.snapshots, name) {
					v.snapshots = append(v.snapshots, name)
				}
			})
		case types.OptionValue:
			v.option(&val)
		case types.ArrayOfOptionValue:
			for _, o := range val.OptionValue {
				v.option(o.GetOptionValue())
			}
		}
	}
	return v
}

// option takes an entry of the extra configuration, if it is one of ours.
func (v *suspect) option(o *types.OptionValue) {
	text, _ := o.Value.(string)
	switch o.Key {
	case keptKey:
		v.kept = text
	case attachedKey:
		v.attached = text
	}
}

// sweepAttached detaches from one VM the disks of others that dead jobs had
// attached to it. Nothing is deleted.
func (s *Session) sweepAttached(ctx context.Context, b *broom, v suspect) {
	if v.attached == "" {
		return
	}
	s.seen.add(v.self)
	list, err := decodeAttached(v.attached)
	if err != nil {
		b.note(fmt.Sprintf("disks attached to the VM %q (%s)", v.name, v.self.Value), err)
	}
	for _, a := range list {
		if !b.dead(a.Marker) {
			continue
		}
		err := s.detach(ctx, v.self, s.config.sweepPatience(), func(x attachment) bool { return x.Marker == a.Marker && x.VM == a.VM })
		if err != nil {
			b.hold(a.Marker)
		}
		b.note(fmt.Sprintf("disks of the VM %s attached to %q (%s) for %s", a.VM, v.name, v.self.Value, a.Marker), err)
	}
}

// hold keeps what carries the marker from being removed in this sweep.
func (b *broom) hold(marker string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held == nil {
		b.held = map[string]bool{}
	}
	b.held[marker] = true
}

func (b *broom) holds(marker string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held[marker]
}

// sweep removes what is dead on one VM.
func (s *Session) sweep(ctx context.Context, b *broom, v suspect) {
	undo, err := keptSnapshots(v.kept)
	for _, name := range v.snapshots {
		if err == nil && b.dead(name) && !b.holds(name) && !slices.Contains(undo, name) {
			b.note(fmt.Sprintf("snapshot %s of the VM %q (%s)", name, v.name, v.self.Value), s.removeWithin(ctx, v.self.Value, name, s.config.sweepPatience()))
		}
	}
	if v.kept != "" {
		s.sweepKept(ctx, b, v)
	}
	if v.marker != "" && b.dead(v.marker) {
		s.sweepStaging(ctx, b, v)
	}
}

// sweepStaging destroys a half-made VM. A VM whose annotation alone says so
// was perhaps written by someone; it stays.
func (s *Session) sweepStaging(ctx context.Context, b *broom, v suspect) {
	line := fmt.Sprintf("half-made VM %q (%s) of %s", v.name, v.self.Value, v.marker)
	var vm mo.VirtualMachine
	err := s.read(ctx, v.self, []string{"config"}, &vm)
	if _, lost := faultOf[*types.ManagedObjectNotFound](err); lost {
		return
	}
	if err == nil && (vm.Config == nil || extra(vm.Config, markerKey) != v.marker) {
		s.log.WarnContext(ctx, "VM has a marker in its annotation only and is left alone", "vm", v.self.Value)
		return
	}
	if err == nil {
		err = s.destroyMarked(ctx, v.self, v.marker)
	}
	if backup.CodeOf(err) == backup.VMGone {
		err = nil
	}
	b.note(line, err)
}
