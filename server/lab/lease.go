package lab

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// leasePath is where the bytes of leases are served.
const leasePath = "/nfc/"

// lease is an NFC lease of the lab's own: vcsim's keeps no bytes, no time and no state.
type lease struct {
	mo.HttpNfcLease
	l      *Lab
	ticket string // names the lease in its URLs; whoever knows it needs no session
	vm     ref
	snap   *ref // nil: an import
	vmName string
	done   chan struct{} // closed at the end, which breaks running streams

	mu    sync.Mutex // guards all below
	disks map[string]leaseDisk
	sums  []types.HttpNfcLeaseManifestEntry
	timer *time.Timer
	ended bool
}

// leaseDisk is a disk that a lease gives or takes.
type leaseDisk struct {
	key  string
	link *link
}

// leases are those that live.
type leases struct {
	mu   sync.Mutex // guards all below
	live map[string]*lease
	n    int
}

func (l *Lab) newLease(ctx *simulator.Context, vm ref, name string, snap *ref) *lease {
	s := &l.leases
	le := &lease{l: l, ticket: uuid.NewString(), vm: vm, vmName: name, snap: snap, done: make(chan struct{}), disks: map[string]leaseDisk{}}
	s.mu.Lock()
	if s.live == nil {
		s.live = map[string]*lease{}
	}
	s.n++
	le.Self = ref{Type: "HttpNfcLease", Value: fmt.Sprintf("session[lab]lease-%d", s.n)}
	s.live[le.ticket] = le
	s.mu.Unlock()
	le.State = types.HttpNfcLeaseStateInitializing
	le.Mode = string(types.HttpNfcLeaseModePushOrGet)
	le.Capabilities = types.HttpNfcLeaseCapabilities{PullModeSupported: true}
	ctx.Map.Put(le)
	return le
}

func (s *leases) get(ticket string) *lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[ticket]
}

func (s *leases) all() (list []*lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, le := range s.live {
		list = append(list, le)
	}
	return list
}

// holds says whether an export of the snapshot goes on.
func (s *leases) holds(snap ref) bool {
	return slices.ContainsFunc(s.all(), func(le *lease) bool { return le.snap != nil && *le.snap == snap })
}

// abortOf ends the exports of a snapshot that goes.
func (s *leases) abortOf(ctx *simulator.Context, snap ref) {
	for _, le := range s.all() {
		if le.snap != nil && *le.snap == snap {
			le.end(ctx, &types.ManagedObjectNotFound{Obj: snap})
		}
	}
}

// close ends all leases without a word to vcsim.
func (s *leases) close() {
	for _, le := range s.all() {
		le.stop()
	}
}

// open makes the lease ready with the disks of a device list.
func (le *lease) open(ctx *simulator.Context, list object.VirtualDeviceList, links map[int32]*link) {
	info := types.HttpNfcLeaseInfo{Lease: le.Self, Entity: le.vm, LeaseTimeout: int32(max(le.l.config.LeaseTimeout.Seconds(), 1))}
	le.mu.Lock()
	for _, dev := range list {
		d, b := diskOf(dev)
		if b == nil || links[d.Key] == nil {
			continue
		}
		name := fmt.Sprintf("disk-%d.vmdk", len(info.DeviceUrl))
		slot := deviceSlot(list, d)
		key := "/" + le.vm.Value + "/" + slot
		le.disks[name] = leaseDisk{key: key, link: links[d.Key]}
		info.TotalDiskCapacityInKB += d.CapacityInKB
		info.DeviceUrl = append(info.DeviceUrl, types.HttpNfcLeaseDeviceUrl{
			Key: key, ImportKey: "/" + le.vmName + "/" + slot, Url: le.l.leaseURL(le.ticket, name),
			SslThumbprint: le.l.ThumbprintSHA1(), Disk: types.NewBool(true), TargetId: name, FileSize: 0,
		})
	}
	le.timer = time.AfterFunc(le.l.config.LeaseTimeout, le.expire)
	le.mu.Unlock()
	ctx.WithLock(le, func() {
		ctx.Update(le, []types.PropertyChange{{Name: "info", Val: info}, {Name: "state", Val: types.HttpNfcLeaseStateReady}})
	})
}

// deviceSlot names a disk's place as vSphere does in leases: VirtualLsiLogicController0:1.
func deviceSlot(list object.VirtualDeviceList, d *types.VirtualDisk) string {
	c, ok := list.FindByKey(d.ControllerKey).(types.BaseVirtualController)
	if !ok || d.UnitNumber == nil {
		return fmt.Sprintf("VirtualDisk:%d", d.Key)
	}
	class := reflect.TypeOf(c).Elem().Name()
	return fmt.Sprintf("%s%d:%d", class, c.GetVirtualController().BusNumber, *d.UnitNumber)
}

// stop ends the lease on the lab's side, and says whether it had lived.
func (le *lease) stop() bool {
	le.l.leases.mu.Lock()
	delete(le.l.leases.live, le.ticket)
	le.l.leases.mu.Unlock()
	le.mu.Lock()
	defer le.mu.Unlock()
	if le.ended {
		return false
	}
	le.ended = true
	close(le.done)
	if le.timer != nil {
		le.timer.Stop()
	}
	return true
}

// end stops the lease in an error; a half imported VM goes with it.
func (le *lease) end(ctx *simulator.Context, fault types.BaseMethodFault) {
	if !le.stop() {
		return
	}
	ctx.WithLock(le, func() {
		ctx.Update(le, []types.PropertyChange{
			{Name: "state", Val: types.HttpNfcLeaseStateError},
			{Name: "error", Val: types.LocalizedMethodFault{Fault: fault, LocalizedMessage: faultName(fault)}},
		})
	})
	if vm := le.machine(); le.snap == nil && vm != (ref{}) {
		le.l.destroyNow(ctx, vm)
	}
}

// machine is the VM that the lease is about; an import has none at first.
func (le *lease) machine() ref {
	le.mu.Lock()
	defer le.mu.Unlock()
	return le.vm
}

// destroyNow removes a half imported VM within the call that gives it up.
func (l *Lab) destroyNow(ctx *simulator.Context, vm ref) {
	j := l.destroyJob(ctx, vm)
	entry := l.journal.begin(j.method, vm, l.nameOf(vm))
	_, fault := l.do(ctx, j)
	l.journal.end(entry, fault)
}

// expire is what a lease without progress comes to.
func (le *lease) expire() {
	select {
	case <-le.l.closing:
	default:
		le.l.work.Go(func() { le.end(le.l.context(), &types.Timedout{}) })
	}
}

// ExpireLeases lets time pass for all leases: those that nobody keeps alive end.
func (l *Lab) ExpireLeases() {
	l.leases.mu.Lock()
	live := slices.Collect(maps.Values(l.leases.live))
	l.leases.mu.Unlock()
	for _, le := range live {
		le.expire()
	}
}

// fail notes what went wrong in an upload. The client still has to abort.
func (le *lease) fail(fault types.BaseMethodFault) {
	ctx := le.l.context()
	ctx.WithLock(le, func() {
		ctx.Update(le, []types.PropertyChange{
			{Name: "state", Val: types.HttpNfcLeaseStateError},
			{Name: "error", Val: types.LocalizedMethodFault{Fault: fault, LocalizedMessage: faultName(fault)}},
		})
	})
}

func (le *lease) over() bool {
	le.mu.Lock()
	defer le.mu.Unlock()
	return le.ended
}

// HttpNfcLeaseProgress keeps the lease alive.
func (le *lease) HttpNfcLeaseProgress(_ *simulator.Context, q *types.HttpNfcLeaseProgress) soap.HasFault {
	le.mu.Lock()
	defer le.mu.Unlock()
	if le.ended {
		return &methods.HttpNfcLeaseProgressBody{Fault_: simulator.Fault("The lease has timed out.", &types.Timedout{})}
	}
	le.TransferProgress = q.Percent
	if le.timer != nil {
		le.timer.Reset(le.l.config.LeaseTimeout)
	}
	return &methods.HttpNfcLeaseProgressBody{Res: new(types.HttpNfcLeaseProgressResponse)}
}

// HttpNfcLeaseComplete ends the lease well.
func (le *lease) HttpNfcLeaseComplete(ctx *simulator.Context, _ *types.HttpNfcLeaseComplete) soap.HasFault {
	if !le.stop() {
		return &methods.HttpNfcLeaseCompleteBody{Fault_: simulator.Fault("The lease is not alive.", &types.InvalidState{})}
	}
	machine := le.machine()
	le.l.journal.end(le.l.journal.begin("HttpNfcLeaseComplete", machine, le.vmName), nil)
	ctx.Update(le, []types.PropertyChange{{Name: "state", Val: types.HttpNfcLeaseStateDone}})
	if vm, ok := ctx.Map.Get(machine).(*simulator.VirtualMachine); ok && le.snap == nil {
		ctx.WithLock(vm, func() { le.l.measure(ctx, vm) })
	}
	ctx.Map.Remove(ctx, le.Self)
	return &methods.HttpNfcLeaseCompleteBody{Res: new(types.HttpNfcLeaseCompleteResponse)}
}

// HttpNfcLeaseAbort ends the lease; of an import nothing stays.
func (le *lease) HttpNfcLeaseAbort(ctx *simulator.Context, q *types.HttpNfcLeaseAbort) soap.HasFault {
	var fault types.BaseMethodFault = &types.RequestCanceled{}
	if q.Fault != nil && q.Fault.Fault != nil {
		fault = q.Fault.Fault
	}
	le.l.journal.end(le.l.journal.begin("HttpNfcLeaseAbort", le.machine(), le.vmName), nil)
	le.end(ctx, fault)
	ctx.Map.Remove(ctx, le.Self)
	return &methods.HttpNfcLeaseAbortBody{Res: new(types.HttpNfcLeaseAbortResponse)}
}

// HttpNfcLeaseGetManifest returns the checksums of what was transferred.
func (le *lease) HttpNfcLeaseGetManifest(*simulator.Context, *types.HttpNfcLeaseGetManifest) soap.HasFault {
	le.mu.Lock()
	defer le.mu.Unlock()
	return &methods.HttpNfcLeaseGetManifestBody{Res: &types.HttpNfcLeaseGetManifestResponse{Returnval: slices.Clone(le.sums)}}
}

// ExportSnapshot leases the disks of a snapshot.
func (r *router) ExportSnapshot(ctx *simulator.Context, q *types.ExportSnapshot) soap.HasFault {
	s, o := r.l.snapshot(q.This), ctx.Map.Get(q.This)
	snap, ok := o.(*simulator.VirtualMachineSnapshot)
	if s == nil || !ok {
		return &methods.ExportSnapshotBody{Fault_: simulator.Fault("", &types.ManagedObjectNotFound{Obj: q.This})}
	}
	r.l.journal.end(r.l.journal.begin("ExportSnapshot", q.This, r.l.nameOf(s.vm)), nil)
	le := r.l.newLease(ctx, s.vm, r.l.nameOf(s.vm), &q.This)
	var list object.VirtualDeviceList
	ctx.WithLock(snap, func() { list = slices.Clone(snap.Config.Hardware.Device) })
	r.l.mu.Lock()
	links := make(map[int32]*link, len(s.links))
	for key, k := range s.links {
		links[key] = k
	}
	r.l.mu.Unlock()
	le.open(ctx, list, links)
	return &methods.ExportSnapshotBody{Res: &types.ExportSnapshotResponse{Returnval: le.Self}}
}

// ImportVApp makes a VM with empty disks and a lease that fills them.
func (r *router) ImportVApp(ctx *simulator.Context, q *types.ImportVApp) soap.HasFault {
	spec, ok := q.Spec.(*types.VirtualMachineImportSpec)
	if !ok {
		return &methods.ImportVAppBody{Fault_: simulator.Fault("only single VMs are imported here", &types.NotSupported{})}
	}
	folder := r.l.place.vmFolder
	if q.Folder != nil {
		folder = *q.Folder
	}
	name := spec.ConfigSpec.Name
	le := r.l.newLease(ctx, ref{}, name, nil)
	entry := r.l.journal.begin("ImportVApp", q.This, name)
	r.l.work.Go(func() {
		fault := r.l.importVM(ctx, le, &types.CreateVM_Task{This: folder, Config: spec.ConfigSpec, Pool: q.This, Host: q.Host})
		r.l.journal.end(entry, fault)
		if fault != nil {
			le.end(ctx, fault)
		}
	})
	return &methods.ImportVAppBody{Res: &types.ImportVAppResponse{Returnval: le.Self}}
}

func (l *Lab) importVM(ctx *simulator.Context, le *lease, q *types.CreateVM_Task) types.BaseMethodFault {
	if f := l.faults.task(asked{method: "ImportVApp", name: q.Config.Name}); f != nil {
		l.pause(f.Delay)
		if f.kind.fault != nil {
			return f.kind.fault()
		}
	}
	result, fault := l.createVM(ctx, q, true)
	if fault != nil {
		return fault
	}
	vm := ctx.Map.Get(result.(ref)).(*simulator.VirtualMachine)
	le.mu.Lock()
	le.vm = vm.Self
	ended := le.ended
	le.mu.Unlock()
	if ended { // aborted while the VM was being made
		l.destroyNow(ctx, vm.Self)
		return &types.RequestCanceled{}
	}
	links := map[int32]*link{}
	var list object.VirtualDeviceList
	ctx.WithLock(vm, func() {
		list = slices.Clone(vm.Config.Hardware.Device)
		for _, dev := range list {
			if d, b := diskOf(dev); b != nil {
				links[d.Key] = l.store.get(b.FileName)
			}
		}
	})
	le.open(ctx, list, links)
	return nil
}

// of splits a request's path into the lease and the name of its disk.
func (s *leases) of(path string) (*lease, string) {
	ticket, name, _ := strings.Cut(strings.TrimPrefix(path, leasePath), "/")
	return s.get(ticket), name
}
