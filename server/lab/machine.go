package lab

import (
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// stun keeps the guest of a VM from writing until the returned function is
// called: what a task does to the disks happens at one instant of the guest.
func (l *Lab) stun(vm ref) func() {
	m := l.stunLock(vm)
	m.Lock()
	return m.Unlock
}

func (l *Lab) stunLock(vm ref) *sync.RWMutex {
	m, _ := l.stuns.LoadOrStore(vm, new(sync.RWMutex))
	return m.(*sync.RWMutex)
}

// unshare replaces what vcsim changes in place by copies, because answers to
// clients, which are written without a lock, still point to the old ones.
func unshare(vm *simulator.VirtualMachine) {
	if c := vm.Config; c != nil {
		config := *c
		config.Hardware.Device = slices.Clone(c.Hardware.Device)
		config.ExtraConfig = slices.Clone(c.ExtraConfig)
		vm.Config = &config
	}
	if x := vm.Layout; x != nil {
		layout := *x
		layout.Snapshot = slices.Clone(x.Snapshot)
		layout.ConfigFile, layout.LogFile = slices.Clone(x.ConfigFile), slices.Clone(x.LogFile)
		vm.Layout = &layout
	}
	if x := vm.LayoutEx; x != nil {
		layout := *x
		layout.File, layout.Snapshot = slices.Clone(x.File), slices.Clone(x.Snapshot)
		vm.LayoutEx = &layout
	}
	if s := vm.Snapshot; s != nil {
		vm.Snapshot = &types.VirtualMachineSnapshotInfo{CurrentSnapshot: s.CurrentSnapshot, RootSnapshotList: copyTree(s.RootSnapshotList)}
	}
	if s := vm.Storage; s != nil {
		storage := *s
		vm.Storage = &storage
	}
	if g := vm.Guest; g != nil {
		guest := *g
		guest.Net = slices.Clone(g.Net)
		vm.Guest = &guest
	}
	vm.Network, vm.Datastore, vm.RootSnapshot = slices.Clone(vm.Network), slices.Clone(vm.Datastore), slices.Clone(vm.RootSnapshot)
}

// ownBus is the PCI controller with the devices on it that the VM has now.
// vcsim takes none off it, and puts none on it that came with its place.
func ownBus(c *types.VirtualPCIController, list []types.BaseVirtualDevice) *types.VirtualPCIController {
	own := &types.VirtualPCIController{VirtualController: types.VirtualController{VirtualDevice: c.VirtualDevice, BusNumber: c.BusNumber}}
	for _, d := range list {
		if v := d.GetVirtualDevice(); v.ControllerKey == c.Key {
			own.Device = append(own.Device, v.Key)
		}
	}
	return own
}

func copyTree(tree []types.VirtualMachineSnapshotTree) []types.VirtualMachineSnapshotTree {
	tree = slices.Clone(tree)
	for i := range tree {
		tree[i].ChildSnapshotList = copyTree(tree[i].ChildSnapshotList)
	}
	return tree
}

// measure writes the sizes of a VM's files where vcsim would put those of its empty ones.
func (l *Lab) measure(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	if vm.LayoutEx == nil || vm.Config == nil || ctx.Map.Get(vm.Self) == nil {
		return
	}
	unshare(vm)
	l.busy.RLock()
	vm.RefreshStorageInfo(ctx, nil)
	l.busy.RUnlock()
	usage := map[ref]*types.VirtualMachineUsageOnDatastore{}
	sum := &types.VirtualMachineStorageSummary{Timestamp: time.Now()}
	add := func(sp *space, committed, uncommitted int64) {
		u := usage[sp.ref]
		if u == nil {
			u = &types.VirtualMachineUsageOnDatastore{Datastore: sp.ref}
			usage[sp.ref] = u
		}
		u.Committed, u.Uncommitted, u.Unshared = u.Committed+committed, u.Uncommitted+uncommitted, u.Unshared+committed
		sum.Committed, sum.Uncommitted, sum.Unshared = sum.Committed+committed, sum.Uncommitted+uncommitted, sum.Unshared+committed
	}
	sizes := map[string]int64{}
	for _, dev := range vm.Config.Hardware.Device {
		d, b := diskOf(dev)
		if b == nil {
			continue
		}
		var held int64
		for k := l.store.get(b.FileName); k != nil; k = k.parentLink() {
			n := k.size()
			sizes[flatName(l.store.pathOf(k))] = n
			held += n
			add(k.space, n, 0)
		}
		if k := l.store.get(b.FileName); k != nil {
			add(k.space, 0, max(d.CapacityInBytes-held, 0))
		}
	}
	layout := *vm.LayoutEx
	layout.File = slices.Clone(layout.File)
	for i := range layout.File {
		if n, ok := sizes[layout.File[i].Name]; ok {
			layout.File[i].Size, layout.File[i].UniqueSize = n, n
		}
	}
	storage := types.VirtualMachineStorageInfo{Timestamp: sum.Timestamp}
	for _, u := range usage {
		storage.PerDatastoreUsage = append(storage.PerDatastoreUsage, *u)
	}
	ctx.Update(vm, []types.PropertyChange{
		{Name: "layoutEx", Val: layout}, {Name: "storage", Val: storage}, {Name: "summary.storage", Val: *sum},
	})
}

// refreshSpace writes a datastore's free space into its summary, unless vcsim
// is at work on datastores, and says whether it did.
func (l *Lab) refreshSpace(sp *space) bool {
	if !l.busy.TryLock() {
		return false
	}
	defer l.busy.Unlock()
	ctx := l.context()
	ds, ok := ctx.Map.Get(sp.ref).(*simulator.Datastore)
	if !ok {
		return true
	}
	free := max(sp.size-sp.used.Load(), 0) * blockSize
	ctx.WithLock(ds, func() {
		if i, ok := ds.Info.(*types.LocalDatastoreInfo); ok {
			info := *i
			info.FreeSpace = free
			ds.Info = &info
		}
		ctx.Update(ds, []types.PropertyChange{
			{Name: "summary.capacity", Val: sp.size * blockSize}, {Name: "summary.freeSpace", Val: free},
		})
	})
	return true
}

// powerJob turns a VM on or off.
func (l *Lab) powerJob(ctx *simulator.Context, vm ref, on bool) job {
	method, name := "PowerOffVM_Task", "powerOff"
	if on {
		method, name = "PowerOnVM_Task", "powerOn"
	}
	return l.vmJob(ctx, vm, method, name, func(o *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
		if on && o.Config.Template {
			return nil, &types.InvalidState{}
		}
		if file := l.index.lockedElsewhere(vm); on && file != "" {
			return nil, &types.FileLocked{FileFault: types.FileFault{File: file}}
		}
		_, fault := l.inner(ctx, func() ref {
			if on {
				l.activate(o)
				return o.PowerOnVMTask(ctx, &types.PowerOnVM_Task{This: vm}).(*methods.PowerOnVM_TaskBody).Res.Returnval
			}
			l.shutting.Delete(vm)
			return o.PowerOffVMTask(ctx, &types.PowerOffVM_Task{This: vm}).(*methods.PowerOffVM_TaskBody).Res.Returnval
		})
		if fault != nil {
			return nil, fault
		}
		l.showGuest(ctx, o, on)
		return nil, nil
	})
}

// showGuest is what VMware Tools report.
func (l *Lab) showGuest(ctx *simulator.Context, vm *simulator.VirtualMachine, on bool) {
	running, state, status := types.VirtualMachineToolsRunningStatusGuestToolsNotRunning, "notRunning", types.VirtualMachineToolsStatusToolsNotRunning
	guest := *vm.Guest
	guest.IpAddress = ""
	if on {
		running, state, status = types.VirtualMachineToolsRunningStatusGuestToolsRunning, "running", types.VirtualMachineToolsStatusToolsOk
		guest.HostName, guest.IpAddress = vm.Name+".lab.example", address(vm.Self)
	}
	guest.ToolsRunningStatus, guest.GuestState, guest.ToolsStatus = string(running), state, status
	guest.ToolsVersionStatus, guest.ToolsVersionStatus2 = "guestToolsCurrent", "guestToolsCurrent"
	guest.ToolsVersion = "12389"
	guest.Net = slices.Clone(guest.Net)
	for i := range guest.Net {
		guest.Net[i].Connected, guest.Net[i].IpAddress = on, nil
		if on {
			guest.Net[i].IpAddress = []string{guest.IpAddress}
		}
	}
	ctx.Update(vm, []types.PropertyChange{{Name: "guest", Val: guest}})
}

// address is the guest's IP address, made of its VM's number.
func address(vm ref) string {
	var n int
	// Moids of VMs are vm-N; of any other the address is 10.0.0.0.
	_, _ = fmt.Sscanf(vm.Value, "vm-%d", &n)
	return fmt.Sprintf("10.%d.%d.%d", n>>16&0xff, n>>8&0xff, n&0xff)
}

// folderPath is the inventory path of a VM's folder.
func (l *Lab) folderPath(parent *ref) string {
	var parts []string
	for r := parent; r != nil; {
		e, ok := l.registry().Get(*r).(mo.Entity)
		if !ok {
			break
		}
		if e.Entity().Parent == nil {
			break // the root folder has no part in a path
		}
		parts = append(parts, e.Entity().Name)
		r = e.Entity().Parent
	}
	slices.Reverse(parts)
	return "/" + path.Join(parts...)
}
