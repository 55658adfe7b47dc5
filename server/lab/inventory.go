package lab

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/sync/errgroup"
)

// placement is where VMs are put.
type placement struct {
	vmFolder ref   // the data centre's
	folders  []ref // in which new VMs take turns
	pools    []ref
	hosts    []ref
	network  types.BaseVirtualDeviceBackingInfo
	// What cards may be connected to: networks by name, portgroups by key.
	networks, portgroups map[string]bool
}

// creating is held while a model is made: vcsim fills in variables of its
// package then.
var creating sync.Mutex

// createModel makes the data centre, without VMs.
func (l *Lab) createModel() error {
	m := simulator.VPX()
	m.Host, m.Machine = 0, 0
	m.ClusterHost, m.Datastore, m.Pool = l.config.Hosts, l.config.Datastores, 2
	m.ServiceContent.About.InstanceUuid = l.config.UUID
	m.ServiceContent.About.FullName = "Kura lab, VMware vCenter Server " + m.ServiceContent.About.Version
	l.model = m
	creating.Lock()
	err := m.Create()
	creating.Unlock()
	if err != nil {
		return fmt.Errorf("create the lab's inventory: %w", err)
	}
	l.service = m.Service
	h := fnv.New32a()
	_, _ = h.Write([]byte(l.config.UUID))
	l.macs.Store(h.Sum32())
	l.registry().AddHandler(l.index)
	for _, e := range l.registry().All("Datastore") {
		ds := e.(*simulator.Datastore)
		sp := &space{name: ds.Name, ref: ds.Self, dir: ds.Summary.Url, size: l.config.DatastoreSize / blockSize}
		sp.shown.Store(-1)
		l.store.spaces[ds.Name] = sp
	}
	l.fence()
	return l.findPlaces()
}

func (l *Lab) findPlaces() error {
	ctx := l.context()
	dc, ok := l.registry().Any("Datacenter").(*simulator.Datacenter)
	if !ok {
		return errors.New("the lab's model has no data centre")
	}
	l.place.vmFolder = dc.VmFolder
	for _, e := range l.registry().All("ResourcePool") {
		l.place.pools = append(l.place.pools, e.Reference())
	}
	for _, e := range l.registry().All("HostSystem") {
		l.place.hosts = append(l.place.hosts, e.Reference())
	}
	l.findNetworks(dc)
	pg := l.registry().FindByName("DC0_DVPG0", dc.Network)
	if g, ok := pg.(*simulator.DistributedVirtualPortgroup); ok {
		dvs, ok := l.registry().Get(*g.Config.DistributedVirtualSwitch).(*simulator.DistributedVirtualSwitch)
		if !ok {
			return errors.New("the lab's model has no switch")
		}
		l.place.network = &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
			Port: types.DistributedVirtualSwitchPortConnection{PortgroupKey: g.Key, SwitchUuid: dvs.Uuid},
		}
	}
	prod, err := l.newFolder(ctx, dc.VmFolder, "prod")
	if err != nil {
		return err
	}
	for _, f := range []struct {
		parent ref
		name   string
	}{{prod, "web"}, {prod, "db"}, {dc.VmFolder, "test"}} {
		r, err := l.newFolder(ctx, f.parent, f.name)
		if err != nil {
			return err
		}
		l.place.folders = append(l.place.folders, r)
	}
	return l.createFields(ctx)
}

func (l *Lab) findNetworks(dc *simulator.Datacenter) {
	l.place.networks, l.place.portgroups = map[string]bool{}, map[string]bool{}
	for _, r := range dc.Network {
		switch n := l.registry().Get(r).(type) {
		case *simulator.DistributedVirtualPortgroup:
			l.place.portgroups[n.Key] = true
			l.place.networks[n.Name] = true
		case *mo.Network:
			l.place.networks[n.Name] = true
		}
	}
}

func (l *Lab) newFolder(ctx *simulator.Context, parent ref, name string) (ref, error) {
	f, ok := ctx.Map.Get(parent).(*simulator.Folder)
	if !ok {
		return ref{}, fmt.Errorf("%s is not a folder", parent)
	}
	body := f.CreateFolder(ctx, &types.CreateFolder{This: parent, Name: name}).(*methods.CreateFolderBody)
	if body.Fault_ != nil {
		return ref{}, fmt.Errorf("create folder %s: %s", name, body.Fault_.String)
	}
	return body.Res.Returnval, nil
}

// The custom attributes of the lab's VMs.
const (
	ownerField = "owner"
	costField  = "cost-centre"
)

// createFields defines the custom attributes that VMs have.
func (l *Lab) createFields(ctx *simulator.Context) error {
	m := l.registry().CustomFieldsManager()
	for _, name := range []string{ownerField, costField} {
		body := m.AddCustomFieldDef(ctx, &types.AddCustomFieldDef{Name: name, MoType: "VirtualMachine"}).(*methods.AddCustomFieldDefBody)
		if body.Fault_ != nil {
			return fmt.Errorf("create custom attribute %s: %s", name, body.Fault_.String)
		}
	}
	return nil
}

// inOrder is the number of VMs up to which they are created one by one, so
// that they have the same moids in every lab of one configuration.
const inOrder = 64

// populate creates the VMs; many of them at a time where there are many.
func (l *Lab) populate() error {
	if err := l.createTags(); err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(1)
	if l.config.VMs > inOrder {
		g.SetLimit(16 * runtime.GOMAXPROCS(0))
	}
	for n := 1; n <= l.config.VMs; n++ {
		g.Go(func() error {
			_, err := l.addVM(n, VMSpec{Name: fmt.Sprintf("vm%02d", n)})
			return err
		})
	}
	return g.Wait()
}

// VMSpec says what a VM that AddVM makes is like. Zero values are as in the lab's first VMs.
type VMSpec struct {
	Name   string   `json:"name"`
	Disks  []int64  `json:"disks"`  // capacities in bytes; default one of the lab's size
	Fill   *float64 `json:"fill"`   // share of the disks that holds data; default the lab's
	Gold   bool     `json:"gold"`   // tag it backup:gold
	Off    bool     `json:"off"`    // leave it powered off
	Folder string   `json:"folder"` // inventory path of an existing folder, as /DC0/vm/test
}

// AddVM creates a virtual machine with content, powered on.
func (l *Lab) AddVM(_ context.Context, s VMSpec) (VM, error) {
	if s.Name == "" {
		return VM{}, errors.New("a VM needs a name")
	}
	if _, err := l.index.find(EscapeName(s.Name)); err == nil {
		return VM{}, fmt.Errorf("there is a VM %q already", s.Name)
	}
	if len(s.Disks) == 0 {
		s.Disks = []int64{l.config.DiskSize}
	}
	return l.addVM(int(l.added.Add(1))+l.config.VMs, s)
}

func (l *Lab) addVM(n int, s VMSpec) (VM, error) {
	ctx := l.context()
	if s.Disks == nil { // one of the lab's first
		s.Disks, s.Gold = []int64{l.config.DiskSize}, n%3 == 0
		if n%2 == 0 {
			s.Disks = append(s.Disks, l.config.DiskSize)
		}
	}
	fill := l.config.Fill
	if s.Fill != nil {
		fill = *s.Fill
	}
	folder := l.place.folders[n%len(l.place.folders)]
	if s.Folder != "" {
		r, err := l.folderAt(s.Folder)
		if err != nil {
			return VM{}, err
		}
		folder = r
	}
	result, fault := l.createVM(ctx, &types.CreateVM_Task{
		This: folder, Config: l.configOf(n, s), Pool: l.place.pools[n%len(l.place.pools)], Host: &l.place.hosts[n%len(l.place.hosts)],
	}, false)
	if fault != nil {
		return VM{}, fmt.Errorf("create VM %s: %s", s.Name, faultName(fault))
	}
	vm := ctx.Map.Get(result.(ref)).(*simulator.VirtualMachine)
	if err := l.furnish(ctx, vm, n, fill); err != nil {
		return VM{}, fmt.Errorf("create VM %s: %w", s.Name, err)
	}
	if s.Gold {
		l.tag(vm.Self)
	}
	if !s.Off {
		ctx.WithLock(vm, func() { l.bootQuietly(ctx, vm) })
	}
	v, _ := l.index.get(vm.Self)
	return v, nil
}

// bootQuietly powers a new VM on without vcsim's task, which costs more than the rest of its creation.
func (l *Lab) bootQuietly(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	list := slices.Clone(vm.Config.Hardware.Device)
	for i, dev := range list {
		card, ok := dev.(*types.VirtualVmxnet3)
		if !ok || card.Connectable == nil {
			continue
		}
		on, state := *card, *card.Connectable
		state.Connected = state.StartConnected
		on.Connectable = &state
		list[i] = &on
	}
	setDevices(ctx, vm, list)
	ctx.Update(vm, []types.PropertyChange{
		{Name: "runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOn},
		{Name: "summary.runtime.powerState", Val: types.VirtualMachinePowerStatePoweredOn},
		{Name: "runtime.bootTime", Val: time.Now()},
	})
	l.showGuest(ctx, vm, true)
}

func (l *Lab) configOf(n int, s VMSpec) types.VirtualMachineConfigSpec {
	ds := fmt.Sprintf("[LocalDS_%d]", n%l.config.Datastores)
	dir := strings.ReplaceAll(EscapeName(s.Name), "%", "-")
	var list object.VirtualDeviceList
	kind := []string{"pvscsi", "lsilogic"}[n%2]
	// A controller of a known kind cannot fail.
	scsi, _ := list.CreateSCSIController(kind)
	list = append(list, scsi)
	for i, size := range s.Disks {
		name := dir
		if i > 0 {
			name = fmt.Sprintf("%s_%d", dir, i)
		}
		unit := int32(i)
		if i >= 7 {
			unit++ // the controller's own
		}
		list = append(list, &types.VirtualDisk{
			VirtualDevice: types.VirtualDevice{
				Key: -int32(100 + i), ControllerKey: scsi.GetVirtualDevice().Key, UnitNumber: &unit,
				Backing: &types.VirtualDiskFlatVer2BackingInfo{
					DiskMode: string(types.VirtualDiskModePersistent), ThinProvisioned: types.NewBool(true),
					VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: ds + " " + path.Join(dir, name+".vmdk")},
				},
			},
			CapacityInBytes: size, CapacityInKB: size / 1024,
		})
	}
	if l.place.network != nil {
		// A card of a known kind cannot fail.
		card, _ := list.CreateEthernetCard("vmxnet3", l.place.network)
		list = append(list, card)
	}
	changes, _ := list.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	for _, c := range changes {
		if sp := c.GetVirtualDeviceConfigSpec(); isFileDisk(sp.Device) {
			sp.FileOperation = types.VirtualDeviceConfigSpecFileOperationCreate
		}
	}
	return types.VirtualMachineConfigSpec{
		Name: s.Name, GuestId: "debian12_64Guest", Version: "vmx-19", NumCPUs: int32(1 + n%4), MemoryMB: int64(512 << (n % 3)),
		Uuid: l.deriveUUID("bios", s.Name, n), InstanceUuid: l.deriveUUID("instance", s.Name, n),
		Annotation: "made by the lab", Firmware: []string{"bios", "efi"}[n%2],
		Files: &types.VirtualMachineFileInfo{VmPathName: ds}, DeviceChange: changes,
		ExtraConfig: []types.BaseOptionValue{&types.OptionValue{Key: "lab.number", Value: fmt.Sprint(n)}},
	}
}

func (l *Lab) deriveUUID(kind, name string, n int) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%s/%s/%s/%d", l.config.UUID, kind, name, n)).String()
}

// furnish gives a VM the content of its disks, its NVRAM and its custom attributes.
func (l *Lab) furnish(ctx *simulator.Context, vm *simulator.VirtualMachine, n int, fill float64) error {
	for i, file := range files(vm) {
		k := l.store.get(file)
		g := &generator{seed: mix(l.config.Seed ^ mix(uint64(n)<<8|uint64(i))), fill: fill}
		k.disk.mu.Lock()
		k.base = g
		k.take(g.allocated(k.disk.blocks()))
		k.disk.mu.Unlock()
	}
	nvram := make([]byte, 8684)
	fillNoise(mix(l.config.Seed+uint64(n)), nvram)
	if err := os.WriteFile(l.nvramFile(vm), nvram, 0o600); err != nil {
		return fmt.Errorf("write NVRAM: %w", err)
	}
	ctx.WithLock(vm, func() {
		vm.SetCustomValue(ctx, &types.SetCustomValue{This: vm.Self, Key: ownerField, Value: fmt.Sprintf("team-%d", n%5)})
		vm.SetCustomValue(ctx, &types.SetCustomValue{This: vm.Self, Key: costField, Value: fmt.Sprint(1000 + n%7)})
	})
	ctx.WithLock(vm, func() {
		l.measure(ctx, vm)
		l.showGuest(ctx, vm, false)
	})
	return nil
}

// folderAt finds a VM folder by its inventory path.
func (l *Lab) folderAt(name string) (ref, error) {
	for _, r := range append([]ref{l.place.vmFolder}, l.place.folders...) {
		if l.folderPath(&r) == path.Clean(name) {
			return r, nil
		}
	}
	return ref{}, fmt.Errorf("there is no folder %q", name)
}

// RemoveVM powers a VM off and deletes it with its disks, as somebody with the vSphere client would.
func (l *Lab) RemoveVM(_ context.Context, id string) error {
	v, err := l.index.find(id)
	if err != nil {
		return err
	}
	if v.PowerState == string(types.VirtualMachinePowerStatePoweredOn) {
		if err := l.run(func(ctx *simulator.Context) job { return l.powerJob(ctx, v.ref, false) }); err != nil {
			return err
		}
	}
	return l.run(func(ctx *simulator.Context) job { return l.destroyJob(ctx, v.ref) })
}

// SetPower turns a VM on or off; it is no error if it is so already.
func (l *Lab) SetPower(_ context.Context, id string, on bool) error {
	v, err := l.index.find(id)
	if err != nil {
		return err
	}
	if (v.PowerState == string(types.VirtualMachinePowerStatePoweredOn)) == on {
		return nil
	}
	return l.run(func(ctx *simulator.Context) job { return l.powerJob(ctx, v.ref, on) })
}

// run performs a job at once, as the control does: no fault strikes it.
func (l *Lab) run(what func(*simulator.Context) job) error {
	ctx := l.context()
	j := what(ctx)
	if _, fault := l.do(ctx, j); fault != nil {
		return fmt.Errorf("%s: %s", j.method, faultName(fault))
	}
	return nil
}
