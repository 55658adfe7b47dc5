package lab

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// checkPlace refuses a VM whose folder, pool, host, datastore or network does
// not exist, on which vcsim would panic in a goroutine of its own.
func (l *Lab) checkPlace(ctx *simulator.Context, q *types.CreateVM_Task) types.BaseMethodFault {
	wanted := []ref{q.This, q.Pool}
	if q.Host != nil {
		wanted = append(wanted, *q.Host)
	}
	for _, r := range wanted {
		if ctx.Map.Get(r) == nil {
			return &types.ManagedObjectNotFound{Obj: r}
		}
	}
	if q.Config.Files == nil || q.Config.Files.VmPathName == "" {
		return &types.InvalidVmConfig{Property: "configSpec.files.vmPathName"}
	}
	if _, _, err := l.store.spaceOf(q.Config.Files.VmPathName); err != nil {
		return &types.InvalidDatastorePath{DatastorePath: q.Config.Files.VmPathName}
	}
	return l.checkDevices(q.Config.DeviceChange)
}

// checkDevices refuses devices whose datastore or network does not exist.
func (l *Lab) checkDevices(changes []types.BaseVirtualDeviceConfigSpec) types.BaseMethodFault {
	for i, dc := range changes {
		s := dc.GetVirtualDeviceConfigSpec()
		if s.Device == nil {
			return &types.InvalidDeviceSpec{DeviceIndex: int32(i)}
		}
		if s.Operation == types.VirtualDeviceConfigSpecOperationRemove {
			continue
		}
		switch b := s.Device.GetVirtualDevice().Backing.(type) {
		case *types.VirtualDiskFlatVer2BackingInfo:
			if _, _, err := l.store.spaceOf(b.FileName); b.FileName != "" && err != nil {
				return &types.InvalidDatastorePath{DatastorePath: b.FileName}
			}
		case *types.VirtualEthernetCardNetworkBackingInfo:
			if !l.place.networks[b.DeviceName] {
				return &types.InvalidDeviceBacking{InvalidDeviceSpec: types.InvalidDeviceSpec{DeviceIndex: int32(i)}}
			}
		case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
			if !l.place.portgroups[b.Port.PortgroupKey] {
				return &types.InvalidDeviceBacking{InvalidDeviceSpec: types.InvalidDeviceSpec{DeviceIndex: int32(i)}}
			}
		}
	}
	return nil
}
