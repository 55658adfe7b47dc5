package vsphere

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// markerKey is the entry of the extra configuration that carries a marker
// beside the annotation: both must agree before a sweep destroys anything.
const markerKey = "kura.marker"

// madeKey is the entry that names the job that made a VM whole, be it new or
// overwritten: an attempt of it that does not know so yet finds that by it.
const madeKey = "kura.made"

// streams is how many disks of one VM are sent at a time.
const streams = 4

// ImportVM implements [backup.VSphereSession].
func (s *Session) ImportVM(ctx context.Context, r backup.ImportDraft, from backup.ImageReader, progress func(int64)) (backup.RestoredVM, []string, error) {
	doing := fmt.Sprintf("make the VM %q", r.NewVM.Name)
	p, err := s.plan(ctx, r, from)
	if err != nil {
		return backup.RestoredVM{}, nil, s.problem(doing, err)
	}
	if p.made != nil {
		done := backup.RestoredVM{MOID: p.made.Self.Value, InstanceUUID: p.made.Config.InstanceUuid, BIOSUUID: p.made.Config.Uuid, Name: r.NewVM.Name}
		if p.made.Config.Template {
			return done, nil, nil
		}
		return done, s.begin(ctx, p.made.Self, r.NewVM), nil
	}
	vm, err := s.importVM(ctx, p.load(from, progress))
	if err != nil {
		return backup.RestoredVM{}, nil, s.problem(doing, err)
	}
	failpoint.Hit("import.filled")
	done, err := s.complete(ctx, vm, p, from)
	if err != nil {
		s.discard(ctx, vm, r.Marker)
		return backup.RestoredVM{}, nil, s.problem(doing, err)
	}
	failpoint.Hit("import.completed")
	return done, append(p.messages, s.begin(ctx, vm, r.NewVM)...), nil
}

// newVM is a VM that is about to be made.
type newVM struct {
	draft    backup.ImportDraft
	machine  MachineConfig
	config   *types.VirtualMachineConfigInfo
	at       target
	spec     types.VirtualMachineConfigSpec
	policy   string             // id of the storage policy; "" = the datastore's default
	made     *mo.VirtualMachine // by an earlier attempt, whole; nil = it is still to be made
	disks    []backup.ImageDisk
	messages []string
}

// plan decides everything that can be decided before vSphere is changed.
func (s *Session) plan(ctx context.Context, r backup.ImportDraft, from backup.ImageReader) (*newVM, error) {
	machine, config, err := decodeMachine(from.Manifest().Machine)
	if err != nil {
		return nil, err
	}
	p := &newVM{draft: r, machine: machine, config: config, disks: present(from.Manifest().Image.Disks)}
	var need int64
	for _, d := range p.disks {
		old, _ := find(config.Hardware.Device, d.Key)
		n, err := footprint(ctx, from, d, old)
		if err != nil {
			return nil, err
		}
		need += n
	}
	if r.NewVM.PowerOn {
		need += int64(config.Hardware.MemoryMB) << 20 // its swap file
	}
	t, err := s.site(ctx)
	if err != nil {
		return nil, err
	}
	w := wish{RestoreNewVM: r.NewVM, machine: machine, store: storeOf(config.Files.VmPathName), bytes: need}
	for _, name := range machine.Networks {
		if name != "" && !slices.Contains(w.networks, name) {
			w.networks = append(w.networks, name)
		}
	}
	slices.Sort(w.networks)
	for _, from := range sortedKeys(r.NewVM.NetworkMappings) {
		if !slices.Contains(w.networks, from) {
			p.messages = append(p.messages, fmt.Sprintf("network_mappings names %q, and no network card of the image is on a network of that name: %s.", from, networksText(w.networks)))
		}
	}
	if r.NewVM.StoragePolicy != "" {
		if p.policy, err = s.storagePolicy(ctx, r.NewVM.StoragePolicy); err != nil {
			return nil, err
		}
		if w.suits, err = s.suitable(ctx, p.policy, t); err != nil {
			return nil, err
		}
	}
	if p.made, err = s.madeBefore(ctx, t, w, r); err != nil || p.made != nil {
		return p, err
	}
	if p.at, err = t.place(w); err != nil {
		return nil, err
	}
	if p.made, err = s.nameFree(ctx, p.at.folder, r); err != nil || p.made != nil {
		return p, err
	}
	return p, s.specify(ctx, p)
}

func networksText(names []string) string {
	if len(names) == 0 {
		return "it has none"
	}
	return "they are on " + strings.Join(names, ", ")
}

// present are the disks that the image really holds.
func present(all []backup.ImageDisk) []backup.ImageDisk {
	return slices.DeleteFunc(slices.Clone(all), func(d backup.ImageDisk) bool { return d.SkippedReason != "" })
}

// footprint is how many bytes the disk will take: all of them when it is
// thick, else those that hold data.
func footprint(ctx context.Context, from backup.ImageReader, d backup.ImageDisk, as *types.VirtualDisk) (sum int64, err error) {
	if as != nil && thick(as) {
		return d.Capacity, nil
	}
	r, err := from.Disk(ctx, d.Key)
	if err != nil {
		return 0, fmt.Errorf("open %q of the image: %w", d.Label, err)
	}
	for off := int64(0); ; {
		start, n := r.Next(off)
		if n == 0 {
			break
		}
		sum += n
		off = start + n
	}
	if err := r.Close(); err != nil {
		return 0, fmt.Errorf("close %q of the image: %w", d.Label, err)
	}
	return sum, nil
}

// madeBefore finds the VM that an earlier attempt has made. The place that was
// right for it may lack the room for another by now.
func (s *Session) madeBefore(ctx context.Context, t *site, w wish, r backup.ImportDraft) (*mo.VirtualMachine, error) {
	if m, _ := parseMarker(r.Marker); m.attempt < 2 {
		return nil, nil
	}
	for _, dc := range t.datacenters {
		folder, err := t.chooseFolder(w, dc.Self)
		if err != nil {
			continue // it is in another
		}
		made, err := s.nameFree(ctx, folder, r)
		if made != nil || err != nil && backup.CodeOf(err) != backup.Conflict {
			return made, err
		}
	}
	return nil, nil
}

// nameFree refuses a name that is taken, unless by the VM that an earlier
// attempt of the same job has made.
func (s *Session) nameFree(ctx context.Context, folder ref, r backup.ImportDraft) (made *mo.VirtualMachine, err error) {
	res, err := methods.FindChild(ctx, s.client, &types.FindChild{This: *s.client.ServiceContent.SearchIndex, Entity: folder, Name: escapeName(r.NewVM.Name)})
	if err != nil || res.Returnval == nil {
		return nil, err
	}
	if m, ok := parseMarker(r.Marker); ok && res.Returnval.Type == "VirtualMachine" {
		vm, err := s.vm(ctx, res.Returnval.Value, []string{"config"})
		if err == nil && extra(vm.Config, madeKey) == m.job {
			return &vm, nil
		}
	}
	return nil, backup.Errorf(backup.Conflict, "new_vm.name", "The folder already holds a VM named %q: give another name or folder.", r.NewVM.Name)
}

// specify makes the new VM's specification of the old one's configuration.
func (s *Session) specify(ctx context.Context, p *newVM) error {
	c, keep := p.config, p.draft.NewVM.PreserveIdentity
	spec := hardware(c)
	spec.Name, spec.Version = escapeName(p.draft.NewVM.Name), c.Version
	spec.Annotation = p.draft.Marker + "\nThis VM is being restored by kura. It is removed if that does not succeed."
	spec.Files = &types.VirtualMachineFileInfo{VmPathName: "[" + p.at.store.Summary.Name + "]"}
	spec.ExtraConfig = []types.BaseOptionValue{optionValue(markerKey, p.draft.Marker)}
	extra := extraConfig(c)
	for _, k := range sortedKeys(extra) {
		spec.ExtraConfig = append(spec.ExtraConfig, optionValue(k, extra[k]))
	}
	if keep {
		spec.Uuid, spec.InstanceUuid = c.Uuid, c.InstanceUuid
	}
	disks := map[int32]*types.VirtualDisk{}
	for _, d := range p.disks {
		old, ok := find(c.Hardware.Device, d.Key)
		if !ok {
			return backup.Errorf(backup.RepositoryDamaged, "", "The image holds a disk %d that its VM did not have.", d.Key)
		}
		disks[d.Key] = newDisk(old, d.Capacity, p.at.store.Summary.Name)
	}
	nics := map[int32]types.BaseVirtualDevice{}
	for _, d := range c.Hardware.Device {
		if _, ok := d.(types.BaseVirtualEthernetCard); !ok {
			continue
		}
		key := d.GetVirtualDevice().Key
		if p.machine.Networks[key] == "" {
			p.messages = append(p.messages, fmt.Sprintf("%s was on no network and was left out.", label(d)))
			continue
		}
		backing, err := s.cardBacking(ctx, p.at.networks[p.machine.Networks[key]])
		if err != nil {
			return err
		}
		nics[key] = newCard(d, backing, keep)
	}
	var messages []string
	spec.DeviceChange, messages = newDevices(c, disks, nics)
	p.messages = append(p.messages, messages...)
	if spec.VmProfile = byPolicy(p.policy); spec.VmProfile != nil {
		for _, d := range spec.DeviceChange {
			if v := d.GetVirtualDeviceConfigSpec(); v.FileOperation != "" {
				v.Profile = spec.VmProfile
			}
		}
	}
	p.spec = spec
	return nil
}

func (s *Session) cardBacking(ctx context.Context, network ref) (types.BaseVirtualDeviceBackingInfo, error) {
	n, ok := object.NewReference(s.client, network).(object.NetworkReference)
	if !ok {
		return nil, fmt.Errorf("%s is no network", network)
	}
	return n.EthernetCardBackingInfo(ctx)
}

// load is what importVM needs: a specification, a place, and the disks' bytes.
type load struct {
	spec     types.VirtualMachineConfigSpec
	pool     ref
	folder   ref
	host     ref
	disks    []backup.ImageDisk
	from     backup.ImageReader
	progress func(n int64)
}

func (p *newVM) load(from backup.ImageReader, progress func(int64)) load {
	return load{spec: p.spec, pool: p.at.pool, folder: p.at.folder, host: p.at.host, disks: p.disks, from: from, progress: progress}
}

// importVM makes the VM and sends its disks. On an error nothing of it is left.
func (s *Session) importVM(ctx context.Context, l load) (vm ref, err error) {
	req := &types.ImportVApp{This: l.pool, Spec: &types.VirtualMachineImportSpec{ConfigSpec: l.spec}}
	if l.pool.Type != "VirtualApp" { // what lies in a vApp lies in no folder
		req.Folder = &l.folder
	}
	if l.host != (ref{}) {
		req.Host = &l.host
	}
	res, err := methods.ImportVApp(ctx, s.client, req)
	if err != nil {
		return ref{}, err
	}
	lease, err := s.openLease(ctx, res.Returnval)
	if err != nil {
		return ref{}, err
	}
	vm = lease.info.Entity
	failpoint.Hit("import.made")
	if err = s.send(ctx, lease, l); err == nil {
		failpoint.Hit("import.sent")
		err = lease.complete(ctx)
	}
	if err != nil {
		lease.abort(ctx)
		s.discard(ctx, vm, marked(l.spec))
		return ref{}, err
	}
	return vm, nil
}

// marked is the marker in a specification.
func marked(spec types.VirtualMachineConfigSpec) string { return firstLine(spec.Annotation) }

// send streams all disks, a few at a time.
func (s *Session) send(ctx context.Context, lease *lease, l load) error {
	var vm mo.VirtualMachine
	if err := s.read(ctx, lease.info.Entity, []string{"config.hardware.device"}, &vm); err != nil {
		return err
	}
	made := vm.Config.Hardware.Device
	urls := urlsByDisk(lease.info.DeviceUrl, made)
	var mu sync.Mutex // guards done
	var done, total int64
	for _, d := range l.disks {
		total += d.Capacity
	}
	count := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += n
		lease.percent.Store(int32(min(done*100/max(total, 1), 99)))
		l.progress(done)
	}
	to := make([]types.HttpNfcLeaseDeviceUrl, len(l.disks))
	for i, d := range l.disks {
		var err error
		if to[i], err = urlFor(l.spec, d.Key, made, urls); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(streams)
	for i, d := range l.disks {
		g.Go(func() error {
			r, err := l.from.Disk(ctx, d.Key)
			if err != nil {
				return fmt.Errorf("open %q of the image: %w", d.Label, err)
			}
			err = lease.upload(ctx, to[i], r, count)
			if err != nil {
				err = fmt.Errorf("send %q: %w", d.Label, err)
			}
			return errors.Join(err, r.Close())
		})
	}
	return g.Wait()
}

// urlFor finds the stream of the disk that was asked for with key. The made
// disk may have another key, but it is at the same place.
func urlFor(spec types.VirtualMachineConfigSpec, key int32, made []types.BaseVirtualDevice, urls map[int32]types.HttpNfcLeaseDeviceUrl) (types.HttpNfcLeaseDeviceUrl, error) {
	asked := specDevices(spec)
	want, _ := find(asked, key)
	if want != nil {
		for _, d := range made {
			if disk, ok := d.(*types.VirtualDisk); ok && samePlace(want, asked, disk, made) {
				if u, ok := urls[disk.Key]; ok {
					return u, nil
				}
			}
		}
	}
	return types.HttpNfcLeaseDeviceUrl{}, fmt.Errorf("the import lease has no stream for disk %d among its %d", key, len(urls))
}

func specDevices(spec types.VirtualMachineConfigSpec) []types.BaseVirtualDevice {
	var out []types.BaseVirtualDevice
	for _, c := range spec.DeviceChange {
		out = append(out, c.GetVirtualDeviceConfigSpec().Device)
	}
	return out
}

// samePlace says whether two disks are at the same unit of controllers of the same kind and bus.
func samePlace(a *types.VirtualDisk, as object.VirtualDeviceList, b *types.VirtualDisk, bs object.VirtualDeviceList) bool {
	if a.UnitNumber == nil || b.UnitNumber == nil || *a.UnitNumber != *b.UnitNumber {
		return false
	}
	ca, oka := as.FindByKey(a.ControllerKey).(types.BaseVirtualController)
	cb, okb := bs.FindByKey(b.ControllerKey).(types.BaseVirtualController)
	return oka && okb && ca.GetVirtualController().BusNumber == cb.GetVirtualController().BusNumber && fmt.Sprintf("%T", ca) == fmt.Sprintf("%T", cb)
}

// beside is the path of a file in the folder of the VM's configuration.
func beside(vm mo.VirtualMachine, name string) string {
	return inFolderOf(vm.Config.Files.VmPathName, path.Base(name))
}
