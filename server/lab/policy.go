package lab

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vmware/govmomi/pbm/methods"
	pbm "github.com/vmware/govmomi/pbm/simulator"
	policy "github.com/vmware/govmomi/pbm/types"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// policies are the storage policies of the lab's vCenter. vcsim has the
// policies and forgets to what they are given; this remembers it.
type policies struct {
	*pbm.ProfileManager

	mu sync.Mutex        // guards of
	of map[string]string // policy's id by "vm-42", the VM's home, or "vm-42:2000", a disk
}

// offerPolicies adds the endpoint of the storage policies.
func (l *Lab) offerPolicies() error {
	r := pbm.New()
	m, ok := r.Get(ref{Type: "PbmProfileProfileManager", Value: "ProfileManager"}).(*pbm.ProfileManager)
	if !ok {
		return errors.New("the simulator has no storage policies")
	}
	l.policies.ProfileManager, l.policies.of = m, map[string]string{}
	r.Put(&l.policies)
	l.service.RegisterSDK(r)
	return nil
}

// PbmQueryAssociatedProfiles tells which policies VMs and disks have.
func (p *policies) PbmQueryAssociatedProfiles(q *policy.PbmQueryAssociatedProfiles) soap.HasFault {
	res := &policy.PbmQueryAssociatedProfilesResponse{}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range q.Entities {
		found := policy.PbmQueryProfileResult{Object: e}
		if id, ok := p.of[e.Key]; ok {
			found.ProfileId = []policy.PbmProfileId{{UniqueId: id}}
		}
		res.Returnval = append(res.Returnval, found)
	}
	return &methods.PbmQueryAssociatedProfilesBody{Res: res}
}

// give notes the policies that a VM was made or changed with. A disk that is
// added without one has none, whatever was there before.
func (p *policies) give(vm *simulator.VirtualMachine, home []types.BaseVirtualMachineProfileSpec, changes []types.BaseVirtualDeviceConfigSpec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id := profileID(home); id != "" {
		p.of[vm.Self.Value] = id
	}
	for _, c := range changes {
		s := c.GetVirtualDeviceConfigSpec()
		d, ok := s.Device.(*types.VirtualDisk)
		if !ok {
			continue
		}
		key := fmt.Sprintf("%s:%d", vm.Self.Value, d.Key)
		id := profileID(s.Profile)
		switch {
		case id != "":
			p.of[key] = id
		case s.Operation != types.VirtualDeviceConfigSpecOperationEdit:
			delete(p.of, key)
		}
	}
}

func profileID(list []types.BaseVirtualMachineProfileSpec) string {
	for _, b := range list {
		if d, ok := b.(*types.VirtualMachineDefinedProfileSpec); ok {
			return d.ProfileId
		}
	}
	return ""
}

// StoragePolicies tells the names of a VM's storage policies: of its home under
// key 0, and of its disks by their device keys. What has none is left out.
func (l *Lab) StoragePolicies(vm string) (map[int32]string, error) {
	v, err := l.VM(vm)
	if err != nil {
		return nil, err
	}
	l.policies.mu.Lock()
	defer l.policies.mu.Unlock()
	out := map[int32]string{}
	note := func(key int32, entity string) {
		if id, ok := l.policies.of[entity]; ok {
			out[key] = l.policies.name(id)
		}
	}
	note(0, v.Moid)
	for _, d := range v.Disks {
		note(d.Key, fmt.Sprintf("%s:%d", v.Moid, d.Key))
	}
	return out, nil
}

func (p *policies) name(id string) string {
	body, ok := p.PbmRetrieveContent(&policy.PbmRetrieveContent{ProfileIds: []policy.PbmProfileId{{UniqueId: id}}}).(*methods.PbmRetrieveContentBody)
	if !ok || body.Res == nil || len(body.Res.Returnval) == 0 {
		return id
	}
	return body.Res.Returnval[0].GetPbmProfile().Name
}

// StoragePolicyID tells the id of the storage policy of that name.
func (l *Lab) StoragePolicyID(name string) (string, error) {
	body, ok := l.policies.PbmQueryProfileDetails(&policy.PbmQueryProfileDetails{}).(*methods.PbmQueryProfileDetailsBody)
	if ok && body.Res != nil {
		for _, d := range body.Res.Returnval {
			if p := d.Profile.GetPbmCapabilityProfile(); p.Name == name {
				return p.ProfileId.UniqueId, nil
			}
		}
	}
	return "", fmt.Errorf("there is no storage policy %q", name)
}
