package vsphere

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// site is what a vcenter has besides VMs: where a new one can be put.
type site struct {
	places
	datacenters []mo.Datacenter
	folders     []ref // that may hold VMs
	pools       []ref
	computes    []compute // clusters and single hosts
	hosts       []mo.HostSystem
	stores      []mo.Datastore
}

// compute is a cluster or a single host.
type compute struct {
	self, pool ref
}

// siteSpecs are the properties that a placement needs, by kind.
var siteSpecs = map[string][]string{
	"Datacenter":      {"name", "parent", "vmFolder"},
	"Folder":          {"name", "parent", "childType"},
	"StoragePod":      {"name", "parent"},
	"ComputeResource": {"name", "parent", "resourcePool"},
	"ResourcePool":    {"name", "parent"},
	"HostSystem":      {"name", "parent", "runtime.connectionState", "runtime.inMaintenanceMode", "datastore", "network"},
	"Datastore":       {"name", "parent", "summary"},
	"Network":         {"name", "parent"},
}

// site reads the vcenter's places in one call.
func (s *Session) site(ctx context.Context) (*site, error) {
	kinds := make([]string, 0, len(siteSpecs))
	specs := make([]types.PropertySpec, 0, len(siteSpecs))
	for k, paths := range siteSpecs {
		kinds = append(kinds, k)
		specs = append(specs, types.PropertySpec{Type: k, PathSet: paths})
	}
	list, err := s.survey(ctx, kinds, specs)
	if err != nil {
		return nil, err
	}
	t := &site{places: s.newPlaces()}
	for _, o := range list {
		t.takeProperties(o)
		if err := t.sort(o); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(t.computes, func(a, b compute) int { return cmp.Compare(t.path(a.self), t.path(b.self)) })
	return t, nil
}

// survey retrieves properties of all entities of some kinds. The view that
// lists them ends with the session: then it is made anew.
func (s *Session) survey(ctx context.Context, kinds []string, specs []types.PropertySpec) ([]types.ObjectContent, error) {
	list, view, err := s.view(ctx, kinds, specs)
	if f, lost := faultOf[*types.ManagedObjectNotFound](err); lost && f.Obj == view {
		list, _, err = s.view(ctx, kinds, specs)
	}
	return list, err
}

func (s *Session) view(ctx context.Context, kinds []string, specs []types.PropertySpec) ([]types.ObjectContent, ref, error) {
	res, err := methods.CreateContainerView(ctx, s.client, &types.CreateContainerView{
		This: *s.client.ServiceContent.ViewManager, Container: s.client.ServiceContent.RootFolder, Type: kinds, Recursive: true,
	})
	if err != nil {
		return nil, ref{}, err
	}
	view := res.Returnval
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.DialTimeout)
		defer cancel()
		_, _ = methods.DestroyView(ctx, s.client, &types.DestroyView{This: view}) // it ends with the session anyway
	}()
	found, err := property.DefaultCollector(s.client).RetrieveProperties(ctx, types.RetrieveProperties{SpecSet: []types.PropertyFilterSpec{{
		PropSet: specs,
		ObjectSet: []types.ObjectSpec{{
			Obj: view, Skip: types.NewBool(true),
			SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{Type: "ContainerView", Path: "view"}},
		}},
	}}})
	if err != nil {
		return nil, view, err
	}
	return found.Returnval, view, nil
}

func (t *site) sort(o types.ObjectContent) error {
	o.MissingSet = nil // what one may not see one cannot choose
	content := []types.ObjectContent{o}
	switch o.Obj.Type {
	case "Datacenter":
		return mo.LoadObjectContent(content, &t.datacenters)
	case "HostSystem":
		return mo.LoadObjectContent(content, &t.hosts)
	case "Datastore":
		return mo.LoadObjectContent(content, &t.stores)
	case "ResourcePool", "VirtualApp":
		t.pools = append(t.pools, o.Obj)
	case "Folder":
		for _, p := range o.PropSet {
			if a, ok := p.Val.(types.ArrayOfString); ok && p.Name == "childType" && slices.Contains(a.String, "VirtualMachine") {
				t.folders = append(t.folders, o.Obj)
			}
		}
	case "ComputeResource", "ClusterComputeResource":
		for _, p := range o.PropSet {
			if pool, ok := p.Val.(ref); ok && p.Name == "resourcePool" {
				t.computes = append(t.computes, compute{o.Obj, pool})
			}
		}
	}
	return nil
}

// pick finds what the user names: by inventory path, or by name where that is clear.
func (t *site) pick(field, kind, want string, among []ref) (ref, error) {
	var hits []ref
	for _, r := range among {
		path := t.path(r)
		name := t.places[r].name
		if want == path || want == name || want == unescapeName(name) || strings.HasSuffix(path, "/"+strings.TrimPrefix(want, "/")) {
			hits = append(hits, r)
		}
	}
	if exact := slices.IndexFunc(hits, func(r ref) bool { return t.path(r) == want }); exact >= 0 {
		return hits[exact], nil
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		return ref{}, invalid(field, "There is no %s %q. There are: %s.", kind, want, t.list(among))
	}
	return ref{}, invalid(field, "The %s %q is not clear, give its inventory path: %s.", kind, want, t.list(hits))
}

// list names entities for a message.
func (t *site) list(among []ref) string {
	const most = 20
	names := make([]string, 0, len(among))
	for _, r := range among {
		names = append(names, t.path(r))
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "none"
	}
	if len(names) > most {
		names = append(names[:most], "and more")
	}
	return strings.Join(names, ", ")
}

// datacenterOf is the datacenter that an entity lies in.
func (t *site) datacenterOf(r ref) ref {
	dc, _ := t.up(r, "Datacenter")
	return dc
}

// within keeps what lies in the datacenter; all when none is given.
func (t *site) within(dc ref, list []ref) []ref {
	if dc == (ref{}) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(r ref) bool { return t.datacenterOf(r) != dc })
}

func (t *site) store(r ref) (mo.Datastore, bool) {
	i := slices.IndexFunc(t.stores, func(d mo.Datastore) bool { return d.Self == r })
	if i < 0 {
		return mo.Datastore{}, false
	}
	return t.stores[i], true
}

// usable are the compute's hosts that can take a VM.
func (t *site) usable(c compute) []mo.HostSystem {
	var out []mo.HostSystem
	for _, h := range t.hosts {
		state := h.Runtime.ConnectionState
		if deref(h.Parent) == c.self && (state == "" || state == types.HostSystemConnectionStateConnected) && !h.Runtime.InMaintenanceMode {
			out = append(out, h)
		}
	}
	return out
}
