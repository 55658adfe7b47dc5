package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// fileJob is a task of the disk or file manager about one disk file.
func (r *router) fileJob(ctx *simulator.Context, manager ref, method, file string, run func() types.BaseMethodFault) ref {
	owner, _ := r.l.index.owner(file)
	name := strings.ToLower(method[:1]) + strings.TrimSuffix(method[1:], "_Task")
	return r.l.start(ctx, job{
		method: method, name: name, object: manager, asked: asked{method: method, vm: owner.ref, name: owner.Name}, open: true,
		run: func() (types.AnyType, types.BaseMethodFault) {
			r.l.filing.Lock()
			defer r.l.filing.Unlock()
			return nil, run()
		},
	})
}

// free returns a disk file that nobody uses, or says why there is none.
func (l *Lab) free(file string) (*link, types.BaseMethodFault) {
	k := l.store.get(file)
	if k == nil {
		return nil, &types.FileNotFound{FileFault: types.FileFault{File: file}}
	}
	if k.hasKids() || l.holds(k) {
		return nil, &types.FileLocked{FileFault: types.FileFault{File: file}}
	}
	return k, nil
}

// idle is free and, besides, not attached to a VM that runs.
func (l *Lab) idle(file string) (*link, types.BaseMethodFault) {
	k, fault := l.free(file)
	if fault == nil {
		if v, ok := l.index.owner(file); ok && v.PowerState == string(types.VirtualMachinePowerStatePoweredOn) {
			return nil, &types.FileLocked{FileFault: types.FileFault{File: file}}
		}
	}
	return k, fault
}

func (l *Lab) exists(file string) bool {
	if l.store.get(file) != nil {
		return true
	}
	name, err := l.store.local(file)
	if err == nil {
		_, err = os.Stat(name)
	}
	return err == nil
}

func (r *router) CreateVirtualDiskTask(ctx *simulator.Context, q *types.CreateVirtualDisk_Task) soap.HasFault {
	t := r.fileJob(ctx, q.This, "CreateVirtualDisk_Task", q.Name, func() types.BaseMethodFault {
		spec, ok := q.Spec.(types.BaseFileBackedVirtualDiskSpec)
		if !ok {
			return &types.InvalidArgument{InvalidProperty: "spec"}
		}
		return r.l.createDisk(q.Name, spec.GetFileBackedVirtualDiskSpec().CapacityKb*1024)
	})
	return &methods.CreateVirtualDisk_TaskBody{Res: &types.CreateVirtualDisk_TaskResponse{Returnval: t}}
}

func (l *Lab) createDisk(file string, capacity int64) types.BaseMethodFault {
	if l.exists(file) {
		return &types.FileAlreadyExists{FileFault: types.FileFault{File: file}}
	}
	sp, _, err := l.store.spaceOf(file)
	if err != nil {
		return &types.InvalidDatastorePath{DatastorePath: file}
	}
	k := newDisk(l.store.heap, capacity, nil, sp)
	k.uuid = newDiskUUID()
	l.store.put(file, k)
	if err := l.store.describe(k); err != nil {
		return systemError(err)
	}
	return nil
}

func (r *router) MoveVirtualDiskTask(ctx *simulator.Context, q *types.MoveVirtualDisk_Task) soap.HasFault {
	t := r.fileJob(ctx, q.This, "MoveVirtualDisk_Task", q.SourceName, func() types.BaseMethodFault {
		return r.l.moveDisk(q.SourceName, q.DestName, q.Force != nil && *q.Force)
	})
	return &methods.MoveVirtualDisk_TaskBody{Res: &types.MoveVirtualDisk_TaskResponse{Returnval: t}}
}

// moveDisk renames a disk file; its content goes along. To another datastore it moves as well.
func (l *Lab) moveDisk(from, to string, force bool) types.BaseMethodFault {
	k, fault := l.idle(from)
	if fault != nil {
		return fault
	}
	if from == to {
		return nil
	}
	sp, _, err := l.store.spaceOf(to)
	if err != nil {
		return &types.InvalidDatastorePath{DatastorePath: to}
	}
	if l.exists(to) {
		if !force {
			return &types.FileAlreadyExists{FileFault: types.FileFault{File: to}}
		}
		if fault := l.deleteDisk(to); fault != nil {
			return fault
		}
	}
	if k.parentLink() != nil && sp != k.space {
		return &types.NotSupported{} // the chain stays on one datastore
	}
	k.disk.mu.Lock()
	n := k.count
	k.give(n)
	k.space = sp
	k.take(n)
	k.disk.mu.Unlock()
	if old, err := l.store.local(from); err == nil {
		// The flat file holds nothing; vcsim may never have made it.
		_ = os.Remove(old)
		_ = os.Remove(flatName(old))
	}
	l.store.put(to, k)
	if err := l.store.describe(k); err != nil {
		return systemError(err)
	}
	return nil
}

func (r *router) CopyVirtualDiskTask(ctx *simulator.Context, q *types.CopyVirtualDisk_Task) soap.HasFault {
	t := r.fileJob(ctx, q.This, "CopyVirtualDisk_Task", q.SourceName, func() types.BaseMethodFault {
		return r.l.copyDisk(q.SourceName, q.DestName, q.Force != nil && *q.Force)
	})
	return &methods.CopyVirtualDisk_TaskBody{Res: &types.CopyVirtualDisk_TaskResponse{Returnval: t}}
}

func (l *Lab) copyDisk(from, to string, force bool) types.BaseMethodFault {
	src := l.store.get(from)
	if src == nil {
		return &types.FileNotFound{FileFault: types.FileFault{File: from}}
	}
	if force && l.exists(to) {
		if fault := l.deleteDisk(to); fault != nil {
			return fault
		}
	}
	src.disk.mu.RLock()
	capacity := src.disk.capacity
	src.disk.mu.RUnlock()
	if fault := l.createDisk(to, capacity); fault != nil {
		return fault
	}
	if err := src.copyTo(l.store.get(to)); err != nil {
		return systemError(err)
	}
	return nil
}

func (r *router) DeleteVirtualDiskTask(ctx *simulator.Context, q *types.DeleteVirtualDisk_Task) soap.HasFault {
	t := r.fileJob(ctx, q.This, "DeleteVirtualDisk_Task", q.Name, func() types.BaseMethodFault { return r.l.deleteDisk(q.Name) })
	return &methods.DeleteVirtualDisk_TaskBody{Res: &types.DeleteVirtualDisk_TaskResponse{Returnval: t}}
}

// deleteDisk deletes a disk file, unless a VM has it attached.
func (l *Lab) deleteDisk(file string) types.BaseMethodFault {
	k, fault := l.free(file)
	if fault != nil {
		return fault
	}
	if _, ok := l.index.owner(file); ok {
		return &types.FileLocked{FileFault: types.FileFault{File: file}}
	}
	l.eraseChains([]*link{k})
	return nil
}

func (r *router) ExtendVirtualDiskTask(ctx *simulator.Context, q *types.ExtendVirtualDisk_Task) soap.HasFault {
	t := r.fileJob(ctx, q.This, "ExtendVirtualDisk_Task", q.Name, func() types.BaseMethodFault {
		k, fault := r.l.idle(q.Name)
		if fault != nil {
			return fault
		}
		k.disk.mu.Lock()
		k.disk.grow(q.NewCapacityKb * 1024)
		k.disk.mu.Unlock()
		return nil
	})
	return &methods.ExtendVirtualDisk_TaskBody{Res: &types.ExtendVirtualDisk_TaskResponse{Returnval: t}}
}

func (r *router) SetVirtualDiskUuid(ctx *simulator.Context, q *types.SetVirtualDiskUuid) soap.HasFault {
	body := new(methods.SetVirtualDiskUuidBody)
	fault := r.l.setDiskUUID(ctx, q.Name, q.Uuid)
	r.l.journal.end(r.l.journal.begin("SetVirtualDiskUuid", q.This, q.Name), fault)
	if fault != nil {
		body.Fault_ = simulator.Fault(faultName(fault), fault)
		return body
	}
	body.Res = new(types.SetVirtualDiskUuidResponse)
	return body
}

// setDiskUUID gives a disk file a UUID, and shows it where the disk is attached.
func (l *Lab) setDiskUUID(ctx *simulator.Context, file, id string) types.BaseMethodFault {
	parsed, err := uuid.Parse(hexOf(id))
	if err != nil {
		return &types.InvalidArgument{InvalidProperty: "uuid"}
	}
	k, fault := l.idle(file)
	if fault != nil {
		return fault
	}
	k.disk.mu.Lock()
	k.uuid = parsed.String()
	k.disk.mu.Unlock()
	if v, ok := l.index.owner(file); ok {
		if vm, ok := ctx.Map.Get(v.ref).(*simulator.VirtualMachine); ok {
			ctx.WithLock(vm, func() {
				unshare(vm)
				fault = l.afterDisks(ctx, vm)
			})
		}
	}
	return fault
}

// hexOf strips what separates the digits of a UUID in its various forms.
func hexOf(id string) string { return strings.NewReplacer(" ", "", "-", "").Replace(id) }

func (r *router) QueryVirtualDiskUuid(_ *simulator.Context, q *types.QueryVirtualDiskUuid) soap.HasFault {
	k := r.l.store.get(q.Name)
	if k == nil {
		return &methods.QueryVirtualDiskUuidBody{Fault_: simulator.Fault("no such disk", &types.FileNotFound{FileFault: types.FileFault{File: q.Name}})}
	}
	k.disk.mu.RLock()
	id := hexOf(k.uuid)
	k.disk.mu.RUnlock()
	return &methods.QueryVirtualDiskUuidBody{Res: &types.QueryVirtualDiskUuidResponse{Returnval: vmwareUUID(id)}}
}

// vmwareUUID writes 32 hexadecimal digits as the disk manager does: 60 00 c2 ... -...
func vmwareUUID(digits string) string {
	var b strings.Builder
	for i := 0; i+1 < len(digits); i += 2 {
		switch i {
		case 0:
		case 16:
			b.WriteByte('-')
		default:
			b.WriteByte(' ')
		}
		b.WriteString(digits[i : i+2])
	}
	return b.String()
}

func (r *router) MoveDatastoreFileTask(ctx *simulator.Context, q *types.MoveDatastoreFile_Task) soap.HasFault {
	t := r.fileJob(ctx, q.This, "MoveDatastoreFile_Task", q.SourceName, func() types.BaseMethodFault {
		force := q.Force != nil && *q.Force
		if r.l.store.get(q.SourceName) != nil {
			return r.l.moveDisk(q.SourceName, q.DestinationName, force)
		}
		return r.l.moveFile(q.SourceName, q.DestinationName, force)
	})
	return &methods.MoveDatastoreFile_TaskBody{Res: &types.MoveDatastoreFile_TaskResponse{Returnval: t}}
}

func (l *Lab) moveFile(from, to string, force bool) types.BaseMethodFault {
	src, err := l.store.local(from)
	if err != nil {
		return &types.InvalidDatastorePath{DatastorePath: from}
	}
	dst, err := l.store.local(to)
	if err != nil {
		return &types.InvalidDatastorePath{DatastorePath: to}
	}
	if !force && l.exists(to) {
		return &types.FileAlreadyExists{FileFault: types.FileFault{File: to}}
	}
	if err := os.Rename(src, dst); err != nil {
		return &types.CannotAccessFile{FileFault: types.FileFault{File: from}}
	}
	return nil
}

func (r *router) DeleteDatastoreFileTask(ctx *simulator.Context, q *types.DeleteDatastoreFile_Task) soap.HasFault {
	t := r.fileJob(ctx, q.This, "DeleteDatastoreFile_Task", q.Name, func() types.BaseMethodFault {
		if r.l.store.get(q.Name) != nil {
			return r.l.deleteDisk(q.Name)
		}
		return r.l.deleteFile(q.Name)
	})
	return &methods.DeleteDatastoreFile_TaskBody{Res: &types.DeleteDatastoreFile_TaskResponse{Returnval: t}}
}

// deleteFile deletes a file or a folder with the disks in it.
func (l *Lab) deleteFile(file string) types.BaseMethodFault {
	name, err := l.store.local(file)
	if err != nil {
		return &types.InvalidDatastorePath{DatastorePath: file}
	}
	if _, err := os.Stat(name); err != nil {
		return &types.FileNotFound{FileFault: types.FileFault{File: file}}
	}
	for _, k := range l.store.under(strings.TrimSuffix(file, "/")) {
		if fault := l.deleteDisk(l.store.pathOf(k)); fault != nil {
			return fault
		}
	}
	if err := os.RemoveAll(filepath.Clean(name)); err != nil {
		return systemError(fmt.Errorf("delete %s: %w", file, err))
	}
	return nil
}
