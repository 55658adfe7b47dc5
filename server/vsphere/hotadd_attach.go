package vsphere

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// attachedKey is the entry of a proxy VM's extra configuration in which kura
// writes down which disks of other VMs it attaches. It is written before they
// are attached and removed when they are detached, so nothing can be forgotten.
const attachedKey = "kura.attached"

// attachment is a set of disks of one VM on a proxy, as the proxy itself remembers it.
type attachment struct {
	Marker string   `json:"marker"`
	VM     string   `json:"vm"` // moid of the VM whose disks they are
	UUIDs  []string `json:"uuids"`
	Files  []string `json:"files"`
}

// ours says whether a disk of the proxy is one of the attachment. What is not
// independent was never attached by kura.
func (a attachment) ours(d types.BaseVirtualDevice) bool {
	disk, ok := d.(*types.VirtualDisk)
	if !ok {
		return false
	}
	b, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok || !strings.HasPrefix(b.DiskMode, "independent_") {
		return false
	}
	return slices.Contains(a.Files, b.FileName) || slices.ContainsFunc(a.UUIDs, func(u string) bool { return u != "" && strings.EqualFold(u, b.Uuid) })
}

func decodeAttached(s string) ([]attachment, error) {
	var list []attachment
	if s == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(s), &list); err != nil {
		return nil, fmt.Errorf("read %s of the VM: %w", attachedKey, err)
	}
	return list, nil
}

func encodeAttached(list []attachment) (types.BaseOptionValue, error) {
	if len(list) == 0 {
		return optionValue(attachedKey, ""), nil
	}
	b, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", attachedKey, err)
	}
	return optionValue(attachedKey, string(b)), nil
}

// changeProxy changes a proxy by what fn makes of it as it stands. Others may
// change it as well, so fn is asked again when it was not as fn had seen it.
// What blocks it is waited for as long as patience lasts.
// The change is refused by vSphere, not merged, if the proxy has moved on.
func (s *Session) changeProxy(ctx context.Context, proxy ref, patience time.Duration, fn func(*types.VirtualMachineConfigInfo) (types.VirtualMachineConfigSpec, error)) error {
	return s.insist(ctx, patience, func() error {
		var vm mo.VirtualMachine
		if err := s.read(ctx, proxy, []string{"config"}, &vm); err != nil {
			return err
		}
		if vm.Config == nil {
			return backup.Errorf(backup.Unavailable, "", "vSphere does not show the configuration of kura's VM %s.", proxy.Value)
		}
		spec, err := fn(vm.Config)
		if err != nil || (len(spec.ExtraConfig) == 0 && len(spec.DeviceChange) == 0) {
			return err
		}
		spec.ChangeVersion = vm.Config.ChangeVersion
		res, err := methods.ReconfigVM_Task(ctx, s.client, &types.ReconfigVM_Task{This: proxy, Spec: spec})
		if err == nil {
			_, err = s.finish(ctx, res.Returnval)
		}
		return err
	})
}

// attach writes the intent onto the proxy and attaches the disks, all of them in one call.
func (s *Session) attach(ctx context.Context, proxy ref, w writeDraft, mode types.VirtualDiskMode) (attachment, error) {
	a := attachment{Marker: w.Marker, VM: w.MOID}
	for _, d := range w.Disks {
		a.UUIDs, a.Files = append(a.UUIDs, d.UUID), append(a.Files, d.File)
	}
	err := s.changeProxy(ctx, proxy, s.config.attachPatience(), func(c *types.VirtualMachineConfigInfo) (spec types.VirtualMachineConfigSpec, err error) {
		list, err := decodeAttached(extra(c, attachedKey))
		if err == nil {
			err = a.ambiguous(c.Hardware.Device, list)
		}
		if err != nil {
			return spec, err
		}
		entry, err := encodeAttached(append(list, a))
		spec.ExtraConfig = []types.BaseOptionValue{entry}
		return spec, err
	})
	if err != nil {
		return attachment{}, fmt.Errorf("note on kura's VM what is going to be attached: %w", err)
	}
	failpoint.Hit("hotadd.intended")
	s.seen.add(proxy)
	began := time.Now()
	for n := 0; ; n++ {
		err = s.changeProxy(ctx, proxy, s.config.attachPatience(), func(c *types.VirtualMachineConfigInfo) (types.VirtualMachineConfigSpec, error) {
			return attachSpec(c.Hardware.Device, w.Disks, mode)
		})
		if backup.CodeOf(err) != backup.Unavailable || !s.pause(ctx, n, began, s.config.attachPatience()) {
			failpoint.Hit("hotadd.attached")
			return a, err
		}
	}
}

// ambiguous says whether the guest of a proxy could take another of its disks for one of these.
func (a attachment) ambiguous(devices []types.BaseVirtualDevice, attached []attachment) error {
	for _, d := range devices {
		have, ok := d.(*types.VirtualDisk)
		if !ok {
			continue
		}
		uuid, _ := backing(have)
		if !slices.ContainsFunc(a.UUIDs, func(u string) bool { return strings.EqualFold(u, uuid) }) {
			continue
		}
		for _, other := range attached {
			if other.ours(d) {
				return backup.Errorf(backup.VMBusy, "transport", "The disk %s is attached to kura's VM for %s, which has not ended or has left it there; a sweep detaches it.", uuid, other.Marker)
			}
		}
		return noHotAdd("kura's VM has a disk with the same UUID %s already (%q, %s), so the guest could not tell them apart.", uuid, label(have), fileOf(have))
	}
	return nil
}

// attachSpec attaches disks by the files that they have. There is no file
// operation in it: nothing is made, and nothing may go when it is undone.
func attachSpec(devices []types.BaseVirtualDevice, disks []writeDisk, mode types.VirtualDiskMode) (types.VirtualMachineConfigSpec, error) {
	var spec types.VirtualMachineConfigSpec
	places, controllers, err := freePlaces(devices, len(disks))
	if err != nil {
		return spec, backup.Errorf(backup.Unavailable, "transport", "No more disks can be attached to kura's VM: %v.", err)
	}
	for _, c := range controllers {
		spec.DeviceChange = append(spec.DeviceChange, add(c, ""))
	}
	for i, d := range disks {
		spec.DeviceChange = append(spec.DeviceChange, add(&types.VirtualDisk{
			VirtualDevice: types.VirtualDevice{
				Key: -200 - int32(i), ControllerKey: places[i].controller, UnitNumber: types.NewInt32(places[i].unit),
				Backing: &types.VirtualDiskFlatVer2BackingInfo{
					VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: d.File},
					DiskMode:                     string(mode),
				},
			},
			CapacityInBytes: d.Capacity, CapacityInKB: d.Capacity / 1024,
		}, ""))
	}
	return spec, nil
}

// detach takes an attachment off a proxy and then strikes it out. It never
// deletes a file. What is not there is no error.
func (s *Session) detach(ctx context.Context, proxy ref, patience time.Duration, gone func(attachment) bool) error {
	err := s.changeProxy(ctx, proxy, patience, func(c *types.VirtualMachineConfigInfo) (spec types.VirtualMachineConfigSpec, err error) {
		list, err := decodeAttached(extra(c, attachedKey))
		for _, a := range list {
			for _, d := range c.Hardware.Device {
				if gone(a) && a.ours(d) {
					spec.DeviceChange = append(spec.DeviceChange, remove(d.(*types.VirtualDisk)))
				}
			}
		}
		return spec, err
	})
	if err == nil {
		failpoint.Hit("hotadd.detached")
		err = s.changeProxy(ctx, proxy, patience, func(c *types.VirtualMachineConfigInfo) (spec types.VirtualMachineConfigSpec, err error) {
			list, err := decodeAttached(extra(c, attachedKey))
			if err != nil || !slices.ContainsFunc(list, gone) {
				return spec, err
			}
			entry, err := encodeAttached(slices.DeleteFunc(list, gone))
			spec.ExtraConfig = []types.BaseOptionValue{entry}
			return spec, err
		})
	}
	if _, lost := faultOf[*types.ManagedObjectNotFound](err); lost {
		return nil // the proxy is gone, and with it what hung on it
	}
	return err
}

// detachOf detaches, from all proxies that are known, what carries the marker:
// a snapshot must not be removed from under a disk that is attached.
func (s *Session) detachOf(ctx context.Context, marker string, patience time.Duration) error {
	if err := s.knowOwn(ctx); err != nil {
		return err
	}
	for _, proxy := range s.seen.list() {
		if err := s.detach(ctx, proxy, patience, func(a attachment) bool { return a.Marker == marker }); err != nil {
			return fmt.Errorf("detach what %s had attached to %s: %w", marker, proxy.Value, err)
		}
	}
	return nil
}

// knowOwn makes sure that this server's own VM is among the proxies that are
// known: it may have attached disks before it was started anew.
func (s *Session) knowOwn(ctx context.Context) error {
	if s.config.ProxyUUID == "" || s.seen.own.Load() {
		return nil
	}
	list, err := s.proxies(ctx)
	if err != nil {
		return err
	}
	for _, proxy := range list {
		s.seen.add(proxy)
	}
	s.seen.own.Store(true)
	return nil
}

// detachFrom detaches, from whatever VM, the disks of one VM that this
// installation has attached there. It looks at all VMs, for when a server that
// died on another proxy keeps a snapshot from being consolidated.
func (s *Session) detachFrom(ctx context.Context, installation, moid string, patience time.Duration) error {
	vms, err := s.suspects(ctx)
	if err != nil {
		return err
	}
	for _, v := range vms {
		if v.attached == "" {
			continue
		}
		s.seen.add(v.self)
		err := s.detach(ctx, v.self, patience, func(a attachment) bool {
			m, ok := parseMarker(a.Marker)
			return ok && m.installation == installation && a.VM == moid
		})
		if err != nil {
			return fmt.Errorf("detach disks of %s from %s: %w", moid, v.self.Value, err)
		}
	}
	return nil
}

// attachedDisks counts the disks of others on the proxies that are known, by moid.
func (s *Session) attachedDisks(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	for _, proxy := range s.seen.list() {
		var vm mo.VirtualMachine
		err := s.read(ctx, proxy, []string{"config"}, &vm)
		if _, gone := faultOf[*types.ManagedObjectNotFound](err); gone || (err == nil && vm.Config == nil) {
			continue
		}
		if err != nil {
			return nil, s.problem("read the VM "+proxy.Value, err)
		}
		counts[proxy.Value] = len(vm.Config.Hardware.Device) - len(ownDevices(vm.Config))
	}
	return counts, nil
}
