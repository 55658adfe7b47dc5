package lab

import (
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

var routerRef = ref{Type: "KuraLab", Value: "router"}

// router is the object that vcsim calls for the methods which the lab takes
// over. What Registry.Handler returns is of no use for that: a logged-in
// session replaces it by what method.This names. But Handler may change that
// name, and the request's body keeps the object that was meant.
type router struct {
	Self ref
	l    *Lab
}

func (r *router) Reference() ref { return r.Self }

// Lock and Unlock opt out of vcsim's lock for each object: the lab locks what a call is about.
func (r *router) Lock()   {}
func (r *router) Unlock() {}

var _ sync.Locker = (*router)(nil)

// routed lists, by kind of object, the methods that the lab takes over.
var routed = map[string][]string{
	"VirtualMachine": {
		"CreateSnapshot_Task", "CreateSnapshotEx_Task", "RemoveAllSnapshots_Task", "RevertToCurrentSnapshot_Task",
		"ConsolidateVMDisks_Task", "QueryChangedDiskAreas", "ReconfigVM_Task", "PowerOnVM_Task", "PowerOffVM_Task",
		"ShutdownGuest", "CloneVM_Task", "Destroy_Task", "UnregisterVM",
	},
	"VirtualMachineSnapshot": {"RemoveSnapshot_Task", "RevertToSnapshot_Task", "ExportSnapshot"},
	"ResourcePool":           {"ImportVApp"},
	"Folder":                 {"CreateVM_Task"},
	"VirtualDiskManager": {
		"CreateVirtualDisk_Task", "MoveVirtualDisk_Task", "CopyVirtualDisk_Task", "DeleteVirtualDisk_Task",
		"ExtendVirtualDisk_Task", "SetVirtualDiskUuid", "QueryVirtualDiskUuid",
	},
	"FileManager": {"MoveDatastoreFile_Task", "DeleteDatastoreFile_Task"},
	"Datastore":   {"RefreshDatastore"},
	"SearchIndex": {"FindAllByUuid", "FindByUuid", "FindChild", "FindByInventoryPath"},
	"ViewManager": {"CreateContainerView"},

	"AuthorizationManager": {"HasPrivilegeOnEntities"},
	"ServiceInstance":      {"CurrentTime"},
	"PerformanceManager":   {"QueryPerf"},
	"HostDateTimeSystem":   {"QueryDateTime"},
}

// handle sees every call before vcsim does.
func (l *Lab) handle(ctx *simulator.Context, m *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	if ctx.Session == nil {
		return nil, nil
	}
	resolve(ctx, m)
	if m.Name != "Login" {
		l.sessions.note(ctx)
	}
	a := l.askedOf(m)
	if f := l.faults.call(a); f != nil {
		l.pause(f.Delay)
		return nil, f.kind.fault()
	}
	ours := false
	for _, name := range routed[m.This.Type] {
		ours = ours || name == m.Name
	}
	if !ours {
		if strings.HasSuffix(m.Name, "_Task") {
			l.journal.end(l.journal.begin(m.Name, m.This, a.name), nil)
		}
		return nil, nil
	}
	if ctx.Map.Get(m.This) != nil {
		m.This = routerRef
	}
	return nil, nil
}

// askedOf finds the VM that a call is about.
func (l *Lab) askedOf(m *simulator.Method) asked {
	a := asked{method: m.Name, vm: m.This}
	if s := l.snapshot(m.This); s != nil {
		a.vm = s.vm
	}
	a.name = l.nameOf(a.vm)
	return a
}

// vmJob is a task about a VM.
func (l *Lab) vmJob(ctx *simulator.Context, vm ref, method, name string, run func(*simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault)) job {
	object, ok := ctx.Map.Get(vm).(*simulator.VirtualMachine)
	j := job{method: method, name: name, object: vm, asked: asked{method: method, vm: vm, name: l.nameOf(vm)}}
	if ok {
		j.object = object
	}
	j.run = func() (types.AnyType, types.BaseMethodFault) {
		if !ok || ctx.Map.Get(vm) == nil {
			return nil, &types.ManagedObjectNotFound{Obj: vm}
		}
		defer l.stun(vm)()
		unshare(object)
		defer l.measure(ctx, object)
		return run(object)
	}
	return j
}

func (r *router) CreateSnapshotTask(ctx *simulator.Context, q *types.CreateSnapshot_Task) soap.HasFault {
	ex := &types.CreateSnapshotEx_Task{This: q.This, Name: q.Name, Description: q.Description, Memory: q.Memory}
	if q.Quiesce {
		ex.QuiesceSpec = &types.VirtualMachineGuestQuiesceSpec{}
	}
	t := r.l.createSnapshot(ctx, "CreateSnapshot_Task", ex)
	return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: t}}
}

func (r *router) CreateSnapshotExTask(ctx *simulator.Context, q *types.CreateSnapshotEx_Task) soap.HasFault {
	t := r.l.createSnapshot(ctx, "CreateSnapshotEx_Task", q)
	return &methods.CreateSnapshotEx_TaskBody{Res: &types.CreateSnapshotEx_TaskResponse{Returnval: t}}
}

func (r *router) RemoveSnapshotTask(ctx *simulator.Context, q *types.RemoveSnapshot_Task) soap.HasFault {
	t := r.l.removeSnapshot(ctx, q)
	return &methods.RemoveSnapshot_TaskBody{Res: &types.RemoveSnapshot_TaskResponse{Returnval: t}}
}

func (r *router) RemoveAllSnapshotsTask(ctx *simulator.Context, q *types.RemoveAllSnapshots_Task) soap.HasFault {
	t := r.l.removeAllSnapshots(ctx, q)
	return &methods.RemoveAllSnapshots_TaskBody{Res: &types.RemoveAllSnapshots_TaskResponse{Returnval: t}}
}

func (r *router) RevertToSnapshotTask(ctx *simulator.Context, q *types.RevertToSnapshot_Task) soap.HasFault {
	t := r.l.revert(ctx, "RevertToSnapshot_Task", q.This)
	return &methods.RevertToSnapshot_TaskBody{Res: &types.RevertToSnapshot_TaskResponse{Returnval: t}}
}

func (r *router) RevertToCurrentSnapshotTask(ctx *simulator.Context, q *types.RevertToCurrentSnapshot_Task) soap.HasFault {
	body := new(methods.RevertToCurrentSnapshot_TaskBody)
	vm, ok := ctx.Map.Get(q.This).(*simulator.VirtualMachine)
	var current *ref
	if ok {
		ctx.WithLock(vm, func() {
			if vm.Snapshot != nil {
				current = vm.Snapshot.CurrentSnapshot
			}
		})
	}
	if current == nil {
		body.Fault_ = simulator.Fault("the VM has no snapshot", &types.NotFound{})
		return body
	}
	t := r.l.revert(ctx, "RevertToCurrentSnapshot_Task", *current)
	body.Res = &types.RevertToCurrentSnapshot_TaskResponse{Returnval: t}
	return body
}

func (r *router) ConsolidateVMDisksTask(ctx *simulator.Context, q *types.ConsolidateVMDisks_Task) soap.HasFault {
	t := r.l.consolidate(ctx, q)
	return &methods.ConsolidateVMDisks_TaskBody{Res: &types.ConsolidateVMDisks_TaskResponse{Returnval: t}}
}

func (r *router) ReconfigVMTask(ctx *simulator.Context, q *types.ReconfigVM_Task) soap.HasFault {
	t := r.l.reconfigure(ctx, q)
	return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: t}}
}

func (r *router) CreateVMTask(ctx *simulator.Context, q *types.CreateVM_Task) soap.HasFault {
	t := r.l.start(ctx, job{
		method: "CreateVM_Task", name: "createVm", object: q.This, open: true,
		asked: asked{method: "CreateVM_Task", name: q.Config.Name},
		run:   func() (types.AnyType, types.BaseMethodFault) { return r.l.createVM(ctx, q, false) },
	})
	return &methods.CreateVM_TaskBody{Res: &types.CreateVM_TaskResponse{Returnval: t}}
}

func (r *router) CloneVMTask(ctx *simulator.Context, q *types.CloneVM_Task) soap.HasFault {
	t := r.l.clone(ctx, q)
	return &methods.CloneVM_TaskBody{Res: &types.CloneVM_TaskResponse{Returnval: t}}
}

func (r *router) DestroyTask(ctx *simulator.Context, q *types.Destroy_Task) soap.HasFault {
	t := r.l.start(ctx, r.l.destroyJob(ctx, q.This))
	return &methods.Destroy_TaskBody{Res: &types.Destroy_TaskResponse{Returnval: t}}
}

func (r *router) UnregisterVM(ctx *simulator.Context, q *types.UnregisterVM) soap.HasFault {
	return r.l.unregister(ctx, q)
}

func (r *router) PowerOnVMTask(ctx *simulator.Context, q *types.PowerOnVM_Task) soap.HasFault {
	t := r.l.start(ctx, r.l.powerJob(ctx, q.This, true))
	return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: t}}
}

func (r *router) PowerOffVMTask(ctx *simulator.Context, q *types.PowerOffVM_Task) soap.HasFault {
	t := r.l.start(ctx, r.l.powerJob(ctx, q.This, false))
	return &methods.PowerOffVM_TaskBody{Res: &types.PowerOffVM_TaskResponse{Returnval: t}}
}

func (r *router) ShutdownGuest(ctx *simulator.Context, q *types.ShutdownGuest) soap.HasFault {
	body := new(methods.ShutdownGuestBody)
	if f := r.l.shutDown(ctx, q.This); f != nil {
		body.Fault_ = simulator.Fault("the guest cannot be shut down", f)
		return body
	}
	body.Res = new(types.ShutdownGuestResponse)
	return body
}

func (r *router) RefreshDatastore(_ *simulator.Context, _ *types.RefreshDatastore) soap.HasFault {
	r.l.showSpace()
	return &methods.RefreshDatastoreBody{Res: new(types.RefreshDatastoreResponse)}
}
