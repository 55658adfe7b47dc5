package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// MakeProxy lets a VM be one in which a backup server could run: its guest
// sees the UUIDs of its disks. It returns the VM's BIOS UUID.
func (l *Lab) MakeProxy(id string) (string, error) {
	v, err := l.index.find(id)
	if err != nil {
		return "", err
	}
	ctx := l.context()
	vm, ok := ctx.Map.Get(v.ref).(*simulator.VirtualMachine)
	if !ok {
		return "", ErrNoVM
	}
	var uuid string
	ctx.WithLock(vm, func() {
		unshare(vm)
		option := &types.OptionValue{Key: "disk.EnableUUID", Value: "TRUE"}
		ctx.Update(vm, []types.PropertyChange{{Name: "config.extraConfig", Val: append(vm.Config.ExtraConfig, option)}})
		uuid = vm.Config.Uuid
	})
	return uuid, nil
}

// attaches says whether a change gives a VM the file of a disk that exists.
func attaches(changes []types.BaseVirtualDeviceConfigSpec) bool {
	return slices.ContainsFunc(changes, func(dc types.BaseVirtualDeviceConfigSpec) bool {
		s := dc.GetVirtualDeviceConfigSpec()
		return s.Operation == types.VirtualDeviceConfigSpecOperationAdd && s.FileOperation == "" && isFileDisk(s.Device)
	})
}

// loan is a disk of another's file in a VM that throws away what it writes.
type loan struct {
	file string
	redo *link
}

// lend keeps a redo log for each nonpersistent disk of a VM, and drops those of disks that are gone.
func (l *Lab) lend(vm ref, devices []types.BaseVirtualDevice) {
	have := map[int32]string{}
	for _, dev := range devices {
		if d, b := diskOf(dev); b != nil && b.DiskMode == string(types.VirtualDiskModeIndependent_nonpersistent) {
			have[d.Key] = b.FileName
		}
	}
	l.loaning.Lock()
	defer l.loaning.Unlock()
	for key, x := range l.loans[vm] {
		if have[key] != x.file {
			delete(l.loans[vm], key)
			l.store.erase(x.redo)
		}
	}
	for key, file := range have {
		if k := l.store.get(file); k != nil && l.loans[vm][key].redo == nil {
			if l.loans[vm] == nil {
				l.loans[vm] = map[int32]loan{}
			}
			l.loans[vm][key] = loan{file: file, redo: k.freeze(true)}
		}
	}
}

// onLoan says whether a link is the redo log of a nonpersistent disk.
func (l *Lab) onLoan(k *link) bool {
	l.loaning.Lock()
	defer l.loaning.Unlock()
	for _, disks := range l.loans {
		for _, x := range disks {
			if x.redo == k {
				return true
			}
		}
	}
	return false
}

// lockedElsewhere is a file of the VM's disks that another VM has attached; "" = none.
func (x *index) lockedElsewhere(vm ref) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	own := x.vms[vm].Disks
	for r, v := range x.vms {
		for _, d := range v.Disks {
			if r != vm && slices.ContainsFunc(own, func(o Disk) bool { return o.File == d.File }) {
				return d.File
			}
		}
	}
	return ""
}

// lentTo lists the disks of a VM that are those of others: by their chains, of
// a VM that is off. Whoever deletes the VM deletes them.
func (l *Lab) lentTo(vm ref) (list []*link) {
	v, _ := l.index.get(vm)
	for _, other := range l.index.all() {
		if other.ref == vm || other.PowerState == string(types.VirtualMachinePowerStatePoweredOn) {
			continue
		}
		for _, d := range other.Disks {
			for k := l.store.get(d.File); k != nil; k = k.parentLink() {
				if slices.ContainsFunc(v.Disks, func(x Disk) bool { return x.File == l.store.pathOf(k) }) {
					list = append(list, k)
				}
			}
		}
	}
	return list
}

// Device is a disk of a VM as a program in its guest sees it.
type Device struct {
	l        *Lab
	link     *link
	size     int64
	writable bool
}

// OpenDevice opens a disk of a VM by the UUID that its guest sees. One that is
// not there, or not yet, is fs.ErrNotExist.
func (l *Lab) OpenDevice(_ context.Context, vm, uuid string, writable bool) (*Device, error) {
	v, err := l.index.find(vm)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(v.Disks, func(d Disk) bool { return strings.EqualFold(d.uuid, uuid) })
	if i < 0 || l.faults.take("device_missing", v.ref, v.Name, true) != nil || l.faults.take("device_slow", v.ref, v.Name, true) != nil {
		return nil, fmt.Errorf("open the device %s in %s: %w", uuid, v.Name, fs.ErrNotExist)
	}
	k := l.store.get(v.Disks[i].File)
	l.loaning.Lock()
	if x := l.loans[v.ref][v.Disks[i].Key]; x.redo != nil {
		k = x.redo
	}
	l.loaning.Unlock()
	if k == nil {
		return nil, fmt.Errorf("open the device %s in %s: %w", uuid, v.Name, fs.ErrNotExist)
	}
	k.disk.mu.RLock()
	defer k.disk.mu.RUnlock()
	return &Device{l: l, link: k, size: k.disk.capacity, writable: writable}, nil
}

// Size is the disk's capacity.
func (d *Device) Size() (int64, error) { return d.size, nil }

// ReadAt implements io.ReaderAt.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	if d.l.faults.take("device_fail", ref{}, "", true) != nil {
		return 0, errors.New("input/output error")
	}
	n, err := d.link.ReadAt(p, off)
	d.l.deviceRead.Add(int64(n))
	return n, err
}

// WriteAt implements io.WriterAt. Changed block tracking does not see it: the
// VM whose disk it is has nothing to do with it.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	if !d.writable {
		return 0, fs.ErrPermission
	}
	if d.l.faults.take("device_write_fail", ref{}, "", true) != nil {
		return 0, errors.New("input/output error")
	}
	n, err := d.link.writeAt(p, off, false)
	d.l.deviceWritten.Add(int64(n))
	return n, err
}

// Sync makes what was written last; the lab keeps it in its files at once.
func (d *Device) Sync() error { return nil }

// Close lets go of the disk.
func (d *Device) Close() error { return nil }

// DeviceTraffic is the number of bytes that were read from and written to devices.
func (l *Lab) DeviceTraffic() (read, written int64) {
	return l.deviceRead.Load(), l.deviceWritten.Load()
}

// FindAllByUuid finds VMs by their BIOS or instance UUID. vcsim's own stumbles
// over objects that are the lab's.
func (r *router) FindAllByUuid(_ *simulator.Context, q *types.FindAllByUuid) soap.HasFault {
	res := new(types.FindAllByUuidResponse)
	for _, v := range r.l.index.all() {
		uuid := v.uuid
		if q.InstanceUuid != nil && *q.InstanceUuid {
			uuid = v.InstanceUUID
		}
		if q.VmSearch && strings.EqualFold(uuid, q.Uuid) {
			res.Returnval = append(res.Returnval, v.ref)
		}
	}
	return &methods.FindAllByUuidBody{Res: res}
}
