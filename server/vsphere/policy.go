package vsphere

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vmware/govmomi/pbm"
	policy "github.com/vmware/govmomi/pbm/types"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// policies is a conversation with the vcenter's storage policies. A single
// host has none.
func (s *Session) policies(ctx context.Context) (*pbm.Client, error) {
	c, err := pbm.NewClient(ctx, s.client)
	if err != nil {
		return nil, fmt.Errorf("connect to the storage policies: %w", err)
	}
	return c, nil
}

// hasPolicies says whether the endpoint is a vCenter.
func (s *Session) hasPolicies() bool {
	return s.client.ServiceContent.About.ApiType == "VirtualCenter"
}

// storagePolicy finds a storage policy by name or id.
func (s *Session) storagePolicy(ctx context.Context, want string) (id string, err error) {
	if !s.hasPolicies() {
		return "", invalid("new_vm.storage_policy", "%s is a single host and has no storage policies: name a datastore instead.", s.host)
	}
	c, err := s.policies(ctx)
	if err != nil {
		return "", err
	}
	all, err := c.ProfileMap(ctx)
	if err != nil {
		return "", fmt.Errorf("read the storage policies: %w", err)
	}
	for name, p := range all.Name {
		if id := p.GetPbmProfile().ProfileId.UniqueId; name == want || id == want {
			return id, nil
		}
	}
	return "", invalid("new_vm.storage_policy", "There is no storage policy %q. There are: %s.", want, strings.Join(slices.Sorted(maps.Keys(all.Name)), ", "))
}

// suitable are the datastores on which the policy can be kept.
func (s *Session) suitable(ctx context.Context, id string, t *site) (map[ref]bool, error) {
	c, err := s.policies(ctx)
	if err != nil {
		return nil, err
	}
	var hubs []policy.PbmPlacementHub
	for _, d := range t.stores {
		hubs = append(hubs, policy.PbmPlacementHub{HubType: d.Self.Type, HubId: d.Self.Value})
	}
	found, err := c.CheckRequirements(ctx, hubs, nil, []policy.BasePbmPlacementRequirement{
		&policy.PbmPlacementCapabilityProfileRequirement{ProfileId: policy.PbmProfileId{UniqueId: id}},
	})
	if err != nil {
		return nil, fmt.Errorf("ask which datastores suit the storage policy: %w", err)
	}
	out := map[ref]bool{}
	for _, h := range found.CompatibleDatastores() {
		out[ref{Type: h.HubType, Value: h.HubId}] = true
	}
	return out, nil
}

// policiesOf tells which storage policies disks of a VM have, by device key.
func (s *Session) policiesOf(ctx context.Context, vm ref, disks []int32) (map[int32]string, error) {
	if !s.hasPolicies() || len(disks) == 0 {
		return nil, nil
	}
	c, err := s.policies(ctx)
	if err != nil {
		return nil, err
	}
	var entities []policy.PbmServerObjectRef
	for _, key := range disks {
		entities = append(entities, policy.PbmServerObjectRef{
			ObjectType: string(policy.PbmObjectTypeVirtualDiskId), Key: fmt.Sprintf("%s:%d", vm.Value, key), ServerUuid: s.client.ServiceContent.About.InstanceUuid,
		})
	}
	found, err := c.QueryAssociatedProfiles(ctx, entities)
	if err != nil {
		return nil, fmt.Errorf("read the disks' storage policies: %w", err)
	}
	out := map[int32]string{}
	for i, e := range entities {
		for _, f := range found {
			if f.Object.Key == e.Key && len(f.ProfileId) > 0 {
				out[disks[i]] = f.ProfileId[0].UniqueId
			}
		}
	}
	return out, nil
}

// byPolicy is how a specification names a storage policy; nil for none.
func byPolicy(id string) []types.BaseVirtualMachineProfileSpec {
	if id == "" {
		return nil
	}
	return []types.BaseVirtualMachineProfileSpec{&types.VirtualMachineDefinedProfileSpec{ProfileId: id}}
}

// unsuitable refuses a datastore on which the policy cannot be kept.
func unsuitable(policy, store string, t *site, suits map[ref]bool) error {
	var names []string
	for _, d := range t.stores {
		if suits[d.Self] {
			names = append(names, d.Summary.Name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		names = []string{"none"}
	}
	return backup.Errorf(backup.Invalid, "new_vm.storage_policy", "The storage policy %q cannot be kept on the datastore %s. It can on: %s.", policy, store, strings.Join(names, ", "))
}
