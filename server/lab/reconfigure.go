package lab

import (
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// createVM runs in the task of CreateVM_Task and of ImportVApp. The VM's
// disks that are no files yet are made empty.
func (l *Lab) createVM(ctx *simulator.Context, q *types.CreateVM_Task, imported bool) (types.AnyType, types.BaseMethodFault) {
	folder, ok := ctx.Map.Get(q.This).(*simulator.Folder)
	if !ok {
		return nil, &types.ManagedObjectNotFound{Obj: q.This}
	}
	if fault := l.checkPlace(ctx, q); fault != nil {
		return nil, fault
	}
	c := &q.Config
	// vcsim loses devices where it escapes a name: it gets a plain one first.
	name := EscapeName(c.Name)
	c.Name = strings.ReplaceAll(name, "%", "-")
	if c.Uuid == "" {
		c.Uuid = uuid.NewString()
	}
	if c.InstanceUuid == "" {
		c.InstanceUuid = uuid.NewString()
	}
	if imported {
		for _, dc := range c.DeviceChange {
			if s := dc.GetVirtualDeviceConfigSpec(); isFileDisk(s.Device) {
				s.FileOperation = types.VirtualDeviceConfigSpecFileOperationCreate
			}
		}
	}
	l.numberDevices(nil, c.DeviceChange)
	if fault := l.beforeDisks(c.DeviceChange); fault != nil {
		return nil, fault
	}
	vm, show, fault := l.makeVM(ctx, folder, func() ref {
		return folder.CreateVMTask(ctx, q).(*methods.CreateVM_TaskBody).Res.Returnval
	})
	defer show()
	if fault != nil {
		return nil, fault
	}
	if fault = l.afterDisks(ctx, vm); fault == nil {
		l.measure(ctx, vm)
		l.policies.give(vm, c.VmProfile, c.DeviceChange)
	}
	if vm.Name != name {
		l.busy.Lock() // vcsim looks for names without a lock
		ctx.Update(vm, []types.PropertyChange{{Name: "name", Val: name}, {Name: "config.name", Val: name}, {Name: "summary.config.name", Val: name}})
		l.busy.Unlock()
	}
	return vm.Self, fault
}

// EscapeName writes a name as vSphere keeps it: what parts paths is escaped,
// and what is escaped already stays.
func EscapeName(name string) string {
	var b strings.Builder
	for i, c := range name {
		switch {
		case c == '/':
			b.WriteString("%2f")
		case c == '\\':
			b.WriteString("%5c")
		case c == '%' && !escape.MatchString(name[i:]):
			b.WriteString("%25")
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

var escape = regexp.MustCompile(`^%(2[fF]|5[cC]|25)`)

func isFileDisk(d types.BaseVirtualDevice) bool {
	_, b := diskOf(d)
	return b != nil
}

func (l *Lab) reconfigure(ctx *simulator.Context, q *types.ReconfigVM_Task) ref {
	j := l.vmJob(ctx, q.This, "ReconfigVM_Task", "reconfigVm", func(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
		if q.Spec.ChangeVersion != "" && q.Spec.ChangeVersion != vm.Config.ChangeVersion {
			return nil, &types.ConcurrentAccess{}
		}
		if fault := l.checkDevices(q.Spec.DeviceChange); fault != nil {
			return nil, fault
		}
		l.numberDevices(devices(vm), q.Spec.DeviceChange)
		gone := l.destroyedBy(vm, q.Spec.DeviceChange)
		if fault := l.beforeDisks(q.Spec.DeviceChange); fault != nil {
			return nil, fault
		}
		result, fault := l.alone(ctx, func() ref {
			return vm.ReconfigVMTask(ctx, q).(*methods.ReconfigVM_TaskBody).Res.Returnval
		})
		if fault != nil {
			return nil, fault
		}
		if fault := l.afterDisks(ctx, vm); fault != nil {
			return nil, fault
		}
		l.lend(vm.Self, vm.Config.Hardware.Device)
		l.eraseChains(gone)
		l.policies.give(vm, q.Spec.VmProfile, q.Spec.DeviceChange)
		return result, nil
	})
	j.asked.attach = attaches(q.Spec.DeviceChange)
	return l.start(ctx, j)
}

// destroyedBy lists the disk chains that a change deletes along with their device.
func (l *Lab) destroyedBy(vm *simulator.VirtualMachine, changes []types.BaseVirtualDeviceConfigSpec) (list []*link) {
	for _, dc := range changes {
		s := dc.GetVirtualDeviceConfigSpec()
		if s.Operation != types.VirtualDeviceConfigSpecOperationRemove || s.FileOperation != types.VirtualDeviceConfigSpecFileOperationDestroy {
			continue
		}
		if _, b := diskOf(devices(vm).FindByKey(s.Device.GetVirtualDevice().Key)); b != nil {
			if k := l.store.get(b.FileName); k != nil {
				list = append(list, k)
			}
		}
	}
	return list
}

// eraseChains erases links from the top down, as far as nothing else needs them.
func (l *Lab) eraseChains(tops []*link) {
	for _, k := range tops {
		for k != nil {
			parent := k.parentLink()
			if _, used := l.index.owner(l.store.pathOf(k)); used || k.hasKids() || l.holds(k) {
				break
			}
			l.store.erase(k)
			k = parent
		}
	}
}

// beforeDisks fills in what vSphere takes from the file of a disk that is attached.
func (l *Lab) beforeDisks(changes []types.BaseVirtualDeviceConfigSpec) types.BaseMethodFault {
	for _, dc := range changes {
		s := dc.GetVirtualDeviceConfigSpec()
		d, b := diskOf(s.Device)
		if b == nil || s.Operation != types.VirtualDeviceConfigSpecOperationAdd || s.FileOperation != "" {
			continue
		}
		k := l.store.get(b.FileName)
		if k == nil {
			return &types.FileNotFound{FileFault: types.FileFault{File: b.FileName}}
		}
		if owner, ok := l.index.owner(b.FileName); ok && (owner.PowerState == string(types.VirtualMachinePowerStatePoweredOn) || k.hasKids()) {
			return &types.FileLocked{FileFault: types.FileFault{File: b.FileName}}
		}
		k.disk.mu.RLock()
		d.CapacityInBytes, b.Uuid = k.disk.capacity, k.uuid
		k.disk.mu.RUnlock()
		d.CapacityInKB, b.Parent = d.CapacityInBytes/1024, nil
	}
	return nil
}

// afterDisks makes content for the disks that are new, lets disks grow, and
// shows the backings as they are.
func (l *Lab) afterDisks(ctx *simulator.Context, vm *simulator.VirtualMachine) types.BaseMethodFault {
	tops := map[int32]*link{}
	for _, dev := range vm.Config.Hardware.Device {
		d, b := diskOf(dev)
		if b == nil {
			continue
		}
		k := l.store.get(b.FileName)
		if k == nil {
			var err error
			if k, err = l.newFile(b, d.CapacityInBytes); err != nil {
				return systemError(err)
			}
		}
		k.disk.mu.Lock()
		k.disk.grow(d.CapacityInBytes)
		if k.uuid == "" {
			k.uuid = newDiskUUID()
		}
		k.disk.mu.Unlock()
		tops[d.Key] = k
	}
	setDevices(ctx, vm, l.setBackings(vm.Config.Hardware.Device, tops, nil))
	return nil
}

// newFile makes the content of a disk file that vcsim has just created: empty,
// or a redo log over the file that its backing names as parent.
func (l *Lab) newFile(b *types.VirtualDiskFlatVer2BackingInfo, capacity int64) (*link, error) {
	sp, _, err := l.store.spaceOf(b.FileName)
	if err != nil {
		return nil, err
	}
	if b.Parent != nil {
		parent := l.store.get(b.Parent.FileName)
		if parent == nil {
			return nil, fmt.Errorf("the parent %s is missing", b.Parent.FileName)
		}
		k := parent.freeze(true)
		l.store.put(b.FileName, k)
		return k, nil
	}
	k := newDisk(l.store.heap, capacity, nil, sp)
	k.uuid = b.Uuid
	l.store.put(b.FileName, k)
	return k, nil
}

// newDiskUUID looks like vSphere's: it always begins with VMware's number.
func newDiskUUID() string { return "6000c29" + uuid.NewString()[7:] }

func (l *Lab) clone(ctx *simulator.Context, q *types.CloneVM_Task) ref {
	return l.start(ctx, l.vmJob(ctx, q.This, "CloneVM_Task", "cloneVm", func(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
		if q.Spec.Config == nil {
			q.Spec.Config = &types.VirtualMachineConfigSpec{}
		}
		if q.Spec.Config.Uuid == "" {
			q.Spec.Config.Uuid = uuid.NewString()
		}
		if q.Spec.Config.InstanceUuid == "" {
			q.Spec.Config.InstanceUuid = uuid.NewString()
		}
		folder, ok := ctx.Map.Get(q.Folder).(*simulator.Folder)
		if !ok {
			return nil, &types.InvalidArgument{InvalidProperty: "folder"}
		}
		copied, show, fault := l.makeVM(ctx, folder, func() ref {
			return vm.CloneVMTask(ctx, q).(*methods.CloneVM_TaskBody).Res.Returnval
		})
		defer show()
		if fault != nil {
			return nil, fault
		}
		if fault = l.afterDisks(ctx, copied); fault == nil {
			fault = l.copyDisks(vm, copied)
		}
		l.measure(ctx, copied)
		return copied.Self, fault
	}))
}

// copyDisks copies what the disks of one VM hold to those of its clone, which has them in the same order.
func (l *Lab) copyDisks(from, to *simulator.VirtualMachine) types.BaseMethodFault {
	targets := files(to)
	for i, file := range files(from) {
		if i >= len(targets) {
			break
		}
		src, dst := l.store.get(file), l.store.get(targets[i])
		if src == nil || dst == nil {
			return &types.FileNotFound{FileFault: types.FileFault{File: file}}
		}
		if err := src.copyTo(dst); errors.Is(err, errNoSpace) {
			return &types.NoDiskSpace{FileFault: types.FileFault{File: targets[i]}}
		} else if err != nil {
			return systemError(err)
		}
	}
	src, dst := l.nvramFile(from), l.nvramFile(to)
	if err := copyFile(src, dst); err != nil && !errors.Is(err, os.ErrNotExist) {
		return systemError(err)
	}
	return nil
}

func files(vm *simulator.VirtualMachine) (list []string) {
	for _, dev := range vm.Config.Hardware.Device {
		if _, b := diskOf(dev); b != nil {
			list = append(list, b.FileName)
		}
	}
	return list
}

// copyFile copies a small file, as NVRAM is.
func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	return nil
}

// nvramFile is the file of this machine that holds a VM's NVRAM.
func (l *Lab) nvramFile(vm *simulator.VirtualMachine) string {
	vmx := vm.Config.Files.VmPathName
	name, err := l.store.local(folderOf(vmx) + "/" + strings.TrimSuffix(path.Base(vmx), ".vmx") + ".nvram")
	if err != nil {
		return ""
	}
	return name
}
