package lab

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// ErrNoVM means that the lab has no virtual machine of that name or moid.
var ErrNoVM = errors.New("no such virtual machine")

// VM is a virtual machine as the lab's control sees it.
type VM struct {
	Name         string   `json:"name"`
	Moid         string   `json:"moid"`
	InstanceUUID string   `json:"instance_uuid"`
	PowerState   string   `json:"power_state"`
	Snapshots    []string `json:"snapshots"`
	Tags         []string `json:"tags"`
	Folder       string   `json:"folder"`
	Disks        []Disk   `json:"disks"`
	VCenter      string   `json:"vcenter"` // the instance UUID of its vCenter

	ref    ref
	parent *ref
	vmx    string
	uuid   string // BIOS
}

// Disk is a virtual disk of a VM.
type Disk struct {
	Key      int32  `json:"key"`
	Label    string `json:"label"`
	Capacity int64  `json:"capacity"`
	File     string `json:"file"`
	SHA256   string `json:"sha256,omitempty"`

	uuid string // as the guest sees it
}

// index follows the inventory, so that the lab finds VMs without taking
// vcsim's locks, which a task may hold for long. It implements
// simulator.RegisterObject and keeps copies only.
type index struct {
	Self ref

	mu    sync.RWMutex // guards all below
	vms   map[ref]VM
	made  func(*simulator.VirtualMachine) // what is done with a VM before anybody sees it, while one is made
	waits map[ref]chan struct{}           // task: closed when it is done
}

func newIndex() *index {
	return &index{Self: ref{Type: "KuraLab", Value: "index"}, vms: map[ref]VM{}, waits: map[ref]chan struct{}{}}
}

func (x *index) Reference() ref { return x.Self }

func (x *index) PutObject(_ *simulator.Context, o mo.Reference) {
	vm, ok := o.(*simulator.VirtualMachine)
	if !ok {
		return
	}
	x.mu.RLock()
	_, known := x.vms[vm.Self] // it moves to another folder
	made := x.made
	x.mu.RUnlock()
	if made != nil && !known {
		made(vm)
	}
	x.note(&vm.VirtualMachine)
}

// whenMade has f called for a VM that is new; nil ends it.
func (x *index) whenMade(f func(*simulator.VirtualMachine)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.made = f
}

// UpdateObject heeds known VMs only: vcsim goes on changing one that it has removed.
func (x *index) UpdateObject(_ *simulator.Context, o mo.Reference, _ []types.PropertyChange) {
	switch o := o.(type) {
	case *mo.VirtualMachine:
		if _, known := x.get(o.Self); known {
			x.note(o)
		}
	case *mo.Task:
		if isDone(o.Info.State) {
			x.done(o.Self)
		}
	}
}

func isDone(s types.TaskInfoState) bool {
	return s == types.TaskInfoStateSuccess || s == types.TaskInfoStateError
}

// outcome waits for a task of vcsim's; its own Wait polls.
func (x *index) outcome(reg *simulator.Registry, t *simulator.Task) (info types.TaskInfo) {
	c := make(chan struct{})
	x.mu.Lock()
	x.waits[t.Self] = c
	x.mu.Unlock()
	// The task's own context shares its locks: only another one keeps readers and writers apart.
	read := func() { reg.WithLock(&simulator.Context{Map: reg}, t, func() { info = t.Info }) }
	if read(); !isDone(info.State) {
		<-c
		read()
	}
	x.done(t.Self)
	return info
}

func (x *index) done(task ref) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := x.waits[task]; c != nil {
		close(c)
		delete(x.waits, task)
	}
}

func (x *index) RemoveObject(_ *simulator.Context, r ref) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.vms, r)
}

func (x *index) note(vm *mo.VirtualMachine) {
	v := VM{
		ref: vm.Self, Moid: vm.Self.Value, Name: vm.Name, PowerState: string(vm.Runtime.PowerState), parent: vm.Parent,
		Snapshots: []string{}, Tags: []string{}, Disks: []Disk{},
	}
	if vm.Snapshot != nil {
		v.Snapshots = snapshotNames(v.Snapshots, vm.Snapshot.RootSnapshotList)
	}
	if vm.Config != nil {
		v.InstanceUUID = vm.Config.InstanceUuid
		v.vmx = vm.Config.Files.VmPathName
		v.uuid = vm.Config.Uuid
		for _, d := range vm.Config.Hardware.Device {
			if disk, b := diskOf(d); b != nil {
				v.Disks = append(v.Disks, Disk{Key: disk.Key, Label: labelOf(disk), Capacity: disk.CapacityInBytes, File: b.FileName, uuid: b.Uuid})
			}
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.vms[vm.Self] = v
}

func snapshotNames(list []string, tree []types.VirtualMachineSnapshotTree) []string {
	for _, s := range tree {
		list = snapshotNames(append(list, s.Name), s.ChildSnapshotList)
	}
	return list
}

func labelOf(d *types.VirtualDisk) string {
	if d.DeviceInfo == nil {
		return ""
	}
	return d.DeviceInfo.GetDescription().Label
}

// find looks for a moid first, then for a name.
func (x *index) find(id string) (VM, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if v, ok := x.vms[ref{Type: "VirtualMachine", Value: id}]; ok {
		return v, nil
	}
	for _, v := range x.vms {
		if v.Name == id {
			return v, nil
		}
	}
	return VM{}, fmt.Errorf("%w: %q", ErrNoVM, id)
}

func (x *index) get(r ref) (VM, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	v, ok := x.vms[r]
	return v, ok
}

// all lists the VMs in the order in which they were created.
func (x *index) all() []VM {
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := make([]VM, 0, len(x.vms))
	for _, v := range x.vms {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b VM) int {
		if d := len(a.Moid) - len(b.Moid); d != 0 {
			return d
		}
		return strings.Compare(a.Moid, b.Moid)
	})
	return list
}

// owner returns a VM that has the file attached as the top of a disk's chain.
func (x *index) owner(file string) (VM, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, v := range x.vms {
		if slices.ContainsFunc(v.Disks, func(d Disk) bool { return d.File == file }) {
			return v, true
		}
	}
	return VM{}, false
}

// in returns the VM whose configuration file is in a folder of a datastore.
func (x *index) in(dir string) (VM, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, v := range x.vms {
		if folderOf(v.vmx) == dir {
			return v, true
		}
	}
	return VM{}, false
}

// folderOf is the datastore folder in which a file lies.
func folderOf(file string) string {
	if i := strings.LastIndexByte(file, '/'); i >= 0 {
		return file[:i]
	}
	return file
}

// diskOf returns a device's file backing if it is a disk that takes part in snapshots.
func diskOf(d types.BaseVirtualDevice) (*types.VirtualDisk, *types.VirtualDiskFlatVer2BackingInfo) {
	disk, ok := d.(*types.VirtualDisk)
	if !ok {
		return nil, nil
	}
	b, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok {
		return nil, nil
	}
	return disk, b
}

// independent says whether snapshots leave the disk alone.
func independent(b *types.VirtualDiskFlatVer2BackingInfo) bool {
	return strings.HasPrefix(b.DiskMode, "independent")
}

// devices is short for govmomi's list with its look-ups.
func devices(vm *simulator.VirtualMachine) object.VirtualDeviceList {
	return vm.Config.Hardware.Device
}
