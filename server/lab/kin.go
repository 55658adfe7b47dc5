package lab

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// resolve lets a caller name a cluster by the type from which it is derived, as
// vSphere does, which finds objects by their ids; the simulator wants both.
func resolve(ctx *simulator.Context, m *simulator.Method) {
	var specs []types.PropertyFilterSpec
	switch q := m.Body.(type) {
	case *types.RetrieveProperties:
		specs = q.SpecSet
	case *types.RetrievePropertiesEx:
		specs = q.SpecSet
	}
	for _, s := range specs {
		for i := range s.ObjectSet {
			o := &s.ObjectSet[i].Obj
			cluster := ref{Type: "ClusterComputeResource", Value: o.Value}
			if o.Type == "ComputeResource" && ctx.Map.Get(*o) == nil && ctx.Map.Get(cluster) != nil {
				*o = cluster
			}
		}
	}
}

// FindChild finds an entity by its name.
func (r *router) FindChild(c *simulator.Context, q *types.FindChild) soap.HasFault {
	defer r.l.still()()
	return c.Map.SearchIndex().FindChild(c, q)
}

// FindByInventoryPath finds an entity by the names that lead to it.
func (r *router) FindByInventoryPath(c *simulator.Context, q *types.FindByInventoryPath) soap.HasFault {
	defer r.l.still()()
	return c.Map.SearchIndex().FindByInventoryPath(c, q)
}

// CreateContainerView lists what is below an entity.
func (r *router) CreateContainerView(c *simulator.Context, q *types.CreateContainerView) soap.HasFault {
	defer r.l.still()()
	return c.Map.ViewManager().CreateContainerView(c, q)
}

// FindByUuid finds a VM as FindAllByUuid does; the simulator's own waits for ever.
func (r *router) FindByUuid(c *simulator.Context, q *types.FindByUuid) soap.HasFault {
	all := r.FindAllByUuid(c, &types.FindAllByUuid{This: q.This, Uuid: q.Uuid, VmSearch: q.VmSearch, InstanceUuid: q.InstanceUuid})
	res := new(types.FindByUuidResponse)
	if found := all.(*methods.FindAllByUuidBody).Res.Returnval; len(found) > 0 {
		res.Returnval = &found[0]
	}
	return &methods.FindByUuidBody{Res: res}
}
