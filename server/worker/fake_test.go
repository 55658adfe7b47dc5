package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// points are the places at which a peer can be watched, held and made to fail.
type points struct {
	mu     sync.Mutex // guards what follows
	calls  []string
	faults map[string][]error
	holds  map[string]*hold
	hooks  map[string]func()
}

// hold is where calls of one point wait.
type hold struct {
	left     int           // calls that are still to be held; guarded by the points' mu
	reached  chan struct{} // closed when the first call has come
	released chan struct{}
	stopped  chan struct{} // closed when a held call's context ended
	once     [3]sync.Once
}

func (h *hold) release() { h.once[1].Do(func() { close(h.released) }) }

// pass is called by the peer at each point. what tells calls of one point apart.
func (p *points) pass(ctx context.Context, point, what string) error {
	p.mu.Lock()
	p.calls = append(p.calls, strings.TrimSpace(point+" "+what))
	h, hook := p.holds[point], p.hooks[point]
	if h != nil && h.left == 0 {
		h = nil
	}
	if h != nil {
		h.left--
	}
	p.mu.Unlock()
	if hook != nil {
		hook()
	}
	if h != nil {
		h.once[0].Do(func() { close(h.reached) })
		select {
		case <-h.released:
		case <-ctx.Done():
			h.once[2].Do(func() { close(h.stopped) })
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.faults[point]; len(f) > 0 {
		p.faults[point] = f[1:]
		return f[0]
	}
	return ctx.Err()
}

// fail makes the next n calls of the point fail.
func (p *points) fail(point string, n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.faults == nil {
		p.faults = map[string][]error{}
	}
	p.faults[point] = slices.Repeat([]error{err}, n)
}

// hold makes the next n calls of the point, or all with -1, wait until they
// are released or stopped.
func (p *points) hold(t *testing.T, point string, n int) *hold {
	h := &hold{left: n, reached: make(chan struct{}), released: make(chan struct{}), stopped: make(chan struct{})}
	t.Cleanup(h.release)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds == nil {
		p.holds = map[string]*hold{}
	}
	p.holds[point] = h
	return h
}

// on runs fn at each call of the point; nil = no more.
func (p *points) on(point string, fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hooks == nil {
		p.hooks = map[string]func(){}
	}
	p.hooks[point] = fn
}

// called lists the calls of these points so far, in their order.
func (p *points) called(names ...string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, c := range p.calls {
		name, _, _ := strings.Cut(c, " ")
		if slices.Contains(names, name) {
			out = append(out, c)
		}
	}
	return out
}

// fakeVSphere is one vcenter whose VMs have disks in memory. It is its own session.
type fakeVSphere struct {
	points
	uuid string
	now  func() clockTime

	vmsMu sync.Mutex // guards what follows
	vms   map[string]*fakeVM
	made  int
	cbt   fakeTracking
	loads []backup.DatastoreLoad // of ds1, one for each look; the last stays
}

// fakeVM is a VM with its disks and what hangs on it.
type fakeVM struct {
	backup.Machine
	disks     map[int32][]byte
	snapshots map[string]map[int32][]byte // by name: the disks as they were
	marker    string                      // of a VM that is being made

	bootedAt   time.Time
	noTools    bool              // no Tools run in the guest
	lingers    bool              // its guest ends its Tools when asked, and is off only when a test says so
	takenWhile backup.PowerState // the power state at its last snapshot
	taken      map[string]backup.Snapshot
}

func (f *fakeVSphere) Connect(ctx context.Context, v backup.VCenter) (backup.VSphereSession, error) {
	return f, f.pass(ctx, "Connect", v.Name)
}

func (f *fakeVSphere) About() (string, string) { return f.uuid, "8.0.3" }

func (f *fakeVSphere) vm(moid string) (*fakeVM, error) {
	vm := f.vms[moid]
	if vm == nil {
		return nil, backup.Errorf(backup.VMGone, "", "VM %s is gone.", moid)
	}
	return vm, nil
}

// with runs fn on a VM while nobody else has the vcenter.
func (f *fakeVSphere) with(moid string, fn func(vm *fakeVM)) {
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	fn(f.vms[moid])
}

func (f *fakeVSphere) remove(moid string) {
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	delete(f.vms, moid)
}

func (f *fakeVSphere) Inventory(ctx context.Context, since string) (backup.InventoryChange, error) {
	if err := f.pass(ctx, "Inventory", "since="+since); err != nil {
		return backup.InventoryChange{}, err
	}
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	c := backup.InventoryChange{Full: true, Version: since + "+"}
	for _, vm := range f.vms {
		if vm.marker == "" {
			c.VMs = append(c.VMs, vm.VirtualMachine)
		}
	}
	return c, nil
}

func (f *fakeVSphere) Machine(ctx context.Context, moid string) (backup.Machine, error) {
	if err := f.pass(ctx, "Machine", moid); err != nil {
		return backup.Machine{}, err
	}
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	vm, err := f.vm(moid)
	if err != nil {
		return backup.Machine{}, err
	}
	m := vm.Machine
	m.SnapshotNames = slices.AppendSeq(slices.Clone(m.SnapshotNames), maps.Keys(vm.snapshots))
	return m, nil
}

func (f *fakeVSphere) CreateSnapshot(ctx context.Context, d backup.SnapshotDraft) (backup.Snapshot, error) {
	if err := f.pass(ctx, "CreateSnapshot", fmt.Sprintf("%s quiesce=%t", d.Name, d.Quiesce)); err != nil {
		return backup.Snapshot{}, err
	}
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	vm, err := f.vm(d.MOID)
	if err != nil {
		return backup.Snapshot{}, err
	}
	if s, ok := vm.taken[d.Name]; ok && vm.snapshots[d.Name] != nil {
		return s, nil
	}
	s := backup.Snapshot{MOID: d.MOID, Ref: "ref of " + d.Name, Name: d.Name, CreatedAt: f.now(), Quiesced: d.Quiesce && vm.PowerState == backup.PoweredOn && !vm.noTools}
	vm.takenWhile = vm.PowerState
	held := map[int32][]byte{}
	for _, disk := range vm.Disks {
		if disk.Unprotectable == "" {
			held[disk.Key] = slices.Clone(vm.disks[disk.Key])
			s.Disks = append(s.Disks, backup.DiskDraft{Key: disk.Key, Label: disk.Label, Capacity: disk.Capacity, ChangeID: f.cbt.id(), File: disk.File})
		}
	}
	vm.snapshots[d.Name] = held
	if vm.taken == nil {
		vm.taken = map[string]backup.Snapshot{}
	}
	vm.taken[d.Name] = s
	f.cbt.seq++
	return s, nil
}

func (f *fakeVSphere) Power(ctx context.Context, moid string) (backup.Power, error) {
	if err := f.pass(ctx, "Power", moid); err != nil {
		return backup.Power{}, err
	}
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	vm, err := f.vm(moid)
	if err != nil {
		return backup.Power{}, err
	}
	on := vm.PowerState == backup.PoweredOn
	return backup.Power{State: vm.PowerState, BootedAt: vm.bootedAt, Tools: on && !vm.noTools}, nil
}

// ShutDownGuest turns the VM off, unless it hangs: then it waits for its caller's patience.
func (f *fakeVSphere) ShutDownGuest(ctx context.Context, moid string) error {
	lingers := false
	f.with(moid, func(vm *fakeVM) {
		if vm != nil {
			lingers, vm.noTools = vm.lingers, vm.noTools || vm.lingers
		}
	})
	if err := f.pass(ctx, "ShutDownGuest", moid); err != nil {
		return err
	}
	if lingers {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.turn(moid, false)
}

func (f *fakeVSphere) SetPower(ctx context.Context, moid string, on bool) error {
	if err := f.pass(ctx, "SetPower", fmt.Sprintf("%s on=%t", moid, on)); err != nil {
		return err
	}
	return f.turn(moid, on)
}

func (f *fakeVSphere) turn(moid string, on bool) error {
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	vm, err := f.vm(moid)
	if err != nil {
		return err
	}
	if on && vm.PowerState != backup.PoweredOn {
		vm.PowerState, vm.bootedAt = backup.PoweredOn, f.now()
	}
	if !on {
		vm.PowerState = backup.PoweredOff
	}
	return nil
}

func (f *fakeVSphere) RemoveSnapshot(ctx context.Context, moid, name string) error {
	if err := f.pass(ctx, "RemoveSnapshot", name); err != nil {
		return err
	}
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	if vm := f.vms[moid]; vm != nil {
		delete(vm.snapshots, name)
	}
	return nil
}

// Sweep removes as the real one does: by installation, and after it has listed.
func (f *fakeVSphere) Sweep(ctx context.Context, installation string, alive func(job string, attempt int) bool) ([]string, error) {
	if err := f.pass(ctx, "Sweep", installation); err != nil {
		return nil, err
	}
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	dead := func(marker string) bool {
		part := strings.Split(marker, ":")
		if len(part) != 4 || part[0] != "kura" || part[1] != installation {
			return false
		}
		var attempt int
		_, err := fmt.Sscan(part[3], &attempt)
		return err == nil && !alive(part[2], attempt)
	}
	var lines []string
	for moid, vm := range f.vms {
		for name := range vm.snapshots {
			if dead(name) {
				delete(vm.snapshots, name)
				lines = append(lines, "snapshot "+name)
			}
		}
		if vm.marker != "" && dead(vm.marker) {
			delete(f.vms, moid)
			lines = append(lines, "VM "+vm.marker)
		}
	}
	return lines, nil
}

// snapshotsOf lists the names of a VM's snapshots.
func (f *fakeVSphere) snapshotsOf(moid string) []string {
	var names []string
	f.with(moid, func(vm *fakeVM) {
		for n := range vm.snapshots {
			names = append(names, n)
		}
	})
	slices.Sort(names)
	return names
}

func (f *fakeVSphere) ReadDisks(ctx context.Context, s backup.Snapshot, r backup.ReadDraft) (backup.DiskSource, error) {
	if err := f.pass(ctx, "ReadDisks", fmt.Sprint(r.Keys)); err != nil {
		return nil, err
	}
	var held map[int32][]byte
	var areas bool
	f.with(s.MOID, func(vm *fakeVM) { held, areas = vm.snapshots[s.Name], f.cbt.areas })
	switch {
	case areas && r.Areas:
		return fakeAreas{&fakeSource{f, held}}, nil
	case r.OnlyAreas:
		return nil, backup.ErrNoAreas
	}
	return &fakeSource{f, held}, nil
}

type fakeSource struct {
	f    *fakeVSphere
	held map[int32][]byte
}

func (s *fakeSource) Transport() backup.Transport { return backup.TransportNFC }

func (s *fakeSource) CanReadAreas() bool { return false }

func (s *fakeSource) ReadAreas(context.Context, int32, iter.Seq[backup.Extent], io.WriterAt) (int64, error) {
	return 0, errors.New("the fake sends whole disks")
}

// ReadDisk sends the disk in quarters, with a point before each.
func (s *fakeSource) ReadDisk(ctx context.Context, key int32, w io.WriterAt) (int64, error) {
	content, ok := s.held[key]
	if !ok {
		return 0, fmt.Errorf("disk %d is not in the snapshot", key)
	}
	quarter := len(content) / 4
	for i := range 4 {
		if err := s.f.pass(ctx, "ReadDisk", fmt.Sprintf("%d quarter=%d", key, i)); err != nil {
			return 0, err
		}
		if _, err := w.WriteAt(content[i*quarter:(i+1)*quarter], int64(i*quarter)); err != nil {
			return 0, err
		}
	}
	return int64(len(content)), nil
}

func (s *fakeSource) Close(ctx context.Context) error { return s.f.pass(ctx, "CloseDisks", "") }
