package vsphere

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// MachineConfig is what an image keeps of a VM besides its disks: enough to
// make it again in a vcenter that has never seen it. It is part of the image's
// format: fields are added, never changed.
type MachineConfig struct {
	Version          int               `json:"version"`
	Name             string            `json:"name"`
	Datacenter       string            `json:"datacenter,omitempty"` // inventory path
	Folder           string            `json:"folder,omitempty"`     // inventory path
	ResourcePool     string            `json:"resource_pool,omitempty"`
	Host             string            `json:"host,omitempty"`
	PowerState       backup.PowerState `json:"power_state"`
	Template         bool              `json:"template,omitempty"`
	Tags             []backup.Tag      `json:"tags,omitempty"`
	CustomAttributes map[string]string `json:"custom_attributes,omitempty"`
	Networks         map[int32]string  `json:"networks,omitempty"` // name by network card's device key
	NVRAMFile        string            `json:"nvram_file,omitempty"`
	Guest            GuestSummary      `json:"guest"`

	// Config is vSphere's VirtualMachineConfigInfo in its JSON form, types included.
	Config json.RawMessage `json:"config"`
}

// GuestSummary is what the tools told of the guest. It is kept for people to read.
type GuestSummary struct {
	FullName     string   `json:"full_name,omitempty"`
	HostName     string   `json:"host_name,omitempty"`
	IPs          []string `json:"ips,omitempty"`
	ToolsVersion string   `json:"tools_version,omitempty"`
	ToolsStatus  string   `json:"tools_status,omitempty"`
}

// machineVersion is the MachineConfig that this kura writes; a greater one is refused.
const machineVersion = 1

var machineProperties = []string{
	"name", "parent", "parentVApp", "resourcePool", "datastore", "network", "config", "runtime", "guest", "snapshot",
	"layoutEx", "customValue", "availableField",
}

// Machine implements [backup.VSphereSession].
func (s *Session) Machine(ctx context.Context, moid string) (backup.Machine, error) {
	vm, err := s.vm(ctx, moid, machineProperties)
	if err != nil {
		return backup.Machine{}, err
	}
	m, config, err := s.machine(ctx, vm)
	if err != nil {
		return backup.Machine{}, s.problem("read the VM "+moid, err)
	}
	if file := nvramFile(vm); file != "" {
		m.NVRAM, err = s.readFile(ctx, config.Datacenter, file)
		if err != nil && ctx.Err() == nil {
			m.Warnings = append(m.Warnings, fmt.Sprintf("The NVRAM %s could not be read, so it is not in the image: %v.", file, err))
			config.NVRAMFile = ""
		}
	}
	if m.Config, err = json.Marshal(config); err != nil {
		return backup.Machine{}, fmt.Errorf("encode the configuration of %s: %w", moid, err)
	}
	return m, ctx.Err()
}

// vm reads properties of a VM. It needs "config" among them to be of use.
func (s *Session) vm(ctx context.Context, moid string, properties []string) (mo.VirtualMachine, error) {
	var vm mo.VirtualMachine
	if err := s.read(ctx, vmRef(moid), properties, &vm); err != nil {
		return vm, s.problem("read the VM "+moid, err)
	}
	if vm.Config == nil && len(properties) > 0 {
		return vm, backup.Errorf(backup.Unavailable, "", "vSphere does not show the configuration of the VM %s: its host or its datastore is not reachable.", moid)
	}
	return vm, nil
}

func vmRef(moid string) ref { return ref{Type: "VirtualMachine", Value: moid} }

// machine makes of vSphere's view all but the NVRAM.
func (s *Session) machine(ctx context.Context, vm mo.VirtualMachine) (backup.Machine, MachineConfig, error) {
	f, ok := newFound(vm)
	if !ok {
		return backup.Machine{}, MachineConfig{}, backup.Errorf(backup.Unavailable, "", "The VM %s is still being made.", vm.Self.Value)
	}
	named := append([]ref{f.folder, f.pool, f.host}, vm.Datastore...)
	where, err := s.placesOf(ctx, append(named, vm.Network...)...)
	if err != nil {
		return backup.Machine{}, MachineConfig{}, err
	}
	f.settle(where, map[ref]string{})
	f.judge(s.transport())
	if f.vm.Tags, err = s.tags.of(ctx, vm.Self); err != nil {
		return backup.Machine{}, MachineConfig{}, fmt.Errorf("read its tags: %w", err)
	}
	m := backup.Machine{VirtualMachine: f.vm, ConsolidationNeeded: yes(vm.Runtime.ConsolidationNeeded)}
	if vm.Snapshot != nil {
		m.SnapshotNames, m.SnapshotDepth = snapshotNames(vm.Snapshot.RootSnapshotList)
	}
	if m.FreeBytes, err = s.freeBytes(ctx, vm.Datastore); err != nil {
		return backup.Machine{}, MachineConfig{}, err
	}
	config := MachineConfig{
		Version: machineVersion, Name: f.vm.Name, Folder: f.vm.Folder, ResourcePool: f.vm.ResourcePool, Host: f.vm.Host,
		PowerState: f.vm.PowerState, Template: f.vm.Template, Tags: f.vm.Tags, Networks: map[int32]string{}, Guest: guestOf(vm),
		CustomAttributes: attributes(vm),
	}
	if dc, ok := where.up(f.folder, "Datacenter"); ok {
		config.Datacenter = where.path(dc)
	}
	for _, n := range f.vm.NICs {
		config.Networks[n.Key] = n.Network
	}
	if file := nvramFile(vm); file != "" {
		config.NVRAMFile = path.Base(file)
	}
	config.Config, err = encodeVim(vm.Config)
	return m, config, err
}

func (s *Session) freeBytes(ctx context.Context, stores []ref) (map[string]int64, error) {
	free := map[string]int64{}
	if len(stores) == 0 {
		return free, nil
	}
	var list []mo.Datastore
	if err := property.DefaultCollector(s.client).Retrieve(ctx, stores, []string{"summary"}, &list); err != nil {
		return nil, err
	}
	for _, d := range list {
		free[d.Summary.Name] = d.Summary.FreeSpace
	}
	return free, nil
}

func guestOf(vm mo.VirtualMachine) GuestSummary {
	g := GuestSummary{FullName: vm.Config.GuestFullName}
	if vm.Guest == nil {
		return g
	}
	g.HostName, g.ToolsVersion, g.ToolsStatus = vm.Guest.HostName, vm.Guest.ToolsVersion, vm.Guest.ToolsRunningStatus
	for _, n := range vm.Guest.Net {
		g.IPs = append(g.IPs, n.IpAddress...)
	}
	return g
}

// attributes are the custom attributes by name.
func attributes(vm mo.VirtualMachine) map[string]string {
	out := map[string]string{}
	for _, v := range vm.CustomValue {
		value, ok := v.(*types.CustomFieldStringValue)
		if !ok {
			continue
		}
		for _, f := range vm.AvailableField {
			if f.Key == value.Key {
				out[f.Name] = value.Value
			}
		}
	}
	return out
}

// nvramFile is the datastore path of the VM's NVRAM; "" when there is none.
func nvramFile(vm mo.VirtualMachine) string {
	if vm.LayoutEx != nil {
		for _, f := range vm.LayoutEx.File {
			if f.Type == string(types.VirtualMachineFileLayoutExFileTypeNvram) {
				return f.Name
			}
		}
	}
	for _, o := range vm.Config.ExtraConfig {
		v := o.GetOptionValue()
		if name, ok := v.Value.(string); ok && v.Key == "nvram" && name != "" {
			return inFolderOf(vm.Config.Files.VmPathName, name)
		}
	}
	return ""
}

// inFolderOf is the datastore path of name beside the file.
func inFolderOf(file, name string) string {
	var p object.DatastorePath
	if !p.FromString(file) {
		return ""
	}
	p.Path = path.Join(path.Dir(p.Path), name)
	return p.String()
}

// encodeVim writes a vSphere object with the names of its types, so that
// devices come back as what they were.
func encodeVim(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	if err := types.NewJSONEncoder(&b).Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// decodeMachine reads what an image kept. The decoder of vSphere's types panics
// where a value is not of the type that its place has.
func decodeMachine(raw json.RawMessage) (m MachineConfig, config *types.VirtualMachineConfigInfo, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = backup.Errorf(backup.RepositoryDamaged, "", "The image's VM configuration cannot be read.").Because(fmt.Errorf("decode: %v", p))
		}
	}()
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, nil, backup.Errorf(backup.RepositoryDamaged, "", "The image's VM configuration cannot be read.").Because(err)
	}
	if m.Version > machineVersion {
		return m, nil, invalid("image_id", "The image's VM configuration has version %d; this kura reads up to %d: use a newer one.", m.Version, machineVersion)
	}
	var c types.VirtualMachineConfigInfo
	if err := types.NewJSONDecoder(strings.NewReader(string(m.Config))).Decode(&c); err != nil {
		return m, nil, backup.Errorf(backup.RepositoryDamaged, "", "The image's VM configuration cannot be read.").Because(err)
	}
	return m, &c, nil
}

// snapshotNames lists the tree depth first, with the length of its longest branch.
func snapshotNames(trees []types.VirtualMachineSnapshotTree) (names []string, depth int) {
	for _, t := range trees {
		below, d := snapshotNames(t.ChildSnapshotList)
		names = append(append(names, unescapeName(t.Name)), below...)
		depth = max(depth, d+1)
	}
	return names, depth
}
